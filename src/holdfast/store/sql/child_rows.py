"""The SQL of sub-agents: spawning, stopping, closing and archiving them. Every function takes a connection; those that
write run inside a transaction.

A piece of work is an input, the ends of the children it has spawned, what those have spawned, and so on. It is over
when all its inputs have ended and all its children are closed; the newest of its inputs has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, Refused, SpawnLimits, SpawnOrder, Standing
from holdfast.inbound.event import LaneFull
from holdfast.lane import states
from holdfast.lane.policy import LaneLimits
from holdfast.lane.queue import PLAIN
from holdfast.store.sql import inbox, queueing
from holdfast.store.sql.connection import Connection, Row

ARCHIVED_MAX = 200
"""Children archived in one transaction."""
_WORK = """
with recursive work(id) as (
  select ?1 union select k.announce from work w join children k on k.parent_input=w.id
   where k.parent_input is not null and k.announce is not null)
select
  not exists(select 1 from work w join inputs i on i.id=w.id where i.state in ('queued', 'running'))
  and not exists(select 1 from work w join children k on k.parent_input=w.id
                 where k.parent_input is not null and k.state='open') as is_over,
  (select i.id from work w join inputs i on i.id=w.id order by i.seq desc limit 1) as last"""


def has_table(conn: Connection) -> bool:
    """A reader may look at the ledger of a release that knew no children, and cannot make the table."""
    return conn.execute("select 1 from sqlite_master where name='children'").fetchone() is not None


# ── spawning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def spawn(
    conn: Connection, order: SpawnOrder, register: Callable[[], str], lanes: LaneLimits, limits: SpawnLimits,
    now_ms: int,
) -> Child | Refused:  # fmt: skip
    """Make a child, with its input, if every limit lets it; one of this id that is there already is that child.

    Args:
        register: makes the child's own session; its transcript.
    """
    known = by_id(conn, order.id)
    if known is not None:
        conn.execute("update children set label=label where id=?", (order.id,))  # so that its commit is durable, too
        return known
    standing = standing_of(conn, order)
    refused = rules.refusal(order, standing, limits)
    if refused is not None:
        return refused
    event = rules.task_event(order, standing, limits)
    admission = queueing.accept(conn, event, register(), PLAIN, lanes, now_ms, inbox.body_digest(event))
    if isinstance(admission, LaneFull):
        return rules.lane_full(admission.lane, admission.waiting, admission.limit)
    input_id = admission.input_id
    parent, route = order.parent, order.parent.route
    conn.execute(
        "insert into children(id, session, parent_session, parent_input, parent_turn, label, depth, rights, fresh,"
        " route, timeout_s, input, state, spawned_at_ms) values(?,?,?,?,?,?,?,?,?,?,?,?,'open',?)",
        (
            order.id, order.session, parent.session, parent.input_id, parent.turn, inbox.as_text(order.label),
            standing.depth + 1, standing.rights, int(parent.fresh),
            None if route is None else f"{route.channel}:{route.target}", order.timeout_s, input_id, now_ms,
        ),
    )  # fmt: skip
    about = {"child": order.id, "label": inbox.as_text(order.label), "session": order.session, "input": input_id}
    of_parent = (now_ms, parent.session, parent.input_id, parent.turn, "child.spawned", about)
    by = {"child": order.id, "parent": parent.session, "of": parent.input_id or parent.turn}
    inbox.note_events(conn, [of_parent, (now_ms, order.session, input_id, None, "child.task", by)])
    made = by_id(conn, order.id)
    assert made is not None
    return made


def standing_of(conn: Connection, order: SpawnOrder) -> Standing:
    """What the ledger knows of a parent that spawns."""
    parent = order.parent
    own = conn.execute("select depth, rights from children where session=?", (parent.session,)).fetchone()
    open_children, of_input = conn.execute(
        "select (select count(*) from children where parent_session=?1 and state='open'),"
        " (select count(*) from children where parent_input is not null and parent_input=?2)",
        (parent.session, parent.input_id),
    ).fetchone()
    owns = parent.turn is None or conn.execute(
        "select 1 from transcripts where owner_turn=? and epoch_nonce=?", (parent.turn, parent.nonce)
    ).fetchone() is not None  # fmt: skip
    asked = conn.execute("select cancel_by from inputs where id=?", (parent.input_id,)).fetchone()
    return Standing(
        depth=own["depth"] if own is not None else 0, rights=own["rights"] if own is not None else parent.rights,
        open_children=open_children, of_input=of_input, owns=owns,
        cancelled_by=asked["cancel_by"] if asked is not None else None,
    )  # fmt: skip


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def children(
    conn: Connection, session: str | None, parent_input: str | None, only_open: bool, limit: int
) -> list[Child]:
    """Newest first."""
    if not has_table(conn):
        return []
    asked = {"parent_session": session, "parent_input": parent_input}
    given = {name: value for name, value in asked.items() if value is not None}
    conditions = [*(f"{name}=?" for name in given), *(["state='open'"] if only_open else [])]  # as the indices have it
    where = f"where {' and '.join(conditions)}" if conditions else ""
    sql = f"select * from children {where} order by spawned_at_ms desc, id desc limit ?"  # noqa: S608  # our own words
    rows = conn.execute(sql, (*given.values(), limit)).fetchall()
    return [_child(conn, row) for row in rows]


def by_id(conn: Connection, child: str) -> Child | None:
    if not has_table(conn):
        return None
    row = conn.execute("select * from children where id=?", (child,)).fetchone()
    return None if row is None else _child(conn, row)


def of_sessions(conn: Connection, keys: Iterable[str]) -> dict[str, Child]:
    """The children whose own sessions these are."""
    wanted = list(keys)
    if not wanted or not has_table(conn):
        return {}
    rows = [conn.execute("select * from children where session=?", (key,)).fetchone() for key in wanted]
    return {row["session"]: _child(conn, row) for row in rows if row is not None}


def last_word(conn: Connection, input_id: str) -> str | None:
    """The input that has the last word of a piece of work, None while it is not over."""
    if not has_table(conn):
        return input_id
    row = conn.execute(_WORK, (input_id,)).fetchone()
    return row["last"] if row["is_over"] else None


def _child(conn: Connection, row: Row) -> Child:
    task = conn.execute("select state from inputs where id=?", (row["input"],)).fetchone()["state"]
    work = conn.execute(_WORK, (row["input"],)).fetchone()
    closed = None if row["state"] == "open" else row["state"]
    return Child(
        id=row["id"], session=row["session"], label=row["label"], parent_session=row["parent_session"],
        input_id=row["input"], last_input=work["last"], depth=row["depth"], rights=row["rights"],
        state=rules.state_of(closed, task, is_over=bool(work["is_over"])), timeout_s=row["timeout_s"],
        spawned_at_ms=row["spawned_at_ms"], parent_input=row["parent_input"], parent_turn=row["parent_turn"],
        route=row["route"], fresh=bool(row["fresh"]), stop_by=row["stop_by"], announce_id=row["announce"],
        outcome=row["outcome"], detail=row["detail"], ended_at_ms=row["ended_at_ms"],
        archived_at_ms=row["archived_at_ms"],
    )  # fmt: skip


# ── stopping and closing ─────────────────────────────────────────────────────────────────────────────────────────────


def stop_those_of(
    conn: Connection, *, session: str | None = None, input_id: str | None = None, by: str, now_ms: int
) -> list[str]:
    """Stop the open children of a session, or of an input, and theirs: their inputs are asked to end, and nobody is
    told anew. Returns their ids, and of those that were stopped by the same before: done again it says the same.
    """
    if session is not None:
        found = conn.execute(
            "select * from children where parent_session=? and (state='open' or stop_by=?)", (session, by)
        )
    else:
        found = conn.execute(
            "select * from children where parent_input is not null and parent_input=? and state='open'", (input_id,)
        )
    stopped: list[str] = []
    for row in found.fetchall():
        conn.execute("update children set stop_by=coalesce(stop_by, ?) where id=?", (inbox.as_text(by), row["id"]))
        told = by if by.startswith(rules.BY_PARENT) else f"{rules.BY_PARENT} ({by})"
        stopped += [row["id"], *_end_inputs_of(conn, row, told, now_ms)]
    return stopped


def cancel(conn: Connection, row_id: str, by: str, now_ms: int) -> str:
    """Ask a child by itself to end; its parent will hear of that. Returns "requested" or "already <state>"."""
    child = by_id(conn, row_id)
    assert child is not None
    if child.state not in ("queued", "running"):
        return f"already {child.state}"
    row = conn.execute("select * from children where id=?", (row_id,)).fetchone()
    _end_inputs_of(conn, row, by, now_ms)
    return "requested"


def _end_inputs_of(conn: Connection, row: Row, by: str, now_ms: int) -> list[str]:
    """Ask the inputs of a child's work to end. Returns the children of its own that were stopped with it."""
    stopped = stop_those_of(conn, session=row["session"], by=by, now_ms=now_ms)
    for one in conn.execute(
        "select id from inputs where session=? and source in (?, ?) and state in ('queued', 'running')",
        (row["session"], rules.SPAWN, rules.END),
    ).fetchall():
        inbox.request_cancel(conn, one["id"], by, now_ms)
    return stopped


