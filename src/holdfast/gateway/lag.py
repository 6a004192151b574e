"""How late the event loop wakes up: what everything else in this process waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

LOOK_S = 0.5


async def watch_lag(told: Callable[[float], object]) -> NoReturn:
    """Call `told` with the seconds by which each wake-up is late, twice a second, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_S
        await asyncio.sleep(LOOK_S)
        told(max(0.0, loop.time() - due))
