"""Which turns stand still, who is told of it and when, and what may be done: plain functions from facts to words.

A turn that is heard of works, however long it takes. One that is not is told of, each time after twice as long; it is
asked to end only past a second age, only if that is allowed, and never before what it does has had the time it may take
by itself (a tool's limit, a model's longest silence, a pause before it is asked again). It is taken over only if its
process is dead or its beat has stood still for the whole term (`classify.plan_recovery`).

Source of rules and numbers: semantics.md 2.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from holdfast.recovery.classify import (
    TERMINAL_PROGRESS,
    Activity,
    Attention,
    Classification,
    Event,
    Guard,
    Owner,
    Work,
    attention,
)
from holdfast.recovery.progress import WAITS, Report, words_of
from holdfast.session.fence import Epoch

WARN_S = 120.0
ABORT_S_MIN = 300.0
LIMIT_GRACE_S = 30.0
"""How long past its own limit something may still be about to end by itself: two beats."""
SETTLE_S = 15.0
"""How long a turn that was asked to end may take for it before that is reported as without effect."""
TOLD_MAX = 24
"""So many warnings of one standstill, each after twice as long as the one before, are more than anybody's lifetime."""

LiveOwners = Literal["warn", "ask"]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How turns are watched.

    Args:
        warn_s: not heard of for so long, a turn is told of. abort_s: for so long, it may be asked to end; None: the
            longer of 5 minutes and 3 x `warn_s`.
        live_owners: "warn": nobody who lives is asked to end; "ask": they are, past `abort_s`.
        self_recovery: False: nothing is done by itself, for no session; somebody outside does it.
        supervised: sessions of which somebody outside takes care: keys, or patterns with `*`.
        fresh_after: so many turns of a session in a row that ended by recovery or died make the next one begin a
            new conversation; 0: never.
    """

    warn_s: float = WARN_S
    abort_s: float | None = None
    live_owners: LiveOwners = "warn"
    self_recovery: bool = True
    supervised: tuple[str, ...] = ()
    fresh_after: int = 0

    @property
    def abort_age_s(self) -> float:
        return max(ABORT_S_MIN, 3 * self.warn_s) if self.abort_s is None else self.abort_s

    def is_left(self, sessions: Iterable[str]) -> bool:
        """Whether recovering these sessions, which share a transcript, is somebody else's business."""
        if not self.self_recovery:
            return True
        return any(fnmatchcase(key, pattern) for key in sessions for pattern in self.supervised)


# ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Finding:
    """An owner, and what it amounts to.

    Args:
        attention: None: it has not been at work for long enough to be told of.
        still_s: how long its turn has not been heard of, as far as anybody can tell.
        lapsed: nothing of it lives: its process is dead, or its beat has stood still for the whole term.
    """

    owner: Owner
    attention: Attention | None
    still_s: float
    running_s: float
    lapsed: bool = False

    @property
    def episode(self) -> int:
        """Names one standstill: the same as long as nothing is heard. Work that goes on is one episode as a whole."""
        if self.attention is None or self.attention.event == "session.long_running":
            return -1
        return self.owner.report.count if self.owner.report is not None else 0

    @property
    def age_s(self) -> float:
        """By what warnings are spaced."""
        is_at_work = self.attention is not None and self.attention.event == "session.long_running"
        return self.running_s if is_at_work else self.still_s


def examine(owner: Owner, *, watched_s: float, beat_term_s: float, settings: WatchSettings) -> Finding:
    """What an owner amounts to now.

    Args:
        watched_s: for how long the asking process has watched it claimed, by its own clock: all that is known of a turn
            that has not handed anything over yet.
        settings: `warn_s` of it.
    """
    lapsed = owner.life == "dead" or owner.still_s >= beat_term_s
    report = owner.report
    later_ms = int(owner.still_s * 1000)
    if report is not None and not owner.is_ours and later_ms:
        report = report.later(later_ms)  # what was told with the last beat is as old as that
    still_s = watched_s if report is None else report.still_ms / 1000
    running_s = watched_s if report is None else report.running_ms / 1000
    found: Attention | None = None
    if lapsed or running_s > settings.warn_s:
        activity = activity_of(report, lapsed=lapsed, still_s=still_s)
        stale_ms = int(settings.warn_s * 1000)
        found = attention(activity, queued=owner.queued, idle=False, stale_ms=stale_ms)
    return Finding(owner, found, still_s, running_s, lapsed)


def activity_of(report: Report | None, *, lapsed: bool, still_s: float) -> Activity:
    """The facts in the words of `classify.attention`. Of a turn that lapsed no work is known any more."""
    if lapsed:
        return Activity()
    if report is None:
        return Activity("embedded_run", progress_age_ms=int(still_s * 1000))
    work: Work = "embedded_run"
    if report.doing in ("tool", "question"):
        work = "tool_call"
    elif report.doing in ("model", "retry"):
        work = "model_call"
    is_over = report.doing == "settling"
    return Activity(
        work,
        progress_age_ms=report.still_ms,
        tool_age_ms=report.doing_ms if work == "tool_call" else None,
        last_progress=TERMINAL_PROGRESS[-1] if is_over else report.doing,
        guard=guard_of(report),
    )


def guard_of(report: Report) -> Guard | None:
    """What silence is made of, if it is no standstill: a wait whose own limit, if it has one, has not passed."""
    if report.doing not in WAITS or is_past_limit(report):
        return None
    guards: dict[str, Guard] = {"retry": "retry_deadline", "question": "human_question", "compaction": "compaction"}
    return guards.get(report.doing, "runtime_wait")


