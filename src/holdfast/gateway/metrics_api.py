"""`GET /metrics`, for Prometheus. It needs the token, as everything does: `authorization` in a scrape configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import Response

if TYPE_CHECKING:
    from holdfast.observe.metrics import Metrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsApi:
    """What this process counts, and what waits in the state."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def router(self) -> APIRouter:
        router = APIRouter()
        about: dict[str, Any] = {"response_model": None, "operation_id": "GET /metrics"}
        router.add_api_route("/metrics", self.metrics, methods=["GET"], **about)
        return router

    async def metrics(self) -> Response:
        """Counters of this process, and gauges of the whole state, in the text format of Prometheus."""
        return Response(await self._metrics.render(), media_type=TEXT)
