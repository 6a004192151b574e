"""Turns that go wrong from within: each ends once, explained, and the next one runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ToolSpec
from holdfast.session.fence import Epoch
from holdfast.store.views import InputView
from holdfast.turn.tools import Tool, Toolbox, ToolCall
from holdfast.turn.turn import Turn

KEY = "agent:main:main"
CALL = ToolCall("call_1", "work", {}, KEY, "turn_1", Epoch(1, "00"))


async def answers(turn: Turn, view: InputView) -> None:
    await turn.append_input([{"role": "user", "content": view.payload["content"]}])
    await turn.append(holdfast.assistant("fine", model="test/test"))


async def accept(hf: Holdfast, key: str = KEY) -> str:
    admission = await hf.accept(InboundEvent(key, {"content": "hello"}))
    assert isinstance(admission, Accepted)
    return admission.input_id


@asynccontextmanager
async def working(hf: Holdfast, run: Callable[[Turn, InputView], Awaitable[None]]) -> AsyncIterator[Worker]:
    worker = Worker(hf, run, limits=LaneLimits())
    task = asyncio.create_task(worker.run())
    try:
        yield worker
        assert not task.done(), "the worker died"
    finally:
        await worker.stop(0)
        await asyncio.gather(task, return_exceptions=True)


async def raises_cancelled(_turn: Turn, _view: InputView) -> None:
    raise asyncio.CancelledError


async def raises_a_bug(_turn: Turn, _view: InputView) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("run", [raises_cancelled, raises_a_bug])
async def test_a_turn_that_breaks_from_within_fails_once_and_is_explained(
    state: Path, run: Callable[[Turn, InputView], Awaitable[None]]
) -> None:
    async with holdfast.open(state) as hf, working(hf, run):
        view = await hf.wait_input(await accept(hf), timeout_s=10)
        assert (view.state, view.attempts) == ("failed", 1)
        assert view.detail


async def raises(error: BaseException) -> Any:
    raise error


async def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (lambda _: raises(asyncio.CancelledError()), "cancelled from within"),
        (lambda _: raises(SystemExit(3)), "SystemExit: 3"),
        (lambda _: raises(TimeoutError("the site did not answer")), "the site did not answer"),
        (lambda _: circle(), "Circular reference"),
    ],
)
async def test_whatever_a_tool_does_is_its_result(tool: Callable[[ToolCall], Awaitable[Any]], told: str) -> None:
    result = await Toolbox([Tool(ToolSpec("work", "", {}), tool)]).run(CALL, seconds_max=5)
    assert result.is_error
    assert told in result.text


async def test_a_tool_of_a_turn_that_is_asked_to_stop_does_not_hold_it() -> None:
    began = asyncio.Event()

    async def hang(_: ToolCall) -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Toolbox([Tool(ToolSpec("work", "", {}), hang)]).run(CALL, seconds_max=60))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
