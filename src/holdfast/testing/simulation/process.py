"""One simulated process: the real store, kernel, worker, runner and courier on a loop and a machine of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast import ids
from holdfast.channel.channel import Channel
from holdfast.channel.listening import Adapter, Editor
from holdfast.context.settings import CompactionSettings
from holdfast.errors import CoordinationError, HoldfastError, ResourceError
from holdfast.inbound.announcement import with_announcements
from holdfast.inbound.children import Children, with_child_ends
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ModelClient
from holdfast.outbox.delivery import Courier
from holdfast.outbox.showing import Showing, Surface
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.store.embedded.core import StoreOptions
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.views import InputView
from holdfast.testing.simulation import tooling, ways
from holdfast.testing.simulation.loop import SimLoop
from holdfast.testing.simulation.machine import SeededChance, SharedHardware, SimMachine
from holdfast.testing.simulation.scheduler import Host, Scheduler
from holdfast.testing.simulation.threads import SimEvent
from holdfast.testing.simulation.ways import Ways
from holdfast.tool.background import Background
from holdfast.turn.commands import Commands
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.spawning import spawn_tool
from holdfast.turn.tools import Tool, Toolbox
from holdfast.turn.turn import Turn

MODEL = "simulated/model"
LIMITS = LaneLimits(widths={"main": 2})
BEAT_S, BEAT_TERM_S = 0.5, 3.0
"""Short, so that a run takes little virtual time: every second costs each process some looks at the ledger."""
LOCK_WAIT_MS = 4_000
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class SimClock:
    """Virtual time, as one process sees it. Its wall clock may be set; `offset_s` says by how much."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.offset_s = 0.0

    def now(self) -> datetime:
        return _BEGINNING + timedelta(seconds=self._scheduler.now + self.offset_s)

    def mono(self) -> float:
        return self._scheduler.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@dataclass(slots=True)
