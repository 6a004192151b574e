"""HOLDFAST_… variables as keys: `HOLDFAST_SESSION_FENCE_MODE` is `session.fence_mode`. Pure.

A variable wins over the file. In a table of chosen names (`lanes.widths`, `agents`, …) the name is matched against
those that exist (`CRON_NESTED` finds `cron-nested`); a new one is taken in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from holdfast.config.keys import ANY, PREFIX, Key, Path, all_keys, shout, suggest_variable

NOT_KEYS = frozenset(
    {"HOLDFAST_STATE", "HOLDFAST_CONFIG", "HOLDFAST_CASES", "HOLDFAST_HOOKS_TOKEN", "HOLDFAST_NODE_DIR"}
)
"""Variables that mean something else: the state directory, the file itself, the folder of `make cases`, a secret."""


@dataclass(slots=True)
class Overlay:
    """What the environment says: values and the variable each came from, by path; faults and warnings in words."""

    values: dict[Path, Any] = field(default_factory=dict)
    variables: dict[Path, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def overlay(env: Mapping[str, str], tree: Mapping[str, Any]) -> Overlay:
    """The keys that `env` sets; `tree` (defaults and file) tells which chosen names exist.

    A variable below a known section that names no key is a fault, like an unknown key in the file; any other HOLDFAST_…
    variable may belong to somebody else and is only mentioned.
    """
    sections = {shout(key.path[0]) for key in all_keys()}
    found = Overlay()
    others = NOT_KEYS | set(_named_variables(tree))
    for variable in sorted(name for name in env if name.startswith(PREFIX) and name not in others):
        target = _target(variable, tree)
        if target is not None:
            key, path = target
            try:
                found.values[path] = _parse(env[variable], key.annotation)
                found.variables[path] = variable
            except ValueError as wrong:
                found.faults.append(f"{variable}: {wrong}")
        elif variable.removeprefix(PREFIX).split("_")[0] in sections:
            found.faults.append(f"{variable}: no such key{suggest_variable(variable)}")
        else:
            found.warnings.append(f"{variable}: not a variable of Holdfast{suggest_variable(variable)}")
    return found


def _named_variables(tree: Mapping[str, Any]) -> Iterator[str]:
    """Variables that keys such as `token_env` name: they hold secrets, not keys."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _named_variables(value)
        elif name.endswith("_env") and isinstance(value, str):
            yield value


def _target(variable: str, tree: Mapping[str, Any]) -> tuple[Key, Path] | None:
    """The key that `variable` names and its full path; keys without chosen names come first."""
    for key in sorted(all_keys(), key=lambda key: ANY in key.path):
        pattern = PREFIX + "_".join("([A-Z0-9_]+?)" if part == ANY else shout(part) for part in key.path)
        match = re.fullmatch(pattern, variable)
        if match:
            return key, _fill(key.path, list(match.groups()), tree)
    return None


def _fill(pattern: Path, chosen: list[str], tree: Mapping[str, Any]) -> Path:
    path: list[str] = []
    level: Any = tree
    for part in pattern:
        if part == ANY:
            wanted = chosen.pop(0)
            part = next((name for name in level if shout(name) == wanted), wanted.lower())
        path.append(part)
        below = level.get(part)
        level = below if isinstance(below, Mapping) else {}
    return tuple(path)


def _parse(text: str, annotation: Any) -> Any:
    """`text` as the key's type. An empty text unsets a key that may be unset.

    Raises:
        ValueError: it is not of that type, in words.
    """
    choices = get_args(annotation)
    if text == "" and type(None) in choices:
        return None
    if get_origin(annotation) is tuple or any(get_origin(choice) is tuple for choice in choices):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return TypeAdapter(annotation).validate_strings(text)
    except ValidationError as wrong:
        raise ValueError(f"{_in_words(wrong)}, got {text!r}") from None


def _in_words(wrong: ValidationError) -> str:
    return wrong.errors()[0]["msg"].split(",")[0].replace("Input should be", "must be")
