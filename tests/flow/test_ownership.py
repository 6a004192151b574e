"""One owner at a time (P1): tasks, threads and processes that want the same session, and owners that die or freeze."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import threading
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import (
    ResourceError,
    SessionBusyError,
    SessionWriteLockTimeoutError,
    WaitRingError,
)
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.session.ownership import Busy
from holdfast.turn.turn import Turn
from tests.faults import checks, outsider
from tests.faults.remote import GoneError, Remote, RemoteError, Troupe
from tests.flow.clocks import PATIENCE_S, OnlyWoken

KEY = "agent:main:main"
OTHER = "agent:main:other"
SHORT: dict[str, Any] = {"beat_s": 0.05, "beat_term_s": 0.5}


def opened(state: Path, **how: Any) -> AbstractAsyncContextManager[Holdfast]:
    return holdfast.open(state, clock=OnlyWoken(), **how)


async def claimed(hf: Holdfast, key: str = KEY, *, wait_s: float = 10, **how: Any) -> Turn:
    turn = await hf.claim(key, wait_s=wait_s, **how)
    assert isinstance(turn, Turn)
    return turn


async def accept(hf: Holdfast, text: str = "question") -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": text}, route=Route("test", "alice")))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def stands_in_line(hf: Holdfast, key: str = KEY) -> None:
    """Until a claim of this process has a place in the session's line, behind somebody else's turn."""
    transcript = await hf.store.transcript_of(key)
    files = hf.store._files  # pyright: ignore[reportAttributeAccessIssue]
    while transcript not in files or not files[transcript].line._line:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)


async def works(hf: Holdfast, key: str = KEY) -> None:
    """The session can be claimed and extended."""
    async with hf.turn(key, wait_s=5) as turn:
        await turn.append(holdfast.user("still here"))


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in Path(path).read_bytes().splitlines()]


# ── never two at once ────────────────────────────────────────────────────────────────────────────────────────────────


async def count(hf: Holdfast, counter: Path, times: int) -> None:
    for _ in range(times):
        async with hf.turn(KEY, wait_s=25) as turn:
            number = int(counter.read_text())
            await turn.append(holdfast.custom("count", number))
            counter.write_text(str(number + 1))


@pytest.mark.promise("P1", "I3")
async def test_tasks_threads_and_processes_never_own_a_session_at_once(
    state: Path, tmp_path: Path, processes: Troupe
) -> None:
    """Each reads a number, waits, and writes it back plus one; if two were in at once, one addition is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    async def in_thread() -> None:
        async with holdfast.open(state) as hf:
            await count(hf, counter, 8)

    threads = [threading.Thread(target=lambda: asyncio.run(in_thread())) for _ in range(2)]
    others = [await processes.start(state) for _ in range(2)]
    async with holdfast.open(state) as hf:
        asked = [other.ask("count", session=KEY, path=str(counter), times=8) for other in others]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(count(hf, counter, 8) for _ in range(3)), *asked)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert int(counter.read_text()) == 8 * (3 + 2 + 2)
        epochs = [turn.epoch for turn in reversed(await hf.turns(limit=100))]
        assert sorted(epochs) == list(range(1, 57))
        counted = [entry["data"] for entry in lines(await path_of(hf)) if entry["type"] == "custom"]
        assert counted == list(range(56))


async def path_of(hf: Holdfast, key: str = KEY) -> str:
    path = await hf.session(key).path()
    assert path is not None
    return path


