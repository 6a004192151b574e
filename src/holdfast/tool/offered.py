"""What a server offers and answers, made fit for a model: names, descriptions, schemas. Pure.

A server's texts are others' texts, which may have been written to talk a model into something. They are bounded, and
hold nothing that people do not see.

Source: names that all providers take, `[a-zA-Z_][a-zA-Z0-9_-]{0,63}`: OpenAI and Anthropic; the beginning is Google's.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from holdfast.ids import derived_id
from holdfast.text import escape_controls

NAME_CHARS_MAX = 64
DESCRIPTION_CHARS_MAX = 1000
SCHEMA_CHARS_MAX = 16 * 1024
SCHEMA_DEPTH_MAX = 24
TOOLS_MAX = 128
"""Of one server. Some providers take no more than that in all."""
_DIGITS = 8
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")
_UNSEEN = frozenset({"Cf", "Co", "Cn"})
"""Unicode categories: format marks (also tags, which spell invisible text), private use, unassigned."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of an offer.

    Args:
        tools: by the name under which a model calls it; cleaned.
        refused: why others are not offered, by the server's name for them.
    """

    tools: Mapping[str, Offered]
    refused: Mapping[str, str]


def take(server: str, offers: Iterable[Offered], taken: Collection[str] = ()) -> Taken:
    """What a model may be shown of a server's tools.

    Args:
        taken: names of other tools, which stay theirs.
    """
    tools: dict[str, Offered] = {}
    refused: dict[str, str] = {}
    for one in offers:
        shown = plain(one.name, NAME_CHARS_MAX)
        full = full_name(server, one.name)
        try:
            schema = _clean_schema(one.parameters)
        except ValueError as wrong:
            refused[shown] = str(wrong)
            continue
        if full in tools or full in taken:
            refused[shown] = f"the name {full} is taken"
        elif len(tools) >= TOOLS_MAX:
            refused[shown] = f"more than {TOOLS_MAX} tools"
        else:
            tools[full] = Offered(one.name, plain(one.description, DESCRIPTION_CHARS_MAX) or full, schema)
    return Taken(MappingProxyType(tools), MappingProxyType(refused))


def full_name(server: str, name: str) -> str:
    """The name under which models call a tool: `SERVER_tool`. One that had to be changed ends with a digest, so that
    two tools do not become one.
    """
    full = f"{server}_{_ILLEGAL.sub('_', name)}"
    if len(full) <= NAME_CHARS_MAX and full == f"{server}_{name}":
        return full
    digest = derived_id("tool of a server", server, name)[:_DIGITS]
    return f"{full[: NAME_CHARS_MAX - _DIGITS - 1]}_{digest}"


def plain(text: str, chars_max: int) -> str:
    """Text of a server: without what is not seen, and cut."""
    seen = escape_controls("".join(one for one in text if unicodedata.category(one) not in _UNSEEN))
    return seen if len(seen) <= chars_max else seen[: chars_max - 1] + "…"


def _clean_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError: it is too large or too deep, or does not describe an object."""
    clean = _clean(schema, SCHEMA_DEPTH_MAX)
    if not isinstance(clean, dict) or clean.setdefault("type", "object") != "object":
        raise ValueError("its arguments are not described as an object")
    if len(json.dumps(clean)) > SCHEMA_CHARS_MAX:
        raise ValueError(f"the description of its arguments is over {SCHEMA_CHARS_MAX} characters")
    clean.setdefault("properties", {})
    return clean


def _clean(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError(f"the description of its arguments is over {SCHEMA_DEPTH_MAX} levels deep")
    if isinstance(value, str):
        return plain(value, DESCRIPTION_CHARS_MAX)
    if isinstance(value, Mapping):
        return {plain(str(name), DESCRIPTION_CHARS_MAX): _clean(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one, depth - 1) for one in value]
    return value
