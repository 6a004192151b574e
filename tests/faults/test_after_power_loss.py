"""What a power loss or a failed sync leaves: lines whose claim is gone, a header that may never reach the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

import holdfast
from holdfast import ids
from holdfast.errors import TurnCancelledError
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.session.entries import custom
from holdfast.store.embedded.machine import Machine, stand_on
from holdfast.testing.simulation.disk import LEDGER, Disk

SESSION = "agent:main:main"
HELLO = {"role": "user", "content": "hello"}


async def lose_a_claim(state: Path, *, answered: bool) -> str:
    """Accept an input, begin to answer it, and forget all that needed no sync: the claim and the fence record."""
    ledger = state / "ledger.sqlite3"
    kept: dict[Path, bytes] = {}
    async with holdfast.open(state) as hf:
        accepted = await hf.accept(InboundEvent(SESSION, {"content": "hello"}, key="k"))
        assert isinstance(accepted, Accepted)
        kept = {path: path.read_bytes() for path in state.glob("ledger.sqlite3*") if not path.name.endswith("-shm")}
        turn = await hf.claim(SESSION, input_id=accepted.input_id)
        assert isinstance(turn, holdfast.Turn)
        await turn.append_input([HELLO])
        if answered:
            await turn.append(holdfast.assistant("first", model="demo/demo"), durable=True)
    for path in state.glob("ledger.sqlite3*"):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    assert ledger in kept
    shutil.rmtree(state / "fence")
    return accepted.input_id


async def answer(hf: Holdfast, input_id: str) -> None:
    turn = await hf.claim(SESSION, input_id=input_id)
    if isinstance(turn, holdfast.Turn):
        await turn.append_input([HELLO])
        await turn.append(holdfast.assistant("second", model="demo/demo"))
        await hf.close_turn(turn, None)


async def nothing(_: Holdfast) -> None:
    """Nobody comes before the input's next turn."""


async def a_turn(hf: Holdfast) -> None:
    async with hf.turn(SESSION):
        pass


async def a_line_of_metadata(hf: Holdfast) -> None:
    await hf.session(SESSION).append_metadata(custom("note", {}))


@pytest.mark.parametrize("before", [nothing, a_turn, a_line_of_metadata])
@pytest.mark.promise("P3", "I1", "I4")
async def test_an_input_whose_claim_was_lost_keeps_the_one_line_it_has(
    tmp_path: Path, before: Callable[[Holdfast], Coroutine[Any, Any, None]]
) -> None:
    input_id = await lose_a_claim(tmp_path, answered=False)
    async with holdfast.open(tmp_path) as hf:
        await before(hf)
        await answer(hf, input_id)
        lines = await hf.session(SESSION).lines()
        assert (await hf.input(input_id)).state == "answered"
    ids = [line.id for line in lines if line.kind != "header"]
    assert len(ids) == len(set(ids))
    epochs = [line.origin.epoch for line in lines if line.origin is not None and line.origin.writer == "turn"]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 2, "an epoch's number was used twice"


@pytest.mark.parametrize("before", [nothing, a_turn, a_line_of_metadata])
@pytest.mark.promise("P2", "P3")
async def test_an_answer_whose_claim_was_lost_still_counts(
    tmp_path: Path, before: Callable[[Holdfast], Coroutine[Any, Any, None]]
) -> None:
    input_id = await lose_a_claim(tmp_path, answered=True)
    async with holdfast.open(tmp_path) as hf:
        await before(hf)
        await answer(hf, input_id)
        view = await hf.input(input_id)
    assert (view.state, view.answer) == ("answered", "first")


@pytest.mark.promise("P3", "I1")
async def test_messages_that_a_lost_claim_had_collected_keep_the_one_line_each_has(tmp_path: Path) -> None:
    kept: dict[Path, bytes] = {}
    state = tmp_path / "state"
    async with holdfast.open(state) as hf:
        found = [
            await hf.accept(InboundEvent(SESSION, {"content": text}, key=text, queue="collect"))
            for text in ("one", "two", "three")
        ]
        mine = [one.input_id for one in found if isinstance(one, Accepted)]
        kept = {path: path.read_bytes() for path in state.glob("ledger.sqlite3*") if not path.name.endswith("-shm")}
        assert await collect(hf, mine[0]) == mine[1:]
    for path in state.glob("ledger.sqlite3*"):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    shutil.rmtree(state / "fence")
    async with holdfast.open(state) as hf:
        assert await collect(hf, mine[0]) == mine[1:]
        lines = [line for line in await hf.session(SESSION).lines() if line.kind == "entry"]
    assert [line.id for line in lines] == [ids.input_line_id(one) for one in mine]


@pytest.mark.promise("I1")
async def test_messages_collected_again_in_another_file_keep_the_one_line_each_has(tmp_path: Path) -> None:
    """The file is deleted under a turn that had taken them in. In the new one the place after which their lines came in
    the old one is the beginning of another line.
    """
    async with holdfast.open(tmp_path) as hf:
        first, second = [await say(hf, text) for text in ("one", "two")]
        assert await collect(hf, first) == [second]
        await stop(hf, first)
        third, fourth = [await say(hf, text) for text in ("six", "ten")]
        assert await collect(hf, second) == [third, fourth]
        [turn] = hf.live_turns()
        Path(turn.transcript.path).unlink()
        with pytest.raises(holdfast.SessionTakeoverError) as lost:
            await turn.check()
        await hf.close_turn(turn, lost.value)
        assert await collect(hf, second) == [third, fourth]
        await stop(hf, second)
        assert await collect(hf, third) == [fourth]
        lines = [line.id for line in await hf.session(SESSION).lines() if line.kind == "entry"]
    assert lines == [ids.input_line_id(one) for one in (second, third, fourth)]


