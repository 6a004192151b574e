"""Accepting, settling and finding inputs: the SQL of the inbox. Every function takes a connection inside a
transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.errors import InputConflictError
from holdfast.inbound.event import Duplicate, InboundEvent, Route
from holdfast.lane import queue, states
from holdfast.lane.policy import Waiting, heads
from holdfast.lane.queue import Arrival
from holdfast.outbox.message import MOVED_ON_NOTE, Outcome, plan_deliveries
from holdfast.session.entries import text_of
from holdfast.session.fence import Epoch
from holdfast.session.key import parse_key
from holdfast.store.sql.connection import Connection, Row

CHARGED_ATTEMPTS_MAX = 3
# Without what the owner's turn has taken in: it ends with that turn, or is in its place again once that has gone.
_WAITING = """
select i.seq, i.id, i.transcript, i.lane, coalesce(y.at_ms, i.accepted_at_ms) as since_ms, i.solo,
i.accepted_at_ms, i.debounce_ms, i.session, t.owner_turn is not null as blocked
from inputs i join transcripts t on t.id=i.transcript left join yields y on y.input=i.id
where i.state in ('queued', 'running') and i.state='queued' and (i.joined is null or i.joined is not t.owner_turn)"""
_WAITING_ON = _WAITING + " and i.transcript=?"
_FIRST_TWO = "select id from inputs where state in ('queued', 'running') and state='queued' and transcript=? limit 2"
_SETTLE = (
    "update inputs set state=?, settled_at_ms=?, detail=?, error=?, result=?, turn=coalesce(?, turn), epoch_nonce=''"
    " where id=?"
)
_SETTLE_IF_OWNED = _SETTLE + " and state='running' and epoch_nonce=?"
_encode = msgspec.json.Encoder(order="deterministic").encode


def _to_json(value: Any) -> bytes:
    """The same bytes for the same value. Half an emoji (a lone surrogate) is escaped, as in transcripts."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def as_text(words: str | None) -> str | None:
    """Words from anywhere (an error's message, a channel's answer) as a column holds them: no half characters."""
    return None if words is None else words.encode("utf-8", "replace").decode()


def body_digest(event: InboundEvent) -> bytes:
    """What "the same body" means: session, lane, payload and model; not the route or where it came from."""
    return hashlib.sha256(_to_json([event.session, event.lane, event.payload, event.model])).digest()


def find_duplicate(conn: Connection, event: InboundEvent, digest: bytes) -> Duplicate | None:
    """The input that was stored under the event's key. It is touched, so that its commit is durable before it is
    acknowledged.

    Raises:
        InputConflictError: same source, account and key with another body.
    """
    if event.key is None:
        return None
    row = conn.execute(
        "select id, state, body_digest from inputs where source=? and account=? and dedupe_key=?",
        (event.source, event.account, event.key),
    ).fetchone()
    if row is None:
        return None
    if row["body_digest"] != digest:
        raise InputConflictError(f"key {event.key!r} was used before for {row['id']} with another body; use a new key")
    conn.execute("update inputs set duplicates=duplicates+1 where id=?", (row["id"],))
    return Duplicate(row["id"], row["state"])


def store(
    conn: Connection,
    event: InboundEvent,
    transcript: str,
    arrival: Arrival,
    input_id: str,
    now_ms: int,
    digest: bytes,
) -> None:
    """The row of an input that is accepted."""
    route = event.route or Route("", "")
    conn.execute(
        "insert into inputs(id, source, account, dedupe_key, body_digest, session, transcript, lane, waits, payload,"
        " model, route_channel, route_target, origin, state, accepted_at_ms, mode, debounce_ms) "
        " values(?,?,?,?,?,?,?,?,?,?,?,?,?,?,'queued',?,?,?)",
        (
            input_id, event.source, event.account, event.key, digest, event.session, transcript, event.lane,
            int(event.waits), _to_json(event.payload), event.model, route.channel or None, route.target or None,
            _to_json(event.origin), now_ms, None if arrival.mode == "followup" else arrival.mode, arrival.debounce_ms,
        ),
    )  # fmt: skip


def depths(conn: Connection, transcript: str, lane: str) -> tuple[int, int, int]:
    """How many inputs of the transcript are open, how many of them are of this lane, how many of the lane wait."""
    ahead, alike, lane_depth = conn.execute(
        "select coalesce(sum(open) filter (where transcript=?1), 0),"
        " coalesce(sum(open) filter (where transcript=?1 and lane=?2), 0),"
        " coalesce(sum(queued) filter (where transcript=''), 0)"
        " from depths where transcript=?1 or (transcript='' and lane=?2)",
        (transcript, lane),
    ).fetchone()
    return ahead, alike, lane_depth


