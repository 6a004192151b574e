"""Servers of tools (MCP): when they are started, what they offer, what becomes of a call when one dies.

Each server has one task, which owns its connection: it enters and leaves it, starts it anew with back-off, and ends it
with the gateway. It is begun by the first turn whose agent may use the server. Calls run beside it, each bounded, and
are told when the connection goes under them. Nothing that happens to a server fails a turn.

    idle → starting → up → down → starting …        any → closed
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

from holdfast.clock import Clock
from holdfast.errors import HoldfastError, ResourceError
from holdfast.model.client import ToolSpec
from holdfast.session.key import parse_key
from holdfast.text import on_one_line
from holdfast.tool.offered import Offered, take
from holdfast.tool.policy import HARMLESS, Effect
from holdfast.tool.redact import Redactor, secrets_in
from holdfast.turn.tools import Tool, ToolCall

LIBRARY = "holdfast.tool.mcp"
TIMEOUT_S, START_TIMEOUT_S = 60, 20
BACK_OFF_S, BACK_OFF_S_MAX = 1.0, 60.0
STEADY_S = 60.0
"""One that has stayed up for so long begins again with the shortest back-off."""
CHECK_S = 5.0
"""How long a server that let a call down may take to list its tools. It has nothing else to do then."""
END_S = 10.0
WHY_CHARS_MAX = 300
State = Literal["idle", "starting", "up", "down", "closed"]
log = logging.getLogger("holdfast.tools")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server.

    Args:
        argv: the program that is one; empty: it is reached at `url`.
        cwd: where the program works, an absolute path. env: its whole environment.
        headers: of each request to `url`.
        missing: variables that are needed and not set; then it is never started.
        timeout_s: of a call. start_timeout_s: of starting, and what a turn waits for it at most.
        effect: what its tools do to the world; read: patterns of its names for those that only read.
        agents: that get its tools; None: all.
    """

    name: str
    argv: tuple[str, ...] = ()
    url: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    missing: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    start_timeout_s: float = START_TIMEOUT_S
    effect: Effect = "change"
    read: tuple[str, ...] = ()
    agents: tuple[str, ...] | None = None

    def effect_of(self, name: str) -> Effect:
        """Of a tool by the server's name for it. What the server says of itself does not count."""
        return "read" if any(fnmatchcase(name, one) for one in self.read) else self.effect


class Session(Protocol):
    """A connection that is up."""

    def has_ended(self) -> bool:
        """Whether it is known that nobody is there any more."""
        ...

    def has_changed(self) -> bool:
        """Whether the server has said that its tools are others now; asked once, forgotten."""
        ...

    async def list_tools(self) -> list[Offered]: ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool.

        Raises:
            InputError: the server answered, and its answer is an error. Anything else: the connection is in doubt.
        """
        ...


Connect = Callable[[ServerSettings, Callable[[], None]], AbstractAsyncContextManager[Session]]
"""Connects, and calls back whenever `has_ended` or `has_changed` may say something new. Leaving ends the server."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server as people see it. `tools`: under the names that models call. `retry_s`: until it is started again."""

    name: str
    kind: str
    state: State
    why: str
    tools: tuple[str, ...]
    refused: Mapping[str, str]
    restarts: int
    retry_s: float | None = None


