"""What the life of a session keeps in the ledger: titles and read receipts."""

from __future__ import annotations

from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.writer import Job


class Lives(StoreCore):
    """See `LifeStore` in `store/protocol.py`."""

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
