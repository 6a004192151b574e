"""`[session]`, `[retention]`, `[[bindings]]`: when conversations begin anew, what becomes of them, whose they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
)

from holdfast.config.section import Positive, Section
from holdfast.errors import InputError
from holdfast.inbound.route import Binding, DmScope, Kind
from holdfast.inbound.schedule import zone_of
from holdfast.session.key import SessionType
from holdfast.session.retention import Limits

MIB, DAY_MS = 1 << 20, 86_400_000

FenceMode = Literal["strict", "warn"]


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


def zone_name(name: str) -> str:
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
    timezone: Annotated[str, AfterValidator(zone_name)] | None = Field(
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
