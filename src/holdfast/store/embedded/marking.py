"""Marks of owners that stand still: one row per owner, so that of all processes that see it one tells and asks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from holdfast.recovery.watching import Mark
from holdfast.store.embedded import inbox, marks
from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.inbox import StoryLine
from holdfast.store.embedded.writer import Job


class Marking(StoreCore):
    """Writing them; `reading.py` reads."""

    async def change_mark(self, seen: Mark | None, to: Mark | None, story: Sequence[StoryLine] = ()) -> bool:
        """Make, change or remove a mark if it is as it was seen, with what there is to tell of that. No sync: after a
        power loss nobody stands still any more.

        Returns: whether it was changed; else somebody else was faster, or the turn it is about owns nothing any more.
        """
        of = to or seen
        assert of is not None

        def run(conn: sqlite3.Connection) -> bool:
            changed = marks.change(conn, of.turn, seen, to)
            if changed and story:
                inbox.note_events(conn, list(story))
            return changed

        return await self.writer.submit(Job(run))
