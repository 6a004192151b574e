"""Questions whether a tool call may run, over HTTP: `GET /api/approvals`, `POST /api/approvals/{id}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Query, Request

from holdfast.errors import InputError
from holdfast.gateway.body import read_object
from holdfast.gateway.replies import json_response
from holdfast.kernel import Holdfast

if TYPE_CHECKING:
    from starlette.responses import Response

LIST_MAX = 1000


class ApprovalsApi:
    """Whoever holds the gateway's token may answer any question."""

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api")
        for method, path, handler in (
            ("GET", "/approvals", self.list_approvals),
            ("POST", "/approvals/{id}", self.answer),
        ):
            router.add_api_route(
                path, handler, methods=[method], response_model=None, operation_id=f"{method} /api{path}"
            )
        return router

    async def list_approvals(
        self, session: str | None = None, pending: bool = True, limit: int = Query(100, ge=1, le=LIST_MAX)
    ) -> Response:
        """Questions that wait for an answer, newest first; all of them with `?pending=0`."""
        found = await self._hf.approvals(session=session, pending=pending, limit=limit)
        return json_response({"approvals": found})

    async def answer(self, request: Request, id: str) -> Response:
        """`{"answer": "approve" or "deny", "scope"?: "once" or "session"}`. 404 if there is no such question, 400 if it
        is answered, too old, or its turn has ended.
        """
        body = await read_object(request)
        answer, scope = body.get("answer"), body.get("scope", "once")
        if answer not in ("approve", "deny"):
            raise InputError('answer: must be "approve" or "deny"')
        if scope not in ("once", "session"):
            raise InputError('scope: must be "once" or "session"')
        by = f"http ({request.client.host if request.client else 'unknown'})"
        answered = await self._hf.answer_approval(id, yes=answer == "approve", by=by, scope=scope)
        return json_response(answered)
