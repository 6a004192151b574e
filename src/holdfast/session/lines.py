"""Lines of a transcript as they are: whose they are, what kind, and whether they can be trusted to mean anything.

Reading looks only at what decides: type, ids, role, origin. The bytes are kept as they came and never encoded again,
since that would change numbers and lose fields. It costs about two thirds of decoding the line whole.

msgspec reads fast but refuses things that JavaScript writes (half an emoji, a number past every range), and it does not
look for invalid UTF-8 in what it skips; so each line is checked for UTF-8 first, and each refusal is given to the
standard `json` before the line is called malformed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from holdfast.session.entries import (
    ENTRY_TYPES,
    FORMAT_VERSION,
    ID_BYTES_MAX,
    LINE_BYTES_MAX,
    MIRROR_MODELS,
    MIRROR_PROVIDER,
    Entry,
    Origin,
    SessionHeader,
)

Kind = Literal["header", "entry", "unknown", "malformed", "blank"]


# gc=False below: these cannot refer back to themselves, and a reader may hold many.


class Line(Struct, frozen=True, gc=False):
    """One line, read as far as needed.

    kind: "header" (type `session`); "entry" (a known type, well formed); "unknown" (good JSON with a type or a message
        role we do not know); "malformed" (`reason` says how); "blank" (nothing but white space).
    raw: the bytes as given, usually without the newline.
    parent: None for both null and absent; `has_parent` tells them apart.
    id, parent: also filled for unknown and malformed lines if they could be read, so that a tree need not break there.
    version: of a header; 1 where it says none.
    first_kept, first_kept_index: of a compaction; version 1 gives a position instead of an id.
    """

    raw: bytes
    kind: Kind
    type: str | None = None
    id: str | None = None
    parent: str | None = None
    has_parent: bool = False
    message_role: str | None = None
    provider: str | None = None
    model: str | None = None
    custom_type: str | None = None
    origin: Origin | None = None
    version: int | None = None
    reason: str | None = None
    first_kept: str | None = None
    first_kept_index: int | None = None

    def value(self) -> dict[str, Any]:
        """The whole line as a dict. Raises ValueError for a line that is not a JSON object."""
        return load_object(self.raw)


class ForeignEntry(Struct, frozen=True):
    """A line without a typed form. Copy `line.raw`; do not encode it again."""

    line: Line


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The complete lines of `data`, without their newlines, and the unfinished rest. Only byte 10 ends a line."""
    *complete, tail = data.split(b"\n")
    return complete, tail


def read_line(raw: bytes, *, version: int = FORMAT_VERSION) -> Line:
    """Say what a line is. Never raises for any bytes.

    `version` is that of the file's header: entries of version 1 need no id.
    """
    if not raw.strip(b" \t\r\n"):
        return Line(raw, "blank")
    if len(raw) > LINE_BYTES_MAX:
        return Line(raw, "malformed", reason=f"longer than {LINE_BYTES_MAX} bytes")
    try:
        if not raw.isascii():
            raw.decode("utf-8")
        found = _envelope.decode(raw)
    except UnicodeDecodeError as exc:
        return Line(raw, "malformed", reason=f"not UTF-8 (byte {exc.start})")
    except (msgspec.DecodeError, RecursionError):
        return _read_slowly(raw, version)
    return _judge(raw, found, version)


def is_mirror(line: Line) -> bool:
    """A copy of what was delivered, in any writer's hand (formats.md §2)."""
    return (
        line.kind == "entry"
        and line.message_role == "assistant"
        and line.provider == MIRROR_PROVIDER
        and line.model in MIRROR_MODELS
    )


def is_conversation(line: Line) -> bool:
    """Whether it changes what the model is shown: only the turn's owner may write such a line."""
    if line.kind != "entry":
        return False
    if line.type == "message":
        return not is_mirror(line)
    return line.type in ("custom_message", "compaction", "branch_summary")


def is_metadata(line: Line) -> bool:
    """Whether it is neither conversation nor context; a former owner's or an operator's pen may write it."""
    return line.kind == "entry" and not is_conversation(line)


