"""Discord's REST API: one request per call, and what became of it in the words of the contract (`channel.py`).

Routes and bodies are discord.py's; its request, which tries five times and sleeps in between, is not used: what is
tried again, and when, is the outbox's. Discord says ahead when a limit is used up (`X-RateLimit-…`): a short wait is
waited for before anything goes out, a longer one is told as a refusal with its pause.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
from discord.gateway import DiscordClientWebSocketResponse
from discord.http import HTTPClient, Route

from holdfast.errors import ChannelError, ChannelRefusedError, SendUnknownError

DISCORD_URL = "https://discord.com/api/v10"
FILE_HOSTS = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
REQUEST_S = 8.0
"""Longest request; a send takes three of them at most."""
WAIT_MAX_S = 5.0
"""A limit that opens again sooner is waited for."""
BUCKETS_MAX = 1000
SOCKET_BYTES_MAX = 16 << 20
BLOCKED_S = 600.0
"""Discord turns addresses away for about that long that were refused too often (10,000 times in ten minutes)."""
PERMANENT = frozenset({400, 401, 403, 404, 405})
"""Answers that trying again does not help against: somebody has to do something first."""
LIMITED = frozenset({20016, 20022, 20028, 20029, 40003, 40062})
"""Codes of limits that come without the status of one, such as a channel's slow mode."""
log = logging.getLogger("holdfast.channels.discord")


class DiscordRefusedError(ChannelRefusedError):
    """Discord has said no. `code`: its JSON error code; 0: none."""

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float | None = None,
                 code: int = 0) -> None:  # fmt: skip
        super().__init__(message, permanent=permanent, retry_after_s=retry_after_s)
        self.code = code


