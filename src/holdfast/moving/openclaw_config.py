"""`openclaw.json` as `holdfast.toml`: what means the same here goes over, everything else is named. Pure.

Secrets that stand in the file are never copied into another: the report says which variable to put them into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import InputError
from holdfast.model.catalog import ALIASES, PROVIDERS

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_APIS = {
    "openai-completions": "openai", "openai-responses": "openai", "anthropic-messages": "anthropic",
    "bedrock-converse-stream": "bedrock", "google-generative-ai": "google",
}  # fmt: skip
_DM_SCOPES = ("main", "per-peer", "per-channel-peer", "per-account-channel-peer")
_DM_POLICIES = {"pairing": "pairing", "allowlist": "allow", "open": "open", "disabled": "closed"}
_GROUP_POLICIES = {"allowlist": "allow", "open": "open", "disabled": "closed"}
_TOKENS = {
    "telegram": (("botToken", "TELEGRAM_BOT_TOKEN"),),
    "discord": (("token", "DISCORD_BOT_TOKEN"),),
    "slack": (("botToken", "SLACK_BOT_TOKEN"), ("appToken", "SLACK_APP_TOKEN"),
              ("signingSecret", "SLACK_SIGNING_SECRET")),
}  # fmt: skip
_WHY_NOT = {
    "gateway": "Holdfast's gateway has its own address and token: `holdfast config schema`, `holdfast token new`",
    "hooks": "webhooks have tables of their own here (docs/webhooks.md); give them a new token",
    "tools": "tools have other names and rules here (docs/tools.md)",
    "plugins": "plugins of OpenClaw do not run here",
    "skills": "skills are files of a workspace there; put what the agent should know into AGENTS.md",
    "auth": "keys are read from variables: `holdfast model status` says which",
    "env": "set variables where the gateway is started",
    "logging": "the log goes to standard error; `holdfast up --help`",
    "$include": "was not followed: run it again on the file that results, or copy its part by hand",
}


@dataclass(frozen=True, slots=True)
class Translated:
    """tables: of holdfast.toml. secrets: variables that have to be set, each with where its value stands over there.
    left: settings without a counterpart, as paths, with the reason where one is known.
    """

    tables: dict[str, Any]
    secrets: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


def read_json5(text: str) -> dict[str, Any]:
    """Raises InputError: no JSON5 object, or it is more than JSON and the library for that is not installed."""
    try:
        said = json.loads(text)
    except ValueError:
        try:
            import json5
        except ImportError:
            raise InputError(
                "openclaw.json has comments or other JSON5, which needs the extra `openclaw`: "
                "pip install 'holdfast[openclaw]' (or --no-config leaves it)"
            ) from None
        try:
            said = json5.loads(text)
        except ValueError as wrong:
            raise InputError(f"openclaw.json is no JSON5: {wrong}") from wrong
    if not isinstance(said, dict):
        raise InputError("openclaw.json is not an object")
    return said


@dataclass(slots=True)
class _Source:
    """The configuration over there, and which of it has been taken."""

    said: Mapping[str, Any]
    taken: set[str] = field(default_factory=set)

    def take(self, path: str, kind: type | tuple[type, ...]) -> Any:
        """The value at a path, if it is there and of that type; it counts as taken then."""
        at: Any = self.said
        for name in path.split("."):
            if not isinstance(at, Mapping) or name not in at:
                return None
            at = at[name]
        if not isinstance(at, kind) or (isinstance(at, bool) and kind in (int, (int, float))):
            return None
        self.taken.add(path)
        return at

    def left(self) -> Iterator[str]:
        """The uppermost settings of which nothing was taken."""
        yield from self._left("", self.said)

    def _left(self, path: str, at: Any) -> Iterator[str]:
        if path in self.taken:
            return
        below = [one for one in self.taken if one.startswith(f"{path}.")] if path else list(self.taken)
        if path and not below:
            why = _WHY_NOT.get(path.partition(".")[0])
            yield f"{path}: {why}" if why else path
        elif isinstance(at, Mapping):
            for name, value in at.items():
                yield from self._left(f"{path}.{name}" if path else name, value)


class _Tables(dict[str, Any]):
    """Tables of the new configuration, made when something is put into one."""

    def put(self, path: tuple[str, ...], value: Any) -> None:
        if value is None:
            return
        at: dict[str, Any] = self
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value


def translate(said: Mapping[str, Any]) -> Translated:
    """Everything that has a counterpart, with what has none."""
    source, out, secrets = _Source(said), _Tables(), list[tuple[str, str]]()
    _models(source, out, secrets)
    left = _agents(source, out)
    _sessions(source, out)
    _queue(source, out)
    _channels(source, out, secrets)
    for path in ("meta", "wizard", "$schema"):
        source.take(path, (dict, str))  # about the file itself
    return Translated(dict(out), tuple(secrets), (*source.left(), *left))


def _models(source: _Source, out: _Tables, secrets: list[tuple[str, str]]) -> None:
    _model(source, out, "agents.defaults.model", ("models", "default"), ("models", "fallbacks"))
    for name in _names(source.said, "models", "providers"):
        at, to = f"models.providers.{name}", ("models", "providers", name)
        if "." in name:
            continue
        out.put((*to, "base_url"), source.take(f"{at}.baseUrl", str))
        api = source.take(f"{at}.api", str)
        out.put((*to, "api"), _APIS.get(api or ""))
        if api is not None and api not in _APIS:
            source.taken.discard(f"{at}.api")
        key = source.take(f"{at}.apiKey", str)
        if key is not None:
            variable = _variable(key) or f"{re.sub('[^A-Z0-9]', '_', name.upper())}_API_KEY"
            if _variable(key) is None:
                secrets.append((variable, f"{at}.apiKey"))
            usual = PROVIDERS.get(ALIASES.get(name, name))
            if usual is None or variable not in usual.key_env:
                out.put((*to, "api_key_env"), variable)
        for model in source.take(f"{at}.models", list) or []:
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                window = model.get("contextWindow")
                if isinstance(window, int) and window > 0:
                    out.put((*to, "context_windows", model["id"]), window)
                _price(out, f"{name}/{model['id']}", model.get("cost"))


def _names(said: Mapping[str, Any], *path: str) -> list[str]:
    at: Any = said
    for name in path:
        at = at.get(name) if isinstance(at, Mapping) else None
    return [name for name in at if isinstance(name, str)] if isinstance(at, Mapping) else []


def _price(out: _Tables, ref: str, cost: Any) -> None:
    """US dollars for a million tokens, there as here. All zeros mean that nobody has said."""
    if isinstance(cost, dict) and any(cost.get(name) for name in ("input", "output")):
        names = {"input": "input", "output": "output", "cacheRead": "cache_read", "cacheWrite": "cache_write"}
        out.put(("prices", ref), {ours: float(cost.get(theirs) or 0) for theirs, ours in names.items()})


def _model(source: _Source, out: _Tables, path: str, model: tuple[str, ...], fallbacks: tuple[str, ...]) -> None:
    primary = source.take(path, str) or source.take(f"{path}.primary", str)
    if primary is not None and "/" not in primary:
        source.taken -= {path, f"{path}.primary"}  # an alias, which only means something over there
        primary = None
    out.put(model, primary)
    more = source.take(f"{path}.fallbacks", list)
    if more is not None:
        out.put(fallbacks, [one for one in more if isinstance(one, str) and "/" in one])


def _agents(source: _Source, out: _Tables) -> list[str]:
    """Returns what single agents have without a counterpart."""
    left: list[str] = []
    at = "agents.defaults"
    _heartbeat(source, out, f"{at}.heartbeat", ("heartbeat",))
    out.put(("heartbeat", "user_timezone"), source.take(f"{at}.userTimezone", str))
    out.put(("turn", "max_s"), source.take(f"{at}.timeoutSeconds", int))
    out.put(("lanes", "widths", "main"), source.take(f"{at}.maxConcurrent", int))
    out.put(("lanes", "widths", "subagent"), source.take(f"{at}.subagents.maxConcurrent", int))
    _compaction(source, out, f"{at}.compaction")
    out.put(("agents", "main", "workspace"), source.take(f"{at}.workspace", str))
    for agent in source.take("agents.list", list) or []:
        name = agent.get("id") if isinstance(agent, dict) else None
        if not isinstance(name, str):
            continue
        own = _Source(agent, {"id", "default", "name"})
        to = ("agents", name)
        out.put((*to, "workspace"), own.take("workspace", str))
        _model(own, out, "model", (*to, "model"), (*to, "fallbacks"))
        _heartbeat(own, out, "heartbeat", (*to, "heartbeat"))
        out.setdefault("agents", {}).setdefault(name, {})
        left += [f"agents.list[{name}].{one}" for one in own.left()]
    return left


def _heartbeat(source: _Source, out: _Tables, at: str, to: tuple[str, ...]) -> None:
    names = {"every": "every", "model": "model", "directPolicy": "direct_policy", "session": "session"}
    for theirs, ours in names.items():
        out.put((*to, ours), source.take(f"{at}.{theirs}", str))
    out.put((*to, "ack_chars_max"), source.take(f"{at}.ackMaxChars", int))
    out.put((*to, "timeout_s"), source.take(f"{at}.timeoutSeconds", (int, float)))
    out.put((*to, "isolated"), source.take(f"{at}.isolatedSession", bool))
    out.put((*to, "skip_when_busy"), source.take(f"{at}.skipWhenBusy", bool))
    for theirs, ours in {"start": "active_start", "end": "active_end"}.items():
        out.put((*to, ours), source.take(f"{at}.activeHours.{theirs}", str))
    zone = source.take(f"{at}.activeHours.timezone", str)
    out.put((*to, "timezone"), zone if zone not in (None, "local") else None)
    target, where = source.take(f"{at}.target", str), source.take(f"{at}.to", str)
    if target in ("none", "last"):
        out.put((*to, "target"), target)
    elif target is not None:
        out.put((*to, "target"), f"{target}:{where}" if where else None)


def _compaction(source: _Source, out: _Tables, at: str) -> None:
    names = {"reserveTokens": "reserve_tokens", "reserveTokensFloor": "headroom_tokens",
             "keepRecentTokens": "keep_recent_tokens"}  # fmt: skip
    for theirs, ours in names.items():
        out.put(("compaction", ours), source.take(f"{at}.{theirs}", int))
    out.put(("compaction", "model"), source.take(f"{at}.model", str))
    out.put(("compaction", "timeout_s"), source.take(f"{at}.timeoutSeconds", (int, float)))
    out.put(("compaction", "memory_flush"), source.take(f"{at}.memoryFlush.enabled", bool))


def _sessions(source: _Source, out: _Tables) -> None:
    scope = source.take("session.dmScope", str)
    out.put(("session", "dm_scope"), scope if scope in _DM_SCOPES else None)
    _reset(source, out, "session.reset", ("session", "reset"))
    for kind in ("direct", "group", "thread"):
        _reset(source, out, f"session.resetByType.{kind}", ("session", "reset", kind))
    names = {"acquireTimeoutMs": "acquire_timeout_ms", "staleMs": "stale_ms", "maxHoldMs": "max_hold_ms"}
    for theirs, ours in names.items():
        out.put(("session", "write_lock", ours), source.take(f"session.writeLock.{theirs}", int))
    for person, accounts in (source.take("session.identityLinks", dict) or {}).items():
        if isinstance(accounts, list):
            out.put(("identities", person), [one for one in accounts if isinstance(one, str)])
    out.put(("retention", "sessions_max"), source.take("session.maintenance.maxEntries", int))
    mode = source.take("session.maintenance.mode", str)
    out.put(("retention", "mode"), mode if mode in ("warn", "enforce") else None)
    after = source.take("session.maintenance.pruneAfter", str)
    days = re.fullmatch(r"(\d{1,5})d", after or "")
    if days is not None:
        out.put(("retention", "archive_after_days"), float(days[1]))
    elif after is not None:
        source.taken.discard("session.maintenance.pruneAfter")
    warn_ms = source.take("diagnostics.stuckSessionWarnMs", int)
    out.put(("recovery", "warn_s"), None if warn_ms is None else warn_ms / 1000)


def _reset(source: _Source, out: _Tables, at: str, to: tuple[str, ...]) -> None:
    """`daily` resets at an hour and, if minutes are named, when idle, too; `idle` then alone."""
    mode = source.take(f"{at}.mode", str)
    hour = source.take(f"{at}.atHour", int)
    if mode == "daily" or (mode is None and hour is not None):
        out.put((*to, "daily_at"), f"{hour if hour is not None else 4:02d}:00")
    out.put((*to, "idle_minutes"), source.take(f"{at}.idleMinutes", (int, float)))


def _queue(source: _Source, out: _Tables) -> None:
    at = "messages.queue"
    mode = source.take(f"{at}.mode", str)
    out.put(("queue", "mode"), mode if mode in ("steer", "followup", "collect", "interrupt") else None)
    out.put(("queue", "debounce_ms"), source.take(f"{at}.debounceMs", int))
    out.put(("queue", "cap"), source.take(f"{at}.cap", int))
    drop = source.take(f"{at}.drop", str)
    out.put(("queue", "drop"), drop if drop in ("old", "new", "summarize") else None)
    for channel, mode in (source.take(f"{at}.byChannel", dict) or {}).items():
        if channel in _TOKENS and mode in ("steer", "followup", "collect", "interrupt"):
            out.put(("queue", "channels", channel, "mode"), mode)


def _channels(source: _Source, out: _Tables, secrets: list[tuple[str, str]]) -> None:
    for name, tokens in _TOKENS.items():
        at, to = f"channels.{name}", ("channels", name)
        if name not in _names(source.said, "channels"):
            continue
        out.setdefault("channels", {}).setdefault(name, {})
        out.put((*to, "enabled"), source.take(f"{at}.enabled", bool))
        for theirs, variable in tokens:
            token = source.take(f"{at}.{theirs}", str)
            named = _variable(token) if token is not None else None
            if token is not None and named is None:
                secrets.append((variable, f"{at}.{theirs}"))
            elif named is not None and named != variable:
                ours = {"botToken": "bot_token_env", "appToken": "app_token_env", "signingSecret": "signing_secret_env"}
                out.put((*to, name, ours[theirs] if name == "slack" else "token_env"), named)
        policy = source.take(f"{at}.dmPolicy", str) or source.take(f"{at}.dm.policy", str)
        out.put((*to, "dm"), _DM_POLICIES.get(policy or ""))
        allowed = source.take(f"{at}.allowFrom", list) or source.take(f"{at}.dm.allowFrom", list)
        out.put((*to, "allow_from"), _ids(allowed))
        groups = source.take(f"{at}.groupPolicy", str)
        out.put((*to, "groups"), _GROUP_POLICIES.get(groups or ""))
        out.put((*to, "group_senders"), _ids(source.take(f"{at}.groupAllowFrom", list)))
        named_groups = source.take(f"{at}.groups", dict) or (source.take(f"{at}.channels", dict) if name == "slack"
                                                             else None)  # fmt: skip
        if named_groups:
            out.put((*to, "allow_groups"), [one for one in named_groups if not one.startswith("#")] or None)
            mention = [one.get("requireMention") for one in named_groups.values() if isinstance(one, dict)]
            out.put((*to, "mention"), mention[0] if mention and isinstance(mention[0], bool) else None)


def _ids(said: Any) -> list[str] | None:
    """Numbers of people are numbers over there and texts here."""
    if not isinstance(said, list):
        return None
    return [str(one) for one in said if isinstance(one, str | int)]


def _variable(text: str) -> str | None:
    found = _VARIABLE.fullmatch(text.strip())
    return found[1] if found else None
