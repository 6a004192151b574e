"""From holdfast.toml to what `/hooks/…` takes: secrets are looked up, and what could not hold is refused at start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from holdfast.errors import ConfigError
from holdfast.gateway.hooks_api import Hook, HookRules
from holdfast.inbound.event import Route
from holdfast.inbound.webhook import Template

if TYPE_CHECKING:
    from holdfast.config import Config

TOKEN_CHARS_MIN = 16
"""A shorter token can be guessed at the rate that is let in."""
FIXED = ("wake", "agent", "runs")


def hook_rules(config: Config, env: Mapping[str, str], *, token: str, channels: Collection[str]) -> HookRules | None:
    """What the configuration says of hooks; None: there are none.

    Args:
        token: the gateway's own, which must not open these doors.

    Raises:
        ConfigError: all that cannot be: missing secrets, the gateway's token, fixed names, unknown channels or agents.
    """
    hooks = config.hooks
    if not hooks.enabled:
        return None
    faults: list[str] = []
    shared = env.get(hooks.token_env) or None
    if shared is not None and (shared == token or len(shared) < TOKEN_CHARS_MIN):
        why = "is the gateway's own token" if shared == token else f"is shorter than {TOKEN_CHARS_MIN} characters"
        faults.append(f"hooks.token_env: {hooks.token_env} {why}; make one of its own")
    named: dict[str, Hook] = {}
    for name, hook in hooks.mappings.items():
        at = f"hooks.mappings.{name}"
        secret = env.get(hook.secret_env, "") if hook.secret_env else (shared or "") if hook.scheme == "token" else ""
        route = Route.parse(hook.route) if hook.route else None
        if not secret:
            wanted = hook.secret_env or (hooks.token_env if hook.scheme == "token" else "secret_env")
            faults.append(f"{at}: has no secret; set {wanted}")
        if secret == token:
            faults.append(f"{at}: its secret is the gateway's own token; make one of its own")
        if name in FIXED or "/" in name:
            faults.append(f"{at}: {name!r} cannot be the name of a hook ({', '.join(FIXED)} are taken)")
        if route is not None and route.channel not in channels:
            faults.append(f"{at}.route: no channel {route.channel!r}; there are: {', '.join(sorted(channels))}")
        if hook.wakes is not None and hook.wakes not in hooks.agents:
            faults.append(f"{at}.wakes: agent {hook.wakes!r} is not among hooks.agents")
        named[name] = Hook(
            name, hook.scheme, secret, hook.events, Template(hook.session),
            Template(hook.message) if hook.message is not None else None, route, hook.model, hook.trusted, hook.wakes,
            hook.per_minute,
        )  # fmt: skip
    if shared is None and not named:
        faults.append(f"hooks.enabled: there is neither a token in {hooks.token_env} nor any hook")
    if faults:
        raise ConfigError(faults)
    return HookRules(
        shared, named, hooks.session_prefixes, hooks.allow_request_session, hooks.agents, sorted(channels),
        hooks.per_minute,
    )  # fmt: skip
