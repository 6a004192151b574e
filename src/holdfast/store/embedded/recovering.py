"""Closing turns: of whoever owned a transcript before, and of the dead, found by whoever looks for them."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.errors import (
    ResourceError,
    SessionWriteLockStaleError,
    SessionWriteLockTimeoutError,
    TranscriptFormatError,
)
from holdfast.recovery.classify import Owner
from holdfast.session.fence import Epoch, Fingerprint
from holdfast.store.embedded import baseline
from holdfast.store.embedded.baseline import LedgerFacts
from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.scan import find_final
from holdfast.store.embedded.sentinel import describe
from holdfast.store.sql import claims
from holdfast.store.sql.booting import Booting
from holdfast.store.sql.claims import Predecessor
from holdfast.store.sql.closing import close_predecessor
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.shielded import shielded
from holdfast.text import on_one_line

log = logging.getLogger("holdfast.store")
PAST_STALE_MS = 1000
"""How long a recovery waits to get past a lock file that was stale a moment ago."""


class Recovering(Booting, StoreCore):
    """What becomes of a turn whose owner is gone."""

    @staticmethod
    def take_out_of_force(file: TranscriptFile) -> None:
        """Before the predecessor is closed in the ledger its record names nobody, so that the ledger decides. Else a
        predecessor that lives could write on if we died between the commit and our own record. Write lock held.
        """
        rec = file.record.read()
        if rec is not None and rec.epoch.nonce:
            file.record.write(replace(rec, epoch=Epoch(rec.epoch.number, "")))

    def close_predecessor(
        self,
        conn: Connection,
        file: TranscriptFile | None,
        transcript: str,
        predecessor: Predecessor,
        now_ms: int,
    ) -> None:
        """Whoever takes over first closes the one before: final lines are synced and settled, the rest is queued
        again. `file` is None if the session's file is no transcript any more.
        """
        final = None
        if file is not None and predecessor.input_id is not None:
            final = find_final(file.fd, predecessor.first_offset or 0, self.store_id, predecessor.input_id)
            if final is not None:
                file.sync()
        detail = f"process {describe(self.state.processes, predecessor.process)} ended or lapsed"
        close_predecessor(conn, transcript, predecessor, final, detail, now_ms)

    async def recover_dead(self) -> int:
        """Close the turns of processes that are dead; returns how many. Touches no live owner, and is safe to run
        twice. Waits for no write lock: whoever holds one sees to that transcript, or is looked after next time.
        """
        closed = 0
        owned = await self.reads.owned_transcripts(self.life_in)
        if all(life != "dead" for _, _, life in owned):
            return 0
        for owner in await self.reads.ask(
            lambda conn: claims.owners(conn, self.process, lambda process: self.life_in(conn, process))
        ):
            if owner.life != "dead" or self.options.is_left(owner.sessions):
                continue
            try:
                done = await self._recover(owner.transcript, owner.epoch)
            except ResourceError as exc:  # the others are not to wait for this one
                if self.stopped:
                    raise
                log.error("the turn of dead process %s on transcript %s stays open: %s", owner.process,
                          owner.transcript, exc)  # fmt: skip
                continue
            if done:
                log.info("session.recovery.completed outcome=effective session=%s turn=%s epoch=%d detail=%s",
                         on_one_line(owner.where), owner.turn, owner.epoch.number, "its process is dead")  # fmt: skip
            closed += done
        if closed:
            self.tell_of_free_slot()
        return closed

    async def watch_owner(self, owner: Owner) -> tuple[bytes, float]:
        file = await self.file_of(owner.transcript)
        beat = file.record.read_beat()
        return beat, self.watch.look(owner.transcript, owner.epoch, beat)

    async def close_turn_of(self, owner: Owner, *, lapsed: bool) -> bool:
        self.refuse_if_forked()
        closed = await self._recover(owner.transcript, owner.epoch, lapsed=lapsed)
        if closed:
            self.slot_freed.set()
        return closed > 0

    async def _recover(self, transcript: str, epoch: Epoch | None = None, *, lapsed: bool = False) -> int:
        """`epoch`: only that one's turn. `lapsed`: also of a process that lives, if its beat has stood still."""
        try:
            file = await self.file_of(transcript)
            job = self._recovery_job(file, transcript, epoch, lapsed=lapsed)
            if not file.try_hold():
                return await self._recover_past_stale(file, job)
            return await shielded(self.in_use(file, self.writer.submit(job)))
        except (
            TranscriptFormatError
        ) as exc:  # the input does not wait for ever: whoever claims it says so to its sender
            log.error("a dead turn is closed without its transcript: %s", exc)
            return await shielded(self.writer.submit(self._recovery_job(None, transcript)))

    async def _recover_past_stale(self, file: TranscriptFile, job: Job) -> int:
        """A process that died in a holding has left OpenClaw's lock file behind: it takes a thread to get past it."""
        if file.beside is None or not file.beside.find().may_be_taken_over:
            return 0
        try:
            return await self.submit_holding(file, job, PAST_STALE_MS)
        except SessionWriteLockStaleError as exc:
            log.error("a dead turn stays open: %s", exc)
        except SessionWriteLockTimeoutError:
            pass  # somebody else has it; the next look tells
        return 0

    def _recovery_job(
        self, file: TranscriptFile | None, transcript: str, epoch: Epoch | None = None, *, lapsed: bool = False
    ) -> Job:
        """As the next owner would: the baseline first, so that nothing unsynced or damaged is settled by. The epoch of
        a process that lives is raised as well, so that it finds itself superseded when it goes on.
        """
        now_ms = self.now_ms()
        base: baseline.Baseline | None = None
        raised: Epoch | None = None

        def run(conn: Connection) -> int:
            nonlocal base, raised
            row = conn.execute(
                "select * from transcripts where id=? and owner_turn is not null", (transcript,)
            ).fetchone()
            if row is None:
                return 0
            owner = Epoch(row["epoch_number"], row["epoch_nonce"])
            is_dead = self.life_in(conn, row["owner_process"]) == "dead"
            has_lapsed = lapsed and file is not None and self.has_lapsed(file, transcript, owner)
            if (epoch is not None and owner != epoch) or not (is_dead or has_lapsed):
                return 0
            if file is not None:
                base = baseline.take_baseline(file, facts_of(row), self.clock)
                if not is_dead:
                    self.take_out_of_force(file)
            self.close_predecessor(conn, file, transcript, claims.predecessor_of(conn, row), now_ms)
            if not is_dead:
                raised = claims.raise_epoch(conn, transcript, owner, base.epoch_numbers if base is not None else ())
            return 1

        def finish(committed: bool, result: Any) -> Any:
            if file is not None:
                try:
                    if committed and base is not None:
                        left = base.left_unjudged()
                        if raised is not None:
                            left = replace(left, epoch=raised, turn="", process=self.process)
                        file.record.write(left)
                finally:
                    file.release()
            for finding in base.findings if base is not None else ():
                log.warning("transcript %s: %s", transcript, finding)
            return result if committed else 0

        return Job(run, durable=True, prepare=lambda: None, finish=finish)

    def has_lapsed(self, file: TranscriptFile, transcript: str, epoch: Epoch) -> bool:
        return self.watch.has_lapsed(transcript, epoch, file.record.read_beat())


def facts_of(row: Row) -> LedgerFacts:
    """What a transcript's row says about its file."""
    raw = row["fingerprint"]
    fingerprint = msgspec.msgpack.decode(raw, type=Fingerprint) if raw else None
    return LedgerFacts(
        row["boot"], row["synced_end"], row["synced_link"], row["anchor"], row["anchor_digest"], fingerprint,
        row["epoch_number"], row["ino"],
    )  # fmt: skip
