"""Inputs that share a turn, and what gives way in a full queue: the SQL. Every function runs inside a transaction.

An input that a turn has taken in stays `queued`, with the turn's id in `joined`: while that turn owns the transcript
nobody else may start it. It ends with the final line that names it; if the turn ends otherwise, or dies, the mark means
nothing any more and the input is next in its place, with no clean-up to be done by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from holdfast import ids
from holdfast.inbound.commands import read_command
from holdfast.inbound.event import Accepted, Admission, InboundEvent, LaneFull
from holdfast.lane import queue
from holdfast.lane.policy import RANK, LaneLimits
from holdfast.lane.queue import INTERRUPTED_BY, RESET_BY, USER_LANE, Arrival, How, Mode, Place, QueueSettings
from holdfast.outbox.message import Outcome
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.session_rows import home_of

WAITING_PART, DROPPED_PART, DRAINING_PART, HELD_PART = -1, -2, -3, -4
"""Parts of an answer count from 0; a notice beside it is none of them."""
_QUEUED = """
select i.* from inputs i join transcripts t on t.id=i.transcript where i.state in ('queued', 'running')
 and i.state='queued' and i.transcript=? and (i.joined is null or i.joined is not t.owner_turn) order by i.seq"""
_RUNNING = "select i.* from inputs i where i.transcript=? and i.state in ('queued', 'running') and i.state='running'"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(conn: Connection, session: str, usual: QueueSettings) -> QueueSettings:
    """A session's own settings over the usual ones."""
    row = conn.execute("select value from queue_settings where session=?", (home_of(conn, session),)).fetchone()
    return usual if row is None else queue.with_change(usual, json.loads(row[0]))


def change_settings(conn: Connection, session: str, change: dict[str, Any] | None) -> None:
    """Lay `change` over a session's own settings; None: it has none any more."""
    session = home_of(conn, session)
    if change is None:
        conn.execute("delete from queue_settings where session=?", (session,))
        return
    row = conn.execute("select value from queue_settings where session=?", (session,)).fetchone()
    merged = {**(json.loads(row[0]) if row is not None else {}), **change}
    conn.execute("insert or replace into queue_settings(session, value) values(?,?)", (session, json.dumps(merged)))


# ── arriving ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def accept(
    conn: Connection,
    event: InboundEvent,
    transcript: str,
    usual: QueueSettings,
    limits: LaneLimits,
    now_ms: int,
    digest: bytes,
) -> Admission:
    """Store an input, make room for it or interrupt for it as the session's queue is set, or say why not.

    Raises:
        InputConflictError: same source, account and key with another body.
    """
    duplicate = inbox.find_duplicate(conn, event, digest)
    if duplicate is not None:
        return duplicate
    ahead, alike, lane_depth = inbox.depths(conn, transcript, event.lane)
    is_machine = _is_machine(event.lane)
    taken = ahead if is_machine else alike  # a flood of machines takes no place of a user's
    if lane_depth >= limits.depth_max:
        return LaneFull(event.lane, lane_depth, limits.depth_max)
    settings = settings_of(conn, event.session, usual) if ahead else usual
    settings = replace(settings, mode=event.queue or settings.mode)
    arrival = queue.arrive(settings, waits=event.waits, lane=event.lane, ahead=ahead)
    arriving = _arriving(event, arrival.mode)
    # Only somebody who can be told, and does not stand there waiting, may find that an older message gave way.
    may_drop = settings.drop != "new" and arriving.channel is not None and not event.waits and event.lane == USER_LANE
    limit = min(settings.cap, limits.per_session_max) if arriving.channel is not None else limits.per_session_max
    dropped = drop_for(conn, arriving, transcript, settings, now_ms) if may_drop and taken > limit else None
    if taken > limit and dropped is None:
        return LaneFull(event.lane, taken, limit)
    interrupts = interrupt(conn, arriving, transcript) if arrival.mode == "interrupt" and ahead else None
    inbox.store(conn, event, transcript, arrival, arriving.id, now_ms, digest)
    if dropped is not None:
        conn.execute(
            "update inputs set carries=1 where id=? and exists"
            " (select 1 from inputs where joined=? and how in ('summary', 'drop'))",
            (arriving.id, arriving.id),
        )
    return Accepted(arriving.id, ahead, interrupts, dropped)


