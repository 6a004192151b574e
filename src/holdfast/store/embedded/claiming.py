"""Claims: one holding of the write lock, one ledger transaction, then the record. Closing whoever owned before is in
`recovering.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from holdfast.errors import (
    ResourceError,
    SessionMovedError,
)
from holdfast.recovery.progress import Report
from holdfast.session.entries import Origin
from holdfast.session.fence import Epoch
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.embedded import baseline, waiting
from holdfast.store.embedded.holding import Claim, TranscriptFile
from holdfast.store.embedded.mending import Pen, mend
from holdfast.store.embedded.owned import OwnedTurn
from holdfast.store.embedded.recovering import Recovering, facts_of
from holdfast.store.embedded.scan import find_final, find_lines_of, first_offsets
from holdfast.store.sql import claims, inbox
from holdfast.store.sql.claims import Granted, Predecessor
from holdfast.store.sql.closing import answered_from
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.ledger import Job

log = logging.getLogger("holdfast.store")


class _ContendedError(Exception):
    """The write lock was not free at once (internal: the caller waits for it on a thread)."""


class _NotPlainError(Exception):
    """There is something to read, sync or close first, which is not done on an event loop (internal)."""


class _TakesOverError(Exception):
    """The claim closes a predecessor, which may end an input: that is committed with a sync (internal)."""


_InLedger = tuple[Granted | Busy, baseline.Baseline | None]
"""What the transaction of a claim came to. Without a baseline somebody else owns the transcript."""


class Claiming(Recovering):
    """Taking a transcript. Read `_claim_job` first."""

    async def claim(self, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> OwnedTurn | Busy:
        """Own a transcript, waiting up to `wait_s` seconds for it; see `waiting.wait_and_claim`."""
        self.refuse_if_forked()
        return await waiting.wait_and_claim(self, request, wait_s=wait_s, fence_mode=fence_mode)

    async def claim_once(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str, *, has_line: bool
    ) -> OwnedTurn | Busy:
        """Try to take the transcript, once. The line, if the caller holds it, goes with the turn or is released.

        Cancelled: if it was granted meanwhile, it is given back first and the line released then.

        Raises:
            TranscriptFormatError, ResourceError, SessionWriteLockTimeoutError: nothing was claimed.
        """
        try:
            owned = self._claim_at_once(file, request, fence_mode)
            if owned is None:
                owned = await self._claim_queued(file, request, fence_mode, has_line)
        except asyncio.CancelledError:
            raise  # `_claim_queued` has seen to the line
        except BaseException:
            self._leave_unclaimed(file, has_line)
            raise
        if isinstance(owned, OwnedTurn):
            owned.has_line = has_line
        else:
            self._leave_unclaimed(file, has_line)
        return owned

    async def _claim_queued(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str, has_line: bool
    ) -> OwnedTurn | Busy:
        task = self.in_use(file, asyncio.ensure_future(self._claim_holding_lock(file, request, fence_mode)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._give_back(file, done, has_line))
            raise

    @staticmethod
    def _leave_unclaimed(file: TranscriptFile, has_line: bool) -> None:
        if has_line:
            file.line.release()

    def _claim_at_once(self, file: TranscriptFile, request: ClaimRequest, fence_mode: str) -> OwnedTurn | Busy | None:
        """The plain case on this very thread: nobody owns it, waits for it or has written to it. None: not plain."""
        job = self._claim_job(file, request, fence_mode, lock_held=False, only_if_plain=True)
        if not self.writer.run_at_once(job) or isinstance(job.error, _NotPlainError | _ContendedError):
            return None
        if job.error is not None:
            raise job.error
        return job.result

    def _give_back(self, file: TranscriptFile, task: asyncio.Future[OwnedTurn | Busy], has_line: bool) -> None:
        """The caller has gone; `task` is done. Whoever is next in line finds nothing of it."""
        if task.cancelled() or task.exception() is not None or not isinstance(owned := task.result(), OwnedTurn):
            self._leave_unclaimed(file, has_line)
            return
        turn, now_ms = owned.claim.turn, self.now_ms()

        def run(conn: Connection) -> None:
            self._abandon(conn, owned.input_row, owned.transcript, owned.epoch, turn, now_ms)

        def finish(_committed: bool, _result: Any) -> None:
            self._leave_unclaimed(file, has_line)
            file.users -= 1

        self.writer.submit(Job(run, prepare=lambda: None, finish=finish)).add_done_callback(
            lambda _: self.tell_of_free_slot()
        )

    @staticmethod
    def _abandon(conn: Connection, claimed: Row | None, transcript: str, epoch: Epoch, turn: str, now_ms: int) -> None:
        """A claim whose waiter had gone: the input goes back to its place, nothing is charged."""
        row = inbox.by_id(conn, claimed["id"]) if claimed is not None else None
        if row is not None and row["epoch_nonce"] == epoch.nonce and row["state"] == "running":
            inbox.requeue(conn, row, charge=False, solo=bool(row["solo"]), why="its claimer left", now_ms=now_ms)
        claims.end_turn(conn, turn, "abandoned", "its claimer left", now_ms)
        claims.release(conn, transcript, epoch)

    async def _claim_holding_lock(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str
    ) -> OwnedTurn | Busy:
        try:
            return await self._submit_claim(file, request, fence_mode, durable=False)
        except _TakesOverError:
            return await self._submit_claim(file, request, fence_mode, durable=True)

    async def _submit_claim(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str, *, durable: bool
    ) -> OwnedTurn | Busy:
        try:
            job = self._claim_job(file, request, fence_mode, lock_held=False, durable=durable)
            return await self.writer.submit(job)
        except _ContendedError:
            job = self._claim_job(file, request, fence_mode, lock_held=True, durable=durable)
            return await self.submit_holding(file, job)

    def _claim_job(
        self,
        file: TranscriptFile,
        request: ClaimRequest,
        fence_mode: str,
        *,
        lock_held: bool,
        durable: bool = False,
        only_if_plain: bool = False,
    ) -> Job:
        """One holding of the write lock: one ledger transaction, then the record.

        `durable`: the commit is synced. One that closes a predecessor has to be, since it may end an input, and whoever
        is told of that end must not see it undone by a power loss.
        """
        now_ms = self.now_ms()

        def prepare() -> None:
            if not lock_held and not file.try_hold():
                raise _ContendedError

        def run(conn: Connection) -> _InLedger:
            return self._claim_in_ledger(conn, file, request, now_ms, durable=durable, only_if_plain=only_if_plain)

        def finish(committed: bool, result: Any) -> OwnedTurn | Busy | None:
            try:
                return self._claim_in_record(file, request, fence_mode, result) if committed else None
            finally:
                file.release()

        return Job(run, durable=durable, prepare=prepare, finish=finish)

    def _claim_in_ledger(
        self, conn: Connection, file: TranscriptFile, request: ClaimRequest, now_ms: int, *, durable: bool,
        only_if_plain: bool,
    ) -> _InLedger:  # fmt: skip
        """The transaction: who owns it, what is there, is the input still open, and the claim. Write lock held."""
        row = conn.execute(
            "select t.*, (select transcript from sessions where key=?) as bound from transcripts t where id=?",
            (request.session, request.transcript),
        ).fetchone()
        facts = facts_of(row)
        may_be_plain = row["owner_turn"] is None and not request.thorough
        base = baseline.take_plain_baseline(file, facts) if may_be_plain else None
        if only_if_plain and base is None:
            raise _NotPlainError
        if row["bound"] != request.transcript:
            self._known.pop(request.session, None)
            raise SessionMovedError(f"session {request.session!r} was bound to another transcript meanwhile; try again")
        if base is None:
            owner = self._owner_in_the_way(conn, file, request, row)
            if owner is not None:
                return owner, None
            if row["owner_turn"] is not None and not durable:
                raise _TakesOverError
            base = baseline.take_baseline(file, facts, self.clock, thorough=request.thorough)
        self._recall_lost_claims(conn, file, row, base)
        wanted = inbox.by_id(conn, request.input_id) if request.input_id is not None else None
        if wanted is not None and self._close_if_answered_before(conn, file, wanted, row, base, now_ms):
            wanted = inbox.by_id(conn, wanted["id"])
        if base.faults:
            claims.forget_offsets(conn, request.transcript)
            wanted = inbox.by_id(conn, wanted["id"]) if wanted is not None else None

        def close(conn: Connection, predecessor: Predecessor) -> None:
            self.take_out_of_force(file)
            self.close_predecessor(conn, file, request.transcript, predecessor, now_ms)

        granted = claims.claim(
            conn, request, row, wanted, limits=self.options.limits, now_ms=now_ms, known_numbers=base.epoch_numbers,
            end=0 if base.faults else base.record.end, close=close,
        )  # fmt: skip
        return granted, base

    def _owner_in_the_way(self, conn: Connection, file: TranscriptFile, request: ClaimRequest, row: Row) -> Busy | None:
        """Who owns the transcript and may not be closed; None: nobody, or one that is dead or lapsed."""
        lapsed = request.lapsed if self._is_still_lapsed(file, request) else None
        owner = claims.live_owner(row, lapsed, lambda process: self.life_in(conn, process))
        return owner or claims.owner_left_to_others(conn, row, self.options.is_left)

    def _claim_in_record(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str, in_ledger: _InLedger
    ) -> OwnedTurn | Busy:
        """The transaction is committed: now the record. Write lock held."""
        granted, base = in_ledger
        if base is None:
            assert isinstance(granted, Busy)
            return granted
        self.options.faults("claim.after_commit")
        if isinstance(granted, Granted):
            return self._enter_or_give_back(file, request, granted, base, fence_mode)
        if granted.raised is not None:
            left = base.left_unjudged()
            file.record.write(replace(left, epoch=granted.raised, turn="", process=self.process))
        return granted

    def _is_still_lapsed(self, file: TranscriptFile, request: ClaimRequest) -> bool:
        """Asked again in the transaction: a disk that had stood still for everybody lets all beats go on at once."""
        lapsed = request.lapsed
        return lapsed is not None and self.has_lapsed(file, request.transcript, lapsed)

    def _enter_or_give_back(
        self, file: TranscriptFile, request: ClaimRequest, granted: Granted, base: baseline.Baseline, fence_mode: str
    ) -> OwnedTurn:
        """A claim that the ledger has granted and the record cannot take (a full disk) is given back."""
        try:
            return self._enter(file, request, granted, base, fence_mode)
        except (OSError, ResourceError) as exc:
            now_ms = self.now_ms()
            self.writer.post(
                lambda conn: self._abandon(
                    conn, granted.input_row, request.transcript, granted.epoch, request.turn, now_ms
                )
            )
            raise ResourceError(f"fence record of {file.path}: {exc}; nothing was claimed") from exc

    def _enter(
        self, file: TranscriptFile, request: ClaimRequest, granted: Granted, base: baseline.Baseline, fence_mode: str
    ) -> OwnedTurn:
        """The ledger has granted: now the record (which decides from here on), then the first beat."""
        record = replace(
            base.record, epoch=granted.epoch, turn=request.turn, process=self.process, foreign="", foreign_detail="",
            unjudged=-1,
        )  # fmt: skip
        if base.faults:
            record, told = mend(file, record, self._pen_of(request, granted))
            base.findings += told
            base.needs_background_chain = False
        file.record.write(record)
        if base.needs_background_chain:
            file.users += 1
            self._pool.submit(self._chain_prefix, file)
        for finding in base.findings:
            log.warning("session %s: %s (%s)", request.session, finding, file.path)
        file.users += 1
        claim = Claim(request.turn, granted.epoch, record, fence_mode)
        before = granted.input_row  # as it was: whoever had it, or took it in, has left the place to look from
        if before is not None and before["first_offset"] is not None:
            claim.landed = find_lines_of(file.fd, before["first_offset"], before["id"])
        self.options.faults("claim.after_record")
        return OwnedTurn(
            file,
            claim,
            request.transcript,
            granted.attempt,
            granted.input_row,
            bool(granted.closed),
            list(base.findings),
            models=granted.models,
        )

    def _pen_of(self, request: ClaimRequest, granted: Granted) -> Pen:
        origin = Origin(
            store=self.store_id, turn=request.turn, epoch=granted.epoch.number, lane=request.lane, writer="repair"
        )
        return Pen(origin, self.clock)

    def _chain_prefix(self, file: TranscriptFile) -> None:
        """In the background: hash a large file's prefix, and note it if nobody else touched the file meanwhile."""
        try:
            self._chain_prefix_of(file)
        finally:
            file.users -= 1

    def _chain_prefix_of(self, file: TranscriptFile) -> None:
        before = file.record.peek()
        if before is None or before.has_chain():
            return
        seen, digest = baseline.hash_prefix(file.path, before.anchor)
        self.hold_blocking(file)
        try:
            rec, now = file.look(), file.seen
            if rec is None or now is None or rec.anchor != before.anchor or not now.same_file(seen):
                return
            if now == rec.fingerprint and rec.unjudged < 0 and not rec.foreign:
                file.record.write(replace(rec, anchor_digest=digest))
        finally:
            file.release()

    @staticmethod
    def _recall_lost_claims(conn: Connection, file: TranscriptFile, row: Row, base: baseline.Baseline) -> None:
        """A claim needs no sync of its own: a power loss, or an older ledger that was put back, may have taken it while
        lines of its turn stand in the file. They tell which inputs have been run, and from where.
        """
        if max(base.epoch_numbers, default=0) <= row["epoch_number"]:
            return
        for input_id, offset in first_offsets(file.fd, row["synced_end"]).items():
            inbox.recall_attempt(conn, input_id, offset)

    def _close_if_answered_before(
        self, conn: Connection, file: TranscriptFile, wanted: Row, row: Row,
        base: baseline.Baseline, now_ms: int,
    ) -> bool:  # fmt: skip
        """A final line in the file wins over a ledger that does not know of it: looked for whenever the input may have
        run before (an earlier attempt, or an older ledger was put back). Returns whether that settled it."""
        if wanted["state"] != "queued":
            return False
        ledger_is_older = max(base.epoch_numbers, default=0) > row["epoch_number"]
        if wanted["first_offset"] is None and not ledger_is_older:
            return False
        start = 0 if ledger_is_older else wanted["first_offset"] or 0
        final = find_final(file.fd, start, self.store_id, wanted["id"])
        if final is not None:
            file.sync()
            inbox.settle(conn, wanted, answered_from(final), now_ms)
        return final is not None

    def start_beating(
        self, owned: OwnedTurn, *, still_runs: Callable[[], bool], report: Callable[[], Report] | None = None
    ) -> None:
        """Renew the turn from a thread, as long as `still_runs` and not past the turn's maximum. What it was last heard
        of (`report`) goes with each beat.
        """
        claim = owned.claim
        self.beater.start(claim.turn, owned.file.record, claim.epoch.nonce, self.options.turn_max_s, still_runs, report)
