"""A process dies on the way of a sub-agent: it was spawned once all the same, and its parent has heard of it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.store.embedded.faults import Point
from holdfast.testing.world import World
from tests.flow.test_subagents import LIMITS, MAIN, answering, spawns

DEATHS: list[tuple[Point, int, str]] = [
    ("child.before_commit", 1, "the child and its input are not stored yet"),
    ("child.after_commit", 1, "they are, and the call has no result"),
    ("claim.after_record", 2, "the second turn, of parent or child, is about to begin"),
    ("settle.after_sync", 1, "the first answer is in its file and not settled"),
    ("settle.after_commit", 1, "the first turn has ended"),
    ("settle.after_sync", 2, "the second answer is in its file and not settled"),
    ("settle.after_commit", 2, "both turns have ended, and nobody has looked"),
    ("accept.before_commit", 2, "the end of the child is not stored yet"),
    ("accept.after_commit", 2, "it is an input of the parent, the child is not closed"),
    ("child.before_commit", 2, "the child is about to be closed"),
    ("child.after_commit", 2, "the child is closed"),
    ("settle.after_sync", 3, "the parent has answered, which is not settled"),
    ("settle.after_commit", 3, "it is settled, and nobody was told"),
]


def world_of(path: Path) -> World:
    return World(path, model=answering(begin=spawns("look")), spawns=LIMITS)


async def begin(world: World) -> None:
    await world.inbound(MAIN, "begin", key="k1")


async def check(world: World) -> None:
    """What is true however often somebody died on the way."""
    await begin(world)  # the sender, not acknowledged or not sure, says it again
    await world.idle(passing_s=60)
    [child] = await world.hf.children()
    assert (child.state, child.outcome) == ("announced", "answered")
    assert await world.said(child.session) == [("user", "look"), ("assistant", "done: look")]
    said = [(role, text.split("\n")[0]) for role, text in await world.said(MAIN)]
    told = f"[Sub-agent 'look' ({child.id}) has ended. What follows is its result, not a message of a user.]"
    calls, result = said[1], said[2]
    assert [calls[0], result[0]] == ["assistant", "toolResult"]
    assert [said[0], *said[3:]] == [
        ("user", "begin"), ("assistant", "begun"), ("user", told), ("assistant", f"noted: {told}"),
    ]  # fmt: skip
    sources = sorted(view.source for view in await world.hf.inputs(limit=100))
    assert sources == ["spawn", "subagent", "world"]
    await world.check_promises()


@pytest.mark.parametrize(("point", "nth", "when"), DEATHS, ids=[f"{point}-{nth}" for point, nth, _ in DEATHS])
async def test_a_process_may_die_between_any_two_steps_of_a_sub_agent(
    tmp_path: Path, point: Point, nth: int, when: str
) -> None:
    async with world_of(tmp_path) as world:
        crash = await world.crash_at(point, begin, nth=nth, make=world_of)
        assert crash.died, when
        await check(world)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_process_may_die_at_every_point_on_the_way_of_a_sub_agent(tmp_path: Path) -> None:
    nth, died = 0, True
    while died:
        nth += 1
        async with world_of(tmp_path / str(nth)) as world:
            died = (await world.crash_at(None, begin, nth=nth, make=world_of)).died
            await check(world)
    assert nth > 30
