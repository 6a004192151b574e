"""Cron jobs: from a definition to a timer, from one that is due to an event, from a run's end to what follows. Pure.

The loop that does these things is `timers.py`, when a schedule fires next is `schedule.py`. Numbers: semantics.md 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from holdfast.errors import InputError
from holdfast.inbound import schedule
from holdfast.inbound.event import InboundEvent, Route
from holdfast.inbound.heartbeat import is_only_ack
from holdfast.inbound.schedule import Schedule
from holdfast.inbound.timer import CRON, Timer, TimerRun, run_key
from holdfast.session.key import validate_key

LANE = "cron"
TIMEOUT_S = 3600
"""Longest run of a job that says nothing else (semantics.md 2.6)."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DETAIL_CHARS_MAX = 500

Deliver = Literal["announce", "webhook", "none"]


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """A cron job as somebody wrote it. Exactly one of `at`, `every` and `cron` is given.

    Args:
        at, every, cron: see `schedule.py`. timezone: of `cron` and of an `at` without an offset.
        stagger_s: seconds after the named times of `cron`; None: by the job's name at the top of the hour; 0: exactly.
        agent: whose sessions "main" and "isolated" are.
        target: "main", "isolated" (a session of the job's own, each run begins afresh), or "session:KEY".
        message: what is said.
        model: "provider/model"; None: the agent's. Fallbacks apply all the same.
        wake: of `target` "main": "now", or "next-heartbeat": the message waits for the agent's next heartbeat.
        deliver: what happens with the answer. to: "last" (where the agent's main session was answered last) or
            "channel:target". url: of "webhook".
        failure_to: where alerts go; None: as `to`.
        timeout_s: longest run. silence_s: how long its model may say nothing before the run ends; None: as its agent's.
    """

    name: str
    message: str
    at: str | None = None
    every: str | None = None
    cron: str | None = None
    timezone: str = "UTC"
    stagger_s: int | None = None
    agent: str = "main"
    target: str = "isolated"
    model: str | None = None
    wake: str = "now"
    deliver: Deliver = "announce"
    to: str = "last"
    url: str | None = None
    failure_to: str | None = None
    timeout_s: int = TIMEOUT_S
    silence_s: int | None = None


def check(job: JobDefinition) -> list[str]:
    """Every fault of a definition, each beginning with the field it is about."""
    faults: list[str] = []
    if not NAME.fullmatch(job.name):
        faults.append(f"name: {job.name!r} must be up to 64 letters, digits, dots, dashes and underscores")
    if not job.message.strip():
        faults.append("message: say what the job is to do")
    try:
        schedule_of(job, 0)
    except InputError as wrong:
        faults.append(f"schedule: {wrong}")
    if job.target not in ("main", "isolated") and not job.target.startswith("session:"):
        faults.append(f'target: {job.target!r} must be "main", "isolated" or "session:KEY"')
    if job.silence_s is not None and not 0 < job.silence_s <= job.timeout_s:
        faults.append(f"silence_s: {job.silence_s} must be from 1 to its timeout_s, {job.timeout_s}, which ends a run")
    if job.wake != "now" and job.target != "main":
        faults.append('wake: only a job with target "main" can wait for the next heartbeat')
    try:
        validate_key(session_of(job))
        _ = [Route.parse(route) for route in (job.to, job.failure_to) if route not in (None, "last")]
    except InputError as wrong:
        faults.append(f"target: {wrong}")
    if job.deliver == "webhook" and not is_web_address(job.url):
        faults.append('url: delivery "webhook" needs the address to post to, http:// or https://')
    return faults


def is_web_address(url: str | None) -> bool:
    """Whether something can be posted there."""
    try:
        parts = urlsplit(url or "")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def schedule_of(job: JobDefinition, now_ms: int) -> Schedule:
    """When it fires. Raises InputError."""
    given = [name for name in ("at", "every", "cron") if getattr(job, name) is not None]
    if len(given) != 1:
        raise InputError(f'give one of "at", "every" and "cron", not {len(given)}')
    if job.at is not None:
        return schedule.at(job.at, now_ms, zone=job.timezone)
    if job.every is not None:
        return schedule.every(job.every, now_ms)
    return schedule.cron(job.cron or "", zone=job.timezone, job=job.name, stagger_s=job.stagger_s)


def session_of(job: JobDefinition) -> str:
    """The session a run takes place in."""
    if job.target == "main":
        return main_session(job.agent)
    if job.target.startswith("session:"):
        return job.target.removeprefix("session:")
    return f"agent:{job.agent}:cron:{job.name}"


def main_session(agent: str) -> str:
    return f"agent:{agent}:main"


# ── the timer ────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_timer(job: JobDefinition, source: str, now_ms: int) -> Timer:
    """The job as a timer that waits for its first time.

    Raises:
        InputError: with every fault of the definition.
    """
    faults = check(job)
    if faults:
        raise InputError(f"cron job {job.name!r}: " + "; ".join(faults))
    when = schedule_of(job, now_ms)
    spec = {"job": asdict(job), "schedule": asdict(when)}
    next_ms = when.moment_ms if when.kind == "at" else schedule.next_fire(when, now_ms)
    return Timer(f"{CRON}:{job.name}", CRON, source, spec, next_at_ms=next_ms)