def close(conn: Connection, child: Child, event: str, announce_id: str | None, now_ms: int) -> bool:
    """Close a child whose work is over (`lane/states.py`: "announce" or "hush"). False: somebody else has."""
    state = states.move("child", child.state, event)
    last = inbox.by_id(conn, child.last_input)
    assert last is not None
    cursor = conn.execute(
        "update children set state=?, announce=?, outcome=?, detail=?, ended_at_ms=coalesce(?, ?)"
        " where id=? and state='open'",
        (state, announce_id, last["state"], last["detail"], last["settled_at_ms"], now_ms, child.id),
    )
    if cursor.rowcount == 1:
        about = {"child": child.id, "label": child.label, "outcome": last["state"], "input": announce_id}
        kind = f"child.{state}"
        stories = [(now_ms, child.parent_session, child.parent_input, child.parent_turn, kind, about),
                   (now_ms, child.session, child.last_input, None, kind, about)]  # fmt: skip
        inbox.note_events(conn, stories)
    return cursor.rowcount == 1


def archive(conn: Connection, before_ms: int, now_ms: int) -> int:
    """Put children away that were closed before a time: their sessions are left out of lists. Returns how many."""
    cursor = conn.execute(
        "update children set archived_at_ms=? where id in (select id from children where state<>'open'"
        " and archived_at_ms is null and ended_at_ms<=? order by ended_at_ms limit ?)",
        (now_ms, before_ms, ARCHIVED_MAX),
    )
    return cursor.rowcount