class Server:
    """One server, from the first turn that may use it until `close`."""

    def __init__(self, settings: ServerSettings, connect: Connect, clock: Clock, taken: Collection[str] = ()) -> None:
        self.settings = settings
        self.tools: list[Tool] = []
        self._offer = take(settings.name, ())
        self._connect = connect
        self._clock = clock
        self._names_taken = taken
        self._state: State = "idle"
        self._why = ""
        self._restarts = 0
        self._again_at = 0.0
        self._session: Session | None = None
        self._calls: set[asyncio.Task[str]] = set()
        self._in_doubt = False
        self._woken = asyncio.Event()
        told = [word for value in settings.headers.values() for word in value.split()]
        self._redactor = Redactor([*told, *secrets_in(settings.env)])
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def view(self) -> ServerView:
        own = self.settings
        retry = max(0.0, self._again_at - self._clock.mono()) if self._state == "down" else None
        return ServerView(
            own.name, "stdio" if own.argv else "http", self._state, self._why, tuple(self._offer.tools),
            self._offer.refused, self._restarts, retry,
        )  # fmt: skip

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._task is None and self._state != "closed":
            self._task = asyncio.create_task(self._run(), name=f"server {self.settings.name}")

    async def wait_tried(self) -> None:
        """Until the first attempt to start it has come to something, at most as long as one may take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.start_timeout_s):
                await self._tried.wait()

    async def close(self) -> None:
        """End it. Nothing of it is left when this returns."""
        task, self._state = self._task, "closed"
        if task is not None:
            task.cancel()
            _, left = await asyncio.wait({task}, timeout=END_S)
            if left:
                log.warning("server %s does not end; it is left to its lifeline", self.settings.name)

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool by the server's own name for it.

        Raises:
            InputError: the server answers with an error. ResourceError: it is not there, or has gone meanwhile.

        Cancelled: the server is told, and looked at before it is trusted with more.
        """
        session = self._session
        if session is None:
            raise ResourceError(self._absence())
        task = asyncio.ensure_future(session.call(name, arguments))
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if _is_being_cancelled():
                self._in_doubt = True
                raise
            raise ResourceError(self._lost("it has ended")) from None
        except HoldfastError:
            raise
        except Exception as exc:
            self._in_doubt = True
            raise ResourceError(self._lost(self._redactor.text(_shown(exc)))) from exc
        finally:
            self._calls.discard(task)
            if self._in_doubt:
                self._woken.set()

    def _absence(self) -> str:
        name = self.settings.name
        if self._state == "starting":
            return f"server {name} is being started; the call was not made. Try again later"
        again = max(1.0, self._again_at - self._clock.mono())
        return f"server {name} is down ({self._why}) and is started again in {again:.0f} s; the call was not made"

    def _lost(self, why: str) -> str:
        return f"server {self.settings.name}: {why}; whether the call was carried out is not known"

    # ── the task that owns the connection ────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        back_off = BACK_OFF_S
        while True:
            began = self._clock.mono()
            self._becomes("starting")
            why = await self._one_life()
            if self._clock.mono() - began >= STEADY_S:
                back_off = BACK_OFF_S
            self._again_at = self._clock.mono() + back_off
            self._becomes("down", why)
            log.warning("server %s is down: %s; again in %g s", self.settings.name, on_one_line(why), back_off)
            self._tried.set()
            await self._clock.sleep(back_off)
            back_off = min(2 * back_off, BACK_OFF_S_MAX)
            self._restarts += 1

    def _becomes(self, state: State, why: str = "") -> None:
        if self._state != "closed":
            self._state, self._why = state, why

    async def _one_life(self) -> str:
        """Connect, and stay until the connection ends; why it did. Only our own end gets out."""
        own = self.settings
        if own.missing:
            return f"not set in the environment: {', '.join(own.missing)}"
        alarm = asyncio.timeout(own.start_timeout_s)
        try:
            async with AsyncExitStack() as stack:
                self._woken.clear()
                async with alarm:
                    session = await stack.enter_async_context(self._connect(own, self._woken.set))
                    self._takes(await session.list_tools())
                self._session, self._in_doubt = session, False
                self._becomes("up")
                self._tried.set()
                try:
                    return await self._stay(session)
                finally:
                    self._session = None
                    self._becomes("down", "it is being ended")
                    await self._end_calls()
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            return "its connection was cancelled from within"
        except BaseExceptionGroup as exc:
            return self._redactor.text(_shown(exc))
        except TimeoutError as exc:
            return f"not started in {own.start_timeout_s:g} s" if alarm.expired() else self._redactor.text(_shown(exc))
        except Exception as exc:  # noqa: BLE001  # the edge of somebody else's program: whatever it does is a reason
            return self._redactor.text(_shown(exc))

    async def _stay(self, session: Session) -> str:
        while True:
            await self._woken.wait()
            self._woken.clear()
            if session.has_ended():
                return "its program has ended"
            if session.has_changed() or (self._in_doubt and not self._calls):
                self._in_doubt = False
                async with asyncio.timeout(CHECK_S):
                    self._takes(await session.list_tools())

    async def _end_calls(self) -> None:
        for task in self._calls:
            task.cancel()
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=END_S)

    def _takes(self, offers: Iterable[Offered]) -> None:
        found = take(self.settings.name, offers, self._names_taken)
        if found == self._offer:
            return
        self._offer = found
        self.tools = [self._tool(full, one) for full, one in found.tools.items()]
        log.info("server %s offers %d tools", self.settings.name, len(found.tools))
        for name, why in list(found.refused.items())[:10]:
            log.warning("server %s: %s is not offered: %s", self.settings.name, on_one_line(name), why)

    def _tool(self, full: str, one: Offered) -> Tool:
        effect = self.settings.effect_of(one.name)

        async def run(call: ToolCall) -> str:
            return await self.call(one.name, call.arguments)

        return Tool(
            ToolSpec(full, one.description, dict(one.parameters)), run, restart_safe=effect in HARMLESS,
            seconds_max=self.settings.timeout_s, effect=effect,
        )  # fmt: skip


