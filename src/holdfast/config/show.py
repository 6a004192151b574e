"""What is in force and where it came from: rows for programs, TOML for people. Secrets are never shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretStr

from holdfast.config import keys
from holdfast.config.load import Loaded

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Row:
    """One key in force. `source`: "default", "file" or the name of a variable."""

    path: keys.Path
    value: Any
    source: str

    @property
    def key(self) -> str:
        return keys.dotted(_quoted(part) for part in self.path)


def rows(loaded: Loaded) -> list[Row]:
    """Every key with its value, in the order of the models; secrets as `***`."""
    return [Row(path, _public(value), loaded.sources.get(path, "default")) for path, value in walk(loaded.config, ())]


def as_toml(loaded: Loaded) -> str:
    """The configuration as a holdfast.toml that says the same, each line marked with its source."""
    lines: list[str] = []
    table: keys.Path = ()
    for row in rows(loaded):
        if row.path[:-1] != table:
            table = row.path[:-1]
            lines += ["", f"[{keys.dotted(_quoted(part) for part in table)}]"]
        name = _quoted(row.path[-1])
        setting = f"# {name} is unset" if row.value is None else f"{name} = {_toml(row.value)}"
        lines.append(f"{setting:<50} # {row.source}")
    return "\n".join(lines).lstrip("\n") + "\n"


def without_password(url: str) -> str:
    """`url` with any user and password in it hidden; other text unchanged."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}"))


def walk(value: Any, path: keys.Path) -> Iterator[tuple[keys.Path, Any]]:
    """Every key below `value` with what it is, secrets too."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from walk(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from walk(below, (*path, str(name)))
    else:
        yield path, value


def _public(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    return without_password(value) if isinstance(value, str) else value


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """A value as TOML; its strings and numbers are written as in JSON, apart from the delete character."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
