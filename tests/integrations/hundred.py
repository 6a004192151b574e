"""One test for all frameworks: 100 questions, 8 at once, in one process and in four; each is stored beside its answer.

A scene is a module with two functions. `asking(hf)`: a context that gives `ask(question)`, one turn of the framework
over one session, answered by a model of the test's own. `told(hf)`: (role, text) of what the framework reads back.

    python -m tests.integrations.hundred SCENE STATE FIRST COUNT AT_ONCE PAUSE_S       what each process does
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import holdfast

Ask = Callable[[str], Awaitable[str]]
TURNS = 100
ANSWER = "answer to "
pause_s = 0.0
"""How long the model takes; set once, before anybody is asked."""


class Scene(Protocol):
    def asking(self, hf: holdfast.Holdfast) -> AbstractAsyncContextManager[Ask]: ...

    async def told(self, hf: holdfast.Holdfast) -> list[tuple[str, str]]: ...


def scene(name: str) -> Scene:
    return cast("Scene", import_module(name))


async def think(question: str) -> str:
    """What every model of the scenes does."""
    await asyncio.sleep(pause_s)
    return ANSWER + question


async def ask_many(ask: Ask, first: int, count: int, at_once: int) -> None:
    """Ask; an exception of any turn comes out."""
    numbers = iter(range(first, first + count))

    async def one_after_another() -> None:
        for number in numbers:
            question = f"question {number}"
            assert await ask(question) == ANSWER + question

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_another())


async def run(name: str, state: Path, first: int = 0, count: int = TURNS, at_once: int = 8) -> None:
    async with holdfast.open(state) as hf, scene(name).asking(hf) as ask:
        await ask_many(ask, first, count, at_once)


async def in_four_processes(name: str, state: Path) -> None:
    """25 questions in each, 2 at once."""
    async with holdfast.open(state):
        pass  # made once
    share = TURNS // 4
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integrations.hundred", name, state, str(first), str(share), "2", "0.1",
            cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE,
        )
        for first in range(0, TURNS, share)
    ]  # fmt: skip
    for process in started:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()


async def check(name: str, state: Path) -> None:
    """Every question is there once, and directly followed by its own answer."""
    async with holdfast.open(state) as hf:
        told = await scene(name).told(hf)
    questions = [text for role, text in told if role == "user"]
    assert sorted(questions) == sorted(f"question {number}" for number in range(TURNS))
    assert told == [pair for text in questions for pair in (("user", text), ("assistant", ANSWER + text))]


if __name__ == "__main__":
    _, name_, state_, first_, count_, at_once_, pause_ = sys.argv
    # Scenes import this module by its name; what runs here is called `__main__`.
    ours: Any = import_module("tests.integrations.hundred")
    ours.pause_s = float(pause_)
    asyncio.run(ours.run(name_, Path(state_), int(first_), int(count_), int(at_once_)))
