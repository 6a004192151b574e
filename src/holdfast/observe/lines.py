"""Lines of a transcript in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from holdfast.session.branch import active_branch
from holdfast.session.lines import Line

RESULT_CHARS_MAX = 2000
"""A tool's result is for the model; people see its beginning, and all of it as the line is (`--raw`, `--json`)."""


def ids_beside(lines: Sequence[Line]) -> AbstractSet[str | None]:
    """Ids of entries that are not on the active branch."""
    active = {line.id for line in active_branch(lines).lines}
    return {line.id for line in lines if line.kind != "header" and line.id is not None} - active


def describe(line: Line) -> tuple[str, str]:
    """A heading and a text for one line."""
    try:
        value = line.value()
    except (ValueError, RecursionError):
        return f"unreadable: {line.reason or 'blank'}", line.raw.decode("utf-8", "backslashreplace")
    at = str(value.get("timestamp", ""))
    if line.type == "message" and isinstance(value.get("message"), dict):
        return _describe_message(value["message"], at)
    if line.type in ("compaction", "branch_summary"):
        return f"{line.type}  {at}", str(value.get("summary", ""))
    if line.type == "custom_message":
        return f"note from {line.custom_type}  {at}", _text_of(value.get("content"))
    if line.type == "custom":
        return f"{line.custom_type}  {at}", _text_of(value.get("data"))
    facts = {
        name: fact for name, fact in value.items() if name not in ("type", "id", "parentId", "timestamp", "holdfast")
    }
    return f"{line.type or line.kind}  {at}", ", ".join(f"{name}: {fact}" for name, fact in facts.items())


def _describe_message(message: dict[str, Any], at: str) -> tuple[str, str]:
    role = message.get("role")
    text = _text_of(message.get("content"))
    if role == "assistant":
        return f"assistant ({message.get('provider')}/{message.get('model')})  {at}", text
    if role == "toolResult":
        failed = " failed" if message.get("isError") else ""
        return f"result of {message.get('toolName')}{failed}  {at}", _cut(text)
    if role == "bashExecution":
        return f"shell: {message.get('command')}  {at}", _cut(str(message.get("output", "")))
    return f"{role}  {at}", text


def _text_of(content: Any) -> str:
    """Content in any of its forms as text: a string, parts, or the data of a kept answer."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content if isinstance(part, dict))
    if isinstance(content, dict):
        return "\n".join(f"{name}: {_text_of(value)}" for name, value in content.items())
    return "" if content is None else str(content)


def _part_text(part: dict[str, Any]) -> str:
    match part.get("type"):
        case "text":
            return str(part.get("text", ""))
        case "thinking":
            return f"(thinking) {part.get('thinking', '')}"
        case "toolCall":
            return f"→ {part.get('name')}({part.get('arguments')})"
        case "image":
            return f"[image, {part.get('mimeType')}]"
        case other:
            return f"[{other}]"


def _cut(text: str) -> str:
    left_out = len(text) - RESULT_CHARS_MAX
    return text if left_out <= 0 else f"{text[:RESULT_CHARS_MAX]}\n… ({left_out} characters more)"
