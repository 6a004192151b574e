"""Virtual time: sleepers wake when the test says so, in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from holdfast.testing.clock import VirtualClock


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = VirtualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.mono()))

    tasks = [asyncio.create_task(sleeper(name, s)) for name, s in (("late", 9), ("early", 1), ("same", 1))]
    await clock.advance(8.5)
    assert woken == [("early", 1.0), ("same", 1.0)]
    await clock.advance(0.5)
    assert woken[-1] == ("late", 9.0)
    await asyncio.gather(*tasks)


async def test_whoever_falls_asleep_again_on_the_way_is_woken_again() -> None:
    clock = VirtualClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(10)
            ticks.append(clock.mono())

    task = asyncio.create_task(tick())
    await clock.advance(35)
    assert ticks == [10.0, 20.0, 30.0]
    assert clock.mono() == 35.0
    task.cancel()


async def test_a_cancelled_sleeper_is_not_counted_and_wakes_nobody() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(1)
    assert clock.sleeping == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleeping == 0
    await clock.advance(10)


async def test_the_wall_clock_can_be_set_and_monotonic_time_does_not_notice() -> None:
    clock = VirtualClock()
    began = clock.now()
    await clock.advance(60)
    clock.set_wall_clock(-3600)
    assert clock.now() == began + timedelta(seconds=60 - 3600)
    assert clock.mono() == 60.0


async def test_a_sleep_of_nothing_needs_no_advance() -> None:
    async with asyncio.timeout(5):
        await VirtualClock().sleep(0)
