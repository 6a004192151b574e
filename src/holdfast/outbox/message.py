"""What goes out: the outcome of an input, and the deliveries it causes.

A delivery's key is input, route and part, never entry or epoch, which change when an input is answered again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from holdfast import ids
from holdfast.inbound.event import Route
from holdfast.session.entries import text_of

PART_CHARS_MAX = 100_000
"""An answer longer than this goes out in parts; adapters may cut further."""

MOVED_ON_NOTE = "(The conversation had moved on while this answer was being written.)"
"""The one-line note under a salvaged answer."""

NOT_WRITTEN_NOTE = (
    "(The disk is refusing writes: this answer could not be added to the conversation, and is kept beside it.)"
)
"""The same under an answer that the transcript could not take."""


SILENT_TOKEN = "NO_REPLY"  # a word of the protocol
SILENT = "silent: the agent had nothing to say"
"""What the ledger keeps of an answer that is for nobody, so that it is not taken for one that was lost."""
_EDGES = "*`_~. \t\r\n"


def is_silent(text: str | None) -> bool:
    """Whether an answer says that there is none: the token and nothing else, but for markup around it."""
    return (text or "").strip(_EDGES) == SILENT_TOKEN


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an input ends.

    Args:
        state: a terminal state of `lane/states.py`.
        answer: final text (also of a salvaged one).
        result: `{"message": v3 assistant message, "finish": str, "usage": {...}, "entry_id": str}` or None.
        detail: reason in words; required for everything but `answered`.
        error: class name of the error, when failed.
        notice: what the user is told when there is no answer (an explanation), or under the answer (a note).
    """

    state: str
    answer: str | None = None
    result: dict[str, Any] | None = None
    detail: str | None = None
    error: str | None = None
    notice: str | None = None


def answered_by(
    message: dict[str, Any],
    entry_id: str | None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    *,
    detail: str | None = None,
) -> Outcome:
    """The outcome that a final assistant message stands for. `facts` are kept in its result besides what follows."""
    finish = {"toolUse": "tool_calls", "length": "length"}.get(message.get("stopReason", "stop"), "stop")
    result = {"message": message, "finish": finish, "usage": message.get("usage"), "entry_id": entry_id}
    answer = text_of(message)
    if is_silent(answer):
        detail = SILENT if detail is None else f"{SILENT}; {detail}"
    return Outcome("answered", answer=answer, result={**facts, **result}, detail=detail)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One part on its way to one route."""

    id: str
    channel: str
    target: str
    part: int
    body: str


def plan_deliveries(input_id: str, route: Route | None, outcome: Outcome) -> list[Delivery]:
    """The rows that are committed with a settlement. No route, or nothing to say: none. A note under an answer that is
    silent would be a note under nothing.
    """
    if route is None or is_silent(outcome.answer):
        return []
    texts = [text for text in (outcome.answer, outcome.notice) if text]
    body = "\n\n".join(texts).encode("utf-8", "replace").decode()  # lone surrogates are not text any channel takes
    parts = [body[at : at + PART_CHARS_MAX] for at in range(0, len(body), PART_CHARS_MAX)]
    return [
        Delivery(delivery_id(input_id, route, part), route.channel, route.target, part, text)
        for part, text in enumerate(parts)
    ]


def notice_delivery(input_id: str, route: Route, text: str) -> Delivery:
    """A notice that an input has caused: beside its answer, never in place of it, and wherever it goes."""
    key = ids.derived_id("notice", input_id, route.channel, route.target)
    return Delivery(f"d_{key}", route.channel, route.target, 0, text)


def delivery_id(input_id: str, route: Route, part: int) -> str:
    """The idempotency key of one delivery, stable over re-runs."""
    return "d_" + ids.derived_id("delivery", input_id, route.channel, route.target, part)
