"""Time as a value handed in. Wall time is for people, monotonic time for waiting; nothing else asks the system."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the code may know about time."""

    def now(self) -> datetime:
        """Aware UTC wall time. May jump; never used to decide who owns what."""
        ...

    def mono(self) -> float:
        """Seconds that only grow, with an arbitrary zero, comparable within this process only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of `mono`."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def mono(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def iso(at: datetime) -> str:
    """`2026-05-22T10:00:00.000Z`: the form of time stamps in transcripts (formats.md §2)."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch_ms(at: datetime) -> int:
    """Milliseconds since 1970, the form of time stamps inside messages and of ledger columns."""
    return int(at.timestamp() * 1000)


def from_epoch_ms(ms: int) -> datetime:
    """The inverse of `epoch_ms`."""
    return datetime.fromtimestamp(ms / 1000, UTC)
