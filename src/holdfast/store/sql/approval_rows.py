"""The SQL of approvals: putting a question, answering it, using the answer. Every function takes a connection; those
that write run inside a transaction.
"""

from __future__ import annotations

from holdfast.inbound.event import Route
from holdfast.lane import states
from holdfast.outbox.message import notice_delivery
from holdfast.store.sql import claims, inbox
from holdfast.store.sql.connection import Connection, Row
from holdfast.tool.approval import Approval, ApprovalOrder, ApprovalState, Grant, NotAsked, Scope, notice_text

_OWNED = "exists(select 1 from transcripts t where t.owner_turn=a.turn and t.epoch_nonce=a.epoch_nonce)"
_SELECT = f"select a.*, {_OWNED} as owned from approvals a"  # noqa: S608  # our own words
PENDING_MAX = 20
"""Questions of one session that may wait for an answer: more are nobody's to read."""


def has_table(conn: Connection) -> bool:
    """A reader may look at the ledger of a release that knew no approvals, and cannot make the table."""
    return conn.execute("select 1 from sqlite_master where name='approvals'").fetchone() is not None


def ask(conn: Connection, order: ApprovalOrder, now_ms: int) -> Approval | NotAsked:
    """Put a question, with its notices, and lend the slot of the turn that waits. The same again is the same one."""
    known = by_id(conn, order.id)
    if known is not None:
        return known
    if not _owns(conn, order.turn, order.nonce):
        return NotAsked("the turn that would ask no longer owns its session")
    waiting = conn.execute(
        f"select count(*) from approvals a where a.session=? and a.state='pending' and {_OWNED}",  # noqa: S608
        (order.session,),
    ).fetchone()[0]
    if waiting >= PENDING_MAX:
        return NotAsked(f"{waiting} questions of this session wait for an answer already, the most there may be")
    expires_at_ms = now_ms + int(order.timeout_s * 1000)
    conn.execute(
        "insert into approvals(id, session, input, turn, epoch_nonce, call, tool, digest, subject, shown, why, state,"
        " asked_at_ms, expires_at_ms, scope) values(?,?,?,?,?,?,?,?,?,?,?,'pending',?,?,'once')",
        (
            order.id, order.session, order.input_id, order.turn, order.nonce, inbox.as_text(order.call_id),
            inbox.as_text(order.tool), order.digest,
            inbox.as_text(order.subject), inbox.as_text(order.shown), inbox.as_text(order.why), now_ms, expires_at_ms,
        ),
    )  # fmt: skip
    for route in order.notices if order.input_id is not None else ():
        _put_notice(conn, order, route, now_ms)
    claims.lend_slot(conn, order.turn, True)
    about = {"approval": order.id, "tool": order.tool, "why": order.why}
    inbox.note_events(conn, [(now_ms, order.session, order.input_id, order.turn, "approval.asked", about)])
    made = by_id(conn, order.id)
    assert made is not None
    return made


def _put_notice(conn: Connection, order: ApprovalOrder, route: Route, now_ms: int) -> None:
    assert order.input_id is not None
    told = notice_delivery(f"{order.input_id}/{order.id}", route, notice_text(order))
    conn.execute(
        "insert or ignore into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
        " values(?,?,?,?,?,?,'pending',?,?)",
        (told.id, order.input_id, route.channel, route.target, NOTICE_PART, inbox.as_text(told.body), now_ms, now_ms),
    )


NOTICE_PART = -5
"""Beside the parts of an answer, and the other notices (`queueing.py`)."""


def decide(
    conn: Connection, approval: str, *, yes: bool, by: str, scope: Scope, grant_ms: int, now_ms: int
) -> Approval | NotAsked:
    """Answer a question, if it still waits. What was answered stays."""
    found = by_id(conn, approval)
    if found is None:
        return NotAsked(f"no question {approval!r}; `holdfast approvals list` lists those that wait")
    if found.state == "pending" and found.expires_at_ms <= now_ms:
        return NotAsked(f"{approval}: the time to answer is over")
    if found.state != "pending":
        who = f" by {found.by}" if found.by else ""
        return NotAsked(f"{approval}: already {found.state}{who}")
    state = states.move("approval", "pending", "approve" if yes else "deny")
    conn.execute(
        "update approvals set state=?, scope=?, decided_by=?, decided_at_ms=? where id=?",
        (state, scope, inbox.as_text(by), now_ms, approval),
    )
    if yes and scope == "session":
        conn.execute(
            "insert or replace into grants(transcript, tool, subject, session, granted_by, at_ms, expires_at_ms)"
            " select s.transcript, ?, ?, ?, ?, ?, ? from sessions s where s.key=?",
            (found.tool, found.subject, found.session, inbox.as_text(by), now_ms, now_ms + grant_ms, found.session),
        )
    about = {"approval": approval, "tool": found.tool, "by": by, "scope": scope}
    inbox.note_events(conn, [(now_ms, found.session, found.input_id, found.turn, f"approval.{state}", about)])
    decided = by_id(conn, approval)
    assert decided is not None
    return decided