def decode_entry(raw: bytes) -> Entry | SessionHeader | ForeignEntry:
    """The typed form of a line. What it cannot hold (unknown fields) is only in the bytes: never write it back."""
    line = read_line(raw)
    if line.kind not in ("header", "entry"):
        return ForeignEntry(line)
    try:
        return _typed.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        try:
            return msgspec.convert(_utf8_keys(load_object(raw)), type=Entry | SessionHeader)
        except (msgspec.ValidationError, RecursionError):
            return ForeignEntry(line)


def load_object(raw: bytes) -> dict[str, Any]:
    """A line as a dict, by the rules of JavaScript where JSON leaves room.

    Lone surrogates are read, integers of any length are exact up to 4,300 digits and floats beyond, NaN and infinity
    are read though JavaScript would not. A byte order mark is refused, as JavaScript does.

    Raises:
        ValueError: not UTF-8, not JSON, or not an object.
        RecursionError: nested too deeply for this interpreter.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        value = json.loads(raw.decode("utf-8"), parse_int=_integer)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Part(Struct, gc=False):
    type: str
    text: str | None = None
    thinking: str | None = None
    data: str | None = None
    mimeType: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: dict[str, Any] | None = None


class _Message(Struct, gc=False):
    role: str
    content: str | list[_Part] | None = None
    provider: str | None = None
    model: str | None = None
    toolCallId: str | None = None
    command: str | None = None
    output: str | None = None
    customType: str | None = None


class _Envelope(Struct, gc=False):
    type: str
    id: str | None = None
    parentId: str | UnsetType | None = UNSET
    message: _Message | None = None
    holdfast: Origin | None = None
    version: int | None = None
    customType: str | None = None
    content: str | list[_Part] | None = None
    targetId: str | None = None
    label: str | None = None
    name: str | None = None
    thinkingLevel: str | None = None
    provider: str | None = None
    modelId: str | None = None
    summary: str | None = None
    firstKeptEntryId: str | None = None
    firstKeptEntryIndex: int | None = None
    fromId: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_typed = msgspec.json.Decoder(Entry | SessionHeader)


def _read_slowly(raw: bytes, version: int) -> Line:
    """For a line the fast reader refused: perhaps it is only awkward."""
    try:
        return _judge_object(raw, _utf8_keys(load_object(raw)), version)
    except RecursionError:
        return Line(raw, "malformed", reason="nested too deeply")
    except ValueError as exc:
        return Line(raw, "malformed", reason=str(exc))


def _judge_object(raw: bytes, value: dict[str, Any], version: int) -> Line:
    for name in ("id", "parentId"):
        if isinstance(value.get(name), str) and not _encodable(value[name]):
            return _malformed(raw, value, f"{name} is not UTF-8")
    try:
        msgspec.convert(value.get("holdfast"), type=Origin | None)
    except msgspec.ValidationError:
        del value["holdfast"]  # not in our form, so not ours; the line may be good all the same
    try:
        return _judge(raw, msgspec.convert(value, type=_Envelope), version)
    except msgspec.ValidationError as exc:
        kind = _text(value.get("type"))
        known = kind is None or kind == "session" or kind in ENTRY_TYPES
        line = _malformed(raw, value, str(exc))
        return line if known else msgspec.structs.replace(line, kind="unknown", reason=None)


def _malformed(raw: bytes, value: dict[str, Any], reason: str) -> Line:
    """With what could be read of its place in the tree; an id that is not UTF-8 names nothing."""
    id, parent = _text(value.get("id")), _text(value.get("parentId"))
    return Line(
        raw,
        "malformed",
        type=_text(value.get("type")),
        id=id if id is not None and _encodable(id) else None,
        parent=parent if parent is not None and _encodable(parent) else None,
        has_parent="parentId" in value,
        reason=reason,
    )


def _judge(raw: bytes, found: _Envelope, version: int) -> Line:
    """The line's kind, once its fields have the right types."""
    message = found.message
    kind: Kind = "entry"
    reason: str | None = None
    file_version: int | None = None
    if found.type == "session":
        kind = "header"
        file_version = 1 if found.version is None else found.version
        if not 1 <= file_version <= FORMAT_VERSION:
            kind, reason = ("malformed", f"format version {file_version} is not one of 1 to {FORMAT_VERSION}")
    elif found.type not in ENTRY_TYPES or (message is not None and message.role not in _ROLES):
        kind = "unknown"
    else:
        reason = _id_fault(found.id, version) or _FAULTS[found.type](found)
        if reason is not None:
            kind = "malformed"
    return Line(
        raw,
        kind,
        found.type,
        found.id,
        None if found.parentId is UNSET else found.parentId,
        found.parentId is not UNSET,
        message.role if message is not None and found.type == "message" else None,
        message.provider if message is not None else found.provider,
        message.model if message is not None else found.modelId,
        found.customType,
        found.holdfast,
        file_version,
        reason,
        found.firstKeptEntryId,
        found.firstKeptEntryIndex,
    )


