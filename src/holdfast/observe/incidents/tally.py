"""From events to a report, in one pass and in bounded memory. Pure.

A failure is told of twice where one run goes through two lanes: by the lane of its session and by the shared lane it
took a slot of. Both lines are one failure: same transcript, same kind, ends and durations within a second or two.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.observe.incidents.log_events import Event, is_session_lane, lane_class

SAME_END_MS = 2000
SAME_DURATION_MS = 1000
NO_REPLY_MS = 10_000
"""A run says that it ended without a reply within moments of its lanes' lines."""
RECENT_MAX = 32
SESSIONS_MAX = 50_000
"""Transcripts that are kept apart; those past it are counted as one."""
SAMPLES_MAX = 100_000
"""Failures that are kept for spreads and histograms; those past it are counted all the same."""
OTHERS = "(others)"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WALK_GAP_MS = 10 * MINUTE_MS
RACED_NOTHING = "nothing else in the log (a writer that logs nothing: a mirror, another process, an editor)"
RACED_RECOVERY = "a recovery of the session while the run was going on"
RACED_LOCK = "a wait for the session's write lock that timed out"


@dataclass(slots=True)
class Failure:
    """One takeover or lock timeout. `lanes`: those that told of it."""

    kind: str
    at_ms: int | None
    duration_ms: int
    lanes: list[str]
    raced: str = ""
    replied: bool = True
    lane: str = field(init=False)  # the one that says most: that of the session, if it is named

    def __post_init__(self) -> None:
        self.lane = self.lanes[0]

    def also_told_of_by(self, lane: str) -> None:
        self.lanes.append(lane)
        if not is_session_lane(self.lane):
            self.lane = lane

    def is_told_of_by(self, event: Event) -> bool:
        """Whether an event is another line about this failure."""
        if event.kind != self.kind or event.lane in self.lanes:
            return False
        if event.at_ms is not None and self.at_ms is not None and abs(event.at_ms - self.at_ms) > SAME_END_MS:
            return False
        if is_session_lane(event.lane) and is_session_lane(self.lane):
            return False
        return abs((event.duration_ms or 0) - self.duration_ms) <= SAME_DURATION_MS


@dataclass(slots=True)
class _Session:
    """What is remembered of a transcript."""

    failures: deque[Failure] = field(default_factory=lambda: deque[Failure](maxlen=RECENT_MAX))
    unanswered: deque[int | None] = field(default_factory=lambda: deque[int | None](maxlen=RECENT_MAX))
    takeovers: int = 0
    lock_timeouts: int = 0
    lanes: Counter[str] = field(default_factory=Counter[str])


@dataclass(slots=True)
class _Walk:
    """A chain of models that one run went through."""

    at_ms: int | None
    failed: int = 0
    local: int = 0


