"""Reading GitHub's REST API: pages, limits, faults, and answers kept with their ETags so that nothing is asked twice.

Only GET, only of one host. What was answered once is kept in a folder (0700, files 0600) and asked for again with its
ETag, which costs nothing of the hourly limit. `offline` answers from there, or from a recording, alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

API_URL = "https://api.github.com"
BODY_MAX = 10_000_000
PAGES_MAX, PER_PAGE = 10, 100
TRIES, PAUSES_S = 4, (1.0, 3.0, 10.0)
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')

Tell = Callable[[str], None]


class GitHubError(Exception):
    """GitHub could not be read. The text names the way out."""


class AbsentError(GitHubError):
    """What was asked for is not there, or not for us (404, 410, 451, 403 without a limit)."""


class LimitedError(GitHubError):
    """The limit is used up for longer than we wait. Run it again later: what was read is kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """body: the JSON. next: the path of the next page; empty: this was the last."""

    body: Any
    next: str = ""


class GitHub:
    """One host, one token.

    Args:
        token: empty: anonymous, 60 requests an hour. cache: a folder; None: nothing is kept. recording: answers by path
        with query, instead of the network. offline: never ask the network. wait_max_s: how long a used-up limit is
        waited for. tell: hears a line when something takes long.
    """

    def __init__(
        self,
        *,
        api_url: str = API_URL,
        token: str = "",
        cache: Path | None = None,
        recording: Mapping[str, Any] | None = None,
        offline: bool = False,
        wait_max_s: float = 120.0,
        tell: Tell = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.requests = 0
        self.unchanged = 0
        self.heard: dict[str, Any] = {}
        self._cache, self._recording, self._offline = cache, recording, offline
        self._wait_max_s, self._tell, self._sleep, self._now = wait_max_s, tell, sleep, now
        self._headers = {"accept": "application/vnd.github+json", "user-agent": "holdfast-issue-graph"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def get(self, path: str) -> Any:
        """One document. Raises: AbsentError, LimitedError, GitHubError."""
        return (await self._answer(path)).body

    async def pages(self, path: str, *, pages_max: int = PAGES_MAX) -> list[Any]:
        """A list over all its pages, at most `pages_max` of 100. Raises: as `get`."""
        found: list[Any] = []
        following = f"{path}?per_page={PER_PAGE}"
        for _ in range(pages_max):
            answer = await self._answer(following)
            if isinstance(answer.body, list):
                found.extend(answer.body)
            following = answer.next
            if not following:
                break
        return found

    async def _answer(self, path: str) -> Answer:
        if self._recording is not None:
            told = self._recording.get(path)
            if told is None:
                raise AbsentError(f"the recording has no {path}")
            return self._kept(path, told)
        known = self._read(path)
        if self._offline:
            if known is None:
                raise AbsentError(f"{path} was never read, and nothing is asked offline")
            return self._kept(path, known)
        response = await self._ask(path, known["etag"] if known else "")
        if response.status_code == 304 and known is not None:
            self.unchanged += 1
            # A page that is unchanged may have got a successor since: its ETag is of what stands on it.
            return self._kept(path, {**known, "next": self._next(path, response) or known.get("next", "")})
        try:
            body = json.loads(response.content)
        except ValueError as exc:
            raise GitHubError(f"{path} was answered with no JSON: {exc}; is {self.api_url} an API of GitHub?") from None
        told = {"etag": response.headers.get("etag", ""), "next": self._next(path, response), "body": body}
        is_last_and_full = not told["next"] and isinstance(body, list) and len(body) >= PER_PAGE
        self._write(path, {**told, "etag": ""} if is_last_and_full else told)
        return self._kept(path, told)

    def _kept(self, path: str, told: Mapping[str, Any]) -> Answer:
        self.heard[path] = {"next": told.get("next", ""), "body": told.get("body")}
        return Answer(told.get("body"), str(told.get("next") or ""))

    async def _ask(self, path: str, etag: str) -> httpx.Response:
        """One request, tried again where that may help."""
        fault = ""
        for tries in range(TRIES):
            if tries:
                self._tell(f"{fault}; once more in {PAUSES_S[tries - 1]:g} s")
                await self._sleep(PAUSES_S[tries - 1])
            try:
                response = await self._send(path, etag)
            except httpx.HTTPError as exc:
                fault = f"{self.api_url} cannot be reached ({type(exc).__name__})"
                continue
            if response.status_code in (200, 304):
                return response
            if response.status_code >= 500:
                fault = f"{path} was answered with {response.status_code}"
                continue
            pause_s = self._limit_of(response)
            if pause_s is None:
                raise AbsentError(self._told_of(path, response))
            if pause_s > self._wait_max_s:
                way_out = "" if "authorization" in self._headers else "; with GITHUB_TOKEN there are 5,000 an hour"
                text = f"GitHub's limit is used up for another {pause_s:.0f} s{way_out}"
                raise LimitedError(f"{text}. What was read is kept: run it again")
            fault = f"GitHub asks for a pause of {pause_s:.0f} s"
            self._tell(fault)
            await self._sleep(pause_s)
        raise GitHubError(f"{fault}, {TRIES} times; what was read is kept: run it again")

    async def _send(self, path: str, etag: str) -> httpx.Response:
        if self._http is None:
            self._http = httpx.AsyncClient(headers=self._headers, timeout=30, follow_redirects=False)
        headers = {"if-none-match": etag} if etag else {}
        url = self.api_url + path
        for _ in range(4):
            self.requests += 1
            async with self._http.stream("GET", url, headers=headers) as response:
                content = b""
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > BODY_MAX:
                        raise GitHubError(f"{path} is larger than {BODY_MAX:,} bytes; nothing of it was kept")
            if response.status_code not in (301, 302, 307, 308):
                return httpx.Response(response.status_code, headers=_plain_headers(response), content=content)
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
        if response.status_code == 429 or "rate limit" in response.text[:2_000].lower():
            return 60.0
        return None

    def _told_of(self, path: str, response: httpx.Response) -> str:
        if response.status_code == 401:
            return "GitHub does not know this token: check GITHUB_TOKEN, or unset it for what is public"
        if response.status_code in (403, 404, 410, 451):
            return f"{path}: not there, or not for this token ({response.status_code})"
        return f"{path} was refused with {response.status_code}"

    # ── what was answered before ─────────────────────────────────────────────────────────────────────────────────────

    def _file(self, path: str) -> Path | None:
        name = hashlib.sha256(f"{self.api_url}{path}".encode()).hexdigest()[:40]
        return self._cache / f"{name}.json" if self._cache is not None else None

    def _read(self, path: str) -> dict[str, Any] | None:
        file = self._file(path)
        if file is None:
            return None
        try:
            told = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return None
        return (
            told if isinstance(told, dict) and told.get("path") == path and isinstance(told.get("etag"), str) else None
        )

    def _write(self, path: str, told: Mapping[str, Any]) -> None:
        """Whole or not at all. A full disk costs the cache, not the report."""
        file = self._file(path)
        if file is None:
            return
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}.new")
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                json.dump({"path": path, **told}, out)
            beside.replace(file)
        except OSError as exc:
            self._tell(f"{file.parent}: {exc.strerror}; going on without keeping answers")
            self._cache = None


def _plain_headers(response: httpx.Response) -> dict[str, str]:
    """Without what speaks of the encoding on the wire, which is undone already."""
    return {
        name: value for name, value in response.headers.items() if name not in ("content-encoding", "content-length")
    }
