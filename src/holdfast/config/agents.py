"""`[heartbeat]`, `[cron]`, `[subagents]` and `[agents.NAME]`: what happens by itself, and who it happens to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
)

from holdfast.config.providers import Failover, ModelRef
from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.config.sessions import FenceMode, TimeOfDay, TypedResetConfig, zone_name
from holdfast.config.turns import Silent
from holdfast.errors import InputError
from holdfast.inbound.cron import TIMEOUT_S, JobDefinition, as_definition
from holdfast.inbound.event import Route
from holdfast.inbound.route import DmScope
from holdfast.inbound.schedule import duration_ms

MIB, DAY_MS = 1 << 20, 86_400_000


def _pause_text(text: str) -> str:
    if duration_ms(text) is None:
        raise ValueError(f'{text!r} is no pause; write "30m", "1h", or "0m" for none')
    return text


def _target(text: str) -> str:
    if text not in ("none", "last"):
        try:
            Route.parse(text)
        except InputError as wrong:
            raise ValueError(f'must be "none", "last" or "channel:target": {wrong}') from wrong
    return text


class HeartbeatConfig(Section):
    """An agent's regular look at whether anything needs attention. In `[agents.NAME.heartbeat]` the same keys, for one
    agent; what is unset there is as here.
    """

    every: Annotated[str, AfterValidator(_pause_text)] | None = Field(
        default=None,
        description="Pause between two, such as `30m`; `0m`: none. Unset: none, since each one asks a model. Set here "
        "alone, the agent `main` has a heartbeat; others need a table of their own.",
    )
    isolated: bool | None = Field(
        default=None,
        description="Unset or true: in a transcript of its own, each time afresh; news enter the conversation when "
        "they are known. False: in the conversation itself, the old way, with what `config check` warns of.",
    )
    session: str | None = Field(
        default=None, description="The conversation its news are for. Unset: `agent:NAME:main`."
    )
    target: Annotated[str, AfterValidator(_target)] | None = Field(
        default=None,
        description="Where news go out: `none` (unset; they are only in the conversation), `last` (where the session "
        "was answered last), or `channel:target`.",
    )
    direct_policy: Literal["allow", "block"] | None = Field(
        default=None, description="`block`: no heartbeat for sessions that are direct messages. Unset: `allow`."
    )
    active_start: TimeOfDay | None = Field(
        default=None, description="Active hours begin, `HH:MM`, included. Unset: always."
    )
    active_end: TimeOfDay | None = Field(
        default=None, description="Active hours end, excluded; `24:00`: midnight. The same as the start: never."
    )
    timezone: Annotated[str, AfterValidator(zone_name)] | None = Field(
        default=None, description="Of the active hours: an IANA name, or `user` (unset): `heartbeat.user_timezone`."
    )
    user_timezone: Annotated[str, AfterValidator(zone_name)] | None = Field(
        default=None, description="The people's own time zone, an IANA name. Unset: UTC."
    )
    file: str | None = Field(
        default=None, description="Its instructions. Unset: `agents/NAME/HEARTBEAT.md` in the state directory."
    )
    ack_chars_max: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Characters beside HEARTBEAT_OK that still count as nothing to report. Unset: 300."
    )
    show_ok: bool | None = Field(default=None, description="Whether acknowledgements are delivered, too. Unset: no.")
    show_alerts: bool | None = Field(default=None, description="Whether news are delivered. Unset: yes.")
    skip_when_busy: bool | None = Field(
        default=None, description="Put off while the agent's sub-agents or nested jobs are at work. Unset: no."
    )
    model: ModelRef | None = Field(default=None, description="Its model. Unset: the agent's.")
    timeout_s: Positive | None = Field(
        default=None, description="Seconds a run may last. Unset: the pause between two, at most 600."
    )


class CronJobConfig(Section):
    """One cron job; `docs/timers.md` shows some. Exactly one of `at`, `every` and `cron`."""

    message: str = Field(description="What the job is to do, as it is said to the model.")
    at: str | None = Field(
        default=None, description="Once: an ISO time, or a pause from when it is first seen (`20m`)."
    )
    every: str | None = Field(default=None, description="Again and again after a pause: `30s`, `2h`.")
    cron: str | None = Field(default=None, description="Five fields, or six with seconds first: `30 7 * * MON-FRI`.")
    timezone: Annotated[str, AfterValidator(zone_name)] = Field(
        default="UTC", description="IANA name: of `cron`, and of an `at` without an offset."
    )
    stagger_s: Annotated[int, Field(ge=0, le=3600)] | None = Field(
        default=None,
        description="Seconds after the named times. Unset: up to 300 at the top of the hour, always the same for a "
        "job. 0: exactly then.",
    )
    agent: str = Field(default="main", description="Whose sessions `main` and `isolated` are.")
    target: str = Field(
        default="isolated",
        description="`isolated` (its own session `agent:NAME:cron:JOB`, each run afresh), `main` (a system event in "
        "the agent's main session), or `session:KEY`.",
    )
    model: ModelRef | None = Field(default=None, description="Its model; fallbacks apply. Unset: the agent's.")
    wake: Literal["now", "next-heartbeat"] = Field(
        default="now", description="With target `main`: at once, or together with the agent's next heartbeat."
    )
    deliver: Literal["announce", "webhook", "none"] = Field(
        default="announce", description="What happens with the answer."
    )
    to: str = Field(
        default="last",
        description="Of `announce`: `channel:target`, or where the agent's main session was answered last.",
    )
    url: SecretStr | None = Field(default=None, description="Of `webhook`: the address to post to.")
    failure_to: str | None = Field(default=None, description="Where alerts go. Unset: as `to`.")
    timeout_s: Positive = Field(default=TIMEOUT_S, description="Seconds a run may last.")
    silence_s: Silent | None = Field(
        default=None, description="Seconds its model may say nothing before a run ends. Unset: `turn.silence_s`."
    )

    def definition(self, name: str) -> JobDefinition:
        """The same, as the timers take it."""
        facts = {key: getattr(self, key) for key in type(self).model_fields}
        return as_definition(name, {**facts, "url": self.url.get_secret_value() if self.url else None})


class CronConfig(Section):
    """Jobs at fixed times."""

    jobs: FrozenMap[CronJobConfig] = Field(default_factory=dict, validate_default=True)


class SubagentsConfig(Section):
    """Tasks that an agent gives away (`docs/subagents.md`). How many run at once, of all sessions, is
    `lanes.widths.subagent`.
    """

    depth_max: int = Field(
        default=1, ge=0, le=5, description="Sub-agents of sub-agents of …; 1: a sub-agent has none of its own. 0: none."
    )
    per_session_max: int = Field(
        default=5, ge=1, le=20, description="Sub-agents of one session that may be at work or wait."
    )
    per_turn_max: int = Field(default=10, ge=1, le=100, description="Sub-agents that one message may lead to, in all.")
    timeout_s: Positive = Field(default=3600, description="Seconds that one may run; a task may ask for less.")
    model: ModelRef | None = Field(
        default=None, description="Their model, where the task names none. Unset: as whoever gave it, else the agent's."
    )
    models: tuple[ModelRef, ...] = Field(
        default=(),
        strict=False,
        description="Models that a task may ask for, besides those that this file names for agents.",
    )
    agents: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Agents that other agents may give tasks to. An agent may always use itself.",
    )
    archive_after_s: int = Field(
        default=3600,
        ge=0,
        description="Seconds after its end that its session is left out of lists; its transcript stays. 0: never.",
    )


class AgentConfig(Section):
    """One agent: the NAME in `agent:NAME:…` session keys."""

    model: ModelRef | None = Field(default=None, description="Its model. Unset: `models.default`.")
    fallbacks: tuple[ModelRef, ...] | None = Field(
        default=None,
        strict=False,
        description="Its fallbacks. Unset: `models.fallbacks`, unless it names its own model. Empty: none.",
    )
    failover: Failover | None = Field(default=None, description="Unset: `models.failover`.")
    fence_mode: FenceMode | None = Field(default=None, description="Unset: `session.fence_mode`.")
    system_prompt: str | None = Field(
        default=None, description="Text that stands before the conversation. Unset: none."
    )
    workspace: str | None = Field(
        default=None, description="Folder its tools work in. Unset: `agents/NAME/workspace` in the state directory."
    )
    prompt_files: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="Files of its workspace that stand before its conversations, in this order "
        "([context](context.md)). Unset: `AGENTS.md`, `SOUL.md`, `TOOLS.md`, `IDENTITY.md`, `USER.md`, `MEMORY.md`. "
        "Empty: none.",
    )
    tools: tuple[str, ...] | None = Field(
        default=None, strict=False, description="Tools it may use, by name. Unset: all. Empty: none."
    )
    silence_s: Silent | None = Field(
        default=None, description="Seconds its model may say nothing before a turn ends. Unset: `turn.silence_s`."
    )
    widths: FrozenMap[Positive] = Field(
        default_factory=dict,
        validate_default=True,
        description="Turns of this agent at once per lane, within `lanes.widths`. A lane not named: as wide as that.",
    )
    dm_scope: DmScope | None = Field(default=None, description="Unset: `session.dm_scope`.")
    reset: TypedResetConfig | None = None
    heartbeat: HeartbeatConfig | None = None
