"""Waits that come to nothing leave nothing behind: cancelled at each of their awaits, timed out, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import SessionBusyError, StoreStoppedError, WaitRingError
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.session.ownership import Busy
from holdfast.store.sql.ledger import Job
from holdfast.turn.turn import Turn, current_turn
from tests.flow.clocks import PATIENCE_S, OnlyWoken

KEY = "agent:main:main"
OTHER = "agent:main:other"
AWAITS_MAX = 60
"""More than any of these waits has; reaching it means that the last one was never let finish."""


def opened(state: Path, **how: Any) -> AbstractAsyncContextManager[Holdfast]:
    return holdfast.open(state, clock=OnlyWoken(), **how)


class CutOff:
    """Runs a coroutine and cancels its task at its n-th await (0 is the first), as `Task.cancel` does."""

    def __init__(self, inner: Coroutine[Any, Any, Any], at: int) -> None:
        self._inner = inner
        self._at = at
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task, loop, awaits = asyncio.current_task(), asyncio.get_running_loop(), 0
        assert task is not None
        value: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                waited_for = self._inner.send(value) if thrown is None else self._inner.throw(thrown)
            except StopIteration as done:
                return done.value
            if awaits == self._at:
                self.reached = True
                loop.call_soon(task.cancel)
            awaits += 1
            value, thrown = None, None
            try:
                value = yield waited_for
            except BaseException as exc:
                thrown = exc


async def cut_off(act: Callable[[], Coroutine[Any, Any, Any]], at: int) -> tuple[bool, Any]:
    """(whether it was cancelled at its n-th await, what it returned or raised)."""
    cut = CutOff(act(), at)

    async def run() -> Any:
        return await cut

    task = asyncio.create_task(run())
    [result] = await asyncio.gather(task, return_exceptions=True)
    return cut.reached, result


async def ledger(hf: Holdfast, sql: str) -> list[tuple[Any, ...]]:
    """A look at the ledger behind everything that was handed to it so far."""
    writer = hf.store.writer  # pyright: ignore[reportAttributeAccessIssue]
    return [tuple(row) for row in await writer.submit(Job(lambda conn: conn.execute(sql).fetchall()))]


async def accept(hf: Holdfast) -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": "question"}))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def leaves_no_trace(hf: Holdfast, *, owned: int = 0) -> None:
    """No wait, no slot lent, no claim but those that should be there, nothing in memory that keeps a file open."""
    assert await ledger(hf, "select * from waits") == []
    assert await ledger(hf, "select id from transcripts where owner_lent<>0") == []
    assert await ledger(hf, "select count(*) from transcripts where owner_turn is not null") == [(owned,)]


async def claims_at_once(hf: Holdfast, key: str = KEY, **how: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):  # nobody looks again (`opened`): it is there, or whoever waits is woken
        turn = await hf.claim(key, wait_s=5, **how)
    assert isinstance(turn, Turn)
    await turn.append(holdfast.user("x"))
    await hf.close_turn(turn, None)
    [file] = [one for one in hf.store._files.values() if str(one.path) == turn.transcript.path]  # pyright: ignore[reportAttributeAccessIssue]
    assert file.users == 0


async def every_await(
    act: Callable[[], Coroutine[Any, Any, Any]], after: Callable[[Any], Coroutine[Any, Any, None]]
) -> int:
    """Cut `act` off at its first await, then at its second, until it gets through. Returns how many awaits it had."""
    for at in range(AWAITS_MAX):
        was_cut, result = await cut_off(act, at)
        await after(result)
        if not was_cut:
            return at
    raise AssertionError(f"more than {AWAITS_MAX} awaits")


async def give_up(hf: Holdfast, result: Any) -> None:
    if isinstance(result, Turn):
        await hf.close_turn(result, None)


# ── cancelled ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_claim_of_a_free_session_can_be_cancelled_anywhere(state: Path) -> None:
    """Sessions that are new, in processes that never had them, so that each step of the way is taken anew."""
    for at in range(AWAITS_MAX):
        key = f"agent:main:test:direct:{at}"
        async with opened(state) as hf:
            was_cut, result = await cut_off(lambda hf=hf, key=key: hf.claim(key, wait_s=5), at)
            await give_up(hf, result)
            await claims_at_once(hf, key)
            await leaves_no_trace(hf)
        if not was_cut:
            assert at > 1
            return
    raise AssertionError("never got through")


@pytest.mark.parametrize("nested", [False, True])
async def test_a_wait_for_somebody_elses_turn_can_be_cancelled_anywhere(state: Path, nested: bool) -> None:
    """The holder leaves while we wait; each of the awaits before, during and after is cut once."""
    async with opened(state) as hf:
        parent = await hf.claim(OTHER, wait_s=1) if nested else None
        holder = await hf.claim(KEY, wait_s=5)

        async def contend() -> Any:
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(give_up(hf, holder)))
            token = current_turn.set(parent.id if isinstance(parent, Turn) else None)
            try:
                return await hf.claim(KEY, wait_s=5)
            finally:
                current_turn.reset(token)

        async def after(result: Any) -> None:
            nonlocal holder
            await give_up(hf, result)
            await give_up(hf, holder)
            await leaves_no_trace(hf, owned=1 if nested else 0)
            await claims_at_once(hf)
            holder = await hf.claim(KEY, wait_s=5)

        assert await every_await(contend, after) >= (3 if nested else 2)
        for turn in (holder, parent):
            await give_up(hf, turn)


async def test_a_claim_of_an_input_can_be_cancelled_anywhere_and_charges_nothing(state: Path) -> None:
    async with opened(state) as hf:
        input_id = await accept(hf)

        async def claim() -> Any:
            return await hf.claim(KEY, wait_s=5, input_id=input_id)

        async def after(result: Any) -> None:
            if isinstance(result, Turn):
                await hf.store.requeue(result._owned, "test", charge=False)
                hf._live.pop(result.id)
            await leaves_no_trace(hf)
            assert await ledger(hf, "select state, charged, epoch_nonce from inputs") == [("queued", 0, "")]

        await every_await(claim, after)
        turn = await hf.claim(KEY, wait_s=5, input_id=input_id)
        assert isinstance(turn, Turn)
        await turn.append(holdfast.assistant("a", model="demo/demo"))
        assert await hf.close_turn(turn, None) == "answered"


async def test_a_claim_that_has_to_wait_for_the_write_lock_can_be_cancelled_anywhere(state: Path) -> None:
    """The lock is held from the side until the claim stands in line for it."""
    async with opened(state) as hf, opened(state) as beside:
        await claims_at_once(hf)
        await claims_at_once(beside)
        [file] = beside.store._files.values()  # pyright: ignore[reportAttributeAccessIssue]
        assert file.try_hold()
        held = True

        def let_go() -> None:
            nonlocal held
            if held:
                file.release()
                held = False

        async def claim() -> Any:
            asyncio.get_running_loop().call_later(0.02, let_go)
            return await hf.claim(KEY, wait_s=5)

        async def after(result: Any) -> None:
            nonlocal held
            let_go()
            await give_up(hf, result)
            while await ledger(hf, "select id from transcripts where owner_turn is not null"):  # noqa: ASYNC110
                await asyncio.sleep(0)  # the claim that came too late is being given back; nobody is told
            await claims_at_once(beside)
            held = file.try_hold()
            assert held

        await every_await(claim, after)
        let_go()


async def test_an_append_can_be_cancelled_anywhere_and_repeated(state: Path) -> None:
    async with opened(state) as hf:
        turn = await hf.claim(KEY, wait_s=5)
        assert isinstance(turn, Turn)
        entry = holdfast.user("once")
        for at in range(AWAITS_MAX):
            was_cut, _ = await cut_off(lambda entry=entry: turn.append(entry, durable=True), at)
            line = await turn.append(entry)
            said = [one.id for one in await hf.session(KEY).lines() if one.type == "message"]
            assert said.count(line) == 1
            assert len(said) == at + 1
            if not was_cut:
                break
            entry = holdfast.user(f"once {at}")
        await hf.close_turn(turn, None)
        await claims_at_once(hf)


async def test_the_end_of_a_turn_can_be_cancelled_anywhere(state: Path) -> None:
    """A body that has ended settles whether or not somebody still waits for it."""
    async with opened(state) as hf:
        for at in range(AWAITS_MAX):
            input_id = await accept(hf)
            turn = await hf.claim(KEY, wait_s=5, input_id=input_id)
            assert isinstance(turn, Turn)
            await turn.append(holdfast.assistant("a", model="demo/demo"))
            was_cut, _ = await cut_off(lambda turn=turn: hf.close_turn(turn, None), at)
            await leaves_no_trace(hf)
            view = await hf.input(input_id)
            assert (view.state, view.answer) == ("answered", "a")
            await claims_at_once(hf)
            if not was_cut:
                break


async def test_a_turn_of_the_library_whose_body_is_cancelled_gives_the_session_up(state: Path) -> None:
    async with opened(state) as hf:
        inside = asyncio.Event()

        async def body() -> None:
            async with hf.turn(KEY, wait_s=5) as turn:
                await turn.append(holdfast.user("x"))
                async with turn.prompt_window():
                    inside.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await leaves_no_trace(hf)
        await claims_at_once(hf)


# ── timed out, refused ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_wait_that_times_out_names_the_holder_and_leaves_no_trace(state: Path) -> None:
    async with opened(state) as hf:
        holder = await hf.claim(KEY, wait_s=5)
        assert isinstance(holder, Turn)
        for wait_s in (0, 0.05):
            with pytest.raises(SessionBusyError, match=holder.id):
                await hf.claim(KEY, wait_s=wait_s)
        await leaves_no_trace(hf, owned=1)
        await hf.close_turn(holder, None)
        await claims_at_once(hf)


async def test_a_nested_wait_that_times_out_or_is_refused_leaves_no_trace(state: Path) -> None:
    async with opened(state) as hf, opened(state) as beside:
        elsewhere = await beside.claim(OTHER, wait_s=1)
        assert isinstance(elsewhere, Turn)
        async with hf.turn(KEY, wait_s=5):
            with pytest.raises(SessionBusyError):
                await hf.claim(OTHER, wait_s=0.05)
            with pytest.raises(WaitRingError):
                await hf.claim(KEY, wait_s=5)
            await leaves_no_trace(hf, owned=2)
        await beside.close_turn(elsewhere, None)
        await claims_at_once(hf, OTHER)


async def test_a_wait_for_a_full_lane_that_times_out_leaves_no_trace(state: Path) -> None:
    async with opened(state, limits=LaneLimits(widths={"narrow": 1})) as hf:
        holder = await hf.claim(OTHER, lane="narrow", wait_s=5)
        assert isinstance(holder, Turn)
        with pytest.raises(SessionBusyError, match="1 of 1 slots taken"):
            await hf.claim(KEY, lane="narrow", wait_s=0.05)
        await leaves_no_trace(hf, owned=1)
        waiter = asyncio.create_task(hf.claim(KEY, lane="narrow", wait_s=5))
        await asyncio.sleep(0)
        await hf.close_turn(holder, None)
        async with asyncio.timeout(PATIENCE_S):
            turn = await waiter  # the freed slot wakes whoever waits for one
        assert isinstance(turn, Turn)
        await hf.close_turn(turn, None)


async def test_an_input_that_is_not_next_is_refused_and_leaves_no_trace(state: Path) -> None:
    async with opened(state) as hf:
        first, second = await accept(hf), await accept(hf)
        refused = await hf.claim(KEY, wait_s=5, input_id=second)
        assert isinstance(refused, Busy)
        assert refused.why == "not next"
        await leaves_no_trace(hf)
        turn = await hf.claim(KEY, wait_s=5, input_id=first)
        await give_up(hf, turn)


async def test_turns_for_inputs_are_had_in_the_order_of_the_inputs_whoever_asks_first(state: Path) -> None:
    order: list[str] = []

    async def answer(hf: Holdfast, input_id: str) -> None:
        async with hf.turn(KEY, wait_s=60, input_id=input_id) as turn:
            order.append(input_id)
            await turn.append(holdfast.assistant("yes", model="a/b"))

    async with holdfast.open(state) as hf, holdfast.open(state) as beside:
        inputs = [await accept(hf) for _ in range(6)]
        handles = [hf, beside] * 3
        await asyncio.gather(*(answer(*one) for one in reversed(list(zip(handles, inputs, strict=True)))))
        assert order == inputs
        assert await ledger(hf, "select distinct state from inputs") == [("answered",)]
        await leaves_no_trace(hf)


async def test_a_turn_for_an_input_that_is_never_next_is_refused_when_the_time_is_up(state: Path) -> None:
    async with holdfast.open(state) as hf:
        first, second = await accept(hf), await accept(hf)
        with pytest.raises(SessionBusyError, match=rf"waited \d+\.\d s for input {first} is before it"):
            async with hf.turn(KEY, wait_s=0.1, input_id=second):
                raise AssertionError("it is not its turn")
        await leaves_no_trace(hf)
        async with hf.turn(KEY, wait_s=0, input_id=first):
            pass
        with pytest.raises(SessionBusyError, match="gone"):
            async with hf.turn(KEY, wait_s=60, input_id=first):
                raise AssertionError("it was answered")


async def test_a_line_kept_by_somebody_who_owns_nothing_refuses_no_claim(state: Path) -> None:
    """Whoever gave up a wait keeps the line for the instant in which the owner lets it go."""
    async with holdfast.open(state) as beside, holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1):
            pass
        kept = (await beside.store.file_of(await beside.store.transcript_of(KEY))).line  # pyright: ignore[reportAttributeAccessIssue]
        assert kept.try_acquire()
        async with hf.turn(KEY, wait_s=0) as turn:
            await turn.append(holdfast.user("nobody was in the way"))
        kept.release()


async def test_whoever_waits_when_the_state_is_closed_is_told_at_once(state: Path) -> None:
    async with opened(state) as beside:
        holder = await beside.claim(KEY, wait_s=1)
        async with opened(state) as hf:
            waiter = asyncio.create_task(hf.claim(KEY, wait_s=60))
            transcript = await hf.store.transcript_of(KEY)
            files = hf.store._files  # pyright: ignore[reportAttributeAccessIssue]
            while transcript not in files or not files[transcript].line._line:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreStoppedError, match="closed"):
                await waiter
        await give_up(beside, holder)
