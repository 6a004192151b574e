"""Session files that are something else, two keys for one file, and a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import holdfast
from holdfast.clock import SystemClock
from holdfast.errors import SessionBusyError, TranscriptFormatError
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.store.views import InputView
from holdfast.turn.turn import Turn
from tests.faults import checks, outsider

KEY = "agent:main:main"
OTHER = "agent:main:other"
HEADER = json.dumps({"type": "session", "version": 3, "id": "s", "timestamp": "2026-05-22T10:00:00.000Z", "cwd": "/"})


async def place(state: Path, key: str = KEY) -> Path:
    """Where a session's transcript would be; the folder is made, the session is not."""
    async with holdfast.open(state) as hf:
        path = hf.store.state.transcript_path(key)  # pyright: ignore[reportAttributeAccessIssue]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


async def answer_each(turn: Turn, view: InputView) -> None:
    await turn.append_input([{"role": "user", "content": view.payload["content"]}])
    await turn.append(holdfast.assistant(f"answer to {view.payload['content']}", model="demo/demo"))


async def work_until_settled(hf: Holdfast, input_id: str) -> InputView:
    worker = Worker(hf, answer_each, limits=LaneLimits())
    task = asyncio.create_task(worker.run())
    try:
        return await hf.wait_input(input_id, 10)
    finally:
        await worker.stop(1)
        await task


async def accept(hf: Holdfast, text: str = "question", key: str = KEY) -> str:
    admission = await hf.accept(InboundEvent(key, {"content": text}, route=Route("test", "alice")))
    assert isinstance(admission, Accepted)
    return admission.input_id


# ── not a transcript ─────────────────────────────────────────────────────────────────────────────────────────────────

ODD: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link out of the state": lambda path: path.symlink_to(path.parents[3] / "canary"),
    "a link to nothing outside": lambda path: path.symlink_to(path.parents[3] / "nothing"),
    "text": lambda path: path.write_text("dear diary\n"),
    "lines without a header": lambda path: path.write_bytes(outsider.line_of("user", str(path), parent=None)),
    "a torn header": lambda path: path.write_text('{"type":"session","version":3,"id":"'),
    "a header of a newer format": lambda path: path.write_text(HEADER.replace('"version": 3', '"version": 4') + "\n"),
    "zeros": lambda path: path.write_bytes(b"\0" * 4096),
}


@pytest.mark.parametrize("what", ODD)
async def test_what_is_no_transcript_is_refused_and_left_as_it_is(state: Path, tmp_path: Path, what: str) -> None:
    path = await place(state)
    (tmp_path / "canary").write_text(HEADER + "\n")
    outsider_made = ODD[what]
    if what == "lines without a header":
        path.touch()
    outsider_made(path)
    before = path.read_bytes() if path.is_file() else None
    async with holdfast.open(state) as hf:
        for _ in range(2):
            with pytest.raises(TranscriptFormatError):
                await hf.claim(KEY, wait_s=1)
        with pytest.raises(TranscriptFormatError):
            await hf.session(KEY).append_metadata(holdfast.session_info("title"))
        async with hf.turn(OTHER, wait_s=5) as turn:
            await turn.append(holdfast.user("the others go on"))
    assert (path.read_bytes() if path.is_file() else None) == before
    assert (tmp_path / "canary").read_text() == HEADER + "\n"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("what", ["a folder", "text", "a torn header"])
async def test_an_input_whose_session_cannot_be_written_ends_with_an_explanation(state: Path, what: str) -> None:
    """It must not be tried for ever, and it must not vanish."""
    async with holdfast.open(state) as hf:
        input_id = await accept(hf)
        path = hf.store.state.transcript_path(KEY)  # pyright: ignore[reportAttributeAccessIssue]
        path.parent.mkdir(parents=True, exist_ok=True)
        ODD[what](path)
        view = await work_until_settled(hf, input_id)
        assert (view.state, view.error) == ("failed", "TranscriptFormatError")
        [delivery] = await hf.deliveries()
        assert "could not be answered" in delivery.body
        elsewhere = await work_until_settled(hf, await accept(hf, key=OTHER))
        assert elsewhere.state == "answered"


