"""The world of a scenario: its processes, its one clock, its files, and the names the scenario gives to things.

The runner is the outside world only: it hands messages over, plays provider and platform, breaks files, kills
processes. What it remembers is who was told what; what became of it is asked from the product.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from holdfast.errors import HoldfastError
from holdfast.store.protocol import Store
from holdfast.testing import nursery
from holdfast.testing.incidents.node import Node, NodeSpec, start_node
from holdfast.testing.incidents.rows import Database, Databases
from holdfast.testing.incidents.scenario import ScenarioError, Step

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
LOOK_S = 0.005
QUIET_S = 0.12
"""Real seconds without success after which time may pass a little: everybody looks at the store once a second."""
PATIENCE_S = 10.0
"""Real seconds in which nobody does anything, after which nothing will come."""
POLL_TICKS = 3
UNKNOWN_TICKS = 45
"""Virtual seconds after which a send of unknown fate has been looked at again (longest request: 30 s)."""
AWAKE_S_MAX, SHORT_S = 21_600.0, 600.0
"""A longer time than the first passes asleep but for the second."""


class WorldError(Exception):
    """A step did not come about: the product did not get to where the scenario waits for it. The scenario fails."""


class Process(Protocol):
    """A gateway that takes orders, wherever it runs."""

    async def do(self, order: str, /, **args: Any) -> Any: ...

    async def stop(self, drain_s: float) -> int: ...

    async def kill(self, number: int) -> None: ...

    @property
    def alive(self) -> bool: ...


class Here:
    """A gateway in this process. It cannot be killed: scenarios that do get children."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.alive = True

    async def do(self, order: str, /, **args: Any) -> Any:
        try:
            return await self._node.do(order, args)
        except HoldfastError as failed:
            raise WorldError(f"{type(failed).__name__}: {failed}") from failed

    async def stop(self, drain_s: float) -> int:
        self.alive = False
        await self._node.stop(drain_s)
        return 0

    async def kill(self, number: int) -> None:
        raise ScenarioError(f"signal {number} for a process that is not one")


