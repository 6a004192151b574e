"""A report as one HTML file that needs nothing else: no script, no request; drawn in SVG; light and dark. Pure.

Every text from a log is escaped, and a policy in the page forbids what an escape that was forgotten could do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from holdfast.observe.incidents.as_text import file_name, length, moment
from holdfast.observe.incidents.findings import Bucket, Findings
from holdfast.text import on_one_line

SESSIONS_SHOWN = 40
_WIDTH, _HEIGHT = 720, 150
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d7dde5; --paper: #fff; --bad: #b3361f;
        --mid: #b07a12; --calm: #2f6f9f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa6b5; --line: #2d3743; --paper: #12171d;
        --bad: #ef7d66; --mid: #e0b04f; --calm: #77b4e0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.sub { color: var(--soft); margin-top: .2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.figures div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.3rem; } .figures span { color: var(--soft); font-size: .85rem; }
.bad b { color: var(--bad); } table { border-collapse: collapse; width: 100%; }
td { padding: .2rem .5rem .2rem 0; vertical-align: middle; overflow-wrap: anywhere; }
td.n { text-align: right; white-space: nowrap; width: 4rem; font-variant-numeric: tabular-nums; }
td.b { width: 45%; }
.bar { background: var(--calm); height: .8rem; border-radius: .2rem; min-width: 2px; display: block; }
figure { margin: 0; overflow-x: auto; } svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } .t { fill: var(--bad); } .l { fill: var(--mid); }
.axis { stroke: var(--line); } footer { color: var(--soft); margin-top: 3rem; font-size: .85rem; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def report_page(found: Findings) -> str:
    """The page."""
    body = [
        "<h1>What happened</h1>",
        f'<p class="sub">{_text(_head(found))}</p>',
        _figures(found),
        "<h2>Takeovers and lock timeouts over time (UTC)</h2>",
        _timeline(found.buckets, found.bucket_ms),
        "<h2>Takeovers by hour of the day (UTC)</h2>",
        _hours(found.hours),
        _table("Takeovers by lane", found.lanes),
        _table("What probably raced", found.raced),
        _table("Transcripts that were hit most", _sessions(found)),
        _table("Why candidates of a model chain failed", found.reasons),
        _table("Answered by another model than was asked for", found.answered_by_other),
        _table("Warnings of sessions that stood still", found.standstill),
        _table("Why they stood still", found.standstill_reasons),
        _table("Sessions that stood still", found.standstill_sessions),
        _table("How recoveries ended", found.recoveries),
        _table("Other failures of lanes", found.lane_errors),
        f"<footer>{_text('; '.join(found.files))}</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Incidents</title><style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(filter(None, body))
    ) + "\n</main></body></html>\n"


def _text(value: str) -> str:
    return escape(on_one_line(value))


def _head(found: Findings) -> str:
    if found.first_ms is None or found.last_ms is None:
        return f"{found.events} lines of {len(found.files)} log(s) tell of a failure"
    span = length(found.last_ms - found.first_ms)
    return f"{moment(found.first_ms)} to {moment(found.last_ms)} UTC ({span}), {len(found.files)} log(s)"


def _figures(found: Findings) -> str:
    cells = [
        (str(found.takeovers), f"takeovers over {found.transcripts} transcripts", found.takeovers > 0),
        (f"{found.without_reply_share:.0%}", "of them without a reply", found.without_reply > 0),
        (length(found.durations.p50), f"run before a takeover, p50; longest {length(found.durations.max)}", False),
        (length(found.between.p50), "from one takeover to the next, p50", False),
        (str(found.lock_timeouts), "write locks not had in time", found.lock_timeouts > 0),
        (
            f"{found.walks_local} of {found.walks}",
            "model chains walked for a lock or a changed session",
            found.walks_local > 0,
        ),
        (str(found.exhausted), "times “All models failed”", found.exhausted > 0),
        (str(found.pinned_by_local), "of these walks ended on another model", found.pinned_by_local > 0),
    ]
    shown = (
        f"<div{' class=bad' if bad else ''}><b>{_text(value)}</b><span>{_text(words)}</span></div>"
        for value, words, bad in cells
    )
    return f'<div class="figures">{"".join(shown)}</div>'


def _timeline(buckets: Sequence[Bucket], bucket_ms: int) -> str:
    if not buckets:
        return "<p>Nothing to draw: there was none, or no line told when.</p>"
    values = [(one.takeovers, one.lock_timeouts, moment(one.from_ms)) for one in buckets]
    first, last = moment(buckets[0].from_ms), moment(buckets[-1].from_ms + bucket_ms)
    return _columns(values, (first, last), f"each column {length(bucket_ms)}")


def _hours(hours: Sequence[int]) -> str:
    return _columns([(count, 0, f"{hour}:00") for hour, count in enumerate(hours)], ("0:00", "24:00"), "")


def _columns(values: Sequence[tuple[int, int, str]], ends: tuple[str, str], note: str) -> str:
    """Columns of takeovers with lock timeouts on top, each with its figures as a tooltip."""
    most = max((one + other for one, other, _ in values), default=0) or 1
    step = _WIDTH / len(values)
    drawn: list[str] = []
    for i, (takeovers, locks, when) in enumerate(values):
        if not takeovers + locks:
            continue
        tall, taller = takeovers / most * (_HEIGHT - 40), (takeovers + locks) / most * (_HEIGHT - 40)
        box = f'x="{i * step:.1f}" width="{max(1.0, step - 1):.1f}"'
        words = f"{when}: {takeovers} takeover(s)" + (f", {locks} lock timeout(s)" if locks else "")
        drawn.append(
            f"<g><title>{_text(words)}</title>"
            f'<rect class="l" {box} y="{_HEIGHT - 18 - taller:.1f}" height="{taller - tall:.1f}"/>'
            f'<rect class="t" {box} y="{_HEIGHT - 18 - tall:.1f}" height="{tall:.1f}"/></g>'
        )
    base = _HEIGHT - 18
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="columns over time, highest {most}">'
        f'<text x="0" y="10">{most}</text><text x="{_WIDTH}" y="10" text-anchor="end">{_text(note)}</text>'
        f'{"".join(drawn)}<line class="axis" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{_HEIGHT - 4}">{_text(ends[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{_text(ends[1])}</text></svg></figure>'
    )


def _sessions(found: Findings) -> dict[str, int]:
    rows: dict[str, int] = {}
    for one in found.sessions[:SESSIONS_SHOWN]:
        name = file_name(one)
        rows[name if name not in rows else one.transcript] = one.takeovers + one.lock_timeouts
    return rows


def _table(title: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values(), default=0)
    if not most:
        return ""
    rows = "".join(
        f'<tr><td class="n">{count}</td><td>{_text(name)}</td>'
        f'<td class="b"><span class="bar" style="width:{count / most * 100:.1f}%"></span></td></tr>'
        for name, count in counts.items()
    )
    return f"<h2>{_text(title)}</h2><table>{rows}</table>"
