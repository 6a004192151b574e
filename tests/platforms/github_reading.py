"""A stand-in of GitHub's REST API for readers: pages, ETags, limits, moves and faults on demand, over real sockets.

async with reading_stand_in(answers) as github:     # answers: as in a recording, path with query → {"body": …}
    github.fault("/repos/o/r/issues/1", status=502)  # the next request for it
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.platforms.serving import served


class ReadingStandIn:
    """What it was asked for stands in `asked`, as path and status. holds: requests for these paths wait."""

    def __init__(self, answers: dict[str, Any], page_size: int = 100) -> None:
        self.url = ""
        self.answers = answers
        self.page_size = page_size
        self.asked: list[tuple[str, int]] = []
        self.headers: list[dict[str, str]] = []
        self.holds: dict[str, asyncio.Event] = {}
        self.reached = asyncio.Event()
        self._faults: dict[str, deque[tuple[int, dict[str, str]]]] = {}

    def fault(self, path: str, status: int, **headers: str) -> None:
        """Of the next request for a path; underscores in names of headers are dashes."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self._faults.setdefault(path, deque()).append((status, told))

    async def call(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        hold = self.holds.get(request.path)
        if hold is not None:
            self.reached.set()
            await hold.wait()
        answer = self._answer(request)
        self.asked.append((request.path, answer.status))
        return answer

    def _answer(self, request: web.Request) -> web.Response:
        faults = self._faults.get(request.path)
        if faults:
            status, headers = faults.popleft()
            return web.json_response({"message": "a fault"}, status=status, headers=headers)
        page = int(request.query.get("page", 1))
        found = self.answers.get(request.path, self.answers.get(f"{request.path}?per_page=100"))
        if found is None:
            return web.json_response({"message": "Not Found"}, status=404)
        body, headers = found["body"], {}
        if isinstance(body, list):
            first = (page - 1) * self.page_size
            if first + self.page_size < len(body):
                headers["Link"] = f'<{self.url}{request.path}?per_page=100&page={page + 1}>; rel="next"'
            body = body[first : first + self.page_size]
        text = json.dumps(body)
        headers["ETag"] = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(text=text, content_type="application/json", headers=headers)


@asynccontextmanager
async def reading_stand_in(answers: dict[str, Any], page_size: int = 100) -> AsyncIterator[ReadingStandIn]:
    """Serve it on a free port of loopback until left."""
    github = ReadingStandIn(answers, page_size)
    async with served(github.call) as url:
        github.url = url
        yield github
