"""Lanes: order, counts, draining and taking back what waits; heartbeats (`heartbeat_stories.py`); of recovery, what a
busy session amounts to.

A lane there is a line inside one process. Here the line is the transcript's own, kept in the ledger: a queued entry is
an accepted input, the running task is the turn that owns the session. Priorities are lanes: foreground is a user's
(`main`), normal a webhook's, background a heartbeat's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import TurnStalledError
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.recovery.classify import Activity, attention
from holdfast.recovery.progress import Progress
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.store.views import InputView
from holdfast.testing.clock import VirtualClock
from holdfast.turn.silence import choose_silence, why_over
from tests.cases import heartbeat_stories
from tests.cases.given import LEFT_OUT, NOT_UNDERSTOOD, Case, SetAside, check_set_aside, check_words, each

FILE = "lanes_heartbeat_recovery.json"
KEY = "agent:main:main"
LANES = {"foreground": "main", "normal": "hook", "(none)": "hook", "background": "heartbeat"}

LEFT_OUT_LANES = {
    "reset": "nothing forgets a turn that runs: its slot is its claim, which ends with it or with its process",
    "ln-029": "the queue is in the ledger; there is no state in a module that could be left by an older version",
    "ln-030": "the queue is in the ledger; there is no entry without a lane that could be left by an older version",
    "ln-021": "nobody is called back about progress: it is heard, and no callback can throw",
    "lane_name": "lanes are named by programs and taken as they are",
    "decision": "recovery closes a turn whose process is dead or whose beat stood still, by its epoch; a live "
    "one is at most asked to end itself; nothing is cleared by force, and there is no lane in memory to reset",
    "ln-005": "whoever waits is told its place by `InputView.position`; nobody is called back",
    "ln-007": "no error asks for another model; a turn's errors end it",
    "ln-024": "a listing of all lanes is not there; inputs and turns are listed by session and state",
}
NOT_COMPARED = {
    "generation": "lanes are not reset, so they have no generations",
    "max_concurrent": "a transcript's line has width one by its nature",
    "removed": "one cancel is one input",
}


def set_aside(case: Case) -> SetAside | None:
    if case.data["part"] == "heartbeat":
        if case.id in heartbeat_stories.LEFT_OUT:
            return SetAside(LEFT_OUT, heartbeat_stories.LEFT_OUT[case.id])
        return None if heartbeat_stories.play_of(case) else SetAside(NOT_UNDERSTOOD, "no story is written for it")
    if case.id in STORIES:
        return None
    for name in (case.id, case.data["area"]):
        if name in LEFT_OUT_LANES:
            return SetAside(LEFT_OUT, LEFT_OUT_LANES[name])
    return None if story_of(case) else SetAside(NOT_UNDERSTOOD, "no story is written for these steps")


# ── a worker and its line ────────────────────────────────────────────────────────────────────────────────────────────


class Line:
    """One session, its inputs by name, and a worker whose turns start in the order of `started`."""

    def __init__(self, hf: holdfast.Holdfast) -> None:
        self.hf = hf
        self.started: list[str] = []
        self.ids: dict[str, str] = {}
        self.blocker_runs = asyncio.Event()
        self.let_blocker_end = asyncio.Event()
        self.worker = Worker(hf, self.run_input, limits=LaneLimits())

    async def enqueue(self, name: str, priority: str = "foreground") -> holdfast.Accepted:
        accepted = await self.hf.accept(holdfast.InboundEvent(KEY, {"content": name}, lane=LANES[priority]))
        assert isinstance(accepted, holdfast.Accepted)
        self.ids[name] = accepted.input_id
        return accepted

    async def run_input(self, turn: holdfast.Turn, view: InputView) -> None:
        name = view.payload["content"]
        self.started.append(name)
        await turn.append(holdfast.user(name))
        if name == "blocker":
            self.blocker_runs.set()
            await self.let_blocker_end.wait()
        await turn.append(holdfast.assistant(f"{name} is done", model="demo/demo"))

    async def states(self) -> dict[str, str]:
        return {name: (await self.hf.input(input_id)).state for name, input_id in self.ids.items()}

    async def all_settled(self) -> dict[str, str]:
        async with asyncio.timeout(30):
            return {name: (await self.hf.wait_input(input_id)).state for name, input_id in self.ids.items()}


@asynccontextmanager
async def line(state: Path) -> AsyncIterator[Line]:
    """A line whose blocker is running."""
    async with holdfast.open(state) as hf:
        made = Line(hf)
        await made.enqueue("blocker")
        working = asyncio.create_task(made.worker.run())
        await made.blocker_runs.wait()
        yield made
        made.let_blocker_end.set()
        await made.worker.stop(30)
        await working


# ── stories ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def starts_in_order(case: Case, state: Path) -> None:
    async with line(state) as one:
        for name, priority in case.setup["enqueue"]:
            await one.enqueue(name, priority)
        one.let_blocker_end.set()
        await one.all_settled()
    assert one.started == ["blocker", *case.expected["start_order"]]


async def tells_the_place_in_line(case: Case, state: Path) -> None:
    async with holdfast.open(state) as hf:
        accepted = await Line(hf).enqueue("first")
    assert accepted.ahead + 1 == case.expected["logged_depth"]


async def counts_what_runs(case: Case, state: Path) -> None:
    async with line(state) as one:
        assert len(one.hf.live_turns()) == case.expected["active_during"]
        one.let_blocker_end.set()
        await one.all_settled()
        await one.worker.stop(30)
        assert len(one.hf.live_turns()) == case.expected["active_after"]


async def a_drain_that_takes_too_long_gives_the_input_back(case: Case, state: Path) -> None:
    async with line(state) as one:
        await one.worker.stop(case.setup["timeout_ms"] / 1000)
        assert (await one.states() == {"blocker": "answered"}) is case.expected["drained"]
        assert await one.states() == {"blocker": "queued"}


async def draining_lets_a_running_turn_finish(case: Case, state: Path) -> None:
    assert case.expected["running"] == "finishes normally"
    async with line(state) as one:
        one.hf.drain()
        with pytest.raises(holdfast.DrainingError):
            await one.enqueue("too late")
        one.let_blocker_end.set()
        assert await one.all_settled() == {"blocker": "answered"}


async def shows_what_runs_and_what_waits(case: Case, state: Path) -> None:
    async with line(state) as one:
        await one.enqueue("second")
        running, queued = [await one.hf.inputs(session=KEY, state=word) for word in ("running", "queued")]
        assert (len(running), len(queued)) == (case.expected["active"], case.expected["queued"])
        assert one.hf.draining is case.expected["draining"]


async def taking_back_what_waits_leaves_what_runs(case: Case, state: Path) -> None:
    async with line(state) as one:
        await one.enqueue("second")
        assert await one.hf.cancel(one.ids["second"], by="a test") == "cancelled"
        one.let_blocker_end.set()
        assert await one.all_settled() == {"blocker": "answered", "second": "cancelled"}
    assert one.started == ["blocker"]


async def shows_the_same_to_another_handle(case: Case, state: Path) -> None:
    async with line(state) as one, holdfast.open(state) as other:
        running, queued = [await other.inputs(session=KEY, state=word) for word in ("running", "queued")]
        seen = {"queue_size": len(running) + len(queued), "active": len(running)}
        assert seen == case.expected["seen_by_copy_B"]
        assert one.hf is not other


async def is_not_over_while_something_is_heard(case: Case, _state: Path) -> None:
    """The limit of a run on its model's silence."""
    given = case.setup
    silence = choose_silence(given["task_timeout_ms"] / 1000)
    began = Progress.at(0.0).begins("model", "demo/demo", 0.0)
    heard, now_mono = began.heard(given["progress_at_ms"] / 1000), given["now_ms"] / 1000
    assert (why_over(silence, heard, now_mono) is not None) is case.expected["timed_out"]
    assert why_over(silence, began, now_mono) is not None, "without progress it is over"


