"""A stand-in of Discord over real sockets: its REST API, its files and its gateway, with faults on demand.

async with discord_stand_in() as discord:
    table = discord.table(...)                         # [channels.discord.discord] that leads here
    await discord.says("hello", user=U1)               # somebody says something
    discord.lose_answer("POST messages")               # the next one is done, and its answer is lost

What it does is written from Discord's reference, not from any client: a session outlives its connection, whoever
resumes it is told what came after the number that they name, and a nonce names one message for a while.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import zstandard
from aiohttp import WSCloseCode, WSMsgType, web

from holdfast.channel.discord import TRAITS, DiscordChannel, intents_of
from holdfast.channel.discord_socket import DiscordSocket
from holdfast.channel.discord_web import DiscordWeb
from holdfast.channel.listening import Adapter
from holdfast.testing.channel import PATIENCE_S

TOKEN = "MTIzNDU2Nzg5.test.token"
ENV = {"DISCORD_BOT_TOKEN": TOKEN}
ME, U1, U2, U9 = "1001", "2001", "2002", "2009"
GUILD, GENERAL, DM = "3001", "4001", "5001"
"""A server, a channel of it, and the direct messages of U1."""
MESSAGE_CONTENT = 1 << 15


@dataclass(slots=True)
class Message:
    """One message as users see it now. `versions`: its texts, oldest first."""

    id: str
    channel: str
    author: str
    versions: list[str]
    is_gone: bool = False
    flags: int = 0

    @property
    def text(self) -> str:
        return self.versions[-1]


@dataclass(slots=True)
class Fault:
    """What happens to one call. done: what was asked for is done all the same."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    cut: bool = False
    hold: asyncio.Event | None = None


@dataclass(slots=True)
class Session:
    """What outlives a connection: everything that was told in it, in order."""

    id: str
    intents: int
    told: list[dict[str, Any]] = field(default_factory=list)
    link: Link | None = None
    heard: int = 0
    """The highest number that its client has said to have heard."""


class Link:
    """One connection. What goes out is one stream, of zlib, cut into frames anywhere, or of zstd, a frame a message: as
    the client asks, which takes zstd wherever a library for it happens to be installed.
    """

    def __init__(self, socket: web.WebSocketResponse, compress: str) -> None:
        self.socket = socket
        self.is_mute = False
        self._is_zstd = compress == "zstd-stream"
        self._packer = zstandard.ZstdCompressor().compressobj() if self._is_zstd else zlib.compressobj()
        self._lock = asyncio.Lock()

    async def send(self, payload: dict[str, Any]) -> None:
        if self.is_mute:
            return
        async with self._lock:
            flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK if self._is_zstd else zlib.Z_SYNC_FLUSH
            packed = self._packer.compress(json.dumps(payload).encode()) + self._packer.flush(flush)
            try:
                for frame in (packed,) if self._is_zstd else (packed[:7], packed[7:]):
                    await self.socket.send_bytes(frame)
            except ConnectionError:
                return  # the session keeps it

    def cut(self) -> None:
        transport = self.socket._req.transport if self.socket._req is not None else None
        if transport is not None:
            transport.abort()


