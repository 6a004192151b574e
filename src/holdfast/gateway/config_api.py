"""The configuration of a running gateway over HTTP: `GET /api/config`, `POST /api/config/reload`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from holdfast.gateway.replies import json_response

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast.gateway.reloading import Reloading


class ConfigApi:
    """The routes. One per application."""

    def __init__(self, reloading: Reloading) -> None:
        self._reloading = reloading

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/config")
        for method, path, handler in (("GET", "", self.show), ("POST", "/reload", self.reload)):
            router.add_api_route(
                path, handler, methods=[method], response_model=None, operation_id=f"{method} /api/config{path}"
            )
        return router

    async def show(self) -> Response:
        """What came of the last reading: `{"last": {…} or null, "waiting": [keys that need a restart]}`. No values."""
        last = self._reloading.last
        return json_response({"last": last, "waiting": last.waiting if last is not None else []})

    async def reload(self, request: Request) -> Response:
        """Read the configuration again and take what can be taken: 200 with `applied`, `waiting` and `warnings`; 409
        with `faults`, each with its key, and then nothing was changed.
        """
        client = request.client.host if request.client is not None else "unknown"
        found = await self._reloading.reload(f"http ({client})")
        return json_response(found, 409 if found.faults else 200)
