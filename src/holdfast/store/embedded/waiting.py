"""Waiting for a transcript: a place in its line, then the claim, which decides.

The line is a kernel lock that a turn's process holds as long as the turn lasts, so release and death wake the next
waiter at once, without polling. It is courtesy: a lapsed owner's turn is claimed without it. Everyone also looks once a
second. A wait that fails, times out or is cancelled leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast import ids
from holdfast.errors import SessionBusyError, WaitRingError
from holdfast.session.fence import Epoch
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.embedded import claims
from holdfast.store.embedded.claims import OwnedTurn
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.kernel_lock import Ticket
from holdfast.store.embedded.writer import Job

if TYPE_CHECKING:
    from holdfast.store.embedded.claiming import Claiming

LOOK_S = 1.0


async def wait_and_claim(store: Claiming, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> OwnedTurn | Busy:
    """Own the transcript within `wait_s` seconds.

    Returns: the owned turn; or, for a request with an input, `Busy` when that input is not open or not next.

    Raises:
        SessionBusyError: somebody else's turn, or a full lane, for the whole time. Nothing was written.
        WaitRingError: waiting would close a ring of turns that wait for each other.
    """
    file = await store.file_of(request.transcript)
    has_line = file.line.try_acquire()
    if has_line:
        owned = await _claim_with_line(store, file, request, fence_mode)
        if not isinstance(owned, Busy) or owned.is_final:
            return owned
    elif request.input_id is not None and wait_s <= 0:
        return Busy("owned", "somebody in line before us")
    waiting = _Waiting(store, file, request, wait_s, fence_mode)
    async with waiting:
        return await waiting.until_owned()


async def _claim_with_line(
    store: Claiming, file: TranscriptFile, request: ClaimRequest, fence_mode: str
) -> OwnedTurn | Busy:
    """Claim while holding the line; it stays ours only if the claim is granted."""
    owned: OwnedTurn | Busy | None = None
    try:
        owned = await store.claim_once(file, request, fence_mode)
        return owned
    finally:
        if isinstance(owned, OwnedTurn):
            owned.has_line = True
        else:
            file.line.release()


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
        self._holder = "another turn"
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> None:
        parent = self._request.parent
        if parent is None:
            return
        row, transcript, now_ms = self._row, self._request.transcript, self._store.now_ms()

        def begin(conn: sqlite3.Connection) -> list[str]:
            ring = claims.begin_wait(conn, row, self._store.process, transcript, parent, now_ms)
            if not ring:
                claims.lend_slot(conn, parent, True)
            return ring

        ring = await self._store.writer.submit(Job(begin))
        if ring:
            raise WaitRingError(
                f"turn {parent} would wait for session {self._request.session!r}, "
                f"whose owner waits for it: {' -> '.join(ring)}"
            )

    async def __aexit__(self, *exc: object) -> None:
        if self._ticket is not None:
            self._file.line.leave(self._ticket)
            self._ticket = None
        parent, row = self._request.parent, self._row
        if parent is not None:

            def end(conn: sqlite3.Connection) -> None:
                claims.end_wait(conn, row)
                claims.lend_slot(conn, parent, False)

            self._store.writer.post(end)

    async def until_owned(self) -> OwnedTurn | Busy:
        while True:
            got_line = await self._stand_in_line()
            lapsed = await self._lapsed()
            if got_line or lapsed is not None:
                owned = await self._claim(got_line, lapsed)
                if not isinstance(owned, Busy) or owned.is_final:
                    return owned
                self._holder = owned.holder
                await self._pause(owned)
            if self._left() <= 0:
                raise SessionBusyError(self._request.session, self._store.clock.mono() - self._began, self._holder)

    async def _claim(self, got_line: bool, lapsed: Epoch | None) -> OwnedTurn | Busy:
        request = replace(self._request, lapsed=lapsed)
        if not got_line:
            return await self._store.claim_once(self._file, request, self._fence_mode)
        self._ticket = None
        return await _claim_with_line(self._store, self._file, request, self._fence_mode)

    async def _stand_in_line(self) -> bool:
        """True once the line is ours; False after a second without it, to look around."""
        loop = asyncio.get_running_loop()
        if self._ticket is None:
            granted = asyncio.Event()
            self._granted = granted
            self._ticket = self._file.line.request(lambda: _set_from_any_thread(loop, granted))
        elif self._ticket.granted:
            return True
        pause = asyncio.ensure_future(self._store.clock.sleep(min(LOOK_S, max(0.0, self._left()))))
        grant = asyncio.ensure_future(self._granted.wait())
        try:
            await asyncio.wait({pause, grant}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            grant.cancel()
        return self._ticket.granted

    async def _lapsed(self) -> Epoch | None:
        """The owner's epoch, if we have watched its beat stand still for the whole term."""
        owner = await self._store.reads.owner(self._request.transcript)
        if owner is None:
            return None
        beat = self._file.record.read_beat()
        return owner if self._store.watch.has_lapsed(self._request.transcript, owner, beat) else None

    async def _pause(self, busy: Busy) -> None:
        """We hold no line now and could not claim: wait for a slot to be freed or a second, whichever comes first."""
        self._store.slot_freed.clear()
        if busy.why == "lane" and await self._store.recover_dead():
            return
        pause = asyncio.ensure_future(self._store.clock.sleep(min(LOOK_S, max(0.0, self._left()))))
        freed = asyncio.ensure_future(self._store.slot_freed.wait())
        try:
            await asyncio.wait({pause, freed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            freed.cancel()

    def _left(self) -> float:
        return self._began + self._wait_s - self._store.clock.mono()


def _set_from_any_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        return  # the loop is closed; its waiter has left its place already