# ── a holder that dies ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_death_of_a_holder_wakes_the_next_in_line(state: Path, processes: Troupe) -> None:
    """Prints how long it took from SIGKILL to the claim; asserts against hangs only."""
    took_ms: list[float] = []
    async with opened(state) as hf:
        for _ in range(6):
            holder = await processes.start(state)
            await holder.call("claim", turn="t", session=KEY, wait_s=5)
            await holder.call("append", turn="t", kind="user", text="x")
            waiter = asyncio.create_task(claimed(hf))
            await stands_in_line(hf)
            began = time.monotonic()
            os.kill(holder.pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                turn = await waiter
            took_ms.append((time.monotonic() - began) * 1000)
            assert turn._owned.took_over
            await hf.close_turn(turn, None)
    print(f"SIGKILL to the next claim: p50 {statistics.median(took_ms):.1f} ms, max {max(took_ms):.1f} ms")


async def test_a_handle_that_is_closed_with_a_turn_open_gives_the_session_up(state: Path) -> None:
    """Within a process as between processes: what is closed is gone, and nobody waits for its beat."""
    async with holdfast.open(state) as hf:
        await claimed(hf)
    async with holdfast.open(state) as hf:
        await works(hf)


async def test_an_orderly_end_leaves_no_sentinel(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    async with holdfast.open(state) as hf:
        await works(hf)
    await one.call("close")
    assert list((state / "processes").iterdir()) == []


async def test_a_state_that_is_never_left_alone_keeps_no_sentinels_of_those_who_died_owning_nothing(
    state: Path, processes: Troupe
) -> None:
    """Each opening probes them all: thousands of kills beside a gateway would make it slow."""
    owner = await processes.start(state)
    await owner.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state) as hf:
        for _ in range(4):
            died = await processes.start(state)
            await died.kill()
        await owner.kill()
        last = await processes.start(state)
        kept = {path.name for path in (state / "processes").iterdir()}
        assert len(kept) == 3  # ours, the last one's, and that of the dead owner, who must be proven dead
        assert hf.process_id in kept
        await works(hf)
        await last.kill()


# ── a holder that freezes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def frozen(state: Path, processes: Troupe) -> Remote:
    """A process stopped in the prompt window of a turn that answers the first accepted input."""
    holder = await processes.start(state, **SHORT)
    accepted = await holder.call("accept", session=KEY, text="question", route="alice")
    await holder.call("claim", turn="t", session=KEY, wait_s=5, input_id=accepted["id"])
    await holder.call("append_input", turn="t")
    await holder.call("enter", turn="t")
    await holder.stop()
    return holder


@pytest.mark.promise("P1", "I3", "I5")
async def test_a_stopped_holder_loses_its_turn_after_the_term_and_nothing_else(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        first = await claimed(hf)
        assert first._owned.took_over
        await hf.close_turn(first, None)
        [view] = await hf.inputs()
        assert view.state == "queued"
        again = await claimed(hf, input_id=view.id)
        await again.append_input([{"role": "user", "content": "question"}])
        await again.append(holdfast.assistant("the second answer", model="demo/demo"))
        assert await hf.close_turn(again, None) == "answered"
        path = Path(await path_of(hf))
        before = path.read_bytes()

        frozen.cont()
        for do in ("append", "check"):
            how = {"kind": "user", "text": "late"} if do == "append" else {}
            with pytest.raises(RemoteError) as refused:
                await frozen.call(do, turn="t", **how)
            assert "OwnershipLostError" in refused.value.bases
        assert path.read_bytes() == before
        with pytest.raises(RemoteError) as refused:
            await frozen.call("leave", turn="t", finished="the first answer")
        assert "OwnershipLostError" in refused.value.bases
        assert await frozen.call("settle", turn="t") == "answered"

        view = await hf.input(view.id)
        assert (view.state, view.answer) == ("answered", "the second answer")
        assert [one.body for one in await hf.deliveries()] == ["the second answer"]
        said = [entry["message"]["role"] for entry in lines(str(path)) if entry["type"] == "message"]
        assert said == ["user", "assistant"]
        kept = [entry for entry in lines(str(path)) if entry["type"] == "custom"]
        assert [entry["data"]["text"] for entry in kept] == ["the first answer"]
        await works(hf)


@pytest.mark.promise("P1")
async def test_a_stopped_holder_that_was_taken_over_is_told_by_whom(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        turn = await claimed(hf)
        frozen.cont()
        with pytest.raises(RemoteError) as refused:
            await frozen.call("append", turn="t", kind="user", text="late")
        assert refused.value.bases[0] == "SessionTakeoverError"
        assert refused.value.verdict is not None
        assert refused.value.verdict["kind"] == "superseded"
        assert turn.id in refused.value.verdict["by"]
        await hf.close_turn(turn, None)


async def test_while_a_lost_holder_stays_stopped_the_session_goes_on(state: Path, frozen: Remote) -> None:
    """It still keeps the session's line, which is courtesy: whoever comes takes the claim without it."""
    async with holdfast.open(state, **SHORT) as hf:
        for _ in range(3):
            turn = await claimed(hf)
            await turn.append(holdfast.user("x"))
            await hf.close_turn(turn, None)
        [view] = await hf.inputs(state="queued")
        turn = await claimed(hf, input_id=view.id, wait_s=0)
        await hf.close_turn(turn, None)


async def test_an_untaken_turn_of_a_stopped_holder_is_still_good(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        await asyncio.sleep(0.8)  # more than the term, in which nobody asks for the session
        frozen.cont()
        assert await frozen.call("leave", turn="t") == {"kind": "unchanged", "detail": "", "by": None}
        await frozen.call("append", turn="t", kind="assistant", text="the answer")
        assert await frozen.call("settle", turn="t") == "answered"
        await works(hf)


@pytest.mark.promise("P1", "I3")
async def test_a_former_owner_cannot_write_after_the_record_vanished(state: Path, frozen: Remote) -> None:
    """Its own record file, still open, calls it the owner; the ledger knows better."""
    async with holdfast.open(state, **SHORT) as hf:
        for file in (state / "fence").iterdir():
            file.unlink()
        turn = await claimed(hf)
        await turn.append(holdfast.user("mine"))
        before = Path(turn.transcript.path).read_bytes()
        frozen.cont()
        with pytest.raises(RemoteError) as refused:
            await frozen.call("append", turn="t", kind="user", text="late")
        assert "OwnershipLostError" in refused.value.bases
        assert Path(turn.transcript.path).read_bytes() == before
        await turn.append(holdfast.user("mine too"))
        await hf.close_turn(turn, None)


async def test_a_blocked_event_loop_loses_nothing(state: Path, processes: Troupe) -> None:
    """The loop's thread stands for more than the term; the beats come from another thread."""
    holder = await processes.start(state, **SHORT)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state, **SHORT) as hf:
        waiter = asyncio.create_task(claimed(hf))
        await stands_in_line(hf)
        await holder.call("block_loop", seconds=2.2)
        assert not waiter.done()
        await holder.call("append", turn="t", kind="user", text="x")
        await holder.call("settle", turn="t")
        turn = await waiter
        assert not turn._owned.took_over
        await hf.close_turn(turn, None)


async def test_a_call_that_no_thread_can_interrupt_loses_nothing_if_it_is_shorter_than_the_term(
    state: Path, processes: Troupe
) -> None:
    term: dict[str, Any] = {"beat_s": 0.05, "beat_term_s": 20.0}
    holder = await processes.start(state, **term)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state, **term) as hf:
        waiter = asyncio.create_task(claimed(hf))
        await stands_in_line(hf)
        assert await holder.call("hold_gil", seconds=0.3) > 0.3
        assert not waiter.done()
        await holder.call("append", turn="t", kind="user", text="x")
        await holder.call("settle", turn="t")
        await hf.close_turn(await waiter, None)


@pytest.mark.promise("P5")
async def test_a_live_owner_keeps_its_turn_when_the_fence_folder_vanishes(state: Path, processes: Troupe) -> None:
    """A process that opens the new, empty record sees no beat unless the owner makes the file again."""
    holder = await processes.start(state, **SHORT)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    for file in (state / "fence").iterdir():
        file.unlink()
    async with holdfast.open(state, **SHORT) as hf:
        with pytest.raises(SessionBusyError):
            await hf.claim(KEY, wait_s=3)
        await holder.call("append", turn="t", kind="user", text="x")
        await holder.call("settle", turn="t")
        await works(hf)


# ── inside the write lock ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("I9")
async def test_a_process_stopped_inside_the_write_lock_blocks_others_only_for_the_bounded_wait(
    state: Path, processes: Troupe
) -> None:
    holder = await processes.start(state)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state, acquire_timeout_ms=200) as hf:
        await hf.session(KEY).append_metadata(holdfast.session_info("before"))
        await holder.call("arm", point="append.after_write", act="stop")
        writing = holder.ask("append", turn="t", kind="user", text="x")
        assert await holder.event() == "at append.after_write"
        with pytest.raises(SessionWriteLockTimeoutError) as blocked:
            await hf.session(KEY).append_metadata(holdfast.session_info("during"))
        for word in (f"pid={holder.pid}", "stopped", "kill -CONT", "timeout 200ms"):
            assert word in str(blocked.value)
        input_id = await accept(hf)  # inputs are stored all the same
        with pytest.raises(SessionBusyError) as busy:
            await hf.claim(KEY, wait_s=0.2)
        assert f"pid {holder.pid}" in str(busy.value)
        holder.cont()
        await writing
        await hf.session(KEY).append_metadata(holdfast.session_info("after"))
        await holder.call("settle", turn="t")
        assert (await hf.input(input_id)).state == "queued"
        turn = await claimed(hf, input_id=input_id)
        await hf.close_turn(turn, None)
        names = [entry.get("name") for entry in lines(turn.transcript.path) if entry["type"] == "session_info"]
        assert names == ["before", "after"]


@pytest.mark.promise("I9")
async def test_a_process_killed_inside_the_write_lock_blocks_nobody(state: Path, processes: Troupe) -> None:
    holder = await processes.start(state)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    await holder.call("arm", point="append.after_write", act="stop")
    writing = holder.ask("append", turn="t", kind="user", text="x")
    await holder.event()
    async with holdfast.open(state) as hf:
        waiter = asyncio.create_task(claimed(hf))
        await stands_in_line(hf)
        await holder.kill()
        turn = await waiter
        await hf.close_turn(turn, None)
        assert [entry["type"] for entry in lines(turn.transcript.path)] == ["session", "message"]
        await works(hf)
    with pytest.raises(GoneError):
        await writing


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P1")
async def test_a_forked_child_owns_nothing_and_hides_no_death(state: Path, processes: Troupe) -> None:
    holder = await processes.start(state)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    child = await holder.call("fork_and_append", turn="t")
    try:
        assert child["met"] == "OwnershipLostError"
        await holder.call("append", turn="t", kind="user", text="the parent goes on")
        async with opened(state) as hf:
            waiter = asyncio.create_task(claimed(hf))
            await stands_in_line(hf)
            await holder.kill()
            os.kill(child["pid"], 0)  # the child lives
            async with asyncio.timeout(PATIENCE_S):
                turn = await waiter
            assert turn._owned.took_over
            await hf.close_turn(turn, None)
            await works(hf)
    finally:
        os.kill(child["pid"], signal.SIGKILL)


# ── rings, slots, widths ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_that_would_wait_for_itself_is_refused_at_once(state: Path) -> None:
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=1) as turn:
        with pytest.raises(WaitRingError):
            await hf.claim(KEY, wait_s=3600)
        async with hf.turn(OTHER, wait_s=1):
            with pytest.raises(WaitRingError):  # through its child
                await hf.claim(KEY, wait_s=3600)
        await turn.append(holdfast.user("x"))