async def asks_a_turn_to_end_once(case: Case, state: Path) -> None:
    clock, watch = VirtualClock(), WatchSettings(warn_s=30, abort_s=60, live_owners="ask")
    async with holdfast.open(state, clock=clock, watch=watch) as hf:
        accepted = await Line(hf).enqueue("silent")
        turn = await hf.claim(KEY, input_id=accepted.input_id)
        assert isinstance(turn, holdfast.Turn)
        watchdogs = [Watchdog(hf) for _ in range(case.setup["concurrent"])]
        for pause_s in (31, 31):
            await clock.advance(pause_s)
            await asyncio.gather(*(one.look() for one in watchdogs))
        told = [one["kind"] for one in await hf.store.events(input_id=accepted.input_id)]
        assert told.count("session.recovery.requested") == case.expected["aborts"]
        with pytest.raises(TurnStalledError) as asked:
            await turn.check()
        await hf.close_turn(turn, asked.value)


async def leaves_work_alone_that_answers_no_input(case: Case, state: Path) -> None:
    """A program's own turn stands still; a message waits behind it."""
    clock = VirtualClock()
    async with holdfast.open(state, clock=clock) as hf, hf.turn(KEY) as turn:
        waiting = await Line(hf).enqueue("second")
        await clock.advance(case.setup["age_s"])
        assert [one.outcome for one in (await hf.recover(KEY)).done] == []
        blocked = await hf.inputs(session=KEY, state="queued")
        assert [one.id for one in blocked] == [waiting.input_id], case.expected["queued"]
        assert len(blocked) + len(hf.live_turns()) == case.expected["queue_size"]
        await turn.check()


