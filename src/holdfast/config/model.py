"""Every key of holdfast.toml: meaning, unit, special values, default. `docs/configuration.md` is drawn from here.

Values are frozen. What a user should not need to turn is a constant in the code with its reason, not a key.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    Field,
)

from holdfast.config.agents import AgentConfig, CronConfig, HeartbeatConfig, SubagentsConfig
from holdfast.config.browser import LoginConfig
from holdfast.config.caching import CachingConfig
from holdfast.config.channels import WEB, ChannelConfig
from holdfast.config.hooks import HooksConfig
from holdfast.config.providers import ModelsConfig
from holdfast.config.section import FrozenMap, Section
from holdfast.config.sessions import BindingConfig, ResetConfig, RetentionConfig, SessionConfig
from holdfast.config.spending import PriceConfig, SpendingConfig
from holdfast.config.tokens import TokenConfig
from holdfast.config.tools import ToolsConfig
from holdfast.config.turns import CompactionConfig, LanesConfig, OutboxConfig, QueueConfig, RecoveryConfig, TurnConfig
from holdfast.inbound.child import SpawnLimits
from holdfast.inbound.freshness import ResetPolicy
from holdfast.inbound.route import Rules
from holdfast.lane.policy import LaneLimits
from holdfast.session.key import DEFAULT_AGENT, SessionType

MIB, DAY_MS = 1 << 20, 86_400_000


class GatewayConfig(Section):
    """Where `holdfast up` listens, and how it leaves."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Anything but a loopback address is open to others."
    )
    port: int = Field(default=18890, ge=0, le=65535, description="TCP port. 0: one that is free, told at start.")
    token_file: str | None = Field(
        default=None,
        description="File with the bearer token, made at the first start, mode 0600. Unset: `token` in the state.",
    )
    drain_s: float = Field(
        default=25.0,
        ge=0,
        description="Seconds that running turns get after SIGTERM before they are queued again. 0: none.",
    )
    unclean_boots_max: int = Field(
        default=3,
        ge=0,
        description="Gateways of a state that may die within five minutes before work is held back until "
        "`holdfast recover --release`. 0: never.",
    )
    watch_config: bool = Field(
        default=True,
        description="Whether a changed holdfast.toml is taken by itself, some seconds after it was written. In any "
        "case `holdfast config reload` and SIGHUP have it read again ([what is taken](reload.md)).",
    )
    security_contact: Annotated[str, Field(pattern=r"^(mailto:|https://|tel:)[!-~]+$", max_length=500)] | None = Field(
        default=None,
        description="Whom `/.well-known/security.txt` names to those who find a hole in this installation, such as "
        "`mailto:security@example.org`. Unset: nobody.",
    )
    login: LoginConfig = Field(default_factory=LoginConfig)
    tokens: FrozenMap[TokenConfig] = Field(default_factory=dict, validate_default=True)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: it may resolve to anything