class DiscordWeb:
    """Calls the API with one token. Opens no connection before the first call; `close` ends all.

    Args:
        url: of the API. env: where a proxy is looked up (`HTTPS_PROXY`).
    """

    def __init__(self, token: str, url: str | None, env: Mapping[str, str]) -> None:
        self.token = token
        self.url = (url or DISCORD_URL).rstrip("/")
        self.is_discord = url is None
        self.proxy = (env.get("HTTPS_PROXY") or env.get("https_proxy")) if self.url.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None
        self._routes: _Routes | None = None
        self._open_at: OrderedDict[str, float] = OrderedDict()
        # discord.py logs what users write at its finest level. What matters is raised.
        logging.getLogger("discord").setLevel(logging.CRITICAL + 1)

    @property
    def routes(self) -> HTTPClient:
        """discord.py's own calls, on our connections. Each raises ChannelRefusedError: it was not done;
        SendUnknownError: nobody knows. Cancelled: the connection is closed; whether it was done is unknown.
        """
        if self._routes is None:
            self._routes = _Routes(self)
        return self._routes

    async def me(self) -> str:
        """Our own user id. Raises as `routes`."""
        return str((await self.request(Route("GET", "/users/@me"))).get("id", ""))

    async def download(self, url: str, bytes_max: int) -> bytes:
        """A file of a message, from Discord's own hosts alone; the token is not sent.

        Raises:
            ChannelError: it is larger, or cannot be had.
        """
        parts, ours = urlsplit(url), urlsplit(self.url)
        is_theirs = parts.scheme == "https" and parts.hostname in FILE_HOSTS
        if not is_theirs and (parts.scheme, parts.netloc) != (ours.scheme, ours.netloc):
            raise ChannelError(f"the file is not on Discord but on {parts.hostname}")
        try:
            async with self.session().get(url, proxy=self.proxy, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise ChannelError(f"Discord gave no file (status {answer.status})")
                content = bytearray()
                async for chunk in answer.content.iter_chunked(65_536):
                    content += chunk
                    if len(content) > bytes_max:
                        raise ChannelError(f"the file is larger than {bytes_max} bytes")
                return bytes(content)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise ChannelError(f"Discord gave no file: {type(exc).__name__}") from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=REQUEST_S),
                ws_response_class=DiscordClientWebSocketResponse,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def drop_socket(self) -> None:
        """Close the newest connection to the gateway, whatever became of it."""
        if self._routes is not None and self._routes.opened is not None:
            await self._routes.opened.close()

    async def request(self, route: Route, body: Any = None, params: Any = None) -> Any:
        """One request, once; what it answers as JSON. Raises as `routes`."""
        name = f"{route.method} {route.path}"
        bucket = f"{route.key} {route.major_parameters}"
        await self._wait_for(bucket, name)
        headers = {"Authorization": f"Bot {self.token}", "User-Agent": self.routes.user_agent}
        address = self.url + route.url.removeprefix(Route.BASE)
        try:
            async with self.session().request(
                route.method, address, json=body, params=params, headers=headers, proxy=self.proxy,
                allow_redirects=False,
            ) as answer:  # fmt: skip
                self._note_limit(bucket, answer.headers)
                told = _json_of(await answer.text("utf-8", "replace"))
                if 200 <= answer.status < 300:
                    return told
                self._refuse(name, bucket, answer, told)
        except aiohttp.ClientConnectorError as exc:  # nothing has gone out
            raise ChannelRefusedError(f"no connection to Discord: {type(exc).__name__}") from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise SendUnknownError(f"the connection to Discord broke in {name}: {type(exc).__name__}") from exc

    # ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait_for(self, bucket: str, name: str) -> None:
        """Until a limit that is used up opens again."""
        now = asyncio.get_running_loop().time()
        wait_s = max(self._open_at.get(bucket, 0.0), self._open_at.get("", 0.0)) - now
        if wait_s > WAIT_MAX_S:
            raise DiscordRefusedError(f"{name}: the limit is used up", retry_after_s=wait_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _note_limit(self, bucket: str, headers: Mapping[str, str]) -> None:
        if headers.get("X-RateLimit-Remaining") == "0":
            self._close_for(bucket, _seconds(headers.get("X-RateLimit-Reset-After")) or 0.0)

    def _close_for(self, bucket: str, seconds: float) -> None:
        self._open_at[bucket] = asyncio.get_running_loop().time() + seconds
        self._open_at.move_to_end(bucket)
        if len(self._open_at) > BUCKETS_MAX:
            self._open_at.popitem(last=False)

    def _refuse(self, name: str, bucket: str, answer: aiohttp.ClientResponse, told: Any) -> NoReturn:
        """What an answer means that is none of success."""
        status, told = answer.status, told if isinstance(told, dict) else None
        code = told.get("code") if told is not None else 0
        code = code if isinstance(code, int) else 0
        words = f"{name}: {status}" + (f" {str(told.get('message', ''))[:200]} ({code})" if told is not None else "")
        if status == 429 or code in LIMITED:
            after_s = _seconds((told or {}).get("retry_after")) or _seconds(answer.headers.get("Retry-After"))
            if told is None:  # not Discord but what stands before it
                after_s = max(after_s or 0.0, BLOCKED_S)
            if told is None or told.get("global") is True:
                bucket = ""
            self._close_for(bucket, after_s or 0.0)
            raise DiscordRefusedError(words, retry_after_s=after_s, code=code)
        if status >= 500 or status == 408 or status < 400:
            raise SendUnknownError(words)
        if status == 403 and told is None:
            self._close_for("", BLOCKED_S)
            raise DiscordRefusedError(f"{words}: this address is turned away", retry_after_s=BLOCKED_S)
        raise DiscordRefusedError(words, permanent=status in PERMANENT, code=code)


class _Routes(HTTPClient):
    """discord.py's calls, with our request in place of its own."""

    def __init__(self, web: DiscordWeb) -> None:
        super().__init__(asyncio.get_running_loop(), proxy=web.proxy)
        self.token = web.token
        self._web = web
        self.opened: aiohttp.ClientWebSocketResponse | None = None

    async def request(self, route: Route, *, files: Any = None, form: Any = None, **kwargs: Any) -> Any:
        assert not files, "files are not sent"
        assert not form, "files are not sent"
        return await self._web.request(route, kwargs.get("json"), kwargs.get("params"))

    async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        self.opened = await self._web.session().ws_connect(
            url, headers={"User-Agent": self.user_agent}, proxy=self.proxy, max_msg_size=SOCKET_BYTES_MAX,
            autoclose=False, compress=compress,
        )  # fmt: skip
        return self.opened


def _json_of(text: str) -> Any:
    """None: it is none."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 1e7 else None
