"""A full disk, a read-only one, no more descriptors, short writes: real ones, made with mounts and limits."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import ResourceError
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.store.embedded.faults import Point
from holdfast.testing.faults import Trace, fail_at
from holdfast.turn.turn import Turn
from tests.faults import checks
from tests.faults.remote import RemoteError, Troupe

KEY = "agent:main:main"
ANSWER = "the answer"


class SmallDisk:
    """A file system of its own in memory, which can be filled to the last byte."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def mount(self, size: str) -> None:
        self._run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "holdfast-test", str(self.place))

    def remount(self, how: str) -> None:
        self._run("mount", "-o", f"remount,{how}", str(self.place))

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True)

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"not run: mount of a small file system ({done.stderr.strip()})")

    def fill(self) -> None:
        """Not a byte is free afterwards."""
        with (self.place / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def free(self) -> None:
        (self.place / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk")
    small.place.mkdir()
    try:
        yield small
    finally:
        small.unmount()


async def accept(hf: Holdfast, text: str = "question") -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": text}, route=Route("test", "alice")))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def begun(hf: Holdfast, input_id: str, text: str = "question") -> Turn:
    turn = await hf.claim(KEY, wait_s=5, input_id=input_id)
    assert isinstance(turn, Turn)
    await turn.append_input([{"role": "user", "content": text}])
    return turn


async def refusal(hf: Holdfast, text: str) -> str | None:
    """Why an input was not stored; None if it was."""
    try:
        await accept(hf, text)
    except ResourceError as exc:
        return str(exc)
    return None


async def answers(hf: Holdfast, text: str = "question") -> str:
    input_id = await accept(hf, text)
    turn = await begun(hf, input_id, text)
    await turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
    assert await hf.close_turn(turn, None) == "answered"
    return input_id


# ── a full disk ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_disk_too_small_for_a_state_is_refused_in_words(disk: SmallDisk) -> None:
    disk.mount("64k")
    with pytest.raises(ResourceError, match=r"full|No space left"):
        async with holdfast.open(disk.place / "state"):
            pass


@pytest.mark.promise("P3")
async def test_nothing_is_acknowledged_on_a_full_disk_and_life_goes_on_when_it_is_freed(disk: SmallDisk) -> None:
    disk.mount("2m")
    state = disk.place / "state"
    async with holdfast.open(state) as hf:
        first = await answers(hf)
        disk.fill()
        tried = [await refusal(hf, "x" * 2000 + str(number)) for number in range(20)]
        refused = sum(why is not None for why in tried)
        assert refused > 0
        assert all(why is None or "full" in why for why in tried)
        assert not hf.store.stopped
        stored = len(await hf.inputs())
        assert stored == 1 + 20 - refused
        disk.free()
        await accept(hf)
        assert (await hf.input(first)).answer == ANSWER
        assert len(await hf.inputs()) == stored + 1


@pytest.mark.promise("I2")
async def test_a_line_that_does_not_fit_leaves_nothing_behind_and_the_turn_goes_on_when_it_does(
    disk: SmallDisk,
) -> None:
    disk.mount("2m")
    async with holdfast.open(disk.place / "state", disk_patience_s=0.1) as hf:
        await answers(hf)
        input_id = await accept(hf)
        turn = await begun(hf, input_id)
        path = Path(turn.transcript.path)
        disk.fill()
        before = path.read_bytes()
        large = holdfast.assistant("x" * 20_000, model="demo/demo")
        for _ in range(2):
            with pytest.raises(ResourceError, match="No space left"):
                await turn.append(large)
            assert path.read_bytes() == before
        disk.free()
        await turn.append(large)
        assert await hf.close_turn(turn, None) == "answered"
        await answers(hf)
    checks.check(disk.place / "state", accepted={input_id: "question"})


@pytest.mark.promise("P2", "I5")
async def test_a_turn_that_the_full_disk_ends_is_explained_with_the_help_of_the_reserve(disk: SmallDisk) -> None:
    disk.mount("2m")
    async with holdfast.open(disk.place / "state", disk_patience_s=0.1) as hf:
        await answers(hf)
        input_id = await accept(hf)
        turn = await begun(hf, input_id)
        disk.fill()
        with pytest.raises(ResourceError) as full:
            await turn.append(holdfast.assistant("x" * 200_000, model="demo/demo"))
        assert await hf.close_turn(turn, full.value) == "failed"
        view = await hf.input(input_id)
        assert (view.state, view.error) == ("failed", "ResourceError")
        explained = [one.body for one in await hf.deliveries() if one.input_id == input_id]
        assert len(explained) == 1
        assert "No space left" in explained[0]
        assert "send it again" in explained[0]
        disk.free()
        await answers(hf)


async def test_a_final_line_that_fitted_is_settled_even_if_the_ledger_had_no_room_at_first(disk: SmallDisk) -> None:
    disk.mount("2m")
    state = disk.place / "state"
    async with holdfast.open(state) as hf:
        input_id = await accept(hf)
        turn = await begun(hf, input_id)
        await turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        disk.fill()
        settled = await hf.close_turn(turn, None)
        assert settled in ("answered", None)
        disk.free()
        view = await hf.wait_input(input_id, 10)
        assert (view.state, view.answer) == ("answered", ANSWER)
    checks.check(state, accepted={input_id: "question"})


async def test_a_session_cannot_be_begun_on_a_full_disk_and_can_be_afterwards(disk: SmallDisk) -> None:
    disk.mount("2m")
    async with holdfast.open(disk.place / "state") as hf:
        await answers(hf)
        input_id = await accept(hf)
        other = "agent:main:other"
        transcript = await hf.store.transcript_of(other)
        assert transcript
        disk.fill()
        with pytest.raises(ResourceError):
            await hf.claim(other, wait_s=1)
        disk.free()
        async with hf.turn(other, wait_s=5) as turn:
            await turn.append(holdfast.user("x"))
        turn = await begun(hf, input_id)
        await hf.close_turn(turn, None)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.EFBIG])
