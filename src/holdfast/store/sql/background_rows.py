"""The SQL of programs in the background. Every function takes a connection; those that write run in a transaction."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lane import states
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection, Row
from holdfast.tool.running import PER_SESSION_MAX, BackgroundOrder, Ended, NotBegun, Program, ProgramState


def has_table(conn: Connection) -> bool:
    """A reader may look at the ledger of a release that knew none, and cannot make the table."""
    return conn.execute("select 1 from sqlite_master where name='background'").fetchone() is not None


def begin(
    conn: Connection, order: BackgroundOrder, process: str, now_ms: int
) -> str | NotBegun:  # fmt: skip
    """Note a program that is about to be started. Returns its id; one of this id that is there already is refused,
    since nobody can say how far it got.
    """
    known = conn.execute("select state, outcome from background where id=?", (order.id,)).fetchone()
    if known is not None:
        return NotBegun(f"this call has started {order.id} before; its end comes, or has come, here as a message")
    owner = "select 1 from transcripts where owner_turn=? and epoch_nonce=?"
    if conn.execute(owner, (order.turn, order.nonce)).fetchone() is None:
        return NotBegun("the turn that would start it no longer owns its session; nothing was started")
    running = conn.execute(
        "select count(*) from background where session=? and state='open' and outcome is null", (order.session,)
    ).fetchone()[0]
    if running >= PER_SESSION_MAX:
        return NotBegun(f"{running} programs of this session run in the background, the most there may be")
    conn.execute(
        "insert into background(id, session, input, turn, rights, fresh, route, title, process, state, started_at_ms)"
        " values(?,?,?,?,?,?,?,?,?,'open',?)",
        (
            order.id, order.session, order.input_id, order.turn, order.rights, int(order.fresh), order.route,
            inbox.as_text(order.title), process, now_ms,
        ),
    )  # fmt: skip
    about = {"background": order.id, "title": order.title}
    inbox.note_events(conn, [(now_ms, order.session, order.input_id, order.turn, "background.began", about)])
    return order.id


def end(conn: Connection, program: str, process: str, ended: Ended, now_ms: int) -> bool:
    """Note the end of a program that `process` ran. False: it is noted already."""
    cursor = conn.execute(
        "update background set outcome=?, code=?, output=?, ended_at_ms=? where id=? and process=? and outcome is null",
        (ended.outcome, ended.code, inbox.as_text(ended.output), now_ms, program, process),
    )
    if cursor.rowcount == 1:
        row = conn.execute("select * from background where id=?", (program,)).fetchone()
        about = {"background": program, "outcome": ended.outcome, "code": ended.code}
        inbox.note_events(conn, [(now_ms, row["session"], row["input"], row["turn"], "background.ended", about)])
    return cursor.rowcount == 1


def close(conn: Connection, program: Program, event: str, announce_id: str | None, now_ms: int) -> bool:
    """Close one that has ended (`lane/states.py`: "announce" or "hush"). False: somebody else has."""
    state = states.move("background", program.state, event)
    cursor = conn.execute(
        "update background set state=?, announce=? where id=? and state='open'", (state, announce_id, program.id)
    )
    if cursor.rowcount == 1:
        about = {"background": program.id, "input": announce_id}
        inbox.note_events(conn, [(now_ms, program.session, program.input_id, None, f"background.{state}", about)])
    return cursor.rowcount == 1


def stop(conn: Connection, session: str, by: str) -> int:
    """Ask the programs of a session to end, without telling it anew. Returns how many; asked again, the same."""
    return conn.execute(
        "update background set stop_by=coalesce(stop_by, ?) where session=? and state='open'",
        (inbox.as_text(by), session),
    ).rowcount


def programs(
    conn: Connection, life_of: Callable[[str], str], *, session: str | None, only_open: bool, limit: int
) -> list[Program]:
    """Newest first."""
    if not has_table(conn):
        return []
    conditions = [*(["session=?"] if session is not None else []), *(["state='open'"] if only_open else [])]
    where = f"where {' and '.join(conditions)}" if conditions else ""
    given = (session, limit) if session is not None else (limit,)
    sql = f"select * from background {where} order by started_at_ms desc, id desc limit ?"  # noqa: S608  # our own words
    return [_program(row, life_of) for row in conn.execute(sql, given).fetchall()]


def processes_running(conn: Connection) -> set[str]:
    """Processes whose programs have no end yet: they must stay provably dead or alive."""
    if not has_table(conn):
        return set()
    return {row[0] for row in conn.execute("select distinct process from background where state='open'")}


def _program(row: Row, life_of: Callable[[str], str]) -> Program:
    state: ProgramState = "ended" if row["outcome"] is not None else "running"
    if row["state"] != "open":
        state = row["state"]
    return Program(
        row["id"], row["session"], row["title"], state, row["process"],
        life_of(row["process"]) if state == "running" else "unknown", row["rights"], row["started_at_ms"], row["input"],
        row["route"], bool(row["fresh"]), row["ended_at_ms"], row["outcome"], row["code"], row["output"] or "",
        row["stop_by"], row["announce"],
    )  # fmt: skip
