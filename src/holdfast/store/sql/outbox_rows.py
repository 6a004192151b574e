"""The SQL of the outbox. Every function takes a connection; those that write run inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.lane import states
from holdfast.outbox.outbox import RETRY_AFTER_MAX_S, Change, OpenDelivery, Sender
from holdfast.store.sql import inbox, preview_rows
from holdfast.store.sql.connection import Connection, Row

ARRIVED = ("confirm", "confirm_piece", "found", "found_piece")
OPEN = "('pending', 'started', 'unknown')"
_SELECT = "select o.*, i.session from outbox o join inputs i on i.id=o.input"


def first_of_each_target(
    conn: Connection, channels: Sequence[str], now_ms: int, sender_of: Callable[[Row], Sender]
) -> list[OpenDelivery]:
    """The first unfinished row of each target, oldest first; rows behind it wait for it."""
    marks = ",".join("?" * len(channels))
    rows = conn.execute(
        f"{_SELECT} where o.seq in"  # noqa: S608  # only question marks are put in
        f" (select min(seq) from outbox where state in {OPEN} and channel in ({marks}) group by channel, target)"
        " order by o.seq",
        tuple(channels),
    ).fetchall()
    return [_open_delivery(row, now_ms, sender_of) for row in rows]


def open_by_channel(conn: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """How many rows are unfinished, by channel and state, and when the oldest of them was made."""
    rows = conn.execute(
        f"select channel, state, count(*), min(created_at_ms) from outbox where state in {OPEN} group by 1, 2"  # noqa: S608
    )
    return {(channel, state): (count, oldest) for channel, state, count, oldest in rows}


def move(
    conn: Connection, seen: OpenDelivery, event: str, change: Change, process: str, now_ms: int
) -> OpenDelivery | None:
    """Move a row if it is as it was seen, and note it for `why`. None: it is not; nothing was changed.

    Raises:
        IllegalMoveError: the table of states has no such move.
    """
    state = states.move("delivery", seen.state, event)
    starts = state == "started"
    next_piece = event in ("confirm_piece", "found_piece")
    cursor = conn.execute(
        "update outbox set state=?, detail=?, not_before_ms=?, updated_at_ms=?, process=?, attempts=?, sent_chars=?,"
        " piece_chars=?, label=? where id=? and state=? and attempts=? and process is ? and sent_chars=?"
        " and body=?",  # a notice may have been said anew since: its pieces are cut from what it says now
        (
            state,
            inbox.as_text(change.detail),
            now_ms + int(change.retry_in_s * 1000),
            now_ms,
            process if starts else seen.process,
            0 if next_piece or event == "retry" else seen.attempts + starts,
            seen.sent_chars + seen.piece_chars if next_piece else seen.sent_chars,
            0 if next_piece else seen.piece_chars if change.piece_chars is None else change.piece_chars,
            None if next_piece else (seen.label if change.label is None else change.label or None),
            seen.id, seen.state, seen.attempts, seen.process, seen.sent_chars, seen.body,
        ),
    )  # fmt: skip
    if cursor.rowcount == 0:
        return None
    if event in ARRIVED:
        preview_rows.end(conn, seen.id)  # it has become the answer, or stays behind as what it is
    row = conn.execute(f"{_SELECT} where o.id=?", (seen.id,)).fetchone()
    data = {name: row[name] for name in ("id", "state", "channel", "target", "part", "attempts", "label", "detail")}
    data |= {"event": event, "process": process}
    inbox.note_events(conn, [(now_ms, row["session"], row["input"], None, "delivery", data)])
    return _open_delivery(row, now_ms, lambda _: "alive")


def delivery(
    conn: Connection, delivery_id: str, now_ms: int, sender_of: Callable[[Row], Sender]
) -> OpenDelivery | None:
    """One row, in whatever state; None: there is none of this id."""
    row = conn.execute(f"{_SELECT} where o.id=?", (delivery_id,)).fetchone()
    return None if row is None else _open_delivery(row, now_ms, sender_of)


def processes_sending(conn: Connection) -> set[str]:
    """Processes in whose name a send was begun that has not ended: they must stay provably dead or alive."""
    sending = {row[0] for row in conn.execute("select distinct process from outbox where state='started'")}
    return sending | preview_rows.processes_showing(conn)


def _open_delivery(row: Row, now_ms: int, sender_of: Callable[[Row], Sender]) -> OpenDelivery:
    wait_s = (row["not_before_ms"] - now_ms) / 1000
    if not 0 < wait_s <= RETRY_AFTER_MAX_S:
        wait_s = 0.0  # due; or the wall clock was set back since, which must not hold an answer back
    return OpenDelivery(
        row["id"], row["input"], row["session"], row["channel"], row["target"], row["part"], row["body"],
        row["sent_chars"], row["piece_chars"], row["label"], row["state"], row["attempts"], row["process"],
        sender_of(row) if row["state"] == "started" else "nobody", wait_s, row["detail"],
        max(0, now_ms - row["updated_at_ms"]) / 1000,
    )  # fmt: skip
