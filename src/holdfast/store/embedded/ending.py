"""How turns end: settled with their deliveries, put back, or lost with the answer kept."""

from __future__ import annotations

import logging
import os
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
from holdfast.store.embedded import durable
from holdfast.store.embedded.core import Build
from holdfast.store.embedded.owned import OwnedTurn, release
from holdfast.store.embedded.scan import find_lines_of
from holdfast.store.embedded.writing import Writing
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ending import End, LedgerEnding, record_end, record_requeue
from holdfast.store.sql.ledger import Job

log = logging.getLogger("holdfast.store")


class Ending(LedgerEnding, Writing):
    """Settling exactly once."""

    def end_of(self, owned: OwnedTurn) -> int:
        return owned.claim.record.end

    async def recall_lines(self, owned: OwnedTurn, input_id: str, start: int) -> None:
        owned.claim.landed.update(await self.in_thread(find_lines_of, owned.file.fd, start, input_id))

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
        last: Sequence[tuple[str, Build]] = (),
    ) -> str | None:
        """End the turn: transcript synced, then one ledger commit for input, outbox, turn and claim. Idempotent.

        Args:
            models: what the turn has found out of models, to be kept if its answer is.
            joined: inputs that the final line names besides the turn's own.
            calls: what it has asked of models, to be kept whatever becomes of it.

        Returns: the state its input is in now (None for a turn without one). It may differ from `outcome`: if the turn
        had been taken over, whoever took over has settled the input.
        """
        assert not last  # `lines_may_wait` is false
        claim, now_ms = owned.claim, self.now_ms()

        def run(conn: Connection) -> str | None:
            end = End(outcome, turn_outcome, detail, events, models, joined, calls)
            state = record_end(conn, owned, end, now_ms)
            # what this turn wrote was synced before this; what others wrote since that sync was not
            is_durable = max(claim.record.synced, claim.synced.end) >= claim.record.end
            release(conn, owned.transcript, claim.epoch, claim.record if is_durable and claim.lost is None else None)
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
        job = Job(
            run, durable=owned.input_row is not None, essential=True, sync=sync, prepare=lambda: None, finish=finish
        )
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
        now_ms = self.now_ms()

        def run(conn: Connection) -> None:
            record_requeue(conn, owned, why, charge=charge, yielded=yielded, calls=calls, now_ms=now_ms)

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
