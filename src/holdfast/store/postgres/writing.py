"""Writing transcripts and ending turns: each one transaction that looks at the epoch first, with the row locked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from holdfast.errors import SessionTakeoverError, StateAwayError
from holdfast.model.policy import ModelsAfter
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Verdict
from holdfast.session.lines import Line
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.postgres.reading import PostgresReading
from holdfast.store.postgres.transcripts import Build, Met, OwnedTurn, Position
from holdfast.store.sql import claims, inbox
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ending import End, LedgerEnding, record_end, record_requeue
from holdfast.store.sql.ledger import Job


class Writing(LedgerEnding, PostgresCore, PostgresReading):
    """A commit is durable, so `sync` changes nothing here.

    While the database is away what a turn writes waits for it: a finished answer is written once it is back if the turn
    still owns its session then, and is salvaged if somebody else has taken it meanwhile.
    """

    # ── under a claim ────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(
        self, owned: OwnedTurn, lines: Sequence[tuple[str, Build]], *, sync: bool
    ) -> tuple[Verdict, list[Position]]:
        """Append the owner's lines in one transaction; durable when it returns. Cancelled: they are there whole or not
        at all; appending the same ids again writes nothing twice.
        """
        del sync
        met = await self._meet(owned, lambda conn: transcripts.append_owned(conn, owned, lines))
        return met.verdict, [owned.landed[entry_id] for entry_id, _ in lines]

    async def inspect(self, owned: OwnedTurn) -> Verdict:
        """The fence, without writing: a look beside the writer, as long as that finds nothing that has to be recorded.

        Raises: SessionTakeoverError or OwnershipLostError when the turn is lost.
        """
        self.refuse_if_forked()
        owned.raise_if_lost()
        try:
            if await self.reads.ask(lambda conn: transcripts.is_unchanged(conn, owned)):
                return Verdict("unchanged")
        except StateAwayError:
            pass  # the writer waits until it is back
        return (await self._meet(owned, lambda conn: transcripts.judge(conn, owned))).verdict

    async def _meet(self, owned: OwnedTurn, look: Callable[[Connection], Met]) -> Met:
        self.refuse_if_forked()
        owned.raise_if_lost()

        def run(conn: Connection) -> Met:
            owned.raise_if_lost()  # it may have ended while this waited
            return look(conn)

        async def act() -> Met:
            met: Met = await self.writer.submit(Job(run, durable=True, essential=True))
            if met.verdict.is_takeover(owned.fence_mode):
                owned.lost = met.verdict
                raise SessionTakeoverError(met.verdict, owned.path)
            owned.end, owned.leaf = met.end, met.leaf
            owned.landed.update(met.landed)
            return met

        return await asyncio.shield(asyncio.ensure_future(act()))

    async def read_tail(self, owned: OwnedTurn) -> list[Line]:
        upto = min((position.offset for position in owned.landed.values()), default=None)
        return await self.reads.ask(lambda conn: transcripts.read_context(conn, owned.transcript, upto))

    def end_of(self, owned: OwnedTurn) -> int:
        return owned.end

    async def recall_lines(self, owned: OwnedTurn, input_id: str, start: int) -> None:
        owned.landed.update(
            await self.reads.ask(lambda conn: transcripts.find_lines_of(conn, owned.transcript, start, input_id))
        )

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def stop_writing(self, owned: OwnedTurn) -> None:
        """From now on the turn appends nothing; what was submitted before has been written, or refused."""
        owned.ended = True
        await asyncio.shield(self.writer.submit(Job()))

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
        """End the turn: one transaction for input, outbox, turn and claim. Idempotent. While the database is away it
        waits until it is back. Returns: as `Store.settle`.
        """
        now_ms = self.now_ms()
        end = End(outcome, turn_outcome, detail, events, models, joined, calls)

        def run(conn: Connection) -> str | None:
            state = record_end(conn, owned, end, now_ms)
            self._let_go_in(conn, owned)
            return state

        state = await self._end_with(owned, run)
        self.options.faults("settle.after_commit")
        return state

    async def requeue(
        self, owned: OwnedTurn, why: str, *, charge: bool, yielded: bool = False, calls: Sequence[ModelCall] = ()
    ) -> None:
        """Put the turn's input back in its place and end the turn."""
        now_ms = self.now_ms()

        def run(conn: Connection) -> None:
            record_requeue(conn, owned, why, charge=charge, yielded=yielded, calls=calls, now_ms=now_ms)
            self._let_go_in(conn, owned)

        await self._end_with(owned, run)

    def _let_go_in(self, conn: Connection, owned: OwnedTurn) -> None:
        claims.release(conn, owned.transcript, owned.epoch)
        conn.execute("delete from beats where turn=?", (owned.turn,))
        self.notify_in(conn)

    async def _end_with(self, owned: OwnedTurn, run: Callable[[Connection], Any]) -> Any:
        """Cancelled: it runs all the same."""

        def over(_: Job) -> None:
            self.node.stop(owned.turn)
            self.slot_freed.set()

        return await self.writer.submit(Job(run, durable=True, essential=True, when_over=over))

    async def salvage_line(self, owned: OwnedTurn, entry_id: str, build: Build) -> str:
        """Keep a finished answer as one line for people; where the transcript was tampered with or taken by a foreign
        turn, it is kept all the same, once somebody has taken the transcript anew. Returns where, in words.
        """
        transcript = owned.transcript
        await self.append_metadata(transcript, entry_id, build, sync=True)
        return f"transcript {transcript} (line {entry_id})"

    # ── beside a claim ───────────────────────────────────────────────────────────────────────────────────────────────

    async def append_metadata(self, transcript: str, entry_id: str, build: Build, *, sync: bool) -> Position:
        """Append one line that is not conversation. Needs no turn. Raises TranscriptUnsettledError: its owner has to
        judge first what somebody else did.
        """
        del sync
        return await asyncio.shield(
            self.writer.submit(
                Job(lambda conn: transcripts.append_unowned(conn, transcript, entry_id, build, self.clock))
            )
        )