@dataclass(slots=True)
class Tally:
    """Counts events. Feed it with `add`, then read it with `findings.findings_of`."""

    sessions: dict[str, _Session] = field(default_factory=dict[str, _Session])
    lines: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    undated: int = 0
    lane_errors: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    local_decisions: int = 0
    lock_decisions: int = 0
    decisions: int = 0
    walks: int = 0
    walks_local: int = 0
    exhausted: int = 0
    exhausted_local: int = 0
    answered_by_other: Counter[str] = field(default_factory=Counter[str])
    pinned_by_local: int = 0
    standstill: Counter[str] = field(default_factory=Counter[str])
    standstill_reasons: Counter[str] = field(default_factory=Counter[str])
    standstill_sessions: Counter[str] = field(default_factory=Counter[str])
    longest_standstill_s: float = 0.0
    recoveries_requested: int = 0
    recoveries: Counter[str] = field(default_factory=Counter[str])
    unmatched_no_reply: int = 0
    _walk: dict[str, _Walk] = field(default_factory=dict[str, _Walk])
    _recovered: dict[str, deque[int]] = field(default_factory=dict[str, "deque[int]"])
    failures: list[Failure] = field(default_factory=list[Failure])
    failures_dropped: int = 0

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._add(event)

    def _add(self, event: Event) -> None:
        self.lines += 1
        if event.at_ms is None:
            self.undated += 1
        else:
            self.first_ms = event.at_ms if self.first_ms is None else min(self.first_ms, event.at_ms)
            self.last_ms = event.at_ms if self.last_ms is None else max(self.last_ms, event.at_ms)
        if event.kind in ("takeover", "lock_timeout"):
            self._add_failure(event)
        elif event.kind == "lane_error":
            self.lane_errors[event.what] += 1
        elif event.kind == "no_reply":
            self._add_no_reply(event)
        elif event.kind in ("candidate_failed", "candidate_succeeded", "exhausted"):
            self._add_decision(event)
        elif event.kind == "recovery_requested":
            self.recoveries_requested += 1
            self._note_recovery(event)
        elif event.kind == "recovery_completed":
            self.recoveries[event.what] += 1
            self._note_recovery(event)
        else:
            self._add_standstill(event)

    # ── takeovers and lock timeouts ──────────────────────────────────────────────────────────────────────────────────

    def _session(self, transcript: str) -> _Session:
        known = self.sessions.get(transcript)
        if known is None:
            if len(self.sessions) >= SESSIONS_MAX:
                transcript = OTHERS
            known = self.sessions.setdefault(transcript, _Session())
        return known

    def _add_failure(self, event: Event) -> None:
        session = self._session(event.transcript or f"(no file named, lane {lane_class(event.lane)})")
        for failure in reversed(session.failures):
            if failure.is_told_of_by(event):
                before = lane_class(failure.lane)
                failure.also_told_of_by(event.lane)
                self._recount(session, before, lane_class(failure.lane))
                return
        failure = Failure(event.kind, event.at_ms, event.duration_ms or 0, [event.lane])
        failure.replied = not self._takes_no_reply(session, failure)
        self._find_race(session, failure)
        session.failures.append(failure)
        session.takeovers += event.kind == "takeover"
        session.lock_timeouts += event.kind == "lock_timeout"
        session.lanes[lane_class(event.lane)] += 1
        if len(self.failures) < SAMPLES_MAX:
            self.failures.append(failure)
        else:
            self.failures_dropped += 1

    @staticmethod
    def _recount(session: _Session, before: str, after: str) -> None:
        if before != after:
            session.lanes[before] -= 1
            session.lanes[after] += 1

    def _find_race(self, session: _Session, failure: Failure) -> None:
        """What else the log tells of this transcript while the run was going on. Marks the other one, too."""
        if failure.at_ms is None:
            return
        began = failure.at_ms - failure.duration_ms
        for other in reversed(session.failures):
            if other.at_ms is None or other.at_ms < began - SAME_END_MS:
                continue
            if other.kind == "lock_timeout" and failure.kind == "takeover":
                failure.raced = failure.raced or RACED_LOCK
            elif other.lane != failure.lane:
                both = sorted({lane_class(other.lane), lane_class(failure.lane)})
                raced = " and ".join(both) if len(both) == 2 else f"two of {both[0]}"
                failure.raced, other.raced = raced, other.raced or raced
                return
        key = failure.lane.removeprefix("session:")
        if any(began <= at_ms <= failure.at_ms + SAME_END_MS for at_ms in self._recovered.get(key, ())):
            failure.raced = RACED_RECOVERY

    def _takes_no_reply(self, session: _Session, failure: Failure) -> bool:
        """Whether a run has said already that this failure left it without a reply."""
        for at_ms in list(session.unanswered):
            if at_ms is None or failure.at_ms is None or abs(at_ms - failure.at_ms) <= NO_REPLY_MS:
                session.unanswered.remove(at_ms)
                self.unmatched_no_reply -= 1
                return True
        return False

    def _add_no_reply(self, event: Event) -> None:
        if not event.is_local:
            return
        session = self._session(event.transcript) if event.transcript else None
        for failure in reversed(session.failures if session is not None else ()):
            near = event.at_ms is None or failure.at_ms is None or abs(event.at_ms - failure.at_ms) <= NO_REPLY_MS
            if failure.replied and near:
                failure.replied = False
                return
        self.unmatched_no_reply += 1
        if session is not None:
            session.unanswered.append(event.at_ms)

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_decision(self, event: Event) -> None:
        if event.kind == "exhausted":
            self.exhausted += 1
            self.exhausted_local += event.is_local
            self._walk.clear()  # whose chain it was is not said; one run's lines stand together
            if event.is_local:
                self._add_no_reply(event)
            return
        if event.kind == "candidate_succeeded":
            walks = self._walk
            walk = walks.pop(event.requested, None) or (walks.popitem()[1] if len(walks) == 1 else None)
            if walk is not None and event.candidate:
                self.answered_by_other[event.candidate] += 1
                self.pinned_by_local += walk.local > 0
            return
        self.decisions += 1
        self.local_decisions += event.is_local
        self.lock_decisions += event.is_lock
        self.reasons["a lock or a changed session" if event.is_local else event.what] += 1
        walk = self._walk.get(event.requested)
        if walk is None or _apart(walk.at_ms, event.at_ms):
            self.walks += 1
            if len(self._walk) > RECENT_MAX:
                self._walk.clear()
            walk = self._walk[event.requested] = _Walk(event.at_ms)
        walk.at_ms = event.at_ms
        walk.failed += 1
        if event.is_local and not walk.local:
            self.walks_local += 1
        walk.local += event.is_local

    # ── standing still ───────────────────────────────────────────────────────────────────────────────────────────────

    def _add_standstill(self, event: Event) -> None:
        self.standstill[event.kind] += 1
        if event.what:
            self.standstill_reasons[event.what] += 1
        self.longest_standstill_s = max(self.longest_standstill_s, event.age_s or 0.0)
        if event.kind != "long_running" and len(self.standstill_sessions) < SESSIONS_MAX:
            self.standstill_sessions[event.session or event.transcript or "(not named)"] += 1

    def _note_recovery(self, event: Event) -> None:
        if event.at_ms is not None and event.session and len(self._recovered) < SESSIONS_MAX:
            self._recovered.setdefault(event.session, deque(maxlen=RECENT_MAX)).append(event.at_ms)


def _apart(one_ms: int | None, other_ms: int | None) -> bool:
    return one_ms is not None and other_ms is not None and abs(other_ms - one_ms) > WALK_GAP_MS
