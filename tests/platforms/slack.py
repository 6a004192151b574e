"""A stand-in of Slack over real sockets: its Web API, its files and socket mode, with faults on demand.

async with slack_stand_in() as slack:
    config = slack.config(...)                         # [channels.slack] that leads here
    await slack.says("hello", user="U1")               # returns once it was acknowledged
    slack.lose_answer("chat.postMessage")              # the next one is done, and its answer is lost

What it does is written from Slack's reference, not from any client: messages are named by channel and time stamp, an
event is told again until it is acknowledged, also on a socket that comes later.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web

from holdfast.channel.channel import ChannelTraits
from holdfast.channel.listening import Adapter
from holdfast.channel.slack import SlackChannel
from holdfast.channel.slack_events import Threads
from holdfast.channel.slack_socket import SlackSocket
from holdfast.channel.slack_web import SlackWeb
from holdfast.testing.channel import PATIENCE_S

BOT_TOKEN, APP_TOKEN, SIGNING_SECRET = "xoxb-1-test", "xapp-1-test", "8f742231b10e8888abcd99yyyzzz85a5"
ENV = {"SLACK_BOT_TOKEN": BOT_TOKEN, "SLACK_APP_TOKEN": APP_TOKEN, "SLACK_SIGNING_SECRET": SIGNING_SECRET}
ME, MY_BOT, TEAM = "UBOT", "BBOT", "T1"


@dataclass(slots=True)
class Message:
    """One message as users see it now. `versions`: its texts, oldest first."""

    channel: str
    ts: str
    user: str
    versions: list[str]
    thread: str | None = None
    metadata: dict[str, Any] | None = None
    is_gone: bool = False

    @property
    def text(self) -> str:
        return html.unescape(self.versions[-1])


@dataclass(slots=True)
class Fault:
    """What happens to one call. done: what was asked for is done all the same."""

    status: int = 200
    error: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    cut: bool = False
    hold: asyncio.Event | None = None


class SlackStandIn:
    """One workspace with one app.

    Attributes:
        messages: in order, edits applied. calls: names of methods that were called. acknowledged: ids of events.
        signs: reactions, as (channel, ts, name). statuses: of assistants' threads, as (channel, thread, text).
    """

    def __init__(self, page_max: int = 999) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self.signs: list[tuple[str, str, str]] = []
        self.statuses: list[tuple[str, str, str]] = []
        self.acknowledged: list[str] = []
        self.archived: set[str] = set()
        self.token_error: str | None = None
        self.sockets: list[web.WebSocketResponse] = []
        self.page_max = page_max
        self.files: dict[str, bytes] = {}
        self.greets = True
        self._tickets: set[str] = set()
        self._unacknowledged: dict[str, tuple[str, dict[str, Any]]] = {}
        self._faults: dict[str, deque[Fault]] = {}
        self._changed = asyncio.Event()
        self._at = 1_700_000_000.0

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────────

    def table(self, **options: Any) -> dict[str, Any]:
        """`[channels.slack.slack]` that leads here."""
        return {"api_url": self.url, **options}

    def refuse(self, method: str, error: str, *, times: int = 1) -> None:
        for _ in range(times):
            self._fault(method, Fault(error=error))

    def limit(self, method: str, retry_after_s: int) -> None:
        self._fault(method, Fault(429, "ratelimited", {"Retry-After": str(retry_after_s)}))

    def fail(self, method: str, status: int, *, done: bool) -> None:
        self._fault(method, Fault(status, done=done))

    def lose_answer(self, method: str) -> None:
        """The next call is done; the connection breaks before its answer."""
        self._fault(method, Fault(done=True, cut=True))

    def hold(self, method: str) -> asyncio.Event:
        """The next call is done; its answer waits for the event."""
        fault = Fault(done=True, hold=asyncio.Event())
        self._fault(method, fault)
        assert fault.hold is not None
        return fault.hold

    def event(
        self,
        text: str,
        *,
        user: str = "U1",
        channel: str = "D1",
        kind: str = "im",
        thread: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Somebody says something: the request of the Events API that tells it."""
        ts = self._next_ts()
        self.messages.append(Message(channel, ts, user, [text], thread))
        event: dict[str, Any] = {
            "type": "message", "channel": channel, "channel_type": kind, "user": user, "text": text, "ts": ts,
            "event_ts": ts, "team": TEAM, **({"thread_ts": thread} if thread else {}), **more,
        }  # fmt: skip
        return {"type": "event_callback", "team_id": TEAM, "api_app_id": "A1", "event": event, "event_id": f"Ev{ts}"}

    async def tell(self, payload: dict[str, Any], *, times: int = 1) -> None:
        """Over the newest socket; as often as said, each in an envelope of its own."""
        for number in range(times):
            envelope = f"{payload['event_id']}-{number}"
            self._unacknowledged[envelope] = (payload["event_id"], payload)
            if self.sockets:
                await self._send_envelope(self.sockets[-1], envelope)

    async def says(self, text: str, *, times: int = 1, **facts: Any) -> dict[str, Any]:
        """The same; returns the event once all of it was acknowledged."""
        payload = self.event(text, **facts)
        await self.tell(payload, times=times)
        await self.until(lambda: not self._waiting(payload["event_id"]), f"{text!r} acknowledged")
        return payload["event"]

    async def posts(self, url: str, payload: dict[str, Any], *, secret: str = SIGNING_SECRET) -> httpx.Response:
        """The same over HTTP, signed."""
        body, at = json.dumps(payload).encode(), str(int(time.time()))
        signed = hmac.new(secret.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256).hexdigest()
        headers = {"x-slack-request-timestamp": at, "x-slack-signature": f"v0={signed}"}
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.post(url, content=body, headers={**headers, "content-type": "application/json"})

    async def change_over(self) -> None:
        """Ask the client to take a new socket, as Slack does every few hours."""
        await self.sockets[-1].send_json({"type": "disconnect", "reason": "refresh_requested"})

    def cut(self) -> None:
        """Every socket is gone, without a word."""
        for socket in self.sockets:
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()

    def shown(self, channel: str = "D1", thread: str | None = None) -> list[str]:
        """What users see of us there."""
        return [
            one.text
            for one in self.messages
            if (one.channel, one.thread, one.user, one.is_gone) == (channel, thread, ME, False)
        ]

    async def shows(self, text: str, *, channel: str = "D1", thread: str | None = None) -> None:
        await self.until(lambda: text in self.shown(channel, thread), f"{text!r} among {self.messages!r}")

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        """Wait until something here is so; looked at whenever something has happened here."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; called {self.calls[-20:]}") from None

    def _fault(self, method: str, fault: Fault) -> None:
        self._faults.setdefault(method, deque()).append(fault)

    def _waiting(self, event_id: str) -> list[str]:
        return [envelope for envelope, (event, _) in self._unacknowledged.items() if event == event_id]

    def _next_ts(self) -> str:
        self._at += 1
        return f"{self._at:.6f}"

    # ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, request: web.Request) -> web.StreamResponse:
        """One method of the Web API."""
        method = request.match_info["method"]
        self.calls.append(method)
        self._changed.set()
        body = await request.json() if request.content_type == "application/json" else {}
        arguments = {**request.query, **body}
        faults = self._faults.get(method)
        fault = faults.popleft() if faults else Fault(done=True)
        answer = self._answer(method, arguments, request.headers.get("Authorization", "")) if fault.done else {}
        self._changed.set()
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.status >= 500:
            return web.Response(status=fault.status, text="upstream error")
        if fault.error is not None:
            answer = {"ok": False, "error": fault.error}
        return web.json_response(answer, status=fault.status, headers=fault.headers)

    def _answer(self, method: str, given: dict[str, Any], authorization: str) -> dict[str, Any]:
        token = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if authorization != f"Bearer {token}":
            return {"ok": False, "error": "invalid_auth"}
        if self.token_error is not None:
            return {"ok": False, "error": self.token_error}
        handler = getattr(self, "_" + method.replace(".", "_"), None)
        if handler is None:
            return {"ok": False, "error": "unknown_method"}
        told = handler(given)
        return {"ok": False, "error": told} if isinstance(told, str) else {"ok": True, **told}

    def _auth_test(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"user_id": ME, "bot_id": MY_BOT, "team_id": TEAM}

    def _apps_connections_open(self, given: dict[str, Any]) -> dict[str, Any]:
        ticket = f"ticket{len(self._tickets)}"
        self._tickets.add(ticket)
        return {"url": self.url.replace("http:", "ws:").replace("/api/", f"/link/?ticket={ticket}")}

    def _users_info(self, given: dict[str, Any]) -> dict[str, Any] | str:
        user = given.get("user", "")
        return {"user": {"id": user, "name": user.lower(), "profile": {"display_name": f"Name of {user}"}}}

    def _conversations_open(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"channel": {"id": "D" + str(given["users"])[1:]}}

    def _chat_postMessage(self, given: dict[str, Any]) -> dict[str, Any] | str:
        channel = self._channel(given)
        if channel is None:
            return self._why_not(given)
        if not str(given.get("text", "")).strip():
            return "no_text"
        message = Message(channel, self._next_ts(), ME, [given["text"]], given.get("thread_ts"), given.get("metadata"))
        self.messages.append(message)
        return {"channel": channel, "ts": message.ts}

    def _chat_update(self, given: dict[str, Any]) -> dict[str, Any] | str:
        message = self._ours(given)
        if message is None:
            return "message_not_found"
        if given["text"] != message.versions[-1]:
            message.versions.append(given["text"])
        message.metadata = given.get("metadata", message.metadata)
        return {"channel": message.channel, "ts": message.ts}

    def _chat_delete(self, given: dict[str, Any]) -> dict[str, Any] | str:
        message = self._ours(given)
        if message is None:
            return "message_not_found"
        message.is_gone = True
        return {}

    def _reactions_add(self, given: dict[str, Any]) -> dict[str, Any] | str:
        sign = (given["channel"], given["timestamp"], given["name"])
        if sign in self.signs:
            return "already_reacted"
        self.signs.append(sign)
        return {}

    def _assistant_threads_setStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        self.statuses.append((given["channel_id"], given["thread_ts"], given["status"]))
        return {}

    def _conversations_history(self, given: dict[str, Any]) -> dict[str, Any] | str:
        if self._channel(given) is None:
            return self._why_not(given)
        there = [
            one for one in self.messages if (one.channel, one.thread, one.is_gone) == (given["channel"], None, False)
        ]
        return self._page(there[::-1], given)

    def _conversations_replies(self, given: dict[str, Any]) -> dict[str, Any] | str:
        ts = given["ts"]
        there = [
            one
            for one in self.messages
            if one.channel == given["channel"] and ts in (one.ts, one.thread) and not one.is_gone
        ]
        return self._page(there, given) if there else "thread_not_found"

    def _page(self, there: list[Message], given: dict[str, Any]) -> dict[str, Any]:
        size = min(int(given.get("limit", 100)), self.page_max)
        begin = int(given.get("cursor") or 0)
        end = begin + size
        shows_metadata = str(given.get("include_all_metadata", "")).lower() in ("1", "true")
        messages = [
            {"type": "message", "ts": one.ts, "user": one.user, "text": one.versions[-1],
             **({"metadata": one.metadata} if one.metadata and shows_metadata else {})}
            for one in there[begin:end]
        ]  # fmt: skip
        more = end < len(there)
        return {
            "messages": messages, "has_more": more, "response_metadata": {"next_cursor": str(end) if more else ""},
        }  # fmt: skip

    def _channel(self, given: dict[str, Any]) -> str | None:
        """Where it goes; None: it does not."""
        channel = str(given.get("channel", ""))
        if channel.startswith("U"):
            return "D" + channel[1:]
        return channel if channel[:1] in ("D", "C", "G") and channel not in self.archived else None

    def _why_not(self, given: dict[str, Any]) -> str:
        return "is_archived" if given.get("channel") in self.archived else "channel_not_found"

    def _ours(self, given: dict[str, Any]) -> Message | None:
        for one in self.messages:
            if (one.channel, one.ts, one.user, one.is_gone) == (given["channel"], given["ts"], ME, False):
                return one
        return None

    # ── sockets and files ────────────────────────────────────────────────────────────────────────────────────────────

    async def link(self, request: web.Request) -> web.StreamResponse:
        """One socket. A ticket opens one socket, once."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=401)
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if self.greets:
            await socket.send_json({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A1"}})
        self.sockets.append(socket)
        self._changed.set()
        for envelope in list(self._unacknowledged):
            await self._send_envelope(socket, envelope)
        try:
            async for message in socket:
                told = json.loads(message.data)
                known = self._unacknowledged.pop(told["envelope_id"], None)
                if known is not None:
                    self.acknowledged.append(known[0])
                self._changed.set()
        finally:
            self.sockets.remove(socket)
            self._changed.set()
        return socket

    async def _send_envelope(self, socket: web.WebSocketResponse, envelope: str) -> None:
        _, payload = self._unacknowledged[envelope]
        try:
            await socket.send_json({
                "envelope_id": envelope, "type": "events_api", "accepts_response_payload": False, "payload": payload,
            })  # fmt: skip
        except ConnectionError:
            return  # the next socket gets it

    async def file(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {BOT_TOKEN}":
            return web.Response(text="<html>log in</html>", content_type="text/html")
        return web.Response(body=self.files[request.match_info["name"]], content_type="application/octet-stream")


@asynccontextmanager
async def slack_stand_in(page_max: int = 999) -> AsyncIterator[SlackStandIn]:
    """Serve it on a free port of loopback until left."""
    slack = SlackStandIn(page_max)
    app = web.Application()
    app.router.add_route("*", "/api/{method}", slack.call)
    app.router.add_get("/link/", slack.link)
    app.router.add_get("/files/{name}", slack.file)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    slack.url = f"http://{host}:{port}/api/"
    try:
        yield slack
    finally:
        await runner.cleanup()


def quick_adapter(slack: SlackStandIn, *, reconciles: bool = True) -> Adapter:
    """The adapter in socket mode, whose sends are cut off, and looked for, after a second."""
    web_api = SlackWeb(BOT_TOKEN, slack.url, {})
    traits = ChannelTraits(reconciles=reconciles, longest_request_s=1.0, text_max=3800)
    channel = SlackChannel("slack", web_api, Threads(), traits=traits)
    socket = SlackSocket(web_api, APP_TOKEN, channel.tell)
    return Adapter(channel, listener=socket, editor=channel, typing=channel, reactions=channel, close=web_api.close)
