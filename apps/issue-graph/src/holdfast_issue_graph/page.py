"""A page on this machine where one pastes an address: progress, the drawing, the report and the data.

Loopback alone, and only for browsers that ask for it by its own name: another page cannot make it explore anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import holdfast
from holdfast_issue_graph.cli import Result, Wish, fulfil
from holdfast_issue_graph.explore import Progress
from holdfast_issue_graph.github import GitHubError
from holdfast_issue_graph.refs import parse_start

JOBS_MAX, LINES_MAX, BODY_MAX = 50, 200, 4_000
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
SVG_HEADERS = HEADERS | {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
log = logging.getLogger("holdfast_issue_graph.page")


@dataclass(slots=True)
class Job:
    """One exploration. error: for people; empty: none."""

    start: str
    lines: list[str] = field(default_factory=list[str])
    read: int = 0
    limit: int = 0
    result: Result | None = None
    error: str = ""
    task: asyncio.Task[None] | None = None

    def view(self) -> dict[str, Any]:
        state = "failed" if self.error else "done" if self.result is not None else "running"
        return {
            "start": self.start, "state": state, "read": self.read, "limit": self.limit, "lines": self.lines[-20:],
            "error": self.error, "report": self.result.report if self.result else "",
        }  # fmt: skip


def app_of(base: Wish, host: str) -> FastAPI:
    """The page for one `host` ("127.0.0.1:8123"); `base` says what holds for all explorations."""
    jobs: OrderedDict[str, Job] = OrderedDict()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        running = [job.task for job in jobs.values() if job.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        names = {host, host.replace("127.0.0.1", "localhost")}
        if request.headers.get("host") not in names:
            return JSONResponse({"error": f"ask for http://{host}/"}, 421, HEADERS)
        if request.method != "GET" and request.headers.get("origin") not in {f"http://{name}" for name in names}:
            return JSONResponse({"error": "only this page's own form may ask for that"}, 403, HEADERS)
        answer: Response = await call_next(request)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    @app.get("/")
    @app.get("/{name}.js")
    @app.get("/{name}.css")
    async def asset(request: Request, name: str = "page") -> Response:
        kind = {"": "html", ".js": "javascript", ".css": "css"}[Path(request.url.path).suffix]
        file = Path(__file__).parent / "page" / ("page.html" if kind == "html" else Path(request.url.path).name)
        if name != "page":
            return JSONResponse({"error": "there is no such file"}, 404)
        return Response(file.read_bytes(), media_type=f"text/{kind}; charset=utf-8")

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @app.post("/explore")
    async def begin(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                return JSONResponse({"error": f"more than {BODY_MAX} bytes are no address"}, 413)
        try:
            text = json.loads(body)["url"]
            wish = replace(base, start=parse_start(str(text)))
        except (ValueError, KeyError, TypeError) as exc:
            told = str(exc) if type(exc) is ValueError else 'send {"url": "…"}'
            return JSONResponse({"error": told}, 400)
        running = [job for job in jobs.values() if job.result is None and not job.error]
        if len(running) >= 4:
            return JSONResponse({"error": "four are being explored already; wait for one of them"}, 429)
        name, job = uuid4().hex, Job(wish.start.text, limit=wish.limits.items)
        jobs[name] = job
        while len(jobs) > JOBS_MAX:
            oldest = next((key for key, one in jobs.items() if one.result or one.error), None)
            if oldest is None:
                break
            del jobs[oldest]
        job.task = asyncio.create_task(_work(job, wish))
        return JSONResponse({"job": name}, 202)

    @app.get("/jobs/{name}")
    async def look(name: str) -> Response:
        job = jobs.get(name)
        return JSONResponse(job.view()) if job else JSONResponse({"error": "no such exploration"}, 404)

    @app.get("/jobs/{name}/{file}")
    async def take(name: str, file: str) -> Response:
        job = jobs.get(name)
        if job is None or job.result is None:
            return JSONResponse({"error": "nothing there (yet)"}, 404)
        if file == "graph.svg":
            return Response(job.result.svg, media_type="image/svg+xml", headers=SVG_HEADERS)
        if file == "report.md":
            return Response(job.result.report, media_type="text/markdown; charset=utf-8")
        if file == "graph.json":
            return JSONResponse(job.result.data)
        return JSONResponse({"error": "report.md, graph.svg and graph.json are there"}, 404)

    return app


async def _work(job: Job, wish: Wish) -> None:
    """One exploration to its end; whatever ends it is shown."""

    def told(now: Progress) -> None:
        job.read = now.read
        tell(f"reading {now.doing}" if now.doing else f"{now.read} read")

    def tell(line: str) -> None:
        job.lines.append(line)
        del job.lines[:-LINES_MAX]

    try:
        job.result = await fulfil(wish, told, tell)
    except holdfast.SessionBusyError:
        job.error = f"{wish.start.text} is being explored by somebody else; try again when that is done"
    except (GitHubError, holdfast.HoldfastError) as exc:
        job.error = str(exc)
    except asyncio.CancelledError:
        job.error = "the page was stopped; ask again, and it goes on where it was"
        raise
    except Exception:  # the edge of a task: whoever waits for it is told, and the log has the rest
        log.exception("exploring %s", wish.start.text)
        job.error = "something here is broken; the terminal shows what"


def serve(base: Wish, port: int) -> None:
    """Until interrupted. Raises: click.ClickException: the port is taken."""
    sock = socket.socket(socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as exc:
        raise click.ClickException(f"port {port}: {exc.strerror}; name another with --port") from None
    host = f"127.0.0.1:{sock.getsockname()[1]}"
    click.echo(f"Paste an address at http://{host}/ (Ctrl-C ends it)")
    server = uvicorn.Server(uvicorn.Config(app_of(base, host), log_level="warning", lifespan="on"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve([sock]))