async def test_an_append_that_the_disk_refuses_for_a_moment_is_tried_again(state: Path, number: int) -> None:
    refusal = fail_at("append.after_intent", error=lambda: OSError(number, os.strerror(number)), nth=3, times=3)
    async with holdfast.open(state, faults=refusal) as hf:
        await answers(hf, "one")
        input_id = await answers(hf, "two")
        assert (await hf.input(input_id)).answer == ANSWER
    checks.check(state, accepted={input_id: "two"})
    (path,) = checks.transcripts(state)
    assert len(checks.entries(path)) == 5


async def test_an_append_that_cannot_succeed_is_not_tried_again(state: Path) -> None:
    passed = Trace()

    def refuse(point: Point) -> None:
        passed(point)
        if point == "append.after_intent":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with holdfast.open(state, faults=refuse) as hf:
        with pytest.raises(ResourceError, match="Read-only"):
            async with hf.turn(KEY) as turn:
                await turn.append(holdfast.user("x"))
    assert passed.points.count("append.after_intent") == 1


@pytest.mark.promise("P3", "I7")
async def test_a_failed_sync_is_final_even_for_a_reason_that_may_pass(state: Path) -> None:
    once = fail_at("transcript.before_sync", error=lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    async with holdfast.open(state, faults=once) as hf:
        turn = await hf.claim(KEY, wait_s=5)
        assert isinstance(turn, Turn)
        for _ in range(2):
            with pytest.raises(ResourceError, match="sync failed"):
                await turn.append(holdfast.user("x"), durable=True)


async def test_a_finished_answer_that_the_transcript_never_takes_is_kept_beside_it_and_delivered(state: Path) -> None:
    refusal = fail_at("append.after_intent", error=lambda: OSError(errno.EFBIG, "File too large"), nth=2, times=None)
    async with holdfast.open(state, faults=refusal, disk_patience_s=0.1) as hf:
        input_id = await accept(hf)
        turn = await begun(hf, input_id)
        with pytest.raises(ResourceError, match="File too large") as refused:
            await turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await hf.close_turn(turn, refused.value) == "superseded"
        view = await hf.input(input_id)
        assert (view.state, view.answer) == ("superseded", ANSWER)
        assert "kept in" in (view.detail or "")
        (told,) = await hf.deliveries()
        assert told.body.startswith(ANSWER)
        assert "kept beside it" in told.body
        (beside,) = Path(turn.transcript.path).parent.glob("*.kept-*")
        assert ANSWER in beside.read_text()


# ── read-only ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_read_only_state_is_refused_in_words(disk: SmallDisk) -> None:
    disk.mount("4m")
    async with holdfast.open(disk.place / "state") as hf:
        await answers(hf)
    disk.remount("ro")
    with pytest.raises(ResourceError, match=r"(?i)read-?only"):
        async with holdfast.open(disk.place / "state"):
            pass


async def test_a_new_state_on_a_read_only_disk_is_refused_in_words(disk: SmallDisk) -> None:
    disk.mount("4m")
    disk.remount("ro")
    with pytest.raises(ResourceError, match=r"(?i)read-?only"):
        async with holdfast.open(disk.place / "state"):
            pass


# ── descriptors ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_free_descriptor_running_turns_go_on_and_new_ones_are_refused_in_words(
    state: Path, processes: Troupe
) -> None:
    remote = await processes.start(state)
    await remote.call("claim", turn="t", session=KEY, wait_s=5)
    await remote.call("append", turn="t", kind="user", text="before")
    await remote.call("limit", what="RLIMIT_NOFILE", soft=await remote.call("open_files") + 1)
    await remote.call("append", turn="t", kind="user", text="during")
    await remote.call("check", turn="t")
    for number in range(3):
        with pytest.raises(RemoteError) as refused:
            await remote.call("claim", turn="x", session=f"agent:main:{number}", wait_s=1)
        assert "ResourceError" in refused.value.bases, refused.value
        assert "Too many open files" in refused.value.message
    await remote.call("settle", turn="t")
    await remote.call("limit", what="RLIMIT_NOFILE", soft=-1)
    for number in range(3):
        await remote.call("claim", turn=str(number), session=f"agent:main:{number}", wait_s=5)
        await remote.call("append", turn=str(number), kind="user", text="after")
        await remote.call("settle", turn=str(number))
    await remote.call("close")
    async with holdfast.open(state) as hf:
        assert len(await hf.sessions()) == 4
    for path in checks.transcripts(state):
        checks.check_transcript(checks.entries(path))