@pytest.mark.promise("I9")
async def test_two_turns_in_two_processes_that_would_wait_for_each_other_are_refused(
    state: Path, processes: Troupe
) -> None:
    other = await processes.start(state)
    await other.call("claim", turn="theirs", session=OTHER, wait_s=5)
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1):
            ours = asyncio.create_task(hf.claim(OTHER, wait_s=20))
            await stands_in_line(hf, OTHER)
            with pytest.raises(RemoteError) as refused:
                await other.call("claim", turn="more", session=KEY, parent="theirs", wait_s=20)
            assert refused.value.bases[0] == "WaitRingError"
            await other.call("settle", turn="theirs")
            nested = await ours
            assert isinstance(nested, Turn)
            await hf.close_turn(nested, None)
        await works(hf)


async def test_a_turn_that_waits_for_another_lends_its_slot(state: Path) -> None:
    limits = LaneLimits(widths={"narrow": 1})
    async with holdfast.open(state, limits=limits) as hf:
        async with hf.turn(KEY, lane="narrow", wait_s=1), hf.turn(OTHER, lane="narrow", wait_s=5) as nested:
            await nested.append(holdfast.user("x"))
        await works(hf)


async def test_widths_count_across_processes_and_are_given_back_by_the_dead(state: Path, processes: Troupe) -> None:
    widths = {"narrow": 2}
    one, two = await processes.start(state, widths=widths), await processes.start(state, widths=widths)
    await one.call("claim", turn="t", session="agent:main:one", lane="narrow", wait_s=5)
    await two.call("claim", turn="t", session="agent:main:two", lane="narrow", wait_s=5)
    async with holdfast.open(state, limits=LaneLimits(widths=widths)) as hf:
        with pytest.raises(SessionBusyError, match="lane 'narrow': 2 of 2 slots taken"):
            await hf.claim(KEY, lane="narrow", wait_s=0.3)
        await one.call("settle", turn="t")
        first = await claimed(hf, lane="narrow")
        waiter = asyncio.create_task(claimed(hf, OTHER, lane="narrow"))
        await asyncio.sleep(0)
        await two.kill()
        second = await waiter
        for turn in (first, second):
            await hf.close_turn(turn, None)


