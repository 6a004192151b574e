"""Processes of the nursery are like processes that are started anew, but for what they have imported."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.testing import nursery
from holdfast.testing.nursery import Nursery

if TYPE_CHECKING:
    import pytest

MODULE = "tests.unit.nursed"


async def test_a_child_has_its_pipes_and_nothing_else_of_the_nursery_and_its_exit_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NURSED", "here")
    child = await nursery.start(MODULE, "open")
    said, errors = await child.communicate()
    *open_files, folder, variable, parent = said.decode().split()
    assert open_files == ["0", "1", "2", "3"], "the fourth is the folder that is being read"
    assert (folder, variable, errors) == (str(tmp_path), "here", b"")
    assert child.returncode == 3
    assert int(parent) != os.getpid()


async def test_a_child_that_fails_says_so_and_ends_with_one() -> None:
    child = await nursery.start(MODULE, "fail")
    _, errors = await child.communicate()
    assert b"LookupError: it was told to" in errors
    assert child.returncode == 1


async def test_a_child_hears_its_input_and_can_be_stopped_continued_and_killed() -> None:
    children = await asyncio.gather(*(nursery.start(MODULE, "echo", takes_input=True) for _ in range(3)))
    for number, child in enumerate(children):
        assert child.stdin is not None
        child.send_signal(signal.SIGSTOP)
        child.stdin.write(f"line {number}\n".encode())
        child.send_signal(signal.SIGCONT)
        assert await child.stdout.readline() == f"LINE {number}\n".encode()
    children[0].kill()
    assert await children[0].wait() == -signal.SIGKILL
    children[0].kill()  # has ended: nothing happens
    for child in children[1:]:
        assert child.stdin is not None
        child.stdin.close()
        assert await child.wait() == 0


async def test_a_module_that_cannot_be_imported_is_told_by_the_child() -> None:
    child = await nursery.start("tests.unit.no_such_module", "")
    _, errors = await child.communicate()
    assert b"No module named 'tests.unit.no_such_module'" in errors
    assert child.returncode == 1


async def test_children_whose_nursery_is_killed_count_as_killed() -> None:
    alone = Nursery()
    child = await alone.start(MODULE, "echo", takes_input=True)
    alone.kill()
    assert await child.wait() == -signal.SIGKILL
    assert not alone.is_alive
    assert child.stdin is not None
    child.stdin.close()
