"""Reading what a model gave as arguments: of the right kind, or an error that says what was expected."""

from __future__ import annotations

from holdfast.errors import InputError
from holdfast.turn.tools import ToolCall


def text_of(call: ToolCall, name: str, default: str | None = None) -> str:
    """A text. Raises InputError: it is none, or it is missing and has no default."""
    value = call.arguments.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        raise InputError(f"{name}: a text, please")
    return value


def texts(call: ToolCall, *names: str) -> list[str]:
    """Several that must be there."""
    return [text_of(call, name) for name in names]


def flag(call: ToolCall, name: str, default: bool = False) -> bool:
    value = call.arguments.get(name)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise InputError(f"{name}: true or false, please")
    return value


def number(call: ToolCall, name: str, default: int, least: int, most: int) -> int:
    """A whole number; one above `most` counts as that."""
    value = call.arguments.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value < least:
        raise InputError(f"{name}: a number from {least}, please")
    return int(min(value, most))


def list_of_texts(call: ToolCall, name: str) -> list[str]:
    value = call.arguments.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise InputError(f'{name}: a list of texts, please, such as ["ls", "-l"]')
    return [str(one) for one in value]
