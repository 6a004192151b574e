"""What a gateway does for conversations as a whole: retention, once for all processes, and what was left half done."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import holdfast
from holdfast.recovery import upkeep
from holdfast.recovery.upkeep import Upkeep
from holdfast.session.retention import SPARED_MS, Limits, Step
from holdfast.store.views import ArchiveView
from holdfast.testing.world import World

T = TypeVar("T")
KEY, JOB = "agent:main:main", "agent:main:cron:report"
DAY_S = SPARED_MS / 1000
MONTH = Limits(archive_after_ms=30 * SPARED_MS)


async def test_what_nobody_has_used_for_long_is_archived_and_what_is_used_stays(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        old, new, waiting = (f"agent:main:slack:direct:{name}" for name in ("old", "new", "waiting"))
        for key in (old, new, waiting):
            await world.settled(await world.inbound(key, "hello"))
        await world.idle()
        world.clock.set_wall_clock(31 * DAY_S)
        await world.settled(await world.inbound(new, "hello again"))
        await world.idle()
        world.model.hold()
        await world.inbound(waiting, "still here")
        await world.model.asked(5)
        found = await upkeep.prune(world.hf, MONTH, by="a test", dry_run=False)
        assert [(one.session, one.step.why, one.left) for one in found.done] == [(old, "age", "")]
        world.model.release()
        views = {view.key: view for view in await world.hf.sessions()}
        assert views[old].archived_at_ms is not None
        assert (await upkeep.prune(world.hf, MONTH, by="a test", dry_run=False)).done == ()
        await world.check_promises()


async def test_what_comes_into_use_between_plan_and_step_is_left(tmp_path: Path) -> None:
    """The plan was made before; the step asks again, with the session owned."""
    async with World(tmp_path) as world, holdfast.open(world.state) as other:
        await world.settled(await world.inbound(KEY, "hello"))
        await world.idle()
        turn = await other.claim(KEY, wait_s=5)
        assert isinstance(turn, holdfast.Turn)
        left = await upkeep.carry_out(world.hf, Step("archive", "t", "age", 1), KEY, by="a test")
        assert "is busy" in left
        await other.close_turn(turn, None)
        assert await world.hf.archives() == []


async def test_transcripts_of_jobs_are_archived_past_their_size_and_the_job_goes_on(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(JOB, "x" * 2000, lane="cron"))
        await world.settled(await world.inbound(KEY, "x" * 2000))
        await world.idle()
        found = await upkeep.prune(world.hf, Limits(machine_bytes_max=1000), by="a test", dry_run=False)
        assert [(one.session, one.step.why) for one in found.done] == [(JOB, "size")]
        await world.settled(await world.inbound(JOB, "next run", lane="cron"))
        await world.check_promises()


async def test_over_the_budget_archives_go_first_and_then_what_was_unused_the_longest(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        keys = [f"agent:main:slack:direct:{n}" for n in range(3)]
        for key in keys:
            await world.settled(await world.inbound(key, "x" * 20_000))
            await world.idle()
            world.clock.set_wall_clock(2 * DAY_S)
        archive = await world.hf.session(keys[2]).archive(by="a test")
        assert isinstance(archive, ArchiveView)
        found = await upkeep.prune(world.hf, Limits(bytes_max=70_000, bytes_low=50_000), by="a test", dry_run=False)
        assert [(one.step.what, one.session, one.left) for one in found.done] == [
            ("delete", keys[2], ""), ("discard", keys[0], ""),
        ]  # fmt: skip
        assert found.freed_bytes >= archive.bytes
        assert await world.hf.archives() == []
        assert (await world.said(keys[1]))[0][1] == "x" * 20_000


async def test_one_process_does_it_for_all_and_the_next_when_it_is_time_again(tmp_path: Path) -> None:
    async with World(tmp_path) as world, holdfast.open(world.state, clock=world.clock) as other:
        assert await world.hf.store.begin_chore("retention", 3600)
        assert not await other.store.begin_chore("retention", 3600)
        world.clock.set_wall_clock(3600)
        results = await asyncio.gather(*(hf.store.begin_chore("retention", 3600) for hf in (world.hf, other) * 3))
        assert sorted(results) == [False] * 5 + [True]
        world.clock.set_wall_clock(-100 * DAY_S)  # a clock that was wrong for a while does not stop it for as long
        assert await other.store.begin_chore("retention", 3600)


async def test_a_gateway_warns_once_a_day_and_changes_nothing_until_it_is_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="holdfast.upkeep")
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "hello"))
        await world.idle()
        world.clock.set_wall_clock(31 * DAY_S)
        warning, enforcing = Upkeep(world.hf, MONTH, "warn"), Upkeep(world.hf, MONTH, "enforce")
        for _ in range(3):
            await warning.look_once()
        told = [record.message.split(";")[0] for record in caplog.records if record.name == "holdfast.upkeep"]
        assert told == ["retention would archive 1 conversation(s) and delete 0 archive(s)"]
        assert await world.hf.archives() == []
        world.clock.set_wall_clock(DAY_S)
        await enforcing.look_once()
        [archive] = await world.hf.archives()
        assert (archive.session, archive.why, archive.by) == (KEY, "age", "retention")


class CutOff(Coroutine[Any, Any, T]):
    """`work`, cancelled at the n-th time that it waits: before what it waits for has begun, or once that is over.

    Waits are counted, not rounds of the loop: how many of those pass depends on how fast threads and disk are.
    """

    def __init__(self, work: Coroutine[Any, Any, T], at: int, *, late: bool) -> None:
        self.work, self.left, self.late = work, at, late

    def send(self, value: Any) -> Any:
        return self._waits(self.work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waits(self.work.throw(*error))

    def close(self) -> None:
        self.work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise NotImplementedError("it is the body of a task")

    def _waits(self, until: asyncio.Future[Any] | None) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self.left -= 1
        if self.left == 0 and self.late and until is not None:
            until.add_done_callback(lambda _: task.cancel())
        elif self.left == 0:
            task.cancel()
        return until


@pytest.mark.parametrize("late", [False, True])
async def test_an_archive_that_is_cut_off_anywhere_is_done_or_not_done_and_never_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    """Cancelled where it waits for the first time, the second time, and so on, until one is whole."""
    async with World(tmp_path) as world:
        at = 0
        for at in itertools.count(1):
            await world.settled(await world.inbound(KEY, f"number {at}"))
            await world.idle()
            before = len(await world.hf.archives())
            work = CutOff(world.hf.session(KEY).archive(by="a test", wait_s=5), at, late=late)
            [done] = await asyncio.gather(asyncio.get_running_loop().create_task(work), return_exceptions=True)
            await upkeep.finish(world.hf)
            assert await upkeep.finish(world.hf) == 0
            assert len(await world.hf.archives()) in (before, before + 1)
            files = sorted((world.state / "archives").glob("*/*.jsonl"))
            assert len(files) == len(await world.hf.archives())
            if work.left > 0:
                assert isinstance(done, ArchiveView)
                break
            assert isinstance(done, asyncio.CancelledError)
        assert at > 5
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
        await world.check_promises()