class DiscordStandIn:
    """One bot in one server.

    Attributes:
        messages: in order, edits applied. calls: what was called ("POST messages"). identified, resumed: how often.
        signs: reactions, as (channel, message, sign). typing: channels in which we were shown to write.
        told_silence: heartbeats are not answered any more, and nothing else comes.
    """

    def __init__(self, heartbeat_s: float = 41.25) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self.channels: dict[str, dict[str, Any]] = {
            GENERAL: {"id": GENERAL, "type": 0, "guild_id": GUILD, "name": "general"},
            DM: {"id": DM, "type": 1, "recipients": [{"id": U1}]},
        }
        self.calls: list[str] = []
        self.posted: list[dict[str, Any]] = []
        self.signs: list[tuple[str, str, str]] = []
        self.typing: list[str] = []
        self.files: dict[str, bytes] = {}
        self.sessions: dict[str, Session] = {}
        self.identified = self.resumed = 0
        self.starts_left = 1000
        self.token = TOKEN
        self.allowed_intents = ~0
        self.nonces: dict[str, Message] = {}
        self.links: list[Link] = []
        self._heartbeat_s = heartbeat_s
        self._ids = itertools.count(1_300_000_000_000_000_000, 1 << 22)
        self._faults: dict[str, deque[Fault]] = {}
        self._changed = asyncio.Event()

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────────

    def table(self, **options: Any) -> dict[str, Any]:
        """`[channels.discord.discord]` that leads here."""
        return {"api_url": self.url, **options}

    def refuse(self, call: str, status: int, code: int, message: str = "no") -> None:
        self._fault(call, Fault(status, {"code": code, "message": message}))

    def limit(self, call: str, retry_after_s: float, *, everywhere: bool = False) -> None:
        told = {"message": "You are being rate limited.", "retry_after": retry_after_s, "global": everywhere}
        self._fault(call, Fault(429, told, {"Retry-After": str(int(retry_after_s)), "Via": "1.1 google"}))

    def use_up(self, call: str, reset_after_s: float) -> None:
        """The next call is done, and says that it was the last one for a while."""
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": str(reset_after_s)}
        self._fault(call, Fault(headers=headers, done=True))

    def fail(self, call: str, status: int, *, done: bool) -> None:
        self._fault(call, Fault(status, done=done))

    def lose_answer(self, call: str) -> None:
        """The next call is done; the connection breaks before its answer."""
        self._fault(call, Fault(done=True, cut=True))

    def hold(self, call: str) -> asyncio.Event:
        """The next call is done; its answer waits for the event."""
        fault = Fault(done=True, hold=asyncio.Event())
        self._fault(call, fault)
        assert fault.hold is not None
        return fault.hold

    def event(
        self,
        text: str,
        *,
        user: str = U1,
        channel: str = DM,
        reply_to: Message | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Somebody says something: what MESSAGE_CREATE tells of it."""
        message = Message(self._next_id(), channel, user, [text])
        self.messages.append(message)
        facts = {} if reply_to is None else {"type": 19, "referenced_message": self._told_of(reply_to)}
        return {**self._told_of(message), **self._place_facts(channel), **facts, **more}

    async def tell(self, event: dict[str, Any], *, times: int = 1) -> None:
        """In every session; as often as said, each with a number of its own."""
        for _ in range(times):
            await self._dispatch("MESSAGE_CREATE", event)

    async def says(self, text: str, *, times: int = 1, **facts: Any) -> dict[str, Any]:
        """Both; returns the event."""
        event = self.event(text, **facts)
        await self.tell(event, times=times)
        return event

    def thread(self, parent: str = GENERAL, thread: str = "6001") -> str:
        """There is a thread."""
        self.channels[thread] = {"id": thread, "type": 11, "guild_id": GUILD, "parent_id": parent, "name": "a thread"}
        return thread

    async def ask_to_reconnect(self) -> None:
        for link in self.links:
            await link.send({"op": 7, "d": None})

    async def ask_for_heartbeat(self) -> None:
        for link in self.links:
            await link.send({"op": 1, "d": None})

    async def invalidate(self, *, resumable: bool) -> None:
        """Tell that sessions have ended, or only have to be resumed."""
        links = list(self.links)
        if not resumable:
            self.sessions.clear()
        for link in links:
            await link.send({"op": 9, "d": resumable})

    def cut(self) -> None:
        """Every connection is gone, without a word."""
        for link in self.links:
            link.cut()

    def fall_silent(self) -> None:
        """Connections stay, and nothing comes any more."""
        for link in self.links:
            link.is_mute = True

    def shown(self, channel: str = DM) -> list[str]:
        """What users see of us there."""
        return [one.text for one in self.messages if (one.channel, one.author, one.is_gone) == (channel, ME, False)]

    async def shows(self, text: str, *, channel: str = DM) -> None:
        await self.until(lambda: text in self.shown(channel), f"{text!r} among {self.messages!r}")

    async def listened(self) -> None:
        """A session is there, and has a connection."""
        await self.until(lambda: any(one.link is not None for one in self.sessions.values()), "a session")

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        """Wait until something here is so; looked at whenever something has happened here."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; called {self.calls[-20:]}") from None

    def _fault(self, call: str, fault: Fault) -> None:
        self._faults.setdefault(call, deque()).append(fault)

    def _next_id(self) -> str:
        return str(next(self._ids))

    def _told_of(self, message: Message) -> dict[str, Any]:
        mentioned = [user for user in (ME, U1, U2, U9) if f"<@{user}>" in message.text]
        return {
            "id": message.id, "channel_id": message.channel, "type": 0, "content": message.text,
            "author": self._user(message.author), "mentions": [self._user(user) for user in mentioned],
            "attachments": [], "flags": message.flags,
        }  # fmt: skip

    def _user(self, user: str) -> dict[str, Any]:
        return {"id": user, "username": f"name{user}", "global_name": f"Name of {user}", "bot": user == ME}

    def _place_facts(self, channel: str) -> dict[str, Any]:
        guild = self.channels.get(channel, {}).get("guild_id")
        return {} if guild is None else {"guild_id": guild}

    # ── REST ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, request: web.Request) -> web.StreamResponse:
        """One request of the API."""
        path = request.match_info["path"].strip("/").split("/")
        handler, name = self._handler(request.method, path)
        self.calls.append(name)
        self._changed.set()
        body = await request.json() if request.content_type == "application/json" else {}
        faults = self._faults.get(name)
        fault = faults.popleft() if faults else Fault(done=True)
        status, answer = 200, fault.body
        if request.headers.get("Authorization") != f"Bot {self.token}":
            status, answer, fault = 401, {"message": "401: Unauthorized", "code": 0}, Fault()
        elif fault.done:
            status, answer = await handler(path, body)
        self._changed.set()
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.status >= 500:
            return web.Response(status=fault.status, text="upstream error")
        return web.json_response(answer, status=max(status, fault.status), headers=fault.headers)

    def _handler(self, method: str, path: list[str]) -> tuple[Callable[..., Any], str]:
        match method, path:
            case "GET", ["users", "@me"]:
                return self._get_me, "GET me"
            case "GET", ["gateway", "bot"]:
                return self._get_gateway, "GET gateway"
            case "POST", ["users", "@me", "channels"]:
                return self._open_dm, "POST users"
            case "GET", ["channels", _]:
                return self._get_channel, "GET channels"
            case "POST", ["channels", _, "messages"]:
                return self._post_message, "POST messages"
            case "GET", ["channels", _, "messages", _]:
                return self._get_message, "GET messages"
            case "PATCH", ["channels", _, "messages", _]:
                return self._edit_message, "PATCH messages"
            case "DELETE", ["channels", _, "messages", _]:
                return self._delete_message, "DELETE messages"
            case "POST", ["channels", _, "messages", _, "threads"]:
                return self._begin_thread, "POST threads"
            case "PUT", ["channels", _, "messages", _, "reactions", _, "@me"]:
                return self._react, "PUT reactions"
            case "POST", ["channels", _, "typing"]:
                return self._show_typing, "POST typing"
            case _:
                raise web.HTTPNotFound

    async def _get_me(self, path: list[str], body: dict[str, Any]) -> Any:
        return 200, self._user(ME)

    async def _get_gateway(self, path: list[str], body: dict[str, Any]) -> Any:
        limit = {"total": 1000, "remaining": self.starts_left, "reset_after": 3_600_000, "max_concurrency": 1}
        return 200, {"url": self._gateway_url(), "shards": 1, "session_start_limit": limit}

    def _gateway_url(self) -> str:
        return self.url.replace("http:", "ws:").replace("/api", "/gateway")

    async def _open_dm(self, path: list[str], body: dict[str, Any]) -> Any:
        user = str(body["recipient_id"])
        channel = DM if user == U1 else f"7{user}"
        self.channels.setdefault(channel, {"id": channel, "type": 1, "recipients": [{"id": user}]})
        return 200, self.channels[channel]

    async def _get_channel(self, path: list[str], body: dict[str, Any]) -> Any:
        known = self.channels.get(path[1])
        return (200, known) if known is not None else _unknown_channel()

    async def _post_message(self, path: list[str], body: dict[str, Any]) -> Any:
        self.posted.append(body)
        if path[1] not in self.channels:
            return _unknown_channel()
        content = str(body.get("content", "")).strip()
        nonce = str(body.get("nonce", ""))
        if not content:
            return 400, {"code": 50006, "message": "Cannot send an empty message"}
        if len(content) > 2000 or len(nonce) > 25:
            return 400, {"code": 50035, "message": "Invalid Form Body"}
        known = self.nonces.get(nonce) if body.get("enforce_nonce") is True and nonce else None
        if known is not None:
            return _unknown_message() if known.is_gone else (200, self._told_of(known))
        message = Message(self._next_id(), path[1], ME, [content], flags=body.get("flags", 0))
        self.messages.append(message)
        if nonce:
            self.nonces[nonce] = message
        await self._dispatch("MESSAGE_CREATE", {**self._told_of(message), **self._place_facts(path[1]), "nonce": nonce})
        return 200, {**self._told_of(message), "nonce": nonce}

    async def _get_message(self, path: list[str], body: dict[str, Any]) -> Any:
        message = self._message(path)
        return _unknown_message() if message is None else (200, self._told_of(message))

    async def _edit_message(self, path: list[str], body: dict[str, Any]) -> Any:
        message = self._message(path)
        if message is None:
            return _unknown_message()
        if message.author != ME:
            return 403, {"code": 50005, "message": "Cannot edit a message authored by another user"}
        if body["content"] != message.text:
            message.versions.append(body["content"])
        return 200, self._told_of(message)

    async def _delete_message(self, path: list[str], body: dict[str, Any]) -> Any:
        message = self._message(path)
        if message is None:
            return _unknown_message()
        message.is_gone = True
        return 204, None

    async def _begin_thread(self, path: list[str], body: dict[str, Any]) -> Any:
        if self._message(path) is None:
            return _unknown_message()
        if path[3] in self.channels:
            return 400, {"code": 160004, "message": "A thread has already been created for this message"}
        self.channels[self.thread(path[1], path[3])]["name"] = body["name"]
        return 201, self.channels[path[3]]

    async def _react(self, path: list[str], body: dict[str, Any]) -> Any:
        sign = (path[1], path[3], path[5])
        if sign not in self.signs:
            self.signs.append(sign)
        return 204, None

    async def _show_typing(self, path: list[str], body: dict[str, Any]) -> Any:
        self.typing.append(path[1])
        return 204, None

    def _message(self, path: list[str]) -> Message | None:
        for one in self.messages:
            if (one.channel, one.id, one.is_gone) == (path[1], path[3], False):
                return one
        return None

    async def file(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers, "the token goes to the API alone"
        return web.Response(body=self.files[request.match_info["name"]], content_type="application/octet-stream")

    # ── the gateway ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def link(self, request: web.Request) -> web.StreamResponse:
        """One connection."""
        if (request.query.get("v"), request.query.get("encoding")) != ("10", "json"):
            return web.Response(status=400)
        compress = request.query.get("compress", "")
        assert compress in ("zlib-stream", "zstd-stream")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        link = Link(socket, compress)
        self.links.append(link)
        session: Session | None = None
        await link.send({"op": 10, "d": {"heartbeat_interval": int(self._heartbeat_s * 1000)}})
        try:
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                told = json.loads(message.data)
                match told["op"]:
                    case 1:
                        if session is not None:
                            session.heard = max(session.heard, told["d"] or 0)
                        await link.send({"op": 11})
                    case 2:
                        session = await self._identify(link, told["d"])
                    case 6:
                        session = await self._resume(link, told["d"])
                    case _:
                        await socket.close(code=4001, message=b"Unknown opcode")
                self._changed.set()
        finally:
            self.links.remove(link)
            if session is not None and session.link is link:
                session.link = None
            if session is not None and socket.close_code in (WSCloseCode.OK, WSCloseCode.GOING_AWAY):
                self.sessions.pop(session.id, None)  # closed in order: the session is over
            self._changed.set()
        return socket

    async def _identify(self, link: Link, given: dict[str, Any]) -> Session | None:
        if given["token"] != self.token:
            await link.socket.close(code=4004, message=b"Authentication failed.")
            return None
        if given["intents"] & ~self.allowed_intents:
            await link.socket.close(code=4014, message=b"Disallowed intent(s).")
            return None
        self.identified += 1
        self.starts_left -= 1
        session = Session(f"session{self.identified}", given["intents"], link=link)
        self.sessions[session.id] = session
        ready = {
            "v": 10, "user": self._user(ME), "guilds": [{"id": GUILD, "unavailable": True}], "session_id": session.id,
            "resume_gateway_url": self._gateway_url() + "/resume", "application": {"id": ME, "flags": 0},
        }  # fmt: skip
        await self._tell_session(session, "READY", ready)
        return session

    async def _resume(self, link: Link, given: dict[str, Any]) -> Session | None:
        session = self.sessions.get(given["session_id"])
        if session is None or given["token"] != self.token:
            await link.send({"op": 9, "d": False})
            return None
        self.resumed += 1
        if session.link is not None:
            session.link.cut()
        session.heard = max(session.heard, given["seq"])
        session.link = link
        for payload in [one for one in session.told if one["s"] > given["seq"]]:
            await link.send(payload)
        await self._tell_session(session, "RESUMED", {})
        return session

    async def _dispatch(self, name: str, event: dict[str, Any]) -> None:
        for session in list(self.sessions.values()):
            is_named = any(user["id"] == ME for user in event["mentions"])
            may_read = session.intents & MESSAGE_CONTENT or "guild_id" not in event or is_named
            await self._tell_session(session, name, event if may_read else {**event, "content": "", "attachments": []})

    async def _tell_session(self, session: Session, name: str, event: dict[str, Any]) -> None:
        payload = {"op": 0, "t": name, "s": len(session.told) + 1, "d": event}
        session.told.append(payload)
        if session.link is not None:
            await session.link.send(payload)
        self._changed.set()


def _unknown_channel() -> tuple[int, dict[str, Any]]:
    return 404, {"code": 10003, "message": "Unknown Channel"}


def _unknown_message() -> tuple[int, dict[str, Any]]:
    return 404, {"code": 10008, "message": "Unknown Message"}


@asynccontextmanager
async def discord_stand_in(heartbeat_s: float = 41.25, port: int = 0) -> AsyncIterator[DiscordStandIn]:
    """Serve it on a free port of loopback until left."""
    discord = DiscordStandIn(heartbeat_s)
    app = web.Application()
    app.router.add_route("*", "/api/{path:.*}", discord.call)
    app.router.add_get("/gateway{path:.*}", discord.link)
    app.router.add_get("/files/{name}", discord.file)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    discord.url = f"http://{host}:{bound}/api"
    try:
        yield discord
    finally:
        await runner.cleanup()


def quick_adapter(discord: DiscordStandIn, *, silence_s: float = 60.0, keeps_keys_s: float = 120.0) -> Adapter:
    """The adapter, whose sends are cut off, and made again, after a second."""
    api = DiscordWeb(TOKEN, discord.url, {})
    traits = replace(TRAITS, longest_request_s=1.0, keeps_keys_s=keeps_keys_s)
    channel = DiscordChannel("discord", api, "in_threads", traits=traits)
    socket = DiscordSocket(api, intents_of(message_content=True), channel.tell, silence_s=silence_s)
    return Adapter(
        channel, listener=socket, editor=channel, typing=channel, reactions=channel, resumable=socket, close=api.close
    )
