"""Closing a turn whose owner is gone: what becomes of its input, in the ledger."""

from __future__ import annotations

import logging

from holdfast.outbox.message import Outcome, answered_by
from holdfast.session.lines import Line
from holdfast.store.sql import claims, inbox, queueing
from holdfast.store.sql.claims import Predecessor
from holdfast.store.sql.connection import Connection
from holdfast.text import on_one_line

log = logging.getLogger("holdfast.store")


def answered_from(line: Line) -> Outcome:
    """The outcome that a final line stands for."""
    return answered_by(line.value()["message"], line.id, detail="settled from its final line")


def close_predecessor(
    conn: Connection, transcript: str, predecessor: Predecessor, final: Line | None, detail: str, now_ms: int
) -> None:
    """Whoever takes over first closes the one before: an input with a final line is settled by it, another is queued
    again. Within a transaction.

    Args:
        final: the durable final line of the predecessor's input, if the transcript has one.
        detail: what became of the owner, in words.
    """
    if predecessor.input_id is not None:
        row = inbox.by_id(conn, predecessor.input_id)
        assert row is not None
        if final is not None:
            answered = answered_from(final)
            inbox.settle(conn, row, answered, now_ms, predecessor.turn)
            named = final.origin.inputs if final.origin is not None else ()
            queueing.settle_joined(conn, transcript, predecessor.turn, named, answered, now_ms)
        elif row["cancel_by"]:
            done = Outcome(
                "cancelled", detail=f"cancelled by {row['cancel_by']}; its process died before it could stop"
            )
            inbox.settle(conn, row, done, now_ms, predecessor.turn)
        else:
            alone = _turns_lost_with(conn, predecessor.process) == 1
            charge = alone or bool(row["solo"])
            state = inbox.requeue(conn, row, charge=charge, solo=not alone, why=detail, now_ms=now_ms)
            log.warning("input %s of %s: its turn died (%s); now %s", row["id"], row["session"], detail, state)
        died = (now_ms, row["session"], row["id"], predecessor.turn, "turn.died", {"detail": detail})
        inbox.note_events(conn, [died])
    log.info("transcript %s: its stale owner was cleared: turn %s of session %s, %s", transcript, predecessor.turn,
             on_one_line(claims.session_of(conn, predecessor.turn) or "unknown"), detail)  # fmt: skip
    claims.end_turn(conn, predecessor.turn, "died", detail, now_ms)
    claims.forget_waits_of(conn, predecessor.turn)
    claims.release(conn, transcript, predecessor.epoch)


def _turns_lost_with(conn: Connection, process: str) -> int:
    """How many turns a process took with it: those still open in its name and those closed as died."""
    return conn.execute(
        "select (select count(*) from transcripts t join turns u on u.id=t.owner_turn"
        "   where t.owner_turn is not null and t.owner_process=?1 and u.input is not null)"
        " + (select count(*) from turns where outcome='died' and process=?1 and input is not null)",
        (process,),
    ).fetchone()[0]
