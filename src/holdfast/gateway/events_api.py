"""`/api/events`: what happens, as server-sent events, for whoever watches. Hints only: the store is the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from holdfast.gateway.replies import RETRY_AFTER_S, EventStream, Refusal
from holdfast.kernel import Holdfast
from holdfast.turn.events import Subscription, TurnEvent

if TYPE_CHECKING:
    from starlette.responses import Response

HEARTBEAT_S = 15.0  # proxies close what is silent for 30 to 60 s
CLOSING_LOOK_S = 1.0
WATCHERS_MAX = 100  # each buffers up to 4096 events
_GREETING = b"retry: 2000\n\n"


class EventStreams:
    """Hands out event streams, a bounded number of them; they end when the gateway closes."""

    def __init__(self, hf: Holdfast, closing: asyncio.Event) -> None:
        self._hf = hf
        self._closing = closing
        self._watchers = 0

    def open(self, *, session: str | None = None, input_id: str | None = None) -> Response:
        """Events from now on, of one session or input, or of all, in whatever process of the state they happen.

        A watcher that is too slow loses the oldest events and gets one of kind `dropped` that counts them.

        Raises:
            Refusal: 429, too many are watching.
        """
        if self._watchers >= WATCHERS_MAX:
            raise Refusal(
                429,
                f"{self._watchers} watchers are the most; close one",
                "rate_limit_error",
                "too_many_watchers",
                {"retry-after": str(RETRY_AFTER_S)},
            )
        watching = self._hf.events.subscribe(session=session, input_id=input_id, elsewhere=True)
        events = watching.__enter__()
        self._watchers += 1

        def end() -> None:
            self._watchers -= 1
            watching.__exit__(None, None, None)

        return EventStream(self._pieces(events), end)

    async def _pieces(self, events: Subscription) -> AsyncIterator[bytes]:
        await self._hf.hear_of_others()
        yield _GREETING
        silent_s = 0.0
        while not self._closing.is_set():
            event = await events.next(CLOSING_LOOK_S)
            if event is not None:
                silent_s = 0.0
                yield _as_sse(event)
            elif (silent_s := silent_s + CLOSING_LOOK_S) >= HEARTBEAT_S:
                silent_s = 0.0
                yield b": heartbeat\n\n"


def _as_sse(event: TurnEvent) -> bytes:
    return b"event: " + event.kind.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
