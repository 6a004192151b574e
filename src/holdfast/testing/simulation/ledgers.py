"""SQLite as it is, under simulated processes: what its commits make durable, and connections that outlive a process.

Opening a connection, reading the schema and preparing statements costs more than most turns do. A connection of an
ended process is handed to the next one, also in the next run on the same ground, when the ledger's bytes have been put
back underneath: SQLite looks at the head of its log's index before each transaction, and reads the log anew where that
head is not whole, as after a power loss. Nothing of a process but pages, schema and statements is taken along.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.store.embedded.machine import LEDGER_OPTIONS
from holdfast.testing.simulation.disk import LEDGER
from holdfast.testing.simulation.scheduler import DeadError

if TYPE_CHECKING:
    from holdfast.testing.simulation.machine import SimMachine


_FLAGS = ("pragma foreign_keys=on", "pragma query_only=1")
"""What `schema.connect` asks of each connection, and nobody ever takes back."""


class Ledgers:
    """Every connection to the ledgers of one place."""

    def __init__(self) -> None:
        self._idle: list[LedgerConnection] = []
        self._in_use: set[LedgerConnection] = set()
        self._observer: tuple[tuple[str, int], sqlite3.Connection] | None = None
        self._beneath = b""  # the ledger when its log was last changed by hand

    def take(self, where: str | Path, *, is_uri: bool, root: Path) -> LedgerConnection:
        """One that nobody uses, to the file that is there, under this very name; else a new one."""
        opened_as = (str(where), _inode(root))
        for connection in self._idle:
            if connection.opened_as == opened_as:
                self._idle.remove(connection)
                break
        else:
            connection = sqlite3.connect(where, **LEDGER_OPTIONS, uri=is_uri, factory=LedgerConnection)
            connection.opened_as, connection._flags = (str(where), _inode(root)), set()  # pyright: ignore[reportPrivateUsage]
        self._in_use.add(connection)
        return connection

    def give_back(self, connection: LedgerConnection) -> bool:
        """Its process has ended or has closed it. Returns whether it was the last one in use."""
        connection.abandon()
        self._in_use.discard(connection)
        self._idle.append(connection)
        return not self._in_use

    def observer(self, root: Path) -> sqlite3.Connection:
        """For whoever looks at the ledger from outside, as any reader of the file would. It is not to be closed.

        Raises sqlite3.DatabaseError: it cannot be opened.
        """
        opened_as = (str(root), _inode(root))
        if self._observer is None or self._observer[0] != opened_as:
            connection = sqlite3.connect(root / LEDGER, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            if self._observer is not None:
                self._observer[1].close()
            self._observer = ((str(root), _inode(root)), connection)
        return self._observer[1]

    def begin_anew(self, root: Path, ledger: bytes) -> bool:
        """Put the bytes of a ledger without a log in the place of those that are there, for another run.

        Returns whether that could be done. If not, nothing has been: the file is not the one that is open everywhere.
        """
        return self._is_one_file(root) and self._put(root, ledger, b"", is_there=False)

    def lose_power(self, root: Path, ledger: bytes, log: bytes) -> bool:
        """Cut the log as a power loss has; `ledger` is what stands in the ledger itself. Returns as `begin_anew`."""
        return self._is_one_file(root) and self._put(root, ledger, log, is_there=True)

    def _is_one_file(self, root: Path) -> bool:
        opened = {connection.opened_as[1] for connection in (*self._idle, *self._in_use)}
        if self._observer is not None:
            opened.add(self._observer[0][1])
        return opened == {_inode(root)}

    def _put(self, root: Path, ledger: bytes, log: bytes, *, is_there: bool) -> bool:
        if not is_there:
            _overwrite(root / LEDGER, ledger)
        _overwrite(root / f"{LEDGER}-wal", log)
        index = root / f"{LEDGER}-shm"
        if index.exists():
            _overwrite(index, bytes(index.stat().st_size))  # not shorter: it is mapped into memory
        if ledger != self._beneath:
            # The head of an empty log is always the same: a page read beneath an earlier one would be taken for new.
            for connection in (*self._idle, *([self._observer[1]] if self._observer is not None else ())):
                sqlite3.Connection.execute(connection, "pragma shrink_memory")
            self._beneath = ledger
        return True

    def close(self) -> None:
        for connection in (*self._idle, *self._in_use):
            connection.abandon()
            sqlite3.Connection.close(connection)
        self._idle.clear()
        self._in_use.clear()
        if self._observer is not None:
            self._observer[1].close()
            self._observer = None


def _inode(root: Path) -> int:
    """Of the ledger that is there; 0: none."""
    try:
        return os.stat(root / LEDGER).st_ino
    except FileNotFoundError:
        return 0


def _overwrite(path: Path, content: bytes) -> None:
    """The same file, with this content. Closing it lets go of SQLite's locks on it, which hold between processes only
    and not between the connections of one.
    """
    if not content and not path.exists():
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


class LedgerConnection(sqlite3.Connection):
    """SQLite as it is, on a machine that may fail or die at a commit, and a disk that remembers what is synced."""

    opened_as: tuple[str, int]
    """By which name, and which file it was."""
    _flags: set[str]
    _machine: SimMachine
    _cursors: list[weakref.ref[sqlite3.Cursor]]

    def begin_on(self, machine: SimMachine) -> None:
        """From now on it is a connection of this machine's process."""
        machine.connections.append(self)
        self._machine = machine
        self._full = True
        self._changed_before = 0
        self._cursors = []

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self._machine.host.dead:
            raise DeadError
        if sql == "commit":
            return self._commit()
        if sql.startswith("pragma synchronous="):
            self._full = sql.endswith("full")
        elif sql == "begin immediate":
            self._changed_before = self.total_changes
            self._machine.touch("begin")
        elif sql in _FLAGS:
            sql = self._without_repetition(sql)
        cursor = super().execute(sql, *arguments)
        if len(self._cursors) > 32:
            self._cursors = [one for one in self._cursors if one() is not None]
        self._cursors.append(weakref.ref(cursor))
        return cursor

    def _without_repetition(self, sql: str) -> str:
        """A flag that is set once more says nothing new, and throws away what was prepared: it is asked for instead."""
        if sql in self._flags:
            return sql.split("=")[0]
        self._flags.add(sql)
        return sql

    def _commit(self) -> sqlite3.Cursor:
        machine = self._machine
        machine.touch("commit")
        if machine.takes_trouble("ledger full"):
            raise sqlite3.OperationalError("database or disk is full")
        if machine.takes_trouble("ledger broken"):
            raise sqlite3.OperationalError("disk I/O error")
        disk = machine.hardware.disk
        log_size = disk.log_size()
        cursor = super().execute("commit")
        # SQLite syncs what it has written; a transaction that only read makes nothing of others durable.
        syncs = self._full and (self.total_changes != self._changed_before or disk.log_size() != log_size)
        if syncs and machine.dies_in_sync:  # whoever opens the ledger next reads it in the log; it need not stay there
            machine.hardware.count("commit not synced")
            machine.doom = 1
            machine.touch("the sync of a commit")
        if syncs:
            disk.log_durable = disk.log_size()
        machine.touch("committed")
        return cursor

    def abandon(self) -> None:
        """Its process reads no further, and what it had not committed is nothing."""
        for one in self._cursors:
            cursor = one()
            if cursor is not None:
                cursor.close()
        self._cursors.clear()
        if self.in_transaction:
            sqlite3.Connection.rollback(self)

    def close(self) -> None:
        """An orderly end; the last one folds the log into the ledger, which SQLite syncs."""
        machine = self._machine
        if machine.host.dead:
            return
        machine.connections.remove(self)
        if machine.hardware.ledgers.give_back(self):
            super().execute("pragma wal_checkpoint(truncate)")
        disk = machine.hardware.disk
        disk.log_durable = min(disk.log_durable, disk.log_size())
