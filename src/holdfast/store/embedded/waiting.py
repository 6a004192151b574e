"""Waiting for a transcript: a place in its line, then the claim, which decides.

The line is a kernel lock that a turn's process holds as long as the turn lasts, so release and death wake the next
waiter at once, without polling. It is courtesy: a lapsed owner's turn is claimed without it. Everyone also looks once a
second. A wait that fails, times out or is cancelled leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast import ids
from holdfast.errors import ResourceError, SessionBusyError, WaitRingError
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.kernel_lock import Ticket
from holdfast.store.embedded.owned import OwnedTurn
from holdfast.store.sql import claims
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job

if TYPE_CHECKING:
    from holdfast.store.embedded.claiming import Claiming

LOOK_S = 1.0
FREE_LOOK_S = 0.1
"""A transcript that nobody owns for this long although somebody keeps its line is claimed without the line. And a wait
for an owner whose line was free: the kernel takes the locks of a process that dies one after the other."""
DYING_LOOKS = 10


async def wait_and_claim(store: Claiming, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> OwnedTurn | Busy:
    """Own the transcript within `wait_s` seconds.

    Returns: the owned turn; or, for a request with an input, `Busy` when that input is not open or not next.

    Raises:
        SessionBusyError: somebody else's turn, or a full lane, for the whole time. Nothing was written.
        WaitRingError: waiting would close a ring of turns that wait for each other.
    """
    file = await store.file_of(request.transcript)
    file.users += 1
    try:
        if file.line.try_acquire():
            owned = await store.claim_once(file, request, fence_mode, has_line=True)
            if not isinstance(owned, Busy) or owned.is_final:
                return owned
        elif wait_s <= 0 and await _is_line_kept_for_nobody(store, request.transcript):
            owned = await store.claim_once(file, request, fence_mode, has_line=file.line.try_acquire())
            if request.input_id is not None or not isinstance(owned, Busy):
                return owned
        elif wait_s <= 0 and request.input_id is not None:
            return Busy("owned", "somebody in line before us")
        waiting = _Waiting(store, file, request, wait_s, fence_mode)
        async with waiting:
            return await waiting.until_owned()
    finally:
        file.users -= 1


async def _is_line_kept_for_nobody(store: Claiming, transcript: str) -> bool:
    """Whoever gave up waiting may leave a thread behind that gets the line when it is free, and lets it go again."""
    if await store.reads.owner(transcript) is not None:
        return False
    await store.clock.sleep(FREE_LOOK_S)
    return await store.reads.owner(transcript) is None


class _Waiting:
    """One contended wait. Its row (only where a ring is possible) and its place in line end with it."""

    def __init__(
        self, store: Claiming, file: TranscriptFile, request: ClaimRequest, wait_s: float, fence_mode: str
    ) -> None:
        self._store = store
        self._file = file
        self._request = request
        self._began = store.clock.mono()
        self._wait_s = wait_s
        self._fence_mode = fence_mode
        self._row = ids.new_id("w")
        self._holder = ""
        self._ticket: Ticket | None = None
        self._free_since: float | None = None
        self._hearing = ExitStack()
        self._hears = False
        self._met_without_line = 0

    async def __aenter__(self) -> None:
        self._store.writer.make_ready()
        parent = self._request.parent
        if parent is None:
            return
        row, transcript, now_ms = self._row, self._request.transcript, self._store.now_ms()

        def begin(conn: Connection) -> list[str]:
            ring = claims.begin_wait(conn, row, self._store.process, transcript, parent, now_ms)
            if not ring:
                claims.lend_slot(conn, parent, True)
            return ring

        try:
            ring = await self._store.writer.submit(Job(begin))
        except asyncio.CancelledError:
            self._forget()  # it is noted all the same
            raise
        self._store.tell_of_free_slot()  # that of the parent, which is lent
        if ring:
            raise WaitRingError(
                f"turn {parent} would wait for session {self._request.session!r}, "
                f"whose owner waits for it: {' -> '.join(ring)}"
            )

    async def __aexit__(self, *exc: object) -> None:
        self._hearing.close()
        if self._ticket is not None:
            self._file.line.leave(self._ticket)
            self._ticket = None
        self._forget()

    def _forget(self) -> None:
        parent, row = self._request.parent, self._row
        if parent is None:
            return

        def end(conn: Connection) -> None:
            claims.end_wait(conn, row)
            claims.lend_slot(conn, parent, False)

        self._store.writer.post(end)

    async def until_owned(self) -> OwnedTurn | Busy:
        while True:
            self._store.writer.raise_if_stopped()
            past_line = None if self._has_line() else await self._way_past_the_line()
            has_line = self._has_line() or (past_line is None and await self._stand_in_line())
            if has_line or past_line is not None:
                self._store.slot_freed.clear()
                owned = await self._claim(past_line or self._request, has_line)
                if not isinstance(owned, Busy) or owned.is_final:
                    return owned
                self._holder = owned.holder
                await self._pause(owned, had_line=has_line)
            if self._left() <= 0:
                holder = self._holder or await self._store.reads.holder(self._request.transcript)
                raise SessionBusyError(self._request.session, self._store.clock.mono() - self._began, holder)

    async def _claim(self, request: ClaimRequest, has_line: bool) -> OwnedTurn | Busy:
        if has_line:
            self._ticket = None  # whatever comes of it, the line is no longer ours to leave
        return await self._store.claim_once(self._file, request, self._fence_mode, has_line=has_line)

    def _has_line(self) -> bool:
        return self._ticket is not None and self._ticket.granted

    async def _way_past_the_line(self) -> ClaimRequest | None:
        """What to ask for without the line: the owner's beat has stood still for the whole term while we watched, or
        nobody owns the transcript although its line is kept (by a process that was stopped and lost its turn).
        """
        transcript, now = self._request.transcript, self._store.clock.mono()
        try:
            owner = await self._store.reads.owner(transcript)
        except ResourceError:
            await self._store.writer.submit(Job(lambda _: None))  # says so if the ledger itself has gone
            raise
        if owner is not None:
            self._free_since = None
            beat = self._file.record.read_beat()
            lapsed = self._store.watch.has_lapsed(transcript, owner, beat)
            return replace(self._request, lapsed=owner) if lapsed else None
        if self._free_since is None:
            self._free_since = now
        return self._request if now - self._free_since >= FREE_LOOK_S else None

    async def _stand_in_line(self) -> bool:
        """True once the line is ours; False after a while without it, to look around."""
        loop = asyncio.get_running_loop()
        if self._ticket is None:
            granted = asyncio.Event()
            self._granted = granted
            self._ticket = self._file.line.request(lambda: _set_from_any_thread(loop, granted))
        if not self._ticket.granted:
            await self._first_of(self._granted.wait(), LOOK_S if self._free_since is None else FREE_LOOK_S)
        return self._has_line()

    async def _pause(self, busy: Busy, *, had_line: bool) -> None:
        """We hold no line now and could not claim: wait for a slot to be freed or a second, whichever comes first.

        An owner that still seems to live although the line was ours may just be dying: then less, the first times.
        """
        if busy.why == "lane":
            if await self._store.recover_dead():
                return
            if not self._hears:  # from now on slots that others free are heard of; one may have been freed just now
                self._hears = True
                self._hearing.enter_context(self._store.hear_of_free_slots(self._store.slot_freed.set))
                return
        if had_line and busy.why == "owned":
            self._met_without_line += 1
            is_dying = self._met_without_line <= DYING_LOOKS
        else:
            is_dying = False
        await self._first_of(self._store.slot_freed.wait(), FREE_LOOK_S if is_dying else LOOK_S)

    async def _first_of(self, event: Coroutine[Any, Any, bool], longest_s: float) -> None:
        pause = asyncio.ensure_future(self._store.clock.sleep(min(longest_s, max(0.0, self._left()))))
        happened = asyncio.ensure_future(event)
        try:
            await asyncio.wait({pause, happened}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            happened.cancel()

    def _left(self) -> float:
        return self._began + self._wait_s - self._store.clock.mono()


def _set_from_any_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        return  # the loop is closed; its waiter has left its place already
