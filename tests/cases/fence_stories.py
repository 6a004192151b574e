"""The life of a lock's controller, told of a turn: what is left behind when it ends in an unusual way."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from tests.cases.fence_scene import KEY, perform_outside
from tests.cases.fence_script import Act
from tests.cases.given import Case

Story = Callable[[Case, Path], Awaitable[None]]


async def write_lock_is_free(state: Path) -> None:
    """Another handle gets the write lock within the 300 ms that it is ready to wait."""
    async with holdfast.open(state, acquire_timeout_ms=300) as other:
        await other.session(KEY).append_metadata(holdfast.custom("proof", "the lock is free"))


@contextmanager
def write_lock_held_elsewhere(path: Path) -> Iterator[None]:
    """What another process does while it appends, for as long as the test likes."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


async def leaving_twice_settles_once(case: Case, state: Path) -> None:
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY)
        assert isinstance(turn, holdfast.Turn)
        await turn.append(holdfast.user("hello"))
        await hf.close_turn(turn, None)
        await hf.close_turn(turn, None)
        await write_lock_is_free(state)
        async with hf.turn(KEY, wait_s=0):
            pass
        assert [view.outcome for view in await hf.turns()] == ["done", "done"]


async def an_error_while_looking_at_the_file_leaves_the_lock_free(case: Case, state: Path) -> None:
    """Looking fails with ENOTDIR: a file stands where the folder was. Any other error would be treated alike."""
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        folder = Path(turn.transcript.path).parent
        window = turn.prompt_window()
        await window.__aenter__()
        folder.rename(folder.with_name("moved"))
        folder.write_text("in the way")
        with pytest.raises((OSError, holdfast.HoldfastError)):
            await window.__aexit__(None, None, None)
        folder.unlink()
        folder.with_name("moved").rename(folder)
        await write_lock_is_free(state)


async def aborting_a_write_that_waits_leaves_the_lock_free(case: Case, state: Path) -> None:
    """The abort comes while the write waits for the lock; the turn is then left, or asks a model first."""
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as turn:
            path = Path(turn.transcript.path)
            await turn.append(holdfast.user("hello"))
            with write_lock_held_elsewhere(path):
                writing = asyncio.ensure_future(turn.append(holdfast.user("aborted")))
                await asyncio.sleep(0)
                writing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await writing
            if "release for prompt" in case.data["steps"]:
                async with turn.prompt_window():
                    await write_lock_is_free(state)
        await write_lock_is_free(state)
        async with hf.turn(KEY, wait_s=0) as following:
            await following.append(holdfast.user("next"))
        assert path.read_text().count('"aborted"') <= 1


async def a_takeover_lets_the_next_turn_write(case: Case, state: Path) -> None:
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as turn:
            path = Path(turn.transcript.path)
            async with turn.prompt_window():
                pass
            perform_outside(Act("outsider", "append", {"type": "message", "id": "external"}), path, base=None)
            with pytest.raises(holdfast.SessionTakeoverError):
                await turn.append(holdfast.user("late"))
        async with hf.turn(KEY, wait_s=0) as following:
            await following.append(holdfast.user("next-inbound"))
    text = path.read_text()
    assert all(word in text for word in case.expected["file_contains"])
    assert not any(word in text for word in case.expected["file_excludes"])


async def writes_at_the_same_time_land_one_after_the_other(case: Case, state: Path) -> None:
    order = case.expected["merged_order"]
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        await asyncio.gather(*(turn.append(holdfast.user(name)) for name in order))
    lines = [line for line in await lines_of(state) if line.type == "message"]
    assert [line.value()["message"]["content"][0]["text"] for line in lines] == order
    assert [line.parent for line in lines] == [None, *(line.id for line in lines[:-1])]


async def lines_of(state: Path) -> list[Any]:
    async with holdfast.open(state) as hf:
        return await hf.session(KEY).lines()


STORIES: dict[str, Story] = {
    "fn-071": leaving_twice_settles_once,
    "fn-073": an_error_while_looking_at_the_file_leaves_the_lock_free,
    "fn-075": aborting_a_write_that_waits_leaves_the_lock_free,
    "fn-076": aborting_a_write_that_waits_leaves_the_lock_free,
    "fn-085": a_takeover_lets_the_next_turn_write,
    "fn-092": writes_at_the_same_time_land_one_after_the_other,
}
