"""Reading the ledger, on a thread and connection of its own. Readers never write and hold no lock that a writer
needs.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from holdfast.errors import ResourceError, UnknownInputError
from holdfast.store.embedded import schema
from holdfast.store.embedded.machine import here
from holdfast.store.sql.reads import LedgerReads

T = TypeVar("T")
CLOSE_WAIT_S = 5.0
"""How long closing waits for a question that is being answered."""


class Reads(LedgerReads):
    """Questions to the ledger."""

    def __init__(self, folder: Path, connect: Callable[[], sqlite3.Connection] | None = None) -> None:
        self._folder = folder
        self._connect = connect or (lambda: schema.connect(folder / schema.LEDGER_NAME, read_only=True))
        self._local = threading.local()
        self._pool = here().pool(1, "holdfast-read")

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Raises ResourceError: the ledger cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connect()
            return question(connection)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError):
                raise
            raise ResourceError(f"cannot read ledger {self._folder / schema.LEDGER_NAME}: {exc}") from exc

    def close(self, wait_s: float = CLOSE_WAIT_S) -> None:
        """Close the connection, on its thread. One that is still at a question closes it afterwards, unwaited for."""

        def shut() -> None:
            connection = getattr(self._local, "connection", None)
            if connection is not None:
                connection.close()

        shutting = self._pool.submit(shut)
        with suppress(TimeoutError):
            shutting.result(timeout=wait_s)
        self._pool.shutdown(wait=False)

    async def transcript_path(self, transcript: str) -> str:
        """Path relative to the state directory."""
        row = await self.ask(lambda c: c.execute("select path from transcripts where id=?", (transcript,)).fetchone())
        if row is None:
            raise UnknownInputError(f"no transcript {transcript}")
        return row[0]


def size_of(path: Path) -> int:
    """In bytes; 0 for a file that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
