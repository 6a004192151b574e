"""A gateway in memory, on a real state directory: accept a message, let a scripted model answer, see what arrives.

    async with World(tmp_path) as world:
        world.model.script("Hello!")
        await world.inbound("agent:main:main", "hello", key="k1")
        await world.saw("Hello!", times=1)

Time stands still until `world.clock.advance`. The channel's platform and the notes of what was acknowledged are files
beside the state, so that they survive `crash_at`, which lets a story happen in a process of its own and kills that.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from holdfast.channel.listening import Adapter
from holdfast.context.settings import CompactionSettings
from holdfast.errors import HoldfastError
from holdfast.inbound.announcement import with_announcements
from holdfast.inbound.child import SpawnLimits
from holdfast.inbound.children import Children, with_child_ends
from holdfast.inbound.event import InboundEvent, LaneFull, Route
from holdfast.inbound.freshness import NEVER, ResetPolicy
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.queue import PLAIN, Mode, QueueSettings
from holdfast.lane.worker import Worker
from holdfast.model.caching import Caching
from holdfast.model.client import ModelClient, ModelRequest
from holdfast.opening import open as open_state
from holdfast.outbox.delivery import Courier
from holdfast.outbox.preview import Mode as Streaming
from holdfast.outbox.showing import Showing, Surface
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.session.entries import text_of
from holdfast.session.lines import Line, read_line
from holdfast.store.embedded.faults import Faults, Point
from holdfast.store.views import InputView
from holdfast.testing import nursery
from holdfast.testing.channel import FakeChannel, Received
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import ScriptedModel
from holdfast.testing.threads import WatchedMachine
from holdfast.tool.background import Background
from holdfast.tool.exec import ExecSettings, exec_tool
from holdfast.tool.files import file_tools
from holdfast.tool.gate import Gate, GateSettings
from holdfast.tool.message import message_tool
from holdfast.tool.origin import Approvers
from holdfast.tool.prompt_files import PromptFiles
from holdfast.tool.redact import Redactor
from holdfast.tool.respond import respond_tool, with_heartbeat_responses
from holdfast.tool.status import status_tool
from holdfast.turn.asking import Models
from holdfast.turn.commands import Commands
from holdfast.turn.fresh_start import with_fresh_starts
from holdfast.turn.metering import Metering
from holdfast.turn.resets import with_resets
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.spawning import spawn_tool
from holdfast.turn.tools import Tool, Toolbox, built_in_tools
from holdfast.turn.turn import RESET_TYPE

T = TypeVar("T")
LOOK_S = 0.05
"""How often a wait looks again when nothing tells it to; real seconds."""
LOOKS = 1_000
"""How often, at most, passing time looks whether loops that it woke sleep again, while no thread has anything to do.
Each look is a round of the event loop and half a millisecond, on a busy machine more."""
SETTLE_S = 10.0
"""How long, at most, time stands still for what is under way on threads; real seconds. Only what is held up lasts."""
QUIET_S = 0.01
"""Nothing has happened for so many real seconds: time may pass."""
STILL_S = 0.5
"""The same while something is queued: what waits for the next look of a loop that sleeps needs time, too."""
CHILD_MAX_S = 60.0
INPUTS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Crash:
    """How a story in a process of its own ended. `died`: killed at the point; else it came to its end."""

    died: bool
    seconds: float


class World:
    """A gateway without its socket: store, worker, runner with a scripted model, courier with a fake channel.

    Waits are bounded by `patience_s` real seconds and then fail with what is known about every open input.

    Args:
        path: a folder of its own; the state is in `path/state`.
        model: default: answers "re: " and the text of the newest message, once its script is used up.
        client_for: clients of real or other models by reference, or `Models`, who know keys as well, instead of
            `model`; then name one in `agent`.
        agent: how every session answers; default: with `model`, and without fallbacks.
        channel: default: "test", which cannot be asked what has arrived.
        queue: what becomes of messages that find their session busy; default: a turn each, at once.
        commands: whether slash commands are carried out.
        resets: when conversations begin anew by themselves, by session; default: never.
        faults: called at the named points of the store.
        timers: makes what fires timers, for each handle anew; None: nothing fires.
        spawns: what sub-agents may be spawned, by the tool `spawn` and by the library; None: the tool is not offered,
            and nobody watches sub-agents.
        compaction, context_window: how conversations are shortened, and tokens that every model takes.
        watch: how turns that stand still are watched; None: nobody watches.
        gate: with it calls of tools pass a gate, and the gateway's own tools are offered, with a workspace; None: what
            a model asks for is run, and there are `tools` alone.
        secrets: values that are taken out of what tools are given and give back.
        metering: counts what models use; None: with published prices.
        caching: what providers are asked to keep; None: nothing is said of that.
        streaming: how answers are shown on the channel while they are written.

    Attributes:
        hf, model, channel, clock: the parts.
    """

    def __init__(
        self,
        path: Path,
        *,
        model: ScriptedModel | None = None,
        client_for: Callable[[str], ModelClient] | Models | None = None,
        agent: AgentSettings | None = None,
        channel: FakeChannel | None = None,
        clock: VirtualClock | None = None,
        tools: Iterable[Tool] = (),
        limits: LaneLimits | None = None,
        fence_mode: str = "strict",
        queue: QueueSettings = PLAIN,
        commands: bool = False,
        resets: Callable[[str], ResetPolicy] = lambda _: NEVER,
        faults: Faults | None = None,
        timers: Callable[[Holdfast], Timers] | None = None,
        spawns: SpawnLimits | None = None,
        compaction: CompactionSettings | None = None,
        context_window: int = 128_000,
        watch: WatchSettings | None = None,
        gate: GateSettings | None = None,
        secrets: Iterable[str] = (),
        metering: Metering | None = None,
        caching: Caching | None = None,
        streaming: Streaming = "off",
        patience_s: float = 30.0,
    ) -> None:
        self.path = path
        self.model = model or ScriptedModel(otherwise=echo)
        self._client_for = client_for or (lambda _: self.model)
        self._agent = agent or AgentSettings(model="scripted/model")
        self.channel = channel or FakeChannel(platform=path / "platform.jsonl")
        self.clock = clock or VirtualClock()
        self.patience_s = patience_s
        self._tools = tuple(tools)
        self._limits = limits or LaneLimits()
        self._fence_mode = fence_mode
        self._compaction = compaction
        self._context_window = context_window
        self._queue = queue
        self._resets = resets
        self._has_commands = commands
        self.faults = faults
        self._timers_for = timers
        self._watch = watch
        self._gate = gate
        self._redactor = Redactor(secrets)
        self._metering = metering
        self._caching = caching
        self._streaming: Streaming = streaming
        if gate is not None and not self._agent.workspace:
            self._agent = replace(self._agent, workspace=str(path / "workspace"))
        self.timers: Timers | None = None
        self._spawns = spawns
        self._machine = WatchedMachine()
        self._acknowledged = path / "acknowledged"
        self._open = AsyncExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self._hf: Holdfast | None = None
        self._courier: Courier | None = None

    async def __aenter__(self) -> World:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def hf(self) -> Holdfast:
        """The handle on the state. Another one after `restart` and `crash_at`."""
        if self._hf is None:
            raise RuntimeError("the world is not open: use `async with World(path) as world`")
        return self._hf

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.path / "state"

    @property
    def workspace(self) -> Path:
        """The folder that tools work in, where there are any."""
        return Path(self._agent.workspace)

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def inbound(
        self, session: str, text: str, *, key: str | None = None, lane: str = "main", to: str | None = "user",
        queue: Mode | None = None, waits: bool = False, home: str | None = None,
    ) -> str:  # fmt: skip
        """One message comes in and is acknowledged; returns its input id (the first one's for a repeated key).

        Args:
            queue, waits, home: as of `InboundEvent`.
            to: where the answer goes on the world's channel; None: nowhere, it is kept under the input id.
        """
        route = Route(self.channel.name, to) if to is not None else None
        event = InboundEvent(
            session, {"content": text}, source="world", key=key, lane=lane, route=route, queue=queue, waits=waits,
            home=home,
        )  # fmt: skip
        admission = await self.hf.accept(event)
        if isinstance(admission, LaneFull):
            raise AssertionError(f"lane {admission.lane!r} is full: {admission.waiting} wait, {admission.limit} may")
        self._note_acknowledged(admission.input_id)
        return admission.input_id

    async def restart(self) -> None:
        """Stop in order and open again: what was queued stays queued, what ran goes back to its place."""
        await self._stop()
        await self._start()

    async def crash_at(
        self,
        point: Point | None = None,
        story: Callable[[World], Awaitable[None]] | None = None,
        *,
        nth: int = 1,
        make: Callable[[Path], World] | None = None,
    ) -> Crash:
        """Let a story happen in a real process on this state, kill it in the middle, then open the state again here.

        Args:
            point: where it is killed (`store/embedded/faults.py`); None: at any point, the `nth` in all.
            story: a function on the top level of a module; gets the child's world. None: the child works until
                everything that is waiting is done.
            nth: which passing of the point.
            make: makes the child's world, if the plain one will not do; also on the top level of a module.

        Returns:
            whether it died. Without a `point` it may have come to its end, which tells a sweep over `nth` to stop.
        """
        await self._stop()
        spec = {"path": str(self.path), "point": point, "nth": nth, "story": _place_of(story), "make": _place_of(make)}
        began = time.monotonic()
        child = await nursery.start("holdfast.testing.child", json.dumps(spec))
        try:
            _, errors = await asyncio.wait_for(child.communicate(), CHILD_MAX_S)
        except TimeoutError:
            child.kill()
            _, errors = await child.communicate()
            raise AssertionError(f"the story did not end within {CHILD_MAX_S:g} s:\n{errors.decode()}") from None
        finally:
            await self._start()
        died = child.returncode == -signal.SIGKILL
        if not died and (child.returncode != 0 or point is not None):
            why = f"failed ({child.returncode})" if child.returncode else f"never came to {point!r} {nth} times"
            raise AssertionError(f"the story {why}:\n{errors.decode()}")
        return Crash(died, time.monotonic() - began)

    async def pass_time(self, seconds: float) -> None:
        """Let virtual time pass second by second, and give the loops that wake up time to look at the store.

        `clock.advance` does not wait for what goes on on threads, so a loop could sleep through the very second that
        mattered to it.
        """
        while seconds > 0:
            await self.settle()
            asleep = self.clock.sleeping
            await self.clock.advance(min(1.0, seconds))
            seconds -= 1
            looks = 0
            until = time.monotonic() + SETTLE_S
            while self.clock.sleeping < asleep and looks < LOOKS and time.monotonic() < until:
                await asyncio.sleep(0.0005)
                looks = 0 if self._machine.is_at_work else looks + 1

    async def settle(self) -> None:
        """Wait until nothing is under way on threads and what they have done has been heard of. Virtual time does not
        pass; 10 real seconds are the most.
        """
        until = time.monotonic() + SETTLE_S
        quiet = 0
        while quiet < 3 and time.monotonic() < until:  # a loop that has heard of something may begin something new
            await asyncio.sleep(0)
            quiet = 0 if self._machine.is_at_work else quiet + 1
            if quiet == 0:
                await asyncio.sleep(0.0005)

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def settled(self, input_id: str) -> InputView:
        """Wait until an input has ended, and how."""

        async def look() -> InputView | None:
            view = await self.hf.input(input_id)
            return view if view.settled else None

        return await self._until(look, f"the end of {input_id}")

    async def saw(self, text: str, *, times: int = 1) -> list[Received]:
        """Wait until `times` messages that contain `text` have arrived at the channel; more than that is an error.

        For "and no more will come", wait for `idle` first.
        """

        async def look() -> list[Received] | None:
            found = [one for one in self.channel.received if text in one.text]
            return found if len(found) >= times else None

        found = await self._until(look, f"{times} messages with {text!r}")
        assert len(found) == times, f"{text!r} arrived {len(found)} times, not {times}: {found}"
        return found

    async def idle(self, *, passing_s: float = 0.0) -> None:
        """Wait until nothing is queued, running or on its way, and whoever watches has been told of it.

        Args:
            passing_s: virtual seconds that may pass meanwhile; refused deliveries and those of unknown fate need some.
        """

        async def look() -> bool | None:
            children = await self.hf.children(limit=INPUTS_MAX) if self._spawns is not None else []
            if any(child.is_open for child in children):
                return None
            if not all(view.settled for view in await self.hf.inputs(limit=INPUTS_MAX)):
                return None
            deliveries = await self.hf.deliveries(limit=INPUTS_MAX)  # after the inputs: a settlement brings them along
            if not all(one.state in ("sent", "failed") for one in deliveries):
                return None
            if self._spawns is not None and await self.hf.children(limit=INPUTS_MAX) != children:
                return None  # one was spawned, or has ended, between the looks
            if self._gate is not None and await self.hf.store.background(only_open=True):
                return None
            # The ledger knows first; whoever has just written to it tells of it in this process a moment later.
            is_told = not self.hf.live_turns() and self._courier is not None and not self._courier.sending
            return is_told or None

        await self._until(look, "everything to be done", passing_s)

    async def transcript(self, session: str) -> list[dict[str, Any]]:
        """The entries of a session's transcript as they stand in the file, without its header."""
        return [line.value() for line in await self.hf.session(session).lines() if line.kind != "header"]

    async def said(self, session: str) -> list[tuple[str, str]]:
        """The conversation in short: (role, text) of each message in the file."""
        messages = [entry["message"] for entry in await self.transcript(session) if entry["type"] == "message"]
        return [(message["role"], text_of(message)) for message in messages]

    @property
    def acknowledged(self) -> list[str]:
        """Every input that was ever acknowledged here, in this process or in one that has died; repeats left out."""
        if not self._acknowledged.exists():
            return []
        return list(dict.fromkeys(self._acknowledged.read_text().split()))

    async def check_promises(self, *, passing_s: float = 120.0) -> None:
        """Once everything is done: each acknowledged input has ended, with one final line in its transcript if it was
        answered; each transcript is one line of entries; each part went out unlabelled at most once.

        Args:
            passing_s: virtual seconds that may pass until everything is done.

        Raises:
            AssertionError: says which, and tells the story of the input.
        """
        await self.idle(passing_s=passing_s)
        finals: dict[str, int] = {}
        for path, lines in (await self._all_transcripts()).items():
            leaf = None
            for line in lines:
                if line.kind == "header":
                    continue
                assert line.kind == "entry", f"{path}: a line of kind {line.kind}: {line.raw!r}"
                begins_anew = line.parent is None and line.type == "custom" and RESET_TYPE.encode() in line.raw
                assert line.parent == leaf or begins_anew, f"{path}: {line.id} hangs off {line.parent}, not {leaf}"
                leaf = line.id
                if line.origin is not None and line.origin.final:
                    for answered in line.origin.inputs:
                        finals[answered] = finals.get(answered, 0) + 1
        for input_id in self.acknowledged:
            view = await self.hf.input(input_id)
            assert view.settled, await self.story(input_id)
            if view.state == "answered":
                assert finals.get(input_id) == 1, f"{finals.get(input_id, 0)} final lines: {await self.story(input_id)}"
        unlabelled = [one.delivery_id for one in self.channel.received if one.label is None]
        assert len(unlabelled) == len(set(unlabelled)), f"sent twice without a label: {self.channel.received}"

    async def _all_transcripts(self) -> dict[str, list[Line]]:
        """Of sessions, which may share one, and archived ones."""
        found = {view.path or view.key: await self.hf.session(view.key).lines() for view in await self.hf.sessions()}
        for archive in await self.hf.archives():
            path = self.state / "archives" / archive.name
            found[str(path)] = [read_line(raw) for raw in path.read_bytes().splitlines()]
        return found

    async def story(self, target: str) -> str:
        """What `holdfast why` tells."""
        report = await self.hf.why(target)
        return "\n".join([f"{report.id}: {report.state}", *(f"  {line.text}" for line in report.lines)])

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._machine = WatchedMachine()  # one for each handle: what a closed one leaves in its queue is nobody's work
        opening = open_state(
            self.state, clock=self.clock, limits=self._limits, fence_mode=self._fence_mode, kind="world",
            faults=self.faults, watch=self._watch,
        )  # fmt: skip
        with self._machine.entered():
            hf = self._hf = await self._open.enter_async_context(opening)
        hf.queue_for = lambda _: self._queue
        approvers = Approvers(self._gate.policy) if self._gate is not None else None
        if self._has_commands:
            hf.commands = Commands(hf, model_of=lambda _: "scripted/model", approvers=approvers)
        tools = list(self._tools)
        background = Background(hf, self._redactor.text) if self._gate is not None else None
        if background is not None:
            tools = [*self._own_tools(hf, background), *tools]
        if self._spawns is not None:
            hf.spawn_limits = self._spawns
            tools.append(spawn_tool(hf))
        runner = Runner(
            hf,
            commands=hf.commands,
            metering=self._metering,
            caching=self._caching,
            client_for=self._client_for,
            agent_for=lambda _: self._agent,
            toolbox=Toolbox(tools),
            compaction=self._compaction,
            context_window=lambda _: self._context_window,
            prompt_files=PromptFiles(),
            gate=Gate(hf, self._gate, self._redactor) if self._gate is not None else None,
        )
        run_input = with_fresh_starts(
            hf, with_resets(hf, with_child_ends(with_heartbeat_responses(runner.run)), self._resets)
        )
        worker = Worker(hf, with_announcements(run_input), limits=self._limits)
        showing = Showing(hf, [Surface(Adapter(self.channel, editor=self.channel), self._streaming)])
        courier = Courier(hf, [self.channel], editors={self.channel.name: self.channel}, showing=showing)
        self._courier = courier
        self._loops = [asyncio.create_task(loop.run()) for loop in (worker, courier, showing)]
        if self._timers_for is not None:
            self.timers = self._timers_for(hf)
            self._loops.append(asyncio.create_task(self.timers.run()))
        if self._spawns is not None:
            self._loops.append(asyncio.create_task(Children(hf).run()))
        if self._watch is not None:
            self._loops.append(asyncio.create_task(Watchdog(hf).run()))
        self._open.push_async_callback(self._end_loops)
        if background is not None:
            self._loops.append(asyncio.create_task(background.run()))
            self._open.push_async_callback(background.close)
        self._open.push_async_callback(worker.stop, 0.0)
        self._open.push_async_callback(courier.stop, 0.0)
        self._open.push_async_callback(self._let_sends_end, courier)

    def _own_tools(self, hf: Holdfast, background: Background) -> list[Tool]:
        return [
            *built_in_tools(hf.clock),
            *file_tools(),
            exec_tool(ExecSettings(), hf.clock, background=background),
            message_tool(hf, channels={self.channel.name}),
            status_tool(hf, model_of=lambda _: self._agent.model),
            respond_tool(),
        ]

    async def _stop(self) -> None:
        stack, self._open = self._open, AsyncExitStack()
        await stack.aclose()
        self._hf = None

    async def _end_loops(self) -> None:
        if self.timers is not None:
            self.timers.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _let_sends_end(self, courier: Courier) -> None:
        """What has just arrived may be confirmed; a send that the test holds is cut off."""
        with self.hf.events.subscribe() as events:
            until = time.monotonic() + 1.0
            while courier.sending and not self.channel.holding and time.monotonic() < until:
                await events.next(timeout_s=LOOK_S)

    async def _until(self, look: Callable[[], Awaitable[T | None]], what: str, passing_s: float = 0.0) -> T:
        """What `look` finds, looking again whenever something happens in this process, and every 50 ms.

        While nothing happens, up to `passing_s` virtual seconds pass; real ones are counted only while none does.
        """
        with self.hf.events.subscribe() as events:
            until = time.monotonic() + self.patience_s
            happened = time.monotonic()
            while True:
                found = await look()
                if found is not None:
                    return found
                for loop in self._loops:
                    if loop.done():
                        loop.result()
                now = time.monotonic()
                if now > until:
                    raise AssertionError(f"waited {self.patience_s:g} s for {what}\n{await self._open_stories()}")
                may_pass = passing_s > 0 and not await self._is_working(still_s=now - happened)
                if await events.next(timeout_s=QUIET_S if may_pass else LOOK_S) is not None:
                    happened = time.monotonic()
                elif may_pass and not self._machine.is_at_work:
                    await self.pass_time(1)
                    passing_s -= 1
                    until = time.monotonic() + self.patience_s

    async def _is_working(self, *, still_s: float) -> bool:
        """Whether something is going on that needs no time to pass.

        Args:
            still_s: for so many real seconds nothing has happened.
        """
        open_ = [view for view in await self.hf.inputs(limit=INPUTS_MAX) if not view.settled]
        waiting, _, _ = await self.hf.store.queue()
        debounced = {one.id for one in waiting if one.quiet_in_s > 0}
        if any(view.state == "running" for view in open_):
            return True
        return still_s < STILL_S and any(view.id not in debounced for view in open_)

    async def _open_stories(self) -> str:
        inputs = [view.id for state in ("queued", "running") for view in await self.hf.inputs(state=state)]
        inputs += [one.input_id for one in await self.hf.deliveries() if one.state in ("pending", "started", "unknown")]
        stories = [await self.story(input_id) for input_id in dict.fromkeys(inputs)]
        return "\n".join(stories) or "(no input is open, no delivery on its way)"

    def _note_acknowledged(self, input_id: str) -> None:
        fd = os.open(self._acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{input_id}\n".encode())
        finally:
            os.close(fd)


def echo(request: ModelRequest) -> str:
    """The answer of a world whose model has no script: "re: " and the newest message."""
    return f"re: {text_of(request.messages[-1])}"


def _place_of(function: Callable[..., Any] | None) -> list[str] | None:
    """Where a child process finds a function: the file and the name on its top level."""
    if function is None:
        return None
    name, file = function.__qualname__, inspect.getsourcefile(function)
    if file is None or not name.isidentifier():
        raise HoldfastError(f"{name} must be a function on the top level of a module: another process has to find it")
    return [str(Path(file).resolve()), name]
