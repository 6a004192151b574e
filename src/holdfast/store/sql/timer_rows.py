"""The SQL of timers, their runs and wakes. Every function takes a connection; those that write run inside a
transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from holdfast.inbound.event import Route
from holdfast.inbound.timer import Timer, TimerRun, Wake
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.session_rows import TIMER_SOURCES, keys_with

RUNS_KEPT = 2000
"""Runs of one timer that are kept; older ones are forgotten, their inputs are not (semantics.md 2.6)."""
WAKES_MAX = 200
"""Wakes of one timer that wait; of more the newest are kept."""
ROUTES_LOOKED_AT = 10_000
OUR_SOURCES = TIMER_SOURCES
_MARKS = ",".join("?" * len(OUR_SOURCES))

_RUNS = """
select r.*, a.state as announced,
  (select group_concat(distinct o.state) from outbox o where o.input=r.announce) as sends
from timer_runs r left join inputs a on a.id=r.announce"""


def _has_tables(conn: Connection) -> bool:
    """A reader may look at the ledger of a release that knew no timers, and cannot make the tables."""
    return conn.execute("select 1 from sqlite_master where name='timer_wakes'").fetchone() is not None


def timers(conn: Connection, kind: str | None) -> list[Timer]:
    if not _has_tables(conn):
        return []
    rows = conn.execute("select * from timers where ?1 is null or kind=?1 order by id", (kind,))
    return [_timer(row) for row in rows]


def change(
    conn: Connection, seen: Timer | None, to: Timer | None, began: TimerRun | None, ended: TimerRun | None,
    used: Sequence[str], now_ms: int,
) -> bool:  # fmt: skip
    """Make, change or remove a timer if it is as it was seen, with what has begun and ended. False: it is not, or the
    run that was to end has ended already; nothing was changed.
    """
    current = (to or seen or Timer("", "", "", {})).id
    row = conn.execute("select revision from timers where id=?", (current,)).fetchone()
    if (None if row is None else row["revision"]) != (None if seen is None else seen.revision):
        return False
    if ended is not None and not _end_run(conn, ended):
        return False
    if to is None:
        conn.execute("delete from timers where id=?", (current,))
        conn.execute("delete from timer_wakes where timer=?", (current,))
    else:
        _put(conn, to, now_ms)
    if began is not None:
        _begin_run(conn, began)
    conn.executemany("delete from timer_wakes where id=?", [(wake,) for wake in used])
    return True


def _put(conn: Connection, one: Timer, now_ms: int) -> None:
    conn.execute(
        "insert or replace into timers(id, kind, source, spec, state, next_at_ms, not_before_ms, attempt, failures,"
        " alerted_at_ms, memo, revision, detail, changed_at_ms) values(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            one.id, one.kind, one.source, _json(one.spec), one.state, one.next_at_ms, one.not_before_ms, one.attempt,
            one.failures, one.alerted_at_ms, _json(one.memo), one.revision, one.detail, now_ms,
        ),
    )  # fmt: skip


def _begin_run(conn: Connection, run: TimerRun) -> None:
    """One row per run. A skip for the reason of the one before lengthens that row."""
    if run.state == "skipped":
        last = conn.execute("select * from timer_runs where timer=? order by seq desc limit 1", (run.timer,)).fetchone()
        if last is not None and (last["state"], last["detail"]) == ("skipped", run.detail):
            conn.execute("update timer_runs set ended_at_ms=? where seq=?", (run.began_at_ms, last["seq"]))
            return
    conn.execute(
        "insert or ignore into timer_runs(id, timer, scheduled_at_ms, attempt, reason, state, began_at_ms, ended_at_ms,"
        " input, announce, detail) values(?,?,?,?,?,?,?,?,?,?,?)",
        (
            run.id, run.timer, run.scheduled_at_ms, run.attempt, run.reason, run.state, run.began_at_ms,
            run.ended_at_ms, run.input_id, run.announce_id, _text(run.detail),
        ),
    )  # fmt: skip
    conn.execute(
        "delete from timer_runs where timer=?1 and state<>'running' and seq<="
        " (select seq from timer_runs where timer=?1 order by seq desc limit 1 offset ?2)",
        (run.timer, RUNS_KEPT),
    )


def _end_run(conn: Connection, run: TimerRun) -> bool:
    cursor = conn.execute(
        "update timer_runs set state=?, ended_at_ms=?, announce=?, detail=? where id=? and state='running'",
        (run.state, run.ended_at_ms, run.announce_id, _text(run.detail), run.id),
    )
    return cursor.rowcount == 1


def runs(conn: Connection, timer: str | None, running: bool, limit: int) -> list[TimerRun]:
    """Newest first."""
    if not _has_tables(conn):
        return []
    where = " where r.state='running'" if running else " where (?1 is null or r.timer=?1)"
    if running:
        rows = conn.execute(f"{_RUNS}{where} order by r.seq desc limit ?", (limit,))
    else:
        rows = conn.execute(f"{_RUNS}{where} order by r.seq desc limit ?2", (timer, limit))
    return [_run(row) for row in rows]


def add_wake(conn: Connection, wake: Wake) -> bool:
    cursor = conn.execute(
        "insert or ignore into timer_wakes(id, timer, reason, text, mode, at_ms) values(?,?,?,?,?,?)",
        (wake.id, wake.timer, _text(wake.reason), _text(wake.text), wake.mode, wake.at_ms),
    )
    conn.execute(
        "delete from timer_wakes where timer=?1 and id not in"
        " (select id from timer_wakes where timer=?1 order by at_ms desc, id limit ?2)",
        (wake.timer, WAKES_MAX),
    )
    return cursor.rowcount == 1


def wakes(conn: Connection) -> list[Wake]:
    rows = conn.execute("select * from timer_wakes order by at_ms, id")
    return [Wake(row["id"], row["timer"], row["reason"], row["text"], row["mode"], row["at_ms"]) for row in rows]


def input_by_key(conn: Connection, source: str, account: str, key: str) -> str | None:
    row = conn.execute(
        "select id from inputs where source=? and account=? and dedupe_key=?", (source, account, key)
    ).fetchone()
    return None if row is None else row[0]


def last_route(conn: Connection, session: str) -> Route | None:
    """Where the session's people were answered last, under whichever of its keys."""
    found: list[Row] = []
    for key in keys_with(conn, session):
        row = conn.execute(
            "select seq, route_channel, route_target from inputs where session=? and route_channel is not null"  # noqa: S608
            f" and source not in ({_MARKS}) order by seq desc limit 1",  # only question marks are put in
            (key, *OUR_SOURCES),
        ).fetchone()
        found += [row] if row is not None else []
    newest = max(found, key=lambda row: row["seq"], default=None)
    return None if newest is None else Route(newest["route_channel"], newest["route_target"])