class Child:
    """A gateway in a real process of its own, driven over its pipes."""

    def __init__(self, process: nursery.Nursed) -> None:
        self._process = process
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spec: NodeSpec) -> Child:
        """Raises WorldError with what it said if it did not come up."""
        process = await nursery.start(
            "holdfast.testing.incidents.node", msgspec.json.encode(spec).decode(), takes_input=True
        )
        if not await process.stdout.readline():
            _, errors = await process.communicate()
            if process.returncode != -signal.SIGKILL:
                raise WorldError(f"process {spec.name} did not start: {errors.decode()[-2000:]}")
        child = cls(process)
        child._reading = asyncio.create_task(child._read())
        return child

    async def _read(self) -> None:
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            waiting = self._answers.pop(answer["id"], None)
            if waiting is None or waiting.done():
                continue
            if "error" in answer:
                waiting.set_exception(WorldError(answer["error"]))
            else:
                waiting.set_result(answer["value"])
        await self._process.wait()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(ProcessGoneError())

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def do(self, order: str, /, **args: Any) -> Any:
        if not self.alive or self._process.stdin is None:
            raise ProcessGoneError
        self._number = number = self._number + 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = json.dumps({"id": number, "do": order, "args": args})
        try:
            self._process.stdin.write(message.encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            self._answers.pop(number, None)
            raise ProcessGoneError from None
        return await answer

    async def stop(self, drain_s: float) -> int:
        if self.alive:
            with suppress(ProcessGoneError):  # its end is what was asked for; its exit code says how it ended
                await self.do("stop", drain_s=drain_s)
        return await self._ended()

    async def kill(self, number: int) -> None:
        if self.alive:
            self._process.send_signal(number)
        await self._ended()

    @property
    def stands_still(self) -> bool:
        """Whether it was stopped by a signal and not continued yet. Linux only."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def stand_still(self) -> None:
        """Stop it, as a whole."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue it."""
        self._process.send_signal(signal.SIGCONT)

    async def _ended(self) -> int:
        code = await asyncio.wait_for(self._process.wait(), PATIENCE_S)
        if self._reading is not None:
            await self._reading
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code


class ProcessGoneError(Exception):
    """The process died before it answered."""


@dataclass(slots=True)
class InputName:
    """What a scenario calls an input. `id` is None as long as nobody has acknowledged it."""

    name: str
    session: str
    lane: str
    text: str
    process: str
    handed_real_s: float
    id: str | None = None


@dataclass(slots=True)
class TurnName:
    """What a scenario calls a turn: the `nth` run of an input, counted from 0."""

    name: str
    input: str
    nth: int
    process: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a command has said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Rig:
    """What stands in for the usual parts when the runner itself is tested.

    Args:
        store: put around each store here.
        databases: where the state of each world is made; None: in its folder.
        patience_s: a planted mistake often shows as something that never comes; this long nobody may do anything.
    """

    store: Callable[[Store], Store] | None = None
    verbs: Mapping[str, Callable[..., Awaitable[None]]] = field(default_factory=dict)
    facts: Mapping[str, Callable[..., Awaitable[str | None]]] = field(default_factory=dict)
    patience_s: float = PATIENCE_S
    databases: Databases | None = None


@dataclass(slots=True)
class World:
    """See the top of the file. `paced_turns`, `paced_inputs`: those whose sends the scenario decides one by one."""

    folder: Path
    in_processes: bool
    paced: frozenset[str] = frozenset()
    text_max: int = 100_000
    kill_nth: int = 0
    models: tuple[str, ...] = ("primary", "second", "third")
    per_session_max: int = 200
    lock_protocol: str = "none"
    acquire_timeout_ms: int | None = None
    heartbeat_isolated: bool = False
    heartbeat_model: str | None = None
    job_limit_s: int = 3600
    passed_s: float = 0.0
    processes: dict[str, Process] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, InputName] = field(default_factory=dict)
    turns: dict[str, TurnName] = field(default_factory=dict)
    saved: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    links_hang: bool = False
    died_at_point: bool = False
    refused: set[str] = field(default_factory=set)
    preordered: set[str] = field(default_factory=set)
    rig: Rig = field(default_factory=Rig)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    ahead: tuple[Step, ...] = ()
    resets: list[InputName] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)  # inputs by their number in the channel's stream
    position_refuses: str | None = None  # the disk of the channel's position, at its next write
    child_keys: dict[str, str] = field(default_factory=dict)
    child_ended: tuple[int, float] | None = None  # the last one that did: virtual milliseconds, real seconds
    down_until_s: float | None = None  # no gateway before that: it is restarted for a new configuration
    standing: dict[str, Child] = field(default_factory=dict)  # processes that stand still in the middle of a step
    still_s: float = 0.0  # for how long they will
    holds_locks: bool = False  # somebody keeps the write lock, which is waited for on the real clock
    by_people: bool = False  # gateways are started, and commands typed, as people do it (`commands.py`)
    port: int | None = None
    commands: dict[str, Said] = field(default_factory=dict)
    repaired: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    untouched: dict[str, dict[str, bytes]] = field(default_factory=dict)
    compactions: dict[str, InputName] = field(default_factory=dict)
    context_window: int = 128_000
    swaps_guards: bool = False  # the first turn that asks its model finds its fence record swapped
    deaf_tool: bool = False  # tools never return, and hear nothing
    database: Database | None = None  # the state, where it is no folder
    tool_limit_s: float | None = None  # of a world in which somebody looks for turns that stand still

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def state_of(self, name: str) -> str:
        """The state that a process is started on: a folder or a URL."""
        if self.database is not None:
            return self.database.url
        return str(self.folder / self.homes.get(name, "state"))

    def key(self, session: str) -> str:
        """The session key of a scenario's session; of a child's, the one that the runtime has given it."""
        return self.child_keys.get(session, f"agent:main:{session}")

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, name: str, *, apart: bool = False) -> None:
        """Start a gateway. The default one is called G. `apart`: in a process of its own in any case."""
        now = START + timedelta(seconds=self.passed_s)
        spec = NodeSpec(
            name, str(self.folder), self.state_of(name), now.isoformat(), models=self.models, text_max=self.text_max,
            per_session_max=self.per_session_max, lock_protocol=self.lock_protocol, kill_nth=self.kill_nth,
            context_window=self.context_window, acquire_timeout_ms=self.acquire_timeout_ms,
            tool_limit_s=self.tool_limit_s, deaf_tool=self.deaf_tool,
        )  # fmt: skip
        self.processes[name] = (
            await Child.start(spec) if self.in_processes or apart else Here(await start_node(spec, self.rig.store))
        )
        ids = [one.id for one in self.inputs.values() if one.id is not None and one.name in self.paced]
        if ids:
            await self.processes[name].do("pace", input_ids=ids)

    async def stop(self, name: str, drain_s: float = 0.0) -> None:
        """An orderly end."""
        process = self.processes.pop(name, None)
        if process is not None:
            self.exit_codes[name] = await process.stop(drain_s)

    async def supervise(self) -> None:
        """Start those again that have ended by themselves, since their ledger failed."""
        for name, process in list(self.processes.items()):
            if process.alive and await process.do("has_stopped"):
                await self.stop(name)
                await self.start(name)

    async def close(self) -> None:
        """End everything, whatever the scenario has left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.processes.update(self.standing)
        for name in list(self.processes):
            process = self.processes.pop(name)
            if isinstance(process, Child):
                await process.kill(signal.SIGKILL)
            else:
                await process.stop(0.0)

    async def pace(self, input_id: str) -> None:
        """Sends for this input wait for orders, in whatever process they are."""
        for process in self.processes.values():
            if process.alive:
                await process.do("pace", input_ids=[input_id])

    def process(self, name: str | None = None) -> Process:
        """A process by name; None: any that lives."""
        for known, process in self.processes.items():
            if name in (None, known) and process.alive:
                return process
        raise WorldError(f"no process {name or 'at all'} is alive")

    def home(self, args: dict[str, Any]) -> str | None:
        """The process a step names, or None."""
        name = args.get("process") or args.get("by")
        return name if name in self.processes else None

    async def ledger(self, order: str) -> list[dict[str, Any]]:
        """A public view of the ledger, from any process that lives, or from a fresh one."""
        if not any(process.alive for process in self.processes.values()):
            await self.start("observer")
        return await self.process().do(order)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in all processes together, in steps short enough for their loops to look in between. Most of a
        day and more passes as on a machine that sleeps: the wall clock goes on and nobody looks.
        """
        if seconds > AWAKE_S_MAX:
            await self._sleep(seconds - SHORT_S)
            seconds = SHORT_S
        left = seconds
        while left > 0:
            step = min(left, 1.0 if seconds <= UNKNOWN_TICKS else max(1.0, seconds / 60))
            await asyncio.gather(
                *(one.do("advance", seconds=step) for one in self.processes.values() if one.alive),
                return_exceptions=False,
            )
            self.passed_s += step
            left -= step
            await asyncio.sleep(0.003)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.gather(*(one.do("suspend", seconds=seconds) for one in self.processes.values() if one.alive))
        self.passed_s += seconds

    async def until(self, look: Callable[[], Awaitable[T | None]], what: str, *, ticks: int = POLL_TICKS) -> T:
        """What `look` finds. While it finds nothing and nobody does anything, up to `ticks` virtual seconds pass; then
        it is a WorldError. A busy machine makes everybody slow, and no virtual second is to pass for that.
        """
        heard, until, quiet_since = -1, 0.0, 0.0
        while True:
            found = await look()
            if found is not None and found is not False:
                return found
            now = time.monotonic()
            if heard != (heard := self.journal_bytes):
                until, quiet_since = now + self.rig.patience_s, now
            if now > until:
                raise WorldError(f"waited for {what}")
            if now - quiet_since > QUIET_S and ticks > 0:
                await self.pass_time(1.0)
                ticks -= 1
                quiet_since = time.monotonic() - QUIET_S * 0.8
            await asyncio.sleep(LOOK_S)

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def input_id(self, name: str) -> str:
        known = self.inputs.get(name)
        if known is None:
            raise ScenarioError(f"no input is called {name!r}")
        if known.id is None:
            raise WorldError(f"input {name} was never acknowledged")
        return known.id

    def turn_name(self, name: str) -> TurnName:
        known = self.turns.get(name)
        if known is None:
            raise ScenarioError(f"no turn is called {name!r}")
        return known

    async def runs(self, input_name: str) -> list[dict[str, Any]]:
        """The turns of an input in the ledger, oldest first."""
        input_id = self.input_id(input_name)
        rows = [row for row in await self.ledger("turns") if row["input_id"] == input_id]
        return sorted(rows, key=lambda row: (row["started_at_ms"], row["epoch"]))

    async def turn(self, name: str) -> dict[str, Any] | None:
        """What the ledger shows of a turn, None if it has not begun."""
        known = self.turn_name(name)
        rows = await self.runs(known.input)
        return rows[known.nth] if known.nth < len(rows) else None

    async def turn_begun(self, name: str) -> dict[str, Any]:
        """Wait for a turn to begin. Turns before it of which the scenario says nothing come to their end."""

        async def look() -> dict[str, Any] | None:
            row = await self.turn(name)
            if row is None:
                await self.help_others()
            return row

        return await self.until(look, f"the beginning of {name}")

    async def help_others(self) -> None:
        """Let the requests of turns that nobody has named end by themselves. Which are open is asked before which are
        named: one that begins meanwhile is not taken for another.
        """
        alive = [one for one in self.processes.values() if one.alive]
        asking = [(one, await one.do("asking")) for one in alive]
        rows = [await self.turn(one) for one in self.turns]
        named = {one["id"] for one in rows if one is not None}
        for process, turns in asking:
            for turn in set(turns) - named:
                await process.do("stream", turn=turn, order="end")

    async def owner(self, row: dict[str, Any]) -> Process:
        """The process in which a turn runs: the one that has its request or tool."""
        alive = [one for one in self.processes.values() if one.alive]
        for one in alive:
            if await one.do("asks", turn=row["id"]):
                return one
        if not alive:
            raise WorldError("no process is alive")
        return alive[0]

    async def answer(self, row: dict[str, Any], text: str) -> None:
        """Wait until a turn asks its model, and let that answer, with a text."""

        async def look() -> bool:
            for one in self.processes.values():
                if one.alive and await one.do("stream", turn=row["id"], order="end", value=text):
                    return True
            return False

        await self.until(look, f"a model request of turn {row['id']}")

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def position(self) -> int:
        """How far the channel has confirmed its stream to the platform, as its file says."""
        path = self.folder / "channel-position"
        return int(path.read_text()) if path.exists() else 0

    def confirm(self, update: int) -> None:
        """The channel moves its position on, unless the disk refuses: then the platform hands it over again."""
        if self.position_refuses is not None:
            self.position_refuses = None
            return
        (self.folder / "channel-position").write_text(str(update))

    @property
    def journal_bytes(self) -> int:
        """How much has been written down so far: it grows while anybody does anything."""
        path = self.folder / "journal.jsonl"
        return path.stat().st_size if path.exists() else 0

    def note(self, process: str, what: str) -> None:
        """Write down what became of a process that cannot say it itself."""
        with (self.folder / "journal.jsonl").open("ab") as file:
            file.write(json.dumps({"process": process, "what": what}).encode() + b"\n")

    def journal(self, what: str | None = None) -> list[dict[str, Any]]:
        """What passed over provider, tools and platform, and what the processes said, in order."""
        path = self.folder / "journal.jsonl"
        if not path.exists():
            return []
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        return rows if what is None else [row for row in rows if row["what"] == what]

    async def transcript(self, session: str) -> Path:
        """The file of a session; of rows, one with the same bytes."""
        key = self.key(session)
        for row in await self.ledger("sessions"):
            if row["key"] == key and self.database is not None:
                return self.database.show(key, row["transcript"], self.folder)
            if row["key"] == key and row["path"]:
                return Path(row["path"])
        raise WorldError(f"session {session} has no transcript")

    async def edit(self, session: str, how: Callable[[Path], T]) -> T:
        """Let somebody else do something to a transcript, past all of ours."""
        path = await self.transcript(session)
        if self.database is None:
            return how(path)
        rows = [row for row in await self.ledger("sessions") if row["key"] == self.key(session)]
        return self.database.edit(rows[0]["transcript"], path, how)
