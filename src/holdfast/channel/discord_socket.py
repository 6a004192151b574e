"""Discord's gateway: events over a connection that we open.

The protocol (unpacking, heartbeats, identifying, resuming) is discord.py's; its client, which remembers servers and
people, reconnects by itself and hands events over without waiting, is not used. Discord has no acknowledgement but one:
whoever resumes a session says up to which event it has heard, and is told the rest again. So that number is only raised
when everything up to it is stored, and what could not be stored is heard again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from discord import Client, Intents, MemberCacheFlags
from discord.errors import ConnectionClosed
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from yarl import URL

from holdfast.channel.discord_web import DiscordWeb
from holdfast.channel.listening import Hear
from holdfast.errors import ChannelError, ChannelRefusedError, SendUnknownError

CONNECT_S = 15.0
"""How long a new connection may take until Discord has said that the session is there."""
SILENCE_S = 60.0
"""A connection on which nothing has come for that long, no answer to a heartbeat either, is lost."""
SHORT_S = 10.0
"""Who loses a connection that was younger begins again after a pause."""
CLOSE_S = 2.0
BUSY_MAX = 64
"""Events that are being stored; while there are so many nothing more is read."""
REFUSALS: Mapping[int, str] = {
    4004: "the token is not valid (any more): take a new one from the developer portal",
    4010: "an invalid shard",
    4011: "the bot is in so many servers that it has to be divided into shards, which is not supported",
    4012: "an API version that is not served any more",
    4013: "intents that do not exist",
    4014: "the intents are not allowed: turn on Message Content Intent on the page Bot of the developer portal, or set "
    "message_content = false",
}
"""Reasons for which Discord closes a connection, and which people have to do something about."""
log = logging.getLogger("holdfast.channels.discord")

Tell = Callable[[str, Mapping[str, Any], Hear], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Session:
    """What Discord knows us by. `url`: where it is gone on with; empty: unknown."""

    id: str
    url: str


class Progress:
    """Up to which event of a session everything is done, although several are under way at a time."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}
        self._begun = 0

    def begin(self, number: int) -> None:
        self._open[number] = None
        self._begun = max(self._begun, number)

    def end(self, number: int) -> None:
        self._open.pop(number, None)

    @property
    def done(self) -> int:
        """They come in order, so what was begun first is the lowest."""
        return next(iter(self._open)) - 1 if self._open else self._begun


class DiscordSocket:
    """Listens. `tell`: what each event is handed to, with its name.

    Args:
        silence_s: see `SILENCE_S`.
    """

    def __init__(self, web: DiscordWeb, intents: Intents, tell: Tell, *, silence_s: float = SILENCE_S) -> None:
        self._web = web
        self._intents = intents
        self._tell = tell
        self._silence_s = silence_s
        self._session: Session | None = None
        self._stored: int | None = None
        self._greeted = False

    @property
    def connected(self) -> bool:
        return self._greeted

    @property
    def position(self) -> str | None:
        """The session, up to which of its events everything is stored, and what it is told of."""
        if self._session is None or self._stored is None:
            return None
        return json.dumps([self._session.id, self._session.url, self._stored, self._intents.value])

    def resume_from(self, position: str) -> None:
        """A session with other intents is left alone: it would go on to be told what it was told before."""
        try:
            session, url, stored, intents = json.loads(position)
        except (ValueError, TypeError, RecursionError):
            return
        if intents != self._intents.value:
            return
        if isinstance(session, str) and isinstance(url, str) and isinstance(stored, int) and session and stored >= 0:
            self._session, self._stored = Session(session, url if self._may_trust(url) else ""), stored

    async def listen(self, hear: Hear) -> None:
        """Until the connection cannot be had or kept (SendUnknownError, ChannelRefusedError), or something could not be
        stored. A connection that has held for a while and is lost, or that Discord ends, is followed by another at
        once; what was said in between is told on it.
        """
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            why = await self._hold(hear)
            if loop.time() - began < SHORT_S:
                raise SendUnknownError(why)
            log.info("a connection to Discord has ended and is followed by another: %s", why)

    async def _hold(self, hear: Hear) -> str:
        """One connection; why it ended."""
        socket = await self._connect()
        failed: Exception | None = None
        why = ""
        try:
            async with asyncio.TaskGroup() as group:
                why = await self._read(socket, group, hear)
                self._greeted = False
        except ExceptionGroup as several:  # something was not stored; what was, is not told again
            failed = next((one for one in several.exceptions if isinstance(one, Exception)), several)
        finally:
            self._greeted = False
            await _close(socket)
        if failed is not None:
            raise failed
        return why

    async def _connect(self) -> _Socket:
        """A new connection, for the session that there is or for a new one."""
        session, is_open = self._session, False
        try:
            async with asyncio.timeout(CONNECT_S):
                address = session.url if session is not None and session.url else await self._address()
                client = _Client(self._web, self._intents, self._silence_s)
                await client.prepare()
                socket = await _Socket.from_client(
                    client, gateway=URL(address), initial=True, resume=session is not None,
                    session=session.id if session is not None else None,
                    sequence=self._stored if session is not None else None,
                )  # fmt: skip
                is_open = True
                return socket
        except ReconnectWebSocket as ended:
            self._note_end(ended)
            why = "it was closed before Discord said hello"
        except ConnectionClosed as closed:
            raise _told(closed) from closed
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as exc:
            why = type(exc).__name__
        finally:
            if not is_open:
                await self._web.drop_socket()
        if session is not None:  # the next time where Discord sends us, for the same session
            self._session = Session(session.id, "")
        raise SendUnknownError(f"no connection to Discord's gateway: {why}")

    async def _address(self) -> str:
        """Where a session is begun. Raises ChannelRefusedError, too, if too many were begun today: Discord takes the
        token back from whoever goes on.
        """
        _, address, limit = await self._web.routes.get_bot_gateway()
        if self._session is None and limit.get("remaining", 1) < 1:
            minutes = limit.get("reset_after", 0) / 60_000
            raise ChannelRefusedError(f"no more sessions may be begun for {minutes:.0f} minutes (Discord's limit)")
        return address

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, socket: _Socket, group: asyncio.TaskGroup, hear: Hear) -> str:
        """Hand over what comes, until nothing does any more; why. What is being stored is waited for by the caller."""
        progress = Progress()
        if self._stored is not None:
            progress.begin(self._stored)
            progress.end(self._stored)
        running: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        greeted_by = loop.time() + CONNECT_S
        while True:
            try:
                async with asyncio.timeout_at(None if self._greeted else greeted_by):
                    await socket.poll_event()
            except ReconnectWebSocket as ended:
                self._note_end(ended)
                return "Discord asks for another one, or it was lost" if ended.resume else "the session is not known"
            except TimeoutError:
                return f"Discord did not say that the session is there within {CONNECT_S:g} s"
            except ConnectionClosed as closed:
                raise _told(closed) from closed
            except (aiohttp.ClientError, OSError, RuntimeError) as exc:
                return type(exc).__name__
            for number, name, event in socket.take():
                progress.begin(number)
                self._note(name, event)
                if name in ("READY", "MESSAGE_CREATE"):
                    task = group.create_task(self._take(name, event, hear))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(lambda done, number=number: self._ended(done, number, progress, socket))
                else:
                    self._ended(None, number, progress, socket)
            while len(running) >= BUSY_MAX:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def _take(self, name: str, event: Mapping[str, Any], hear: Hear) -> None:
        """Store what it says. What Discord will never explain to us is left out."""
        try:
            await self._tell(name, event, hear)
        except ChannelRefusedError as refused:
            if not refused.permanent:
                raise
            log.warning("something that was said was not taken: %s", refused)

    def _ended(self, task: asyncio.Task[None] | None, number: int, progress: Progress, socket: _Socket) -> None:
        if task is None or (not task.cancelled() and task.exception() is None):
            progress.end(number)
            if socket.is_of(self._session):
                self._stored = socket.stored = progress.done

    def _note(self, name: str, event: Mapping[str, Any]) -> None:
        if name == "READY":
            url = str(event.get("resume_gateway_url", ""))
            self._session = Session(str(event.get("session_id", "")), url if self._may_trust(url) else "")
            self._stored = 0
        if name in ("READY", "RESUMED"):
            self._greeted = True

    def _may_trust(self, url: str) -> bool:
        """Whether the token may be sent there."""
        parts = urlsplit(url)
        is_theirs = parts.scheme == "wss" and (parts.hostname or "").endswith(".discord.gg")
        return is_theirs or (not self._web.is_discord and parts.scheme in ("ws", "wss"))

    def _note_end(self, ended: ReconnectWebSocket) -> None:
        if not ended.resume:
            self._session, self._stored = None, None


