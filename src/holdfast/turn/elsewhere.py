"""What other processes on the same state do, as events for those who watch here.

The ledger is looked at, so this is about a second late: half for the other process to hand over a running turn's story,
half for us to look. Streamed text is not in the ledger: it comes with the answer, in `turn.settled`. Nothing is looked
at while nobody watches, and a watcher hears of what happens from its coming on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from holdfast.store.protocol import StoryStore
from holdfast.store.views import Cursor, Happened, InputView, TurnView
from holdfast.turn.events import EventBus, TurnEvent

ACCEPTED_HERE_MAX = 4096


class Elsewhere:
    """Looks at the ledger for one process and tells its bus."""

    def __init__(self, store: StoryStore, bus: EventBus) -> None:
        self._store = store
        self._bus = bus
        self._cursor: Cursor | None = None
        self._accepted_here: OrderedDict[str, None] = OrderedDict()
        self._looking = asyncio.Lock()  # two looks at once would tell everything twice

    def note_accepted(self, input_id: str) -> None:
        """An input that this process has told of already."""
        if self._bus.is_watched_elsewhere:
            self._accepted_here[input_id] = None
            while len(self._accepted_here) > ACCEPTED_HERE_MAX:
                self._accepted_here.popitem(last=False)

    async def look(self) -> None:
        """Tell what is new. Raises ResourceError: the ledger cannot be read; nothing is lost by looking again."""
        async with self._looking:
            if not self._bus.is_watched_elsewhere:
                self._cursor = None
                self._accepted_here.clear()
                return
            seen = await self._store.happened(self._cursor)
            self._cursor = seen.cursor
        for event in events_of(seen):
            if event.kind != "input.accepted" or event.input_id not in self._accepted_here:
                self._bus.publish_elsewhere(event)


def events_of(seen: Happened) -> Iterator[TurnEvent]:
    """In the order in which a turn has them: accepted, started, its story, settled."""
    for view in seen.accepted:
        data = {"source": view.source, "lane": view.lane}
        yield TurnEvent("input.accepted", view.session, view.accepted_at_ms, view.id, data=data)
    for turn in seen.started:
        data = {"epoch": turn.epoch, "lane": turn.lane}
        yield TurnEvent("turn.started", turn.session, turn.started_at_ms, turn.input_id, turn.id, data)
    for line in seen.told:
        yield TurnEvent(line["kind"], line["session"], line["at_ms"], line["input"], line["turn"], line["data"])
    for turn, view in seen.ended:
        yield _settled(turn, view)


def _settled(turn: TurnView, view: InputView | None) -> TurnEvent:
    is_last = view is not None and (view.settled or view.turn_id == turn.id)
    state = view.state if view is not None and is_last else turn.outcome
    data = {
        "state": state, "detail": turn.detail, "answer": view.answer if view is not None else None,
        "result": view.result if view is not None else None,
    }  # fmt: skip
    return TurnEvent("turn.settled", turn.session, turn.ended_at_ms or 0, turn.input_id, turn.id, data)
