"""Whom a line of a transcript is for. The one place that knows, whoever has written the line. Pure.

| visibility | who sees it |
|---|---|
| `model` | the model, and people: what was said, called, answered, summarised |
| `user` | people alone: copies of what was delivered, answers that came too late, answers that were cut off |
| `audit` | whoever asks for everything: labels, titles, changes of the model, the state of programs |

A line says it in its origin; one that does not, and every line of another program, has what its kind has. What a line
says holds back or shows to people, but puts nothing before the model that has no form for it: a label stays a label. A
compaction and the summary of a branch stand for what is before them, and are for the model whatever they say.

For the fence all this means nothing: what is conversation follows from the kind of a line (`lines.is_conversation`), so
that nobody slips past it by a word.
"""

from __future__ import annotations

from holdfast.session.entries import MIRROR_PROVIDER, SALVAGE_TYPE, VISIBILITIES, Visibility
from holdfast.session.lines import Line, is_mirror

PARTIAL_TYPE = "holdfast:partial"
"""customType of what a model had said when it was cut off."""
FOR_PEOPLE = frozenset({SALVAGE_TYPE, PARTIAL_TYPE})
_SAID = frozenset({"user", "assistant", "toolResult"})
_STANDS_FOR_OTHERS = ("compaction", "branch_summary")


def visibility_of(line: Line) -> Visibility:
    """Whom a line is for. What cannot be read, or is of an unknown kind, is for audit."""
    usual = _by_kind(line)
    said = line.origin.visibility if line.origin is not None and line.kind == "entry" else ""
    if said not in VISIBILITIES or line.type in _STANDS_FOR_OTHERS or (said == "model" and usual != "model"):
        return usual
    return said


def is_for_model(line: Line) -> bool:
    """Whether the model may see it. Most lines are said by somebody and say nothing of it: those are known at once."""
    if line.kind == "entry" and line.type == "message" and line.message_role in _SAID:
        origin = line.origin
        if (origin is None or not origin.visibility) and line.provider != MIRROR_PROVIDER:
            return True
    return visibility_of(line) == "model"


def _by_kind(line: Line) -> Visibility:
    if line.kind != "entry":
        return "audit"
    if line.type == "message":
        return "user" if is_mirror(line) or _is_kept_from_context(line) else "model"
    if line.type in ("custom_message", *_STANDS_FOR_OTHERS):
        return "model"
    return "user" if line.custom_type in FOR_PEOPLE else "audit"


def _is_kept_from_context(line: Line) -> bool:
    """A command that its user ran for themselves (`!!` in Pi)."""
    if line.message_role != "bashExecution" or b"excludeFromContext" not in line.raw:
        return False
    return bool(line.value()["message"].get("excludeFromContext"))
