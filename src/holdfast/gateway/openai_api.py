"""`/v1/chat/completions` and `/v1/models`, as official clients speak them.

The input is stored before the first byte of the reply. Text streams as it is written; the finishing chunk and `[DONE]`,
or the whole body, wait for the settlement. A caller who leaves does not stop the turn: its answer stays under the id in
`X-Holdfast-Input`. Read `ChatApi.complete` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from holdfast.errors import HoldfastError, InputError, ProviderError
from holdfast.gateway.body import read_object
from holdfast.gateway.door import Asked, Door, Stay, fresh_session, unless_gone
from holdfast.gateway.following import GrowingText, follow
from holdfast.gateway.openai_shapes import OWN_MODEL, ChatRequest, Completion, ending_of, read_chat
from holdfast.gateway.replies import RETRY_AFTER_S, EventStream, Refusal, json_response, refusal_of, refusal_of_input
from holdfast.inbound.event import InboundEvent
from holdfast.kernel import Holdfast
from holdfast.store.views import InputView
from holdfast.turn.events import Subscription

HEAD_WAIT_S = 2.0
"""How long a streaming reply waits for its turn to begin, so that its headers can tell how the histories relate and an
early failure still has a status of its own. Past it the stream begins, and the end of the stream tells."""
KEEP_ALIVE_S = 15.0  # proxies and clients close what is silent for 30 to 60 s
ANSWER_S_MAX = 3600.0  # past it a caller without a stream is told to ask again; official clients leave after 600 s


@dataclass(frozen=True, slots=True)
class Models:
    """Which models callers may name.

    Args:
        names: for the list: configured references, agents as "holdfast/<agent>".
        check: raises InputError for a reference that names nothing known or configured.
    """

    names: Sequence[str]
    check: Callable[[str], object]


class ChatApi:
    """The OpenAI-compatible routes."""

    def __init__(self, hf: Holdfast, door: Door, models: Models, closing: asyncio.Event) -> None:
        self._hf = hf
        self._door = door
        self._models = models
        self._closing = closing

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])
        router.add_api_route("/chat/completions", self.complete, methods=["POST"], summary="Chat completion")
        router.add_api_route("/models", self.list_models, methods=["GET"], summary="Models and agents")
        return router

    async def list_models(self) -> Response:
        """`holdfast` is the configured model; `holdfast/<agent>` names an agent; the rest are model references."""
        names = dict.fromkeys([OWN_MODEL, *self._models.names])
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "holdfast"} for name in names]
        return json_response({"object": "list", "data": data})

    async def complete(self, request: Request) -> Response:
        """One turn of a session: `X-Holdfast-Session`, else `user`, else a session of its own.

        Headers of the reply: `X-Holdfast-Session`, `X-Holdfast-Input`, `X-Holdfast-History` ("aligned", "appended",
        "diverged: where", "pending" or "unknown"), `X-Holdfast-Joined` if it shares an earlier request's turn.
        """
        chat = read_chat(await read_object(request))
        asked = Asked.of(request)
        self._check_model(chat)
        named = asked.session or chat.session()
        event = InboundEvent(named or "", chat.payload, waits=True, model=chat.model)
        if named is None:
            event = replace(event, session=fresh_session(chat.agent, event, asked))
        with ExitStack() as until_gone:
            # Before the input is stored: its turn may begin at once.
            events = until_gone.enter_context(self._hf.events.subscribe(session=event.session))
            stay = until_gone.enter_context(await self._door.admit(event, asked, is_fresh=named is None))
            if stay.view.session != event.session:
                events = until_gone.enter_context(self._hf.events.subscribe(session=stay.view.session))
            exchange = _Exchange(self._hf, chat, stay, events, self._closing)
            if not chat.stream:
                return await unless_gone(request, exchange.whole())
            await unless_gone(request, exchange.begin())
            return EventStream(exchange.chunks(), until_gone.pop_all().close, exchange.headers())

    def _check_model(self, chat: ChatRequest) -> None:
        if chat.model is None:
            return
        try:
            self._models.check(chat.model)
        except InputError as exc:
            raise Refusal(404, f"{exc}; GET /v1/models lists what is configured", code="model_not_found") from exc
        except ProviderError:
            return  # known, but without a key: the turn says so, or falls back


class _Exchange:
    """One caller's view of one input, from its admission to its end."""

    def __init__(
        self, hf: Holdfast, chat: ChatRequest, stay: Stay, events: Subscription, closing: asyncio.Event
    ) -> None:
        self._clock = hf.clock
        self._chat = chat
        self._stay = stay
        self._closing = closing
        self._happenings = follow(hf, events, stay.view.id, look_first=stay.joined)
        self._text = GrowingText()
        self._unsent = ""
        self._view = stay.view
        self._history: str | None = None
        created_s = stay.view.accepted_at_ms // 1000
        self._completion = Completion(stay.view.id, chat.model_asked, created_s, chat.include_usage)

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
        ending = ending_of(self._view, self._chat.offered)
        if ending is None:
            raise refusal_of_input(self._view)
        self._stay.given()
        completion = replace(self._completion, model=ending.model or self._chat.model_asked)
        return json_response(completion.body(ending) | self._extension(), headers=self.headers())

    async def begin(self) -> None:
        """Wait a moment for the turn to begin, so that the headers can speak of it.

        Raises:
            Refusal: it ended without an answer meanwhile.
        """
        deadline_mono = self._clock.mono() + HEAD_WAIT_S
        while not (self._view.settled or self._unsent or self._history) and self._clock.mono() < deadline_mono:
            await self._take_next()
        if self._view.settled and ending_of(self._view, self._chat.offered) is None:
            raise refusal_of_input(self._view)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A turn that fails ends in an error event, never in a finish."""
        yield _event(self._completion.chunk({"role": "assistant", "content": ""}))
        sent_mono = self._clock.mono()
        try:
            while not self._view.settled:
                await self._take_next()
                if self._unsent:
                    yield self._flush()
                elif self._clock.mono() - sent_mono < KEEP_ALIVE_S:
                    continue
                else:
                    yield f": {self._view.state}, {self._view.position or 0} ahead\n\n".encode()
                sent_mono = self._clock.mono()
            for chunk in self._last_chunks():
                yield _event(chunk)
        except Refusal as refusal:
            yield _event(refusal.body())
        except HoldfastError as exc:
            yield _event((refusal_of(exc) or Refusal(500, str(exc), "server_error")).body())
        else:
            yield b"data: [DONE]\n\n"
            self._stay.given()

    def _flush(self) -> bytes:
        text, self._unsent = self._unsent, ""
        return _event(self._completion.chunk({"content": text}))

    def _last_chunks(self) -> Iterator[dict[str, Any]]:
        ending = ending_of(self._view, self._chat.offered)
        if ending is None:
            raise refusal_of_input(self._view)
        rest = self._text.rest(ending.text)
        if rest is None:
            raise _replaced(self._view.id)
        completion = replace(self._completion, model=ending.model or self._chat.model_asked)
        text, self._unsent = self._unsent + rest, ""
        if text:
            yield completion.chunk({"content": text})
        if ending.tool_calls:
            yield completion.chunk({"tool_calls": ending.tool_call_deltas()})
        yield completion.chunk({}, ending.finish) | self._extension()
        if completion.include_usage:
            yield completion.usage_chunk(ending.usage)

    def _extension(self) -> dict[str, Any]:
        """What no standard field can say; clients ignore what they do not know."""
        view, history = self._view, self._told_history()
        return {"holdfast": {"input_id": view.id, "session": view.session, "state": view.state, "history": history}}

    def _told_history(self) -> str:
        """What the turn said of it; "unknown" if it ran before this caller came, or in another process."""
        return self._history or ("unknown" if self._view.settled else "pending")


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def still_running(input_id: str, waited_s: float) -> Refusal:
    """The answer to a caller who has waited long enough."""
    return Refusal(
        409,
        f"input {input_id} is not settled after {waited_s:.0f} s; it goes on: ask GET /api/inputs/{input_id}",
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
