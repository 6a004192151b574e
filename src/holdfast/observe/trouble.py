"""What people look for when something went wrong in a state, newest first: from rows to lines with a name. Pure.

What a log tells of the same things is read by `observe/incidents`; this is read off the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.doctor.facts import PinFact
from holdfast.doctor.pins import pin_in_words
from holdfast.observe.timeline import HARMLESS
from holdfast.observe.why import describe_event
from holdfast.store.views import DeliveryView, Trouble, TurnView

IncidentKind = Literal[
    "takeover",  # a session changed or was lost while a model was asked
    "lock_timeout",  # somebody holds a session's file, or its claim, and shows no life
    "chain_walk",  # a model failed and another one was asked
    "pin",  # a session has a model of its own
    "standstill",  # a turn stands still
    "recovery",  # somebody did something about that
    "died",  # a process went with a turn
    "failed",  # a turn ended without an answer
    "dead_letter",  # an answer was given up
    "unknown_delivery",  # whether an answer has arrived is not known
]
TEXT_MAX = 400
_OF_EVENT: dict[str, IncidentKind] = {
    "turn.salvaged": "takeover",
    "turn.model_state": "pin",
    "input.held_up": "lock_timeout",
    "session.stalled": "standstill",
    "session.stuck": "standstill",
    "turn.stopped_by_recovery": "recovery",
    "session.recovery.requested": "recovery",
    "session.recovery.completed": "recovery",
}
_OF_OUTCOME: dict[str, IncidentKind] = {
    "taken_over": "takeover",
    "coordination": "lock_timeout",
    "died": "died",
    "failed": "failed",
    "interrupted": "failed",
}
_SEVERE = ("candidate_failed", "candidate_skipped", "exhausted")


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that happened.

    Args:
        why: what `holdfast why` is to be asked for: an input, a turn or a session.
        evidence: where it can be checked (table:id).
    """

    kind: IncidentKind
    at_ms: int
    session: str
    text: str
    why: str
    evidence: str


def incidents_of(found: Trouble, pins: Sequence[PinFact], *, since_ms: int, limit: int) -> list[Incident]:
    """The newest, at most `limit`. What several rows tell of one turn and of one kind is one incident."""
    several: dict[tuple[str, str], list[Incident]] = {}
    for one in (
        *_walks(found.told),
        *_told(found.told),
        *map(_ended, found.turns),
        *map(_undelivered, found.deliveries),
    ):
        several.setdefault((one.kind, one.why), []).append(one)
    incidents = [*map(_together, several.values()), *(_pinned(pin) for pin in pins if pin.set_at_ms >= since_ms)]
    return sorted(incidents, key=lambda one: one.at_ms, reverse=True)[:limit]


def _together(several: list[Incident]) -> Incident:
    """Rows of one turn: what was told first, then the rest, each once."""
    first, *rest = sorted(several, key=lambda one: one.at_ms)
    if not rest:
        return first
    text = "; ".join(dict.fromkeys(one.text for one in (first, *rest)))
    return Incident(first.kind, rest[-1].at_ms, first.session, _short(text), first.why, first.evidence)


def _told(lines: Sequence[dict[str, Any]]) -> Iterator[Incident]:
    for line in lines:
        kind, data = _OF_EVENT.get(line["kind"]), line["data"]
        if line["kind"] == "turn.window" and data.get("verdict") not in HARMLESS:
            kind = "takeover"
        if kind is not None:
            yield _incident(kind, line, describe_event(line["kind"], data))


def _walks(lines: Sequence[dict[str, Any]]) -> Iterator[Incident]:
    """The steps of a turn along its chain of models, as one."""
    by_turn: dict[str, list[dict[str, Any]]] = {}
    for line in reversed(lines):
        if line["kind"] == "turn.fallback":
            by_turn.setdefault(line["turn"] or line["input"] or "", []).append(line)
    for steps in by_turn.values():
        if any(step["data"].get("decision") in _SEVERE for step in steps):
            text = "; ".join(describe_event(step["kind"], step["data"]) for step in steps)
            yield _incident("chain_walk", steps[0], text)


def _incident(kind: IncidentKind, line: dict[str, Any], text: str) -> Incident:
    why = line["input"] or line["turn"] or line["session"]
    return Incident(kind, line["at_ms"], line["session"], _short(text), why, f"events:{line['seq']}")


def _ended(turn: TurnView) -> Incident:
    text = turn.detail or f"the turn ended as {turn.outcome}"
    at_ms, why = turn.ended_at_ms or turn.started_at_ms, turn.input_id or turn.id
    return Incident(_OF_OUTCOME[turn.outcome or "failed"], at_ms, turn.session, _short(text), why, f"turns:{turn.id}")


def _undelivered(one: DeliveryView) -> Incident:
    kind: IncidentKind = "dead_letter" if one.state == "failed" else "unknown_delivery"
    because = f": {one.detail}" if one.detail else ""
    said = "was given up" if one.state == "failed" else "may have arrived or not"
    text = f"delivery to {one.route} {said} after {one.attempts} attempt(s){because}"
    return Incident(kind, one.updated_at_ms, one.session or "", _short(text), one.input_id, f"outbox:{one.id}")


def _pinned(pin: PinFact) -> Incident:
    text = _short(pin_in_words(pin))
    return Incident("pin", pin.set_at_ms, pin.session, text, pin.session, f"model_pins:{pin.session}")


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"
