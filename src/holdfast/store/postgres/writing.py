"""Writing transcripts and ending turns: each one transaction that looks at the epoch first, with the row locked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from holdfast.errors import OwnershipLostError, SessionTakeoverError, StateAwayError, TranscriptUnsettledError
from holdfast.model.policy import ModelsAfter
from holdfast.model.spending import Allowance, Guard
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Verdict
from holdfast.session.lines import Line, read_line
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.postgres.reading import PostgresReading
from holdfast.store.postgres.transcripts import Build, Met, OwnedTurn, Position
from holdfast.store.sql import claims, inbox, usage_rows
from holdfast.store.sql.accounting import Accounting
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ending import End, LedgerEnding, record_end, record_requeue
from holdfast.store.sql.ledger import Job


class Writing(LedgerEnding, Accounting, PostgresCore, PostgresReading):
    """A commit is durable, so `sync` changes nothing here. A turn without tools costs four, with the acceptance of its
    input: the claim, the input's line (with the first call of a model), and the end, with the final line.

    While the database is away what a turn writes waits for it: a finished answer is written once it is back if the turn
    still owns its session then, and is salvaged if somebody else has taken it meanwhile.
    """

    lines_may_wait = True

    # ── under a claim ────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(
        self, owned: OwnedTurn, lines: Sequence[tuple[str, Build]], *, sync: bool, soon: bool = False
    ) -> tuple[Verdict, list[Position]]:
        """Append the owner's lines in one transaction; durable when it returns, unless that may be `soon`. Cancelled:
        they are there whole or not at all; appending the same ids again writes nothing twice.
        """
        if soon and not sync:
            self.refuse_if_forked()
            owned.raise_if_lost()
            owned.soon.update((entry_id, build) for entry_id, build in lines if entry_id not in owned.landed)
            self._with_soon[owned.turn] = owned
            return Verdict("unchanged"), [Position(owned.end, 0)] * len(lines)
        met = await self._meet(owned, lambda conn: transcripts.append_owned(conn, owned, owned.with_soon(lines)))
        return met.verdict, [owned.landed[entry_id] for entry_id, _ in lines]

    async def begin_call(self, calls: Sequence[ModelCall], guards: tuple[Guard, ...] = ()) -> Allowance:
        """See `UsageStore.begin_call`. What the turn was to write soon is written with it, before a model is asked.

        Raises: SessionTakeoverError: the turn is lost, nothing was written down.
        """
        owned, noted = self._with_soon.pop(calls[-1].turn, None), tuple(calls)
        if owned is None or not owned.soon:
            return await super().begin_call(calls, guards)
        allowed: list[Allowance] = []

        def begin(conn: Connection) -> Met:
            met = transcripts.append_owned(conn, owned, owned.with_soon(()))
            if not met.verdict.is_takeover(owned.fence_mode):
                allowed[:] = [usage_rows.begin(conn, noted, guards)]
            return met

        await self._meet(owned, begin, beside=not guards)
        return allowed[0]

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

    async def _meet(self, owned: OwnedTurn, look: Callable[[Connection], Met], *, beside: bool = True) -> Met:
        self.refuse_if_forked()
        owned.raise_if_lost()

        def run(conn: Connection) -> Met:
            owned.raise_if_lost()  # it may have ended while this waited
            return look(conn)

        async def act() -> Met:
            met: Met = await self.writer.submit(Job(run, durable=True, essential=True, beside=beside))
            self._take_in(owned, met)
            return met

        return await asyncio.shield(asyncio.ensure_future(act()))

    @staticmethod
    def _take_in(owned: OwnedTurn, met: Met) -> None:
        """Raises SessionTakeoverError: the turn is lost."""
        if met.verdict.is_takeover(owned.fence_mode):
            owned.lost = met.verdict
            raise SessionTakeoverError(met.verdict, owned.path)
        owned.take_in(met)

    async def read_tail(self, owned: OwnedTurn) -> list[Line]:
        upto = min((position.offset for position in owned.landed.values()), default=None)
        lines = await self.reads.ask(lambda conn: transcripts.read_context(conn, owned.transcript, upto))
        leaf = owned.leaf
        for entry_id, build in owned.soon.items():  # they stand there already, as far as their turn can see
            lines.append(read_line(build(leaf).removesuffix(b"\n")))
            leaf = entry_id
        return lines

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
        last: Sequence[tuple[str, Build]] = (),
    ) -> str | None:
        """End the turn: one transaction for its last lines, input, outbox, turn and claim. Idempotent. While the
        database is away it waits until it is back. Returns: as `Store.settle`.

        Raises: SessionTakeoverError, OwnershipLostError: there were last lines, and somebody else owns or has written
            the session; nothing has ended.
        """
        now_ms = self.now_ms()
        end = End(outcome, turn_outcome, detail, events, models, joined, calls)
        if last and owned.lost is not None:
            raise OwnershipLostError(f"turn {owned.turn} lost {owned.path} ({owned.lost.kind}: {owned.lost.detail})")

        def run(conn: Connection) -> tuple[Met | None, str | None]:
            met = self._write_last_in(conn, owned, last)
            if last and met is not None and met.verdict.is_takeover(owned.fence_mode):
                return met, None
            state = record_end(conn, owned, end, now_ms)
            self._let_go_in(conn, owned)
            return met, state

        met, state = await self._end_with(owned, run)
        if last and met is not None:
            self._take_in(owned, met)
        self.options.faults("settle.after_commit")
        return state

    def _write_last_in(self, conn: Connection, owned: OwnedTurn, last: Sequence[tuple[str, Build]]) -> Met | None:
        """Also what was to be written soon; of a turn that is lost nothing."""
        lines = owned.with_soon(last)
        return transcripts.append_owned(conn, owned, lines) if lines and owned.lost is None else None

    async def requeue(
        self, owned: OwnedTurn, why: str, *, charge: bool, yielded: bool = False, calls: Sequence[ModelCall] = ()
    ) -> None:
        """Put the turn's input back in its place and end the turn."""
        now_ms = self.now_ms()

        def run(conn: Connection) -> None:
            self._write_last_in(conn, owned, ())
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
            self._with_soon.pop(owned.turn, None)
            self.node.stop(owned.turn)
            self.slot_freed.set()

        return await self.writer.submit(Job(run, durable=True, essential=True, when_over=over))

    async def salvage_line(self, owned: OwnedTurn, entry_id: str, build: Build) -> str:
        """Keep a finished answer as one line for people. A transcript that somebody changed past us takes no line until
        its next owner has judged that: then it is kept in a row of its own. Returns where, in words.
        """
        transcript = owned.transcript

        def run(conn: Connection) -> str:
            try:
                transcripts.append_unowned(conn, transcript, entry_id, build, self.clock)
            except TranscriptUnsettledError:
                conn.execute(
                    "insert into kept_answers(id, transcript, turn, raw) values(?,?,?,?) on conflict do nothing",
                    (entry_id, transcript, owned.turn, build(None)),
                )
                return f"kept_answers of the database (id {entry_id})"
            return f"transcript {transcript} (line {entry_id})"

        return await asyncio.shield(self.writer.submit(Job(run, durable=True, essential=True)))

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
