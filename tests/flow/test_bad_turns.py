"""Turns that go wrong from within: each ends once, explained, and the next one runs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import OwnershipLostError, TurnLimitError
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ToolSpec
from holdfast.session.fence import Epoch
from holdfast.store.views import InputView
from holdfast.turn.outcomes import of_failure
from holdfast.turn.tools import Tool, Toolbox, ToolCall
from holdfast.turn.turn import Turn
from tests.faults.remote import Troupe

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


async def waits_for_itself(turn: Turn, _view: InputView) -> None:
    async with turn._hf.turn(KEY):
        pass


async def raises_half_an_emoji(_turn: Turn, _view: InputView) -> None:
    raise FileNotFoundError("no file \udce9t\udce9")  # as a file name that is no UTF-8 is told


@pytest.mark.parametrize("run", [raises_cancelled, raises_a_bug, waits_for_itself, raises_half_an_emoji])
@pytest.mark.promise("P2", "I5")
async def test_a_turn_that_breaks_from_within_fails_once_and_is_explained(
    state: Path, run: Callable[[Turn, InputView], Awaitable[None]]
) -> None:
    async with holdfast.open(state) as hf, working(hf, run):
        view = await hf.wait_input(await accept(hf), timeout_s=60)
        assert (view.state, view.attempts) == ("failed", 1)
        assert view.detail


async def path_of(hf: Holdfast, key: str = KEY) -> Path:
    async with hf.turn(key) as turn:
        return Path(turn.transcript.path)


async def test_an_input_whose_transcript_is_none_fails_explained_and_the_file_is_left_alone(state: Path) -> None:
    async with holdfast.open(state) as hf:
        path = await path_of(hf)
        path.write_text("a shopping list\n")
        async with working(hf, answers):
            view = await hf.wait_input(await accept(hf), timeout_s=60)
            assert (view.state, view.error, view.attempts) == ("failed", "TranscriptFormatError", 0)
            assert "does not begin with a session header" in (view.detail or "")
            assert (await hf.wait_input(await accept(hf, "agent:main:other"), timeout_s=60)).state == "answered"
        assert path.read_text() == "a shopping list\n"


async def test_a_refused_claim_is_not_tried_again_at_once(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A transcript whose sync has failed refuses every claim of this process."""
    async with holdfast.open(state) as hf:
        await path_of(hf)
        [file] = hf.store._files.values()  # pyright: ignore[reportAttributeAccessIssue]
        file.failed = OSError(5, "Input/output error")
        async with working(hf, answers):
            input_id = await accept(hf)
            assert (await hf.wait_input(await accept(hf, "agent:main:other"), timeout_s=60)).state == "answered"
            assert (await hf.wait_input(input_id, timeout_s=0.5)).state == "queued"
        assert len([one for one in caplog.records if "lane task error" in one.message]) == 1


async def test_an_id_that_is_too_long_for_the_record_does_not_lock_a_session(state: Path) -> None:
    async with holdfast.open(state) as hf:
        path = await path_of(hf)
        message = {"role": "user", "content": "from elsewhere"}
        line = {"type": "message", "id": "i" * 3000, "parentId": None, "timestamp": "2026-01-01T00:00:00.000Z"}
        path.write_text(path.read_text() + json.dumps({**line, "message": message}) + "\n")
        async with working(hf, answers):
            assert (await hf.wait_input(await accept(hf), timeout_s=60)).state == "answered"


async def test_a_dead_turn_whose_transcript_cannot_be_opened_does_not_stop_the_others(
    state: Path, processes: Troupe
) -> None:
    other = await processes.start(state)
    path = Path((await other.call("claim", turn="t", session=KEY))["path"])
    await other.kill()
    path.unlink()
    path.mkdir()
    async with holdfast.open(state) as hf, working(hf, answers):
        assert (await hf.wait_input(await accept(hf, "agent:main:other"), timeout_s=60)).state == "answered"


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


class Deaf:
    """A tool that swallows its cancellation, as `except BaseException` around a loop does."""

    def __init__(self) -> None:
        self.began, self.told, self.ends = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.toolbox = Toolbox([Tool(ToolSpec("work", "", {}), self.run)])

    async def run(self, _: ToolCall) -> str:
        self.began.set()
        while not self.ends.is_set():
            try:
                await self.ends.wait()
            except asyncio.CancelledError:
                self.told.set()
        return "done after all"