class Config(Section):
    """The whole of holdfast.toml."""

    gateway: GatewayConfig = Field(default_factory=GatewayConfig)
    session: SessionConfig = Field(default_factory=SessionConfig)
    turn: TurnConfig = Field(default_factory=TurnConfig)
    recovery: RecoveryConfig = Field(default_factory=RecoveryConfig)
    lanes: LanesConfig = Field(default_factory=LanesConfig)
    queue: QueueConfig = Field(default_factory=QueueConfig)
    outbox: OutboxConfig = Field(default_factory=OutboxConfig)
    models: ModelsConfig = Field(default_factory=ModelsConfig)
    compaction: CompactionConfig = Field(default_factory=CompactionConfig)
    prompt_caching: CachingConfig = Field(default_factory=CachingConfig)
    agents: FrozenMap[AgentConfig] = Field(default_factory=dict, validate_default=True)
    bindings: FrozenMap[BindingConfig] = Field(default_factory=dict, validate_default=True)
    identities: FrozenMap[Annotated[tuple[str, ...], Field(strict=False)]] = Field(
        default_factory=dict,
        validate_default=True,
        description='Accounts of one person, as "channel:peer": their direct messages are one conversation '
        "(`session.dm_scope` `per-peer`), at home at the first of them.",
    )
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    heartbeat: HeartbeatConfig = Field(default_factory=HeartbeatConfig)
    cron: CronConfig = Field(default_factory=CronConfig)
    hooks: HooksConfig = Field(default_factory=HooksConfig)
    subagents: SubagentsConfig = Field(default_factory=SubagentsConfig)
    tools: ToolsConfig = Field(default_factory=ToolsConfig)
    spending: SpendingConfig = Field(default_factory=SpendingConfig)
    prices: FrozenMap[PriceConfig] = Field(default_factory=dict, validate_default=True)
    channels: FrozenMap[ChannelConfig] = Field(default_factory=dict, validate_default=True)

    def platforms(self) -> dict[str, ChannelConfig]:
        """The channels, with the web chat, which needs no table. `channels.web.enabled = false`: it is not there."""
        return {WEB: ChannelConfig(), **self.channels}

    def spawn_limits(self) -> SpawnLimits:
        """What may be spawned, as the core takes it."""
        own = self.subagents
        named = [self.models.default, *self.models.fallbacks, *own.models, *([own.model] if own.model else [])]
        for agent in self.agents.values():
            named += [*([agent.model] if agent.model else []), *(agent.fallbacks or ())]
        return SpawnLimits(
            depth_max=own.depth_max,
            per_session_max=own.per_session_max,
            per_turn_max=own.per_turn_max,
            timeout_s=own.timeout_s,
            agents=own.agents,
            models=tuple(dict.fromkeys(named)),
            model=own.model,
        )

    def agent(self, name: str) -> AgentConfig:
        """The agent `name` with everything it leaves unset filled in; an agent without a table is all defaults.

        An agent with a model of its own and no fallbacks of its own is strict: it has none.
        """
        own = self.agents.get(name, AgentConfig.model_construct())
        inherited = () if own.model else self.models.fallbacks
        filled_in = {
            "model": own.model or self.models.default,
            "fallbacks": inherited if own.fallbacks is None else own.fallbacks,
            "failover": own.failover or self.models.failover,
            "fence_mode": own.fence_mode or self.session.fence_mode,
            "dm_scope": own.dm_scope or self.session.dm_scope,
        }
        return own.model_copy(update=filled_in)  # a copy, so that no key that it sets is left behind

    def limits(self) -> LaneLimits:
        """Widths and depths of the lanes, and of those of agents that have their own."""
        own = {name: agent.widths for name, agent in self.agents.items() if agent.widths}
        return replace(self.lanes.limits(), agents=own)

    def reset_policy(self, agent: str, kind: SessionType) -> ResetPolicy:
        """When conversations of an agent begin anew, for a type of session: the most specific table that says
        anything decides each key; those of machines never do.
        """
        if kind == "machine":
            return ResetPolicy()
        own = self.agents.get(agent, AgentConfig.model_construct()).reset
        facts: dict[str, Any] = {}
        for layer in (*self.session.reset.layers(kind), *(own.layers(kind) if own is not None else ())):
            said = {name: getattr(layer, name) for name in ResetConfig.model_fields}
            if said["never"]:
                facts = {}
            facts |= {name: value for name, value in said.items() if value is not None}
        named = [facts.get("timezone"), self.heartbeat.user_timezone]
        zone = next((name for name in named if name not in (None, "user", "local")), "UTC")
        return ResetPolicy(facts.get("daily_at"), zone, 60 * facts.get("idle_minutes", 0.0))

    def routing(self) -> Rules:
        """The rules by which messages of channels find their agent and session."""
        return Rules(
            bindings=tuple(one.binding(name) for name, one in sorted(self.bindings.items())),
            default_agent=DEFAULT_AGENT,
            dm_scope=self.session.dm_scope,
            dm_scopes={name: one.dm_scope for name, one in self.agents.items() if one.dm_scope is not None},
            identities=self.identities,
        )
