"""Marks of owners that stand still: one row per owner, so that of all processes that see it one tells and asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.recovery.watching import Mark
from holdfast.store.sql import inbox, marks
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.inbox import StoryLine
from holdfast.store.sql.ledger import Job, Ledger


class Marking(Ledger, Protocol):
    """Writing them; `reading.py` reads."""

    async def change_mark(self, seen: Mark | None, to: Mark | None, story: Sequence[StoryLine] = ()) -> bool:
        """Make, change or remove a mark if it is as it was seen, with what there is to tell of that. No sync: after a
        power loss nobody stands still any more.

        Returns: whether it was changed; else somebody else was faster, or the turn it is about owns nothing any more.
        """
        of = to or seen
        assert of is not None

        def run(conn: Connection) -> bool:
            changed = marks.change(conn, of.turn, seen, to)
            if changed and story:
                inbox.note_events(conn, list(story))
            return changed

        return await self.writer.submit(Job(run))
