"""The entries of a transcript, format v3: what they hold, how to make them, how one becomes a line.

A transcript is one JSON object per line. The first is the header; every other line is an entry with an id and the id of
its parent, so that the lines form a tree. Entries made here have no id, parent or time yet: `stamped` gives them those
under the write lock. What other programs wrote is read by `lines.py` and never encoded again.

Attributes are written in snake case here and in camel case in the file (`parent_id`, `parentId`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from holdfast.clock import epoch_ms
from holdfast.errors import InputError, InputTooLargeError
from holdfast.model.client import zero_usage

FORMAT_VERSION = 3
LINE_BYTES_MAX = 16 * 1024 * 1024  # the newline included; images travel inside lines
DEPTH_MAX = 128  # nesting that every reader we know of accepts (Python's own stops near 1,000, less when called deep)
ID_BYTES_MAX = 512

MIRROR_PROVIDER = "openclaw"
MIRROR_MODELS = ("delivery-mirror", "gateway-injected")
ANNOUNCEMENT_MODEL = "holdfast/announcement"
"""Of what was brought into a conversation from elsewhere (a job's result): said by the assistant, asked of no model."""
SALVAGE_TYPE = "holdfast:salvage"  # customType of an answer kept for people after its turn was superseded
ARCHIVED_TYPE = "holdfast:archived"  # customType of the first line where another was put away: which archive that is

Part = dict[str, Any]
Content = str | list[Part]
StopReason = Literal["stop", "length", "toolUse", "error", "aborted"]
Visibility = Literal["model", "user", "audit"]
"""Whom a line is for (`visibility.py`)."""
VISIBILITIES: tuple[Visibility, ...] = ("model", "user", "audit")


class Origin(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who wrote a line: the value of its top-level key `holdfast`, which other readers ignore.

    `epoch` is the number of the fencing token; `inputs` are the ids of the inputs the line answers or carries; `final`
    says that it is the answer that settles them; `visibility` whom the line is for, empty: as its kind is. An origin
    proves nothing: the fence record decides what is ours.
    """

    store: str
    turn: str
    epoch: int
    lane: str
    writer: str
    inputs: tuple[str, ...] = ()
    final: bool = False
    visibility: str = ""  # a word that a later version may write is no reason to take the line for somebody else's


class _Line(Struct, frozen=True, kw_only=True):
    # Keyword-only fields of a base come last in every subclass, so the origin ends the line.
    holdfast: Origin | UnsetType = UNSET


class SessionHeader(_Line, frozen=True, rename="camel", tag_field="type", tag="session"):
    """The first line of a file. It is not part of the tree."""

    version: int = 1  # absent in the oldest files
    id: str = ""
    timestamp: str = ""
    cwd: str = ""
    parent_session: str | UnsetType = UNSET


class _Unplaced(_Line, frozen=True, kw_only=True):
    # Moves into the origin when the entry gets its place. The name is one that nobody else has at the top of a line.
    visibility: Visibility | UnsetType = msgspec.field(default=UNSET, name="holdfast:visibility")


class _Entry(_Unplaced, frozen=True, rename="camel", tag_field="type"):
    id: str = ""
    parent_id: str | None = None
    timestamp: str = ""


class MessageEntry(_Entry, frozen=True, rename="camel", tag="message"):
    """Something said; `message` stays a dict. Its role: user, assistant, toolResult, bashExecution or custom."""

    message: dict[str, Any] = {}


class ThinkingLevelChange(_Entry, frozen=True, rename="camel", tag="thinking_level_change"):
    thinking_level: str = "off"


class ModelChange(_Entry, frozen=True, rename="camel", tag="model_change"):
    provider: str = ""
    model_id: str = ""


class CompactionEntry(_Entry, frozen=True, rename="camel", tag="compaction"):
    """A summary that stands for everything before `first_kept_entry_id` on its branch."""

    summary: str = ""
    first_kept_entry_id: str = ""
    tokens_before: int | float = 0
    details: Any = UNSET
    from_hook: bool | UnsetType = UNSET


class BranchSummary(_Entry, frozen=True, rename="camel", tag="branch_summary"):
    from_id: str = "root"
    summary: str = ""
    details: Any = UNSET
    from_hook: bool | UnsetType = UNSET


class CustomEntry(_Entry, frozen=True, rename="camel", tag="custom"):
    """State of an extension, or an answer kept for people. The model never sees it."""

    custom_type: str = ""
    data: Any = UNSET


class CustomMessageEntry(_Entry, frozen=True, rename="camel", tag="custom_message"):
    """A note from a program. The model sees it as a user message; `display` says whether people do."""

    custom_type: str = ""
    content: Content = ""
    display: bool = True
    details: Any = UNSET


class LabelEntry(_Entry, frozen=True, rename="camel", tag="label"):
    """A name for the entry `target_id`; without `label` the name is taken away."""

    target_id: str = ""
    label: str | UnsetType | None = UNSET


class SessionInfo(_Entry, frozen=True, rename="camel", tag="session_info"):
    """The session's title; the latest wins, none or an empty one clears it."""

    name: str | UnsetType | None = UNSET


Entry = (
    MessageEntry
    | ThinkingLevelChange
    | ModelChange
    | CompactionEntry
    | BranchSummary
    | CustomEntry
    | CustomMessageEntry
    | LabelEntry
    | SessionInfo
)
AnyEntry = TypeVar("AnyEntry", bound=Entry)
ENTRY_TYPES = frozenset(
    (
        "message",
        "thinking_level_change",
        "model_change",
        "compaction",
        "branch_summary",
        "custom",
        "custom_message",
        "label",
        "session_info",
    )
)


# ── making entries ───────────────────────────────────────────────────────────────────────────────────────────────────


def user(content: str | Sequence[Part], *, visibility: Visibility | None = None) -> MessageEntry:
    """What a person said: text, or parts of type "text" and "image".

    Args:
        visibility: whom it is for, "model" (and people), "user" (people alone) or "audit"; None: as entries of its kind
            are. So everywhere here.

    Raises:
        InputError: nothing in it, a part of another type, or an unknown visibility.
    """
    parts = _parts(content, ("text", "image"))
    if not any(part.get("text") or part["type"] == "image" for part in parts):
        raise InputError("an empty message: give it some text or an image")
    return MessageEntry(message={"role": "user", "content": parts}, visibility=_seen_by(visibility))


def assistant(
    content: str | Sequence[Part],
    *,
    model: str,
    usage: dict[str, Any] | None = None,
    stop_reason: StopReason = "stop",
    api: str = "holdfast",
    error_message: str | None = None,
    visibility: Visibility | None = None,
) -> MessageEntry:
    """What a model answered: text, or parts of type "text", "thinking" and "toolCall".

    Args:
        model: "provider/model"; the provider is the text before the first slash.
        usage: the v3 usage object; None writes one with zeros.

    Raises:
        InputError: a model without a provider, an unknown stop reason, or a part of another type.
    """
    if stop_reason not in ("stop", "length", "toolUse", "error", "aborted"):
        raise InputError(f"unknown stop reason {stop_reason!r}: use stop, length, toolUse, error or aborted")
    provider, name = _split_model(model)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _parts(content, ("text", "thinking", "toolCall")),
        "api": api,
        "provider": provider,
        "model": name,
        "usage": zero_usage() if usage is None else usage,
        "stopReason": stop_reason,
    }
    if error_message is not None:
        message["errorMessage"] = error_message
    return MessageEntry(message=message, visibility=_seen_by(visibility))


def tool_result(
    call_id: str, name: str, content: str | Sequence[Part], *, is_error: bool = False, details: Any = UNSET,
    visibility: Visibility | None = None,
) -> MessageEntry:  # fmt: skip
    """The result of the tool call `call_id`."""
    if not call_id:
        raise InputError("a tool result needs the id of its call")
    message: dict[str, Any] = {
        "role": "toolResult",
        "toolCallId": call_id,
        "toolName": name,
        "content": _parts(content, ("text", "image")),
        "isError": is_error,
    }
    if details is not UNSET:
        message["details"] = details
    return MessageEntry(message=message, visibility=_seen_by(visibility))


def mirror(text: str) -> MessageEntry:
    """A copy of what was delivered, for people and other programs. It is metadata: the model never sees it."""
    return assistant(text, model=f"{MIRROR_PROVIDER}/{MIRROR_MODELS[0]}", api="openai-responses", visibility="user")


def custom(custom_type: str, data: Any = UNSET, *, visibility: Visibility | None = None) -> CustomEntry:
    """State of an extension, by name. The model never sees it; people do, with visibility "user"."""
    if visibility == "model":
        raise InputError("a custom entry is never for the model; use custom_message")
    name = _named(custom_type, "a custom entry needs a type")
    return CustomEntry(custom_type=name, data=data, visibility=_seen_by(visibility))


def custom_message(
    custom_type: str, content: str | Sequence[Part], *, display: bool = True, details: Any = UNSET,
    visibility: Visibility | None = None,
) -> CustomMessageEntry:  # fmt: skip
    """A note the model sees as a user message. Conversation: only the turn's owner may write it."""
    return CustomMessageEntry(
        custom_type=_named(custom_type, "a custom message needs a type"),
        content=content if isinstance(content, str) else _parts(content, ("text", "image")),
        display=display,
        details=details,
        visibility=_seen_by(visibility),
    )


def label(target_id: str, text: str | None = None) -> LabelEntry:
    """Name the entry `target_id`; None takes the name away."""
    return LabelEntry(target_id=_named(target_id, "a label needs a target"), label=UNSET if text is None else text)


def session_info(name: str | None = None) -> SessionInfo:
    """Set the session's title; None clears it."""
    return SessionInfo(name=UNSET if name is None else name)


def model_change(model: str) -> ModelChange:
    """From here on the session uses `model`, "provider/model"."""
    provider, name = _split_model(model)
    return ModelChange(provider=provider, model_id=name)


def thinking_level_change(level: str) -> ThinkingLevelChange:
    """From here on the session thinks at `level`."""
    return ThinkingLevelChange(thinking_level=_named(level, "a thinking level needs a name"))


def compaction(
    summary: str, first_kept_entry_id: str, *, tokens_before: int = 0, details: Any = UNSET
) -> CompactionEntry:
    """A summary of everything before `first_kept_entry_id`; `tokens_before` is the size of what it replaced."""
    kept = _named(first_kept_entry_id, "a compaction needs the id of the first entry it keeps")
    return CompactionEntry(summary=summary, first_kept_entry_id=kept, tokens_before=tokens_before, details=details)


def branch_summary(from_id: str, summary: str) -> BranchSummary:
    """What happened on the branch that was left at `from_id`."""
    return BranchSummary(from_id=_named(from_id, 'a branch summary needs an entry id, or "root"'), summary=summary)


def text_of(message: dict[str, Any]) -> str:
    """The text of a v3 message, without thinking and calls."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if part.get("type") == "text")


def _parts(content: str | Sequence[Part], allowed: tuple[str, ...]) -> list[Part]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts = list(content)
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in allowed:
            raise InputError(f"a part of type {kind!r} cannot stand here; use {' or '.join(allowed)}")
        fault = part_fault(part)
        if fault:
            raise InputError(fault)
    return parts


def part_fault(part: Part) -> str | None:
    """What a part of a known type lacks, in words; None when it is whole. Unknown types are left alone."""
    for name, kind in _PART_FIELDS.get(part.get("type", ""), ()):
        if not isinstance(part.get(name), kind):
            return f"a {part['type']} part without a proper {name!r}"
    return None


_PART_FIELDS: dict[str, tuple[tuple[str, type], ...]] = {
    "text": (("text", str),),
    "image": (("data", str), ("mimeType", str)),
    "thinking": (("thinking", str),),
    "toolCall": (("id", str), ("name", str), ("arguments", dict)),
}


def _seen_by(visibility: Visibility | None) -> Visibility | UnsetType:
    if visibility is None:
        return UNSET
    if visibility not in VISIBILITIES:
        raise InputError(f"unknown visibility {visibility!r}: use {', '.join(VISIBILITIES)}")
    return visibility


def _split_model(model: str) -> tuple[str, str]:
    provider, slash, name = model.partition("/")
    if not (provider and slash and name):
        raise InputError(f'model {model!r} has no provider: write it as "provider/model"')
    return provider, name


def _named(value: str, fault: str) -> str:
    if not value:
        raise InputError(fault)
    return value


# ── from an entry to a line ──────────────────────────────────────────────────────────────────────────────────────────


def stamped(entry: AnyEntry, *, id: str, parent: str | None, timestamp: str, origin: Origin | None) -> AnyEntry:
    """The same entry with its place in the tree. A message without a time of its own gets this one, in milliseconds.

    `timestamp` is in the form of `clock.iso`. The given entry is left as it was. Its visibility goes into the origin;
    without one it is lost.
    """
    changes: dict[str, Any] = {"id": id, "parent_id": parent, "timestamp": timestamp, "visibility": UNSET}
    if origin is not None:
        said = entry.visibility
        changes["holdfast"] = origin if said is UNSET else msgspec.structs.replace(origin, visibility=said)
    if isinstance(entry, MessageEntry) and "timestamp" not in entry.message:
        changes["message"] = {**entry.message, "timestamp": epoch_ms(datetime.fromisoformat(timestamp))}
    return msgspec.structs.replace(entry, **changes)


def encode_line(entry: Entry | SessionHeader) -> bytes:
    """One line, its newline included; no other line break of any alphabet is in it.

    Half an emoji (a lone surrogate) is kept, as an escape. Numbers that JSON has no word for become null, as
    `JSON.stringify` writes them.

    Raises:
        InputTooLargeError: longer than `LINE_BYTES_MAX`, or nested deeper than `DEPTH_MAX`.
        InputError: it holds something JSON has no form for.
        ValueError: the entry was not stamped.
    """
    if not (entry.id and entry.timestamp):
        raise ValueError("an entry is written with an id and a time: call stamped() first")
    try:
        line = _encode(entry) + b"\n"
    except RecursionError as exc:
        raise InputTooLargeError(f"an entry nested deeper than {DEPTH_MAX} levels cannot be written") from exc
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError(f"an entry must be plain JSON: {exc}") from exc
    if len(line) > LINE_BYTES_MAX:
        raise InputTooLargeError(
            f"a line of {len(line)} bytes is over the limit of {LINE_BYTES_MAX}; send less at once"
        )
    if line.count(b"[") + line.count(b"{") > DEPTH_MAX and deeper_than(msgspec.to_builtins(entry), DEPTH_MAX):
        raise InputTooLargeError(f"an entry nested deeper than {DEPTH_MAX} levels cannot be written")
    return line


def _encode(entry: Entry | SessionHeader) -> bytes:
    try:
        line = msgspec.json.encode(entry)
    except UnicodeEncodeError:
        return _encode_escaped(msgspec.to_builtins(entry, str_keys=True))
    if line.isascii():
        return line
    # Valid inside JSON strings, but line breaks to readers that split text rather than bytes.
    return (
        line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029").replace(b"\xc2\x85", b"\\u0085")
    )


def _encode_escaped(value: Any) -> bytes:
    """With every character beyond ASCII as an escape: the only form that can hold a lone surrogate."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(finite, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects in `value`, itself one, stand in each other more than `limit` levels deep."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for container in level:
            children = container.values() if isinstance(container, dict) else container
            inner.extend(child for child in children if isinstance(child, (dict, list, tuple)))
        if not inner:
            return False
        level = inner
    return True