def _id_fault(id: str | None, version: int) -> str | None:
    if id is None:
        return None if version == 1 else "no id"
    if not id or len(id.encode("utf-8", "surrogatepass")) > ID_BYTES_MAX:
        return f"an id must have 1 to {ID_BYTES_MAX} bytes"
    return None


def _message_fault(found: _Envelope) -> str | None:
    message = found.message
    if message is None:
        return "no message"
    role = message.role
    if role == "bashExecution":
        return None if message.command is not None and message.output is not None else "no command or output"
    if role == "toolResult" and not message.toolCallId:
        return "a tool result without the id of its call"
    if role in ("custom", "hookMessage") and not message.customType:
        return "no customType"
    if message.content is None:
        mirrors = role == "assistant" and message.provider == MIRROR_PROVIDER and message.model in MIRROR_MODELS
        return None if mirrors else "no content"
    return _content_fault(message.content)


def _content_fault(content: str | list[_Part] | None) -> str | None:
    if content is None:
        return "no content"
    if isinstance(content, str):
        return None
    for part in content:
        kind = part.type
        if kind == "text":
            whole = part.text is not None
        elif kind == "thinking":
            whole = part.thinking is not None
        elif kind == "toolCall":
            whole = bool(part.id) and bool(part.name) and part.arguments is not None
        elif kind == "image":
            whole = part.data is not None and part.mimeType is not None
        else:
            whole = True  # a kind of part from a later version; left out of the context
        if not whole:
            return f"a part of type {kind} lacks a field"
    return None


def _custom_message_fault(found: _Envelope) -> str | None:
    return "no customType" if not found.customType else _content_fault(found.content)


def _compaction_fault(found: _Envelope) -> str | None:
    if found.summary is None:
        return "no summary"
    return None if found.firstKeptEntryId or found.firstKeptEntryIndex is not None else "no firstKeptEntryId"


_ROLES = frozenset(("user", "assistant", "toolResult", "bashExecution", "custom", "hookMessage"))
_FAULTS: dict[str, Callable[[_Envelope], str | None]] = {
    "message": _message_fault,
    "thinking_level_change": lambda found: None if found.thinkingLevel else "no thinkingLevel",
    "model_change": lambda found: None if found.provider and found.modelId else "no provider or modelId",
    "compaction": _compaction_fault,
    "branch_summary": lambda found: None if found.fromId and found.summary is not None else "no fromId or summary",
    "custom": lambda found: None if found.customType else "no customType",
    "custom_message": _custom_message_fault,
    "label": lambda found: None if found.targetId else "no targetId",
    "session_info": lambda _: None,
}


def _integer(digits: str) -> int | float:
    limit = sys.get_int_max_str_digits()
    return int(digits) if limit == 0 or len(digits) <= limit else float(digits)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _utf8_keys(value: Any) -> Any:
    """Without the keys that hold a lone surrogate: no field of ours, and msgspec cannot look at them."""
    if isinstance(value, dict):
        return {key: _utf8_keys(inner) for key, inner in value.items() if _encodable(key)}
    return [_utf8_keys(inner) for inner in value] if isinstance(value, list) else value


def _encodable(key: str) -> bool:
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