def conversation_at(conn: Connection, route: Route) -> str | None:
    """The session that was last answered on this route, among the newest inputs of the ledger."""
    row = conn.execute(
        f"select session from (select * from inputs order by seq desc limit {ROUTES_LOOKED_AT}) as newest"  # noqa: S608
        " where route_channel=?"
        f" and route_target=? and source not in ({_MARKS}) limit 1",
        (route.channel, route.target, *OUR_SOURCES),
    ).fetchone()
    return None if row is None else row[0]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def _text(words: str | None) -> str | None:
    return None if words is None else words.encode("utf-8", "replace").decode()


def _timer(row: Row) -> Timer:
    return Timer(
        row["id"], row["kind"], row["source"], json.loads(row["spec"]), row["state"], row["next_at_ms"],
        row["not_before_ms"], row["attempt"], row["failures"], row["alerted_at_ms"], json.loads(row["memo"]),
        row["revision"], row["detail"],
    )  # fmt: skip


def _run(row: Row) -> TimerRun:
    return TimerRun(
        row["id"], row["timer"], row["scheduled_at_ms"], row["attempt"], row["reason"], row["state"],
        row["began_at_ms"], row["ended_at_ms"], row["input"], row["announce"], row["detail"], _delivery(row),
    )  # fmt: skip


def _delivery(row: Row) -> str:
    """Told by the announcement's input and its sends, the worst first."""
    if row["announce"] is None:
        return "none"
    states = set((row["sends"] or "").split(",")) - {""}
    for state, told in (("failed", "failed"), ("unknown", "unknown"), ("pending", "pending"), ("started", "pending")):
        if state in states:
            return told
    if states:
        return "sent"
    return {"queued": "pending", "running": "pending", "answered": "kept"}.get(row["announced"], "failed")