class Servers:
    """All servers of a gateway.

    Args:
        connect: how a server is reached; None: by the library, which is imported when it is first needed.
    """

    def __init__(self, settings: Iterable[ServerSettings], clock: Clock, connect: Connect | None = None) -> None:
        self._connect = connect
        self._taken: set[str] = set()
        self._servers = [Server(one, self._connected, clock, self._taken) for one in settings]
        self._library: asyncio.Future[Any] | None = None

    def reserve(self, names: Iterable[str]) -> None:
        """Names of the gateway's other tools, which no server's may have. To be called before anything is started."""
        self._taken.update(names)

    def views(self) -> list[ServerView]:
        return [one.view for one in self._servers]

    async def tools_for(self, session: str, _lane: str) -> list[Tool]:
        """The tools of a turn: those of all servers that its agent may use, which are started if they are not. A server
        is waited for only while it is started for the first time.
        """
        agent = parse_key(session).agent
        return await self.start(one for one in self._servers if _serves(one.settings, agent))

    async def start_all(self) -> list[Tool]:
        """The same for all servers at once."""
        return await self.start(self._servers)

    async def start(self, servers: Iterable[Server]) -> list[Tool]:
        mine = list(servers)
        if not mine:
            return []
        if self._connect is None:
            await self._load()
        for one in mine:
            one.start()
        await asyncio.gather(*(one.wait_tried() for one in mine))
        return [tool for one in mine for tool in one.tools]

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in self._servers))

    async def _load(self) -> None:
        """Import the library, on a thread: it takes seconds, and everything else goes on."""
        if self._library is None:
            self._library = asyncio.ensure_future(asyncio.to_thread(importlib.import_module, LIBRARY))
        await asyncio.shield(self._library)

    def _connected(self, own: ServerSettings, wake: Callable[[], None]) -> AbstractAsyncContextManager[Session]:
        connect: Connect = self._connect or importlib.import_module(LIBRARY).connect
        return connect(own, wake)


def _serves(own: ServerSettings, agent: str) -> bool:
    return own.agents is None or agent in own.agents


def _is_being_cancelled() -> bool:
    """Whether somebody asked this task to stop; else a `CancelledError` comes from what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _shown(exc: BaseException) -> str:
    """An error of the library, in short. Of a group its first: they mostly say the same."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    text = str(exc) or type(exc).__name__
    return text if len(text) <= WHY_CHARS_MAX else text[: WHY_CHARS_MAX - 1] + "…"
