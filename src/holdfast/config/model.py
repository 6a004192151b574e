"""Every key of holdfast.toml: meaning, unit, special values, default. `docs/configuration.md` is drawn from here.

Values are frozen. What a user should not need to turn is a constant in the code with its reason, not a key.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    model_validator,
)

from holdfast.config.browser import LoginConfig
from holdfast.config.caching import CachingConfig
from holdfast.config.channels import WEB, ChannelConfig
from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.config.spending import PriceConfig, SpendingConfig
from holdfast.config.tokens import TokenConfig
from holdfast.config.tools import ToolsConfig
from holdfast.context.budget import HEADROOM_TOKENS, KEEP_RECENT_TOKENS, OUTPUT_TOKENS_RESERVED
from holdfast.context.prune import CACHE_TTL_S
from holdfast.context.settings import CompactionSettings
from holdfast.errors import InputError
from holdfast.inbound.child import SpawnLimits
from holdfast.inbound.cron import TIMEOUT_S, JobDefinition, as_definition
from holdfast.inbound.event import Route
from holdfast.inbound.freshness import ResetPolicy
from holdfast.inbound.route import Binding, DmScope, Kind, Rules
from holdfast.inbound.schedule import duration_ms, zone_of
from holdfast.inbound.webhook import Scheme, Template
from holdfast.lane.policy import LaneLimits, default_widths
from holdfast.lane.queue import CAP_MAX, DEBOUNCE_MS_MAX, Drop, Mode, QueueSettings
from holdfast.model import catalog
from holdfast.model.walk import RETRY_TOTAL_S
from holdfast.recovery.watching import WARN_S, WatchSettings
from holdfast.session.key import DEFAULT_AGENT, SessionType
from holdfast.session.retention import Limits
from holdfast.turn.silence import SILENCE_S_MAX

MIB, DAY_MS = 1 << 20, 86_400_000
FenceMode = Literal["strict", "warn"]
Failover = Literal["turn_local", "sticky_until_probe", "strict"]

APIS = {
    "openai": catalog.OPENAI,
    "anthropic": catalog.ANTHROPIC,
    "bedrock": catalog.BEDROCK,
    "google": catalog.GOOGLE,
}
"""The short names of holdfast.toml and the names that transcripts and the catalog use."""


def _model_ref(ref: str) -> str:
    provider, slash, model = ref.partition("/")
    if not (provider and slash and model):
        raise ValueError('must be "provider/model", such as "openai/gpt-5" or "demo/demo"')
    return ref


def _route(text: str) -> str:
    channel, colon, target = text.partition(":")
    if not (channel and colon and target):
        raise ValueError('must be "channel:target", such as "console:me"')
    return text


ModelRef = Annotated[str, AfterValidator(_model_ref)]


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


class WriteLockConfig(Section):
    """The lock around one append (about a millisecond)."""

    acquire_timeout_ms: Positive = Field(
        default=60_000,
        description="Milliseconds to wait for it. 0 or less: the default, with a warning from `config check`.",
    )
    max_hold_ms: Positive = Field(
        default=300_000, description="Milliseconds after which a holder is reported. It is never robbed of the lock."
    )
    stale_ms: Positive = Field(
        default=1_800_000,
        description='With `lock_protocol = "openclaw"`: milliseconds after which a lock file is taken over. As '
        "OpenClaw's `session.writeLock.staleMs`.",
    )


def _zone_name(name: str) -> str:
    if name not in ("user", "local"):
        try:
            zone_of(name)
        except InputError as unknown:
            raise ValueError(str(unknown)) from unknown
    return name


TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class ResetConfig(Section):
    """The same for sessions of one type; what is unset here is as in the table above it."""

    daily_at: TimeOfDay | None = Field(
        default=None, description="Each day from this time on, `HH:MM`. Unset: not daily."
    )
    timezone: Annotated[str, AfterValidator(_zone_name)] | None = Field(
        default=None, description="Of `daily_at`: an IANA name. Unset: `heartbeat.user_timezone`, else UTC."
    )
    idle_minutes: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="After so many minutes without a word. Unset or 0: however long."
    )
    never: bool | None = Field(
        default=None, description="True: forget what the tables above this one say. Unset: what they say holds."
    )


class TypedResetConfig(ResetConfig):
    """When a conversation begins anew by itself, at the first message after that. What people said and heard counts;
    heartbeats, jobs and webhooks do not. In `[agents.NAME.reset]` the same keys for one agent, and in the tables
    `direct`, `group` and `thread` below either for sessions of that type; what is unset there is as here.
    """

    direct: ResetConfig | None = None
    group: ResetConfig | None = None
    thread: ResetConfig | None = None

    def layers(self, kind: SessionType) -> list[ResetConfig]:
        """This table, then the one for sessions of that type."""
        own: ResetConfig | None = getattr(self, kind, None)
        return [self, *([own] if own is not None else [])]


class SessionConfig(Section):
    """What happens when somebody else writes to a transcript, and whose a conversation is."""

    fence_mode: FenceMode = Field(
        default="strict",
        description="Unrecorded conversation found during a turn: `strict` stops the turn and keeps its answer, "
        "`warn` goes on after it and says so in the log.",
    )
    lock_protocol: Literal["none", "openclaw"] = Field(
        default="none",
        description="Another program's lock to take beside ours. `openclaw`: its lock file, by its rules, around each "
        "append ([beside OpenClaw](beside-openclaw.md)).",
    )
    dm_scope: DmScope = Field(
        default="per-peer",
        description="Which direct messages are one conversation: `main`: all of them, the agent's main one; "
        "`per-peer`: each person's, with linked `identities`; `per-channel-peer`: each person's on each channel; "
        "`per-account-channel-peer`: also apart for each account of ours.",
    )
    write_lock: WriteLockConfig = Field(default_factory=WriteLockConfig)
    reset: TypedResetConfig = Field(default_factory=TypedResetConfig)


class RetentionConfig(Section):
    """What becomes of old conversations. An archived one begins anew with its next message; `holdfast sessions restore`
    brings it back until its archive is deleted.
    """

    mode: Literal["warn", "enforce", "off"] = Field(
        default="warn", description="`warn`: what would be done stands in the log, once a day; `enforce`: it is done."
    )
    archive_after_days: float = Field(
        default=30.0, ge=0, description="Days after which an unused conversation is archived. 0: never."
    )
    sessions_max: int = Field(
        default=500, ge=0, description="Conversations; the longest unused past them are archived. 0: any number."
    )
    delete_after_days: float = Field(
        default=0.0, ge=0, description="Days after which an archive is deleted for good. 0: never."
    )
    machine_mib_max: float = Field(
        default=8.0,
        ge=0,
        description="MiB of one transcript of a job or heartbeat, of which each run sees only its own part, before it "
        "is archived. 0: any size.",
    )
    disk_mib_max: float = Field(
        default=0.0, ge=0, description="MiB of all transcripts and archives together; past it the oldest go. 0: none."
    )
    disk_low_percent: float = Field(
        default=80.0, gt=0, le=100, description="Percent of `disk_mib_max` down to which they go then."
    )

    def limits(self) -> Limits:
        """The same, as the plan takes it."""
        budget = int(self.disk_mib_max * MIB)
        return Limits(
            archive_after_ms=int(self.archive_after_days * DAY_MS),
            sessions_max=self.sessions_max,
            delete_after_ms=int(self.delete_after_days * DAY_MS),
            machine_bytes_max=int(self.machine_mib_max * MIB),
            bytes_max=budget,
            bytes_low=int(budget * self.disk_low_percent / 100),
        )


class BindingConfig(Section):
    """Conversations of one agent. All conditions that are set must hold; of several bindings the most specific wins:
    by thread, then peer, guild, team, kind, account, channel. What no binding takes is the agent `main`'s.
    """

    agent: str = Field(description="Whose they are.")
    channel: str | None = Field(default=None, description="The channel's name. Unset: any, with `kind` alone.")
    account: str | None = Field(default=None, description="Which of our accounts (bots) there.")
    kind: Kind | None = Field(default=None, description="`direct`, `group` or `channel`.")
    peer: str | None = Field(default=None, description="The person, group or channel, by its id there.")
    thread: str | None = Field(default=None, description="A thread of `peer`.")
    guild: str | None = Field(default=None, description="A Discord server.")
    team: str | None = Field(default=None, description="A Slack workspace.")

    def binding(self, name: str) -> Binding:
        """The same, as routing takes it."""
        return Binding(name, **{key: getattr(self, key) for key in type(self).model_fields})


Silent = Annotated[int, Field(gt=0, le=SILENCE_S_MAX)]
"""Seconds that a model may say nothing in a run (`turn/silence.py`)."""


class TurnConfig(Section):
    """Limits of one turn; passing one ends it with a named outcome."""

    beat_s: float = Field(default=15.0, gt=0, description="Seconds between two signs of life of a running turn.")
    beat_term_s: float = Field(
        default=90.0,
        gt=0,
        description="Seconds a live process's turn must stand still before another may take it. At least 3 × `beat_s`.",
    )
    max_s: Positive = Field(default=172_800, description="Seconds a turn may last.")
    keep_days: float = Field(
        default=90.0,
        ge=0,
        description="Days that the story of an ended turn is kept, for `why` and lists. 0: for ever. Messages, answers "
        "and the keys of messages are kept in any case.",
    )
    steps_max: Positive = Field(default=32, description="Model calls in one turn, tool rounds included.")
    tool_seconds_max: Positive = Field(default=600, description="Seconds one tool call may take.")
    output_bytes_max: Positive = Field(
        default=8 * 1024 * 1024, description="Bytes that the model may write in one turn, all its steps together."
    )
    silence_s: Silent | None = Field(
        default=None,
        description="Seconds that a model may say nothing before the turn ends as timed out; its provider's "
        "`idle_timeout_s` does not count then. Unset: that holds, and no turn is silent for longer than 1800 s.",
    )

    @model_validator(mode="after")
    def _term_outlasts_beats(self) -> TurnConfig:
        if self.beat_term_s < 3 * self.beat_s:
            raise ValueError(
                f"beat_term_s ({self.beat_term_s:g}) must be at least 3 × beat_s ({self.beat_s:g}), or a live turn is "
                "lost when one beat is late"
            )
        return self


class RecoveryConfig(Section):
    """What is told of turns that stand still, and what is done about them. Docs: `docs/stuck.md`."""

    warn_s: float = Field(
        default=WARN_S,
        ge=1,
        le=86_400,
        description="Seconds without any progress (a piece of a stream, output of a tool, a step) after which a turn "
        "is told of, in the log, in `why` and `turns`, and to watchers; then each time after twice as long.",
    )
    live_owners: Literal["warn", "ask"] = Field(
        default="warn",
        description="What is done about a turn whose process lives: `warn` tells and does nothing; `ask` asks it to "
        "end itself, past `abort_s` and past the limit of what it does. A live one is never forced.",
    )
    abort_s: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="Seconds without progress before a turn may be asked. Unset: max(300, 3 × `warn_s`)."
    )
    self_recovery: bool = Field(
        default=True,
        description="False: nothing is done by itself for any session, neither for the living nor for the dead; all is "
        "told, and an outer supervisor acts with `holdfast recover` or `POST /api/sessions/KEY/recover`.",
    )
    supervised: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="The same for some sessions: keys, or patterns with `*`, such as `agent:ops:*`.",
    )
    fresh_after: int = Field(
        default=0,
        ge=0,
        le=100,
        description="So many turns of a session in a row that died or were ended by recovery make the next one begin a "
        "new conversation; the old one stays where it is and is named. 0: never.",
    )

    def settings(self) -> WatchSettings:
        """The same, as the watchdog takes it."""
        return WatchSettings(
            self.warn_s, self.abort_s, self.live_owners, self.self_recovery, self.supervised, self.fresh_after
        )


def _widths() -> Mapping[str, int]:
    return {**default_widths(), "cron": 1, "cron-nested": 1, "heartbeat": 1, "hook": 1}


class LanesConfig(Section):
    """How many turns run at once, and how many may wait."""

    depth_max: Positive = Field(
        default=200, description="Inputs that may wait per lane; the next one is refused (busy)."
    )
    queue_per_session_max: Positive = Field(
        default=20, description="Inputs that may wait per session; the next one is refused."
    )
    widths: FrozenMap[Positive] = Field(
        default_factory=_widths,
        validate_default=True,
        description="Turns at once per lane, over all processes of a state directory. A lane not named has width 1.",
        json_schema_extra={
            "default_in_words": "main max(4, 2 × cores), subagent 8, cron 1, cron-nested 1, heartbeat 1, hook 1"
        },
    )

    def limits(self) -> LaneLimits:
        """The same, as the lanes take it."""
        return LaneLimits(widths=self.widths, depth_max=self.depth_max, per_session_max=self.queue_per_session_max)


class QueueOverrides(Section):
    """How the queue behaves for messages of one channel; what is unset is as in `queue`."""

    mode: Mode | None = Field(default=None, description="As `queue.mode`.")
    debounce_ms: Annotated[int, Field(ge=0, le=DEBOUNCE_MS_MAX)] | None = Field(
        default=None, description="As `queue.debounce_ms`."
    )
    cap: Annotated[int, Field(ge=1, le=CAP_MAX)] | None = Field(default=None, description="As `queue.cap`.")
    drop: Drop | None = Field(default=None, description="As `queue.drop`.")


class OutboxConfig(Section):
    """Answers on their way to people."""

    stale_hours: float = Field(
        default=24.0,
        gt=0,
        description="What could not be sent for so long (every gateway was down) is not sent unasked; it has failed "
        "then, and `holdfast outbox retry` sends it.",
    )


class QueueConfig(Section):
    """What happens to a message that finds its session busy. `/queue` in a chat changes it for that session."""

    mode: Mode = Field(
        default="steer",
        description="`steer`: taken into the running turn after its tool calls, else a turn of its own; `followup`: a "
        "turn of its own; `collect`: what waits becomes one turn; `interrupt`: the running turn is stopped first. "
        "Messages whose sender waits for the answer, and those of machines, are always `followup`.",
    )
    debounce_ms: int = Field(
        default=500,
        ge=0,
        le=DEBOUNCE_MS_MAX,
        description="Milliseconds without another message before those that waited behind a turn begin.",
    )
    cap: int = Field(default=20, ge=1, le=CAP_MAX, description="Messages of a channel that may wait per session.")
    drop: Drop = Field(
        default="summarize",
        description="What gives way past `cap`: `old`: the oldest; `summarize`: the same, but the model is told of it "
        "in a line; `new`: the new one is refused. The sender is told.",
    )
    channels: FrozenMap[QueueOverrides] = Field(
        default_factory=dict, validate_default=True, description="Other settings for messages of a channel, by name."
    )

    def settings(self, channel: str | None = None) -> QueueSettings:
        """The same, as the queue takes it, for messages of a channel."""
        own = self.channels.get(channel or "", QueueOverrides())
        return QueueSettings(
            mode=own.mode or self.mode,
            debounce_ms=self.debounce_ms if own.debounce_ms is None else own.debounce_ms,
            cap=own.cap or self.cap,
            drop=own.drop or self.drop,
        )


class CompactionConfig(Section):
    """How a conversation that grows too long for its model is shortened: its older part is summarised, its newest
    messages stay word for word. The transcript keeps everything. In small windows no number takes more than its share.
    """

    enabled: bool = Field(
        default=True,
        description="Whether conversations are shortened by themselves. False: only by `/compact` and `holdfast "
        "sessions compact`; what does not fit is left out of each request.",
    )
    model: ModelRef | None = Field(default=None, description="Who writes summaries. Unset: the session's own model.")
    timeout_s: float = Field(default=180.0, gt=0, le=3600, description="Seconds for one summary.")
    memory_flush: bool = Field(
        default=True,
        description="Before a conversation with a person is shortened, its agent may note what should be known later, "
        "in the folder `memory` of its workspace alone ([context](context.md)).",
    )
    prune_after_s: float = Field(
        default=CACHE_TTL_S,
        ge=0,
        description="After a pause of so many seconds, long tool results from before it are shown to the model without "
        "their middle; not before its provider's cache has let go of them (`prompt_caching`). 0: never.",
    )
    reserve_tokens: Positive = Field(
        default=OUTPUT_TOKENS_RESERVED, description="Tokens of the window kept free for the answer. At most a quarter."
    )
    headroom_tokens: Annotated[int, Field(ge=0)] = Field(
        default=HEADROOM_TOKENS,
        description="With fewer tokens left after an answer, the conversation is shortened before the next message "
        "comes. At least `reserve_tokens`, at most a third of the window.",
    )
    keep_recent_tokens: Positive = Field(
        default=KEEP_RECENT_TOKENS,
        description="Tokens of the newest messages that stay word for word, in whole exchanges. At most a third.",
    )

    def settings(self) -> CompactionSettings:
        """The same, as turns take it."""
        return CompactionSettings(**{name: getattr(self, name) for name in type(self).model_fields})


class ProviderConfig(Section):
    """How one model provider is reached. Known ones (openai, anthropic, ollama, …) need no table."""

    api: Literal["openai", "anthropic", "bedrock", "google"] | None = Field(
        default=None,
        description="What it speaks. Unset: as the known provider of this name does, else OpenAI chat completions.",
    )
    base_url: str | None = Field(
        default=None, description="Where it is. Unset: as known. An unknown provider needs one."
    )
    api_key_env: str | None = Field(
        default=None,
        description="Environment variable that holds the key; the same name with `_2` to `_9` holds more, used in turn "
        "when one is refused or limited. Unset: the usual one of the known provider.",
    )
    api_keys_file: str | None = Field(
        default=None,
        description="File with more keys, one a line, that only its owner can read (mode 0600). Unset: none.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key itself. Better keep it out of files and use `api_key_env`; shown as `***`."
    )
    region: str | None = Field(
        default=None, description="AWS region, for Bedrock. Unset: AWS_REGION or AWS_DEFAULT_REGION."
    )
    idle_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that a stream may say nothing before the model counts as failed. Unset: 120, or 300 where "
        "the provider is on this machine or network.",
    )
    context_windows: FrozenMap[Positive] = Field(
        default_factory=dict, validate_default=True, description="Tokens that a model can read, by model id."
    )
    idle_timeouts: FrozenMap[Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, validate_default=True, description="The same by model id, over `idle_timeout_s`."
    )

    def settings(self) -> catalog.ProviderSettings:
        """The same, as the model catalog takes it."""
        return catalog.ProviderSettings(
            api=APIS[self.api] if self.api else None,
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            api_key_env=self.api_key_env,
            api_keys_file=self.api_keys_file,
            region=self.region,
            context_windows=self.context_windows,
            idle_timeout_s=self.idle_timeout_s,
            idle_timeouts=self.idle_timeouts,
        )


class ModelsConfig(Section):
    """Which model answers, and where it is."""

    default: ModelRef = Field(
        default="demo/demo", description="Model of every agent that names none. `demo/demo` works offline."
    )
    fallbacks: tuple[ModelRef, ...] = Field(
        default=(),
        strict=False,
        description="Models tried in this order when the first one fails. In a variable: with commas.",
    )
    failover: Failover = Field(
        default="turn_local",
        description="What a failure changes: `turn_local` this turn alone; `sticky_until_probe` the session, until its "
        "own model, asked every 5 minutes, answers again; `strict` nothing: no other model is asked.",
    )
    retry_s: float = Field(
        default=RETRY_TOTAL_S,
        ge=0,
        le=3600,
        description="Seconds after a first failure in which models are asked again when no other can answer. 0: none.",
    )
    notices: Literal["owner", "everywhere", "off"] = Field(
        default="owner",
        description="Who is told, once, that another model answers: `owner` (never in groups and channels), "
        "`everywhere` (where the message came from), `off`.",
    )
    notice_route: Annotated[str, AfterValidator(_route)] | None = Field(
        default=None,
        description="The owner's own `channel:target` for notices of all sessions. Unset: where the message came from.",
    )
    providers: FrozenMap[ProviderConfig] = Field(default_factory=dict, validate_default=True)

    def settings(self) -> dict[str, catalog.ProviderSettings]:
        """The configured providers as the model catalog takes them."""
        return {name: provider.settings() for name, provider in self.providers.items()}


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
    timezone: Annotated[str, AfterValidator(_zone_name)] | None = Field(
        default=None, description="Of the active hours: an IANA name, or `user` (unset): `heartbeat.user_timezone`."
    )
    user_timezone: Annotated[str, AfterValidator(_zone_name)] | None = Field(
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
    timezone: Annotated[str, AfterValidator(_zone_name)] = Field(
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


def _template(text: str) -> str:
    try:
        Template(text)
    except InputError as exc:
        raise ValueError(str(exc)) from None
    return text


def _route_text(text: str) -> str:
    try:
        Route.parse(text)
    except InputError as exc:
        raise ValueError(str(exc)) from None
    return text


TemplateText = Annotated[str, AfterValidator(_template)]
RouteText = Annotated[str, AfterValidator(_route_text)]


class HookConfig(Section):
    """One hook, `POST /hooks/NAME`: who may call it, and what its payload says to which agent."""

    scheme: Scheme = Field(
        default="token",
        description="How its sender proves itself: `token` (a bearer token), or a signature over the body as GitHub "
        "(`github`), Slack (`slack`) or Standard Webhooks (`standard`) make it.",
    )
    secret_env: str | None = Field(
        default=None, description="Environment variable that holds its secret. Unset, with `token`: `hooks.token_env`."
    )
    events: tuple[str, ...] = Field(
        default=(), strict=False, description="Kinds of events that are taken, as the sender names them. Empty: all."
    )
    session: TemplateText = Field(
        default="hook:{{ hook }}",
        description="Session key; may look values of the payload up, such as `hook:{{ repository.full_name }}`.",
    )
    message: TemplateText | None = Field(
        default=None, description="What the agent is told, with values looked up. Unset: the payload as JSON."
    )
    route: RouteText | None = Field(default=None, description='Where the answer is sent, "channel:target".')
    model: ModelRef | None = Field(default=None, description="Unset: the agent's.")
    trusted: bool = Field(
        default=False, description="The text is not marked as data from outside that must not be obeyed."
    )
    wakes: str | None = Field(
        default=None, description="An agent whose heartbeat is told of it, in place of a turn of its own."
    )
    per_minute: Positive = Field(default=30, description="Deliveries taken in a minute; more are refused (429).")


class HooksConfig(Section):
    """Webhooks: doors for other programs, with keys of their own."""

    enabled: bool = Field(default=False, description="Whether `/hooks/…` is there.")
    token_env: str = Field(
        default="HOLDFAST_HOOKS_TOKEN",
        description="Environment variable with the token of `/hooks/wake`, `/hooks/agent` and of hooks without a "
        "secret of their own. It must not be the gateway's.",
    )
    allow_request_session: bool = Field(
        default=False, description="Whether callers of `/hooks/agent` may name a session."
    )
    session_prefixes: tuple[str, ...] = Field(
        default=("hook:",), min_length=1, strict=False, description="What chosen session keys must begin with."
    )
    agents: tuple[str, ...] = Field(default=("main",), strict=False, description="Agents that may be asked.")
    per_minute: Positive = Field(default=30, description="As of each hook, for `/hooks/wake` and `/hooks/agent`.")
    mappings: FrozenMap[HookConfig] = Field(default_factory=dict, validate_default=True)


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
