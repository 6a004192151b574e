"""What a session's state amounts to, and what recovery may do about it: plain functions from facts to words.

A claim says who owns; a sentinel says who is dead; a beat, watched standing still, says who lapsed. Nothing here asks a
clock: ages are facts that were measured by whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.recovery.progress import Report
from holdfast.session.fence import Epoch

# ── what somebody should look at ─────────────────────────────────────────────────────────────────────────────────────

Event = Literal["session.long_running", "session.stalled", "session.stuck"]
Classification = Literal["long_running", "stalled_agent_run", "blocked_tool_call", "stale_session_state"]
Work = Literal["embedded_run", "model_call", "tool_call"]
Guard = Literal["retry_deadline", "human_question", "compaction", "runtime_wait"]
"""What silence is made of without being a standstill."""

TERMINAL_PROGRESS = ("response completed", "response.completed", "turn completed", "turn.answer", "turn.settled")
"""The last thing heard of the work says that it is over."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What is known of the work of a session that is marked as busy.

    Args:
        work: what kind; None: no work is known at all.
        owned: whether a turn of a living process owns it.
        progress_age_ms: since anything was heard of it; None: never.
        tool_age_ms: since its running tool call began; None: no tool runs.
        last_progress: what was heard last.
        guard: it waits for something whose time is not over; it then works, however silent it is.
    """

    work: Work | None = None
    owned: bool = True
    progress_age_ms: int | None = None
    tool_age_ms: int | None = None
    last_progress: str | None = None
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """Why somebody should look at a session. Only `session.stuck` may be recovered by itself: nothing of it lives."""

    event: Event
    reason: str
    classification: Classification

    @property
    def recovery_eligible(self) -> bool:
        return self.event == "session.stuck"


def attention(activity: Activity, *, queued: int, idle: bool, stale_ms: int) -> Attention:
    """What a session that has been busy for longer than `stale_ms` amounts to.

    Args:
        queued: inputs that wait in it.
        idle: whether it is marked as idle although something waits.

    Source: semantics.md 2.9.
    """
    if activity.work is None:
        return Attention("session.stuck", "stale_session_state", "stale_session_state")
    is_old = activity.progress_age_ms is None or activity.progress_age_ms > stale_ms
    if not activity.owned and idle and queued and is_old:
        return Attention("session.stuck", "queued_work_without_active_run", "stale_session_state")
    if not activity.owned:
        return Attention("session.stalled", "active_work_without_progress", "stalled_agent_run")
    if activity.guard is not None:
        return Attention("session.long_running", activity.guard, "long_running")
    if activity.tool_age_ms is not None and activity.tool_age_ms > stale_ms and is_old:
        return Attention("session.stalled", "blocked_tool_call", "blocked_tool_call")
    if queued and activity.last_progress in TERMINAL_PROGRESS:
        return Attention("session.stalled", "queued_behind_terminal_active_work", "stalled_agent_run")
    if is_old:
        return Attention("session.stalled", "active_work_without_progress", "stalled_agent_run")
    return Attention("session.long_running", "active_work", "long_running")


# ── what recovery may do ─────────────────────────────────────────────────────────────────────────────────────────────

Life = Literal["alive", "dead", "unknown"]
Kind = Literal["close_dead", "close_lapsed", "ask_to_end"]
Outcome = Literal["effective", "ineffective", "not_needed"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A claim as the ledger shows it.

    Args:
        sessions: the keys of its transcript.
        life: of its process, by its sentinel.
        pid: for people.
        still_s: for how long its beat has been watched standing still, without a gap, by whoever asks; 0: not watched.
        is_ours: it belongs to the very process that asks.
        since_ms: when it was claimed, wall time, for people.
        queued: inputs that wait for the transcript.
        report: what its turn was last heard of, as of its last beat; None: nothing yet.
    """

    transcript: str
    sessions: tuple[str, ...]
    epoch: Epoch
    turn: str
    lane: str
    process: str
    pid: int | None
    life: Life
    input_id: str | None = None
    still_s: float = 0.0
    is_ours: bool = False
    since_ms: int = 0
    queued: int = 0
    report: Report | None = None

    @property
    def where(self) -> str:
        """Its session keys, for people."""
        return ", ".join(self.sessions) or self.transcript


@dataclass(frozen=True, slots=True)
class Action:
    """Close one turn, or ask it to end itself, if its transcript is still owned by this very epoch when it is done."""

    kind: Kind
    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A turn that recovery does not touch, and why."""

    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What recovery would do. `left_alone`: turns that it must not touch."""

    actions: tuple[Action, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()


def plan_recovery(owners: Iterable[Owner], *, beat_term_s: float, ask: str | None = None) -> Plan:
    """The dead are closed; the living are left alone, but for those whose beat has stood still for the whole term.

    Args:
        ask: by whose order living owners are asked to end their turns; None: they are not.
    """
    actions: list[Action] = []
    left: list[LeftAlone] = []
    for owner in owners:
        if owner.life == "dead" and not owner.is_ours:
            actions.append(Action("close_dead", owner, "its process is dead"))
        elif owner.still_s >= beat_term_s and not owner.is_ours:
            actions.append(Action("close_lapsed", owner, f"its beat has stood still for {owner.still_s:.0f} s"))
        elif ask is not None and owner.life != "dead":
            actions.append(Action("ask_to_end", owner, f"{ask} asked for its end"))
        elif owner.is_ours:
            left.append(LeftAlone(owner, "it runs in this very process"))
        elif owner.life == "unknown":
            left.append(LeftAlone(owner, "nobody can tell whether its process lives; watch it with --wait"))
        else:
            left.append(LeftAlone(owner, "its process lives"))
    return Plan(tuple(actions), tuple(left))


def judge(action: Action, *, closed: bool, owners_now: Iterable[Owner]) -> Outcome:
    """What an action has come to, by what the ledger shows afterwards and not by what it was told."""
    still_owned = any(
        one.transcript == action.owner.transcript and one.epoch == action.owner.epoch for one in owners_now
    )
    if still_owned:
        return "ineffective"
    return "effective" if closed else "not_needed"


# ── boots ────────────────────────────────────────────────────────────────────────────────────────────────────────────

BOOT_WINDOW_S = 300.0
UNCLEAN_BOOTS_MAX = 3
"""So many gateways that began within the window and ended without saying so: something about the work or the machine
kills them, and starting once more would do it again. Source: semantics.md 2.10."""


@dataclass(frozen=True, slots=True)
class Boot:
    """A gateway that was started. `life` by its sentinel, which may have been tidied away when it was dead; `clean`: it
    ended in order.
    """

    process: str
    at_ms: int
    life: Life
    clean: bool = False


def unclean_boots(boots: Sequence[Boot], now_ms: int) -> list[Boot]:
    """Those that count: within the window (a clock that was set back counts as within), over, and not in order."""
    since_ms = now_ms - int(BOOT_WINDOW_S * 1000)
    return [boot for boot in boots if boot.at_ms >= since_ms and boot.life != "alive" and not boot.clean]


def is_crash_loop(boots: Sequence[Boot], now_ms: int, unclean_max: int = UNCLEAN_BOOTS_MAX) -> bool:
    """Whether the breaker trips. `unclean_max` 0: never."""
    return 0 < unclean_max <= len(unclean_boots(boots, now_ms))