@pytest.mark.promise("P1", "P2")
async def test_an_input_is_run_by_one_of_many(state: Path, processes: Troupe) -> None:
    """Everybody claims the same input; one gets it, the others are told that it is taken or gone."""
    others = [await processes.start(state) for _ in range(2)]
    async with holdfast.open(state) as hf:
        for _ in range(5):
            input_id = await accept(hf)
            asked = [other.ask("claim", turn=input_id, session=KEY, wait_s=0, input_id=input_id) for other in others]
            mine = await asyncio.gather(*(hf.claim(KEY, wait_s=0, input_id=input_id) for _ in range(2)))
            theirs = await asyncio.gather(*asked, return_exceptions=True)
            granted = [one for one in mine if isinstance(one, Turn)]
            elsewhere = [
                other for other, got in zip(others, theirs, strict=True) if isinstance(got, dict) and "id" in got
            ]
            assert len(granted) + len(elsewhere) == 1
            for turn in granted:
                await turn.append(holdfast.assistant("a", model="demo/demo"))
                assert await hf.close_turn(turn, None) == "answered"
            for other in elsewhere:
                await other.call("append", turn=input_id, kind="assistant", text="a")
                assert await other.call("settle", turn=input_id) == "answered"
            gone = await hf.claim(KEY, wait_s=0, input_id=input_id)
            assert isinstance(gone, Busy)
            assert gone.why == "gone"


