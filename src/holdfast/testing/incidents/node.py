"""One gateway process of a scenario: real store, worker, runner and courier; a paced model, tool and platform.

`Node.do` carries out one order, JSON in and JSON out, so that the same code runs in the process of the runner and, as
started by the nursery, in one of its own that can be killed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from holdfast.context import summary
from holdfast.errors import HoldfastError
from holdfast.inbound.announcement import with_announcements
from holdfast.inbound.child import Refused
from holdfast.inbound.children import Children, with_child_ends
from holdfast.inbound.event import InboundEvent, LaneFull, Route
from holdfast.inbound.timers import Timers
from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ToolSpec
from holdfast.opening import open as open_state
from holdfast.outbox.delivery import Courier
from holdfast.recovery.classify import UNCLEAN_BOOTS_MAX
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.session import entries as made
from holdfast.session.entries import Entry
from holdfast.session.lock_file import read_lock
from holdfast.session.ownership import Busy
from holdfast.store.embedded.faults import Faults
from holdfast.store.embedded.record_file import RecordFile
from holdfast.store.protocol import Store
from holdfast.store.views import InputView
from holdfast.testing.clock import VirtualClock
from holdfast.testing.faults import AtPoint, kill_at, stop_at
from holdfast.testing.incidents.paced import Ask, Journal, PacedChannel, PacedModel, PacedTool
from holdfast.testing.incidents.rows import Database
from holdfast.testing.incidents.timer_orders import TimerOrders
from holdfast.testing.openclaw import taken_for_openclaw
from holdfast.tool.message import message_tool
from holdfast.turn.commands import Commands
from holdfast.turn.runner import AgentSettings, Runner, TurnLimits
from holdfast.turn.tools import Tool, Toolbox
from holdfast.turn.turn import Turn

ROWS_MAX = 100_000
PERMITTED = WatchSettings(live_owners="ask")
"""Of worlds in which somebody looks for turns that stand still: see `stuck.py`."""
WORK = ToolSpec("work", "Does some work.", {"type": "object", "properties": {}})


class NodeSpec(msgspec.Struct, frozen=True):
    """What a process is started with. `now`: the world's time. `kill_nth`: dies at that passing of any point.
    `tool_limit_s`: what a tool call may take, where turns that stand still may be asked to end; None: no such world.
    `deaf_tool`: tools do not hear that they are stopped.
    """

    name: str
    folder: str
    state: str
    now: str
    models: tuple[str, ...] = ("primary", "second", "third")
    text_max: int = 100_000
    per_session_max: int = 200
    lock_protocol: str = "none"
    kill_nth: int = 0
    context_window: int = 128_000
    acquire_timeout_ms: int | None = None
    tool_limit_s: float | None = None
    deaf_tool: bool = False


class Switch:
    """Faults that can be armed while the store runs."""

    def __init__(self) -> None:
        self._faults: list[Faults] = []

    def arm(self, fault: Faults) -> None:
        self._faults.append(fault)

    def __call__(self, point: Any) -> None:
        for fault in self._faults:
            fault(point)


class Node(TimerOrders):
    """The parts of one gateway, and the orders it understands: every method without a leading underscore."""

    def __init__(self, spec: NodeSpec, around_store: Callable[[Store], Store] | None = None) -> None:
        self._around_store = around_store
        self._spec = spec
        self._clock = VirtualClock(datetime.fromisoformat(spec.now))
        folder = Path(spec.folder)
        self._journal = Journal(folder / "journal.jsonl", spec.name, self._clock)
        self._model = PacedModel(self._journal)
        self._tool = PacedTool(self._journal, self._clock, spec.tool_limit_s, deaf=spec.deaf_tool)
        self._channel = PacedChannel(self._journal, self._input_of, spec.text_max)
        self._switch = Switch()
        if spec.kill_nth:
            self._switch.arm(kill_at(nth=spec.kill_nth))
        self._window = spec.context_window
        self._prepared = asyncio.Event()
        self._prepared.set()
        self._runner: Runner | None = None
        self._stack = AsyncExitStack()
        self._handle: Holdfast | None = None
        self._worker: Worker | None = None
        self._courier: Courier | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._kept: Turn | None = None
        self._watchdog: Watchdog | None = None

    @property
    def _hf(self) -> Holdfast:
        if self._handle is None:
            raise HoldfastError(f"process {self._spec.name} is not open")
        return self._handle

    async def _open(self) -> None:
        log = logging.getLogger("holdfast")
        handler = JournalHandler(self._journal)
        log.addHandler(handler)
        self._stack.callback(log.removeHandler, handler)
        level, propagates = log.level, log.propagate
        log.setLevel(logging.INFO)
        log.propagate = False
        self._stack.callback(setattr, log, "propagate", propagates)
        self._stack.callback(log.setLevel, level)
        widths = {"main": 8, "subagent": 8, "chat": 8, "channel": 8, "web": 8, "api": 8, "dm": 8, "group": 8, "cli": 8}
        limits = LaneLimits(widths=widths, per_session_max=self._spec.per_session_max)
        self._handle = await self._stack.enter_async_context(
            open_state(
                self._spec.state,
                clock=self._clock,
                limits=limits,
                kind="gateway",
                faults=self._switch,
                lock_protocol=self._spec.lock_protocol,
                processes=taken_for_openclaw,
                acquire_timeout_ms=self._spec.acquire_timeout_ms,
                watch=None if self._spec.tool_limit_s is None else PERMITTED,
            )
        )
        if self._around_store is not None:
            self._handle.store = self._around_store(self._handle.store)
        models = [f"{name}/model" for name in self._spec.models]
        self._handle.commands = Commands(self._handle, model_of=lambda _: models[0])
        limit_s = self._spec.tool_limit_s
        self._runner = Runner(
            self._handle,
            client_for=lambda _: self._model,
            commands=self._handle.commands,
            agent_for=lambda _: AgentSettings(model=models[0], fallbacks=tuple(models[1:])),
            toolbox=Toolbox([Tool(WORK, self._tool.run)]),
            context_window=lambda _: self._window,
            limits=None if limit_s is None else TurnLimits(tool_seconds_max=limit_s),
        )
        self._watchdog = Watchdog(self._handle)
        self._worker = Worker(self._handle, with_announcements(with_child_ends(self._run_input)), limits=limits)
        self._courier = Courier(self._handle, [self._channel])
        self._loops = [asyncio.create_task(one) for one in (self._worker.run(), self._courier.run(), self._watch())]
        self._loops += [asyncio.create_task(one.run()) for one in (Timers(self._handle), Children(self._handle))]
        await asyncio.sleep(0)

    async def stop(self, drain_s: float = 0.0) -> None:
        """End in order: running turns and sends get no longer than the clock stands still; inputs go back in line."""
        if self._handle is None:
            return
        assert self._worker is not None
        assert self._courier is not None
        self._handle.drain()
        if self._spec.deaf_tool:
            self._tool.set_free(True)
        await self._worker.stop(min(drain_s, 0.2))
        await self._courier.stop(0.0)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._handle = None
        await self._stack.aclose()

    async def _watch(self) -> None:
        with self._hf.events.subscribe() as events:
            async for event in events:
                self._journal.write(
                    what="event", kind=event.kind, session=event.session, input=event.input_id, turn=event.turn_id,
                    data=event.data,
                )  # fmt: skip

    # ── inputs and turns ─────────────────────────────────────────────────────────────────────────────────────────────

    async def accept(self, session: str, lane: str, text: str, key: str, paced: bool) -> dict[str, Any]:
        """One input through the one door."""
        event = InboundEvent(
            session, {"content": text}, source="scenario", key=key, lane=lane, route=Route(self._channel.name, session)
        )
        try:
            admission = await self._hf.accept(event)
        except HoldfastError as refused:
            return {"refused": type(refused).__name__, "text": str(refused)}
        if isinstance(admission, LaneFull):
            return {"refused": "LaneFull", "text": f"{admission.waiting} of {admission.limit}"}
        if paced:
            self._channel.paced.add(admission.input_id)
        self._journal.write(what="acknowledged", input=admission.input_id, key=key)
        return {"id": admission.input_id, "kind": type(admission).__name__}

    async def ask_for_compaction(self, session: str, by: str, key: str) -> dict[str, Any]:
        """Have a conversation shortened if there is little room in it."""
        admission = await ask_for_compaction(self._hf, session, by=by, why="threshold", key=key)
        if isinstance(admission, LaneFull):
            raise HoldfastError(f"lane {admission.lane} is full")
        return {"id": admission.input_id}

    def summarising(self) -> list[str]:
        """The turns that have a request for a summary open at the provider."""
        return [ask.turn for ask in self._model.open if ask.turn is not None and ask.request.system == summary.SYSTEM]

    def set_window(self, tokens: int) -> None:
        """How many tokens every model takes from now on."""
        self._window = tokens

    async def mark_read(self, session: str, by: str) -> bool:
        return await self._hf.session(session).mark_read(by=by)

    def unlist(self, session: str) -> None:
        """What nothing of ours does: a session leaves the list, and its transcript stays."""
        if "://" in self._spec.state:
            Database(self._spec.state).sql("delete from sessions where key=%s", session)
            return
        with closing(sqlite3.connect(Path(self._spec.state) / "ledger.sqlite3")) as ledger, ledger:
            ledger.execute("delete from sessions where key=?", (session,))

    def pace(self, input_ids: list[str]) -> None:
        """Deliveries of these wait for orders."""
        self._channel.paced.update(input_ids)

    async def cancel(self, target: str, by: str) -> str:
        return await self._hf.cancel(target, by=by)

    async def append_in_turn(self, turn: str, kind: str, text: str) -> str | None:
        """Machinery acting for the owner writes a record of its own, in the middle of the turn."""
        live = next((one for one in self._hf.live_turns() if one.id == turn), None)
        if live is None:
            return None
        if kind == "assistant":
            return await live.append(made.assistant(text, model="primary/model"), final=False)
        return await live.append(made.custom(f"scenario:{kind}", {"text": text}))

    async def metadata(self, session: str, kind: str, text: str) -> str:
        """A record that is not conversation, written with the write lock alone."""
        return await self._hf.session(session).append_metadata(metadata_entry(kind, text))

    async def hold_lock(self, session: str, seconds: float) -> None:
        """Write a record on a disk that takes so many real seconds for it, and the write lock with it."""

        def be_slow() -> None:
            self._journal.write(what="holding", session=session)
            time.sleep(seconds)

        self._switch.arm(AtPoint("append.after_intent", act=be_slow))
        await self.metadata(session, "custom", "slow")

    async def transcript_path(self, session: str) -> str | None:
        return await self._hf.session(session).path()

    async def keep(self, session: str) -> str:
        """Own a session for a turn of a program's own, and leave it open. The turn."""
        turn = await self._hf.claim(session, wait_s=30.0)
        if isinstance(turn, Busy):
            raise HoldfastError(f"session {session} is not free: {turn.holder}")
        self._kept = turn
        return turn.id

    async def let_go(self) -> None:
        """End the turn that was kept."""
        if self._kept is not None:
            await self._hf.close_turn(self._kept, None)
            self._kept = None

    async def reap(self, session: str, wait_s: float) -> list[str]:
        """Recover a session as `holdfast recover --wait` does. The turns that were closed."""
        report = await self._hf.recover(session, wait_s=wait_s)
        return [one.action.owner.turn for one in report.done if one.outcome == "effective"]

    def turns_in_memory(self) -> list[str]:
        """The turns that this process takes for its own."""
        return [one.id for one in self._hf.live_turns()]

    async def spawn(self, session: str, task: str) -> dict[str, Any]:
        """The turn that a session is in gives a task to a sub-agent; without one, a program does in its name."""
        turn = next((one for one in self._hf.live_turns() if one.session == session), None)
        if turn is not None:
            made = await turn.spawn(task)
        else:
            made = await self._hf.session(session).spawn(task, route=Route(self._channel.name, session))
        if isinstance(made, Refused):
            raise HoldfastError(f"no sub-agent: {made.text}")
        return asdict(made)

    async def children(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in await self._hf.children(limit=ROWS_MAX)]

    async def make_session(self, session: str) -> str | None:
        """The transcript of a session, made if needed, without any conversation."""
        await self._hf.session(session).append_metadata(made.custom("scenario:made"))
        return await self._hf.session(session).path()

    async def make_sessions(self, count: int) -> None:
        """So many sessions are known. They have no files yet: an index is long by its entries."""
        await asyncio.gather(*(self._hf.store.transcript_of(f"agent:main:old:{number}") for number in range(count)))

    async def read(self, session: str) -> int:
        """Open and read a session as a history view does."""
        return len(await self._hf.session(session).entries())

    # ── what the ledger shows ────────────────────────────────────────────────────────────────────────────────────────

    async def inputs(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in await self._hf.inputs(limit=ROWS_MAX)]

    async def turns(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in await self._hf.turns(limit=ROWS_MAX)]

    async def deliveries(self) -> list[dict[str, Any]]:
        announced = await self.announcements()
        rows = [asdict(one) for one in await self._hf.deliveries(limit=ROWS_MAX)]
        return [{**row, "input_id": announced.get(row["input_id"], row["input_id"])} for row in rows]

    async def sessions(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in await self._hf.sessions(limit=ROWS_MAX)]

    async def pins(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in (await self._hf.models()).pins]

    async def cooldowns(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in (await self._hf.models()).cooldowns]

    async def pin_model(self, session: str, model: str, by: str) -> None:
        await self._hf.pin_model(session, model, by=by)

    def break_model(self, provider: str, value: dict[str, Any]) -> None:
        """From now on this provider fails at once, until the process ends."""
        self._model.broken[provider] = value

    async def _input_of(self, delivery_id: str) -> str | None:
        root = delivery_id.split(".")[0]
        of = next((one.input_id for one in await self._hf.deliveries(limit=ROWS_MAX) if one.id == root), None)
        return (await self.announcements()).get(of or "", of)

    # ── the model, the tools, the platform ───────────────────────────────────────────────────────────────────────────

    def asks(self, turn: str) -> int:
        """How many requests of a turn are open at the provider now."""
        return len(self._asks_of(turn))

    def _asks_of(self, turn: str) -> list[Ask]:
        return [ask for ask in self._model.open if ask.turn == turn]

    def stream(self, turn: str, order: str, value: Any = None) -> bool:
        """Let the provider send something on the open request of a turn. False: there is none."""
        asks = self._asks_of(turn)
        if asks:
            asks[-1].orders.put_nowait((order, value))
        return bool(asks)

    def asking(self) -> list[str]:
        """The turns that have a request open at the provider."""
        return [ask.turn for ask in self._model.open if ask.turn is not None]

    def announced(self, turn: str) -> list[str]:
        """Tool calls that the open answer of a turn has announced so far."""
        return [call for ask in self._asks_of(turn) for call in ask.calls]

    def tool_runs(self, call: str) -> bool:
        return call in self._tool.running

    def end_tool(self, call: str, ok: bool) -> bool:
        ended = self._tool.running.get(call)
        if ended is None or ended.done():
            return False
        ended.set_result(ok)
        return True

    def tool_says(self, call: str) -> bool:
        """A running tool has a line to say. False: it does not run here."""
        asked = self._tool.calls.get(call)
        if asked is not None:
            asked.say("still at it")
        return asked is not None

    async def tool_sends(self, turn: str, text: str) -> bool:
        """A running tool of a turn sends a message to where the turn's answer goes; of a turn that answers nobody on a
        channel, a job's, to the conversation of its session. False: none runs here.
        """
        asked = next((one for one in self._tool.calls.values() if one.turn == turn), None)
        if asked is not None:
            message = message_tool(self._hf, channels=None)
            to = {} if asked.route is not None else {"to": f"test:{asked.session}"}
            await message.run(replace(asked, name=message.spec.name, arguments={"text": text, **to}))
        return asked is not None

    def tool_waits_for_person(self, call: str) -> bool:
        """A running tool asks a person first. False: it does not run here."""
        asked = self._tool.calls.get(call)
        if asked is not None:
            asked.wait_for_person("an approval")
        return asked is not None

    async def look_for_stuck(self) -> list[str]:
        """The watchdog looks once. Turns that have been asked to end and of which nobody knows yet what came of it."""
        assert self._watchdog is not None
        await self._watchdog.look()
        return [one.turn for one in await self._hf.store.marks() if one.asked is not None and one.outcome is None]

    def sending(self, input_id: str) -> bool:
        """Whether a send for this input waits for an order."""
        return input_id in self._channel.begun

    def order_send(self, input_id: str, what: str) -> None:
        self._channel.order(input_id, what)

    def drop_links(self) -> None:
        self._channel.drop_links()

    def free(self, on: bool) -> None:
        """The rest of the world answers, works and takes by itself, or waits for orders again."""
        self._model.set_free(on)
        self._tool.set_free(on)
        self._channel.set_free(on)

    # ── time and mishaps ─────────────────────────────────────────────────────────────────────────────────────────────

    async def advance(self, seconds: float) -> None:
        await self._clock.advance(seconds)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps."""
        self._clock.set_wall_clock(seconds)

    def kill_at(self, points: list[str]) -> None:
        """From now on the process dies at these points of the store."""
        self._switch.arm(kill_at(*self._points(points)))  # pyright: ignore[reportArgumentType]  # names come as JSON

    def stop_at(self, points: list[str]) -> None:
        """The whole process stands still at the next of these points, until somebody continues it."""
        self._switch.arm(stop_at(*self._points(points)))  # pyright: ignore[reportArgumentType]

    def _points(self, points: list[str]) -> list[str]:
        """Where an append is a transaction, all points within it are the moment before its commit."""
        if "://" not in self._spec.state:
            return points
        return ["ledger.before_commit" if one.startswith("append.") else one for one in points]

    def fail_at(self, points: list[str], code: str, lasts_s: float, partly_into: str | None) -> None:
        """The disk refuses at these points: once, or for so many virtual seconds.

        Args:
            partly_into: a transcript's path: the first bytes of what was to be written there reach it all the same.
        """
        number, until_mono = getattr(errno, code), self._clock.mono() + lasts_s

        def refuse() -> None:
            if lasts_s and self._clock.mono() >= until_mono:
                return
            if partly_into is not None:
                _write_first_bytes(Path(self._spec.state), Path(partly_into))
            if "ledger.before_commit" in points:
                raise sqlite3.OperationalError(os.strerror(number))
            raise OSError(number, os.strerror(number))

        self._switch.arm(AtPoint(*points, act=refuse, times=None if lasts_s else 1))  # pyright: ignore[reportArgumentType]

    def refuse_removal(self, path: str) -> None:
        """From now on the disk refuses to remove this lock file, as soon as it is this process that wants to."""
        lock_file = Path(path)

        def refuse() -> None:
            if lock_file.exists() and read_lock(lock_file.read_bytes()).pid == os.getpid():
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        self._switch.arm(AtPoint("lock_file.before_release", act=refuse, times=None))

    async def boot(self) -> str | None:
        """Begin as a gateway does; why work is held back, if it is."""
        hold = await self._hf.store.begin_boot(UNCLEAN_BOOTS_MAX)
        return None if hold is None else hold.reason

    def has_stopped(self) -> bool:
        """Whether the ledger has failed, which ends a gateway's process."""
        return self._hf.store.stopped

    def prepare_slowly(self) -> None:
        """From now on what a gateway does before a turn's first step takes until `go_on`."""
        self._prepared.clear()

    def go_on(self) -> None:
        self._prepared.set()

    async def _run_input(self, turn: Turn, view: InputView) -> None:
        """What a gateway's plugins do before a turn, then the turn."""
        await self._prepared.wait()
        assert self._runner is not None
        await self._runner.run(turn, view)

    async def do(self, order: str, args: dict[str, Any]) -> Any:
        """Carry out one order by name."""
        done = getattr(self, order)(**args)
        return await done if asyncio.iscoroutine(done) else done


