"""When a timer fires next: pure arithmetic over wall time. Nothing here asks what time it is.

A schedule is one of three: `at` (once), `every` (a fixed pause), `cron` (five or six fields in a time zone). Times are
epoch milliseconds.

Cron fields are read by `cronsim`; croniter fires twice, or not at all, where clocks change. What clocks do is decided
here, by the rules of Vixie's cron:

- An expression with a fixed minute and hour names times of day. Each of them fires once a day: one that the clock jumps
  over fires at the first instant after the jump, one that comes twice fires the first time.
- An expression whose minute or hour begins with `*` names a rhythm. It fires whenever the clocks show such a time: what
  they jump over is left out, what they show twice fires twice.

Day of month and day of week are OR-ed when both are given, AND-ed when one of them begins with `*` (crontab(5)).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from holdfast.clock import epoch_ms, from_epoch_ms
from holdfast.errors import InputError

STAGGER_S_MAX = 300
"""Jobs at the top of the hour are spread over this time, each always by the same amount (semantics.md 2.6)."""

RECURRING_BACKOFF_S = (30, 60, 300, 900, 3600)
"""Pauses after the first, second, … failure in a row of a recurring job; the last one stays (semantics.md 2.6)."""

ONE_SHOT_RETRY_S = (60, 120, 300)
"""Pauses before the retries of a job that runs once; after them it has failed (semantics.md 2.6)."""

TRANSIENT = frozenset({"rate_limit", "overloaded", "timeout", "server_error"})
"""Classes of failure that a later try may not meet (`model/failure.py`)."""

ALERT_AFTER = 2
ALERT_COOL_DOWN_S = 3600
DISABLE_AFTER = 10
"""Failures in a row after which somebody is told, how long nobody is told again, and when the job is stopped
(semantics.md 2.6)."""

MISSED_MAX = 5
MISSED_APART_S = 5
MISSED_GRACE_S = 60
"""At a start at most so many missed jobs are made up for, so many seconds apart; a job less late than the grace is not
missed, only late (semantics.md 2.6; the grace is ours)."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", re.IGNORECASE)
_DURATION_MS_MAX = 100 * 365 * _UNITS["d"]

Kind = Literal["at", "every", "cron"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due. Made by `at`, `every` and `cron`.

    Args:
        moment_ms: of `at`, the time; of `every`, a time at which it fires, from which all others are counted.
        every_ms: pause of `every`.
        expression, zone: of `cron`. The zone is an IANA name.
        stagger_s: seconds after the named times of `cron`.
    """

    kind: Kind
    moment_ms: int = 0
    every_ms: int = 0
    expression: str = ""
    zone: str = "UTC"
    stagger_s: int = 0

    def in_words(self) -> str:
        """For people."""
        if self.kind == "at":
            return f"once at {from_epoch_ms(self.moment_ms).isoformat(timespec='seconds')}"
        if self.kind == "every":
            return f"every {in_words_ms(self.every_ms)}"
        late = f", {self.stagger_s} s later" if self.stagger_s else ""
        return f"cron {self.expression} ({self.zone}{late})"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def duration_ms(text: str, *, bare: str = "m") -> int | None:
    """`30m`, `1.5h`, `90s`, `365d` as milliseconds; a bare number counts in units of `bare`. None: no duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    ms = float(found[1]) * _UNITS[(found[2] or bare).lower()]
    return int(ms) if ms <= _DURATION_MS_MAX else None


def in_words_ms(ms: int) -> str:
    """The shortest exact form of a duration: `90s`, `2h`."""
    for unit in ("w", "d", "h", "m", "s"):
        if ms and ms % _UNITS[unit] == 0:
            return f"{ms // _UNITS[unit]}{unit}"
    return f"{ms}ms"


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name.

    Raises:
        InputError: there is none of that name.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as unknown:
        raise InputError(f'no time zone {name!r}; use an IANA name such as "Europe/Berlin"') from unknown


def at(text: str, now_ms: int, *, zone: str = "UTC") -> Schedule:
    """Once: at an ISO time (without an offset: of `zone`), or after a duration from now (`20m`).

    Raises:
        InputError: neither of them.
    """
    after = duration_ms(text) if not text.strip().isdigit() else None
    if after is not None:
        return Schedule("at", now_ms + after)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f'{text!r} is no time: write 2026-05-22T10:00, with an offset or "Z" if it is not {zone}, or a pause '
            "from now such as 20m"
        ) from None
    try:
        at_ms = epoch_ms(_instant(moment, zone_of(zone)) if moment.tzinfo is None else moment)
        from_epoch_ms(at_ms)
    except (OverflowError, ValueError):  # beyond the calendar, there or in UTC
        raise InputError(f"{text!r} is no time that could be told: it is before the year 1 or after 9999") from None
    return Schedule("at", at_ms)


def every(text: str, now_ms: int) -> Schedule:
    """Again and again after a pause, the first time one pause from now. A bare number is milliseconds.

    Raises:
        InputError: no duration, or less than a second.
    """
    ms = duration_ms(text, bare="ms")
    if ms is None or ms < 1000:
        raise InputError(f"{text!r} is no pause of a second or more: write 30s, 20m, 1h or 1d")
    return Schedule("every", now_ms + ms, ms)


