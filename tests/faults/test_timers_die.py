"""A process dies between the steps of a timer: it has fired once all the same, and its news have come once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.store.embedded.faults import Point
from holdfast.testing.world import World
from tests.flow.test_timers import JOB, MAIN, due, ended, timer_of, with_timers

ONCE = replace(JOB, every=None, at="2026-01-01T00:01:00")

DEATHS: list[tuple[Point, int, str]] = [
    ("accept.before_commit", 1, "the run's input is not stored yet"),
    ("accept.after_commit", 1, "the input is stored, the timer has not moved on"),
    ("timer.before_commit", 1, "the timer is about to move on"),
    ("timer.after_commit", 1, "the timer has moved on"),
    ("settle.after_sync", 1, "the answer is in the file and not settled"),
    ("settle.after_commit", 1, "the run has ended and nobody has looked"),
    ("accept.before_commit", 2, "the announcement is not stored yet"),
    ("accept.after_commit", 2, "the announcement is stored, the run is not closed"),
    ("timer.before_commit", 2, "the run is about to be closed"),
    ("timer.after_commit", 2, "the run is closed"),
    ("settle.after_commit", 2, "the announcement is in the conversation and nobody was told"),
]


def world_of(path: Path) -> World:
    return World(path, timers=with_timers(ONCE))


async def fire_and_announce(world: World) -> None:
    await due(world)
    await ended(world, 1)


async def check(world: World) -> None:
    """What is true however often somebody died on the way."""
    timer = await timer_of(world)
    if timer.next_at_ms is not None:
        await due(world)
    [run] = await ended(world, 1)
    await world.idle(passing_s=60)
    assert (run.state, run.reason) == ("ok", "schedule")
    await world.saw("re: look at the mail")
    assert [text for _, text in await world.said(MAIN)] == ["re: look at the mail"]
    sources = sorted(view.source for view in await world.hf.inputs(limit=100))
    assert sources == ["announcement", "cron"]
    assert (await timer_of(world)).state == "done"
    await world.check_promises()


@pytest.mark.parametrize(("point", "nth", "when"), DEATHS, ids=[f"{point}-{nth}" for point, nth, _ in DEATHS])
async def test_a_process_may_die_between_any_two_steps_of_a_timer(
    tmp_path: Path, point: Point, nth: int, when: str
) -> None:
    async with world_of(tmp_path) as world:
        await timer_of(world)
        crash = await world.crash_at(point, fire_and_announce, nth=nth, make=world_of)
        assert crash.died, when
        await check(world)


@pytest.mark.long
async def test_a_process_may_die_at_every_point_on_the_way_of_a_timer(tmp_path: Path) -> None:
    nth, deaths = 0, 0
    while True:
        nth += 1
        async with world_of(tmp_path / str(nth)) as world:
            await timer_of(world)
            crash = await world.crash_at(None, fire_and_announce, nth=nth, make=world_of)
            await check(world)
        if not crash.died:
            break
        deaths += 1
    assert deaths > 20