def _write_first_bytes(state: Path, transcript: Path) -> None:
    """What a short write leaves behind. The store has said in a fence record what it is about to write, and where."""
    for path in (state / "fence").iterdir():
        if path.suffix:
            continue
        record = RecordFile(path)
        try:
            record.read()
            intent = record.read_intent()
        finally:
            record.close()
        if intent is not None and intent.offset == transcript.stat().st_size:
            with transcript.open("ab") as file:
                file.write(intent.head[:20])
            return
    raise HoldfastError(f"nobody is about to write to {transcript}")


def metadata_entry(kind: str, text: str) -> Entry:
    """A record of a kind that is not conversation."""
    if kind == "model_change":
        return made.model_change("second/model")
    if kind == "thinking_level_change":
        return made.thinking_level_change("high")
    if kind == "session_info":
        return made.session_info(text)
    if kind == "announce":
        return made.mirror(text)
    return made.custom(f"scenario:{kind}", {"text": text})


class JournalHandler(logging.Handler):
    """Keeps the log of a process in the journal of the world."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.write(what="log", level=record.levelname, text=record.getMessage())


async def start_node(spec: NodeSpec, around_store: Callable[[Store], Store] | None = None) -> Node:
    """A node that is open and at work. `around_store`: put around its store, to test the runner."""
    node = Node(spec, around_store)
    await node._open()  # pyright: ignore[reportPrivateUsage]  # its orders are its public methods
    return node


# ── in a process of its own ──────────────────────────────────────────────────────────────────────────────────────────


def say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message, default=str).encode() + b"\n")


async def serve(spec: NodeSpec) -> None:
    """Take orders from standard input, one JSON object per line, until it ends or `stop` was ordered."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    node = await start_node(spec)
    say({"ready": True, "real_s": time.monotonic()})
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        asked = json.loads(line)
        task = asyncio.create_task(_answer_order(node, asked))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if asked["do"] == "stop":
            await task
            return
    await node.stop()


async def _answer_order(node: Node, asked: dict[str, Any]) -> None:
    try:
        say({"id": asked["id"], "value": await node.do(asked["do"], asked["args"])})
    except Exception as failed:  # noqa: BLE001  # the edge of the process: whoever ordered hears of it
        say({"id": asked["id"], "error": f"{type(failed).__name__}: {failed}"})


def main(spec: str) -> None:
    """In a process of the nursery."""
    asyncio.run(serve(msgspec.json.decode(spec, type=NodeSpec)))
