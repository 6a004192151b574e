"""A state directory that is only looked at: no byte, time or inode of any file in it changes, whoever else uses it.

An ordinary process makes a sentinel, a row in the ledger and SQLite's shared memory, all of it writing. A reader has
none of these. It opens the ledger through SQLite all the same, and never by hand, in one of three ways:

- nobody uses it, and its log was folded in (there is no `-wal`): as a file that does not change;
- somebody uses it, or was killed: read only, with the shared memory read only, too;
- its log is there without its shared memory (somebody removed that): a copy in a temporary folder.

Run as root, SQLite sets the owner of its two files beside the ledger, to what it is already: their change time moves.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from holdfast.clock import Clock
from holdfast.errors import InputError, ResourceError
from holdfast.recovery.classify import Life
from holdfast.recovery.watching import Mark
from holdfast.store.embedded import schema
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.reading import Reading
from holdfast.store.embedded.reads import Reads
from holdfast.store.embedded.sentinel import life_by_boot, probe
from holdfast.store.embedded.state_dir import look_at_state_dir
from holdfast.store.sql.connection import Connection
from holdfast.store.views import Hold


class ReadOnlyStore(Reading):
    """The reading half of the embedded store. What would write is not there."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.state = look_at_state_dir(path)
        if not (self.state.path / schema.LEDGER_NAME).exists():
            raise ResourceError(
                f"{path} has no ledger; open it with a command that may write, such as `holdfast recover`"
            )
        self.clock = clock
        self._looks = Looks(self.state.path)
        self._reads = Reads(self.state.path, connect=self._looks.connect)
        self._pool = here().pool(2, "holdfast-store")

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"this state is opened for reading, which knows no {name!r}; use `holdfast.open`")

    @property
    def process(self) -> str:
        """A reader has no name among the processes of the state."""
        return ""

    def life_in(self, conn: Connection, process: str) -> Life:
        life = probe(self.state.processes, process)
        return life if life != "unknown" else life_by_boot(conn, process)

    async def held(self) -> Hold | None:
        try:
            return await super().held()
        except ResourceError:  # a ledger from before there were holds, which only readers have met since
            return None

    async def marks(self) -> list[Mark]:
        try:
            return await super().marks()
        except ResourceError:  # likewise
            return []

    @property
    def stopped(self) -> bool:
        return False

    async def close(self) -> None:
        """Let go of everything. A second time does nothing."""
        self.reads.close()
        self._pool.shutdown(wait=False)
        self._looks.close()


class Looks:
    """Connections to a ledger that leave no trace."""

    def __init__(self, folder: Path) -> None:
        self._ledger = folder / schema.LEDGER_NAME
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def connect(self) -> sqlite3.Connection:
        """Raises sqlite3.OperationalError: it cannot be read."""
        if not _beside(self._ledger, "-wal").exists():
            return self._open(self._ledger, "immutable=1")
        if _beside(self._ledger, "-shm").exists():
            return self._open(self._ledger, "mode=ro&readonly_shm=1")
        return self._open(self._copied(), "mode=rw")

    def _open(self, path: Path, how: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(path.absolute()))}?{how}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma query_only=1")
        connection.execute("select count(*) from meta").fetchone()
        return connection

    def _copied(self) -> Path:
        """Nobody uses the ledger: whoever does has its shared memory."""
        if self._copy is None:
            self._copy = tempfile.TemporaryDirectory(prefix="holdfast-look-")
        copy = Path(self._copy.name) / self._ledger.name
        for end in ("", "-wal"):
            shutil.copyfile(_beside(self._ledger, end), _beside(copy, end))
        return copy

    def close(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def open_to_look(path: Path, clock: Clock) -> ReadOnlyStore:
    """Open for reading.

    Raises:
        InputError: there is no state. ResourceError: it cannot be read. StateVersionError: of a newer release.
    """
    if not path.exists():
        raise InputError(f"no state at {path}: start with `holdfast up` or `send`, or name another with --state")
    return ReadOnlyStore(path, clock)
