"""The SQL of previews. Every function takes a connection; those that write run inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.errors import OwnershipLostError
from holdfast.lane import states
from holdfast.outbox.outbox import Sender
from holdfast.outbox.preview import Preview
from holdfast.store.sql.connection import Connection, Row

LifeOf = Callable[[Row], Sender]


def begin(conn: Connection, one: Preview, now_ms: int, life_of: LifeOf) -> Preview | None:
    """Note a preview before it is sent. Returns: the one that is there already; None: it is new.

    Raises:
        OwnershipLostError: no turn of its process answers that input any more. One that has stood still meanwhile would
            show the beginning of an answer beside another, which has arrived.
    """
    is_ours = "select 1 from transcripts t join turns u on u.id=t.owner_turn where u.input=? and u.process=?"
    if conn.execute(is_ours, (one.input_id, one.process)).fetchone() is None:
        raise OwnershipLostError(f"input {one.input_id} is not answered here any more")
    known = preview(conn, one.id, life_of)
    if known is None:
        conn.execute(
            "insert into previews(id, input, channel, target, process, at_ms) values(?,?,?,?,?,?)",
            (one.id, one.input_id, one.channel, one.target, one.process, now_ms),
        )
    return known


def name(conn: Connection, delivery_id: str, reference: str) -> None:
    conn.execute("update previews set reference=? where id=?", (reference, delivery_id))


def end(conn: Connection, delivery_id: str) -> None:
    conn.execute("delete from previews where id=?", (delivery_id,))


def preview(conn: Connection, delivery_id: str, life_of: LifeOf) -> Preview | None:
    row = conn.execute("select * from previews where id=?", (delivery_id,)).fetchone()
    return None if row is None else _preview(row, life_of)


def without_answer(conn: Connection, channels: Sequence[str], life_of: LifeOf) -> list[Preview]:
    """Those whose input has ended without anything to send."""
    ended = sorted(states.TERMINAL)
    rows = conn.execute(
        "select p.* from previews p join inputs i on i.id=p.input"  # noqa: S608  # only question marks are put in
        f" where p.channel in ({_marks(channels)}) and i.state in ({_marks(ended)})"
        " and not exists (select 1 from outbox o where o.id=p.id)",
        (*channels, *ended),
    ).fetchall()
    return [_preview(row, life_of) for row in rows]


def processes_showing(conn: Connection) -> set[str]:
    """Processes in whose name something is shown: they must stay provably dead or alive."""
    return {row[0] for row in conn.execute("select distinct process from previews")}


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _preview(row: Row, life_of: LifeOf) -> Preview:
    return Preview(
        row["id"], row["input"], row["channel"], row["target"], row["process"], row["reference"], life_of(row)
    )
