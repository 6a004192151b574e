"""Sessions as a whole over HTTP, under `/api`: titles, read receipts, resets, archives, retention. What the commands of
`holdfast sessions` do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Query, Request

from holdfast.errors import InputError, UnknownInputError
from holdfast.gateway.body import read_object
from holdfast.gateway.replies import RETRY_AFTER_S, Refusal, json_response
from holdfast.kernel import Holdfast
from holdfast.recovery import upkeep
from holdfast.session.handle import NOTHING
from holdfast.session.key import validate_key
from holdfast.session.retention import Limits
from holdfast.store.views import ArchiveView, InUse

if TYPE_CHECKING:
    from starlette.responses import Response

LIST_MAX = 1000
WAIT_S_MAX = 60.0


class SessionsApi:
    """Routes for what becomes of sessions."""

    def __init__(self, hf: Holdfast, limits: Callable[[], Limits]) -> None:
        self._hf = hf
        self._limits = limits

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api")
        routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
            ("POST", "/sessions/prune", self.prune),
            ("POST", "/sessions/{key:path}/archive", self.archive),
            ("POST", "/sessions/{key:path}/reset", self.reset),
            ("POST", "/sessions/{key:path}/read", self.mark_read),
            ("PATCH", "/sessions/{key:path}", self.rename),
            ("DELETE", "/sessions/{key:path}", self.delete),
            ("GET", "/archives", self.list_archives),
            ("POST", "/archives/{id}/restore", self.restore),
            ("DELETE", "/archives/{id}", self.delete_archive),
        ]
        for method, path, handler in routes:
            router.add_api_route(
                path, handler, methods=[method], response_model=None, operation_id=f"{method} /api{path}"
            )
        return router

    async def rename(self, request: Request, key: str) -> Response:
        """`{"title": "…" or null}`: metadata, which disturbs no turn."""
        body = await read_object(request)
        title = body.get("title")
        if "title" not in body or not isinstance(title, str | None):
            raise InputError("title: must be a string, or null for none")
        await self._hf.session(validate_key(key)).rename(title)
        return json_response({"session": key, "title": title})

    async def mark_read(self, request: Request, key: str) -> Response:
        """`{"by": "…", "upto"?: entry id}`: somebody has seen the conversation. `noted` is false if that was known."""
        body = await read_object(request)
        by, upto = body.get("by"), body.get("upto")
        if not isinstance(by, str) or not isinstance(upto, str | None):
            raise InputError("by: must be a string; upto: a string, if it is there")
        noted = await self._hf.session(validate_key(key)).mark_read(by=by, upto=upto)
        return json_response({"session": key, "noted": noted})

    async def reset(self, request: Request, key: str, wait_s: float = Query(0.0, ge=0, le=WAIT_S_MAX)) -> Response:
        """Begin a new conversation in the same transcript. 409 while a turn runs, for longer than `wait_s`."""
        await self._hf.session(validate_key(key)).reset(by=_caller(request), wait_s=wait_s)
        return json_response({"session": key, "result": "reset"})

    async def archive(self, request: Request, key: str, wait_s: float = Query(0.0, ge=0, le=WAIT_S_MAX)) -> Response:
        """Put the transcript away; the next message begins a new one. 409 while a turn runs, an input is open or an
        answer has not gone out.
        """
        made = await self._hf.session(validate_key(key)).archive(by=_caller(request), wait_s=wait_s)
        return json_response(_made(key, made))

    async def delete(self, request: Request, key: str, wait_s: float = Query(0.0, ge=0, le=WAIT_S_MAX)) -> Response:
        """The same, as deleted: its archive goes for good with `DELETE /api/archives/{id}`, or by retention."""
        made = await self._hf.session(validate_key(key)).archive(by=_caller(request), why="deleted", wait_s=wait_s)
        return json_response(_made(key, made))

    async def list_archives(
        self, session: str | None = None, limit: int = Query(100, ge=1, le=LIST_MAX)
    ) -> Response:  # fmt: skip
        """Archives, newest first."""
        return json_response({"archives": await self._hf.archives(session=session, limit=limit)})

    async def restore(self, request: Request, id: str, wait_s: float = Query(0.0, ge=0, le=WAIT_S_MAX)) -> Response:
        """Bring an archive back into its session; what was said there since is archived. 409 as for `archive`."""
        found = [one.session for one in await self._hf.archives(limit=-1) if one.id == id]
        if not found:
            raise UnknownInputError(f"no archive {id!r}")
        refused = await self._hf.session(found[0]).restore(id, by=_caller(request), wait_s=wait_s)
        if refused is not None:
            raise _in_use(found[0], refused)
        return json_response({"session": found[0], "restored": id})

    async def delete_archive(self, id: str) -> Response:
        """For good."""
        return json_response({"archive": id, "bytes": await self._hf.delete_archive(id)})

    async def prune(self, request: Request) -> Response:
        """`{"dry_run": bool}`: what `[retention]` asks for, and what came of it."""
        body = await read_object(request)
        dry_run = body.get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise InputError("dry_run: must be true or false")
        found = await upkeep.prune(self._hf, self._limits(), by=_caller(request), dry_run=dry_run)
        told: dict[str, Any] = {
            "dry_run": dry_run, "steps": found.done, "freed_bytes": 0 if dry_run else found.freed_bytes,
            "total_bytes": found.plan.total_bytes, "short_bytes": found.plan.short_bytes, "surplus": found.plan.surplus,
        }  # fmt: skip
        return json_response(told)


def _caller(request: Request) -> str:
    return f"http ({request.client.host if request.client else 'unknown'})"


def _made(session: str, made: ArchiveView | InUse) -> ArchiveView:
    if isinstance(made, InUse):
        if made.why == NOTHING:
            raise Refusal(409, f"{session}: {made.why}", "conflict_error", "nothing_there")
        raise _in_use(session, made)
    return made


def _in_use(session: str, refused: InUse) -> Refusal:
    return Refusal(
        409, f"{session}: {refused.why}; try again later", "conflict_error", "in_use",
        {"retry-after": str(RETRY_AFTER_S)},
    )  # fmt: skip