async def test_more_sessions_than_descriptors_can_be_used_one_after_the_other(state: Path, processes: Troupe) -> None:
    """Transcripts that nobody uses are closed again: the usual 256 to 1,024 descriptors are no limit of sessions."""
    remote = await processes.start(state)
    await remote.call("limit", what="RLIMIT_NOFILE", soft=400)
    for number in range(150):
        await remote.call("claim", turn="t", session=f"agent:main:{number}", wait_s=5)
        await remote.call("append", turn="t", kind="user", text="x")
        await remote.call("settle", turn="t")


# ── short writes ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_short_write_is_taken_back(state: Path, processes: Troupe) -> None:
    """A limit on the size of files cuts the write in the middle of a line."""
    remote = await processes.start(state, disk_patience_s=0.1)
    turn: dict[str, Any] = await remote.call("claim", turn="t", session=KEY, wait_s=5)
    path = Path(turn["path"])
    await remote.call("append", turn="t", kind="user", text="x" * 4_000_000)  # more than the ledger has
    for more in (1, 10, 100):
        before = path.read_bytes()
        await remote.call("limit", what="RLIMIT_FSIZE", soft=len(before) + more)
        with pytest.raises(RemoteError) as refused:
            await remote.call("append", turn="t", kind="user", text="does not fit")
        assert refused.value.bases[0] == "ResourceError", refused.value
        assert path.read_bytes() == before
        await remote.call("limit", what="RLIMIT_FSIZE", soft=-1)
        await remote.call("append", turn="t", kind="user", text="fits")
    await remote.call("settle", turn="t")
    checks.check_transcript(checks.entries(path))
