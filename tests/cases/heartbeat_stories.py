"""What the case file says of heartbeats, played on the rules themselves, or on a state where they look at one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import holdfast
from holdfast.config.model import Config
from holdfast.config.timers import agents_with_heartbeat
from holdfast.inbound import beating, heartbeat
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.heartbeat import Pending, Surroundings
from holdfast.inbound.heartbeat_file import Instructions, is_empty, read_instructions
from holdfast.inbound.timer import Wake
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from tests.cases.given import Case
from tests.flow.test_timers import BEAT, MAIN, due, ended, with_timers

MINUTE_MS = 60_000
SETTINGS = HeartbeatSettings("main", 30 * MINUTE_MS, MAIN)
FILES = {"empty": "# HEARTBEAT.md\n\n", "actionable": "# HEARTBEAT.md\n\nLook at the mail.\n", "missing": None}

LEFT_OUT: dict[str, str] = {
    "hb-174": "no handler is registered: each process fires by itself, and one that hangs holds up nobody else",
}
COMPARED = frozenset(
    [
        "skip",
        "text",
        "stripped",
        "effectively_empty",
        "within",
        "status",
        "status_not",
        "reason",
        "model_calls",
        "sends",
        "sends_min",
        "interval_ms",
        "runs",
        "main",
        "ops",
        "normalized",
        "kind",
        "exec_completion",
        "cron_event",
        "suppress",
        "runs_before_200ms",
        "runs_at_501ms",
        "runs_at_999ms",
        "runs_at_1000ms",
        "runs_at_1001ms",
        "retry_reason",
        "second_reason",
        "defer",
        "retry_at_ms",
        "second_run",
        "runs_2s_later",
        "transcript",
        "updated_at_after",
    ]
)


# ── the rules themselves ─────────────────────────────────────────────────────────────────────────────────────────────


def acked(case: Case) -> dict[str, Any]:
    setup = case.setup
    found = heartbeat.strip_ack(setup["text"], heartbeat=setup["mode"] == "heartbeat",
                                ack_chars_max=setup["ack_max_chars"])  # fmt: skip
    return asdict(found)


def emptiness(case: Case) -> dict[str, Any]:
    return {"effectively_empty": is_empty(case.setup["content"])}


def hours(case: Case) -> dict[str, Any]:
    setup = case.setup
    at = datetime.strptime(setup["utc_time"], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    zone = setup["timezone"] or "user"
    return {"within": heartbeat.is_active(setup["start"], setup["end"], zone, at, user_zone=setup["user_timezone"])}


def quiet(case: Case) -> dict[str, Any]:
    span, zone = case.setup["active_hours"].split()
    start, end = span.split("-")
    hour, minute = map(int, case.setup["utc"].split(":"))
    at = datetime(2025, 1, 1, hour, minute, tzinfo=UTC)
    return told(Surroundings(active=heartbeat.is_active(start, end, zone, at)), "interval")


def told(around: Surroundings, reason: str) -> dict[str, Any]:
    why = heartbeat.skip_reason(around, reason)
    return {"status": "skipped" if why else "ran", "reason": why, "model_calls": 0 if why else 1}


def looked_into(case: Case) -> dict[str, Any]:
    instructions = read_instructions(FILES[case.setup["file"]])
    around = Surroundings(file_empty=instructions.empty, has_events=case.setup["queued_cron_event"])
    return told(around, case.setup["reason"])


def gated(case: Case) -> dict[str, Any]:
    setup = case.setup
    found = heartbeat.gate(setup["intent"], setup["now"], next_due_ms=setup.get("next_due", 0),
                           last_start_ms=setup.get("last_start"), starts=setup.get("starts", ()))  # fmt: skip
    return {"defer": found is not None} | ({} if found is None else asdict(found))


def paused(case: Case) -> dict[str, Any]:
    ms = heartbeat.interval_ms(case.setup["every"])
    first = heartbeat.next_tick(ms, "a store", "main", 0) if ms else 0
    return {"interval_ms": ms, "runs": int(0 < first <= case.setup.get("advance_s", 0) * 1000)}


def scheduled_agents(case: Case) -> dict[str, Any]:
    given = {name: {} for name in case.setup["agents"]}
    config = Config.model_validate({"heartbeat": {"every": case.setup["defaults"]}, "agents": given})
    return {name: name in agents_with_heartbeat(config) for name in given}


def reasons(case: Case) -> dict[str, Any]:
    reason = case.setup["reason"]
    return {"normalized": heartbeat.normal_reason(reason), "kind": heartbeat.kind_of(reason)}


def events(case: Case) -> dict[str, Any]:
    event = case.setup["event"]
    return {"exec_completion": heartbeat.is_exec_completion(event), "cron_event": heartbeat.is_cron_event(event)}


def suppressed(case: Case) -> dict[str, Any]:
    said = [(one.get("text"), bool(one.get("media"))) for one in case.setup["payloads"]]
    return {"suppress": heartbeat.is_only_ack(said)}


def delivered(case: Case) -> dict[str, Any]:
    setup = case.setup
    reply = heartbeat.plan_reply(
        setup["reply"],
        setup.get("now_ms", 0),
        last_text=setup.get("last_text"),
        last_sent_ms=setup.get("last_sent_ms"),
        show_ok=setup.get("show_ok", False),
        ack_chars_max=setup.get("ack_max_chars", heartbeat.ACK_CHARS_MAX),
        prefix=setup.get("response_prefix", ""),
    )
    sends = int(reply.kind == "send")
    return {"sends": sends, "sends_min": sends, "text": reply.text}


# ── wakes, millisecond by millisecond ────────────────────────────────────────────────────────────────────────────────


class Waking:
    """What waits, and what a handler has made of it, each run at its own time."""

    def __init__(self, outcomes: list[str]) -> None:
        self.outcomes = outcomes
        self.runs: list[tuple[int, str]] = []
        self.pending: Pending | None = None
        self.now = 0

    def ask(self, reason: str, in_ms: int) -> None:
        self.pending = heartbeat.asked(self.pending, reason, self.now + in_ms)

    def until(self, at: int) -> int:
        """How many runs there have been by then."""
        while self.now <= at:
            if self.pending is not None and self.now >= self.pending.at_ms:
                ran, self.pending = self.pending, None
                self.runs.append((self.now, ran.reason))
                outcome = self.outcomes[len(self.runs) - 1] if len(self.runs) <= len(self.outcomes) else "ran"
                if outcome != "ran":
                    why = "error" if outcome == "throws" else outcome.removeprefix("skipped ")
                    self.pending = heartbeat.after_skip(ran, why, self.now)
            self.now += 1
        return len(self.runs)


def woken(case: Case) -> dict[str, Any]:
    setup = case.setup
    waking = Waking(setup.get("handler", []))
    for reason, in_ms in setup.get("requests", [["interval", 0]]):
        waking.ask(reason, in_ms)
    seen: dict[str, Any] = {"runs_before_200ms": waking.until(99)}
    if "second_request" in setup:
        waking.ask("hook:wake", 0)
    for at in (501, 999, 1000, 1001):
        seen[f"runs_at_{at}ms"] = waking.until(at)
    seen |= {"runs_2s_later": waking.until(2500), "runs": len(waking.runs), "reason": waking.runs[0][1]}
    if len(waking.runs) > 1:
        seen["second_reason"] = waking.runs[1][1]
        seen["retry_reason"] = "original" if waking.runs[1][1] == waking.runs[0][1] else waking.runs[1][1]
    return seen


# ── on a state ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def busy(case: Case, state: Path) -> dict[str, Any]:
    """The state as the case has it, and what a heartbeat that looks at it does."""
    setup = case.setup
    settings = replace(SETTINGS, skip_when_busy=setup.get("skip_when_busy", False),
                       ack_chars_max=setup.get("ack_max_chars", heartbeat.ACK_CHARS_MAX))  # fmt: skip
    clock = VirtualClock()
    async with holdfast.open(state, clock=clock) as hf:
        owned: list[holdfast.Turn] = []

        async def runs(session: str, lane: str) -> None:
            accepted = await hf.accept(holdfast.InboundEvent(session, {"content": "x"}, lane=lane))
            assert isinstance(accepted, holdfast.Accepted)
            turn = await hf.claim(session, lane=lane, input_id=accepted.input_id)
            assert isinstance(turn, holdfast.Turn)
            owned.append(turn)

        if setup.get("cron_active"):
            await runs("agent:main:cron:job", "cron")
        if "nested_lane_of" in setup:
            await runs(f"agent:{setup['nested_lane_of']}:child", "cron-nested")
        if setup.get("session_lane"):
            await hf.accept(holdfast.InboundEvent(MAIN, {"content": "x"}, lane="hook"))
        if "active_reply" in setup:
            await runs(MAIN if setup["active_reply"] == "target session" else "agent:main:other", "main")
        if setup.get("isolated_session"):
            await runs(f"{MAIN}:heartbeat", "heartbeat")
        elif setup.get("reply_operation"):
            turn = await hf.claim(MAIN)
            assert isinstance(turn, holdfast.Turn)
            owned.append(turn)
        if "pending_final_delivery" in setup:
            await undelivered(hf, setup["pending_final_delivery"])
            await clock.advance(setup.get("age_s", 0))
        now_ms = int(clock.now().timestamp() * 1000)
        wakes = [Wake("w", "heartbeat:main", "wake", "an event", "next", 0)] if "pending_system_event" in setup else []
        around = await beating.look_around(hf, settings, Instructions(""), [], wakes, now_ms)
        for turn in owned:
            await hf.close_turn(turn, None)
    seen = told(around, "interval")
    seen["status_not"] = {"ran": "skipped", "skipped": "ran"}[seen["status"]]
    if "reply" in setup:
        seen |= delivered(case)
    return seen


async def undelivered(hf: holdfast.Holdfast, text: str) -> None:
    event = holdfast.InboundEvent(MAIN, {"content": "x"}, route=holdfast.Route("nowhere", "user"))
    accepted = await hf.accept(event)
    assert isinstance(accepted, holdfast.Accepted)
    async with hf.turn(MAIN, input_id=accepted.input_id) as turn:
        await turn.append(holdfast.assistant(text, model="demo/demo"))


async def not_pruned(case: Case, state: Path) -> dict[str, Any]:
    model = ScriptedModel("Hi.", otherwise=lambda _: case.setup["reply"])
    async with World(state, timers=with_timers(beats=[BEAT]), model=model) as world:
        await world.settled(await world.inbound(MAIN, "hello", to=None))
        path = Path(await world.hf.session(MAIN).path() or "")
        before = path.read_bytes()
        await due(world, "heartbeat:main")
        await ended(world, 1, "heartbeat:main")
        after = path.read_bytes()
    assert after.startswith(before)
    return {"transcript": "unchanged" if after == before else "not shrunk"}


async def goes_on(case: Case, state: Path) -> dict[str, Any]:
    if case.setup.get("first_run") != "throws":
        return woken(case)
    model = ScriptedModel(Reply(error=ValueError("no")), otherwise=lambda _: "HEARTBEAT_OK")
    async with World(state, timers=with_timers(beats=[BEAT]), model=model) as world:
        for n in (1, 2):
            await due(world, "heartbeat:main")
            runs = await ended(world, n, "heartbeat:main")
    apart = (runs[1].scheduled_at_ms - runs[0].scheduled_at_ms) // MINUTE_MS
    return {"second_run": f"{apart} min later"}


async def keeps_its_time(case: Case, state: Path) -> dict[str, Any]:
    """A user's turn in the midst of a heartbeat's; the session's time of last use is the user's."""
    clock = VirtualClock(datetime.fromtimestamp(case.setup["updated_at_before"] / 1000, UTC))
    async with holdfast.open(state, clock=clock) as hf:
        beat = await hf.claim(f"{MAIN}:heartbeat", lane="heartbeat")
        await clock.advance((case.setup["updated_at_during"] - case.setup["updated_at_before"]) / 1000)
        async with hf.turn(MAIN):
            pass
        await clock.advance(5)
        assert isinstance(beat, holdfast.Turn)
        await hf.close_turn(beat, None)
        async with hf.turn(MAIN, lane="heartbeat"), hf.turn("agent:main:cron:job", lane="cron"):
            pass
        [view] = [one for one in await hf.sessions() if one.key == MAIN]
    return {"updated_at_after": view.updated_at_ms}


Told = Callable[[Case], dict[str, Any]]
Played = Callable[[Case, Path], Awaitable[dict[str, Any]]]

BY_AREA: dict[str, Told | Played] = {
    "ack_token": acked, "file_empty": emptiness, "active_hours": hours, "skip": quiet, "skip_file": looked_into,
    "gate": gated, "interval": paused, "agents": scheduled_agents, "wake_reason": reasons, "event_filter": events,
    "cron_policy": suppressed, "dedupe": delivered, "wake": woken, "busy": busy, "isolated": busy, "pending": busy,
    "prune": not_pruned, "scheduler": goes_on, "deliver": delivered,
}  # fmt: skip
BY_ID: dict[str, Told | Played] = {"hb-120": keeps_its_time}


def play_of(case: Case) -> Told | Played | None:
    return BY_ID.get(case.id) or BY_AREA.get(case.data["area"])


async def check(case: Case, state: Path) -> None:
    """Play the case, and compare every word of what it expects."""
    play = play_of(case)
    assert play is not None
    seen = play(case, state) if play in (busy, not_pruned, goes_on, keeps_its_time) else play(case)  # type: ignore[call-arg]
    found = seen if isinstance(seen, dict) else await seen
    expected = dict(case.expected)
    if "status_not" in expected:
        assert found.pop("status") != expected.pop("status_not")
    assert {word: found.get(word) for word in expected} == {**expected, **minimum(found, expected)}


def minimum(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """`sends_min` is met by more."""
    least = expected.get("sends_min")
    return {} if least is None or found["sends_min"] < least else {"sends_min": found["sends_min"]}
