"""What models have used, over HTTP: `GET /api/usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from holdfast.clock import epoch_ms
from holdfast.errors import InputError
from holdfast.gateway.replies import json_response
from holdfast.inbound.schedule import zone_of
from holdfast.kernel import Holdfast
from holdfast.observe.usage import BYS, SINCE_DEFAULT, as_json, report
from holdfast.observe.usage import since as since_when

if TYPE_CHECKING:
    from starlette.responses import Response


class UsageApi:
    """Sums; the same as `holdfast usage --json`."""

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api")
        about: dict[str, Any] = {"response_model": None, "operation_id": "GET /api/usage"}
        router.add_api_route("/usage", self.usage, methods=["GET"], **about)
        return router

    async def usage(
        self, by: str | None = None, since: str = SINCE_DEFAULT, session: str | None = None, agent: str | None = None,
        timezone: str = "UTC",
    ) -> Response:  # fmt: skip
        """Calls, tokens and micro-dollars, `by` day, session, agent, model or lane; `since` 7d, 12h, today, month or a
        date; days are those of `timezone`.
        """
        if by is not None and by not in BYS:
            raise InputError(f"by {by!r}: must be one of {', '.join(BYS)}")
        zone, now = zone_of(timezone), self._hf.clock.now()
        since_ms, until_ms = since_when(since, now, zone), epoch_ms(now) + 1
        rows = await self._hf.store.usage(since_ms=since_ms, until_ms=until_ms, session=session, agent=agent)
        found = report(rows, by=by, since_ms=since_ms, until_ms=until_ms, zone=zone)
        return json_response(as_json(found))