def accept_command(
    conn: Connection,
    event: InboundEvent,
    transcript: str,
    _usual: QueueSettings,
    limits: LaneLimits,
    now_ms: int,
    digest: bytes,
) -> Admission:
    """Store what is said to the runtime: a full queue does not keep `/stop` out, up to twice its limit.

    Raises: as `accept`.
    """
    duplicate = inbox.find_duplicate(conn, event, digest)
    if duplicate is not None:
        return duplicate
    ahead, _, _ = inbox.depths(conn, transcript, event.lane)
    if ahead > 2 * limits.per_session_max:
        return LaneFull(event.lane, ahead, limits.per_session_max)
    arriving = _arriving(event, "followup")
    interrupts = interrupt_conversation(conn, transcript) if event.queue == "interrupt" and ahead else None
    inbox.store(conn, event, transcript, Arrival("followup", 0), arriving.id, now_ms, digest)
    return Accepted(arriving.id, ahead, interrupts)


def _arriving(event: InboundEvent, mode: Mode) -> Place:
    channel, target = (event.route.channel, event.route.target) if event.route is not None else (None, None)
    return Place(ids.new_id("in"), event.session, event.lane, channel, target, event.model, event.waits, mode)


def place_of(row: Row) -> Place:
    return Place(
        row["id"], row["session"], row["lane"], row["route_channel"], row["route_target"], row["model"],
        bool(row["waits"]), cast("Mode", row["mode"] or "followup"),
    )  # fmt: skip


def drop_for(conn: Connection, arriving: Place, transcript: str, settings: QueueSettings, now_ms: int) -> str | None:
    """Make room for an input that is being stored: what is dropped ends as skipped, and the sender is told.

    Returns: the input that gave way, None if there is none that may.
    """
    rows = conn.execute(_QUEUED, (transcript,)).fetchall()
    waiting = [place_of(row) for row in rows if _never_ran(row) and not _is_command(row)]
    dropped = queue.choose_dropped(arriving, waiting)
    if dropped is None:
        return None
    carrier = next((other.id for other in waiting if other.id != dropped.id and queue.may_share(arriving, other)), None)
    carrier = carrier or arriving.id
    row = inbox.by_id(conn, dropped.id)
    assert row is not None
    kept = settings.drop == "summarize"
    what = "a line about it stands before the next turn" if kept else "it was the oldest"
    detail = f"too many messages were waiting (limit {settings.cap}); {what}"
    inbox.settle(conn, row, Outcome("skipped", detail=detail), now_ms)
    conn.execute("update inputs set joined=?, how=? where id=?", (carrier, "summary" if kept else "drop", dropped.id))
    conn.execute("update inputs set joined=? where joined=? and how in ('summary', 'drop')", (carrier, dropped.id))
    conn.execute("update inputs set carries=1 where id=?", (carrier,))
    _tell_of_dropped(conn, row, carrier, now_ms)
    return dropped.id


def _is_command(row: Row) -> bool:
    """What is said to the runtime gives way to nothing, and tells the model of nothing that did."""
    return read_command(row["lane"], json.loads(row["payload"])) is not None


def _never_ran(row: Row) -> bool:
    """Whether the transcript can hold nothing of it: what may have been answered before a kill or a power loss is ended
    by whoever looks, not by whoever needs room.
    """
    return row["attempts"] == 0 and row["first_offset"] is None


