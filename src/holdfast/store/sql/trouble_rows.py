"""What went wrong lately, newest first. Reads only."""

from __future__ import annotations

from holdfast.store.sql.connection import Connection
from holdfast.store.sql.rows import decode, view_of_delivery, view_of_turn
from holdfast.store.views import Trouble

# SQLite uses the partial indexes of `tables.py` only where their conditions are repeated.
_TOLD = """
select seq, at_ms, session, input, turn, kind, data from events
 where kind in ('turn.window', 'turn.salvaged', 'turn.fallback', 'turn.model_state', 'turn.stopped_by_recovery',
  'input.held_up', 'session.stalled', 'session.stuck', 'session.recovery.requested', 'session.recovery.completed')
 and at_ms>=? order by seq desc limit ?"""
_TURNS = """
select * from turns where outcome in ('taken_over', 'died', 'coordination', 'failed', 'interrupted')
 and coalesce(ended_at_ms, started_at_ms)>=? order by id desc limit ?"""
_DELIVERIES = """
select o.*, i.session from outbox o join inputs i on i.id=o.input
 where o.state in ('failed', 'unknown') and o.updated_at_ms>=? order by o.seq desc limit ?"""


def trouble(conn: Connection, since_ms: int, limit: int) -> Trouble:
    """As `Store.trouble`."""
    told = conn.execute(_TOLD, (since_ms, limit)).fetchall()
    turns = conn.execute(_TURNS, (since_ms, limit)).fetchall()
    deliveries = conn.execute(_DELIVERIES, (since_ms, limit)).fetchall()
    return Trouble(
        [{**dict(row), "data": decode(row["data"])} for row in told],
        [view_of_turn(row) for row in turns],
        [view_of_delivery(row) for row in deliveries],
    )
