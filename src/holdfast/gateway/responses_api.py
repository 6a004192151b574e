"""`/v1/responses`, as official clients speak it: a turn of a session, like `/v1/chat/completions`.

A response is an input's answer: its id holds the input's, and `previous_response_id` continues the session which that
belongs to, as it stands now. Nothing is forgotten for `store: false`: the session is the conversation's record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from holdfast.errors import InputError, UnknownInputError
from holdfast.gateway.body import read_object
from holdfast.gateway.door import Asked, fresh_session
from holdfast.gateway.exchange import Desk
from holdfast.gateway.openai_api import Models, check_model
from holdfast.gateway.openai_shapes import OWN_MODEL, ending_of
from holdfast.gateway.replies import Refusal, json_response
from holdfast.gateway.responses_shapes import PREFIX, ResponseEvents, ResponseShape, input_of, read_request
from holdfast.inbound.event import InboundEvent
from holdfast.kernel import Holdfast
from holdfast.store.views import InputView

_STATUS = {"queued": "queued", "running": "in_progress", "cancelled": "cancelled"}


class ResponsesApi:
    """The routes of the Responses API."""

    def __init__(self, hf: Holdfast, desk: Desk, models: Models) -> None:
        self._hf = hf
        self._desk = desk
        self._models = models

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/responses", tags=["OpenAI-compatible"])
        router.add_api_route("", self.create, methods=["POST"], summary="Response")
        router.add_api_route("/{id}", self.retrieve, methods=["GET"], summary="What became of a response")
        router.add_api_route("/{id}/cancel", self.cancel, methods=["POST"], summary="Stop a response")
        return router

    async def create(self, request: Request) -> Response:
        """One turn of a session: `X-Holdfast-Session`, else that of `previous_response_id`, else `user`, else its own.

        Headers of the reply as in `/v1/chat/completions`.
        """
        wanted = read_request(await read_object(request))
        chat, asked = wanted.chat, Asked.of(request)
        check_model(self._models, chat.model)
        named = asked.session or chat.session()
        if wanted.previous is not None:
            named = await self._session_of(wanted.previous, asked.session)
        event = InboundEvent(named or "", chat.payload, waits=True, model=chat.model)
        if named is None:
            event = replace(event, session=fresh_session(chat.agent, event, asked))

        def shape_of(view: InputView) -> ResponseEvents:
            created_s = view.accepted_at_ms // 1000
            return ResponseEvents(
                ResponseShape(view.id, chat.model_asked, created_s, wanted.previous, wanted.instructions)
            )

        return await self._desk.answer(
            request, event, asked, is_fresh=named is None, stream=chat.stream, offered=chat.offered, shape_of=shape_of
        )

    async def retrieve(self, id: str) -> Response:
        """The response as it is now: queued, in_progress, completed, incomplete, cancelled or failed."""
        return json_response(_shown(await self._known(id)))

    async def cancel(self, request: Request, id: str) -> Response:
        """Ask it to stop; what is final already stays as it is."""
        view = await self._known(id)
        client = request.client.host if request.client else "unknown"
        await self._hf.cancel(view.id, by=f"http ({client})")
        return json_response(_shown(await self._hf.input(view.id)))

    async def _session_of(self, previous: str, header: str | None) -> str:
        view = await self._known(PREFIX + previous)
        if header not in (None, view.session):
            raise InputError(
                f"previous_response_id: belongs to session {view.session}, X-Holdfast-Session says {header}"
            )
        return view.session

    async def _known(self, id: str) -> InputView:
        try:
            return await self._hf.input(input_of(id))
        except UnknownInputError as exc:
            raise Refusal(404, f"no response {id!r}", code="response_not_found") from exc


def _shown(view: InputView) -> dict[str, Any]:
    response = ResponseShape(view.id, view.model or OWN_MODEL, view.accepted_at_ms // 1000)
    offered = tuple(tool["name"] for tool in (view.payload or {}).get("tools", ()))
    ending = ending_of(view, offered) if view.settled else None
    told = {"holdfast": {"input_id": view.id, "session": view.session, "state": view.state}}
    if ending is not None:
        return response.ended(ending, told)
    if not view.settled:
        return response.body(_STATUS[view.state], [], **told)
    return response.failed(view.error or view.state, view.detail or "", _STATUS.get(view.state, "failed")) | told
