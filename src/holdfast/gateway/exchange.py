"""One caller's view of one input, from its admission to its end, whatever API it speaks.

Text streams as it is written; the end of the stream, or the whole body, waits for the settlement. What it looks like on
the wire is a `Presenter`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import HoldfastError
from holdfast.gateway.door import Asked, Door, Stay, unless_gone
from holdfast.gateway.following import GrowingText, follow
from holdfast.gateway.openai_shapes import Ending, ending_of
from holdfast.gateway.replies import RETRY_AFTER_S, EventStream, Refusal, json_response, refusal_of, refusal_of_input
from holdfast.inbound.event import InboundEvent
from holdfast.kernel import Holdfast
from holdfast.store.views import InputView
from holdfast.turn.events import Subscription

if TYPE_CHECKING:
    from fastapi import Request, Response

HEAD_WAIT_S = 2.0
"""How long a streaming reply waits for its turn to begin, so that its headers can tell how the histories relate and an
early failure still has a status of its own. Past it the stream begins, and the end of the stream tells."""
KEEP_ALIVE_S = 15.0  # proxies and clients close what is silent for 30 to 60 s
ANSWER_S_MAX = 3600.0  # past it a caller without a stream is told to ask again; official clients leave after 600 s


class Presenter(Protocol):
    """How an answer looks on the wire. `told`: what no standard field can say; clients ignore what they do not know."""

    def opening(self) -> Iterator[bytes]: ...

    def text(self, text: str) -> Iterator[bytes]: ...

    def closing(self, ending: Ending, rest: str, told: dict[str, Any]) -> Iterator[bytes]:
        """The end of an answer of which `rest` has not been sent."""
        ...

    def failing(self, refusal: Refusal) -> Iterator[bytes]: ...

    def whole(self, ending: Ending, told: dict[str, Any]) -> dict[str, Any]: ...


class Desk:
    """Answers requests for a turn: one per application."""

    def __init__(self, hf: Holdfast, door: Door, closing: asyncio.Event) -> None:
        self._hf = hf
        self._door = door
        self._closing = closing

    async def answer(
        self, request: Request, event: InboundEvent, asked: Asked, *, is_fresh: bool, stream: bool,
        offered: tuple[str, ...], shape_of: Callable[[InputView], Presenter],
    ) -> Response:  # fmt: skip
        """Admit an input and answer with its end, streaming or whole.

        Args:
            is_fresh: its session was made for it.
            offered: names of the tools that the caller runs.

        Raises: as `Door.admit`, `Exchange.whole` and `Exchange.begin`.
        """
        with ExitStack() as until_gone:
            # Before the input is stored: its turn may begin at once.
            events = until_gone.enter_context(self._hf.events.subscribe(session=event.session))
            stay = until_gone.enter_context(await self._door.admit(event, asked, is_fresh=is_fresh))
            if stay.view.session != event.session:
                events = until_gone.enter_context(self._hf.events.subscribe(session=stay.view.session))
            exchange = Exchange(self._hf, shape_of(stay.view), offered, stay, events, self._closing)
            if not stream:
                return await unless_gone(request, exchange.whole())
            await unless_gone(request, exchange.begin())
            return EventStream(exchange.chunks(), until_gone.pop_all().close, exchange.headers())


class Exchange:
    """Waits for one input on behalf of one caller.

    Args:
        offered: names of the tools that the caller runs.
        events: subscribed to before the input was accepted.
        closing: set when waiting callers are to be sent away.
    """

    def __init__(
        self, hf: Holdfast, shape: Presenter, offered: tuple[str, ...], stay: Stay, events: Subscription,
        closing: asyncio.Event,
    ) -> None:  # fmt: skip
        self._clock = hf.clock
        self._shape = shape
        self._offered = offered
        self._stay = stay
        self._closing = closing
        self._happenings = follow(hf, events, stay.view.id, look_first=stay.joined)
        self._text = GrowingText()
        self._unsent = ""
        self._view = stay.view
        self._history: str | None = None

    def headers(self) -> dict[str, str]:
        session = self._view.session.encode().decode("latin-1")  # UTF-8 on the wire
        headers = {"x-holdfast-session": session, "x-holdfast-input": self._view.id}
        headers["x-holdfast-history"] = self._told_history()
        return headers | ({"x-holdfast-joined": self._view.id} if self._stay.joined else {})

    async def _take_next(self) -> None:
        """Wait for the next thing that happens, a second at most, and take it in."""
        happening = await anext(self._happenings)
        if isinstance(happening, InputView):
            self._view = happening
        else:
            self._unsent += self._text.take(happening)
            self._history = happening.data.get("history", self._history)
        if self._closing.is_set() and not self._view.settled:
            raise _shutting_down(self._view.id)

    async def whole(self) -> Response:
        """The answer as one body, once it is settled.

        Raises:
            Refusal: it ended without an answer; 409 after `ANSWER_S_MAX`, 503 when the gateway shuts down: then the
                turn goes on, or is taken up again, under the same input id.
        """
        deadline_mono = self._clock.mono() + ANSWER_S_MAX
        while not self._view.settled:
            await self._take_next()
            if not self._view.settled and self._clock.mono() >= deadline_mono:
                raise still_running(self._view.id, ANSWER_S_MAX)
        ending = ending_of(self._view, self._offered)
        if ending is None:
            raise refusal_of_input(self._view)
        self._stay.given()
        return json_response(self._shape.whole(ending, self._told()), headers=self.headers())

    async def begin(self) -> None:
        """Wait a moment for the turn to begin, so that the headers can speak of it.

        Raises:
            Refusal: it ended without an answer meanwhile.
        """
        deadline_mono = self._clock.mono() + HEAD_WAIT_S
        while not (self._view.settled or self._unsent or self._history) and self._clock.mono() < deadline_mono:
            await self._take_next()
        if self._view.settled and ending_of(self._view, self._offered) is None:
            raise refusal_of_input(self._view)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A turn that fails ends in an error event, never in a finish."""
        for chunk in self._shape.opening():
            yield chunk
        sent_mono = self._clock.mono()
        try:
            while not self._view.settled:
                await self._take_next()
                if self._unsent:
                    text, self._unsent = self._unsent, ""
                    for chunk in self._shape.text(text):
                        yield chunk
                elif self._clock.mono() - sent_mono < KEEP_ALIVE_S:
                    continue
                else:
                    yield f": {self._view.state}, {self._view.position or 0} ahead\n\n".encode()
                sent_mono = self._clock.mono()
            for chunk in self._last_chunks():
                yield chunk
        except Refusal as refusal:
            for chunk in self._shape.failing(refusal):
                yield chunk
        except HoldfastError as exc:
            for chunk in self._shape.failing(refusal_of(exc) or Refusal(500, str(exc), "server_error")):
                yield chunk
        else:
            self._stay.given()

    def _last_chunks(self) -> Iterator[bytes]:
        ending = ending_of(self._view, self._offered)
        if ending is None:
            raise refusal_of_input(self._view)
        rest = self._text.rest(ending.text)
        if rest is None:
            raise _replaced(self._view.id)
        text, self._unsent = self._unsent + rest, ""
        yield from self._shape.closing(ending, text, self._told())

    def _told(self) -> dict[str, Any]:
        view, history = self._view, self._told_history()
        return {"holdfast": {"input_id": view.id, "session": view.session, "state": view.state, "history": history}}

    def _told_history(self) -> str:
        """What the turn said of it; "unknown" if it ran before this caller came, or in another process."""
        return self._history or ("unknown" if self._view.settled else "pending")


def still_running(input_id: str, waited_s: float) -> Refusal:
    """The answer to a caller who has waited long enough."""
    return Refusal(
        409,
        f"input {input_id} is not settled after {waited_s:g} s; it goes on: ask GET /api/inputs/{input_id}",
        "conflict_error",
        "still_running",
        {"retry-after": str(RETRY_AFTER_S)},
        {"input_id": input_id},
    )


def _shutting_down(input_id: str) -> Refusal:
    return Refusal(
        503,
        f"the gateway is shutting down; input {input_id} is kept and will be answered: ask GET /api/inputs/{input_id}",
        "server_error",
        "draining",
        {"retry-after": str(RETRY_AFTER_S)},
        {"input_id": input_id},
    )


def _replaced(input_id: str) -> Refusal:
    return Refusal(
        409,
        f"what was streamed is not the answer, another turn wrote it: ask GET /api/inputs/{input_id}",
        "conflict_error",
        "answer_replaced",
        details={"input_id": input_id},
    )
