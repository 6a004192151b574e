"""The ledger's tables, and opening them: one SQLite file in WAL mode."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from holdfast.errors import ResourceError, StateVersionError
from holdfast.store.embedded.machine import here
from holdfast.store.sql.tables import ADDED, TABLES

SCHEMA_VERSION = 1

CHECKED_BYTES_MAX = 8 * 1024 * 1024
"""A ledger up to this size is read through when it is opened (10 to 20 ms)."""
LEDGER_NAME = "ledger.sqlite3"
RESERVE_NAME = "reserve"


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """One connection, to be used by one thread. WAL, no implicit transactions, short busy wait (the flock does
    waiting).
    """
    # A reader never makes the file: where the ledger has gone, an empty one in its place would hide that.
    where = f"{path.absolute().as_uri()}?mode=rw" if read_only else path
    connection = here().connect(where, is_uri=read_only)
    connection.row_factory = sqlite3.Row
    if read_only:
        connection.execute("pragma query_only=1")
    else:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma wal_autocheckpoint=0")  # the writer does it, on its own thread
        connection.execute("pragma synchronous=full")
        connection.execute("pragma foreign_keys=on")
    return connection


def new_ledger(store_id: str) -> bytes:
    """The file of a ledger in which nothing has happened yet: every table, and whose it is. Empty where this SQLite
    cannot tell what a database of its memory looks like as a file: then `create_or_check` makes the tables in place.

    Written as it is, a new state is open and closed after fifty disk calls; tables made one by one, through the log,
    take three hundred.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if not hasattr(connection, "serialize"):
            return b""
        connection.deserialize(_without_owner())
        connection.execute("insert into meta(key, value) values('store', ?)", (store_id,))
        made = bytearray(connection.serialize())
    made[_WAL_FLAGS] = b"\x02\x02"  # in memory there is no log; this is a file that has one
    return bytes(made)


_WAL_FLAGS = slice(18, 20)
"""Where a database says that it is read and written through a log. Source: sqlite.org/fileformat2.html, 1.3.3."""


@cache
def _without_owner() -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(f"begin; {TABLES}; {ADDED}; pragma user_version={SCHEMA_VERSION}; commit")
        return connection.serialize()


def create_or_check(connection: sqlite3.Connection, store_id: str) -> None:
    """Make the tables in a new ledger; refuse one written by a newer release or belonging to another state directory.

    Raises:
        StateVersionError: newer schema; nothing was changed.
        ResourceError: the ledger belongs to another state directory.
        sqlite3.DatabaseError: not a ledger (the caller sets it aside, or refuses).
    """
    version = connection.execute("pragma user_version").fetchone()[0]
    if version == 0:
        connection.execute("begin immediate")
        if connection.execute("pragma user_version").fetchone()[0] == 0:
            for statement in TABLES.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute("insert into meta(key, value) values('store', ?)", (store_id,))
            connection.execute(f"pragma user_version={SCHEMA_VERSION}")
        connection.execute("commit")
    elif version > SCHEMA_VERSION:
        raise StateVersionError(
            f"the ledger has schema {version}, this release knows up to {SCHEMA_VERSION}; upgrade Holdfast"
        )
    row = connection.execute("select value from meta where key='store'").fetchone()
    if row is None or row[0] != store_id:
        raise ResourceError(
            f"the ledger belongs to store {row[0] if row else 'unknown'}, this state directory is {store_id}; "
            "put its own ledger back, or move the ledger away and run `holdfast recover`"
        )
    _add_what_is_missing(connection)


def _add_what_is_missing(connection: sqlite3.Connection) -> None:
    wanted = set(re.findall(r"create table if not exists (\w+)", ADDED))
    there = {row[0] for row in connection.execute("select name from sqlite_master where type='table'")}
    if wanted <= there:
        return
    connection.execute("begin immediate")
    for statement in ADDED.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("commit")


def open_intact(path: Path) -> sqlite3.Connection | str:
    """A connection if SQLite can read the ledger, else what it says. A small one is checked throughout, of a large one
    the schema and the newest rows of each table; what is wrong elsewhere stops the process that comes upon it.
    """
    size = os.path.getsize(path)
    if size == 0:
        return "empty file"
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path)
        fault = _fault_in(connection, size)
    except sqlite3.DatabaseError as exc:
        fault = str(exc)
    if connection is not None and fault is None:
        return connection
    if connection is not None:
        connection.close()
    return fault or "unreadable"


def _fault_in(connection: sqlite3.Connection, size: int) -> str | None:
    if size <= CHECKED_BYTES_MAX:
        said = connection.execute("pragma quick_check(1)").fetchone()[0]
        return None if said == "ok" else str(said)
    for table in ("inputs", "events", "outbox"):
        connection.execute(f"select * from {table} order by seq desc limit 1").fetchone()  # noqa: S608
    connection.execute("select * from turns order by id desc limit 1").fetchone()
    return None