@pytest.mark.promise("P9")
async def test_whoever_meets_a_live_owner_leaves_its_transcript_alone(state: Path, processes: Troupe) -> None:
    """Without the line (its file was cleaned away) the claim itself says no, before it looks at a byte of the file."""
    holder = await processes.start(state)
    turn = await holder.call("claim", turn="t", session=KEY, wait_s=5)
    await holder.call("append", turn="t", kind="user", text="not synced")
    for file in (state / "fence").glob("*.line"):
        file.unlink()
    path = Path(turn["path"])
    outsider.append_bytes(str(path), '{"torn')
    before = path.stat()
    async with holdfast.open(state) as hf:
        with pytest.raises(SessionBusyError, match=turn["id"]):
            await hf.claim(KEY, wait_s=0)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    with pytest.raises(RemoteError, match="tampered"):
        await holder.call("check", turn="t")
    await holder.call("settle", turn="t")


async def test_a_loop_stays_free_while_the_ledger_has_to_say_who_owns(state: Path, processes: Troupe) -> None:
    """The record has vanished, so the ledger decides; a stopped process keeps that busy for a while."""
    other = await processes.start(state)
    async with holdfast.open(state, acquire_timeout_ms=2000) as hf:
        turn = await claimed(hf)
        await other.call("arm", point="ledger.before_commit", act="stop")
        theirs = other.ask("accept", session=OTHER, text="x")
        await other.event()
        for file in (state / "fence").iterdir():
            file.unlink()
        looking = asyncio.create_task(turn.inspect())
        rounds = 0
        while not looking.done():
            await asyncio.sleep(0.005)
            rounds += 1
        assert rounds > 10, "two seconds are room for hundreds; a loop that waits itself makes one or two"
        with pytest.raises(ResourceError, match="locked"):
            await looking
        other.cont()
        await theirs
        assert (await turn.inspect()).kind in ("unchanged", "adopted")
        await hf.close_turn(turn, None)


