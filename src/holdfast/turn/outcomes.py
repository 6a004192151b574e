"""How turns end, as plain functions: which entry answers for good, what a failure amounts to, what the user is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holdfast import ids
from holdfast.errors import (
    CoordinationError,
    HoldfastError,
    InputError,
    ProviderError,
    ResourceError,
    StateAwayError,
    TurnCancelledError,
    TurnLimitError,
    TurnStalledError,
)
from holdfast.lane.queue import INTERRUPTED_BY
from holdfast.model.words import explain_failure
from holdfast.outbox.message import Outcome
from holdfast.session import entries as made
from holdfast.session.entries import Entry, MessageEntry, text_of
from holdfast.session.lines import Line
from holdfast.text import without_folders

DETAIL_CHARS_MAX = 2000


def is_final(entry: Entry) -> bool:
    """Whether an entry answers by itself: an assistant message that ended and calls no tool (mirrors never do)."""
    message = message_of(entry)
    return (
        message is not None
        and message.get("role") == "assistant"
        and message.get("stopReason") in ("stop", "length")
        and not calls_tools(entry)
        and message.get("provider") != made.MIRROR_PROVIDER
    )


def cleaned(
    ended: tuple[Outcome | None, str, str | None], redact: Callable[[str], str]
) -> tuple[Outcome | None, str, str | None]:
    """The same without secrets in what an error says: providers and tools may repeat what they were asked with.
    Cut only then: half a secret would not be known for one.
    """
    outcome, state, detail = ended
    if outcome is not None:
        detail_of, notice = outcome.detail, outcome.notice
        outcome = replace(outcome, detail=redact(detail_of)[:DETAIL_CHARS_MAX] if detail_of else detail_of,
                          notice=redact(notice) if notice else notice)  # fmt: skip
    return outcome, state, redact(detail)[:DETAIL_CHARS_MAX] if detail else detail


def of_failure(exc: BaseException, *, has_input: bool) -> tuple[Outcome | None, str, str | None]:
    """What an exception makes of a turn: outcome of its input (None: put it back), outcome of the turn, detail.

    A turn is `interrupted` if it was cut off in the middle: by the end of its process, by recovery, since it stood
    still, by its own limit of silence, by a tool that does not end, or by a provider that broke off after words of its
    answer had reached the user, so that no other model could be asked.
    """
    if isinstance(exc, TurnCancelledError):
        told = None if exc.by == INTERRUPTED_BY else "Stopped."  # whoever interrupts gets the answer to what came then
        return Outcome("cancelled", detail=str(exc), notice=told), "cancelled", str(exc)
    if isinstance(exc, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit):
        return None, "interrupted", "the process was asked to end"
    if isinstance(exc, StateAwayError) and has_input:
        return None, "interrupted", str(exc)
    if isinstance(exc, CoordinationError) and exc.again and has_input:
        return None, "coordination", str(exc)
    failed = failed_with(exc)
    if isinstance(exc, TurnStalledError):
        return failed, "interrupted", failed.detail
    broke_off = isinstance(exc, ProviderError) and bool(exc.partial)
    cut_off = isinstance(exc, TurnLimitError) and exc.limit in ("silence", "tool_seconds")
    return failed, "interrupted" if broke_off or cut_off else "failed", f"{failed.error}: {failed.detail}"


def failed_with(exc: BaseException) -> Outcome:
    """The end of an input that an error leaves without an answer, explained to whoever asked."""
    name = type(exc).__name__
    return Outcome("failed", detail=str(exc)[: 2 * DETAIL_CHARS_MAX] or name, error=name, notice=explain(exc))


def explain(exc: BaseException) -> str:
    """What the user is told when a turn fails: what happened and what to do, without insides."""
    if isinstance(exc, ResourceError):
        said = without_folders(str(exc))
        return f"This message could not be answered: {said} It is kept; send it again once that is mended."
    if isinstance(exc, TurnStalledError):
        return f"This message was stopped: {exc.why}. What was said before is kept; send it again to try once more."
    if isinstance(exc, ProviderError) and exc.partial:
        return f"The answer broke off in the middle: {exc} What had been said is kept; send the message again."
    if isinstance(exc, ProviderError):
        return explain_failure(exc)
    if isinstance(exc, HoldfastError):
        return f"This message could not be answered: {without_folders(str(exc))}"
    return f"This message could not be answered because of an error inside ({type(exc).__name__}). See `holdfast why`."


def as_entry(answer: Any) -> Entry:
    """What `window.finished` may be given: text, a v3 message, an entry, or an object with `.output` or `.text`.

    Raises:
        InputError: anything else.
    """
    if isinstance(answer, MessageEntry):
        return answer
    if isinstance(answer, dict):
        return MessageEntry(message=answer)
    said = answer if isinstance(answer, str) else getattr(answer, "output", None) or getattr(answer, "text", None)
    if isinstance(said, str):
        return made.assistant(said, model="holdfast/unknown")
    raise InputError(f"cannot keep a {type(answer).__name__}: give text, a v3 message or an entry to window.finished()")


def text(entry: Entry) -> str:
    """The text of a message; empty for anything else."""
    return text_of(entry.message) if isinstance(entry, MessageEntry) else ""


def message_of(entry: Entry) -> dict[str, Any] | None:
    return entry.message if isinstance(entry, MessageEntry) else None


def fingerprint(message: dict[str, Any]) -> str:
    """The same for messages that say the same, whenever they were said."""
    said = {name: value for name, value in message.items() if name != "timestamp"}
    return ids.derived_id("message", json.dumps(said, sort_keys=True, ensure_ascii=True))


def role_of(entry: Entry) -> str | None:
    return entry.message.get("role") if isinstance(entry, MessageEntry) else None


def calls_tools(entry: Entry) -> bool:
    """Whether a message holds a `toolCall` part."""
    return bool(_calls((message_of(entry) or {}).get("content")))


def calls_of(line: Line) -> list[dict[str, Any]]:
    """The `toolCall` parts of a message line."""
    return _calls(line.value()["message"]["content"])


def _calls(content: Any) -> list[dict[str, Any]]:
    return [part for part in content if part.get("type") == "toolCall"] if isinstance(content, list) else []
