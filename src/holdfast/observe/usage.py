"""What models have used, summed up by day, session, agent, model or lane. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Literal, cast, get_args

from holdfast.clock import epoch_ms, iso
from holdfast.errors import InputError
from holdfast.model.usage import Used, cost_in_words, total
from holdfast.store.views import UsedIn

By = Literal["day", "session", "agent", "model", "lane"]
BYS: tuple[By, ...] = get_args(By)
SINCE_DEFAULT = "30d"
_BACK = re.compile(r"(\d{1,4})([dh])")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report: the day, session, … and what was used there."""

    name: str
    used: Used


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Answers to "what did it cost?". `lines` is empty where only the total was asked for."""

    since_ms: int
    until_ms: int
    by: By | None
    lines: tuple[Line, ...]
    total: Used


def report(
    rows: Iterable[UsedIn], *, by: By | None, since_ms: int, until_ms: int, zone: tzinfo | None = UTC
) -> UsageReport:
    """Sum up.

    Args:
        zone: whose days they are; None: this machine's own. A call belongs to the day on which it began.
    """
    rows = list(rows)
    return UsageReport(since_ms, until_ms, by, tuple(_lines(rows, by, zone)), total(row.used for row in rows))


def _lines(rows: list[UsedIn], by: By | None, zone: tzinfo | None) -> list[Line]:
    """Days in order, everything else with the dearest first."""
    found: dict[str, Used] = {}
    for row in rows if by is not None else ():
        name = day_of(row.at_ms, zone) if by == "day" else str(getattr(row, cast("str", by)))
        found[name] = found.get(name, Used()) + row.used
    lines = [Line(name, used) for name, used in found.items()]
    if by == "day":
        return sorted(lines, key=lambda line: line.name)
    return sorted(lines, key=lambda line: (-line.used.cost, -line.used.tokens.read, line.name))


def day_of(at_ms: int, zone: tzinfo | None) -> str:
    """The date of a moment there, `2026-05-22`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone).date().isoformat()


def midnight_ms(day: date, zone: tzinfo | None) -> int:
    """When a day begins there; where the clocks go forward at midnight, the first moment that there is."""
    begins = datetime(day.year, day.month, day.day, tzinfo=zone)  # None is this machine's own zone
    return epoch_ms(begins.astimezone(UTC))


def since(text: str, now: datetime, zone: tzinfo | None) -> int:
    """`7d`, `12h`, `today`, `month` (its first day) or a date, as epoch milliseconds.

    Raises:
        InputError: none of these.
    """
    today = now.astimezone(zone).date()
    back = _BACK.fullmatch(text)
    if back is not None:
        span = timedelta(**{"days" if back[2] == "d" else "hours": int(back[1])})
        return epoch_ms(now - span)
    if text in ("today", "month"):
        return midnight_ms(today if text == "today" else today.replace(day=1), zone)
    try:
        return midnight_ms(date.fromisoformat(text), zone)
    except ValueError:
        raise InputError(f"since {text!r}: write 7d, 12h, today, month, or a date such as 2026-05-01") from None


def as_json(found: UsageReport) -> dict[str, Any]:
    """For programs: counts as numbers, money as whole micro-dollars."""
    return {
        "since": _iso(found.since_ms), "until": _iso(found.until_ms), "by": found.by,
        "lines": [{"name": line.name, **used_as_json(line.used)} for line in found.lines],
        "total": used_as_json(found.total),
    }  # fmt: skip


def used_as_json(used: Used) -> dict[str, Any]:
    t = used.tokens
    return {
        "calls": used.calls, "failed": used.failed, "summaries": used.summaries, "guessed": used.guessed,
        "tokens": {"input": t.input, "output": t.output, "cache_read": t.cache_read, "cache_write": t.cache_write,
                   "reasoning": t.reasoning},
        "cost_micros": used.cost, "unpriced_calls": used.unpriced, "cost": cost_in_words(used),
    }  # fmt: skip


def _iso(at_ms: int) -> str:
    return iso(datetime.fromtimestamp(at_ms / 1000, UTC))
