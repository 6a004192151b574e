"""`/v1/chat/completions` and `/v1/models`, as official clients speak them.

The input is stored before the first byte of the reply. Text streams as it is written; the finishing chunk and `[DONE]`,
or the whole body, wait for the settlement. A caller who leaves does not stop the turn: its answer stays under the id in
`X-Holdfast-Input`. Read `ChatApi.complete` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from holdfast.errors import InputError, ProviderError
from holdfast.gateway.body import read_object
from holdfast.gateway.door import Asked, fresh_session
from holdfast.gateway.exchange import Desk
from holdfast.gateway.openai_shapes import OWN_MODEL, ChatRequest, Completion, Ending, read_chat
from holdfast.gateway.replies import Refusal, json_response
from holdfast.inbound.event import InboundEvent
from holdfast.store.views import InputView


@dataclass(slots=True)
class Models:
    """Which models callers may name.

    Args:
        names: for the list: configured references, agents as "holdfast/<agent>". Exchanged when the configuration is.
        check: raises InputError for a reference that names nothing known or configured.
    """

    names: Sequence[str]
    check: Callable[[str], object]


class ChatApi:
    """The OpenAI-compatible routes."""

    def __init__(self, desk: Desk, models: Models) -> None:
        self._desk = desk
        self._models = models

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])
        router.add_api_route("/chat/completions", self.complete, methods=["POST"], summary="Chat completion")
        router.add_api_route("/models", self.list_models, methods=["GET"], summary="Models and agents")
        router.add_api_route("/models/{id:path}", self.get_model, methods=["GET"], summary="One of them")
        return router

    async def list_models(self) -> Response:
        """`holdfast` is the configured model; `holdfast/<agent>` names an agent; the rest are model references."""
        names = dict.fromkeys([OWN_MODEL, *self._models.names])
        return json_response({"object": "list", "data": [_model(name) for name in names]})

    async def get_model(self, id: str) -> Response:
        """One that is listed, or that its provider would be asked for."""
        if id not in (OWN_MODEL, *self._models.names):
            check_model(self._models, id)
        return json_response(_model(id))

    async def complete(self, request: Request) -> Response:
        """One turn of a session: `X-Holdfast-Session`, else `user`, else a session of its own.

        Headers of the reply: `X-Holdfast-Session`, `X-Holdfast-Input`, `X-Holdfast-History` ("aligned", "appended",
        "diverged: where", "pending" or "unknown"), `X-Holdfast-Joined` if it shares an earlier request's turn.
        """
        chat = read_chat(await read_object(request))
        asked = Asked.of(request)
        check_model(self._models, chat.model)
        named = asked.session or chat.session()
        event = InboundEvent(named or "", chat.payload, waits=True, model=chat.model)
        if named is None:
            event = replace(event, session=fresh_session(chat.agent, event, asked))
        return await self._desk.answer(
            request, event, asked, is_fresh=named is None, stream=chat.stream, offered=chat.offered,
            shape_of=lambda view: _ChatShape(chat, view),
        )  # fmt: skip


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "holdfast"}


def check_model(models: Models, model: str | None) -> None:
    """Raises Refusal: 404, it names nothing known or configured. None leaves the choice to the configuration."""
    if model is None:
        return
    try:
        models.check(model)
    except InputError as exc:
        raise Refusal(404, f"{exc}; GET /v1/models lists what is configured", code="model_not_found") from exc
    except ProviderError:
        return  # known, but without a key: the turn says so, or falls back


class _ChatShape:
    """An answer as chat completion chunks, or as one chat completion."""

    def __init__(self, chat: ChatRequest, view: InputView) -> None:
        self._chat = chat
        created_s = view.accepted_at_ms // 1000
        self._completion = Completion(view.id, chat.model_asked, created_s, chat.include_usage)

    def opening(self) -> Iterator[bytes]:
        yield _event(self._completion.chunk({"role": "assistant", "content": ""}))

    def text(self, text: str) -> Iterator[bytes]:
        yield _event(self._completion.chunk({"content": text}))

    def closing(self, ending: Ending, rest: str, told: dict[str, Any]) -> Iterator[bytes]:
        completion = self._named(ending)
        if rest:
            yield _event(completion.chunk({"content": rest}))
        if ending.tool_calls:
            yield _event(completion.chunk({"tool_calls": ending.tool_call_deltas()}))
        yield _event(completion.chunk({}, ending.finish) | told)
        if completion.include_usage:
            yield _event(completion.usage_chunk(ending.usage))
        yield b"data: [DONE]\n\n"

    def failing(self, refusal: Refusal) -> Iterator[bytes]:
        """A turn that fails ends in an error event, never in a finish."""
        yield _event(refusal.body())

    def whole(self, ending: Ending, told: dict[str, Any]) -> dict[str, Any]:
        return self._named(ending).body(ending) | told

    def _named(self, ending: Ending) -> Completion:
        return replace(self._completion, model=ending.model or self._chat.model_asked)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
