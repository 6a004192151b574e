"""Heartbeats as timers: what is around one when it is due, firing it, and what its answer leads to.

The decisions are `heartbeat.py`, the loop that calls this is `timers.py`. A heartbeat is isolated unless its settings
say otherwise: it runs in a transcript of its own (`<session>:heartbeat`), each time afresh, and what it has to say
enters the conversation as an announcement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from holdfast.clock import from_epoch_ms, iso
from holdfast.inbound import heartbeat, heartbeat_file
from holdfast.inbound.announcement import SOURCE as ANNOUNCEMENT
from holdfast.inbound.cron import main_session
from holdfast.inbound.event import InboundEvent, Route
from holdfast.inbound.heartbeat import Pending, Surroundings
from holdfast.inbound.heartbeat_file import Instructions, Task
from holdfast.inbound.timer import HEARTBEAT, Timer, TimerRun, Wake, run_id, run_key
from holdfast.kernel import Holdfast
from holdfast.session.key import parse_key
from holdfast.store.views import InputView

LANE = "heartbeat"
LOOKED_AT_MAX = 1000
STARTS_KEPT = 6
TIMEOUT_S_MAX = 600
log = logging.getLogger("holdfast.timers")

ReadFile = Callable[[str], str | None]
"""The text of a HEARTBEAT.md by its path; None: there is none."""


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """One agent's heartbeat. Kept in its timer's row; see `[heartbeat]` in docs/configuration.md for each.

    Args:
        every_ms: the pause between two.
        session: the conversation that its news are for.
        file: path of its HEARTBEAT.md.
        target: "none", "last" or "channel:target".
        limit_s: longest run; None: the pause between two, at most `TIMEOUT_S_MAX`.
    """

    agent: str
    every_ms: int
    session: str
    file: str = ""
    isolated: bool = True
    target: str = "none"
    block_direct: bool = False
    start: str | None = None
    end: str | None = None
    timezone: str = "user"
    user_timezone: str = "UTC"
    ack_chars_max: int = heartbeat.ACK_CHARS_MAX
    show_ok: bool = False
    show_alerts: bool = True
    skip_when_busy: bool = False
    model: str | None = None
    prefix: str = ""
    limit_s: int | None = None

    @property
    def own_session(self) -> str:
        """The session that its turns take place in."""
        return f"{self.session}:heartbeat" if self.isolated else self.session

    @property
    def timeout_s(self) -> float:
        return self.limit_s or min(self.every_ms / 1000, TIMEOUT_S_MAX)


def settings_of(timer: Timer) -> HeartbeatSettings:
    """Those in force. A sub-agent's session has no heartbeat: one that names it is its agent's own."""
    known = HeartbeatSettings.__dataclass_fields__
    settings = HeartbeatSettings(**{name: value for name, value in timer.spec.items() if name in known})
    if parse_key(settings.session).kind == "subagent":
        return replace(settings, session=main_session(settings.agent))
    return settings


def new_timer(settings: HeartbeatSettings, seed: str, now_ms: int) -> Timer:
    """The heartbeat as a timer that waits for its first regular time."""
    first = heartbeat.next_tick(settings.every_ms, seed, settings.agent, now_ms)
    return Timer(f"{HEARTBEAT}:{settings.agent}", HEARTBEAT, "config", asdict(settings), next_at_ms=first)


def redefined(seen: Timer, settings: HeartbeatSettings, seed: str, now_ms: int) -> Timer | None:
    """What changed settings make of a timer; None: they are the same. Somebody's pause and the memo stay."""
    fresh = new_timer(settings, seed, now_ms)
    if seen.spec == fresh.spec:
        return None
    same_pace = seen.spec.get("every_ms") == settings.every_ms
    return replace(seen, spec=fresh.spec, next_at_ms=seen.next_at_ms if same_pace else fresh.next_at_ms)


@dataclass(frozen=True, slots=True)
class Firing:
    """A heartbeat that may run: its event, its run, and the timer after it."""

    event: InboundEvent
    run: TimerRun
    timer: Timer
    used: list[str]


async def look_around(hf: Holdfast, settings: HeartbeatSettings, instructions: Instructions, due: list[Task],
                      wakes: list[Wake], now_ms: int) -> Surroundings:  # fmt: skip
    """What would be disturbed by it, and what it would have to do."""
    queued = await hf.inputs(state="queued", limit=LOOKED_AT_MAX)
    running = await hf.inputs(state="running", limit=LOOKED_AT_MAX)
    others = [one for one in (*queued, *running) if one.source != ANNOUNCEMENT]
    ours = [one for one in others if parse_key(one.session).agent == settings.agent]
    in_flight = any(one.lane not in ("cron", "cron-nested", "subagent", LANE) for one in ours)
    in_flight = in_flight or any(one.session == settings.own_session for one in ours)
    events = [wake for wake in wakes if wake.text and heartbeat.strip_ack(wake.text, heartbeat=False).text]
    return Surroundings(
        active=heartbeat.is_active(
            settings.start, settings.end, settings.timezone, from_epoch_ms(now_ms), user_zone=settings.user_timezone
        ),
        in_flight=in_flight or await _is_owned(hf, settings.session),
        undelivered_ms=await _undelivered_ms(hf, settings, now_ms),
        cron_runs=any(one.lane == "cron" for one in others),
        nested_busy=any(one.lane in ("cron-nested", "subagent") for one in ours),
        skip_when_busy=settings.skip_when_busy,
        file_empty=instructions.empty,
        tasks_only=bool(instructions.tasks) and not instructions.text,
        tasks_due=len(due),
        has_events=bool(events),
        can_show=settings.show_ok or settings.show_alerts,
        direct_blocked=settings.block_direct and parse_key(settings.session).chat == "direct",
    )