async def tells_what_a_busy_session_amounts_to(case: Case, _state: Path) -> None:
    told = case.setup["activity"]
    activity = Activity(
        told.get("kind"), told.get("has_active_run", True), told.get("progress_age_ms"), told.get("tool_age_ms"),
        told.get("last_progress"),
    )  # fmt: skip
    queued, idle = case.setup["queue_depth"], case.setup["state"] == "idle"
    found = attention(activity, queued=queued, idle=idle, stale_ms=case.setup["stale_ms"])
    seen = {name: getattr(found, name) for name in ("event", "reason", "classification", "recovery_eligible")}
    assert seen == case.expected


Story = Callable[[Case, Path], Awaitable[None]]

STORIES: dict[str, Story] = {
    "ln-006": tells_the_place_in_line,
    "ln-009": counts_what_runs,
    "ln-013": a_drain_that_takes_too_long_gives_the_input_back,
    "ln-023": shows_what_runs_and_what_waits,
    "ln-025": taking_back_what_waits_leaves_what_runs,
    "ln-027": draining_lets_a_running_turn_finish,
    "ln-020": is_not_over_while_something_is_heard,
    "ln-028": shows_the_same_to_another_handle,
    "rc-229": asks_a_turn_to_end_once,
    "rc-232": leaves_work_alone_that_answers_no_input,
}
COMPARED = frozenset(
    [
        "aborts",
        "active",
        "active_after",
        "active_during",
        "classification",
        "drained",
        "draining",
        "event",
        "first",
        "logged_depth",
        "queue_size",
        "queued",
        "reason",
        "recovery_eligible",
        "running",
        "second",
        "seen_by_copy_B",
        "start_order",
        "timed_out",
    ]
)


def story_of(case: Case) -> Story | None:
    if case.data["area"] == "attention":
        return tells_what_a_busy_session_amounts_to
    names: Any = case.setup.get("enqueue")
    if "start_order" in case.expected and all(len(name) == 2 and name[1] in LANES for name in names):
        return starts_in_order
    return STORIES.get(case.id)


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case, tmp_path: Path) -> None:
    if case.data["part"] == "heartbeat":
        await heartbeat_stories.check(case, tmp_path / "state")
        return
    story = story_of(case)
    assert story is not None
    await story(case, tmp_path / "state")


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside, LEFT_OUT_LANES, STORIES, heartbeat_stories.LEFT_OUT, heartbeat_stories.BY_AREA)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, heartbeat_stories.COMPARED, NOT_COMPARED)
