"""What `holdfast top` shows, read at one go: what runs, what waits, models, deliveries, timers, incidents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.cli.output import local_time, shortened
from holdfast.clock import epoch_ms
from holdfast.doctor.pins import pin_fault
from holdfast.model.cooldown import left_s
from holdfast.observe.trouble import incidents_of
from holdfast.observe.work import work_of
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.recovery.watching import Finding

ROWS_MAX = 200
SINCE_MS = 7 * 86_400_000

TabName = Literal["sessions", "queue", "models", "outbox", "timers", "incidents"]
TABS: tuple[TabName, ...] = ("sessions", "queue", "models", "outbox", "timers", "incidents")
COLUMNS: dict[TabName, tuple[str, ...]] = {
    "sessions": ("SESSION", "LANE", "DOING", "OWNER", "SINCE", "WAITING", "MODEL"),
    "queue": ("INPUT", "SESSION", "LANE", "FROM", "BEFORE IT", "WAITS"),
    "models": ("WHAT", "OF", "MODEL", "WHY", "UNTIL"),
    "outbox": ("DELIVERY", "TO", "STATE", "TRIES", "SINCE", "WHAT"),
    "timers": ("TIMER", "STATE", "NEXT", "LAST RUN"),
    "incidents": ("WHEN", "WHAT", "SESSION", "WHAT HAPPENED"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """Cells as text, and what `holdfast why` is asked for about it; `stop`: what `holdfast stop` would take. None:
    there is nothing to ask, or to stop.
    """

    key: str
    cells: tuple[str, ...]
    why: str | None = None
    stop: str | None = None
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Glance:
    """One look. `head`: what runs and waits in a line; `held`: why work is held back."""

    at_ms: int
    head: str
    held: str | None
    rows: dict[TabName, list[Row]]


async def look(hf: Holdfast) -> Glance:
    """Read it all. Changes nothing; several questions, so that a turn may end between two of them."""
    now_ms = epoch_ms(hf.clock.now())
    backlog, held, findings = await hf.store.backlog(), await hf.held(), await hf.findings()
    undelivered = sum(count for count, _ in backlog.undelivered.values())
    head = (
        f"{_counted(backlog.running, 'running')} · {_counted(backlog.waiting, 'waiting')}"
        f"{_oldest(backlog.oldest_accepted_ms, now_ms)} · {undelivered} undelivered · {backlog.asked} question(s)"
    )
    rows: dict[TabName, list[Row]] = {
        "sessions": await _sessions(hf, findings, now_ms),
        "queue": await _queue(hf, now_ms),
        "models": await _models(hf, now_ms),
        "outbox": await _outbox(hf, now_ms),
        "timers": await _timers(hf),
        "incidents": await _incidents(hf, now_ms),
    }
    return Glance(now_ms, head, None if held is None else held.way_out, rows)


async def _sessions(hf: Holdfast, findings: Sequence[Finding], now_ms: int) -> list[Row]:
    """Those that are owned first, then those used last."""
    owners = {key: one for one in findings for key in one.owner.sessions}
    rows: list[Row] = []
    for view in await hf.sessions(limit=ROWS_MAX):
        found = owners.get(view.key)
        waiting = str(view.queued or "")
        model = view.pin.model + f" (pin, {view.pin.source})" if view.pin else ""
        model = model or (f"{view.fallback.active} (in place)" if view.fallback else "")
        if found is None:
            used = f"used {ago(view.updated_at_ms, now_ms)} ago"
            rows.append(_row(view.key, (view.key, "", used, "", "", waiting, model), why=view.key))
            continue
        work, owner = work_of(found), found.owner
        pid = f" ({owner.pid})" if owner.pid is not None else ""
        doing = work.words.partition(f"lane {owner.lane}: ")[2]  # its process has a column of its own
        cells = (view.key, owner.lane, doing, f"{owner.process[:14]}{pid}", ago(owner.since_ms, now_ms), waiting,
                 model)  # fmt: skip
        rows.append(_row(view.key, cells, why=owner.turn, stop=owner.turn, is_bad=work.event is not None))
    return sorted(rows, key=lambda row: row.stop is None)


async def _queue(hf: Holdfast, now_ms: int) -> list[Row]:
    """The one that waits longest first."""
    waiting = await hf.inputs(state="queued", limit=ROWS_MAX)
    return [
        _row(
            one.id,
            (one.id[:18], one.session, one.lane, one.source, str(one.position or 0), ago(one.accepted_at_ms, now_ms)),
            why=one.id, stop=one.id, is_bad=now_ms - one.accepted_at_ms > 600_000,
        )
        for one in reversed(waiting)
    ]  # fmt: skip


async def _models(hf: Holdfast, now_ms: int) -> list[Row]:
    known = await hf.models()
    rows = [
        _row(
            f"{one.provider}/{one.credential}/{one.model}",
            ("left alone", f"{one.provider} {one.label}", one.model or "every model",
             f"{one.reason}, {one.errors} errors", f"{left:.0f} s more"), is_bad=True,
        )
        for one in known.cooldowns
        if (left := left_s(one, now_ms)) > 0
    ]  # fmt: skip
    rows += [
        _row(
            pin.id,
            (f"pin ({pin.source})", pin.session, pin.model,
             "; ".join(filter(None, (pin.reason, f"by {pin.by or 'nobody'}", pin_fault(pin)))),
             local_time(pin.expires_at_ms) or "taken away by hand"), why=pin.session, is_bad=bool(pin_fault(pin)),
        )
        for pin in await hf.store.pin_facts()
    ]  # fmt: skip
    return rows + [
        _row(
            f"fallback/{one.session}",
            (
                "in place",
                one.session,
                f"{one.active} for {one.selected}",
                one.reason,
                f"since {local_time(one.since_ms)}",
            ),
            why=one.session,
        )
        for one in known.fallbacks
    ]


async def _outbox(hf: Holdfast, now_ms: int) -> list[Row]:
    """What has not arrived; then what has, lately."""
    states = ("failed", "unknown", "started", "pending", "sent")
    views = [one for state in states for one in await hf.deliveries(state=state, limit=20 if state == "sent" else 60)]
    return [
        _row(
            one.id,
            (one.id[:14], one.route, one.state, str(one.attempts), ago(one.updated_at_ms, now_ms),
             shortened(" · ".join(filter(None, (one.detail, one.body))), 80)),
            why=one.input_id, is_bad=one.state in ("failed", "unknown"),
        )
        for one in views
    ]  # fmt: skip


async def _timers(hf: Holdfast) -> list[Row]:
    rows: list[Row] = []
    for timer in await hf.store.timers():
        last = await hf.store.timer_runs(timer=timer.id, limit=1)
        state = f"{timer.state} ({timer.detail})" if timer.detail else timer.state
        told = "".join(
            f"{local_time(run.scheduled_at_ms)} {run.state}{f' ({run.detail})' if run.detail else ''}" for run in last
        )
        why = last[0].input_id if last else None
        bad = timer.state == "disabled" or (bool(last) and last[0].state == "failed")
        rows.append(_row(timer.id, (timer.id, state, local_time(timer.next_at_ms), told), why=why, is_bad=bad))
    return rows


async def _incidents(hf: Holdfast, now_ms: int) -> list[Row]:
    since_ms = now_ms - SINCE_MS
    found = await hf.store.trouble(since_ms=since_ms, limit=ROWS_MAX)
    pins = await hf.store.pin_facts()
    return [
        _row(f"{one.kind}/{one.evidence}", (local_time(one.at_ms), one.kind.replace("_", " "), one.session, one.text),
             why=one.why)
        for one in incidents_of(found, pins, since_ms=since_ms, limit=ROWS_MAX)
    ]  # fmt: skip


def _row(
    key: str, cells: tuple[str, ...], *, why: str | None = None, stop: str | None = None, is_bad: bool = False
) -> Row:
    """What people and models wrote is among the cells: without what would move a cursor."""
    return Row(key, tuple(on_one_line(cell) for cell in cells), why, stop, is_bad)


def _counted(counts: dict[str, int], word: str) -> str:
    lanes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} {word}" + (f" ({lanes})" if len(counts) > 1 else "")


def _oldest(at_ms: int | None, now_ms: int) -> str:
    return "" if at_ms is None else f", the first for {ago(at_ms, now_ms)}"


def ago(at_ms: int, now_ms: int) -> str:
    """How long that is, in one unit: 12 s, 4 min, 3 h, 2 d."""
    seconds = max(0, now_ms - at_ms) // 1000
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