async def say(hf: Holdfast, text: str) -> str:
    accepted = await hf.accept(InboundEvent(SESSION, {"content": text}, key=text, queue="collect"))
    assert isinstance(accepted, Accepted)
    return accepted.input_id


async def stop(hf: Holdfast, input_id: str) -> None:
    [turn] = hf.live_turns()
    await hf.cancel(input_id, by="a test")
    await hf.close_turn(turn, TurnCancelledError("a test"))


async def collect(hf: Holdfast, input_id: str) -> list[str]:
    """Begin to answer an input, and what may be answered with it; ids of the latter."""
    turn = await hf.claim(SESSION, input_id=input_id)
    assert isinstance(turn, holdfast.Turn)
    await turn.append_input([HELLO])
    return [view.id for view in await turn.take_in("merge")]


async def test_a_disk_that_refuses_the_sentinel_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    class Refusing(Machine):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            if bytes(data).startswith(b"pid="):
                raise OSError(5, "Input/output error")
            return super().write(fd, data)

    with Refusing().entered(), pytest.raises(holdfast.ResourceError, match="cannot use"):
        async with holdfast.open(tmp_path):
            pass
    assert list((tmp_path / "processes").iterdir()) == []


async def test_a_header_whose_sync_failed_is_not_built_upon(tmp_path: Path) -> None:
    """What shows after a failed sync may never be on the disk: the file is emptied, and its next opener begins it."""

    class FailsOnce(Machine):
        left = 1

        def sync_data(self, fd: int) -> None:
            if self.left:
                self.left -= 1
                raise OSError(5, "Input/output error")
            super().sync_data(fd)

    async with holdfast.open(tmp_path) as hf:
        with FailsOnce().entered(), pytest.raises(holdfast.ResourceError, match="nothing was claimed"):
            await hf.claim(SESSION)
        with pytest.raises(holdfast.ResourceError, match="an earlier sync failed"):
            await hf.claim(SESSION)
        [path] = (tmp_path / "sessions").glob("*/*.jsonl")
        assert path.read_bytes() == b""
        async with holdfast.open(tmp_path) as other, other.turn(SESSION) as turn:
            await turn.append(holdfast.user("hello"))
        assert [line.kind for line in await hf.session(SESSION).lines()] == ["header", "entry"]


async def test_lines_whose_sync_failed_in_a_takeover_are_written_again_by_the_next_owner(tmp_path: Path) -> None:
    """The one before had written them again, which changed the file's times, and its sync failed."""

    class Watching(Machine):
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def pwrite(self, fd: int, data: bytes, at: int) -> int:
            self.written.append(data)
            return super().pwrite(fd, data, at)

    async with holdfast.open(tmp_path) as first:
        async with first.turn(SESSION) as turn:
            await turn.append(holdfast.user("hello"))
        [path] = (tmp_path / "sessions").glob("*/*.jsonl")
        path.touch()
        machine = Watching()
        with machine.entered():
            async with holdfast.open(tmp_path) as second, second.turn(SESSION):
                pass
    assert any(b'"hello"' in data for data in machine.written)


class OnDisk(Machine):
    """Tells a simulated disk what has been made durable. `refused`: the beginning of the name of a folder whose next
    sync does not happen, as if the process had died before it.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.refused = ""

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        if flags & os.O_EXCL:
            self.disk.made(fd)
        return fd

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        self.disk.synced(fd)

    def sync_folder(self, path: Path) -> None:
        if self.refused and path.name.startswith(self.refused):
            self.refused = ""
            raise OSError(5, "Input/output error")
        self.disk.folder_synced(path)


@pytest.mark.parametrize(
    "deaths",
    [[], ["sessions"], ["agent-new"], ["agent-new", "agent-new"]],
    ids=["nobody", "with the folder made", "with the file made", "and another with the header written"],
)
@pytest.mark.promise("P3", "I7")
async def test_an_answer_is_durable_though_whoever_made_its_file_died_before_the_name_was(
    tmp_path: Path, deaths: list[str]
) -> None:
    mine = "agent:new:main"
    for seed in range(8):
        state = tmp_path / f"state{seed}"
        async with holdfast.open(state) as hf, hf.turn(SESSION) as turn:
            await turn.append(holdfast.user("makes the state"))
        machine = OnDisk(Disk(state))
        stand_on(machine)  # with all threads
        try:
            for machine.refused in deaths:
                async with holdfast.open(state) as hf:
                    with pytest.raises((holdfast.ResourceError, OSError)):
                        await hf.claim(mine)
            async with holdfast.open(state) as hf, hf.turn(mine) as turn:
                await turn.append(holdfast.assistant("kept", model="demo/demo"), durable=True)
                path = Path(turn.transcript.path)
        finally:
            stand_on(Machine())
        ledger, log = (one.read_bytes() if one.exists() else b"" for one in (state / LEDGER, state / f"{LEDGER}-wal"))
        machine.disk.log_durable = len(log)
        machine.disk.lose_power(Random(seed), ledger, log)
        assert path.exists(), "the file with a durable answer has lost its name"
        assert b'"kept"' in path.read_bytes()
