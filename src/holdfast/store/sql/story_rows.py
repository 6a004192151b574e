"""Many turns with what happened in them, for drawing. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from holdfast.store.sql.connection import Connection
from holdfast.store.sql.rows import decode, view_of_turn
from holdfast.store.views import Stories, Story, TurnView

AT_ONCE = 200
EVENTS_MAX = 200_000
"""Lines of stories in one answer; turns past that are told without them."""


def stories(conn: Connection, since_ms: int, also: Sequence[str], limit: int, after: int | None) -> Stories:
    """As `Store.stories`. A turn's id begins with its time, so the newest are the last of the table; how long turns may
    run is not known, so those that began before are looked through as far as `limit` goes.
    """
    newest = conn.execute("select coalesce(max(seq), 0) from events").fetchone()[0]
    turns: dict[str, TurnView] = {}
    for row in conn.execute(
        "select * from (select * from turns order by id desc limit ?) t where started_at_ms>=? or ended_at_ms is null"
        " or ended_at_ms>=?",
        (limit, since_ms, since_ms),
    ):
        turns[row["id"]] = view_of_turn(row)
    running = conn.execute("select owner_turn from transcripts where owner_turn is not null").fetchall()
    told = set[str]() if after is None else _told_after(conn, after, limit)
    missing = ({row[0] for row in running} | set(also) | told) - turns.keys()
    for some in _chunks(missing):
        for row in conn.execute(f"select * from turns where id in ({_marks(some)})", some):  # noqa: S608
            turns[row["id"]] = view_of_turn(row)
    inputs = {view.input_id for view in turns.values() if view.input_id is not None}
    accepted: dict[str, int] = {}
    for some in _chunks(inputs):
        found = conn.execute(f"select id, accepted_at_ms from inputs where id in ({_marks(some)})", some)  # noqa: S608
        accepted.update((row[0], row[1]) for row in found)
    events = _events(conn, turns, inputs)
    ordered = sorted(turns.values(), key=lambda view: (view.started_at_ms, view.id))
    found = [Story(view, accepted.get(view.input_id or ""), events.get(view.id, [])) for view in ordered]
    return Stories(found, newest)


def _told_after(conn: Connection, after: int, limit: int) -> set[str]:
    """Turns of which something was told since: a delivery may move long after its turn has ended."""
    rows = conn.execute(
        "select e.turn, i.turn from (select * from events where seq>? order by seq limit ?) e"
        " left join inputs i on i.id=e.input",
        (after, limit),
    ).fetchall()
    return {row[0] or row[1] for row in rows} - {None}


def _events(conn: Connection, turns: dict[str, TurnView], inputs: set[str]) -> dict[str, list[dict[str, Any]]]:
    """By turn. What tells of an input and of no turn (its deliveries) belongs to the last turn that ran it."""
    last = {view.input_id: view.id for view in sorted(turns.values(), key=lambda view: view.started_at_ms)}
    found: dict[str, list[dict[str, Any]]] = {}
    read = 0
    of_programs = [view.id for view in turns.values() if view.input_id is None]
    for column, names in (("input", inputs), ("turn", of_programs)):
        for some in _chunks(names):
            if read >= EVENTS_MAX:
                return found
            rows = conn.execute(
                f"select at_ms, kind, data, input, turn from events where {column} in ({_marks(some)}) order by seq",  # noqa: S608
                some,
            )
            for row in rows:
                read += 1
                turn = row["turn"] or last.get(row["input"])
                if turn in turns:
                    line = {"at_ms": row["at_ms"], "kind": row["kind"], "data": decode(row["data"])}
                    found.setdefault(turn, []).append(line)
    return found


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(sorted(names))
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _marks(some: Sequence[str]) -> str:
    return ",".join("?" * len(some))
