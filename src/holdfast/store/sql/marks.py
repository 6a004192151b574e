"""What has been told of owners that stand still, and asked of them (`recovery/watching.py`): SQL. Every function takes
a connection.
"""

from __future__ import annotations

from holdfast.recovery.watching import Mark
from holdfast.session.fence import Epoch
from holdfast.store.sql.connection import Connection

_COLUMNS = "transcript, session, epoch_number, epoch_nonce, event, reason, episode, told, asked, outcome, revision"


def marks(conn: Connection) -> list[Mark]:
    """All there are: of owners that stand still, and of those that were asked to end until that is reported."""
    return [
        Mark(row["turn"], row["transcript"], row["session"], Epoch(row["epoch_number"], row["epoch_nonce"]),
             row["event"], row["reason"], row["episode"], row["told"], row["asked"], row["outcome"], row["revision"])
        for row in conn.execute(f"select turn, {_COLUMNS} from marks")  # noqa: S608  # our own words
    ]  # fmt: skip


def change(conn: Connection, turn: str, seen: Mark | None, to: Mark | None) -> bool:
    """Make, change or remove a mark if it still is as it was seen. Within a transaction.

    A warning and a request are about a turn that owns its transcript at this moment, under the very epoch that was
    captured; else nothing is changed, so that nobody is asked for what another did.
    """
    if to is not None and to.outcome is None and not _owns(conn, to):
        return False
    if seen is not None:
        same = (turn, seen.revision)
        if to is None:
            return conn.execute("delete from marks where turn=? and revision=?", same).rowcount == 1
        if conn.execute("select 1 from marks where turn=? and revision=?", same).fetchone() is None:
            return False
    assert to is not None
    values = (
        turn, to.transcript, to.session, *to.epoch, to.event, to.reason, to.episode, to.told, to.asked, to.outcome,
        to.revision + 1,
    )  # fmt: skip
    how = "insert or replace" if seen is not None else "insert or ignore"
    sql = f"{how} into marks(turn, {_COLUMNS}) values(?,?,?,?,?,?,?,?,?,?,?,?)"
    return conn.execute(sql, values).rowcount == 1


def _owns(conn: Connection, mark: Mark) -> bool:
    row = conn.execute(
        "select 1 from transcripts where id=? and owner_turn=? and epoch_number=? and epoch_nonce=?",
        (mark.transcript, mark.turn, *mark.epoch),
    ).fetchone()
    return row is not None


def asked_to_end(conn: Connection) -> dict[str, str]:
    """Turns that recovery has asked to end, and why."""
    rows = conn.execute("select turn, asked from marks where asked is not null and outcome is null")
    return {row["turn"]: row["asked"] for row in rows}
