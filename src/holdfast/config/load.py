"""Compose the configuration once: defaults, then the file, then the environment; all faults at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast.config import keys
from holdfast.config.channels import check_channels
from holdfast.config.environment import overlay
from holdfast.config.model import Config
from holdfast.config.sessions import WriteLockConfig
from holdfast.config.timers import check_timers
from holdfast.errors import ConfigError, InputError, ProviderError
from holdfast.inbound import route
from holdfast.model import catalog
from holdfast.model.credentials import read_keys_file

FILE_BYTES_MAX = 1 << 20
"""A megabyte of settings is a mistake, such as a log file named by --config."""

ACQUIRE_TIMEOUT = ("session", "write_lock", "acquire_timeout_ms")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration and where it came from.

    Args:
        file: the file that was read; None: there was none.
        sources: by path, "file" or the name of a variable; a path that is not in it has its default.
        warnings: what is not wrong but should be known, one line each.
    """

    config: Config
    file: Path | None = None
    sources: Mapping[keys.Path, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load_config(path: Path | None, env: Mapping[str, str]) -> Config:
    """The configuration from the file (None: none) and the environment.

    Raises:
        ConfigError: with every fault, each with its key's path. Nothing is used of a faulty configuration.
    """
    return read_config(path, env).config


def read_config(path: Path | None, env: Mapping[str, str]) -> Loaded:
    """The same, with sources and warnings.

    Raises:
        ConfigError: as `load_config`.
    """
    tree = _read_file(path) if path is not None else {}
    sources: dict[keys.Path, str] = dict.fromkeys(_paths(tree), "file")
    _put_missing(tree, ("lanes", "widths"), Config().lanes.widths)
    found = overlay(env, tree)
    for where, value in found.values.items():
        _put(tree, where, value)
    sources.update(found.variables)
    warnings = found.warnings + _fall_back(tree, sources)
    config, faults = _validate(tree, sources, path)
    if config is not None:
        for ref_path, ref in model_refs(config):
            _check_ref(ref_path, ref, config, env, faults, warnings)
        faults += _keys_file_faults(config)
        wrong, doubtful = check_timers(config)
        faults += wrong
        faults += route.check(config.routing(), config.agents)
        faults += check_channels(config.channels)
        warnings += doubtful
        if not config.gateway.is_loopback:
            warnings.append(
                f"gateway.host: {config.gateway.host} can be reached by other machines; put TLS in front of it"
            )
    if config is None or faults or found.faults:
        raise ConfigError([*found.faults, *faults])
    return Loaded(config, path, sources, tuple(warnings))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError([f"{path}: over {FILE_BYTES_MAX} bytes; this is not a holdfast.toml"])
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise ConfigError([f"{path}: cannot be read: {wrong.strerror}"]) from wrong
    except UnicodeDecodeError as wrong:
        raise ConfigError([f"{path}: not UTF-8 text (byte {wrong.start})"]) from wrong
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError([f"{path}: not TOML: {wrong}"]) from wrong
    except RecursionError as wrong:
        raise ConfigError([f"{path}: nested too deeply"]) from wrong


def _paths(tree: Mapping[str, Any], above: keys.Path = ()) -> list[keys.Path]:
    """The paths of everything in `tree` that is not a table."""
    found: list[keys.Path] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found += _paths(value, (*above, name))
        else:
            found.append((*above, name))
    return found


def _put_missing(tree: dict[str, Any], path: keys.Path, values: Mapping[str, Any]) -> None:
    """Give a table its defaults, so that naming one lane in the file does not forget the others."""
    level: Any = tree
    for part in path:
        level = level.setdefault(part, {})
        if not isinstance(level, dict):
            return  # not a table: validation says so
    for name, value in values.items():
        level.setdefault(name, value)


def _put(tree: dict[str, Any], path: keys.Path, value: Any) -> None:
    level: Any = tree
    for part in path[:-1]:
        level = level.setdefault(part, {})
        if not isinstance(level, dict):
            return  # the file has a value where the variable needs a table: validation of the file says so
    level[path[-1]] = value


def _fall_back(tree: Mapping[str, Any], sources: dict[keys.Path, str]) -> list[str]:
    """A lock wait of zero or less would refuse every append; operators who write 0 mean "no setting of mine"."""
    level: Any = tree
    for part in ACQUIRE_TIMEOUT[:-1]:
        level = level.get(part) if isinstance(level, dict) else None
    value = level.get(ACQUIRE_TIMEOUT[-1]) if isinstance(level, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value > 0:
        return []
    default = WriteLockConfig.model_fields["acquire_timeout_ms"].default
    del level[ACQUIRE_TIMEOUT[-1]]
    source = sources.pop(ACQUIRE_TIMEOUT)
    name = keys.dotted(ACQUIRE_TIMEOUT) if source == "file" else source
    return [f"{name}: {value} is not a time to wait; the default of {default} is used"]


def _validate(
    tree: dict[str, Any], sources: Mapping[keys.Path, str], file: Path | None
) -> tuple[Config | None, list[str]]:
    try:
        return Config.model_validate(tree), []
    except ValidationError as wrong:
        return None, [_fault(dict(error), sources, file) for error in wrong.errors()]


def _fault(error: dict[str, Any], sources: Mapping[keys.Path, str], file: Path | None) -> str:
    """One of pydantic's errors as a line: path, what is wrong, what was found, where it was found."""
    path = tuple(str(part) for part in error["loc"])
    source = next((sources[path[:n]] for n in range(len(path), 0, -1) if path[:n] in sources), "file")
    place = file if source == "file" else source
    where = f" ({place})" if place is not None else ""  # a fault between two variables is in no one place
    if error["type"] == "extra_forbidden":
        return f"{keys.dotted(path)}: unknown key{keys.suggest(path)}{where}"
    if error["type"] in ("value_error", "assertion_error"):
        return f"{keys.dotted(path)}: {error['ctx']['error']}{where}"
    if error["type"] in ("model_type", "dict_type", "mapping_type"):
        return f"{keys.dotted(path)}: must be a table{where}"
    text = str(error["msg"]).replace("Input should be", "must be")
    return f"{keys.dotted(path)}: {text}, got {_short(error['input'])}{where}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _keys_file_faults(config: Config) -> list[str]:
    faults: list[str] = []
    for name, provider in config.models.providers.items():
        try:
            if provider.api_keys_file is not None:
                read_keys_file(provider.api_keys_file)
        except InputError as refused:
            faults.append(f"models.providers.{name}.api_keys_file: {refused}")
    return faults


def model_refs(config: Config) -> list[tuple[str, str]]:
    """Every model reference with the path of its key."""
    refs = [("models.default", config.models.default)]
    refs += [(f"models.fallbacks.{n}", ref) for n, ref in enumerate(config.models.fallbacks)]
    refs += [("heartbeat.model", config.heartbeat.model)] if config.heartbeat.model else []
    refs += [(f"cron.jobs.{name}.model", job.model) for name, job in config.cron.jobs.items() if job.model]
    for name, agent in config.agents.items():
        refs += [(f"agents.{name}.model", agent.model)] if agent.model else []
        if agent.heartbeat is not None and agent.heartbeat.model:
            refs.append((f"agents.{name}.heartbeat.model", agent.heartbeat.model))
        refs += [(f"agents.{name}.fallbacks.{n}", ref) for n, ref in enumerate(agent.fallbacks or ())]
    return refs


def _check_ref(
    path: str, ref: str, config: Config, env: Mapping[str, str], faults: list[str], warnings: list[str]
) -> None:
    try:
        catalog.resolve(ref, config.models.settings(), env)
    except InputError as unknown:
        faults.append(f"{path}: {unknown}")
    except ProviderError as keyless:
        warnings.append(f"{path}: {keyless}")
