"""A clock for tests of wake-ups."""

from __future__ import annotations

import asyncio

from holdfast.clock import SystemClock
from holdfast.store.embedded.waiting import LOOK_S

PATIENCE_S = 60.0
"""Past this something hangs, however busy the machine."""


class OnlyWoken(SystemClock):
    """The machine's clock, on which nobody gets up for the regular look of each second: whoever waits has to be woken,
    or waits in vain. So that a test need not tell a wake-up from a look by how long it took.
    """

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds if seconds < LOOK_S else 3600.0)