def cron(expression: str, *, zone: str = "UTC", job: str = "", stagger_s: int | None = None) -> Schedule:
    """By five fields (minute, hour, day of month, month, day of week) or six (seconds before them).

    Args:
        job: a name from which the stagger of top-of-hour expressions follows.
        stagger_s: seconds after the named times; None: by the name, for an expression at minute 0; 0: exactly then.

    Raises:
        InputError: a field that makes no sense, named; or an unknown zone.
    """
    zone_of(zone)
    expression = " ".join(expression.split())
    try:
        CronSim(expression, datetime(2026, 1, 1))  # noqa: DTZ001  # wall time of nowhere: only the fields are read
    except (CronSimError, AssertionError, ValueError) as wrong:
        raise InputError(
            f"cron expression {expression!r}: {str(wrong) or 'cannot be read'}; write five fields (minute hour day "
            'month weekday), such as "30 7 * * MON-FRI", or six with seconds first'
        ) from wrong
    if stagger_s is None:
        stagger_s = stagger_of(job) if _is_top_of_hour(expression) else 0
    return Schedule("cron", expression=expression, zone=zone, stagger_s=stagger_s)


def stagger_of(job: str) -> int:
    """Seconds from 0 to `STAGGER_S_MAX` that follow from a job's name alone."""
    digest = hashlib.sha256(job.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % (STAGGER_S_MAX + 1)


def _is_top_of_hour(expression: str) -> bool:
    fields = expression.split()
    return fields[-5] == "0" and (len(fields) == 5 or fields[0] == "0")


# ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────────


def next_fire(schedule: Schedule, after_ms: int) -> int | None:
    """The first time after `after_ms`, or None: never again."""
    if schedule.kind == "at":
        return schedule.moment_ms if schedule.moment_ms > after_ms else None
    if schedule.kind == "every":
        gone = (after_ms - schedule.moment_ms) // schedule.every_ms + 1
        return schedule.moment_ms + gone * schedule.every_ms
    late_ms = schedule.stagger_s * 1000
    named = _next_named(schedule.expression, zone_of(schedule.zone), after_ms - late_ms)
    return None if named is None else named + late_ms


def _next_named(expression: str, zone: tzinfo, after_ms: int) -> int | None:
    """The next time that a cron expression names."""
    after = datetime.fromtimestamp(after_ms // 1000, zone)
    try:
        if _is_rhythm(expression):
            return epoch_ms(next(CronSim(expression, after)))
        # Times of day: asked for as the wall shows them, an hour back because the last one may have been jumped over.
        walls = CronSim(expression, (after - timedelta(hours=3)).replace(tzinfo=None))
        for wall in walls:
            instant_ms = epoch_ms(_instant(wall, zone))
            if instant_ms > after_ms:
                return instant_ms
    except (StopIteration, OverflowError):
        pass
    return None


def _is_rhythm(expression: str) -> bool:
    minute, hour = expression.split()[-5:-3]
    return minute.startswith("*") or hour.startswith("*")


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """When the wall clocks of a zone show `wall`: the first time of two, or the first instant after a jump over it."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    return _end_of_jump(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first, zone)


def _end_of_jump(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The instant between the two at which the zone's offset changes, to the second."""
    low, high = int(before.timestamp()), int(after.timestamp())
    old = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if datetime.fromtimestamp(middle, zone).utcoffset() == old else (low, middle)
    return datetime.fromtimestamp(high, UTC)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def backoff_s(failures: int) -> int:
    """The pause of a recurring job after so many failures in a row; 0 after none."""
    return RECURRING_BACKOFF_S[min(failures, len(RECURRING_BACKOFF_S)) - 1] if failures > 0 else 0


def retry_s(attempt: int, reason: str | None) -> int | None:
    """The pause before a one-shot job is tried again after its `attempt`th try; None: it has failed for good."""
    if reason not in TRANSIENT or attempt > len(ONE_SHOT_RETRY_S):
        return None
    return ONE_SHOT_RETRY_S[attempt - 1]


def is_alert_due(failures: int, last_alert_ms: int | None, now_ms: int, *, timed_out: bool = False) -> bool:
    """Whether somebody is told now: of a failure that may pass, from the second on; of a run that a limit has ended, at
    once, since it ends that way again. A wall clock that was set back does not keep an alert for long.
    """
    if failures < ALERT_AFTER and not timed_out:
        return False
    return last_alert_ms is None or not 0 <= now_ms - last_alert_ms < ALERT_COOL_DOWN_S * 1000


@dataclass(frozen=True, slots=True)
class Missed:
    """What becomes of jobs that were due while nobody was there: `(name, not before)`, and those left out."""

    made_up: list[tuple[str, int]]
    left_out: list[str]


def plan_missed(due: list[tuple[str, int, bool]], now_ms: int) -> Missed:
    """Of missed jobs the longest overdue are made up for, each once, some seconds apart; a job that runs only once is
    never left out, it comes after them.

    Args:
        due: name, time it was due, whether it runs only once.
    """
    missed = sorted((at_ms, name, once) for name, at_ms, once in due if now_ms - at_ms > MISSED_GRACE_S * 1000)
    chosen = [(name, once) for _, name, once in missed[:MISSED_MAX]]
    chosen += [(name, once) for _, name, once in missed[MISSED_MAX:] if once]
    made_up = [(name, now_ms + place * MISSED_APART_S * 1000) for place, (name, _) in enumerate(chosen)]
    names = {name for name, _ in made_up}
    return Missed(made_up, [name for _, name, _ in missed if name not in names])
