"""Archives as rows, and what of a session is in use. Every function runs inside a transaction."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lane import states
from holdfast.session.fence import Epoch
from holdfast.session.key import type_of
from holdfast.session.retention import Conversation, Kept
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.outbox_rows import OPEN
from holdfast.store.views import ArchiveView

_VIEW = "id, session, title, state, why, by, at_ms, bytes, transcript, name"


def begin(conn: Connection, view: ArchiveView, turn: str) -> None:
    """A transcript is about to be put away by its owner."""
    conn.execute(
        "insert into archives(id, transcript, session, name, state, why, by, at_ms, bytes, turn, title)"
        " values(?,?,?,?,'begun',?,?,?,?,?,?)",
        (
            view.id, view.transcript, view.session, view.name, view.why, view.by, view.at_ms, view.bytes, turn,
            view.title,
        ),
    )  # fmt: skip


def forget_what_is_durable(conn: Connection, transcript: str) -> None:
    """Another file is about to take the transcript's place. After a power loss it is read as one that is new: by what
    was known of the one before, whole lines of it could be taken for damage. The end of the turn notes it anew.
    """
    conn.execute(
        "update transcripts set synced_end=0, synced_link=x'', anchor=0, anchor_digest=null, fingerprint=null"
        " where id=?",
        (transcript,),
    )


def by_id(conn: Connection, archive: str) -> ArchiveView | None:
    row = conn.execute(f"select {_VIEW} from archives where id=?", (archive,)).fetchone()  # noqa: S608  # our own words
    return None if row is None else ArchiveView(*row)


def listed(conn: Connection, session: str | None, limit: int) -> list[ArchiveView]:
    """Those that are whole, newest first."""
    where = "" if session is None else " and transcript=(select transcript from sessions where key=:key)"
    sql = f"select {_VIEW} from archives where state='kept'{where} order by at_ms desc, id limit :limit"  # noqa: S608
    return [ArchiveView(*row) for row in conn.execute(sql, {"key": session, "limit": limit})]


def unfinished(conn: Connection, transcript: str | None = None) -> list[ArchiveView]:
    """What somebody began and has not ended, who is not at it any more."""
    sql = (
        "select a.id, a.session, a.title, a.state, a.why, a.by, a.at_ms, a.bytes, a.transcript, a.name from archives a"
        " left join transcripts t on t.id=a.transcript where a.state<>'kept' and a.turn is not t.owner_turn"
    )
    if transcript is None:
        return [ArchiveView(*row) for row in conn.execute(sql)]
    return [ArchiveView(*row) for row in conn.execute(f"{sql} and a.transcript=?", (transcript,))]


def move(conn: Connection, archive: str, event: str, turn: str = "", size: int | None = None) -> bool:
    """Move an archive along its table; its row goes with its end. False: it is not there.

    Raises:
        IllegalMoveError: it is not in a state for that.
    """
    row = conn.execute("select state from archives where id=?", (archive,)).fetchone()
    if row is None:
        return False
    after = states.move("archive", row["state"], event)
    if after == "gone":
        conn.execute("delete from archives where id=?", (archive,))
    else:
        conn.execute(
            "update archives set state=?, turn=?, bytes=coalesce(?, bytes) where id=?", (after, turn, size, archive)
        )
    return True


def is_owner(conn: Connection, transcript: str, turn: str, epoch: Epoch) -> bool:
    row = conn.execute(
        "select 1 from transcripts where id=? and owner_turn=? and epoch_number=? and epoch_nonce=?",
        (transcript, turn, *epoch),
    ).fetchone()
    return row is not None


def in_use(conn: Connection, transcript: str, *, but_for: str = "") -> str:
    """Why a transcript must stay as it is, in words; empty: it need not.

    Args:
        but_for: the turn that asks.
    """
    row = conn.execute("select owner_turn, owner_lane from transcripts where id=?", (transcript,)).fetchone()
    if row is not None and row["owner_turn"] is not None and row["owner_turn"] != but_for:
        return f"turn {row['owner_turn']} ({row['owner_lane']}) runs"
    waiting = conn.execute(
        "select count(*) from inputs where state in ('queued', 'running') and transcript=?", (transcript,)
    ).fetchone()[0]
    if waiting:
        return "an input is open" if waiting == 1 else f"{waiting} inputs are open"
    sending = conn.execute(
        f"select 1 from outbox o join inputs i on i.id=o.input where o.state in {OPEN} and i.transcript=? limit 1",  # noqa: S608  # our own words
        (transcript,),
    ).fetchone()
    return "" if sending is None else "an answer has not been delivered yet"


def conversations(conn: Connection) -> list[Row]:
    """Each transcript with one of its keys, when it was last used, its path, and the length at which it is empty.

    Used: when a turn of people began on it, and of anybody where it is a machine's own (`is_machine`).
    """
    return conn.execute(
        "select t.id, t.path, min(coalesce(s.home, s.key)) as key,"
        " max(coalesce((select max(u.started_at_ms) from turns u where u.session=s.key and u.lane in ('main')),"
        "  s.created_at_ms)) as used,"
        " max(coalesce((select max(u.started_at_ms) from turns u where u.session=s.key and u.lane<>'upkeep'),"
        "  s.created_at_ms)) as used_by_any,"
        " t.fresh_bytes from transcripts t join sessions s on s.transcript=t.id group by t.id"
    ).fetchall()


def retained(conn: Connection, size_of: Callable[[Row], int]) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
    """What the plan of retention looks at, and a key of each transcript.

    Args:
        size_of: a transcript's bytes, by its row.
    """
    found: list[Conversation] = []
    rows = conversations(conn)
    for row in rows:
        machine, size = is_machine(row["key"]), size_of(row)
        used = row["used_by_any"] if machine else row["used"]
        is_empty = size <= row["fresh_bytes"]
        found.append(Conversation(row["id"], used, size, in_use(conn, row["id"]), machine, is_empty))
    kept = [Kept(one.id, one.transcript, one.at_ms, one.bytes) for one in listed(conn, None, -1)]
    return found, kept, {row["id"]: row["key"] for row in rows}


def is_machine(key: str) -> bool:
    return type_of(key) == "machine"


def note_fresh(conn: Connection, transcript: str, fresh_bytes: int, at_ms: int | None) -> None:
    """How long the file is that has begun where another was put away, and when; 0 and None: none has."""
    conn.execute(
        "update transcripts set fresh_bytes=?, archived_at_ms=? where id=?", (fresh_bytes, at_ms, transcript)
    )  # fmt: skip


def note_put_away(conn: Connection, transcript: str, fresh_bytes: int, now_ms: int) -> None:
    """Title and receipts were those of the conversation that was put away."""
    note_fresh(conn, transcript, fresh_bytes, now_ms)
    conn.execute("update sessions set title=null where transcript=?", (transcript,))
    conn.execute("delete from read_marks where transcript=?", (transcript,))


def begin_chore(conn: Connection, name: str, every_ms: int, now_ms: int) -> bool:
    """Whether it is now for whoever asks to do what is done once in a while, among all. A clock that was set back far
    makes it due at once.
    """
    changed = conn.execute(
        "insert into chores(name, at_ms) values(?1, ?2) on conflict(name) do update set at_ms=?2"
        " where chores.at_ms<=?2-?3 or chores.at_ms>?2+?3",
        (name, now_ms, every_ms),
    )
    return changed.rowcount == 1
