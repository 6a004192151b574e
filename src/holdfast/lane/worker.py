"""The loop that starts turns: looks at the queue, claims what may start, runs it, looks again.

Any number of workers, in any number of processes, may run on one state; the claim decides who gets what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from holdfast.errors import (
    CoordinationError,
    OwnershipLostError,
    ResourceError,
    SessionBusyError,
    SessionWriteLockTimeoutError,
    TurnCancelledError,
    TurnStalledError,
)
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits, Waiting, choose, heads
from holdfast.lane.queue import WAITED_S
from holdfast.session.ownership import Busy
from holdfast.store.views import InputView
from holdfast.text import on_one_line
from holdfast.turn.outcomes import failed_with
from holdfast.turn.turn import Turn, current_turn

TOLD_MAX = 500
LOOK_S = 1.0
"""Everyone looks once a second; wake-ups are hints."""
LINE_WAIT_S = 60.0
STILL_S = 45.0
"""Three beats that did not come: an owner that misses them stands still, whatever it waits for."""
RETRY_S = 1.0
"""How long a transcript is left alone when a turn on it could not be had, or be carried on, for now."""
log = logging.getLogger("holdfast.lane")

RunInput = Callable[[Turn, InputView], Awaitable[None]]


class Worker:
    """Takes accepted inputs in order and runs them. `run` until `stop`; both may be called again after the other.

    Args:
        fence_mode_for: of a session, "strict" or "warn"; None: the handle's own.
    """

    def __init__(
        self,
        hf: Holdfast,
        run_input: RunInput,
        *,
        limits: LaneLimits,
        fence_mode_for: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._hf = hf
        self._fence_mode_for = fence_mode_for
        self._run_input = run_input
        self._limits = limits
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by transcript: one at a time here, whatever the queue says
        self._owned: set[str] = set()  # those of `_tasks` whose turn has begun
        self._stopping = False
        self._hearing = ExitStack()
        self._hears = False
        self._pause_s = LOOK_S
        self._tell_mono = 0.0
        self._seen_mono: dict[str, float] = {}  # since when we have seen which input wait

    def exchange(self, run_input: RunInput, *, limits: LaneLimits, fence_mode_for: Callable[[str], str | None]) -> None:
        """Run what is begun from now on so. What runs keeps what it began with."""
        self._run_input, self._limits, self._fence_mode_for = run_input, limits, fence_mode_for
        self._hf.work_arrived.set()

    async def run(self) -> None:
        """Start what may start, whenever something may have changed, until `stop`."""
        self._stopping = False
        try:
            while not self._stopping:
                self._hf.work_arrived.clear()
                try:
                    await self._look()
                    self._hf.store.raise_if_stopped()
                except (ResourceError, CoordinationError) as exc:
                    log.error("cannot look at the queue: %s", exc)
                    if self._hf.store.stopped:
                        raise
                await self._pause()
        finally:
            self._hear_if(lane_is_full=False)

    async def stop(self, budget_s: float) -> None:
        """Start nothing more; give running turns `budget_s`, then interrupt them (their inputs go back to their
        place).
        """
        self._stopping = True
        self._hf.work_arrived.set()
        tasks = list(self._tasks.values())
        for transcript, task in self._tasks.items():
            if transcript not in self._owned:
                task.cancel()  # it only stands in line
        if tasks:
            await asyncio.wait(tasks, timeout=budget_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def _look(self) -> None:
        for turn in self._hf.live_turns():
            turn.end_if_silent()
        if await self._hf.store.recover_dead():
            self._hf.answers_arrived.set()
        waiting, running, solo = await self._hf.store.queue()
        await self._tell_of_waiting(waiting)
        if self._stopping:  # meanwhile: `stop` has looked at what runs, and would not know of what is begun now
            return
        quiet = [one.quiet_in_s for one in waiting if not one.blocked and one.quiet_in_s > 0]
        self._pause_s = min([LOOK_S, *quiet])
        mine = [one for one in waiting if one.transcript not in self._tasks]
        for one in choose(mine, running, self._limits, solo):
            self._begin(one, 0.0)
        for one in heads(mine):  # somebody else's turn: stand in its line, so that its end or death wakes us at once
            if one.blocked and one.transcript not in self._tasks:
                self._begin(one, LINE_WAIT_S)
        self._hear_if(any(one.quiet_in_s <= 0 and one.transcript not in self._tasks for one in heads(mine)))

    def _hear_if(self, lane_is_full: bool) -> None:
        """Be woken when another process frees a slot, while somebody waits for one."""
        if lane_is_full and not self._hears:
            self._hearing.enter_context(self._hf.store.hear_of_free_slots(self._hf.work_arrived.set))
            self._hf.work_arrived.set()  # what was freed before that has not been heard: look once more
        elif not lane_is_full:
            self._hearing.close()
        self._hears = lane_is_full

    async def _tell_of_waiting(self, waiting: list[Waiting]) -> None:
        """By how long we have seen an input wait, not by wall clocks, which jump. Once a second at most; what needs no
        telling costs no look at the store.
        """
        now = self._hf.clock.mono()
        self._seen_mono = {one.id: self._seen_mono.get(one.id, now) for one in waiting}
        long = [input_id for input_id, since in self._seen_mono.items() if now - since >= WAITED_S]
        if long and now >= self._tell_mono:
            self._tell_mono = now + LOOK_S
            if await self._hf.store.tell_of_waiting(long[:TOLD_MAX]):
                self._hf.answers_arrived.set()

    def _begin(self, one: Waiting, wait_s: float) -> None:
        task = asyncio.create_task(self._run_one(one, wait_s), name=f"turn for {one.id}")
        self._tasks[one.transcript] = task
        task.add_done_callback(lambda _: self._ended(one.transcript))

    def _ended(self, transcript: str) -> None:
        self._tasks.pop(transcript, None)
        self._owned.discard(transcript)
        self._hf.work_arrived.set()

    async def _pause(self) -> None:
        pause = asyncio.ensure_future(self._hf.clock.sleep(self._pause_s))
        hint = asyncio.ensure_future(self._hf.work_arrived.wait())
        try:
            await asyncio.wait({pause, hint}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            hint.cancel()

    async def _run_one(self, one: Waiting, wait_s: float) -> None:
        """One input: claim, run, settle. Errors end the turn, not the worker."""
        began = self._hf.clock.mono()
        try:
            view = await self._hf.input(one.id)
            fence_mode = self._fence_mode_for(view.session)
            turn = await self._hf.claim(
                view.session, lane=view.lane, wait_s=wait_s, input_id=one.id, fence_mode=fence_mode
            )
            if not isinstance(turn, Busy):
                self._owned.add(one.transcript)
                await self._run_owned(turn, view)
        except SessionBusyError as busy:  # still somebody else's; the queue is looked at again
            await self._tell_if_held_up(one, busy)
        except Exception as exc:
            duration_ms = int((self._hf.clock.mono() - began) * 1000)
            log.warning(
                '[diagnostic] lane task error: lane=%s durationMs=%d error="%s: %s"',
                one.lane, duration_ms, type(exc).__name__, on_one_line(str(exc)), exc_info=not _is_expected(exc),
            )  # fmt: skip
            await self._see_to(one, exc)

    async def _tell_if_held_up(self, one: Waiting, busy: SessionBusyError) -> None:
        """An owner that lives and shows no life keeps a conversation until its term is over: whoever has waited long
        behind it is told who that is.
        """
        owner = next((owner for owner in await self._hf.store.owners() if owner.transcript == one.transcript), None)
        if owner is None or owner.is_ours:
            return
        _, still_s = await self._hf.store.watch_owner(owner)
        if still_s >= STILL_S:
            who = f"process {owner.process} (pid {owner.pid}), run {owner.turn}"
            await self._tell_of_holder(one.id, who, f"which has shown no life for {still_s:.0f} s")
            log.warning("session %s: held up by %s, no life for %.0f s; input %s has waited %.0f s behind it",
                        on_one_line(busy.session), who, still_s, one.id, busy.waited_s)  # fmt: skip

    async def _tell_of_holder(self, input_id: str, who: str, since: str) -> None:
        """A failure to tell is not a failure of the input: it is tried again with the next wait."""
        text = f"(Your message is kept and waits: this conversation is held by {who}, {since}. It will be answered.)"
        try:
            if await self._hf.store.tell_of_holder(input_id, text, f"{who}, {since}"):
                self._hf.answers_arrived.set()
        except ResourceError as exc:
            log.error("the sender of input %s could not be told that it waits: %s", input_id, exc)

    async def _see_to(self, one: Waiting, exc: Exception) -> None:
        """Of an error that has left the input open: what may pass is tried again later, the rest ends the input."""
        has_begun = one.transcript in self._owned
        self._owned.discard(one.transcript)
        if isinstance(exc, OwnershipLostError):
            return  # whoever took over has seen to the input, or it is queued
        if not has_begun and not isinstance(exc, CoordinationError | ResourceError):
            try:
                await self._hf.store.settle_unclaimed(one.id, failed_with(exc))
                self._hf.answers_arrived.set()
            except ResourceError as refused:
                exc = refused
                log.error("input %s could not be ended yet: %s", one.id, refused)
        if isinstance(exc, SessionWriteLockTimeoutError) and not has_begun:
            since = f"which has kept its file locked for more than {exc.timeout_ms / 1000:g} s"
            await self._tell_of_holder(one.id, f"process {exc.holder}", since)
        if isinstance(exc, CoordinationError | ResourceError):
            await self._hf.clock.sleep(RETRY_S)

    async def _run_owned(self, turn: Turn, view: InputView) -> None:
        task = asyncio.current_task()
        assert task is not None
        turn.on_cancel = task.cancel
        token = current_turn.set(turn.id)
        failure: BaseException | None = None
        try:
            await self._run_input(turn, view)
        except asyncio.CancelledError as exc:
            failure = exc
            asked = turn.why_to_stop()
            if asked is not None:
                failure = asked
                task.uncancel()
            elif not task.cancelling():  # putting the input back for this would run it for ever
                failure = RuntimeError("the turn was cancelled from within; nobody had asked it to stop")
                failure.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001  # the edge of the turn: whatever it was, the turn is settled, then it goes on
            failure = exc
        finally:
            current_turn.reset(token)
            turn.on_cancel = None
            await self._hf.close_turn(turn, failure)
        if failure is not None and not isinstance(failure, TurnCancelledError | TurnStalledError):
            raise failure


def _is_expected(exc: BaseException) -> bool:
    """Whether the log line alone says enough."""
    return isinstance(exc, CoordinationError) or getattr(exc, "fault", None) in ("provider", "resource", "caller")
