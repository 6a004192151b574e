"""GitHub's REST API: one request per call, and what became of it in the words of the contract (`channel.py`).

Plain aiohttp: requests are few, and each refusal is told in the contract's words. gidgethub 6, whose errors carry the
headers that a limit's pause is read from, would do as well. A limit belongs to the token: while one is known nothing is
asked, since GitHub bars those who go on.
Source: GitHub's "Rate limits for the REST API" and "Best practices for using the REST API".
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from holdfast.errors import ChannelError, ChannelRefusedError, SendUnknownError
from holdfast.model.retry_after import retry_after_s
from holdfast.text import on_one_line

GITHUB_URL = "https://api.github.com"
REQUEST_S = 10.0
"""Longest request."""
SECONDARY_S = 60.0
"""Pause after a secondary limit that names none."""
ANSWER_BYTES_MAX = 16 << 20
REDIRECTS_MAX = 2
PASSING = frozenset({408, 409, 423, 425})
_LIMITED = re.compile(r"rate limit|abuse detection|submitted too quickly", re.IGNORECASE)
_LAST = re.compile(r'[?&]page=(\d+)[^>]*>;\s*rel="last"')
log = logging.getLogger("holdfast.channels.github")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. `last_page`: of a list; 1: it is the only one."""

    data: Any
    last_page: int = 1


class GitHubWeb:
    """Calls the API with one token. Opens no connection before the first call; `close` ends all.

    Args:
        url: of the API. env: where a proxy is looked up (`HTTPS_PROXY`).
    """

    def __init__(self, token: str, url: str | None, env: Mapping[str, str]) -> None:
        self._headers = {
            "Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28", "User-Agent": "holdfast",
        }  # fmt: skip
        self._url = (url or GITHUB_URL).rstrip("/")
        self._proxy = (env.get("HTTPS_PROXY") or env.get("https_proxy")) if self._url.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None
        self._limited_until = 0.0

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request, such as `GET /user`.

        Raises:
            ChannelRefusedError: it was not done. SendUnknownError: nobody knows.

        Cancelled: the connection is closed; whether it was done is unknown.
        """
        now = asyncio.get_running_loop().time()
        if now < self._limited_until:
            raise ChannelRefusedError("GitHub has limited this token", retry_after_s=self._limited_until - now)
        url = self._url + path
        for _ in range(REDIRECTS_MAX):
            answer = await self._once(method, url, body)
            if isinstance(answer, Answer):
                return answer
            url = answer
        raise ChannelRefusedError(f"{method} {path}: it has moved too often", permanent=True)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _once(self, method: str, url: str, body: Mapping[str, Any] | None) -> Answer | str:
        """The answer; or the address to which a renamed repository has moved."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S), headers=self._headers)
        what = f"{method} {urlsplit(url).path}"
        try:
            async with self._session.request(
                method, url, json=body, proxy=self._proxy, allow_redirects=False
            ) as response:
                raw = await response.content.read(ANSWER_BYTES_MAX)
                status, headers = response.status, response.headers
        except aiohttp.ClientConnectorError as exc:  # nothing has gone out
            raise ChannelRefusedError(f"no connection to GitHub: {type(exc).__name__}") from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise SendUnknownError(f"the connection to GitHub broke in {what}: {type(exc).__name__}") from exc
        if status in (301, 302, 307, 308):
            return self._moved(what, url, headers.get("Location", ""))
        data = _decoded(raw)
        if 200 <= status < 300:
            last = _LAST.search(headers.get("Link", ""))
            return Answer(data, int(last[1]) if last is not None else 1)
        raise self._refused(what, status, headers, data)

    def _moved(self, what: str, url: str, location: str) -> str:
        """The token goes to the same host alone."""
        new, old = urlsplit(urljoin(url, location)), urlsplit(url)
        if not location or (new.scheme, new.netloc) != (old.scheme, old.netloc):
            raise ChannelRefusedError(f"{what}: it has moved to another host", permanent=True)
        return new.geturl()

    def _refused(self, what: str, status: int, headers: Mapping[str, str], data: Any) -> ChannelError:
        message = on_one_line(str(data.get("message", "")))[:200] if isinstance(data, dict) else ""
        words = f"{what}: status {status}{f' ({message})' if message else ''}"
        pause_s = _pause_s(status, headers, message)
        if pause_s is not None:
            self._limited_until = asyncio.get_running_loop().time() + pause_s
            log.warning("GitHub limits this token for %g s: %s", pause_s, words)
            return ChannelRefusedError(words, retry_after_s=pause_s)
        if status >= 500:
            return SendUnknownError(words)
        return ChannelRefusedError(words, permanent=status not in PASSING)


def _pause_s(status: int, headers: Mapping[str, str], message: str) -> float | None:
    """How long a limit asks to wait; None: it is no limit."""
    if status not in (403, 422, 429):
        return None
    asked = retry_after_s(headers)
    if asked is not None:
        return asked
    if status != 422 and headers.get("X-RateLimit-Remaining") == "0":
        reset = retry_after_s({"retry-after": _http_date(headers.get("X-RateLimit-Reset", "")), **_date(headers)})
        return SECONDARY_S if reset is None else max(reset, 1.0)
    return SECONDARY_S if status == 429 or _LIMITED.search(message) else None


def _http_date(epoch_s: str) -> str:
    from email.utils import formatdate

    return formatdate(int(epoch_s), usegmt=True) if epoch_s.isdecimal() and len(epoch_s) < 12 else ""


def _date(headers: Mapping[str, str]) -> dict[str, str]:
    """The answer's own time: our clock may be wrong."""
    return {"date": headers["Date"]} if "Date" in headers else {}


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None