async def test_the_wait_of_a_process_that_died_is_forgotten_with_its_turn(state: Path, processes: Troupe) -> None:
    waiter = await processes.start(state)
    async with holdfast.open(state) as hf:
        holder = await claimed(hf)
        await waiter.call("claim", turn="parent", session=OTHER, wait_s=5)
        waiting = waiter.ask("claim", turn="child", session=KEY, parent="parent", wait_s=20)
        while not checks.rows(state, "select * from waits"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # another process does it
        await waiter.kill()
        with pytest.raises(GoneError):
            await waiting
        await works(hf, OTHER)
        assert checks.rows(state, "select * from waits") == []
        await hf.close_turn(holder, None)


# ── kept answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P2", "I5")
async def test_a_kept_answer_settles_an_input_that_nobody_has_taken_again(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        await hf.close_turn(await claimed(hf), None)  # takes over, and puts the input back in its place
        frozen.cont()
        with pytest.raises(RemoteError):
            await frozen.call("leave", turn="t", finished="the first answer")
        assert await frozen.call("settle", turn="t") == "superseded"
        [view] = await hf.inputs()
        assert (view.state, view.answer) == ("superseded", "the first answer")
        [delivery] = await hf.deliveries()
        assert delivery.body.startswith("the first answer\n\n(The conversation had moved on")
        assert isinstance(await hf.claim(KEY, wait_s=0, input_id=view.id), Busy)


@pytest.mark.promise("P2", "P4")
async def test_a_kept_answer_goes_out_if_the_attempt_that_followed_fails(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        await hf.close_turn(await claimed(hf), None)
        [view] = await hf.inputs()
        again = await claimed(hf, input_id=view.id)
        frozen.cont()
        with pytest.raises(RemoteError):
            await frozen.call("leave", turn="t", finished="the first answer")
        assert await frozen.call("settle", turn="t") == "running"
        assert await hf.deliveries() == []
        await hf.close_turn(again, RuntimeError("the second attempt fails"))
        view = await hf.input(view.id)
        assert view.answer == "the first answer"
        [delivery] = await hf.deliveries()
        assert delivery.body.startswith("the first answer")
        assert "moved on" in delivery.body


async def test_what_an_unfinished_lost_turn_had_to_say_is_not_delivered(state: Path, frozen: Remote) -> None:
    async with holdfast.open(state, **SHORT) as hf:
        await hf.close_turn(await claimed(hf), None)
        frozen.cont()
        with pytest.raises(RemoteError):
            await frozen.call("leave", turn="t")
        assert await frozen.call("settle", turn="t") == "queued"
        [view] = await hf.inputs()
        assert view.state == "queued"
        assert await hf.deliveries() == []


# ── limits of a turn, many at once ───────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_past_its_longest_time_is_renewed_no_more(state: Path, processes: Troupe) -> None:
    holder = await processes.start(state, **SHORT, turn_max_s=0.1)
    await holder.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state, **SHORT) as hf:
        turn = await claimed(hf)
        assert turn._owned.took_over
        with pytest.raises(RemoteError, match="superseded"):
            await holder.call("append", turn="t", kind="user", text="late")
        await hf.close_turn(turn, None)


async def test_many_sessions_are_used_at_once(state: Path) -> None:
    """More than are kept open when idle."""
    async with holdfast.open(state, limits=LaneLimits(widths={"main": 200})) as hf:
        inside = asyncio.Barrier(90)

        async def use(number: int) -> None:
            async with hf.turn(f"agent:main:{number}", wait_s=30) as turn:
                await turn.append(holdfast.user("x"))
                await inside.wait()
                async with turn.prompt_window() as window:
                    await hf.session(f"agent:main:{number}").append_metadata(holdfast.session_info("y"))
                assert window.verdict is not None
                assert window.verdict.kind == "advanced"

        for _ in range(2):
            await asyncio.gather(*(use(number) for number in range(90)))
    for path in checks.transcripts(state):
        entries = checks.entries(path)
        checks.check_transcript(entries)
        assert [entry["type"] for entry in entries] == ["session", *["message", "session_info"] * 2]
