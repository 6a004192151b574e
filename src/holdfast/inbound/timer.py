"""What timers are: cron jobs and heartbeats, their runs, and what wakes them early. Values; no I/O.

    timer   a thing with a schedule, in the ledger, shared by all processes of a state
    run     one time at which it fired, or was skipped, with two outcomes: of the work and of the delivery
    wake    something that happened and that a heartbeat is to be told of, now or at its next run

A timer changes by compare-and-set on its `revision`. Its run is accepted first, under a key made of timer and scheduled
time, then the timer moves on: whoever dies between the two leaves a run that the next process finds by its key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.ids import derived_id

TimerState = Literal["active", "paused", "disabled", "done"]
RunState = Literal["running", "ok", "failed", "skipped", "cancelled"]
HEARTBEAT, CRON = "heartbeat", "cron"


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer as the ledger has it.

    Args:
        id: "cron:<name>" or "heartbeat:<agent>".
        source: who defined it: "config" (those not in the file any more are removed) or "cli".
        spec: its definition, JSON; read by `cron.py` and `timers.py`.
        state: "active"; "paused" by somebody; "disabled" after too many failures; "done": it will not fire again.
        next_at_ms: the scheduled time of its next run, which names that run. None: none.
        not_before_ms: when that run may begin (back-off, missed runs made up for one after another).
        attempt: the try of that run that is next, from 1.
        failures: in a row.
        memo: what the next decision needs to know of the last ones.
        revision: counts its changes.
    """

    id: str
    kind: str
    source: str
    spec: dict[str, Any]
    state: TimerState = "active"
    next_at_ms: int | None = None
    not_before_ms: int = 0
    attempt: int = 1
    failures: int = 0
    alerted_at_ms: int | None = None
    memo: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    detail: str | None = None

    @property
    def name(self) -> str:
        """The id without its kind."""
        return self.id.partition(":")[2]


@dataclass(frozen=True, slots=True)
class TimerRun:
    """One run.

    Args:
        scheduled_at_ms: the time it was due.
        reason: "schedule", "manual", or what woke it.
        state: of the work. "skipped" with the reason in `detail`; skips for the same reason in a row are one row, from
            `began_at_ms` to `ended_at_ms`.
        input_id: the input that does the work.
        announce_id: the input that brings its result to a conversation or a webhook.
        delivery: of the result: "none" (nothing was to go out), "kept" (in the conversation, on no channel), "pending",
            "sent", "failed", "unknown". Told by the ledger when it is read, never written.
    """

    id: str
    timer: str
    scheduled_at_ms: int
    attempt: int
    reason: str
    state: RunState
    began_at_ms: int
    ended_at_ms: int | None = None
    input_id: str | None = None
    announce_id: str | None = None
    detail: str | None = None
    delivery: str = "none"


@dataclass(frozen=True, slots=True)
class Wake:
    """Something that a timer is woken by. `mode` "now", or "next": at its next run. `text`: what it is told; may be
    empty.
    """

    id: str
    timer: str
    reason: str
    text: str
    mode: Literal["now", "next"]
    at_ms: int


def run_id(timer: str, scheduled_at_ms: int, attempt: int, by: str = "") -> str:
    """The name of a run: the same in every process. `by`: of those that are not scheduled, what asked for it."""
    return "run_" + derived_id("run", timer, scheduled_at_ms, attempt, by)


def run_key(timer: str, scheduled_at_ms: int, attempt: int, by: str = "") -> str:
    """The idempotency key of the run's input, readable. `source` and `account` of its event name timers and kind."""
    tail = f"#{attempt}" if attempt > 1 else ""
    return f"{timer[-300:]}@{by or scheduled_at_ms}{tail}"


def shown_timer(timer: Timer) -> dict[str, Any]:
    """A timer as JSON; addresses to post to hold secrets."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(timer)
    job = found["spec"].get("job")
    if job and job.get("url"):
        job["url"] = "***"
    return found
