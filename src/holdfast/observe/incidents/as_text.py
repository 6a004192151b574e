"""A report in plain text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from holdfast.observe.incidents.findings import Findings, Ranked
from holdfast.text import on_one_line

BAR_WIDTH = 32
SESSIONS_SHOWN = 10
_BLOCKS = " ▁▂▃▄▅▆▇█"


def report_text(found: Findings) -> list[str]:
    """The lines of a report; of the parts in which nothing was found there is one line that says so."""
    lines = [f"{len(found.files)} log(s), {found.events} line(s) that tell of a failure{_span(found)}"]
    if found.undated:
        lines.append(f"{found.undated} of them do not tell when")
    for part in (_takeovers, _locks, _models, _standstill, _lane_errors):
        lines += ["", *part(found)]
    if found.not_kept:
        lines += ["", f"{found.not_kept} more failures are counted, but are in no histogram"]
    return [on_one_line(line) for line in lines]


def _span(found: Findings) -> str:
    if found.first_ms is None or found.last_ms is None:
        return ""
    return f", {moment(found.first_ms)} to {moment(found.last_ms)} UTC ({length(found.last_ms - found.first_ms)})"


def _takeovers(found: Findings) -> list[str]:
    if not found.takeovers:
        return ["takeovers: none"]
    lines = [
        f"takeovers: {found.takeovers} over {found.transcripts} transcript(s)",
        f"  without a reply    {found.without_reply} ({found.without_reply_share:.0%})",
        f"  run ended after    p50 {length(found.durations.p50)}, longest {length(found.durations.max)}",
        f"  from one to next   p50 {length(found.between.p50)}, longest {length(found.between.max)}",
        "  by lane",
        *bars(found.lanes),
        "  what probably raced",
        *bars(found.raced),
        f"  by hour of the day (UTC, 0 to 23)  {sparkline(found.hours)}",
        f"  worst transcripts ({min(SESSIONS_SHOWN, len(found.sessions))} of {found.transcripts})",
    ]
    return lines + [f"    {one.takeovers:>6}  {file_name(one)}" for one in found.sessions[:SESSIONS_SHOWN]]


def _locks(found: Findings) -> list[str]:
    return [f"write locks not had in time: {found.lock_timeouts} told of by lanes, {found.lock_decisions} by failover"]


def _models(found: Findings) -> list[str]:
    if not found.decisions and not found.exhausted:
        return ["model failover: none"]
    lines = [
        f"model failover: {found.decisions} candidate(s) failed in {found.walks} walk(s) down a chain",
        f"  for a lock or a changed session, no model's fault: {found.local_decisions} of {found.decisions} candidates",
        f"  walks begun for such a reason: {found.walks_local} of {found.walks}",
        f'  "All models failed": {found.exhausted}, {found.exhausted_local} of them for such a reason',
        f"  ended on another model for such a reason (a pin to look for): {found.pinned_by_local}",
        "  why",
        *bars(found.reasons),
    ]
    if found.answered_by_other:
        lines += ["  answered by another model than was asked for", *bars(found.answered_by_other)]
    return lines


def _standstill(found: Findings) -> list[str]:
    if not found.standstill and not found.recoveries and not found.recoveries_requested:
        return ["sessions that stood still: none"]
    lines = [
        f"warnings of sessions that stood still (longest {length(int(found.longest_standstill_s * 1000))})",
        *bars(found.standstill),
        *bars(found.standstill_reasons),
        f"  recoveries: {found.recoveries_requested} asked for; how they ended",
        *(bars(found.recoveries) or ["    not told"]),
    ]
    if found.standstill_sessions:
        worst = list(found.standstill_sessions.items())[:SESSIONS_SHOWN]
        lines += ["  sessions", *(f"    {count:>6}  {name}" for name, count in worst)]
    return lines


def _lane_errors(found: Findings) -> list[str]:
    if not found.lane_errors:
        return ["other failures of lanes: none"]
    return [f"other failures of lanes: {sum(found.lane_errors.values())}", *bars(found.lane_errors)]


def bars(counts: Mapping[str, int]) -> list[str]:
    """A bar per row, the longest as wide as `BAR_WIDTH`."""
    most = max(counts.values(), default=0)
    width = min(60, max(map(len, counts), default=0))
    return [
        f"    {count:>6}  {name:{width}}  {'█' * max(1, round(BAR_WIDTH * count / most))}"
        for name, count in counts.items()
        if count
    ]


def sparkline(counts: list[int]) -> str:
    """One character per count, taller for more."""
    most = max(counts, default=0) or 1
    return "".join(_BLOCKS[0 if not count else max(1, round(count * 8 / most))] for count in counts)


def file_name(one: Ranked) -> str:
    """A transcript by its agent and file, which is how people know it; the folders above are not shown."""
    parts = one.transcript.replace("\\", "/").split("/")
    agent = parts[parts.index("agents") + 1] if "agents" in parts[:-2] else ""
    name = parts[-1]
    return f"{name} (agent {agent})" if agent else name


def moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def length(ms: int | None) -> str:
    """A length of time in two units at most: 350 ms, 12.4 s, 3 min 5 s, 2 h 4 min, 3 d 2 h."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
