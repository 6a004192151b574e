"""Slots of a full lane over several processes. Time stands still here: whoever wakes was told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.store.views import InputView
from holdfast.testing.clock import VirtualClock
from holdfast.turn.turn import Turn

LIMITS = LaneLimits(widths={"narrow": 1})
PATIENCE_S = 20.0


@asynccontextmanager
async def two_handles(state: Path) -> AsyncIterator[tuple[Holdfast, Holdfast]]:
    """Each is a process of its own to the other."""
    clock = VirtualClock()
    async with (
        holdfast.open(state, clock=clock, limits=LIMITS) as one,
        holdfast.open(state, clock=clock, limits=LIMITS) as other,
    ):
        yield one, other


async def bells(hf: Holdfast, wanted: int) -> None:
    """Until so many hang."""
    folder = Path(hf.state) / "bells"
    async with asyncio.timeout(30):
        while len(os.listdir(folder) if folder.exists() else []) != wanted:
            await hf.inputs()


async def a_turn(hf: Holdfast, session: str) -> str:
    async with hf.turn(session, lane="narrow", wait_s=60) as turn:
        return turn.id


def begin_turn(hf: Holdfast, session: str) -> asyncio.Task[str]:
    """Not as a child of the turn in which it is called, which would lend its slot."""
    return asyncio.create_task(a_turn(hf, session), context=Context())


async def test_whoever_waits_for_a_slot_is_woken_when_another_process_frees_it(state: Path) -> None:
    async with two_handles(state) as (one, other):
        async with one.turn("agent:main:a", lane="narrow"):
            waiting = begin_turn(other, "agent:main:b")
            await bells(one, 1)
        assert await asyncio.wait_for(waiting, PATIENCE_S)
        await bells(one, 0)


async def test_all_who_wait_get_the_slot_one_after_the_other(state: Path) -> None:
    async with two_handles(state) as (one, other):
        async with one.turn("agent:main:a", lane="narrow"):
            waiting = [begin_turn(hf, f"agent:main:b{n}") for n in range(3) for hf in (one, other)]
            await bells(one, 2)
        assert len(set(await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S))) == 6


async def test_a_worker_is_woken_for_an_input_whose_lane_was_full_elsewhere(state: Path) -> None:
    answered = asyncio.Event()

    async def run_input(turn: Turn, _: InputView) -> None:
        await turn.append(holdfast.assistant("hi", model="test/test"))
        answered.set()

    async with two_handles(state) as (one, other):
        async with one.turn("agent:main:a", lane="narrow"):
            accepted = await other.accept(InboundEvent("agent:main:b", {"content": "hello"}, lane="narrow"))
            assert isinstance(accepted, Accepted)
            worker = Worker(other, run_input, limits=LIMITS)
            running = asyncio.create_task(worker.run(), context=Context())
            await bells(one, 1)
            assert not answered.is_set()
        await asyncio.wait_for(answered.wait(), PATIENCE_S)
        await worker.stop(PATIENCE_S)
        await running
        await bells(one, 0)


async def test_a_bell_that_nobody_hears_is_taken_down_and_what_is_no_bell_is_left_alone(state: Path) -> None:
    async with holdfast.open(state, limits=LIMITS) as hf:
        folder = state / "bells"
        folder.mkdir()
        os.mkfifo(folder / "p_dead")
        (folder / "p_file").write_text("not a bell")
        await a_turn(hf, "agent:main:a")
        assert os.listdir(folder) == ["p_file"]
        assert (folder / "p_file").read_text() == "not a bell"
