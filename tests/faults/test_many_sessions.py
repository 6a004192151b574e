"""What a process may keep open: a few files, however many sessions it has seen."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ResourceError
from holdfast.store.embedded.core import FILES_MAX

FOLDER = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


def open_files() -> int:
    return len(os.listdir(FOLDER))


@contextmanager
def descriptors_left(spare: int) -> Iterator[None]:
    """All but `spare` of the descriptors that this process may have are taken."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_program_may_use_any_number_of_sessions_one_after_the_other(state: Path) -> None:
    async with holdfast.open(state) as hf:
        before = open_files()
        for number in range(FILES_MAX + 40):
            async with hf.turn(f"agent:main:{number}") as turn:
                await turn.append(holdfast.user("hello"))
        assert open_files() <= before + 4 * FILES_MAX + 8
        async with hf.turn("agent:main:0") as turn:  # closed meanwhile
            await turn.append(holdfast.user("again"))
        assert len(await hf.session("agent:main:0").entries()) == 2


async def test_what_a_turn_or_a_waiting_writer_uses_stays_open(state: Path) -> None:
    async with holdfast.open(state) as hf, hf.turn("agent:main:kept") as kept:
        await kept.append(holdfast.user("first"))
        async with hf.turn("agent:main:locked") as turn:
            path = turn.transcript.path
        fd = os.open(path, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        writing = asyncio.create_task(hf.session("agent:main:locked").append_metadata(holdfast.custom("note", 1)))
        for number in range(FILES_MAX + 4):
            async with hf.turn(f"agent:main:{number}"):
                pass
        os.close(fd)
        await writing
        await kept.append(holdfast.user("second"))
        assert [len(await hf.session(f"agent:main:{key}").entries()) for key in ("kept", "locked")] == [2, 1]


async def test_running_out_of_descriptors_is_a_clean_refusal_that_passes(state: Path) -> None:
    async with holdfast.open(state) as hf:
        async with hf.turn("agent:main:warm"):
            pass  # connections and threads are there
        for spare in range(4):
            before = open_files()
            for _ in range(5):
                with descriptors_left(spare), pytest.raises(ResourceError):
                    async with hf.turn(f"agent:main:new{spare}"):
                        pass
            assert open_files() == before
            async with hf.turn(f"agent:main:new{spare}") as turn:
                await turn.append(holdfast.user("hello"))
