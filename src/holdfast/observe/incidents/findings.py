"""What a tally comes to: the figures of a report, ready to be shown as text, as a page or as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from holdfast.observe.incidents.log_events import lane_class
from holdfast.observe.incidents.tally import DAY_MS, HOUR_MS, RACED_NOTHING, Failure, Tally

BUCKETS_MAX = 72
TOP = 20
_STEPS_MS = (HOUR_MS // 60, HOUR_MS // 6, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 365 * DAY_MS)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some durations in milliseconds; None where there are none."""

    p50: int | None
    max: int | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A session and how often it was hit."""

    transcript: str
    takeovers: int
    lock_timeouts: int
    lanes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of time, by its beginning."""

    from_ms: int
    takeovers: int
    lock_timeouts: int


@dataclass(frozen=True, slots=True)
class Findings:
    """A report.

    Args:
        first_ms, last_ms: of the events that were counted, UTC.
        undated: events whose line did not tell when.
        takeovers, lock_timeouts: each failure once, however many lanes told of it.
        transcripts: how many had a takeover.
        without_reply: takeovers after which the run said that it ended before its reply; the share is of `takeovers`.
        durations: how long the runs had gone on that a takeover ended.
        between: time from one takeover to the next.
        lanes, raced: takeovers by lane class, by what was going on beside.
        hours: takeovers by hour of the day, UTC.
        walks_local: chains of models that were walked for a lock or a changed session; `pinned_by_local` of these ended
            on another model than was asked for.
    """

    files: tuple[str, ...]
    first_ms: int | None
    last_ms: int | None
    events: int
    undated: int
    takeovers: int
    lock_timeouts: int
    transcripts: int
    without_reply: int
    without_reply_share: float
    durations: Spread
    between: Spread
    lanes: dict[str, int]
    raced: dict[str, int]
    hours: list[int]
    buckets: list[Bucket]
    bucket_ms: int
    sessions: list[Ranked]
    lane_errors: dict[str, int]
    decisions: int
    local_decisions: int
    lock_decisions: int
    walks: int
    walks_local: int
    exhausted: int
    exhausted_local: int
    reasons: dict[str, int]
    answered_by_other: dict[str, int]
    pinned_by_local: int
    standstill: dict[str, int]
    standstill_reasons: dict[str, int]
    standstill_sessions: dict[str, int]
    longest_standstill_s: float
    recoveries_requested: int
    recoveries: dict[str, int]
    not_kept: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that should be looked at."""
        bad = self.takeovers + self.lock_timeouts + self.walks_local + self.exhausted + sum(self.lane_errors.values())
        return bad + self.standstill.get("stuck", 0) + self.standstill.get("stalled", 0) == 0


def findings_of(tally: Tally, files: Sequence[str]) -> Findings:
    """The report of what was counted."""
    takeovers = [one for one in tally.failures if one.kind == "takeover"]
    locks = [one for one in tally.failures if one.kind == "lock_timeout"]
    hit = {name: one for name, one in tally.sessions.items() if one.takeovers or one.lock_timeouts}
    ranked = sorted(hit.items(), key=lambda item: (-item[1].takeovers, -item[1].lock_timeouts, item[0]))
    count = sum(one.takeovers for one in hit.values())
    unanswered = sum(not one.replied for one in takeovers)
    step = _step(tally.first_ms, tally.last_ms)
    return Findings(
        files=tuple(files),
        first_ms=tally.first_ms,
        last_ms=tally.last_ms,
        events=tally.lines,
        undated=tally.undated,
        takeovers=count,
        lock_timeouts=sum(one.lock_timeouts for one in hit.values()),
        transcripts=sum(one.takeovers > 0 for one in hit.values()),
        without_reply=unanswered,
        without_reply_share=round(unanswered / count, 4) if count else 0.0,
        durations=_spread([one.duration_ms for one in takeovers]),
        between=_spread(_gaps(takeovers)),
        lanes=_ranked(Counter(lane_class(one.lane) for one in takeovers)),
        raced=_ranked(Counter(one.raced or RACED_NOTHING for one in takeovers)),
        hours=_by_hour(takeovers),
        buckets=_buckets(takeovers, locks, step),
        bucket_ms=step,
        sessions=[
            Ranked(name, one.takeovers, one.lock_timeouts, _ranked(+one.lanes)) for name, one in ranked[: TOP * 5]
        ],
        lane_errors=_ranked(tally.lane_errors),
        decisions=tally.decisions,
        local_decisions=tally.local_decisions,
        lock_decisions=tally.lock_decisions,
        walks=tally.walks,
        walks_local=tally.walks_local,
        exhausted=tally.exhausted,
        exhausted_local=tally.exhausted_local,
        reasons=_ranked(tally.reasons),
        answered_by_other=_ranked(tally.answered_by_other),
        pinned_by_local=tally.pinned_by_local,
        standstill=_ranked(tally.standstill),
        standstill_reasons=_ranked(tally.standstill_reasons),
        standstill_sessions=_ranked(tally.standstill_sessions, TOP),
        longest_standstill_s=tally.longest_standstill_s,
        recoveries_requested=tally.recoveries_requested,
        recoveries=_ranked(tally.recoveries),
        not_kept=tally.failures_dropped,
    )


def _ranked(counts: Counter[str], most: int | None = None) -> dict[str, int]:
    """The most frequent first, names in order among equals."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])


def _spread(durations: list[int]) -> Spread:
    return Spread(int(median(durations)), max(durations)) if durations else Spread(None, None)


def _gaps(failures: Sequence[Failure]) -> list[int]:
    times = sorted(one.at_ms for one in failures if one.at_ms is not None)
    return [later - earlier for earlier, later in pairwise(times)]


def _by_hour(failures: Sequence[Failure]) -> list[int]:
    hours = [0] * 24
    for one in failures:
        if one.at_ms is not None:
            hours[one.at_ms % DAY_MS // HOUR_MS] += 1
    return hours


def _step(first_ms: int | None, last_ms: int | None) -> int:
    span = (last_ms or 0) - (first_ms or 0)
    return next((step for step in _STEPS_MS if span // step < BUCKETS_MAX), _STEPS_MS[-1])


def _buckets(takeovers: Sequence[Failure], locks: Sequence[Failure], step: int) -> list[Bucket]:
    """From the first failure to the last, those with nothing in them included."""
    counts = [Counter(one.at_ms // step for one in some if one.at_ms is not None) for some in (takeovers, locks)]
    numbers = [*counts[0], *counts[1]]
    if not numbers:
        return []
    first = max(min(numbers), max(numbers) - BUCKETS_MAX * 2)
    return [Bucket(n * step, counts[0][n], counts[1][n]) for n in range(first, max(numbers) + 1)]