def route_of(row: Row) -> Route | None:
    return Route(row["route_channel"], row["route_target"]) if row["route_channel"] else None


def settle(conn: Connection, row: Row, outcome: Outcome, now_ms: int, turn: str | None = None) -> str:
    """Move an open input to a terminal state and queue its deliveries. One that is terminal already stays as it is.

    Returns: the state it is in now. An input that fails although an earlier attempt had finished its answer (see
    `keep_answer`) ends as superseded, with that answer.
    """
    if row["state"] in states.TERMINAL:
        return row["state"]
    if outcome.state == "failed" and row["result"] is not None:
        outcome = _kept_answer(row, outcome)
    state = states.move("input", row["state"], states.OUTCOME_EVENT[outcome.state])
    conn.execute(_SETTLE, _settled(row, state, outcome, now_ms, turn))
    _queue_deliveries(conn, row, outcome, now_ms)
    return state


def settle_if_owned(
    conn: Connection, row: Row, epoch: Epoch, outcome: Outcome, now_ms: int, turn: str
) -> tuple[str, bool]:
    """The end of an input by the turn that runs it, if it still does; `row`: as it was claimed. Asked and done in one
    statement, but for a failure, which looks for a kept answer first.

    Returns: the state the input is in now, and whether it was this that ended it.
    """
    if outcome.state != "failed":
        state = states.move("input", "running", states.OUTCOME_EVENT[outcome.state])
        values = (*_settled(row, state, outcome, now_ms, turn), epoch.nonce)
        if conn.execute(_SETTLE_IF_OWNED, values).rowcount == 1:
            _queue_deliveries(conn, row, outcome, now_ms)
            return state, True
    current = by_id(conn, row["id"])
    assert current is not None
    if current["epoch_nonce"] == epoch.nonce and current["state"] == "running":
        return settle(conn, current, outcome, now_ms, turn), True
    return current["state"], False


def _settled(row: Row, state: str, outcome: Outcome, now_ms: int, turn: str | None) -> tuple[Any, ...]:
    result = None if outcome.result is None else _to_json(outcome.result)
    return (state, now_ms, as_text(outcome.detail), outcome.error, result, turn, row["id"])


def _queue_deliveries(conn: Connection, row: Row, outcome: Outcome, now_ms: int) -> None:
    route = route_of(row)
    for delivery in plan_deliveries(row["id"], route, outcome) if route is not None else ():
        conn.execute(
            "insert or ignore into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
            " values(?,?,?,?,?,?,'pending',?,?)",
            (delivery.id, row["id"], delivery.channel, delivery.target, delivery.part, delivery.body, now_ms, now_ms),
        )


def keep_answer(conn: Connection, input_id: str, kept: Outcome) -> None:
    """Somebody else answers this input now; what a former owner had finished is for the case that all others fail."""
    conn.execute(
        "update inputs set result=? where id=? and state in ('queued', 'running') and result is null",
        (_to_json(kept.result) if kept.answer else None, input_id),
    )


def _kept_answer(row: Row, failed: Outcome) -> Outcome:
    result = json.loads(row["result"])
    detail = f"the answer of an attempt that had lost the conversation; later ones failed: {failed.detail}"
    return Outcome("superseded", text_of(result["message"]), result, detail, notice=MOVED_ON_NOTE)


def by_id(conn: Connection, input_id: str) -> Row | None:
    return conn.execute("select * from inputs where id=?", (input_id,)).fetchone()


def requeue(conn: Connection, row: Row, *, charge: bool, solo: bool, why: str, now_ms: int) -> str:
    """Put a running input whose turn died back in its place, or fail it after the last charged attempt.

    Returns: the state it is in now.
    """
    charged = row["charged"] + int(charge)
    if charged >= CHARGED_ATTEMPTS_MAX:
        explained = (
            f"This message could not be answered: its turn was lost or its process died {charged} times. "
            "It is kept; send it again to try once more."
        )
        return settle(conn, row, Outcome("failed", detail=why, error="TurnDied", notice=explained), now_ms)
    state = states.move("input", row["state"], "requeue")
    conn.execute(
        "update inputs set state=?, charged=?, solo=?, epoch_nonce='', detail=? where id=?",
        (state, charged, int(solo), as_text(why), row["id"]),
    )
    return state


def note_yield(conn: Connection, input_id: str, now_ms: int) -> None:
    """An input whose turn gave way waits anew from now on, or it would go before those it gave way to."""
    conn.execute(
        "insert into yields(input, at_ms, times) values(?,?,1)"
        " on conflict(input) do update set at_ms=excluded.at_ms, times=yields.times+1",
        (input_id, now_ms),
    )


