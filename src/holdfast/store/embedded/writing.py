"""Writing under a claim, or beside it: the owner's lines, metadata, and what of it is durable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from holdfast.errors import (
    ResourceError,
    SessionTakeoverError,
    TranscriptUnsettledError,
)
from holdfast.session.entries import FORMAT_VERSION
from holdfast.session.fence import Verdict
from holdfast.store.embedded import baseline
from holdfast.store.embedded.core import Build, StoreCore
from holdfast.store.embedded.holding import Position, Reached, TranscriptFile
from holdfast.store.embedded.owned import OwnedTurn, note_end
from holdfast.store.embedded.patience import Patience
from holdfast.store.embedded.recovering import facts_of
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.shielded import shielded

log = logging.getLogger("holdfast.store")


class Writing(StoreCore):
    """Appending. The one holding itself is `holding.py`."""

    async def inspect(self, owned: OwnedTurn) -> Verdict:
        """The fence, without writing. Raises SessionTakeoverError or OwnershipLostError when the turn is lost."""
        owned.claim.raise_if_lost(owned.file.path)  # the file of a turn that has ended may be closed
        verdict = await self.with_lock(owned.file, lambda proof: owned.file.inspect(owned.claim, proof), owned)
        if owned.claim.lost is not None:
            raise SessionTakeoverError(verdict, str(owned.file.path))
        return verdict

    lines_may_wait = False
    """A line costs no commit of the ledger's."""

    async def append(
        self, owned: OwnedTurn, lines: Sequence[tuple[str, Build]], *, sync: bool, soon: bool = False
    ) -> tuple[Verdict, list[Position]]:
        """Append the owner's lines in one holding; `sync`: durable before it returns. None waits, whatever `soon` says.

        A disk that refuses for a reason that may pass is asked again for up to `disk_patience_s`.

        Cancelled: the lines are there whole or not at all; appending the same ids again writes nothing twice.
        """
        del soon
        owned.claim.raise_if_lost(owned.file.path)  # the file of a turn that has ended may be closed
        done = await self._append_patiently(owned, lines)
        if sync:
            await self.sync(owned)
        return done

    async def _append_patiently(
        self, owned: OwnedTurn, lines: Sequence[tuple[str, Build]]
    ) -> tuple[Verdict, list[Position]]:
        """One holding; another one a moment later if the disk refuses for a reason that may pass. Between them the lock
        is free, and the fence looks anew.
        """
        patience = Patience(self.clock, self.options.disk_patience_s)
        while True:
            try:
                done = await self.with_lock(
                    owned.file, lambda proof: owned.file.append_owned(owned.claim, lines, proof), owned
                )
            except ResourceError as refused:
                if patience.tries == 0:
                    log.warning("turn %s: %s", owned.claim.turn, refused)
                if not await patience.wait_after(refused):
                    raise
            else:
                if patience.tries:
                    log.info("turn %s: the disk took it at try %d", owned.claim.turn, patience.tries + 1)
                return done

    async def sync(self, owned: OwnedTurn) -> None:
        """Make what the turn has appended durable. On the ledger's thread if that has nothing else to do: a task for
        the pool costs half a sync more.
        """
        if self.writer.is_idle:
            job = Job(sync=lambda: owned.file.sync_of(owned.claim))
            await shielded(self.in_use(owned.file, self.writer.submit(job)))
        else:
            await self.in_thread_with(owned.file, owned.file.sync_of, owned.claim)

    async def append_metadata(self, transcript: str, entry_id: str, build: Build, *, sync: bool) -> Position:
        """Append one line that is not conversation. Needs the write lock and no turn."""
        file = await self.file_of(transcript)
        file.users += 1
        try:
            try:
                position = await self.append_unowned(file, entry_id, build)
            except TranscriptUnsettledError:
                if await self.reads.owner(transcript) is not None:
                    raise
                await self._make_ready(file, transcript)
                position = await self.append_unowned(file, entry_id, build)
            if sync:
                await self.in_thread_with(file, file.sync)
            return position
        finally:
            file.users -= 1

    async def append_unowned(self, file: TranscriptFile, entry_id: str, build: Build) -> Position:
        """One holding with the write lock alone. Where another process owns the turn, what was recorded is noted in the
        ledger, too: the fence record may vanish, and the owner does not know of this line yet.
        """
        owners: list[str] = []

        def act(_: Any) -> Position:
            position = file.append_unowned(entry_id, build)
            record = file.record.newest
            if record is not None and record.turn and record.process != self.process:
                owners.append(record.turn)
            return position

        position = await self.with_lock(file, act, None)
        if owners:
            await self._note_end(file, owners[-1], Reached(position.offset + position.length, position.link))
        return position

    async def _note_end(self, file: TranscriptFile, turn: str, reached: Reached) -> None:
        now_ms = self.now_ms()
        try:
            await self.writer.submit(Job(lambda conn: note_end(conn, turn, self.process, reached, now_ms)))
        except ResourceError as exc:  # the line is there all the same, and recorded
            log.warning("%s: how far it is recorded could not be noted in the ledger: %s", file.path, exc)

    async def _make_ready(self, file: TranscriptFile, transcript: str) -> None:
        """Nobody owns the transcript: a metadata writer may take the baseline that the next owner would take."""

        def run(conn: Connection) -> None:
            row = conn.execute("select * from transcripts where id=?", (transcript,)).fetchone()
            if row["owner_turn"] is not None:
                return
            base = baseline.take_baseline(file, facts_of(row), self.clock)
            if base.version < FORMAT_VERSION:
                raise TranscriptUnsettledError(
                    f"{file.path} has session format {base.version}; the next turn writes it anew in format "
                    f"{FORMAT_VERSION}, and metadata after it"
                )
            file.record.write(base.left_unjudged())

        def finish(_committed: bool, _result: Any) -> None:
            file.release()

        await self.submit_holding(file, Job(run, prepare=lambda: None, finish=finish))
