"""The loop: a fault at the first disk call, at the second, and so on, until a run ends without one.

Each run has two processes of its own: one prepares a state and dies, one acts and meets the fault. A third, which goes
on from run to run, opens what is left, finishes what was accepted and checks. All are forks of this one, which has
imported everything and opened nothing.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import holdfast
from holdfast.errors import HoldfastError
from holdfast.inbound.announcement import is_announcement
from holdfast.inbound.children import Children
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.recovery import upkeep
from holdfast.recovery.watchdog import Watchdog
from holdfast.store.embedded.machine import Machine, stand_on
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.views import InputView
from holdfast.testing.disk import checking, shim
from holdfast.testing.disk.workloads import KEY, WORKLOADS, Act, Work, nothing, recover

LOADED = EmbeddedStore  # `holdfast.open` imports it when called: here that is once, instead of in each child
CHILD_S_MAX = 900
"""For one that hangs, not for one that is slow: a machine with a load of fifty may stand still for minutes."""
FAILURES_MAX = 5
"""After so many in one loop there is nothing more to be learnt."""
ENDS = ("answered", "steered", "merged", "superseded")
ERRORS: dict[str, int] = {
    "EIO": shim.WRITES | shim.LOGS | shim.SYNCS | shim.NAMES | shim.SIZES | shim.OPENS,
    "ENOSPC": shim.WRITES | shim.LOGS | shim.NAMES | shim.SIZES,
    "EMFILE": shim.OPENS | shim.NAMES,
    "EINTR": shim.WRITES | shim.LOGS | shim.SYNCS | shim.NAMES | shim.SIZES | shim.OPENS,
}
"""What a disk, or a limit, may say, and to which calls."""
Told = list[list[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to hinder the n-th call of some kinds."""

    name: str
    how: shim.How
    kinds: int
    error: int = 0

    @property
    def kills(self) -> bool:
        return self.how in ("before", "half")


KILLS = (Fault("kill", "before", shim.CHANGES), Fault("kill in the middle", "half", shim.WRITES))
"""A kill after a call leaves what a kill before the next one leaves. Half a page in SQLite's log is its own affair (a
frame counts only with its checksum), and is tried in the long version.
"""
KILL_IN_LOG = Fault("kill in the middle of the log", "half", shim.LOGS)
ANY_FAIL = Fault("failure", "fail", shim.CHANGES | shim.OPENS)
"""Each call once, with an error that such a call may give: another one at each."""
FAILS = (
    *(Fault(name, "fail", kinds, getattr(errno, name)) for name, kinds in ERRORS.items()),
    Fault("short write", "short", shim.WRITES | shim.LOGS),
)


@dataclass(slots=True)
class Found:
    """What a loop has tried, and what went wrong."""

    runs: int = 0
    broken: list[str] = field(default_factory=list)


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def forked(act: Callable[[Callable[[str, str, str], None]], object]) -> tuple[int, Told, str]:
    """Run `act` in a child, with a way to tell what was promised. Returns exit code, what it told, its complaints."""
    readable, writable = os.pipe()
    complaints_in, complaints_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(readable)
            os.close(complaints_in)
            os.dup2(complaints_out, 2)
            signal.alarm(CHILD_S_MAX)
            act(lambda *words: void(os.write(writable, json.dumps(words).encode() + b"\n")))
            code = 0
        except BaseException:  # noqa: BLE001  # the edge of the process: told by its exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writable)
    os.close(complaints_out)
    with os.fdopen(readable) as pipe:
        told = [json.loads(line) for line in pipe if line.endswith("\n")]
    with os.fdopen(complaints_in, errors="replace") as pipe:
        complaints = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told, complaints[-3000:]