def times_yielded(conn: Connection, input_id: str) -> int:
    row = conn.execute("select times from yields where input=?", (input_id,)).fetchone()
    return row[0] if row else 0


def recall_attempt(conn: Connection, input_id: str, offset: int) -> None:
    """A queued input that the ledger takes for new has a line at `offset`: it has been run before."""
    conn.execute(
        "update inputs set attempts=1, first_offset=? where id=? and state='queued' and attempts=0", (offset, input_id)
    )


def waiting(
    conn: Connection, now_ms: int, transcript: str | None = None, *, with_agents: bool = False
) -> list[Waiting]:
    """Pictures of the queued inputs, for the policy; with their agents only where that is asked for."""
    found = conn.execute(_WAITING) if transcript is None else conn.execute(_WAITING_ON, (transcript,))
    rows = found.fetchall()
    arrivals: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        if row["debounce_ms"]:
            arrivals.setdefault(row["transcript"], []).append((row["accepted_at_ms"], row["debounce_ms"]))
    quiet_in_s = {name: queue.quiet_in_s(each, now_ms) for name, each in arrivals.items()}
    return [
        Waiting(
            row["seq"], row["id"], row["transcript"], row["lane"], max(0, now_ms - row["since_ms"]) / 1000,
            bool(row["blocked"]), bool(row["solo"]), quiet_in_s[row["transcript"]] if row["debounce_ms"] else 0.0,
            parse_key(row["session"]).agent if with_agents else "",
        )
        for row in rows
    ]  # fmt: skip


def quiet_in_s(conn: Connection, transcript: str, now_ms: int) -> float:
    """How long it must still be quiet before what waits here behind a turn begins."""
    return max((one.quiet_in_s for one in waiting(conn, now_ms, transcript)), default=0.0)


def head_of_line(conn: Connection, transcript: str, now_ms: int) -> str | None:
    """The input that is next on this transcript. One that waits alone needs no rules."""
    alone = conn.execute(_FIRST_TWO, (transcript,)).fetchall()
    if len(alone) < 2:
        return alone[0]["id"] if alone else None
    return heads(waiting(conn, now_ms, transcript))[0].id


def request_cancel(conn: Connection, input_id: str, by: str, now_ms: int) -> str:
    """Ask for an end. A queued input ends at once; a running one, or one that a running turn has taken in, is settled
    by its owner or its recovery, and one that may have run before a power loss by whoever claims it and looks for its
    final line.

    Returns: "cancelled", "requested" or "already <state>".
    """
    row = by_id(conn, input_id)
    assert row is not None
    if row["state"] in states.TERMINAL:
        return f"already {row['state']}"
    conn.execute("update inputs set cancel_by=coalesce(cancel_by, ?) where id=?", (as_text(by), input_id))
    if row["state"] == "queued" and not _may_have_run_unseen(row) and not _is_taken_in(conn, row):
        settle(conn, row, Outcome("cancelled", detail=f"cancelled by {by} before it started"), now_ms)
        return "cancelled"
    return "requested"


def _is_taken_in(conn: Connection, row: Row) -> bool:
    """Whether a turn that owns the transcript has it: its final line may name the input, and wins then."""
    owner = "select 1 from transcripts where id=? and owner_turn=?"
    return row["joined"] is not None and conn.execute(owner, (row["transcript"], row["joined"])).fetchone() is not None


def note_that_they_may_have_run(conn: Connection) -> None:
    """After a restart of the machine: queued inputs that never ran, as this ledger has it, may have run in claims that
    it has lost. Until somebody has claimed one and looked (`recall_attempt`), nobody else ends it.
    """
    conn.execute(
        "update inputs set first_offset=(select synced_end from transcripts where id=transcript)"
        " where state='queued' and state in ('queued', 'running') and first_offset is null"
    )


def _may_have_run_unseen(row: Row) -> bool:
    """See `note_that_they_may_have_run`: the transcript may hold a final line, and nobody has looked yet."""
    return row["attempts"] == 0 and row["first_offset"] is not None


StoryLine = tuple[int, str, str | None, str | None, str, dict[str, Any]]
"""at_ms, session, input, turn, kind, data."""


def note_events(conn: Connection, story: Iterable[StoryLine]) -> None:
    """Lines of the story that `why` tells."""
    conn.executemany(
        "insert into events(at_ms, session, input, turn, kind, data) values(?,?,?,?,?,?)",
        (
            (at, session, input_id, turn, kind, _to_json(data).decode())
            for at, session, input_id, turn, kind, data in story
        ),
    )
