"""Programs that bring no gateway: `hf.work` runs what was accepted, `turn.ask_leave` waits for a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast.store.views import InputView
from holdfast.tool.approval import Approval

PATIENCE_S = 60.0
Run = Callable[[holdfast.Turn, InputView], Awaitable[None]]


def event(text: str, session: str = "agent:main:main") -> holdfast.InboundEvent:
    return holdfast.InboundEvent(session, {"content": text}, lane="hook")


@asynccontextmanager
async def working(path: Path, run: Run) -> AsyncIterator[holdfast.Holdfast]:
    async with holdfast.open(path) as hf:
        loop = asyncio.create_task(hf.work(run))
        try:
            yield hf
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


async def admitted(hf: holdfast.Holdfast, one: holdfast.InboundEvent) -> str:
    found = await hf.accept(one)
    assert isinstance(found, holdfast.Accepted)
    return found.input_id


async def test_what_was_accepted_is_run_in_order_also_after_a_stop(tmp_path: Path) -> None:
    done: list[str] = []
    entered = asyncio.Event()

    async def held(turn: holdfast.Turn, view: InputView) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def answer(turn: holdfast.Turn, view: InputView) -> None:
        done.append(view.payload["content"])
        if view.payload["content"] == "bad":
            raise holdfast.InputError("no good")
        await turn.append(holdfast.assistant("fine", model="test/none"))

    async with asyncio.timeout(PATIENCE_S):
        async with working(tmp_path, held) as hf:
            ids = [await admitted(hf, event(text)) for text in ("one", "bad", "two")]
            await entered.wait()
        async with working(tmp_path, answer) as hf:
            views = [await hf.wait_input(one) for one in ids]
    assert done == ["one", "bad", "two"]
    assert [view.state for view in views] == ["answered", "failed", "answered"]
    assert views[1].error == "InputError"


@pytest.mark.parametrize("yes", [True, False])
async def test_leave_is_asked_for_and_used_once(tmp_path: Path, yes: bool) -> None:
    told: list[Approval] = []
    found: list[Approval] = []

    async with holdfast.open(tmp_path) as hf:

        async def answer(one: Approval) -> None:
            told.append(one)
            await hf.answer_approval(one.id, yes=yes, by="ann")

        async with asyncio.timeout(PATIENCE_S), hf.turn("agent:main:main") as turn:
            found.append(await turn.ask_leave("merge", {"head": "abc"}, why="it changes something", told=answer))
        with pytest.raises(holdfast.InputError):
            await hf.answer_approval(told[0].id, yes=True, by="eve")
    assert (told[0].state, told[0].tool, told[0].shown) == ("pending", "merge", '{"head": "abc"}')
    assert (found[0].state, found[0].by) == ("used" if yes else "denied", "ann")


async def test_a_question_is_void_once_its_turn_is_stopped(tmp_path: Path) -> None:
    asked: asyncio.Queue[Approval] = asyncio.Queue()

    async def run(turn: holdfast.Turn, view: InputView) -> None:
        await turn.ask_leave("merge", {}, why="it changes something", told=asked.put)

    async with asyncio.timeout(PATIENCE_S), working(tmp_path, run) as hf:
        input_id = await admitted(hf, event("merge"))
        question = await asked.get()
        await hf.cancel(input_id, by="a newer push")
        view = await hf.wait_input(input_id)
        assert (view.state, await hf.approvals(pending=True)) == ("cancelled", [])
        assert [one.state for one in await hf.approvals() if one.id == question.id] == ["void"]
