"""The SQL of the web chat: its messages, and the browsers that are logged in. Every function takes a connection; those
that write run inside a transaction.
"""

from __future__ import annotations

from holdfast.outbox.mail import LOGINS_MAX, MAIL_KEPT, Login, Mail, Who
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection, Row


def put(conn: Connection, channel: str, mail_id: str, target: str, who: Who, text: str, now_ms: int) -> Mail:
    known = find(conn, channel, mail_id)
    if known is not None:
        return known
    seq = conn.execute(
        "insert into mail(channel, id, target, who, text, at_ms) values(?,?,?,?,?,?) returning seq",
        (channel, mail_id, target, who, inbox.as_text(text), now_ms),
    ).fetchone()[0]
    conn.execute(
        "delete from mail where channel=? and target=? and seq<=(select seq from mail where channel=? and target=?"
        " order by seq desc limit 1 offset ?)",
        (channel, target, channel, target, MAIL_KEPT),
    )
    found = find(conn, channel, mail_id)
    assert found is not None, seq
    return found


def find(conn: Connection, channel: str, mail_id: str) -> Mail | None:
    row = conn.execute("select * from mail where channel=? and id=?", (channel, mail_id)).fetchone()
    return None if row is None else _mail(row)


def after(conn: Connection, channel: str, target: str, seq: int, limit: int) -> list[Mail]:
    rows = conn.execute(
        "select * from mail where channel=? and target=? and seq>? order by seq limit ?", (channel, target, seq, limit)
    )
    return [_mail(row) for row in rows]


def before(conn: Connection, channel: str, target: str, seq: int | None, limit: int) -> list[Mail]:
    rows = conn.execute(
        "select * from mail where channel=? and target=? and (? is null or seq<?) order by seq desc limit ?",
        (channel, target, seq, seq, limit),
    ).fetchall()
    return [_mail(row) for row in reversed(rows)]


def newest(conn: Connection, channel: str) -> int:
    return conn.execute("select coalesce(max(seq), 0) from mail where channel=?", (channel,)).fetchone()[0]


def targets(conn: Connection, channel: str, limit: int) -> list[tuple[str, int]]:
    rows = conn.execute(
        "select m.target, m.at_ms from mail m join"
        " (select max(seq) as newest from mail where channel=? group by target order by newest desc limit ?) n"
        " on n.newest=m.seq order by m.seq desc",
        (channel, limit),
    )
    return [(row["target"], row["at_ms"]) for row in rows]


def begin_login(conn: Connection, one: Login) -> None:
    """Those that are over go; and the oldest, past `LOGINS_MAX`."""
    conn.execute("delete from logins where expires_at_ms<=? or at_ms>?", (one.at_ms, one.at_ms))
    conn.execute(
        "insert into logins(digest, account, at_ms, expires_at_ms) values(?,?,?,?)",
        (one.digest, one.account, one.at_ms, one.expires_at_ms),
    )
    conn.execute(
        "delete from logins where digest in (select digest from logins order by at_ms desc limit -1 offset ?)",
        (LOGINS_MAX,),
    )


def login(conn: Connection, digest: str, now_ms: int) -> Login | None:
    """One that holds now; one that was made in what is now the future (the clock was set back) does not."""
    row = conn.execute(
        "select * from logins where digest=? and expires_at_ms>? and at_ms<=?", (digest, now_ms, now_ms)
    ).fetchone()
    return None if row is None else Login(row["digest"], row["account"], row["at_ms"], row["expires_at_ms"])


def end_login(conn: Connection, digest: str) -> None:
    conn.execute("delete from logins where digest=?", (digest,))


def _mail(row: Row) -> Mail:
    return Mail(row["seq"], row["id"], row["target"], row["who"], row["text"], row["at_ms"])
