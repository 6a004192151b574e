"""What readers ask the embedded store of its files; what they ask of its ledger is in `store/sql/reading.py`."""

from __future__ import annotations

from dataclasses import replace

from holdfast.errors import ResourceError
from holdfast.recovery.classify import Owner
from holdfast.session.lines import Line
from holdfast.session.retention import Conversation, Kept
from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.owned import OwnedTurn
from holdfast.store.embedded.reads import size_of
from holdfast.store.embedded.record_file import read_report
from holdfast.store.embedded.scan import read_context, read_file
from holdfast.store.sql import (
    archive_rows,
    claims,
)
from holdfast.store.sql.connection import Row
from holdfast.store.sql.reading import LedgerReading
from holdfast.store.views import (
    SessionView,
)

CONTEXT_BYTES_MAX = 8 * 1024 * 1024
"""How far back a turn reads its conversation: more than any model's window holds, little enough to read at once (20
ms).
"""

END_BYTES = 64 * 1024


class Reading(LedgerReading, StoreCore):
    """Views. None of it writes or takes a lock that a writer needs."""

    async def read_lines(self, transcript: str) -> list[Line]:
        """All lines of the file as they are. Takes no lock; a line that is being written at this moment is left out."""
        path = self.state.path / await self.reads.transcript_path(transcript)
        return await self.in_thread(read_file, path, None)

    async def read_tail(self, owned: OwnedTurn) -> list[Line]:
        """The newest lines, as far back as a context can need them (`read_context`): with the lines of earlier attempts
        at the input, and at most `CONTEXT_BYTES_MAX` bytes.

        Raises:
            ResourceError: the system refuses to have it read.
        """
        upto = min((position.offset for position in owned.claim.landed.values()), default=None)
        try:
            return await self.in_thread(read_context, owned.file.path, CONTEXT_BYTES_MAX, upto)
        except OSError as exc:
            raise ResourceError(f"cannot read {owned.file.path}: {exc}") from exc

    async def sessions(self, *, prefix: str, limit: int, archived: bool = False) -> list[SessionView]:
        return await self.reads.sessions(prefix=prefix, limit=limit, archived=archived, place=self._place_of)

    def _place_of(self, row: Row) -> tuple[str, int]:
        path = self.state.path / row["path"]
        return str(path), size_of(path)

    async def watch_lives(self) -> None:
        """A sentinel tells at once."""

    async def owners(self) -> list[Owner]:
        owners = await self.reads.ask(
            lambda conn: claims.owners(conn, self.process, lambda process: self.life_in(conn, process))
        )
        return await self.in_thread(self._with_reports, owners) if owners else []

    def _with_reports(self, owners: list[Owner]) -> list[Owner]:
        fence = self.state.fence
        return [replace(one, report=read_report(fence / one.transcript, one.epoch.nonce)) for one in owners]

    async def read_end(self, transcript: str) -> list[Line]:
        path = self.state.path / await self.reads.transcript_path(transcript)
        try:
            return await self.in_thread(read_file, path, END_BYTES)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ResourceError(f"cannot read {path}: {exc.strerror or exc}") from exc

    async def retained(self) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
        def size(row: Row) -> int:
            return size_of(self.state.path / row["path"])

        return await self.reads.ask(lambda conn: archive_rows.retained(conn, size))
