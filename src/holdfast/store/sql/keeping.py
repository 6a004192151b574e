"""What the ledger keeps beside transcripts: titles, receipts, and what is done once in a while."""

from __future__ import annotations

from typing import Protocol

from holdfast.errors import InputError, UnknownInputError
from holdfast.lane.states import IllegalMoveError
from holdfast.store.sql import archive_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.store.views import ArchiveView

NO_SUCH_ARCHIVE = "no archive {!r} of this session; `holdfast sessions archives` has them"


class Keeping(Ledger, Protocol):
    """The part of `LifeStore` (`store/protocol.py`) in which no line of a transcript is moved."""

    async def set_title(self, session: str, title: str | None) -> None:
        await self.writer.submit(
            Job(
                lambda conn: conn.execute(
                    "update sessions set title=? where transcript=(select transcript from sessions where key=?)",
                    (title, session),
                ),
                durable=True,
            )
        )

    async def note_read(self, transcript: str, by: str, upto: str, now_ms: int) -> None:
        await self.writer.submit(
            Job(
                lambda conn: conn.execute(
                    "insert or replace into read_marks(transcript, reader, upto, at_ms) values(?,?,?,?)",
                    (transcript, by, upto, now_ms),
                )
            )
        )

    async def begin_delete(self, archive: str) -> ArchiveView:
        """Note that an archive is about to be thrown away; durable.

        Raises: UnknownInputError: there is none. InputError: it is being put away or restored at this moment.
        """

        def begin(conn: Connection) -> ArchiveView | None:
            try:
                archive_rows.move(conn, archive, "delete")
            except IllegalMoveError as exc:
                raise InputError(f"archive {archive} is being put away or restored: {exc}") from exc
            return archive_rows.by_id(conn, archive)

        view = await self.writer.submit(Job(begin, durable=True))
        if view is None:
            raise UnknownInputError(f"no archive {archive!r}; `holdfast sessions archives` lists them")
        return view

    async def begin_chore(self, name: str, every_s: float) -> bool:
        """Whether it is for this process to do what is done once in a while, among all processes."""
        now_ms = self.now_ms()
        return await self.writer.submit(
            Job(lambda conn: archive_rows.begin_chore(conn, name, int(every_s * 1000), now_ms))
        )
