"""Sessions as rows: keys that share a transcript, and when people last spoke. Every function runs inside a
transaction.
"""

from __future__ import annotations

from holdfast.lane.queue import USER_LANE
from holdfast.store.sql.connection import Connection

TIMER_SOURCES = ("cron", "heartbeat", "announcement", "spawn", "subagent")
"""Sources of inputs that no person has sent."""
_MARKS = ",".join("?" * len(TIMER_SOURCES))


def home_of(conn: Connection, session: str) -> str:
    """The key under which the settings of a session are kept: that of the session whose transcript it shares."""
    row = conn.execute("select coalesce(home, key) from sessions where key=?", (session,)).fetchone()
    return row[0] if row is not None else session


def keys_with(conn: Connection, session: str) -> list[str]:
    """All keys of a session's transcript, itself among them, the oldest first; itself alone if it is not known."""
    rows = conn.execute(
        "select key from sessions where transcript=(select transcript from sessions where key=?)"
        " order by created_at_ms, rowid",
        (session,),
    ).fetchall()
    return [row[0] for row in rows] or [session]


def last_spoken_ms(conn: Connection, session: str, before_input: str | None) -> int | None:
    """When people last spoke in a conversation, under whichever key, or were answered; None: never.

    Args:
        before_input: only what was accepted before this one counts; None: all.
    """
    newest: int | None = None
    for key in keys_with(conn, session):
        row = conn.execute(
            "select max(accepted_at_ms, coalesce(settled_at_ms, 0)) from inputs"  # noqa: S608  # only question marks
            f" where session=? and lane=? and source not in ({_MARKS})"
            " and seq<coalesce((select seq from inputs where id=?), 9e18) order by seq desc limit 1",
            (key, USER_LANE, *TIMER_SOURCES, before_input),
        ).fetchone()
        if row is not None and (newest is None or row[0] > newest):
            newest = row[0]
    return newest


def read_mark(conn: Connection, transcript: str, reader: str) -> str | None:
    row = conn.execute(
        "select upto from read_marks where transcript=? and reader=?", (transcript, reader)
    ).fetchone()  # fmt: skip
    return row[0] if row is not None else None