async def test_an_empty_file_becomes_a_transcript(state: Path) -> None:
    path = await place(state)
    path.touch()
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=1) as turn:
        await turn.append(holdfast.user("x"))
    assert [entry["type"] for entry in checks.entries(path)] == ["session", "message"]


async def test_a_transcript_of_another_program_is_extended_at_its_leaf(state: Path) -> None:
    path = await place(state)
    path.write_text(HEADER + "\n")
    outsider.append(str(path), "user", parent=None)
    outsider.append(str(path), "assistant")
    before = path.read_bytes()
    leaf = outsider.last_id(str(path))
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=1) as turn:
        assert len(await turn.context()) == 2
        await turn.append(holdfast.user("mine"))
    assert path.read_bytes().startswith(before)
    assert checks.entries(path)[-1]["parentId"] == leaf


async def test_a_torn_line_before_the_first_turn_is_closed_and_reported(state: Path) -> None:
    path = await place(state)
    path.write_text(HEADER + '\n{"type":"mess')
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY, wait_s=1)
        assert isinstance(turn, Turn)
        assert any("closed with a newline" in found for found in turn._owned.findings)
        await turn.append(holdfast.user("x"))
        await hf.close_turn(turn, None)
    assert [entry["type"] for entry in checks.entries(path)] == ["session", "custom", "custom", "message"]
    (original,) = path.parent.glob(f"{path.name}.original-*")
    assert original.read_text() == HEADER + '\n{"type":"mess\n'


# ── two keys, one file ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["hard link", "link inside the state"])
async def test_two_keys_of_one_file_share_one_turn(state: Path, how: str) -> None:
    other = await place(state, OTHER)
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1) as turn:
            await turn.append(holdfast.user("by its own name"))
            path = Path(turn.transcript.path)
        if how == "hard link":
            other.hardlink_to(path)
        else:
            other.symlink_to(path)
        held = await hf.claim(OTHER, wait_s=1)
        assert isinstance(held, Turn)
        assert len(await held.context()) == 1
        with pytest.raises(SessionBusyError):
            await hf.claim(KEY, wait_s=0)
        await held.append(holdfast.user("by the other"))
        await hf.close_turn(held, None)
        async with hf.turn(KEY, wait_s=5) as turn:
            async with turn.prompt_window() as window:
                pass
            assert window.verdict is not None
            assert window.verdict.kind == "unchanged"
        assert [checks.text_of(entry) for entry in checks.entries(path)[1:]] == ["by its own name", "by the other"]


# ── the clock ────────────────────────────────────────────────────────────────────────────────────────────────────────


class JumpingClock(SystemClock):
    """Wall time that a test sets; monotonic time goes on as it does."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(days=400), timedelta(days=-9000)])
async def test_a_clock_that_jumps_costs_nothing(state: Path, jump: timedelta) -> None:
    """Order, keys and claims rest on no wall clock; only what people read shows the jump."""
    clock = JumpingClock()
    async with holdfast.open(state, clock=clock) as hf:
        event = InboundEvent(KEY, {"content": "first"}, source="test", key="k")
        first = await hf.accept(event)
        assert isinstance(first, Accepted)
        turn = await hf.claim(KEY, wait_s=1, input_id=first.input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "first"}])
        second = await accept(hf, "second")
        clock.offset = jump
        assert await hf.accept(event) == Duplicate(first.input_id, "running")
        third = await accept(hf, "third")
        async with turn.prompt_window() as window:
            pass
        assert window.verdict is not None
        assert window.verdict.kind == "unchanged"
        await turn.append(holdfast.assistant("answer to first", model="demo/demo"))
        assert await hf.close_turn(turn, None) == "answered"
        assert await hf.accept(event) == Duplicate(first.input_id, "answered")
        for input_id in (second, third):
            assert (await work_until_settled(hf, input_id)).state == "answered"
        [path] = checks.transcripts(state)
        asked = [checks.text_of(entry) for entry in checks.entries(path)[1:]]
        assert asked[::2] == ["first", "second", "third"]
        assert (await hf.why(third)).state == "answered"
    async with holdfast.open(state) as hf:
        assert await hf.accept(event) == Duplicate(first.input_id, "answered")
    checks.check(state, accepted={first.input_id: "first", second: "second", third: "third"})
