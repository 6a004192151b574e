"""The world that tests of agents live in: it has to tell the truth about what happened in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.store.embedded.faults import POINTS, Point
from holdfast.testing.world import World

SESSION = "agent:main:main"
ELSEWHERE = ("timer.", "child.", "lock_file.", "approval.", "background.", "message.", "pairing.", "preview.")
"""Points that a plain message does not pass; they have crash tests of their own."""


async def one_message(world: World) -> None:
    """The story of the crash tests; run in a process of its own."""
    await world.inbound(SESSION, "hello", key="k1")
    await world.saw("re: hello")


async def test_a_message_is_answered_and_its_answer_arrives_once(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.model.script("Hello!")
        input_id = await world.inbound(SESSION, "hello", key="k1")
        assert (await world.settled(input_id)).state == "answered"
        [arrived] = await world.saw("Hello!", times=1)
        assert (arrived.target, arrived.label) == ("user", None)
        assert await world.said(SESSION) == [("user", "hello"), ("assistant", "Hello!")]
        await world.check_promises()


async def test_a_repeated_key_is_one_input(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        first = await world.inbound(SESSION, "hello", key="k1")
        assert await world.inbound(SESSION, "hello", key="k1") == first
        await world.check_promises()
        await world.saw("re: hello", times=1)


async def test_a_restart_puts_a_running_turn_back_in_its_place(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.model.hold()
        input_id = await world.inbound(SESSION, "hello")
        await world.model.asked(1)
        await world.restart()
        assert (await world.hf.input(input_id)).state in ("queued", "running")
        world.model.release()
        assert (await world.settled(input_id)).attempts == 2
        await world.check_promises()
        await world.saw("re: hello", times=1)


@pytest.mark.parametrize("point", [point for point in POINTS if not point.startswith(ELSEWHERE)])
async def test_a_message_survives_a_kill_at_any_named_point(tmp_path: Path, point: Point) -> None:
    async with World(tmp_path) as world:
        crash = await world.crash_at(point, one_message)
        assert crash.died
        await world.inbound(SESSION, "hello", key="k1")  # the sender, not acknowledged or not sure, says it again
        await world.check_promises()
        assert await world.said(SESSION) == [("user", "hello"), ("assistant", "re: hello")]
        labels = [one.label for one in await world.saw("re: hello", times=1 + (point == "delivery.after_send"))]
        assert labels[0] is None or point == "delivery.after_started"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.promise("P3", "P4")
async def test_a_message_survives_a_kill_at_every_point_on_its_way(tmp_path: Path) -> None:
    nth, died = 0, True
    while died:
        nth += 1
        async with World(tmp_path / str(nth)) as world:
            died = (await world.crash_at(None, one_message, nth=nth)).died
            await world.inbound(SESSION, "hello", key="k1")
            await world.check_promises()
            assert await world.said(SESSION) == [("user", "hello"), ("assistant", "re: hello")]
    assert nth > 20  # the points of a message's way, and the one past the last


async def test_a_story_that_never_comes_to_the_point_is_an_error(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        with pytest.raises(AssertionError, match="never came to"):
            await world.crash_at("claim.after_commit", one_message, nth=2)
        await world.saw("re: hello", times=1)


async def test_a_wait_in_vain_tells_the_story_of_what_is_open(tmp_path: Path) -> None:
    async with World(tmp_path, patience_s=0.2) as world:
        world.model.hold()
        input_id = await world.inbound(SESSION, "hello")
        with pytest.raises(AssertionError, match=input_id):
            await world.idle()
