"""Whether a conversation goes on or begins anew when somebody speaks: daily, after a pause, or never. Pure.

What counts is what people said, and when they were last answered. Heartbeats, jobs, webhooks, renames and read receipts
never keep a conversation fresh. The question is asked for an input as of the moment at which it was accepted, so that a
run that is repeated after a crash gets the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.inbound.schedule import cron, next_fire

Why = Literal["daily", "idle"]


@dataclass(frozen=True, slots=True)
class ResetPolicy:
    """When a conversation begins anew.

    Args:
        daily_at: "HH:MM" in `timezone` (an IANA name): the first message after that time; None: never.
        idle_s: seconds without a word of anybody; 0: however long.
    """

    daily_at: str | None = None
    timezone: str = "UTC"
    idle_s: float = 0.0

    @property
    def is_never(self) -> bool:
        return self.daily_at is None and self.idle_s <= 0


NEVER = ResetPolicy()


def why_anew(last_ms: int | None, now_ms: int, policy: ResetPolicy) -> Why | None:
    """Why the conversation begins anew at `now_ms`; None: it goes on.

    Args:
        last_ms: when somebody last spoke, or was answered; None: nobody has. A time that has not come yet (the clock
            was set back) lets the conversation go on: nothing is forgotten for a wrong clock.

    Where the clock jumps over the time of day, the first instant after the jump counts; where it comes twice, the
    first.
    """
    if last_ms is None or now_ms <= last_ms:
        return None
    if policy.daily_at is not None:
        hour, _, minute = policy.daily_at.partition(":")
        boundary = next_fire(cron(f"{int(minute)} {int(hour) % 24} * * *", zone=policy.timezone, stagger_s=0), last_ms)
        if boundary is not None and boundary <= now_ms:
            return "daily"
    if policy.idle_s > 0 and now_ms - last_ms >= policy.idle_s * 1000:
        return "idle"
    return None