def is_past_limit(report: Report) -> bool:
    """Whether what a turn does should have ended by itself. A model may be silent for so long, anything else may last
    for so long. Without a limit: nobody can say, and it is not.
    """
    if report.limit_ms is None:
        return False
    age_ms = report.still_ms if report.doing == "model" else report.doing_ms
    return age_ms > report.limit_ms + int(LIMIT_GRACE_S * 1000)


# ── who is told ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Mark:
    """What has been told of an owner, and what was asked of it: one row for all processes, so that one of them acts.

    Args:
        turn, epoch: of which owner; never of the one after it.
        told: how many warnings of this episode; each comes after twice as long as the one before.
        asked: why it was asked to end; None: it was not.
        outcome: what came of asking, once that is known.
        revision: what a change compares.
    """

    turn: str
    transcript: str
    session: str
    epoch: Epoch
    event: Event
    reason: str
    episode: int
    told: int
    asked: str | None = None
    outcome: str | None = None
    revision: int = 0


def with_mark(finding: Finding, mark: Mark | None) -> Finding:
    """The finding of somebody who looks once, in the light of what those who watch have told."""
    if mark is None or finding.attention is not None or mark.epoch != finding.owner.epoch:
        return finding
    if finding.owner.report is not None and finding.owner.report.count != mark.episode:
        return finding
    kind: Classification = "stalled_agent_run" if mark.event == "session.stalled" else "stale_session_state"
    kind = "long_running" if mark.event == "session.long_running" else kind
    return replace(finding, attention=Attention(mark.event, mark.reason, kind))


def is_due(finding: Finding, mark: Mark | None, settings: WatchSettings) -> bool:
    """Whether there is something new to tell: another class, another standstill, or the old one twice as long."""
    if finding.attention is None:
        return False
    if mark is None or (mark.event, mark.episode) != (finding.attention.event, finding.episode):
        return True
    return mark.told < TOLD_MAX and finding.age_s > settings.warn_s * 2**mark.told


def marked(finding: Finding, mark: Mark | None, settings: WatchSettings) -> Mark:
    """The mark after a warning. Whoever comes late does not catch up on warnings that nobody gave."""
    owner, found = finding.owner, finding.attention
    assert found is not None
    told = 1
    while told < TOLD_MAX and finding.age_s > settings.warn_s * 2**told:
        told += 1
    kept = (mark.asked, mark.outcome, mark.revision) if mark is not None else (None, None, 0)
    return Mark(owner.turn, owner.transcript, owner.where, owner.epoch, found.event, found.reason, finding.episode,
                told, *kept)  # fmt: skip


# ── what is done ─────────────────────────────────────────────────────────────────────────────────────────────────────


def may_ask(finding: Finding, mark: Mark | None, settings: WatchSettings) -> str | None:
    """Why a live owner is to be asked to end its turn now, in words for people; None: it is not.

    It has been told of before as standing still in this very way; nothing has been heard of it for the abort age; what
    it does is past its own limit, if it has one; it has not been asked before.
    """
    found, report = finding.attention, finding.owner.report
    if settings.live_owners != "ask" or settings.is_left(finding.owner.sessions) or finding.lapsed:
        return None
    if found is None or found.event != "session.stalled" or mark is None or mark.asked is not None:
        return None
    if (mark.event, mark.episode) != (found.event, finding.episode) or finding.still_s <= settings.abort_age_s:
        return None
    if report is not None and report.limit_ms is not None and not is_past_limit(report):
        return None
    what = words_of(report.doing, report.name) if report is not None else "turn"
    return f"nothing had been heard of its {what} for {finding.still_s:.0f} s"


def next_step(finding: Finding, settings: WatchSettings) -> str:
    """What becomes of it, in words for whoever reads a warning."""
    owner, found = finding.owner, finding.attention
    where = owner.sessions[0] if owner.sessions else owner.transcript
    if settings.is_left((*owner.sessions,)):
        return f"left to whoever supervises it; `holdfast recover {where}` acts"
    if found is not None and found.event == "session.long_running":
        return "nothing: it works"
    if finding.lapsed:
        return "its turn is closed and its input queued again"
    if settings.live_owners == "ask":
        return f"it is asked to end once it has stood still for {settings.abort_age_s:.0f} s and is past its own limit"
    return f"nothing by itself; `holdfast stop {owner.input_id or owner.turn}` asks it to end"


def facts_of(finding: Finding, settings: WatchSettings) -> dict[str, object]:
    """Everything a warning says: who owns, since when, doing what; the data of its event."""
    owner, found, report = finding.owner, finding.attention, finding.owner.report
    return {
        "reason": found.reason if found is not None else None,
        "process": owner.process,
        "pid": owner.pid,
        "turn": owner.turn,
        "lane": owner.lane,
        "since_ms": owner.since_ms,
        "running_s": round(finding.running_s),
        "doing": report.doing if report is not None else None,
        "name": report.name if report is not None else None,
        "doing_s": report.doing_ms // 1000 if report is not None else None,
        "still_s": round(finding.still_s),
        "queued": owner.queued,
        "next": next_step(finding, settings),
    }


def in_words(finding: Finding) -> str:
    """What an owner does, for people: its process, what it does and for how long, what that amounts to."""
    owner, report = finding.owner, finding.owner.report
    pid = f" (pid {owner.pid})" if owner.pid is not None else ""
    doing = "begun a moment ago" if report is None else report.in_words
    if finding.lapsed:
        doing = "dead" if owner.life == "dead" else f"no sign of life for {owner.still_s:.0f} s"
    amounts = "" if finding.attention is None else f"; {finding.attention.event} ({finding.attention.reason})"
    return f"process {owner.process}{pid}, lane {owner.lane}: {doing}{amounts}"