def void(_: object) -> None:
    """For a call whose result nobody wants."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run happens: the state, and beside it the receiving side of the channel."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def platform(self) -> Path:
        return self.root / "platform.jsonl"

    def work(self, hf: Holdfast, tell: Callable[[str, str, str], None]) -> Work:
        return Work(hf, self.state, self.platform, tell, shim.pause)


def prepare(place: Place, act: Act, tell: Callable[[str, str, str], None]) -> None:
    """A state as a process left it that died at the end of its work."""

    async def run() -> None:
        async with holdfast.open(place.state) as hf:
            await act(place.work(hf, tell))
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())


def meet(place: Place, act: Act, fault: Fault, nth: int, tell: Callable[[str, str, str], None]) -> None:
    """Act until the fault kills us, or until a disk that refuses has been explained by an error of ours.

    Calls are counted within the act; where nothing is to be done but opening, from opening to closing.
    """
    only_opens = act is nothing

    def begin() -> None:
        shim.arm(place.state, fault.how, fault.kinds, nth, error=fault.error)

    def end() -> None:
        tell("calls", "", str(shim.count()))
        shim.arm(place.state, "count", 0, 0)

    async def run() -> None:
        async with holdfast.open(place.state) as hf:
            if not only_opens:
                begin()
            try:
                await act(place.work(hf, tell))
            finally:
                if not only_opens:
                    end()

    shim.arm(place.state, "count", 0, 0)  # what is opened is seen from now on
    if only_opens:
        begin()
    try:
        asyncio.run(run())
    except HoldfastError as refused:
        tell("refused", type(refused).__name__, str(refused))
    if only_opens:
        end()


class Finisher:
    """A process that finishes and checks what was left of one run after another. A process for each would spend half
    its time on getting pages of its own. After a run with a complaint, or one that did not end, comes a new one.

    Args:
        machine: what it stands on; None: the real one.
    """

    def __init__(self, machine: Machine | None = None) -> None:
        self._machine = machine
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed on leaving; what the process says on stderr
        self._pid = 0
        self._jobs: IO[str] | None = None
        self._results: IO[str] | None = None

    def __enter__(self) -> Finisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._said.close()

    def finish(self, place: Place, told: Told, *, may_fail: bool) -> str | None:
        """`finish_and_check` there. Returns its complaint; None: everything is as it should be."""
        if self._jobs is None or self._results is None:
            self._jobs, self._results = self._begin()
        self._said.truncate(0)
        self._jobs.write(json.dumps([str(place.root), told, may_fail]) + "\n")
        self._jobs.flush()
        if self._results.readline() == "kept\n":
            return None
        code = self._end()
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 3000))
        return f"{self._said.read().decode(errors='replace')} (exit code {code})"

    def _begin(self) -> tuple[IO[str], IO[str]]:
        jobs_in, jobs_out = os.pipe()
        results_in, results_out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                os.close(jobs_out)
                os.close(results_in)
                os.dup2(self._said.fileno(), 2)
                with os.fdopen(jobs_in) as jobs:
                    self._work_off(jobs, results_out)
                code = 0
            except BaseException:  # noqa: BLE001  # the edge of the process: told by its exit code
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(jobs_in)
        os.close(results_out)
        return os.fdopen(jobs_out, "w"), os.fdopen(results_in)

    def _work_off(self, jobs: IO[str], results: int) -> None:
        if self._machine is not None:
            stand_on(self._machine)
        while line := jobs.readline():
            root, told, may_fail = json.loads(line)
            signal.alarm(CHILD_S_MAX)
            finish_and_check(Place(Path(root)), told, may_fail=may_fail)
            signal.alarm(0)
            os.write(results, b"kept\n")

    def _end(self) -> int:
        """Let it end, and wait for that. Returns its exit code; 0 if there is none."""
        if self._jobs is None or self._results is None:
            return 0
        self._jobs.close()
        self._results.close()
        self._jobs = self._results = None
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def finish_and_check(place: Place, told: Told, *, may_fail: bool) -> None:
    """Open, answer and deliver what is open, check; then recover once more, after which not a byte may have changed."""
    asyncio.run(_finish(place))
    accepted = {name: text for kind, name, text in told if kind == "accepted"}
    checking.check(place.state, accepted=accepted)
    stored = {row["id"]: row for row in checking.rows(place.state, "select * from inputs")}
    ends = (*ENDS, "failed") if may_fail else ENDS
    asked = checking.asked_to_end(place.state)
    others = [row for row in stored.values() if not (row["state"] == "failed" and row["turn"] in asked)]
    assert all(row["state"] in ends for row in others), [(row["id"], row["state"], row["detail"]) for row in others]
    for kind, name, text in told:
        if kind == "answered":
            assert stored[name]["state"] == "answered", f"{name} was answered and is {stored[name]['state']}"
            assert checking.text_of(json.loads(stored[name]["result"])) == text, "an acknowledged answer has changed"
    lines = [entry.get("id") for path in checking.transcripts(place.state) for entry in checking.entries(path)]
    appended = [name for kind, name, _ in told if kind == "appended"]
    assert all(lines.count(name) == 1 for name in appended), f"a synced line is gone, or stands twice: {appended}"
    sent = checking.rows(place.state, "select * from outbox")
    own = {one for one, row in stored.items() if row["route_channel"] and row["state"] not in ("steered", "merged")}
    assert sorted(row["input"] for row in sent) == sorted(own), "an answer without its delivery"
    check_arrivals(place, sent)
    before = {path: path.read_bytes() for path in checking.transcripts(place.state)}
    asyncio.run(_recover(place))
    assert {path: path.read_bytes() for path in checking.transcripts(place.state)} == before, (
        "recovery is not idempotent"
    )


def check_arrivals(place: Place, sent: list[dict[str, Any]]) -> None:
    """Each delivery arrived, without a label at most once, and says what was to be said."""
    arrived = place.work(None, void_tell).channel().received  # type: ignore[arg-type]  # only its channel is asked for
    for row in sent:
        copies = [one for one in arrived if one.delivery_id == row["id"]]
        assert row["state"] == "sent", f"{row['id']} is {row['state']}: {row['detail']}"
        assert copies, f"{row['id']} is called sent and never arrived"
        assert sum(one.label is None for one in copies) <= 1, f"{row['id']} arrived twice without a label"
        assert all(one.text == row["body"] for one in copies), f"{row['id']} arrived as {copies}"


def void_tell(_kind: str, _name: str, _text: str) -> None:
    """For a worker to whom nothing is promised that anybody wants to hear."""


async def _finish(place: Place) -> None:
    async with holdfast.open(place.state) as hf:
        await hf.store.recover_dead()
        work = place.work(hf, void_tell)
        await Children(hf).look()  # what was found answered may be the end of a sub-agent
        timers = Timers(hf)
        while True:
            while waiting := await hf.inputs(state="queued"):
                await _answer_all(hf, work, reversed(waiting))
                await Children(hf).look()
            await work.deliver()  # a heartbeat waits for what is still to arrive
            await timers.look()
            if not await hf.inputs(state="queued") and not await hf.store.timer_runs(running=True):
                break
        for _ in range(2):  # what came of asking is said first, and taken away by the look after that
            await Watchdog(hf).look()
        async with hf.turn(KEY, wait_s=5) as turn:
            await turn.append(holdfast.user("afterwards"))
        await work.deliver()
        await upkeep.finish(hf)


async def _answer_all(hf: Holdfast, work: Work, waiting: Iterable[InputView]) -> None:
    for view in waiting:
        try:
            if is_announcement(view):
                await work.announce(view)
                continue
            turn = await work.claim(view.id)
        except holdfast.SessionBusyError:
            if (await hf.input(view.id)).settled:  # the claim has found its final line in the file
                continue
            raise
        for call in await turn.pending_calls():
            await turn.append_interrupted(call.call)
        await work.answer(turn, f"answer to {view.payload['content']}")


async def _recover(place: Place) -> None:
    async with holdfast.open(place.state) as hf:
        await hf.store.recover_dead()
        assert await upkeep.finish(hf) == 0, "what was finished was not finished"


# ── loops ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def try_one(
    root: Path, name: str, faults: list[tuple[Act, Fault, int]], finisher: Finisher
) -> tuple[str | None, list[bool]]:
    """One run with one fault, or several in processes one after another. Returns what went wrong, and which faults were
    reached.
    """
    place = Place(root / f"{os.getpid()}-{name.replace(' ', '-')}")
    place.root.mkdir()
    before = WORKLOADS[name][0]
    told: Told = []
    reached: list[bool] = []
    try:
        if before is not None:
            code, told, why = forked(lambda tell: prepare(place, before, tell))
            if code != -signal.SIGKILL:
                return f"preparing ended with {code}: {why}", [True]
        for act, fault, nth in faults:
            code, more, why = forked(lambda tell, a=act, f=fault, n=nth: meet(place, a, f, n, tell))
            told += more
            calls = next((int(text) for kind, _, text in more if kind == "calls"), None)
            reached.append(calls is None or calls >= nth)
            if code not in (0, -signal.SIGKILL) or (code == 0 and fault.kills and reached[-1]):
                return f"acting ended with {code}: {why}", reached
        may_fail = not all(fault.kills for _, fault, _ in faults)
        why = finisher.finish(place, told, may_fail=may_fail)
        return (None if why is None else f"what was left is not as it should be: {why}"), reached
    finally:
        shutil.rmtree(place.root, ignore_errors=True)


def every_call(root: Path, name: str, fault: Fault, until_mono: float = math.inf, stride: int = 1) -> Found:
    """The fault at each call in turn, until a run ends without it, or the time is up.

    Args:
        stride: only at every so manieth call, from the first on.
    """
    found, nth, act = Found(), 1 - stride, WORKLOADS[name][1]
    with Finisher() as finisher:
        while len(found.broken) < FAILURES_MAX and time.monotonic() < until_mono:
            nth += stride
            wrong, reached = try_one(root, name, [(act, fault, nth)], finisher)
            if wrong is not None:
                found.broken.append(f"{name}: {fault.name} at call {nth}: {wrong}")
            if not all(reached):
                break
            found.runs += 1
    return found


def recovery_killed_in_recovery(root: Path, name: str, stride: int = 1, until_mono: float = math.inf) -> Found:
    """Pairs: a recovery that is killed, and the recovery after it that is killed again; until all, or the time is up.

    Args:
        stride: only every so manieth pair of each first kill, another one for each.
    """
    found, kill = Found(), KILLS[0]
    with Finisher() as finisher:
        for first in range(1, 10_000):
            reached = [True, True]
            for second in range(1 + first % stride, 10_000, stride):
                wrong, reached = try_one(root, name, [(recover, kill, first), (recover, kill, second)], finisher)
                if wrong is not None:
                    found.broken.append(f"{name}: killed at call {first}, then at {second}: {wrong}")
                if not all(reached) or len(found.broken) >= FAILURES_MAX or time.monotonic() > until_mono:
                    break
                found.runs += 1
            if not reached[0] or len(found.broken) >= FAILURES_MAX or time.monotonic() > until_mono:
                break
    return found


def is_seen() -> bool:
    """Whether this very process was started with the library that sees disk calls."""
    return shim.LOADED in os.environ and sys.platform == "linux"