def interrupt(conn: Connection, arriving: Place, transcript: str) -> str | None:
    """Ask the turn that runs for the same place to stop. Returns its input."""
    row = conn.execute(_RUNNING, (transcript,)).fetchone()
    if row is None or not queue.may_share(arriving, replace(place_of(row), waits=False)):
        return None
    conn.execute("update inputs set cancel_by=coalesce(cancel_by, ?) where id=?", (INTERRUPTED_BY, row["id"]))
    return row["id"]


def interrupt_conversation(conn: Connection, transcript: str) -> str | None:
    """Ask the turn that answers somebody there to stop, whoever asked. Returns its input."""
    row = conn.execute(_RUNNING, (transcript,)).fetchone()
    if row is None or _is_machine(row["lane"]):
        return None
    conn.execute("update inputs set cancel_by=coalesce(cancel_by, ?) where id=?", (RESET_BY, row["id"]))
    return row["id"]


def _is_machine(lane: str) -> bool:
    return lane in RANK and lane != USER_LANE


# ── sharing a turn ───────────────────────────────────────────────────────────────────────────────────────────────────


def join(conn: Connection, transcript: str, turn: str, own: Row, how: How, end: int, now_ms: int) -> list[Row]:
    """Take in what waits and may share this turn, which owns the transcript.

    Args:
        end: size of the transcript now: lines of these inputs come after it, if they have none yet.

    Returns: the inputs' rows as they were, oldest first.
    """
    rows = {row["id"]: row for row in conn.execute(_QUEUED, (transcript,)) if row["cancel_by"] is None}
    joining = queue.choose_joining(place_of(own), [place_of(row) for row in rows.values()], how)
    for other in joining:
        conn.execute(
            "update inputs set joined=?, how=?, turn=?, first_offset=min(coalesce(first_offset, ?), ?) where id=?",
            (turn, how, turn, end, end, other.id),  # the file may be another one, or shorter after a power loss
        )
        story = (now_ms, other.session, other.id, turn, "turn.took_in", {"turn": turn, "input": own["id"], "how": how})
        inbox.note_events(conn, [story])
    return [rows[other.id] for other in joining]


def has_waiting(conn: Connection, transcript: str) -> bool:
    """Whether anything waits on a transcript besides what its owner has taken in."""
    return conn.execute(f"{_QUEUED} limit 1", (transcript,)).fetchone() is not None


def dropped_before(conn: Connection, input_id: str) -> list[Row]:
    """What was dropped and is to be told of before this input, oldest first."""
    return conn.execute(
        "select * from inputs where joined=? and how in ('summary', 'drop') and how='summary' order by seq",
        (input_id,),
    ).fetchall()


def settle_joined(
    conn: Connection, transcript: str, turn: str, named: Collection[str], final: Outcome, now_ms: int
) -> None:
    """A turn has answered: the inputs it took in, and whose ids its final line names, end with it.

    They have the same answer; it went out once, for the input that the turn was begun for.
    """
    rows = conn.execute(
        "select * from inputs where transcript=? and state in ('queued', 'running') and joined=?", (transcript, turn)
    ).fetchall()
    for row in rows:
        if row["id"] in named and row["state"] == "queued":
            state = "steered" if row["how"] == "steer" else "merged"
            inbox.settle(conn, row, Outcome(state, result=final.result, detail=f"answered by {turn}"), now_ms, turn)


# ── telling the sender ───────────────────────────────────────────────────────────────────────────────────────────────


_WHO_WAITS = """
select i.seq, i.id, i.route_channel, i.route_target, w.waiting, coalesce(t.owner_turn, i.id) as behind
 from (select min(i.seq) as seq, count(*) as waiting from inputs i join transcripts t on t.id=i.transcript
  where i.state in ('queued', 'running') and i.state='queued' and i.route_channel is not null and i.waits=0
  and (i.joined is null or i.joined is not t.owner_turn) group by i.transcript, i.route_channel, i.route_target{having}
 ) w join inputs i on i.seq=w.seq join transcripts t on t.id=i.transcript"""


