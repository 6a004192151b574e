"""What a changed holdfast.toml changes in a gateway that runs, and what waits for its next start. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from holdfast.config.keys import dotted
from holdfast.config.load import Loaded
from holdfast.config.model import Config
from holdfast.config.show import walk
from holdfast.errors import ConfigError

LIVE: tuple[str, ...] = (
    "models", "prices", "agents", "spending", "compaction", "prompt_caching", "queue", "subagents", "bindings",
    "identities", "lanes", "retention", "heartbeat", "cron", "recovery",
    "gateway.tokens", "session.fence_mode", "session.dm_scope", "session.reset",
    "turn.steps_max", "turn.tool_seconds_max", "turn.output_bytes_max", "turn.silence_s", "tools",
    "hooks.mappings", "hooks.per_minute", "hooks.agents", "hooks.allow_request_session", "hooks.session_prefixes",
)  # fmt: skip
"""Keys, and tables, that a running gateway takes. Everything else is read once, at start."""
AT_START: tuple[str, ...] = (
    "tools.servers", "tools.functions", "tools.plugins", "subagents.archive_after_s",
)  # fmt: skip
"""Of those the ones that are not: programs that run and modules that are loaded."""
LIVE_OF_CHANNELS = frozenset({
    "dm", "allow_from", "groups", "allow_groups", "group_senders", "mention", "bots", "reaction", "attachments_max",
    "attachment_mib_max",
})  # fmt: skip
"""Of each channel: who may speak, and what is taken. Connections stay as they were opened."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading the configuration again. Paths of keys, with dots.

    Args:
        at: ISO time. by: what asked for it. file: the file that was read; None: there is none.
        applied: what holds from now on. waiting: what differs from the start of the gateway and needs its next one.
        faults: what is wrong, each with its key; nothing was changed then.
    """

    at: str
    by: str
    file: str | None = None
    applied: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """One line."""
        if self.faults:
            return f"nothing was changed: {'; '.join(self.faults)}"
        said = [f"applied: {', '.join(self.applied)}"] if self.applied else []
        said += [f"needs a restart: {', '.join(self.waiting)}"] if self.waiting else []
        return "; ".join(said) or "nothing has changed"


def effective(booted: Config, found: Config) -> Config:
    """`found`, with everything that waits for a start as it was in `booted`.

    Raises:
        ConfigError: what waits and what does not contradict each other.
    """
    there = frozenset(booted.platforms()) & frozenset(found.platforms())
    old, new = booted.model_dump(), found.model_dump()
    for path in _changed(booted, found):
        if not _is_live(path, there):
            _put(new, path, _get(old, path))
    _prune(new, old)
    try:
        return Config.model_validate(new)
    except ValidationError as wrong:
        faults = [f"{dotted(error['loc'])}: {error['msg']}; restart the gateway" for error in wrong.errors()]
        raise ConfigError(faults) from wrong


def _is_live(path: tuple[str, ...], channels: frozenset[str]) -> bool:
    """Whether a running gateway takes a change of this key. `channels`: those that it has and keeps."""
    if path[0] == "channels":
        return len(path) == 3 and path[1] in channels and path[2] in LIVE_OF_CHANNELS
    name = dotted(path)
    return _is_below(name, LIVE) and not _is_below(name, AT_START)


def compare(booted: Config, current: Config, found: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of `found` is to be applied to `current`, and what waits for a start, since `booted`."""
    there = frozenset(booted.platforms()) & frozenset(found.platforms())
    applied = [path for path in _changed(current, found) if _is_live(path, there)]
    waiting = [path for path in _changed(booted, found) if not _is_live(path, there)]
    return _named(applied, current, found), _named(waiting, booted, found)


def _named(paths: list[tuple[str, ...]], old: Config, new: Config) -> tuple[str, ...]:
    """Paths for people. Of a table that is new, or is gone, the table alone."""
    before, after = old.model_dump(), new.model_dump()
    shortest = (
        next((path[:n] for n in range(1, len(path)) if _is_table(before, path[:n]) != _is_table(after, path[:n])), path)
        for path in paths
    )
    return tuple(dict.fromkeys(dotted(path) for path in shortest))


def _is_table(tree: Any, path: tuple[str, ...]) -> bool:
    return isinstance(_get(tree, path), dict)


def _changed(old: Config, new: Config) -> list[tuple[str, ...]]:
    before, after = _values(old), _values(new)
    return sorted(path for path in {*before, *after} if before.get(path, _ABSENT) != after.get(path, _ABSENT))


def _values(config: Config) -> dict[tuple[str, ...], Any]:
    return dict(walk(config, ()))


def _is_below(name: str, tables: tuple[str, ...]) -> bool:
    return any(name == table or name.startswith(f"{table}.") for table in tables)


_ABSENT = object()


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree.get(part, _ABSENT) if isinstance(tree, dict) else _ABSENT
    return tree


def _prune(tree: dict[str, Any], old: Any) -> None:
    """Take away what is empty and was not there: tables whose keys all wait."""
    for name, below in list(tree.items()):
        if isinstance(below, dict):
            before = old.get(name) if isinstance(old, dict) else None
            _prune(below, before)
            if not below and before is None:
                del tree[name]


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Put it there, or take away what is there, and tables that are empty then."""
    if len(path) == 1:
        tree.pop(path[0], None) if value is _ABSENT else tree.update({path[0]: value})
        return
    below = tree.get(path[0])
    if not isinstance(below, dict):
        if value is _ABSENT:
            return
        below = tree[path[0]] = {}
    _put(below, path[1:], value)
    if value is _ABSENT and not below:
        del tree[path[0]]


def of_loaded(loaded: Loaded, booted: Config, current: Config, *, at: str, by: str) -> Reloaded:
    """The report on a configuration that is good."""
    applied, waiting = compare(booted, current, loaded.config)
    return Reloaded(at, by, str(loaded.file) if loaded.file else None, applied, waiting, warnings=loaded.warnings)