def use(conn: Connection, approval: str, turn: str, nonce: str, digest: str, now_ms: int) -> bool:
    """Use a consent for the call it was given for. False: it was used, it is another's, or its turn owns nothing."""
    if not _owns(conn, turn, nonce):
        return False
    cursor = conn.execute(
        "update approvals set state=? where id=? and state='approved' and turn=? and epoch_nonce=? and digest=?",
        (states.move("approval", "approved", "use"), approval, turn, nonce, digest),
    )
    claims.lend_slot(conn, turn, False)
    if cursor.rowcount == 1:
        row = conn.execute("select session, input, tool from approvals where id=?", (approval,)).fetchone()
        about = {"approval": approval, "tool": row["tool"]}
        inbox.note_events(conn, [(now_ms, row["session"], row["input"], turn, "approval.used", about)])
    return cursor.rowcount == 1


def close(conn: Connection, approval: str, event: str, now_ms: int) -> None:
    """Nobody waits for the answer any more ("expire", "void"), unless there is one already. The slot is taken back."""
    row = conn.execute("select * from approvals where id=?", (approval,)).fetchone()
    if row is None:
        return
    claims.lend_slot(conn, row["turn"], False)
    if (row["state"], event) not in states.APPROVAL:
        return
    state = states.move("approval", row["state"], event)
    conn.execute("update approvals set state=?, decided_at_ms=? where id=?", (state, now_ms, approval))
    about = {"approval": approval, "tool": row["tool"]}
    inbox.note_events(conn, [(now_ms, row["session"], row["input"], row["turn"], f"approval.{state}", about)])


def take_over(conn: Connection, input_id: str, call_id: str, digest: str, now_ms: int) -> bool:
    """Make void what earlier attempts at an input have asked about a call. Whether there was anything: then the call
    has not run, since a consent is used before it does.
    """
    return (
        conn.execute(
            "update approvals set state='void', decided_at_ms=coalesce(decided_at_ms, ?)"
            " where input=? and call=? and digest=? and state in ('pending', 'approved')",
            (now_ms, input_id, inbox.as_text(call_id), digest),
        ).rowcount
        > 0
    )


def by_id(conn: Connection, approval: str) -> Approval | None:
    if not has_table(conn):
        return None
    row = conn.execute(f"{_SELECT} where a.id=?", (approval,)).fetchone()
    return None if row is None else _approval(row)


def listed(conn: Connection, *, session: str | None, pending: bool, limit: int) -> list[Approval]:
    """Newest first; `pending`: those that wait for an answer."""
    if not has_table(conn):
        return []
    conditions = [*(["a.session=?"] if session is not None else []),
                  *([f"a.state='pending' and {_OWNED}"] if pending else [])]  # fmt: skip
    where = f"where {' and '.join(conditions)}" if conditions else ""
    given = (session, limit) if session is not None else (limit,)
    rows = conn.execute(f"{_SELECT} {where} order by a.asked_at_ms desc, a.id desc limit ?", given)
    return [_approval(row) for row in rows]


def _approval(row: Row) -> Approval:
    state: ApprovalState = row["state"]
    if not row["owned"] and state in ("pending", "approved"):
        state = "void"  # an approval never outlives the turn it was asked in
    return Approval(
        row["id"], row["session"], row["input"], row["turn"], row["tool"], row["digest"], row["subject"], row["shown"],
        row["why"], state, row["asked_at_ms"], row["expires_at_ms"], row["scope"], row["decided_by"],
        row["decided_at_ms"],
    )  # fmt: skip


def _owns(conn: Connection, turn: str, nonce: str) -> bool:
    found = conn.execute("select 1 from transcripts where owner_turn=? and epoch_nonce=?", (turn, nonce))
    return found.fetchone() is not None


# ── consents for a session ───────────────────────────────────────────────────────────────────────────────────────────


def granted(conn: Connection, session: str, tool: str, subject: str, now_ms: int) -> Grant | None:
    """The consent that covers a call; None: there is none that holds."""
    row = conn.execute(
        "select g.* from grants g join sessions s on s.transcript=g.transcript"
        " where s.key=? and g.tool=? and g.subject=? and g.expires_at_ms>?",
        (session, tool, subject, now_ms),
    ).fetchone()
    return None if row is None else _grant(row)


def grants(conn: Connection, session: str | None, now_ms: int) -> list[Grant]:
    if not has_table(conn):
        return []
    where = " and g.transcript in (select transcript from sessions where key=?)" if session is not None else ""
    given = (now_ms, session) if session is not None else (now_ms,)
    rows = conn.execute(f"select * from grants g where g.expires_at_ms>?{where} order by at_ms", given)  # noqa: S608
    return [_grant(row) for row in rows]


def revoke(conn: Connection, session: str) -> int:
    """Take all consents of a session back; returns how many."""
    return conn.execute(
        "delete from grants where transcript in (select transcript from sessions where key=?)", (session,)
    ).rowcount


def _grant(row: Row) -> Grant:
    return Grant(row["session"], row["tool"], row["subject"], row["granted_by"], row["at_ms"], row["expires_at_ms"])
