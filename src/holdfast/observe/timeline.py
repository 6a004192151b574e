"""Turns as bars and marks, for swimlanes: from stories to what is drawn. Pure.

A bar is what a turn was at for a time: `model` (a prompt window is open), `tool`, `sending` (its answer goes out). What
is not covered by one is the turn's own work. A mark is a moment that people look for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.observe.why import describe_event
from holdfast.store.views import Story

BarKind = Literal["model", "tool", "sending"]
MarkKind = Literal["takeover", "fallback", "died", "recovery", "still", "asked", "stop", "failed"]
TEXT_MAX = 160
HARMLESS = ("unchanged", "advanced", "adopted")
"""Verdicts of a prompt window after which a turn goes on as if nothing had been."""


@dataclass(frozen=True, slots=True)
class Bar:
    """`until_ms` None: it goes on."""

    kind: BarKind
    from_ms: int
    until_ms: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    kind: MarkKind
    at_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One turn in its session's row.

    Args:
        state: `running`, or the turn's outcome. waited_ms: when its input was accepted, where it is the first turn for
            it or no other is known; None: it has none.
    """

    id: str
    session: str
    lane: str
    input_id: str | None
    process: str
    epoch: int
    state: str
    detail: str | None
    waited_ms: int | None
    from_ms: int
    until_ms: int | None
    bars: list[Bar]
    marks: list[Mark]


def lane_of(story: Story) -> Lane:
    """What is drawn of a turn."""
    turn = story.turn
    bars = sorted([*_model_bars(story), *_tool_bars(story), *_sending_bars(story)], key=_when)
    marks = [mark for line in story.events if (mark := _mark_of(line)) is not None]
    if turn.ended_at_ms is not None and turn.outcome in ("failed", "died"):
        kind: MarkKind = "failed" if turn.outcome == "failed" else "died"
        marks.append(Mark(kind, turn.ended_at_ms, _short(turn.detail or turn.outcome)))
    return Lane(
        turn.id, turn.session, turn.lane, turn.input_id, turn.process, turn.epoch, turn.outcome or turn.state,
        turn.detail, story.accepted_at_ms, turn.started_at_ms, turn.ended_at_ms, bars, marks,
    )  # fmt: skip


def _when(bar: Bar) -> tuple[int, float]:
    """What begins in the same millisecond is told in the order in which it ended."""
    return bar.from_ms, math.inf if bar.until_ms is None else bar.until_ms


def _model_bars(story: Story) -> list[Bar]:
    """A model is asked until it answers, until the next is asked, or until the turn ends."""
    return _bars(story, "model", {"turn.model": lambda data: str(data["model"])}, ends=("turn.answer", "turn.too_long"))


def _tool_bars(story: Story) -> list[Bar]:
    open_ones: dict[str, tuple[int, str]] = {}
    bars: list[Bar] = []
    for line in story.events:
        data = line["data"]
        if line["kind"] == "turn.tool_call":
            open_ones[str(data["id"])] = (line["at_ms"], str(data["name"]))
        elif line["kind"] == "turn.tool_result" and str(data["id"]) in open_ones:
            from_ms, name = open_ones.pop(str(data["id"]))
            bars.append(Bar("tool", from_ms, line["at_ms"], name))
    return bars + [Bar("tool", from_ms, story.turn.ended_at_ms, name) for from_ms, name in open_ones.values()]


def _sending_bars(story: Story) -> list[Bar]:
    open_ones: dict[str, int] = {}
    bars: list[Bar] = []
    for line in story.events:
        data = line["data"]
        if line["kind"] != "delivery":
            continue
        to, part = f"{data['channel']}:{data['target']}", f"{data['channel']}:{data['target']}:{data['part']}"
        if data["event"] == "start":
            open_ones[part] = line["at_ms"]
        elif part in open_ones:
            bars.append(Bar("sending", open_ones.pop(part), line["at_ms"], _short(f"{to}: {data['event']}")))
    return bars + [Bar("sending", at_ms, None, part) for part, at_ms in open_ones.items()]


def _bars(
    story: Story, kind: BarKind, begins: Mapping[str, Callable[[dict[str, Any]], str]], ends: tuple[str, ...]
) -> list[Bar]:
    bars: list[Bar] = []
    begun: tuple[int, str] | None = None
    for line in story.events:
        if line["kind"] in begins or (line["kind"] in ends and begun is not None):
            if begun is not None:
                bars.append(Bar(kind, begun[0], line["at_ms"], begun[1]))
            begun = (line["at_ms"], begins[line["kind"]](line["data"])) if line["kind"] in begins else None
    if begun is not None:
        bars.append(Bar(kind, begun[0], story.turn.ended_at_ms, begun[1]))
    return bars


def _mark_of(line: dict[str, Any]) -> Mark | None:
    kind, data = line["kind"], line["data"]
    found: MarkKind | None = _MARKS.get(kind)
    if kind == "turn.window" and data.get("verdict") not in HARMLESS:
        found = "takeover"
    elif kind == "turn.fallback" and data.get("decision") == "candidate_failed":
        found = "fallback"
    return None if found is None else Mark(found, line["at_ms"], _short(describe_event(kind, data)))


_MARKS: Mapping[str, MarkKind] = {
    "turn.salvaged": "takeover",
    "turn.died": "died",
    "turn.cancel_requested": "stop",
    "turn.timed_out": "stop",
    "turn.stopped_by_recovery": "recovery",
    "session.stalled": "still",
    "session.stuck": "still",
    "session.recovery.requested": "recovery",
    "session.recovery.completed": "recovery",
    "approval.asked": "asked",
}


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"