async def never(_: float) -> None:
    await asyncio.Event().wait()


async def at_once(_: float) -> None:
    return


async def test_a_tool_that_does_not_end_at_its_limit_ends_the_turn_and_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaf = Deaf()
    with pytest.raises(TurnLimitError, match=r"stopped after 0\.01 s and did not end") as caught:
        await deaf.toolbox.run(CALL, seconds_max=0.01, sleep=at_once)
    assert caught.value.limit == "tool_seconds"
    assert of_failure(caught.value, has_input=True)[1] == "interrupted"
    assert deaf.told.is_set()
    assert "does not end: it is left behind" in caplog.text
    deaf.ends.set()


async def test_a_tool_that_ends_late_with_a_result_has_it() -> None:
    deaf = Deaf()
    run = asyncio.create_task(deaf.toolbox.run(CALL, seconds_max=0.01, sleep=never))
    await deaf.told.wait()
    deaf.ends.set()
    assert (await run).text == "done after all"


async def test_a_deaf_tool_does_not_hold_a_turn_that_is_asked_to_stop() -> None:
    deaf = Deaf()
    task = asyncio.create_task(deaf.toolbox.run(CALL, seconds_max=60, sleep=at_once))
    await deaf.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deaf.ends.set()


@pytest.mark.promise("P1", "I3")
async def test_an_ended_turn_writes_nothing_more(state: Path) -> None:
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as turn:
            await turn.append(holdfast.user("hello"))
        with pytest.raises(OwnershipLostError):
            await turn.append(holdfast.user("one more thing"))
        assert len(await hf.session(KEY).entries()) == 1


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Somebody else holds the write lock of a transcript."""
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


async def test_an_answer_that_waits_for_the_lock_when_its_turn_is_cancelled_is_never_written(state: Path) -> None:
    paths: asyncio.Queue[str] = asyncio.Queue()
    go_on = asyncio.Event()

    async def run(turn: Turn, _: InputView) -> None:
        paths.put_nowait(turn.transcript.path)
        await go_on.wait()
        await turn.append(holdfast.assistant("too late", model="test/test"))

    async with holdfast.open(state) as hf, working(hf, run):
        input_id = await accept(hf)
        with write_lock(await paths.get()):
            go_on.set()
            [file] = hf.store._files.values()  # pyright: ignore[reportAttributeAccessIssue]
            while not file.lock._line:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0)
            assert await hf.cancel(input_id, by="a test") == "requested"
            assert (await hf.wait_input(input_id, timeout_s=60)).state == "cancelled"
        async with hf.turn(KEY) as turn:  # its claim stands in the same line, behind the answer that came too late
            await turn.append(holdfast.user("next"))
        assert [entry.message["role"] for entry in await hf.session(KEY).entries()] == ["user"]


@pytest.mark.promise("P2")
async def test_an_answer_that_has_landed_when_its_turn_is_cancelled_counts(state: Path) -> None:
    """The cancellation meets the append between its write and its return."""

    def cancel_after_write(point: str) -> None:
        if point == "append.after_write" and armed:
            armed.clear()
            loop.call_soon_threadsafe(turns[0].cancel, "a test")
            cancelled.wait(60)

    async def run(turn: Turn, view: InputView) -> None:
        turns.append(turn)
        await turn.append_input([{"role": "user", "content": "hello"}])
        armed.append(True)
        stop = turn.on_cancel
        assert stop is not None
        turn.on_cancel = lambda: (stop(), cancelled.set())
        with write_lock(turn.transcript.path):  # so that the append goes to a thread
            answer = asyncio.ensure_future(turn.append(holdfast.assistant("in time", model="test/test")))
            await asyncio.sleep(0)
        await answer

    turns: list[Turn] = []
    armed: list[bool] = []
    cancelled = threading.Event()
    loop = asyncio.get_running_loop()
    async with holdfast.open(state, faults=cancel_after_write) as hf, working(hf, run):
        view = await hf.wait_input(await accept(hf), timeout_s=60)
        assert cancelled.is_set()
        assert (view.state, view.answer) == ("answered", "in time")
