"""The loop that brings the ends of sub-agents to their parents, in any number of processes on one state.

It has two steps. First the end is accepted as an input of the parent's session, through the one door, under a key that
follows from the child; then the child is closed, by compare-and-set. Whoever dies between the two leaves an input that
the next process meets as a duplicate, so a parent hears of it once. Nothing is given up: where there is no room for the
end in its parent's queue, it is tried again until there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from holdfast.clock import epoch_ms
from holdfast.errors import DrainingError, HoldfastError
from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, end_in
from holdfast.inbound.orders import accept_once
from holdfast.kernel import Holdfast
from holdfast.session.lines import Line
from holdfast.store.views import InputView
from holdfast.text import on_one_line
from holdfast.turn.turn import RESET_TYPE, Turn

LOOK_S = 1.0
"""Everyone looks once a second; wake-ups are hints."""
OPEN_MAX = 1000
ARCHIVE_EVERY_S = 60.0
RESET_NOTE_TYPE = "holdfast:child-reset"
log = logging.getLogger("holdfast.children")

RunInput = Callable[[Turn, InputView], Awaitable[None]]


class Children:
    """Watches the sub-agents of a state: `run` until `stop`. Any number of processes may, each with one.

    Args:
        archive_after_s: so long after its end a child's session is left out of lists; 0: never.
    """

    def __init__(self, hf: Holdfast, *, archive_after_s: float = 3600.0) -> None:
        self._hf = hf
        self._archive_after_s = archive_after_s
        self._archived_mono: float | None = None
        self._running_since: dict[str, float] = {}  # by child, since when we have seen it run
        self._told: set[str] = set()  # of those for whose end there is no room
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Look whenever something may have changed, once a second otherwise, until `stop`.

        Raises:
            StoreStoppedError: the ledger failed; this process must end.
        """
        while not self._stopping.is_set():
            self._hf.children_changed.clear()
            try:
                await self.look()
            except DrainingError:
                return
            except HoldfastError as exc:
                log.error("cannot look at the sub-agents: %s", exc)
                if self._hf.store.stopped:
                    raise
            await self._pause()

    def stop(self) -> None:
        """Announce nothing more; whichever process looks next goes on."""
        self._stopping.set()

    async def _pause(self) -> None:
        waits = [
            asyncio.ensure_future(one)
            for one in (self._hf.clock.sleep(LOOK_S), self._hf.children_changed.wait(), self._stopping.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def look(self) -> None:
        """One look at every child whose parent has still to hear of it.

        Raises:
            DrainingError: this process takes nothing in any more. ResourceError: the ledger cannot be read or written.
        """
        found = await self._hf.children(only_open=True, limit=OPEN_MAX)
        running = {one.id for one in found if one.state == "running"}
        self._running_since = {child: mono for child, mono in self._running_since.items() if child in running}
        for one in reversed(found):
            try:
                await self._see_to(one)
            except DrainingError:
                raise
            except HoldfastError as exc:  # what goes wrong with one keeps nobody else's end back
                if self._hf.store.stopped:
                    raise
                log.error("child %s of %s: %s", one.id, _of(one), exc)
        await self._archive()

    async def _see_to(self, child: Child) -> None:
        if child.state == "ended":
            await self._end(child)
        elif child.state == "running":
            await self._end_if_too_long(child)

    async def _end(self, child: Child) -> None:
        if child.stop_by is not None:
            await self._hush(child)
            return
        last = await self._hf.input(child.last_input)
        input_id = await accept_once(self._hf, rules.end_event(child, last, await self._shown_with(child)))
        if input_id is None:
            if child.id not in self._told:
                self._told.add(child.id)
                log.warning("child %s of %s: its end waits, its parent's queue is full", child.id, _of(child))
            return
        self._told.discard(child.id)
        if await self._hf.store.close_child(child, "announce", input_id):
            log.info("child %s of %s: %s, announced as %s", child.id, _of(child), last.state, input_id)

    async def _hush(self, child: Child) -> None:
        """Close a child that was stopped with its parent's work; its end may have become an input just before that."""
        input_id = await self._hf.store.input_by_key(rules.END, "", child.id)
        how = "hush" if input_id is None else "announce"
        if await self._hf.store.close_child(child, how, input_id):
            told = "not announced" if input_id is None else f"announced before that as {input_id}"
            log.info("child %s of %s: stopped with its parent's work, %s", child.id, _of(child), told)

    async def _shown_with(self, child: Child) -> tuple[str, ...]:
        """Where a run begins afresh, its turn is shown the run's own input, and what came of its other children."""
        if not child.fresh or child.parent_input is None:
            return ()
        siblings = await self._hf.children(parent_input=child.parent_input, limit=OPEN_MAX)
        return (child.parent_input, *(one.announce_id for one in siblings if one.announce_id is not None))

    async def _end_if_too_long(self, child: Child) -> None:
        """By how long we have seen it run, not by wall clocks, which jump; a child that waits has all its time."""
        now = self._hf.clock.mono()
        since = self._running_since.setdefault(child.id, now)
        if now - since > child.timeout_s:
            log.warning("child %s of %s: timed out after %g s", child.id, _of(child), child.timeout_s)
            self._running_since[child.id] = now
            await self._hf.cancel(child.id, by=f"{rules.TIMED_OUT} ({child.timeout_s:g} s)")

    async def _archive(self) -> None:
        now = self._hf.clock.mono()
        is_time = self._archived_mono is None or now - self._archived_mono >= ARCHIVE_EVERY_S
        if self._archive_after_s > 0 and is_time:
            self._archived_mono = now
            before_ms = epoch_ms(self._hf.clock.now()) - int(self._archive_after_s * 1000)
            if count := await self._hf.store.archive_children(before_ms):
                log.info("put %d sub-agents away", count)


def _of(child: Child) -> str:
    return on_one_line(child.parent_session)


# ── in the parent's session ──────────────────────────────────────────────────────────────────────────────────────────


def with_child_ends(run_input: RunInput) -> RunInput:
    """`run_input`, for a child's end after a line about it where the conversation was begun anew meanwhile."""

    async def run(turn: Turn, view: InputView) -> None:
        about = end_in(view)
        if about is not None and was_begun_anew(await turn.branch(), int(about["spawned_at_ms"])):
            await turn.append_beside_input(RESET_NOTE_TYPE, rules.RESET_NOTE)
        await run_input(turn, view)

    return run


def was_begun_anew(branch: list[Line], since_ms: int) -> bool:
    """Whether a conversation was begun anew after a time, as far back as its active branch was read."""
    for line in branch:
        if line.kind == "entry" and line.type == "custom":
            value = line.value()
            if value.get("customType") == RESET_TYPE and _ms_of(value.get("timestamp")) > since_ms:
                return True
    return False


def _ms_of(timestamp: object) -> int:
    try:
        return epoch_ms(datetime.fromisoformat(str(timestamp)))
    except ValueError:
        return 0