def redefined(seen: Timer, job: JobDefinition, now_ms: int) -> Timer | None:
    """What a changed definition makes of a timer; None: it is the same. Somebody's pause stays."""
    if seen.spec.get("job") == asdict(job):
        return None
    fresh = new_timer(job, seen.source, now_ms)
    old, new = job_of(seen), job
    if [(one.at, one.every, one.cron, one.timezone, one.stagger_s) for one in (old, new)].count(
        (new.at, new.every, new.cron, new.timezone, new.stagger_s)
    ) == 2:  # the schedule is as it was: it goes on where it is
        return replace(seen, spec={**fresh.spec, "schedule": seen.spec["schedule"]})
    state = "paused" if seen.state == "paused" else "active"
    return replace(fresh, state=state, memo=seen.memo, revision=seen.revision)


def job_of(timer: Timer) -> JobDefinition:
    """The definition that a timer was made of. What a newer release has added to it is left out."""
    known = {one.name for one in fields(JobDefinition)}
    return JobDefinition(**{name: value for name, value in timer.spec["job"].items() if name in known})


def when_of(timer: Timer) -> Schedule:
    return Schedule(**timer.spec["schedule"])


def is_once(timer: Timer) -> bool:
    return when_of(timer).kind == "at"


def moved_on(timer: Timer, now_ms: int) -> Timer:
    """The timer after it has fired, or has been passed over, for its scheduled time."""
    when = when_of(timer)
    after = max(now_ms, timer.next_at_ms or 0)
    next_ms = None if when.kind == "at" else schedule.next_fire(when, after)
    return replace(timer, next_at_ms=next_ms, not_before_ms=0, attempt=1)


def event_of(timer: Timer, scheduled_at_ms: int, attempt: int, by: str = "") -> InboundEvent:
    """The event of a run. It follows from the timer and the time alone: every process makes the same."""
    job = job_of(timer)
    payload: dict[str, Any] = {"content": job.message}
    if job.target == "main":
        payload["content"] = f"System event (cron job {job.name}): {job.message}"
    elif job.target == "isolated":
        payload["context"] = "fresh"
    if job.silence_s is not None:
        payload["silence_s"] = job.silence_s
    return InboundEvent(
        session_of(job), payload, source=CRON, account="", lane=LANE, model=job.model,
        key=run_key(timer.id, scheduled_at_ms, attempt, by), waits=True, origin={"timer": timer.id},
    )  # fmt: skip


# ── the end of a run ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Ended:
    """How the work of a run ended. `reason`: the class of the failure (`model/failure.py`), if it is known.
    `timed_out`: a limit of its own has ended it.
    """

    state: Literal["ok", "failed", "skipped", "cancelled"]
    answer: str | None = None
    detail: str | None = None
    reason: str | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class After:
    """What follows from the end of a run.

    Args:
        result: text to deliver as the job says; None: nothing.
        alert: text to tell about failures; None: nothing.
    """

    timer: Timer
    run: TimerRun
    result: str | None = None
    alert: str | None = None


def after_run(timer: Timer, run: TimerRun, ended: Ended, now_ms: int) -> After:
    """Retry, back off, tell somebody, stop: what the end of a run changes."""
    detail = None if ended.detail is None else ended.detail[:DETAIL_CHARS_MAX]
    run = replace(run, state=ended.state, ended_at_ms=now_ms, detail=detail)
    once = is_once(timer)
    if ended.state != "failed":
        if ended.state == "ok":
            timer = replace(timer, failures=0, not_before_ms=0)
        done = once and timer.next_at_ms is None
        timer = replace(timer, state="done" if done else timer.state)
        wanted = ended.answer if ended.state == "ok" and not is_only_ack([(ended.answer, False)]) else None
        return After(timer, run, wanted if job_of(timer).deliver != "none" else None)
    if run.reason == "manual":  # whoever asked for it sees what became of it; the schedule goes on
        return After(timer, run)
    failures = timer.failures + 1
    if once:
        return _after_failed_once(replace(timer, failures=failures), run, ended, now_ms)
    timer = replace(timer, failures=failures, not_before_ms=now_ms + schedule.backoff_s(failures) * 1000)
    stopped = failures >= schedule.DISABLE_AFTER
    if stopped:
        timer = replace(timer, state="disabled", detail=f"{failures} failures in a row, the last: {detail}")
    if not stopped and not schedule.is_alert_due(failures, timer.alerted_at_ms, now_ms, timed_out=ended.timed_out):
        return After(timer, run)
    often = "" if failures == 1 else f" {failures} times in a row"
    told = f"Cron job {timer.name} has failed{often}: {detail or 'no reason is known'}"
    if stopped:
        told = f"{told.rstrip('.')}. It is stopped; `holdfast cron resume {timer.name}` starts it again."
    return After(replace(timer, alerted_at_ms=now_ms), run, alert=told)


def _after_failed_once(timer: Timer, run: TimerRun, ended: Ended, now_ms: int) -> After:
    pause_s = schedule.retry_s(run.attempt, ended.reason)
    if pause_s is not None:
        again = replace(
            timer, next_at_ms=run.scheduled_at_ms, attempt=run.attempt + 1, not_before_ms=now_ms + pause_s * 1000
        )
        return After(again, run)
    told = f"Cron job {timer.name}, which was to run once, has failed: {run.detail or 'no reason is known'}"
    return After(replace(timer, state="disabled", detail=run.detail, alerted_at_ms=now_ms), run, alert=told)


def resumed(timer: Timer, now_ms: int) -> Timer:
    """A paused or stopped job at work again, from its next time on."""
    when = when_of(timer)
    next_ms = when.moment_ms if when.kind == "at" else schedule.next_fire(when, now_ms)
    return replace(timer, state="active", failures=0, next_at_ms=next_ms, not_before_ms=0, attempt=1, detail=None)


def as_definition(name: str, facts: Mapping[str, Any]) -> JobDefinition:
    """From a table of holdfast.toml."""
    return JobDefinition(name=name, **{key: value for key, value in facts.items() if value is not None})
