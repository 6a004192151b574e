"""What other processes have done since one last looked, read off the ledger: for those who watch (`turn/events.py`)."""

from __future__ import annotations

from holdfast import ids
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.rows import decode, view_of_input, view_of_turn
from holdfast.store.views import Cursor, Happened, InputView, TurnView

ROWS_MAX = 1000
"""Of each kind and look. What is beyond it comes with the next one."""
OVERLAP_MS = 10_000
"""Ids of turns grow with the clock, and a turn is committed a little later than it is named: so far back is looked."""


def happened(conn: Connection, since: Cursor | None, process: str) -> Happened:
    """Several statements, no transaction around them: what is seen of a turn may be newer than its story."""
    if since is None:
        running = _running(conn, process)
        known = frozenset(row["id"] for row in _recent(conn, process)) | running
        return Happened(Cursor(_newest(conn, "events"), _newest(conn, "inputs"), known, running))
    told = conn.execute(
        "select e.seq, e.at_ms, e.session, e.input, e.turn, e.kind, e.data, t.process from events e"
        " left join turns t on t.id=e.turn where e.seq>? order by e.seq limit ?",
        (since.event, ROWS_MAX),
    ).fetchall()
    accepted = conn.execute("select * from inputs where seq>? order by seq limit ?", (since.input, ROWS_MAX)).fetchall()
    recent = _recent(conn, process)
    started = [view_of_turn(row) for row in recent if row["id"] not in since.turns]
    still = since.open_turns | {turn.id for turn in started}
    ended = [turn for turn in (_turn(conn, turn_id) for turn_id in sorted(still)) if turn.state == "settled"]
    now_open = still - {turn.id for turn in ended}
    cursor = Cursor(
        told[-1]["seq"] if told else since.event,
        accepted[-1]["seq"] if accepted else since.input,
        frozenset(row["id"] for row in recent) | now_open,
        now_open,
    )
    return Happened(
        cursor,
        [view_of_input(row) for row in accepted],
        started,
        [_story(row) for row in told if not _is_by(row, process)],
        [(turn, _input(conn, turn)) for turn in ended],
    )


def _recent(conn: Connection, process: str) -> list[Row]:
    """Turns of others that were named a short while ago, by the clock that names them."""
    now_ms = int(ids.new_id("t").removeprefix("t_")[:12], 16)
    return conn.execute(
        "select * from turns where id>? and process<>? order by id limit ?",
        (f"turn_{now_ms - OVERLAP_MS:012x}", process, ROWS_MAX),
    ).fetchall()


def _newest(conn: Connection, table: str) -> int:
    return conn.execute(f"select coalesce(max(seq), 0) from {table}").fetchone()[0]  # noqa: S608  # our own words


def _running(conn: Connection, process: str) -> frozenset[str]:
    rows = conn.execute(
        "select owner_turn from transcripts where owner_turn is not null and owner_process<>?", (process,)
    )
    return frozenset(row[0] for row in rows)


def _turn(conn: Connection, turn_id: str) -> TurnView:
    return view_of_turn(conn.execute("select * from turns where id=?", (turn_id,)).fetchone())


def _input(conn: Connection, turn: TurnView) -> InputView | None:
    row = inbox.by_id(conn, turn.input_id) if turn.input_id is not None else None
    return None if row is None else view_of_input(row)


def _story(row: Row) -> dict[str, object]:
    return {name: row[name] for name in ("seq", "at_ms", "session", "input", "turn", "kind")} | {
        "data": decode(row["data"])
    }


def _is_by(row: Row, process: str) -> bool:
    """Who wrote a line of a story: its turn's process, for a delivery whoever moved it, for what is told of a turn that
    stands still whoever watches it.
    """
    by = row["process"]
    if row["kind"].startswith("session."):
        by = decode(row["data"]).get("by")
    elif by is None and row["kind"] == "delivery":
        by = decode(row["data"]).get("process")
    return by == process
