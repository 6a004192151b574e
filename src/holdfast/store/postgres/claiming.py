"""Claims, waits for them, and closing the turns of nodes that are gone. Read `Claiming._claim_once` first.

A claim is one statement (`claim_turn.sql`) wherever nothing has to be judged; else it goes the long way (`_claim_in`),
alone among the writers of all nodes, by the ledger's own rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from holdfast import ids
from holdfast.clock import Clock, epoch_ms
from holdfast.errors import ResourceError, SessionBusyError, SessionMovedError, WaitRingError
from holdfast.recovery.classify import Owner
from holdfast.recovery.progress import Report
from holdfast.session.entries import encode_line
from holdfast.session.fence import Epoch
from holdfast.session.key import parse_key
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.postgres.node import GONE_S, LOOK_S, beat_of
from holdfast.store.postgres.reading import PostgresReading
from holdfast.store.postgres.transcripts import OwnedTurn, Position
from holdfast.store.postgres.writer import Together
from holdfast.store.sql import claims, inbox, model_rows
from holdfast.store.sql.booting import Booting
from holdfast.store.sql.claims import Granted, Predecessor
from holdfast.store.sql.closing import answered_from, close_predecessor
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.ledger import Job
from holdfast.text import on_one_line

_CLAIM = """
select at, c.how as found, c.detail as told, c.epoch_number as its_number, c.epoch_nonce as its_nonce, owner_process,
 lines_end, leaf, has_facts, (taken).*
 from jsonb_array_elements(%s) with ordinality as asked(one, at), holdfast.claim_turn(one) c"""
LOOK_AGAIN_S = 1.0
RECOVERY_S = GONE_S + 2 * LOOK_S
log = logging.getLogger("holdfast.store")


@dataclass(frozen=True, slots=True)
class Claimed:
    granted: Granted
    head: transcripts.Head
    findings: list[str]
    landed: dict[str, Position]


@dataclass(frozen=True, slots=True)
class Found:
    """What `claim_turn` says. process: whose owner is in the way."""

    got: Claimed | Busy
    process: str | None = None
    has_facts: bool = False


def _found(request: ClaimRequest, row: Any) -> Found | None:
    """None: it has to be judged first."""
    how, epoch = row["found"], Epoch(row["its_number"] or 0, row["its_nonce"] or "")
    if how == "granted":
        taken = row if request.input_id is not None else None
        attempt = taken["attempts"] + 1 if taken is not None else 1
        head = transcripts.Head(epoch, request.turn, request.process, row["lines_end"], row["leaf"], None)
        return Found(Claimed(Granted(epoch, attempt, taken), head, [], {}), has_facts=row["has_facts"])
    if how == "owned":
        return Found(Busy("owned", row["told"], epoch), process=row["owner_process"])
    if how == "locked" and request.input_id is not None:  # by a claim, most of the time: the queue is looked at again
        return Found(Busy("owned", "somebody else is at its row at this moment"))
    return Found(Busy(how, row["told"])) if how in ("gone", "not next", "lane") else None


def one_claim(request: ClaimRequest, width: int, clock: Clock) -> Together:
    """A claim as a statement; its result is a `Found`, or None where something has to be judged first.

    Args:
        width: of the lane.
    """
    one = {
        "transcript": request.transcript, "session": request.session, "turn": request.turn, "nonce": request.nonce,
        "process": request.process, "lane": request.lane, "input": request.input_id, "parent": request.parent,
        "width": width, "now_ms": epoch_ms(clock.now()),
        "header": encode_line(transcripts.header_of(request.transcript, clock)).decode(),
    }  # fmt: skip
    return Together(statement=_CLAIM, one=one, take=lambda row: _found(request, row), durable=True)


class Claiming(Booting, PostgresCore, PostgresReading):
    """One transaction: who owns it, is the input still open, the claim, and the baseline."""

    async def claim(self, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> OwnedTurn | Busy:
        """Own a transcript within `wait_s` seconds. Waiters are woken by hints and look once a second; who of several
        comes first is left to chance, inputs have their order all the same.

        Raises: SessionBusyError, WaitRingError. Cancelled: what was granted meanwhile is given back.
        """
        self.refuse_if_forked()
        owned = await self._claim_once(request, fence_mode)
        if not isinstance(owned, Busy) or owned.is_final or (request.input_id is not None and wait_s <= 0):
            return owned
        self._loop = asyncio.get_running_loop()
        wait = await self._begin_wait(request)
        try:
            return await self._wait_and_claim(request, fence_mode, owned, wait_s)
        finally:
            self._end_wait(request, wait)

    async def _wait_and_claim(
        self, request: ClaimRequest, fence_mode: str, busy: Busy, wait_s: float
    ) -> OwnedTurn | Busy:
        began = self.clock.mono()
        while True:
            left = began + wait_s - self.clock.mono()
            if left <= 0:
                raise SessionBusyError(request.session, self.clock.mono() - began, busy.holder)
            await self._pause(min(left, LOOK_AGAIN_S))
            self.writer.raise_if_stopped()
            if busy.why == "lane":
                await self.recover_dead()
            owned = await self._claim_once(await self._with_lapsed(request), fence_mode)
            if not isinstance(owned, Busy) or owned.is_final:
                return owned
            busy = owned

    async def _pause(self, longest_s: float) -> None:
        self.slot_freed.clear()
        pause = asyncio.ensure_future(self.clock.sleep(longest_s))
        freed = asyncio.ensure_future(self.slot_freed.wait())
        try:
            await asyncio.wait({pause, freed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            freed.cancel()

    async def _with_lapsed(self, request: ClaimRequest) -> ClaimRequest:
        """The request, with the epoch of an owner whose beat has stood still for the whole term while we watched."""

        def ask(conn: Connection) -> tuple[Epoch, bytes] | None:
            row = conn.execute(
                "select epoch_number, epoch_nonce, owner_turn from transcripts where id=? and owner_turn is not null",
                (request.transcript,),
            ).fetchone()
            return None if row is None else (Epoch(row[0], row[1]), beat_of(conn, row[2]))

        owner = await self.reads.ask(ask)
        lapsed = owner is not None and self.watch.has_lapsed(request.transcript, *owner)
        return replace(request, lapsed=owner[0] if owner is not None and lapsed else None)

    async def _begin_wait(self, request: ClaimRequest) -> str | None:
        """A wait inside a turn is a row: one that would close a ring is refused, and the turn lends its slot."""
        parent, now_ms = request.parent, self.now_ms()
        if parent is None:
            return None
        wait = ids.new_id("w")

        def run(conn: Connection) -> list[str]:
            ring = claims.begin_wait(conn, wait, self.process, request.transcript, parent, now_ms)
            if not ring:
                claims.lend_slot(conn, parent, True)
            return ring

        try:
            ring = await self.writer.submit(Job(run))
        except asyncio.CancelledError:
            self._end_wait(request, wait)
            raise
        if ring:
            raise WaitRingError(
                f"turn {parent} would wait for session {request.session!r}, "
                f"whose owner waits for it: {' -> '.join(ring)}"
            )
        self.tell_of_free_slot()
        return wait

    def _end_wait(self, request: ClaimRequest, wait: str | None) -> None:
        parent = request.parent
        if wait is None or parent is None:
            return

        def run(conn: Connection) -> None:
            claims.end_wait(conn, wait)
            claims.lend_slot(conn, parent, False)

        self.writer.post(run)

    # ── one claim ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _claim_once(self, request: ClaimRequest, fence_mode: str) -> OwnedTurn | Busy:
        work = asyncio.ensure_future(self._claim_somehow(request))
        try:
            claimed = await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda done: self._give_back(request, done))
            raise
        if isinstance(claimed, Busy):
            return claimed
        self.options.faults("claim.after_commit")
        for finding in claimed.findings:
            log.warning("session %s: %s", on_one_line(request.session), finding)
        granted = claimed.granted
        return OwnedTurn(
            request.turn, granted.epoch, request.transcript, granted.attempt, granted.input_row, bool(granted.closed),
            claimed.findings, fence_mode, claimed.head.end, claimed.head.leaf, granted.models, claimed.landed,
        )  # fmt: skip

    async def _claim_somehow(self, request: ClaimRequest) -> Claimed | Busy:
        now_ms, limits = self.now_ms(), self.options.limits
        agent = parse_key(request.session).agent if limits.agents else ""
        if limits.agent_width(agent, request.lane) is None:  # else its own slots are counted as well
            found = await self.writer.submit(one_claim(request, limits.width(request.lane), self.clock))
            if found is not None and not await self._is_to_judge(request, found):
                return await self._with_facts(request, found)
        return await self.writer.submit(Job(lambda conn: self._claim_in(conn, request, now_ms), durable=True))

    async def _is_to_judge(self, request: ClaimRequest, found: Found) -> bool:
        """Whether somebody is in the way who may be gone. Looked at beside the writer: most owners live."""
        if not isinstance(found.got, Busy) or found.process is None:
            return False
        process = found.process
        return request.lapsed == found.got.epoch or await self.reads.ask(lambda c: self.life_in(c, process)) == "dead"

    async def _with_facts(self, request: ClaimRequest, found: Found) -> Claimed | Busy:
        if isinstance(found.got, Claimed) and found.has_facts:
            found.got.granted.models = await self.reads.ask(lambda conn: model_rows.facts(conn, request.session))
        return found.got

    def _claim_in(self, conn: Connection, request: ClaimRequest, now_ms: int) -> Claimed | Busy:
        row = conn.execute(
            "select t.*, (select transcript from sessions where key=?) as bound from transcripts t where id=?"
            " for update of t",
            (request.session, request.transcript),
        ).fetchone()
        if row["bound"] != request.transcript:
            self._known.pop(request.session, None)
            raise SessionMovedError(f"session {request.session!r} was bound to another transcript meanwhile; try again")
        lapsed = request.lapsed if self._is_still_lapsed(conn, request, row) else None
        owner = claims.live_owner(row, lapsed, lambda process: self.life_in(conn, process))
        owner = owner or claims.owner_left_to_others(conn, row, self.options.is_left)
        if owner is not None:
            return owner
        wanted = inbox.by_id(conn, request.input_id) if request.input_id is not None else None
        if wanted is not None and self._close_if_answered_before(conn, wanted, now_ms):
            wanted = inbox.by_id(conn, wanted["id"])
        head, findings = transcripts.take_baseline(conn, request.transcript, self.clock)

        def close(conn: Connection, predecessor: Predecessor) -> None:
            self._close(conn, request.transcript, predecessor, now_ms)

        granted = claims.claim(
            conn, request, row, wanted, limits=self.options.limits, now_ms=now_ms, known_numbers=(), end=head.end,
            close=close,
        )  # fmt: skip
        if isinstance(granted, Busy):
            return granted
        before = granted.input_row
        landed: dict[str, Position] = {}
        if before is not None and before["first_offset"] is not None:
            landed = transcripts.find_lines_of(conn, request.transcript, before["first_offset"], before["id"])
        return Claimed(granted, head, findings, landed)

    def _is_still_lapsed(self, conn: Connection, request: ClaimRequest, row: Row) -> bool:
        """Asked again in the transaction: where the database had stood still, all beats go on at once."""
        if request.lapsed is None or row["owner_turn"] is None:
            return False
        return self.watch.has_lapsed(request.transcript, request.lapsed, beat_of(conn, row["owner_turn"]))

    def _close_if_answered_before(self, conn: Connection, wanted: Row, now_ms: int) -> bool:
        """A final line wins over an input that is open: looked for whenever the input may have run before."""
        if wanted["state"] != "queued" or wanted["first_offset"] is None:
            return False
        final = transcripts.find_final(
            conn, wanted["transcript"], wanted["first_offset"], self.store_id, wanted["id"]
        )  # fmt: skip
        if final is not None:
            inbox.settle(conn, wanted, answered_from(final), now_ms)
        return final is not None

    def _close(self, conn: Connection, transcript: str, predecessor: Predecessor, now_ms: int) -> None:
        final = None
        if predecessor.input_id is not None:
            start = predecessor.first_offset or 0
            final = transcripts.find_final(conn, transcript, start, self.store_id, predecessor.input_id)
        detail = f"process {predecessor.process} ended or lapsed"
        close_predecessor(conn, transcript, predecessor, final, detail, now_ms)
        conn.execute("delete from beats where turn=?", (predecessor.turn,))

    def _give_back(self, request: ClaimRequest, work: asyncio.Future[Any]) -> None:
        """The caller has gone; `work` is done. Whoever is next finds nothing of it, and nothing is charged."""
        if work.cancelled() or work.exception() is not None or not isinstance(work.result(), Claimed):
            return
        granted, now_ms = work.result().granted, self.now_ms()

        def run(conn: Connection) -> None:
            row = inbox.by_id(conn, granted.input_row["id"]) if granted.input_row is not None else None
            if row is not None and row["epoch_nonce"] == granted.epoch.nonce and row["state"] == "running":
                inbox.requeue(conn, row, charge=False, solo=bool(row["solo"]), why="its claimer left", now_ms=now_ms)
            claims.end_turn(conn, request.turn, "abandoned", "its claimer left", now_ms)
            claims.release(conn, request.transcript, granted.epoch)

        self.writer.post(run)
        self.tell_of_free_slot()

    # ── signs of life ────────────────────────────────────────────────────────────────────────────────────────────────

    def start_beating(
        self, owned: OwnedTurn, *, still_runs: Callable[[], bool], report: Callable[[], Report] | None = None
    ) -> None:
        self.node.start(owned.turn, self.options.turn_max_s, still_runs, report)

    async def watch_owner(self, owner: Owner) -> tuple[bytes, float]:
        beat = await self.reads.ask(lambda conn: beat_of(conn, owner.turn))
        return beat, self.watch.look(owner.transcript, owner.epoch, beat)

    # ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def recover_dead(self) -> int:
        """Close the turns of nodes that are gone; returns how many. Where a node's connection has ended a moment ago it
        waits until it is known whether it comes back (`GONE_S`).
        """
        until = self.clock.mono() + RECOVERY_S
        while True:
            owned = await self.reads.owned_transcripts(self.life_in)
            if all(life != "unknown" for _, _, life in owned) or self.clock.mono() >= until:
                break
            await self.clock.sleep(LOOK_S / 2)
        closed = 0
        for owner in await self.owners() if any(life == "dead" for _, _, life in owned) else ():
            if owner.life != "dead" or self.options.is_left(owner.sessions):
                continue
            try:
                done = await self._recover(owner, lapsed=False)
            except ResourceError as exc:
                if self.stopped:
                    raise
                log.error("the turn of node %s on transcript %s stays open: %s", owner.process, owner.transcript, exc)
                continue
            if done:
                log.info("session.recovery.completed outcome=effective session=%s turn=%s epoch=%d detail=%s",
                         on_one_line(owner.where), owner.turn, owner.epoch.number, "its node is gone")  # fmt: skip
            closed += done
        if closed:
            self.tell_of_free_slot()
        return closed

    async def close_turn_of(self, owner: Owner, *, lapsed: bool) -> bool:
        self.refuse_if_forked()
        closed = await self._recover(owner, lapsed=lapsed)
        if closed:
            self.slot_freed.set()
        return closed

    async def _recover(self, owner: Owner, *, lapsed: bool) -> bool:
        """As the next owner would. The epoch is raised as well: a node that is gone may only have been cut off, and
        finds itself superseded when it goes on.
        """
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            row = conn.execute(
                "select * from transcripts where id=? and owner_turn is not null for update", (owner.transcript,)
            ).fetchone()
            if row is None or Epoch(row["epoch_number"], row["epoch_nonce"]) != owner.epoch:
                return False
            beat = beat_of(conn, row["owner_turn"])
            has_lapsed = lapsed and self.watch.has_lapsed(owner.transcript, owner.epoch, beat)
            if not has_lapsed and self.life_in(conn, row["owner_process"]) != "dead":
                return False
            self._close(conn, owner.transcript, claims.predecessor_of(conn, row), now_ms)
            claims.raise_epoch(conn, owner.transcript, owner.epoch, ())
            return True

        return await self.writer.submit(Job(run, durable=True))