def untold(conn: Connection, waiting: Sequence[str]) -> list[Row]:
    """Of these inputs who waits and has not been told, one row for each place answers go to."""
    rows = conn.execute(  # only question marks are put in
        _WHO_WAITS.format(having=f" having sum(i.id in ({','.join('?' * len(waiting))}))>0"), tuple(waiting)
    ).fetchall()
    known = "select 1 from outbox where id=?"
    return [
        row for row in rows if conn.execute(known, (_notice_id(row, ("waiting", row["behind"])),)).fetchone() is None
    ]


def tell_of_waiting(conn: Connection, waiting: Sequence[str], now_ms: int) -> int:
    """Tell senders that their messages wait, once for each turn they wait behind. Returns how many were told now."""
    rows = untold(conn, waiting)
    for row in rows:
        text = f"(Still busy with something earlier; {_messages_wait(row['waiting'])}.)"
        _notice(conn, row, WAITING_PART, ("waiting", row["behind"]), text, now_ms)
    return len(rows)


def tell_of_draining(conn: Connection, process: str, now_ms: int) -> int:
    """Tell senders whose messages wait that they wait for a restart, each place once. Returns how many are new."""
    told = 0
    for row in conn.execute(_WHO_WAITS.format(having="")).fetchall():
        text = f"(Restarting; {_messages_wait(row['waiting'])} and will be answered afterwards.)"
        told += _notice(conn, row, DRAINING_PART, ("draining", process), text, now_ms)
    return told


def tell_of_holder(conn: Connection, input_id: str, text: str, holder: str, now_ms: int) -> int:
    """Tell the sender of an input who holds its conversation up, once, and note it in the story. Returns 1 if there is
    a message to send, else 0.
    """
    row = inbox.by_id(conn, input_id)
    if row is None or row["state"] != "queued":
        return 0
    told = conn.execute("select 1 from events where input=? and kind='input.held_up' limit 1", (input_id,)).fetchone()
    if told is None:
        line = (now_ms, row["session"], input_id, None, "input.held_up", {"holder": holder})
        inbox.note_events(conn, [line])
    if row["route_channel"] is None or row["waits"]:
        return 0
    return _notice(conn, row, HELD_PART, ("held", input_id), text, now_ms)


def _messages_wait(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count} messages wait"


def _tell_of_dropped(conn: Connection, row: Row, carrier: str, now_ms: int) -> None:
    if row["route_channel"] is None:
        return
    count = conn.execute(
        "select count(*) from inputs where joined=? and how in ('summary', 'drop')", (carrier,)
    ).fetchone()[0]
    what = "1 message was" if count == 1 else f"{count} messages were"
    text = f"(Too many messages are waiting: {what} dropped, the oldest first.)"
    owner = conn.execute("select owner_turn from transcripts where id=?", (row["transcript"],)).fetchone()[0]
    _notice(conn, row, DROPPED_PART, ("dropped", owner or carrier), text, now_ms)


def _notice_id(row: Row, about: Sequence[str]) -> str:
    return "n_" + ids.derived_id("notice", *about, row["route_channel"], row["route_target"])


def _notice(conn: Connection, row: Row, part: int, about: Sequence[str], text: str, now_ms: int) -> int:
    """One message to where an input's answer goes; said again while the first has not gone out, it replaces it.

    Returns: 1 if there is something new to send, else 0.
    """
    done = conn.execute(
        "insert into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
        " values(?,?,?,?,?,?,'pending',?,?) on conflict(id) do update set body=excluded.body"
        " where outbox.state='pending' and outbox.attempts=0 and outbox.sent_chars=0 and outbox.body<>excluded.body",
        (_notice_id(row, about), row["id"], row["route_channel"], row["route_target"], part, text, now_ms, now_ms),
    )
    return done.rowcount
