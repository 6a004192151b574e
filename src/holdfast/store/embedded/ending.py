"""How turns end: settled with their deliveries, put back, or lost with the answer kept."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import (
    CoordinationError,
    ResourceError,
)
from holdfast.model.policy import ModelsAfter
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Epoch
from holdfast.store.embedded import child_rows, claims, durable, inbox, model_rows, queueing, usage_rows
from holdfast.store.embedded.claims import OwnedTurn
from holdfast.store.embedded.core import Build
from holdfast.store.embedded.writer import Job
from holdfast.store.embedded.writing import Writing

log = logging.getLogger("holdfast.store")


class Ending(Writing):
    """Settling exactly once."""

    async def stop_writing(self, owned: OwnedTurn) -> None:
        """From now on the turn appends nothing; an append that is under way has ended when this returns, one that waits
        for the lock (its caller was cancelled) will find that it came too late.
        """
        claim = owned.claim
        if claim.writing.acquire(blocking=False):
            claim.ended = True
            claim.writing.release()
        else:
            await self.in_thread(claim.end)

    async def settle(
        self,
        owned: OwnedTurn,
        outcome: Outcome | None,
        turn_outcome: str,
        detail: str | None,
        events: list[inbox.StoryLine],
        models: ModelsAfter | None = None,
        joined: Collection[str] = (),
        calls: Sequence[ModelCall] = (),
    ) -> str | None:
        """End the turn: transcript synced, then one ledger commit for input, outbox, turn and claim. Idempotent.

        Args:
            models: what the turn has found out of models, to be kept if its answer is.
            joined: inputs that the final line names besides the turn's own.
            calls: what it has asked of models, to be kept whatever becomes of it.

        Returns: the state its input is in now (None for a turn without one). It may differ from `outcome`: if the turn
        had been taken over, whoever took over has settled the input.
        """
        claim, now_ms = owned.claim, self.now_ms()
        row = owned.input_row

        def run(conn: sqlite3.Connection) -> str | None:
            state = None
            if row is not None and outcome is not None:
                state, is_ours = inbox.settle_if_owned(conn, row, claim.epoch, outcome, now_ms, claim.turn)
                if is_ours and models is not None:
                    model_rows.take_in(conn, row["session"], row["id"], models, now_ms)
                if is_ours and joined and state == "answered":
                    queueing.settle_joined(conn, owned.transcript, claim.turn, joined, outcome, now_ms)
            if events:
                inbox.note_events(conn, events)
            usage_rows.put(conn, calls)
            claims.end_turn(conn, claim.turn, turn_outcome, detail, now_ms)
            # what this turn wrote was synced before this; what others wrote since that sync was not
            is_durable = max(claim.record.synced, claim.synced.end) >= claim.record.end
            durable = claim.record if is_durable and claim.lost is None else None
            claims.release(conn, owned.transcript, claim.epoch, durable)
            return state

        def sync_first() -> None:
            self.options.faults("settle.before_sync")
            owned.file.sync_of(claim)
            self.options.faults("settle.after_sync")

        def finish(committed: bool, result: Any) -> Any:
            if committed:
                self.options.faults("settle.after_commit")
            self.leave_line(owned)
            return result

        sync = sync_first if claim.landings and claim.lost is None else None
        job = Job(run, durable=row is not None, essential=True, sync=sync, prepare=lambda: None, finish=finish)
        return await self._end_with(owned, job)

    async def _end_with(self, owned: OwnedTurn, job: Job) -> Any:
        """Cancelled: the job runs all the same, and the turn is let go of when it has."""

        job.when_over = lambda over: self._let_go(owned, is_recorded=over.error is None)
        try:
            done = self.writer.submit(job)
        except BaseException:
            self._let_go(owned, is_recorded=False)
            raise
        return await done

    def _let_go(self, owned: OwnedTurn, *, is_recorded: bool) -> None:
        """What is true of every end of a turn, recorded or not: it shows no more life and stands in nobody's way. Its
        file stays open until the end is recorded, since that is tried again.
        """
        self.beater.stop(owned.claim.turn)
        self.leave_line(owned)
        if is_recorded and not owned.let_go:
            owned.let_go = True
            owned.file.users -= 1
        self.tell_of_free_slot()

    def leave_line(self, owned: OwnedTurn) -> None:
        if owned.has_line:
            owned.has_line = False
            owned.file.line.release()

    async def requeue(
        self, owned: OwnedTurn, why: str, *, charge: bool, yielded: bool = False, calls: Sequence[ModelCall] = ()
    ) -> None:
        """Put the turn's input back in its place (the process goes away, or the turn yields) and end the turn."""
        claim, now_ms = owned.claim, self.now_ms()

        def run(conn: sqlite3.Connection) -> None:
            row = inbox.by_id(conn, owned.input_row["id"]) if owned.input_row is not None else None
            if row is not None and row["epoch_nonce"] == claim.epoch.nonce and row["state"] == "running":
                inbox.requeue(conn, row, charge=charge, solo=bool(row["solo"]), why=why, now_ms=now_ms)
                if yielded:
                    inbox.note_yield(conn, row["id"], now_ms)
            usage_rows.put(conn, calls)
            claims.end_turn(conn, claim.turn, "requeued", why, now_ms)
            claims.release(conn, owned.transcript, claim.epoch)

        await self._end_with(owned, Job(run, durable=True, essential=True))

    async def salvage_line(self, owned: OwnedTurn, entry_id: str, build: Build) -> str:
        """Keep a finished answer as one line for people, or, where the file is not ours to touch, beside it.

        Returns: where it is kept, in words.
        """
        lost = owned.claim.lost
        if lost is not None and lost.kind == "superseded":
            try:
                await self.append_unowned(owned.file, entry_id, build)
                await self.in_thread_with(owned.file, owned.file.sync)
                return f"{owned.file.path} (line {entry_id})"
            except (CoordinationError, ResourceError) as exc:
                log.warning("salvage of %s goes beside the transcript: %s", entry_id, exc)
        return await self.in_thread(self._salvage_beside, owned.file.path, entry_id, build(None))

    @staticmethod
    def _salvage_beside(path: Path, entry_id: str, raw: bytes) -> str:
        beside = path.with_name(f"{path.name}.kept-{entry_id[:16]}.jsonl")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                durable.write_all(fd, raw)
                durable.sync_data(fd)
            finally:
                os.close(fd)
            durable.sync_folder(path.parent)
        except OSError as exc:
            raise ResourceError(f"cannot keep the answer in {beside}: {exc.strerror}") from exc
        return str(beside)

    async def settle_salvaged(self, input_id: str, epoch: Epoch, outcome: Outcome) -> str:
        """One transaction asks whether the input is still open and not claimed by another; only then does it settle.
        Else the answer is kept for the case that all later attempts fail.

        Returns: the state the input is in afterwards.
        """
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> str:
            row = inbox.by_id(conn, input_id)
            assert row is not None
            ours = row["state"] == "running" and row["epoch_nonce"] == epoch.nonce
            if row["state"] == "queued" or ours:
                return inbox.settle(conn, row, outcome, now_ms)
            inbox.keep_answer(conn, input_id, outcome)
            return row["state"]

        return await self.writer.submit(Job(run, durable=True, essential=True))

    async def settle_unclaimed(self, input_id: str, outcome: Outcome) -> str:
        """End an input that no turn can be had for. Only if it is queued.

        Returns: the state the input is in afterwards.
        """
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> str:
            row = inbox.by_id(conn, input_id)
            assert row is not None
            return inbox.settle(conn, row, outcome, now_ms) if row["state"] == "queued" else row["state"]

        return await self.writer.submit(Job(run, durable=True, essential=True))

    async def request_cancel(self, input_id: str, by: str) -> str:
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> str:
            asked = inbox.request_cancel(conn, input_id, by, now_ms)
            if not asked.startswith("already"):
                child_rows.stop_those_of(conn, input_id=input_id, by=by, now_ms=now_ms)
            return asked

        return await self.writer.submit(Job(run, durable=True))
