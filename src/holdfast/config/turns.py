"""`[turn]`, `[recovery]`, `[lanes]`, `[queue]`, `[outbox]`, `[compaction]`: how turns run, wait and are shortened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from holdfast.config.providers import ModelRef
from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.context.budget import HEADROOM_TOKENS, KEEP_RECENT_TOKENS, OUTPUT_TOKENS_RESERVED
from holdfast.context.prune import CACHE_TTL_S
from holdfast.context.settings import CompactionSettings
from holdfast.lane.policy import LaneLimits, default_widths
from holdfast.lane.queue import CAP_MAX, DEBOUNCE_MS_MAX, Drop, Mode, QueueSettings
from holdfast.recovery.watching import WARN_S, WatchSettings
from holdfast.turn.silence import SILENCE_S_MAX

MIB, DAY_MS = 1 << 20, 86_400_000

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
