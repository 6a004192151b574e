"""All keys of holdfast.toml as a flat list, read off the models once. Pure.

A path is a tuple of names; `*` stands for a name that the user chooses (`agents.*.model`, `lanes.widths.*`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from holdfast.config.model import Config

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Path = tuple[str, ...]
ANY = "*"
PREFIX = "HOLDFAST_"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `annotation` is its type; `field` carries description and default (of the table, below a `*`)."""

    path: Path
    annotation: Any
    field: FieldInfo

    @property
    def variable(self) -> str:
        """The environment variable that overrides it; NAME stands for the chosen name."""
        return PREFIX + "_".join("NAME" if part == ANY else shout(part) for part in self.path)


def dotted(path: Iterable[str | int]) -> str:
    """`("lanes", "widths", "cron")` as `lanes.widths.cron`."""
    return ".".join(str(part) for part in path)


def shout(name: str) -> str:
    """A name as it stands in a variable: `cron-nested` is CRON_NESTED."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key, in the order in which the models define them."""
    return tuple(_keys_of(Config, ()))


def _keys_of(model: type[BaseModel], path: Path) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        yield from _keys_below(field.annotation, (*path, name), field)


def _keys_below(annotation: Any, path: Path, field: FieldInfo) -> Iterator[Key]:
    table = next((one for one in (annotation, *get_args(annotation)) if _is_table(one)), None)
    if table is not None and get_origin(annotation) is not Mapping:  # a table, or one that may be left out
        yield from _keys_of(table, path)
    elif get_origin(annotation) is Mapping:
        yield from _keys_below(get_args(annotation)[1], (*path, ANY), field)
    else:
        yield Key(path, annotation, field)


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def matches(pattern: Path, path: Path) -> bool:
    """Whether `path` is an instance of `pattern`."""
    return len(pattern) == len(path) and all(part in (ANY, name) for part, name in zip(pattern, path, strict=True))


def find_key(path: Path) -> Key | None:
    """The key that `path` names, or None."""
    return next((key for key in all_keys() if matches(key.path, path)), None)


def suggest(path: Path) -> str:
    """`; did you mean "…"?` for an unknown path (a sibling, else a like-named key elsewhere), or an empty string."""
    depth = len(path) - 1
    siblings = {key.path[depth] for key in all_keys() if len(key.path) > depth and matches(key.path[:depth], path[:-1])}
    if depth == 0:
        siblings |= set(Config.model_fields)  # a section may have no keys yet
    near = difflib.get_close_matches(path[-1], siblings - {ANY}, n=1)
    if near:
        return f'; did you mean "{dotted((*path[:-1], near[0]))}"?'
    elsewhere = [dotted(key.path) for key in all_keys() if key.path[-1] == path[-1]]
    return f'; did you mean "{elsewhere[0]}"?' if elsewhere else ""


def suggest_variable(variable: str) -> str:
    """The same for a variable."""
    near = difflib.get_close_matches(variable, [key.variable for key in all_keys()], n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
