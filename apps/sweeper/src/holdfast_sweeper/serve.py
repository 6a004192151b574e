"""The program that runs all the time: webhooks in, the queue worked off, open items looked at now and then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import holdfast
from holdfast.inbound.webhook import delivery_key, event_name, is_signed
from holdfast_sweeper.facts import Item, is_repo
from holdfast_sweeper.github import GitHubError
from holdfast_sweeper.hatch import svg_of
from holdfast_sweeper.plan import Ignored
from holdfast_sweeper.sweeper import Sweeper

BODY_MAX = 5_000_000
SVG_HEADERS = {"content-security-policy": "default-src 'none'; sandbox", "x-content-type-options": "nosniff"}
log = logging.getLogger("holdfast_sweeper.serve")


def app_of(sweeper: Sweeper, secret: str) -> FastAPI:
    """The webhook's door, the pictures, and whether it lives. Nothing of a repository is shown here.

    Args:
        secret: of the webhook; empty: every delivery is refused.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/webhook")
    async def webhook(request: Request) -> Response:
        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > BODY_MAX:
                return JSONResponse({"error": f"more than {BODY_MAX:,} bytes"}, 413)
        headers = dict(request.headers)
        if not secret or not is_signed("github", secret, headers, raw, time.time()):
            return JSONResponse({"error": "the signature is missing or wrong"}, 401)
        try:
            payload = json.loads(raw)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "send application/json"}, 400)
        delivery, event = delivery_key("github", headers, payload), event_name("github", headers, payload)
        if not isinstance(payload, dict) or not delivery or not event:
            return JSONResponse({"error": "this is no delivery of GitHub's"}, 400)
        try:
            taken = await sweeper.hear(event, payload, delivery)
        except (GitHubError, holdfast.ResourceError, holdfast.DrainingError) as exc:
            log.error("a delivery was not taken: %s", exc)
            return JSONResponse({"error": "not stored; deliver it again"}, 503)
        except holdfast.InputConflictError:
            return JSONResponse({"error": "this delivery's number was used for something else"}, 409)
        if isinstance(taken, Ignored):
            return JSONResponse({"ignored": taken.why}, 200)
        return JSONResponse({"inputs": taken}, 202)

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/hatch/{owner}/{repo}/{number}.svg")
    async def picture(owner: str, repo: str, number: int) -> Response:
        if not is_repo(f"{owner}/{repo}") or not 0 < number < 10**10:
            return JSONResponse({"error": "there is no such item"}, 404)
        svg = svg_of(Item(f"{owner}/{repo}", number))
        return Response(
            svg, media_type="image/svg+xml", headers=SVG_HEADERS | {"cache-control": "public, max-age=86400"}
        )

    return app


@asynccontextmanager
async def working(sweeper: Sweeper, *, every_s: float = 0.0) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The queue is worked off, and every so often open items are looked at, until left. Yields the tasks that do so:
    one that ends before has failed.
    """
    tasks = [asyncio.create_task(sweeper.hf.work(sweeper.run), name="work")]
    if every_s > 0:
        tasks.append(asyncio.create_task(_sweep(sweeper, every_s), name="sweep"))
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sweep(sweeper: Sweeper, every_s: float) -> None:
    while True:
        for repo in sweeper.settings.repositories:
            if not is_repo(repo):  # a pattern
                continue
            try:
                log.info("%s: %d open items", repo, await sweeper.sweep(repo))
            except (GitHubError, holdfast.HoldfastError) as exc:
                log.error("%s could not be swept: %s", repo, exc)
        await asyncio.sleep(every_s)


async def serve(sweeper: Sweeper, secret: str, host: str, port: int, every_s: float) -> None:
    """Until interrupted. What runs then goes back to its place in the queue."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app_of(sweeper, secret), host=host, port=port, log_level="warning"))
    async with working(sweeper, every_s=every_s) as tasks:
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({*tasks, serving}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        for failed in [task for task in tasks if task.done()]:
            failed.result()