async def _is_owned(hf: Holdfast, session: str) -> bool:
    """Whether a turn owns the session that answers no input: a program's own."""
    views = await hf.sessions(prefix=session, limit=20)
    return any(view.key == session and view.owner_turn is not None for view in views)


async def _undelivered_ms(hf: Holdfast, settings: HeartbeatSettings, now_ms: int) -> int | None:
    """The age of the youngest answer of the session that has not gone out yet and is more than an acknowledgement."""
    youngest: int | None = None
    for state in ("pending", "started"):
        for row in await hf.deliveries(state=state, limit=20):
            acked = heartbeat.strip_ack(row.body, heartbeat=True, ack_chars_max=settings.ack_chars_max)
            if not acked.skip and (await hf.input(row.input_id)).session == settings.session:
                age = max(0, now_ms - row.created_at_ms)
                youngest = age if youngest is None else min(youngest, age)
    return youngest


def plan_firing(
    timer: Timer, settings: HeartbeatSettings, seed: str, pending: Pending, wakes: list[Wake],
    instructions: Instructions, due: list[Task], now_ms: int,
) -> Firing:  # fmt: skip
    """The event of a heartbeat that runs now. Its key is the regular time, or the wake it runs for."""
    is_due = timer.next_at_ms is not None and now_ms >= timer.next_at_ms
    by = "" if is_due or not wakes else f"wake:{wakes[0].id}"
    scheduled = timer.next_at_ms if is_due and timer.next_at_ms is not None else pending.at_ms
    events = [wake.text for wake in wakes if wake.text]
    said = heartbeat_file.prompt(instructions, due, events, iso(from_epoch_ms(now_ms)))
    payload: dict[str, Any] = {"content": said}
    if settings.isolated:
        payload["context"] = "fresh"
    event = InboundEvent(
        settings.own_session, payload, source=HEARTBEAT, account=settings.agent, lane=LANE, model=settings.model,
        key=run_key(timer.id, scheduled, 1, by), waits=True, origin={"timer": timer.id, "reason": pending.reason},
    )  # fmt: skip
    reason = "schedule" if pending.reason == "interval" else pending.reason
    run = TimerRun(run_id(timer.id, scheduled, 1, by), timer.id, scheduled, 1, reason, "running", now_ms)
    starts = [*timer.memo.get("starts", []), now_ms][-STARTS_KEPT:]
    stamps = {**timer.memo.get("tasks", {}), **{task.name: now_ms for task in due}}
    on = moved_on(timer, settings, seed, now_ms) if is_due else timer
    return Firing(
        event, run, replace(on, memo={**on.memo, "starts": starts, "tasks": stamps}), [one.id for one in wakes]
    )


def moved_on(timer: Timer, settings: HeartbeatSettings, seed: str, now_ms: int) -> Timer:
    """The timer with its next regular time."""
    after = max(now_ms, timer.next_at_ms or 0)
    return replace(timer, next_at_ms=heartbeat.next_tick(settings.every_ms, seed, settings.agent, after))


@dataclass(frozen=True, slots=True)
class After:
    """What the end of a heartbeat leads to: the run and timer as they are then, and the text to announce, if any."""

    timer: Timer
    run: TimerRun
    text: str | None = None


def after_run(timer: Timer, run: TimerRun, settings: HeartbeatSettings, view: InputView, now_ms: int) -> After:
    """What of its answer is for anybody."""
    if view.state != "answered":
        state = view.state if view.state in ("cancelled", "skipped") else "failed"
        ended = replace(run, state=state, ended_at_ms=now_ms, detail=view.detail)
        return After(replace(timer, failures=timer.failures + 1), ended)
    reply = heartbeat.plan_reply(
        heartbeat.answer_of(view.answer, view.result), now_ms,
        last_text=timer.memo.get("last_text"), last_sent_ms=timer.memo.get("last_sent_ms"),
        show_ok=settings.show_ok, show_alerts=settings.show_alerts, ack_chars_max=settings.ack_chars_max,
        prefix=settings.prefix,
    )  # fmt: skip
    ended = replace(run, state="ok", ended_at_ms=now_ms, detail=None if reply.kind == "send" else reply.kind)
    timer = replace(timer, failures=0)
    if reply.kind != "send":
        return After(timer, ended)
    memo = {**timer.memo, "last_text": reply.text, "last_sent_ms": now_ms}
    return After(replace(timer, memo=memo), ended, reply.text)


async def route_of(hf: Holdfast, settings: HeartbeatSettings) -> Route | None:
    """Where its news go out; None: nowhere, they are only in the conversation."""
    if settings.target == "none":
        return None
    if settings.target == "last":
        return await hf.store.last_route(settings.session)
    return Route.parse(settings.target)
