"""What a turn tells whoever watches. Hints and progress only: the store is the truth.

What this process does is told at once. What others do on the same state is read off the ledger about once a second, for
watchers that asked for it (`elsewhere`), without streamed text: see `turn/elsewhere.py`.

A watcher that is too slow loses the oldest events, never delays the turn, and sees one event of kind "dropped".
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

EVENT_BUFFER_MAX = 4096
log = logging.getLogger("holdfast.events")

KINDS = (
    "input.accepted",  # data: source, lane
    "input.joined",  # data: retries (an equal request shares this input)
    "input.left",  # data: present (a caller's connection closed before it had the answer; so many are still there)
    "turn.started",  # data: epoch, lane, attempt, waited_ms (since its input was accepted; None: it has none)
    "turn.model",  # data: model, step (a model request goes out; the prompt window opens)
    "turn.delta",  # data: text
    "turn.thinking",  # data: text
    "turn.tool_call",  # data: id, name, arguments
    "turn.tool_result",  # data: id, name, text, is_error
    "turn.tool_arguments",  # data: id, name, arguments (without secrets)
    "turn.approval",  # data: id, name, arguments (a person is asked whether a call may run)
    "turn.approval_ended",  # data: id, name, state (`approved`, `denied`, `expired` or `void`)
    "turn.tool_output",  # data: id, name, text (what a running tool has to say)
    "turn.window",  # data: verdict, detail (somebody had written while the model was asked)
    "turn.window_opened",
    "turn.window_closed",  # data: verdict (of `session/fence.py`, "lost", or "failed": no answer), detail
    "turn.call_began",  # data: id, model, purpose
    "turn.call_ended",  # data: id, model, purpose, state, reason, ms, tokens, cost (micro-dollars), finish
    "turn.fallback",  # data: decision record
    "turn.compaction",  # data: phase ("began", "refused", "done" or "left") and what there is to say of it
    "turn.memory_flush",  # data: phase ("began", "done" or "left"), calls, reason
    "turn.memory_note",  # data: id, name, is_error
    "turn.too_long",  # data: tokens, detail (a provider refused the context; it is shortened and sent once more)
    "turn.discarded",  # what was streamed in this turn so far is not the answer; data: reason
    "turn.settled",  # data: state, detail, answer, result
    "session.long_running",  # data: as of `session.stalled`; the turn works on
    "session.stalled",  # data: reason, process, pid, lane, since_ms, doing, name, doing_s, still_s, queued, next
    "session.stuck",  # data: as of `session.stalled`; nothing of the turn lives
    "session.recovery.requested",  # data: epoch, action, reason
    "session.recovery.completed",  # data: epoch, action, outcome, detail
    "delivery",  # data: id, event, state, channel, target, part, attempts, label, detail
    "dropped",  # data: count
)


@dataclass(frozen=True, slots=True)
class TurnEvent:
    kind: str
    session: str
    at_ms: int
    input_id: str | None = None
    turn_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[TurnEvent], object]


class Subscription:
    """One watcher's bounded buffer. Iterate it; it ends when `close` is called."""

    def __init__(self, input_id: str | None, session: str | None, *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        self._input_id = input_id
        self._session = session
        self._events: deque[TurnEvent] = deque()
        self._dropped = 0
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, event: TurnEvent) -> None:
        if self._input_id is not None and event.input_id != self._input_id:
            return
        if self._session is not None and event.session != self._session:
            return
        if len(self._events) >= EVENT_BUFFER_MAX:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def next(self, timeout_s: float | None = None) -> TurnEvent | None:
        """The next event; None after `timeout_s` without one, or when closed."""
        while not self._events:
            if self._closed:
                return None
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_s)
            except TimeoutError:
                return None
        return self.next_at_once()

    def next_at_once(self) -> TurnEvent | None:
        """The next event that is there already; None: none is."""
        if self._dropped:
            count, self._dropped = self._dropped, 0
            first = self._events[0]
            return TurnEvent("dropped", first.session, first.at_ms, data={"count": count})
        return self._events.popleft() if self._events else None

    async def __aiter__(self) -> AsyncIterator[TurnEvent]:
        while True:
            event = await self.next()
            if event is None:
                return
            yield event


class EventBus:
    """Publish and subscribe; must be used from one event loop."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: dict[str, list[Listener]] = {}

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches: making an event for nobody costs a turn more than it seems."""
        return bool(self._subscriptions)

    def wants(self, kind: str) -> bool:
        """Whether anybody would hear of an event of this kind."""
        return bool(self._subscriptions) or kind in self._listeners

    @property
    def is_watched_elsewhere(self) -> bool:
        """Whether anybody wants to hear of other processes."""
        return any(subscription.elsewhere for subscription in self._subscriptions)

    def publish(self, event: TurnEvent) -> None:
        for listener in self._listeners.get(event.kind, ()):
            try:
                listener(event)
            except Exception:  # the edge of what only observes: a turn never fails for being counted
                log.exception("a listener to %s failed", event.kind)
        for subscription in list(self._subscriptions):
            subscription.offer(event)

    def publish_elsewhere(self, event: TurnEvent) -> None:
        """Tell of another process those who asked for it."""
        for subscription in list(self._subscriptions):
            if subscription.elsewhere:
                subscription.offer(event)

    @contextmanager
    def listening(self, listener: Listener, kinds: Iterable[str]) -> Iterator[None]:
        """Within it `listener` is called with each event of these kinds, of this process, where it happens: it must be
        quick, and never waits.
        """
        kinds = list(kinds)
        for kind in kinds:
            self._listeners.setdefault(kind, []).append(listener)
        try:
            yield
        finally:
            for kind in kinds:
                self._listeners[kind].remove(listener)
                if not self._listeners[kind]:
                    del self._listeners[kind]

    @contextmanager
    def subscribe(
        self, *, input_id: str | None = None, session: str | None = None, elsewhere: bool = False
    ) -> Iterator[Subscription]:
        """Events from now on, of one input or session, or of all.

        Args:
            elsewhere: also of other processes on this state, about a second late and without streamed text.
        """
        subscription = Subscription(input_id, session, elsewhere=elsewhere)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            subscription.close()
