"""GitHub's REST API, and its GraphQL for blame: pages, ETags, limits, faults; what was surely not done is tried again.

One host, one token. A limit belongs to the token: while one is known nothing is asked, since GitHub bars who goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

API_URL = "https://api.github.com"
BODY_MAX, PAGES_MAX, CACHE_MAX = 20_000_000, 20, 500
TRIES, PAUSES_S = 4, (1.0, 3.0, 10.0)
ON_THE_WIRE = ("content-encoding", "content-length")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')


class GitHubError(Exception):
    """GitHub did not do it. The text names the way out."""


class AbsentError(GitHubError):
    """It is not there, or not for this token (404, 410, 451)."""


class RefusedError(GitHubError):
    """It was refused for what it is (400, 401, 403, 405, 409, 422): the same again will be, too."""


class UnknownError(GitHubError):
    """Nobody knows whether it was done: the connection broke, or the server failed."""


class GitHub:
    """Reads and writes. Opens no connection before the first call; `close` ends all, and may be called twice.

    Args:
        wait_max_s: how long a used-up limit is waited for. tell: hears a line when something takes long.
    """

    def __init__(
        self, token: str, *, api_url: str = API_URL, wait_max_s: float = 900.0,
        tell: Callable[[str], None] = lambda _: None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.api_url = api_url.rstrip("/")
        self.requests = 0
        self.unchanged = 0
        self._wait_max_s, self._tell, self._sleep, self._now = wait_max_s, tell, sleep, now
        self._headers = {"accept": "application/vnd.github+json", "user-agent": "holdfast-sweeper"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._http: httpx.AsyncClient | None = None
        self._kept: OrderedDict[str, tuple[str, Any, str]] = OrderedDict()
        self._limited_until = 0.0
        self._me: tuple[str, int] | None = None

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def me(self) -> tuple[str, int]:
        """Login and number of the token's account; without a token nobody: ("", 0)."""
        if "authorization" not in self._headers:
            return "", 0
        if self._me is None:
            told = await self.get("/user")
            self._me = (str(told.get("login", "")), int(told.get("id", 0))) if isinstance(told, Mapping) else ("", 0)
        return self._me

    async def get(self, path: str) -> Any:
        """One document. Raises: AbsentError, RefusedError, GitHubError."""
        return (await self._read(path))[0]

    async def pages(self, path: str, *, pages_max: int = PAGES_MAX, key: str = "") -> list[Any]:
        """A list over all its pages. key: where in each page it stands; empty: a page is a list. Raises: as `get`."""
        found: list[Any] = []
        following = f"{path}{'&' if '?' in path else '?'}per_page=100"
        for _ in range(pages_max):
            body, following = await self._read(following)
            listed = body.get(key) if key and isinstance(body, Mapping) else body
            if isinstance(listed, list):
                found.extend(listed)
            if not following:
                break
        return found

    async def write(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: bool = True) -> Any:
        """Do something.

        Args:
            again: doing it twice is the same as once, so that it is tried again where nobody knows.

        Raises: AbsentError, RefusedError, UnknownError, GitHubError.
        """
        response = await self._ask(method, path, body=body, again=again)
        return _decoded(path, response) if response.content else None

    async def graphql(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Its `data`; empty: it was refused. Raises: as `get`."""
        told = await self.write("POST", "/graphql", {"query": query, "variables": dict(variables)})
        data = told.get("data") if isinstance(told, Mapping) else None
        return data if isinstance(data, Mapping) else {}

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, path: str) -> tuple[Any, str]:
        """The document, and the path of the next page."""
        known = self._kept.get(path)
        response = await self._ask("GET", path, etag=known[0] if known else "", again=True)
        if response.status_code == 304 and known is not None:
            self.unchanged += 1
            self._kept.move_to_end(path)
            # A page that is unchanged may have got a successor since: its ETag is of what stands on it.
            return known[1], self._next(path, response) or known[2]
        body, following = _decoded(path, response), self._next(path, response)
        is_last_and_full = not following and isinstance(body, list) and len(body) >= 100
        if response.headers.get("etag") and not is_last_and_full:
            self._kept[path] = (response.headers["etag"], body, following)
            while len(self._kept) > CACHE_MAX:
                self._kept.popitem(last=False)
        return body, following

    async def _ask(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, etag: str = "", again: bool
    ) -> httpx.Response:
        fault = ""
        for tries in range(TRIES):
            if tries and fault:
                self._tell(f"{fault}; once more in {PAUSES_S[tries - 1]:g} s")
                await self._sleep(PAUSES_S[tries - 1])
            await self._wait_for_limit(path)
            try:
                response = await self._send(method, path, body, etag)
            except httpx.ConnectError as exc:  # nothing has gone out
                fault = f"{self.api_url} cannot be reached ({type(exc).__name__})"
                continue
            except httpx.HTTPError as exc:
                fault = f"the connection to {self.api_url} broke in {method} {path} ({type(exc).__name__})"
                if not again:
                    raise UnknownError(fault) from exc
                continue
            if response.status_code < 300 or response.status_code == 304:
                return response
            if response.status_code >= 500:
                fault = f"{method} {path} was answered with {response.status_code}"
                if not again:
                    raise UnknownError(fault)
                continue
            pause_s = self._limit_of(response)
            if pause_s is None:
                raise _refused(method, path, response)
            self._limited_until = max(self._limited_until, self._now() + pause_s)
            fault = ""
        raise GitHubError(f"{fault or 'GitHub limits this token'}, {TRIES} times in a row; try again later")

    async def _wait_for_limit(self, path: str) -> None:
        pause_s = self._limited_until - self._now()
        if pause_s > self._wait_max_s:
            raise GitHubError(f"{path} has to wait: the limit of this token is used up for another {pause_s:.0f} s")
        if pause_s > 0:
            self._tell(f"GitHub asks for a pause of {pause_s:.0f} s")
            await self._sleep(pause_s)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None, etag: str) -> httpx.Response:
        if self._http is None:
            self._http = httpx.AsyncClient(headers=self._headers, timeout=30, follow_redirects=False)
        url = self.api_url + path
        for _ in range(3):
            self.requests += 1
            headers = {"if-none-match": etag} if etag else {}
            async with self._http.stream(method, url, json=body, headers=headers) as response:
                content = b""
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > BODY_MAX:
                        raise GitHubError(f"{path} is larger than {BODY_MAX:,} bytes")
            if response.status_code not in (301, 302, 307, 308):
                kept = {name: value for name, value in response.headers.items() if name not in ON_THE_WIRE}
                return httpx.Response(response.status_code, headers=kept, content=content)
            url = urljoin(url, response.headers.get("location", ""))
            if urlsplit(url)[:2] != urlsplit(self.api_url)[:2]:
                raise AbsentError(f"{path} has moved to another host, which is not followed")
        raise AbsentError(f"{path} leads in a circle")

    def _next(self, path: str, response: httpx.Response) -> str:
        """The path of the next page, if it is of this host."""
        found = _NEXT.search(response.headers.get("link", ""))
        url = urljoin(self.api_url + path, found[1]) if found else ""
        return url.removeprefix(self.api_url) if url.startswith(self.api_url + "/") else ""

    def _limit_of(self, response: httpx.Response) -> float | None:
        """Seconds to wait for, if it was refused for a limit: 429, or 403 with one of GitHub's signs."""
        if response.status_code not in (403, 429):
            return None
        headers = response.headers
        with contextlib.suppress(ValueError):
            if "retry-after" in headers:
                return max(0.0, float(headers["retry-after"]))
            if headers.get("x-ratelimit-remaining") == "0":
                return max(1.0, float(headers.get("x-ratelimit-reset", "")) - self._now())
        return 60.0 if response.status_code == 429 or "rate limit" in response.text[:2_000].lower() else None


def _decoded(path: str, response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        raise GitHubError(f"{path} was answered with no JSON; is that an API of GitHub?") from None


def _refused(method: str, path: str, response: httpx.Response) -> GitHubError:
    if response.status_code == 401:
        return RefusedError("GitHub does not know this token: check GITHUB_TOKEN")
    if response.status_code in (404, 410, 451):
        return AbsentError(f"{method} {path}: not there, or not for this token ({response.status_code})")
    words = ""
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(response.content)
        words = str(told.get("message", ""))[:200] if isinstance(told, Mapping) else ""
    return RefusedError(f"{method} {path} was refused with {response.status_code}{f' ({words})' if words else ''}")