class _Socket(DiscordWebSocket):
    """discord.py's connection, which says that it has heard what is stored, and keeps what came for `take`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop) -> None:
        self.stored: int | None = None
        self._told: list[tuple[int, str, Mapping[str, Any]]] = []
        super().__init__(socket, loop=loop)

    @property
    def sequence(self) -> int | None:
        """What heartbeats and a resumption tell; discord.py sets it to whatever came last."""
        return self.stored

    @sequence.setter
    def sequence(self, value: int | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # an attribute there
        if value is None or self.stored is None:
            self.stored = value

    def log_receive(self, text: Any, /) -> None:
        """Called with each payload, unpacked, before anything is made of it."""
        payload = json.loads(text)
        if payload.get("op") == self.DISPATCH and isinstance(payload.get("s"), int):
            event = payload.get("d")
            self._told.append((payload["s"], str(payload.get("t")), event if isinstance(event, dict) else {}))

    def take(self) -> list[tuple[int, str, Mapping[str, Any]]]:
        told, self._told = self._told, []
        return told

    def is_of(self, session: Session | None) -> bool:
        return session is not None and session.id == self.session_id

    async def end(self) -> None:
        """Close it so that the session can be gone on with, and wait for the thread that beats."""
        beating = self._keep_alive
        await self.close(4000)
        if beating is not None:
            await asyncio.to_thread(beating.join, CLOSE_S)


class _Client(Client):
    """What discord.py's connection wants to know of its client. It remembers nothing of what it is told."""

    def __init__(self, web: DiscordWeb, intents: Intents, silence_s: float) -> None:
        super().__init__(
            intents=intents, heartbeat_timeout=silence_s, max_messages=None, chunk_guilds_at_startup=False,
            member_cache_flags=MemberCacheFlags.none(),
        )  # fmt: skip
        self.http = web.routes
        self._connection.parsers.clear()

    async def prepare(self) -> None:
        await self._async_setup_hook()


def _told(closed: ConnectionClosed) -> ChannelError:
    if closed.code in REFUSALS:
        return ChannelRefusedError(f"Discord ended the connection ({closed.code}): {REFUSALS[closed.code]}",
                                   permanent=True)  # fmt: skip
    return SendUnknownError(f"Discord ended the connection ({closed.code})")


async def _close(socket: _Socket) -> None:
    try:
        async with asyncio.timeout(2 * CLOSE_S):
            await socket.end()
    except TimeoutError:
        log.debug("a connection took too long to close")
