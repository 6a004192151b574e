"""Time that moves only when a test moves it.

    clock = VirtualClock()
    waiting = asyncio.create_task(clock.sleep(30))
    await clock.advance(30)            # the sleeper has woken and run until it waits for something else

Work on threads (a store's disk) takes no virtual time and is not waited for: wait for its effect.
"""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

ROUNDS = 20
"""How often the event loop goes round between two wakings: chains of callbacks this long are followed to their end."""


class VirtualClock:
    """A `Clock` for one event loop. Sleepers wake in the order of their times, ties in the order in which they came.

    Args:
        start: the wall time at the beginning; default 2026-01-01, so that time stamps repeat from run to run.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._wall_offset_s = 0.0
        self._mono = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._mono + self._wall_offset_s)

    def mono(self) -> float:
        return self._mono

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced by `seconds`; at once (after one round) for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._mono + seconds, self._order, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move time on, waking everybody whose time has come, also those who fall asleep on the way."""
        until = self._mono + seconds
        await self._let_run()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heapq.heappop(self._sleepers)
            self._mono = max(self._mono, at)
            if not woken.done():
                woken.set_result(None)
                await self._let_run()
        self._mono = until
        await self._let_run()

    def set_wall_clock(self, by_s: float) -> None:
        """Turn the wall clock by so many seconds, back if negative. Monotonic time does not notice."""
        self._wall_offset_s += by_s

    @property
    def sleeping(self) -> int:
        """How many sleepers wait for time to pass."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    @staticmethod
    async def _let_run() -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