class Reply:
    """What became of something a process was asked to do. `lost`: it ended before it answered."""

    over: SimEvent
    value: Any = None
    error: HoldfastError | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process is made with. `ways`: what it is used for. The rest: where a bug may be planted."""

    model: ModelClient
    channel: Channel
    tools: tuple[Tool, ...]
    fence_mode: str
    ways: Ways
    editor: Editor | None = None
    make_store: Callable[[Path, SimClock, StoreOptions], EmbeddedStore] = EmbeddedStore.open
    make_machine: Callable[[SharedHardware, Host], SimMachine] = SimMachine
    make_runner: Callable[..., Runner] = Runner
    make_commands: Callable[..., Commands] = Commands
    make_timers: Callable[..., Timers] = Timers
    make_watchdog: Callable[[Holdfast], Watchdog] = Watchdog


@dataclass(slots=True, eq=False)
class SimProcess:
    """From its start to its end; a restarted one is another."""

    name: str
    state: Path
    hardware: SharedHardware
    parts: Parts
    on_end: Callable[[SimProcess], None]
    machine: SimMachine = field(init=False)
    host: Host = field(init=False)
    loop: SimLoop = field(init=False)
    clock: SimClock = field(init=False)
    hf: Holdfast | None = None  # once it takes requests
    ended_in_order: bool = False
    _replies: list[Reply] = field(default_factory=list[Reply])
    _stop: asyncio.Event | None = None
    _context: Context | None = None

    def start(self) -> None:
        scheduler = self.hardware.scheduler
        self.host = Host(self.name)
        self.machine = self.parts.make_machine(self.hardware, self.host)
        self.machine.on_kill = self.kill
        self.loop = SimLoop(scheduler, self.host)
        self.clock = SimClock(scheduler)
        with self.machine.entered(), ids.drawn_from(SeededChance(scheduler)):
            self._context = copy_context()
            scheduler.spawn(self.host, self.name, self._run)

    def _run(self) -> None:
        scheduler = self.hardware.scheduler
        try:
            self.loop.run_main(self._main())
        except HoldfastError as exc:
            scheduler.note(f"ends: {type(exc).__name__}: {exc}")
        if not self.host.dead:
            scheduler.note("has ended")
            self.ended_in_order = True
            self.kill()

    async def _main(self) -> None:
        options = StoreOptions(
            limits=LIMITS, acquire_timeout_ms=LOCK_WAIT_MS, beat_s=BEAT_S, beat_term_s=BEAT_TERM_S, kind="simulated",
            faults=self.machine.at_point,
        )  # fmt: skip
        has = self.parts.ways
        hf = Holdfast(
            self.parts.make_store(self.state, self.clock, options), clock=self.clock, fence_mode=self.parts.fence_mode,
            watch=ways.WATCH if "watchdog" in has else WatchSettings(), beat_term_s=BEAT_TERM_S,
        )  # fmt: skip
        hf.queue_for = lambda _: has.queue
        await hf.start()
        if "commands" in has:
            hf.commands = self.parts.make_commands(hf, model_of=lambda _: MODEL)
        random = self.hardware.scheduler.random
        background = tooling.background_of(hf, lambda: random.random() * 2) if "tools" in has else None
        worker = Worker(hf, self._run_input(hf, background), limits=LIMITS)
        courier, showing = self._courier(hf)
        self._stop = asyncio.Event()
        loops = [self._stop.wait(), worker.run(), courier.run(), *self._loops(hf)]
        if showing is not None:
            loops.append(showing.run())
        if background is not None:
            loops.append(background.run())
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(one) for one in loops]
        self.hf = hf
        self.hardware.scheduler.note("is ready")
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hf = None
            hf.drain()
            await worker.stop(0.5)
            await courier.stop(0.5)
            if background is not None:
                await background.close()
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await hf.close()

    def _courier(self, hf: Holdfast) -> tuple[Courier, Showing | None]:
        """What delivers, and what shows before."""
        channel, editor = self.parts.channel, self.parts.editor
        if "previews" not in self.parts.ways or editor is None:
            return Courier(hf, [channel]), None
        showing = Showing(hf, [Surface(Adapter(channel, editor=editor), "partial")])
        return Courier(hf, [channel], editors={channel.name: editor}, showing=showing), showing

    def _run_input(self, hf: Holdfast, background: Background | None) -> Callable[[Turn, InputView], Awaitable[None]]:
        """What a gateway's worker does with an input, as `gateway/app.py` puts it together."""
        parts, has = self.parts, self.parts.ways
        tools = [*parts.tools, *([spawn_tool(hf)] if "sub-agents" in has else [])]
        if background is not None:
            tools += tooling.tools_of(hf, background)
        runner = parts.make_runner(
            hf,
            client_for=lambda _: parts.model,
            agent_for=lambda _: AgentSettings(model=MODEL),
            toolbox=Toolbox(tools),
            gate=tooling.gate_of(hf) if background is not None else None,
            commands=hf.commands,
            context_window=lambda _: ways.WINDOW_TOKENS if "compaction" in has else 128_000,
            compaction=CompactionSettings(enabled="compaction" in has),
        )
        return with_announcements(with_child_ends(runner.run))

    def _loops(self, hf: Holdfast) -> list[Coroutine[Any, Any, None]]:
        """What a gateway does besides answering and delivering, as far as this run has it."""
        has, loops = self.parts.ways, list[Coroutine[Any, Any, None]]()
        if "sub-agents" in has:
            loops.append(Children(hf).run())
        if "timers" in has:
            timers = self.parts.make_timers(
                hf, jobs=[ways.JOB], heartbeats=[ways.HEARTBEAT], read_file=lambda _: ways.HEARTBEAT_FILE
            )
            loops.append(timers.run())
        if "watchdog" in has:
            loops.append(self._watch(hf))
        return loops

    async def _watch(self, hf: Holdfast) -> None:
        """As `Watchdog.run`, more often: a simulated turn takes a second."""
        watchdog = self.parts.make_watchdog(hf)
        while not hf.store.stopped:
            with contextlib.suppress(ResourceError, CoordinationError):
                await watchdog.look()
            await self.clock.sleep(ways.WATCH_EVERY_S)

    # ── from outside ─────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, what: Callable[[Holdfast], Awaitable[Any]], wait_s: float) -> Reply:
        """Have the process do something; called by a thread of the outside world, which waits for the reply."""
        reply = Reply(SimEvent(self.hardware.scheduler))
        assert self._context is not None
        self._replies.append(reply)

        async def do() -> None:
            try:
                if self.hf is not None:
                    reply.value = await what(self.hf)
                else:
                    reply.lost = True
            except HoldfastError as exc:
                reply.error = exc
            reply.over.set()

        context = self._context.copy()
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(do(), context=context), context=context.copy())
        if not reply.over.wait(wait_s):
            reply.lost = True
        return reply

    def stop(self) -> None:
        """Ask for an orderly end."""
        if self._stop is not None and self._context is not None and not self.host.dead:
            self.loop.call_soon_threadsafe(self._stop.set, context=self._context.copy())

    def kill(self) -> None:
        """SIGKILL: no thread of it goes on, its descriptors are closed and with them its locks fall."""
        if self.host.dead:
            return
        self.host.dead = True
        self.hf = None
        self.hardware.scheduler.forget(self.host)
        self.machine.release_all()
        for reply in self._replies:
            reply.lost = reply.lost or not reply.over.is_set()
            reply.over.set()
        self.on_end(self)

    def bury(self) -> None:
        """Let go of everything, when the run is over and the threads are unwound."""
        self.loop.bury()
        self.machine.bury()
