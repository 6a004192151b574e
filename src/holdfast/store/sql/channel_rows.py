"""The SQL of channels: who may speak there, what was turned away, who listens. Every function takes a connection; those
that write run inside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.inbound.pairing import CODE_S, PENDING_MAX, ListenerView, Pairing, TurnedAwayCount, new_code
from holdfast.lane import states
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection, Row

TURNED_AWAY_MAX = 1000
_NAME_CHARS_MAX = 80


def has_tables(conn: Connection) -> bool:
    """A reader may look at the ledger of a release that knew no channels, and cannot make the tables."""
    return conn.execute("select 1 from sqlite_master where name='listeners'").fetchone() is not None


# ── pairing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def ask(conn: Connection, channel: str, sender: str, name: str, now_ms: int) -> Pairing | None:
    """The sender's pairing as it is, if it waits or is approved; else a new code. None: too many wait."""
    expire(conn, channel, now_ms)
    known = pairing(conn, channel, sender)
    if known is not None and known.state in ("pending", "approved"):
        return known
    waiting = conn.execute(
        "select count(*) from pairings where channel=? and state='pending'", (channel,)
    ).fetchone()[0]  # fmt: skip
    if waiting >= PENDING_MAX:
        return None
    state = states.move("pairing", "unknown" if known is None else known.state, "ask")
    conn.execute(
        "insert or replace into pairings(channel, sender, name, code, state, asked_at_ms, expires_at_ms)"
        " values(?,?,?,?,?,?,?)",
        (
            channel, sender, inbox.as_text(name[:_NAME_CHARS_MAX]), new_code(), state, now_ms,
            now_ms + int(CODE_S * 1000),
        ),
    )  # fmt: skip
    return pairing(conn, channel, sender)


def expire(conn: Connection, channel: str, now_ms: int) -> None:
    """End the codes whose hour is over; one that was made in what is now the future (the clock was set back), too."""
    conn.execute(
        "update pairings set state=? where channel=? and state='pending' and (expires_at_ms<=? or asked_at_ms>?)",
        (states.move("pairing", "pending", "expire"), channel, now_ms, now_ms),
    )


def decide(conn: Connection, seen: Pairing, event: str, by: str, now_ms: int) -> Pairing | None:
    """Move a pairing. Raises IllegalMoveError: the table of states has no such move."""
    conn.execute(
        "update pairings set state=?, decided_by=?, decided_at_ms=? where channel=? and sender=?",
        (states.move("pairing", seen.state, event), inbox.as_text(by), now_ms, seen.channel, seen.sender),
    )
    return pairing(conn, seen.channel, seen.sender)


def by_code(conn: Connection, channel: str, code: str) -> Pairing | None:
    """The pairing whose code waits for approval."""
    row = conn.execute(
        "select * from pairings where channel=? and state='pending' and code=?", (channel, code)
    ).fetchone()
    return None if row is None else _pairing(row)


def pairing(conn: Connection, channel: str, sender: str) -> Pairing | None:
    row = conn.execute("select * from pairings where channel=? and sender=?", (channel, sender)).fetchone()
    return None if row is None else _pairing(row)


def pairings(conn: Connection, channel: str | None, limit: int) -> list[Pairing]:
    """Newest first."""
    if not has_tables(conn):
        return []
    rows = conn.execute(
        "select * from pairings where ?1 is null or channel=?1 order by asked_at_ms desc, channel, sender limit ?2",
        (channel, limit),
    )
    return [_pairing(row) for row in rows]


def _pairing(row: Row) -> Pairing:
    return Pairing(**{name: row[name] for name in row.keys()})  # noqa: SIM118  # of a row, not of a dict


# ── what was turned away ─────────────────────────────────────────────────────────────────────────────────────────────


def note_turned_away(
    conn: Connection, channel: str, reason: str, peer: str, sender: str, now_ms: int
) -> None:  # fmt: skip
    conn.execute(
        "insert into turned_away values(?,?,?,?,1,?5,?5) on conflict(channel, reason, peer, sender)"
        " do update set times=turned_away.times+1, last_at_ms=?5",
        (channel, reason, inbox.as_text(peer), inbox.as_text(sender), now_ms),
    )
    surplus = conn.execute("select count(*) from turned_away").fetchone()[0] - TURNED_AWAY_MAX
    if surplus > 0:
        conn.execute(
            "delete from turned_away where (channel, reason, peer, sender) in"
            " (select channel, reason, peer, sender from turned_away order by last_at_ms limit ?)",
            (surplus,),
        )


def turned_away(conn: Connection, channel: str | None, limit: int) -> list[TurnedAwayCount]:
    """The latest first."""
    if not has_tables(conn):
        return []
    rows = conn.execute(
        "select * from turned_away where ?1 is null or channel=?1 order by last_at_ms desc limit ?2", (channel, limit)
    )
    return [TurnedAwayCount(*row) for row in rows]


# ── who listens ──────────────────────────────────────────────────────────────────────────────────────────────────────


def take_listening(conn: Connection, channel: str, seen: ListenerView | None, process: str, now_ms: int) -> bool:
    """Whether it is this process's from now on."""
    before = (seen.process, seen.beat) if seen is not None else None
    row = conn.execute("select process, beat from listeners where channel=?", (channel,)).fetchone()
    if (None if row is None else tuple(row)) != before:
        return False
    conn.execute(
        "insert or replace into listeners values(?,?,'connecting',null,?,?)",
        (channel, process, 0 if seen is None else seen.beat + 1, now_ms),
    )
    return True


def note_listening(conn: Connection, channel: str, process: str, state: str, detail: str | None,
                   now_ms: int) -> None:  # fmt: skip
    conn.execute(
        "update listeners set beat=beat+1, since_ms=case when state=?1 then since_ms else ?2 end, state=?1, detail=?3"
        " where channel=?4 and process=?5",
        (state, now_ms, inbox.as_text(detail), channel, process),
    )


def note_position(conn: Connection, channel: str, process: str, position: str) -> None:
    """Beside what else is known of a ledger: it outlives whoever listens."""
    if conn.execute("select 1 from listeners where channel=? and process=?", (channel, process)).fetchone() is not None:
        conn.execute(
            "insert into meta(key, value) values(?,?) on conflict(key) do update set value=excluded.value",
            (f"position:{channel}", position),
        )


def position(conn: Connection, channel: str) -> str | None:
    row = conn.execute("select value from meta where key=?", (f"position:{channel}",)).fetchone()
    return None if row is None else str(row[0])


def leave_listening(conn: Connection, channel: str, process: str) -> None:
    conn.execute("delete from listeners where channel=? and process=?", (channel, process))


def listeners(conn: Connection, life_of: Callable[[str], Any]) -> list[ListenerView]:
    if not has_tables(conn):
        return []
    return [
        ListenerView(
            row["channel"], row["process"], life_of(row["process"]), row["state"], row["detail"], row["beat"],
            row["since_ms"],
        )
        for row in conn.execute("select * from listeners order by channel")
    ]  # fmt: skip
