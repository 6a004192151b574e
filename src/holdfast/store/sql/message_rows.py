"""The SQL of messages that tools send: into the outbox, or into another conversation. Inside one transaction."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.inbound.event import LaneFull
from holdfast.lane.policy import LaneLimits
from holdfast.lane.queue import PLAIN
from holdfast.store.sql import inbox, queueing, timer_rows
from holdfast.store.sql.connection import Connection
from holdfast.tool.message import PER_INPUT_MAX, MessageOrder, NotSent, Queued

MESSAGE_PART = -6
"""Beside the parts of an answer, and the notices (`queueing.py`, `approval_rows.py`)."""


def send(
    conn: Connection, order: MessageOrder, register: Callable[[str], str], lanes: LaneLimits, now_ms: int
) -> Queued | NotSent:
    """Send a message once. The same order again does nothing, also by a later attempt at its input.

    Args:
        register: the transcript of a session key.
    """
    story = "select data from events where input=? and kind='message.sent'"
    sent = [row[0] for row in conn.execute(story, (order.input_id,))]
    if any(order.id in data for data in sent) or _is_queued(conn, order):
        return Queued("again")
    owner = "select id from transcripts where owner_turn=? and epoch_nonce=?"
    own = conn.execute(owner, (order.turn, order.nonce)).fetchone()
    if own is None:
        return NotSent("the turn that would send it no longer owns its session; nothing was sent")
    if len(sent) >= PER_INPUT_MAX:
        return NotSent(f"{len(sent)} messages have been sent for this input, the most there may be")
    receiver = timer_rows.conversation_at(conn, order.route)
    transcript = None if receiver is None else register(receiver)
    if receiver is None or transcript is None or transcript == own["id"]:
        _queue(conn, order, now_ms)
        queued = Queued("sent")
    else:
        event = order.known_as(receiver)
        admission = queueing.accept(conn, event, transcript, PLAIN, lanes, now_ms, inbox.body_digest(event))
        if isinstance(admission, LaneFull):
            return NotSent(f"{admission.waiting} things wait in that conversation already; nothing was sent")
        queued = Queued("announced", receiver)
    about = {
        "message": order.id, "to": f"{order.route.channel}:{order.route.target}", "how": queued.how,
        "known_in": queued.session,
    }  # fmt: skip
    inbox.note_events(conn, [(now_ms, order.session, order.input_id, order.turn, "message.sent", about)])
    return queued


def _is_queued(conn: Connection, order: MessageOrder) -> bool:
    """The story may have been thrown away; rows of the outbox and inputs never are."""
    key = "select 1 from inputs where source='announcement' and account='' and dedupe_key=?"
    row = conn.execute(key, (order.id,)).fetchone()
    return row is not None or conn.execute("select 1 from outbox where id=?", (order.id,)).fetchone() is not None


def _queue(conn: Connection, order: MessageOrder, now_ms: int) -> None:
    route = order.route
    conn.execute(
        "insert into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
        " values(?,?,?,?,?,?,'pending',?,?)",
        (order.id, order.input_id, route.channel, route.target, MESSAGE_PART, inbox.as_text(order.text), now_ms,
         now_ms),
    )  # fmt: skip
