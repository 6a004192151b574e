"""How turns and inputs end in the ledger: settled with their deliveries, or put back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.model.policy import ModelsAfter
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Epoch
from holdfast.store.sql import child_rows, claims, inbox, model_rows, queueing, usage_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Holder, Job, Ledger


@dataclass(frozen=True, slots=True)
class End:
    """What a turn came to.

    Args:
        outcome: of its input; None: it has none, or says nothing of it.
        models: what it has found out of models, to be kept if its answer is.
        joined: inputs that the final line names besides the turn's own.
        calls: what it has asked of models, to be kept whatever becomes of it.
    """

    outcome: Outcome | None
    turn_outcome: str
    detail: str | None
    events: list[inbox.StoryLine] = field(default_factory=list)
    models: ModelsAfter | None = None
    joined: Collection[str] = ()
    calls: Sequence[ModelCall] = ()


def record_end(conn: Connection, owned: Holder, end: End, now_ms: int) -> str | None:
    """Settle the input of a turn that ends, if the turn still runs it, and close the turn's row. The claim is the
    caller's to release. Within a transaction.

    Returns: the state the input is in now; None: the turn has none.
    """
    state, row, outcome = None, owned.input_row, end.outcome
    if row is not None and outcome is not None:
        state, is_ours = inbox.settle_if_owned(conn, row, owned.epoch, outcome, now_ms, owned.turn)
        if is_ours and end.models is not None:
            model_rows.take_in(conn, row["session"], row["id"], end.models, now_ms)
        if is_ours and end.joined and state == "answered":
            queueing.settle_joined(conn, owned.transcript, owned.turn, end.joined, outcome, now_ms)
    if end.events:
        inbox.note_events(conn, end.events)
    usage_rows.put(conn, end.calls)
    claims.end_turn(conn, owned.turn, end.turn_outcome, end.detail, now_ms)
    return state


def record_requeue(
    conn: Connection, owned: Holder, why: str, *, charge: bool, yielded: bool, calls: Sequence[ModelCall], now_ms: int
) -> None:
    """Put the input of a turn that ends back in its place, if the turn still runs it, and release the claim."""
    row = inbox.by_id(conn, owned.input_row["id"]) if owned.input_row is not None else None
    if row is not None and row["epoch_nonce"] == owned.epoch.nonce and row["state"] == "running":
        inbox.requeue(conn, row, charge=charge, solo=bool(row["solo"]), why=why, now_ms=now_ms)
        if yielded:
            inbox.note_yield(conn, row["id"], now_ms)
    usage_rows.put(conn, calls)
    claims.end_turn(conn, owned.turn, "requeued", why, now_ms)
    claims.release(conn, owned.transcript, owned.epoch)


class LedgerEnding(Ledger, Protocol):
    """Ends that need no transcript."""

    async def settle_salvaged(self, input_id: str, epoch: Epoch, outcome: Outcome) -> str:
        """One transaction asks whether the input is still open and not claimed by another; only then does it settle.
        Else the answer is kept for the case that all later attempts fail.

        Returns: the state the input is in afterwards.
        """
        now_ms = self.now_ms()

        def run(conn: Connection) -> str:
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

        def run(conn: Connection) -> str:
            row = inbox.by_id(conn, input_id)
            assert row is not None
            return inbox.settle(conn, row, outcome, now_ms) if row["state"] == "queued" else row["state"]

        return await self.writer.submit(Job(run, durable=True, essential=True))

    async def request_cancel(self, input_id: str, by: str) -> str:
        now_ms = self.now_ms()

        def run(conn: Connection) -> str:
            asked = inbox.request_cancel(conn, input_id, by, now_ms)
            if not asked.startswith("already"):
                child_rows.stop_those_of(conn, input_id=input_id, by=by, now_ms=now_ms)
            return asked

        return await self.writer.submit(Job(run, durable=True))
