"""Rows of the ledger as readers see them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from holdfast.lane import states
from holdfast.session.entries import text_of
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.views import DeliveryView, InputView, TurnView


def decode(raw: bytes | str) -> Any:
    """What `inbox` wrote: msgspec refuses the escaped half of an emoji, the standard library reads it."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def position_of(conn: Connection, row: Row) -> int | None:
    """How many inputs of its session are before a queued one."""
    if row["state"] != "queued":
        return None
    return conn.execute(
        "select count(*) from inputs where transcript=? and state in ('queued','running') and seq<?",
        (row["transcript"], row["seq"]),
    ).fetchone()[0]


def view_of_input(row: Row, position: int | None = None) -> InputView:
    """An input's row as readers see it."""
    # Before the end it is a former owner's answer, kept for the case that all later attempts fail.
    result = decode(row["result"]) if row["result"] and row["state"] in states.TERMINAL else None
    message = (result or {}).get("message")
    return InputView(
        id=row["id"], session=row["session"], lane=row["lane"], source=row["source"], state=row["state"],
        accepted_at_ms=row["accepted_at_ms"], payload=decode(row["payload"]), position=position,
        attempts=row["attempts"], settled_at_ms=row["settled_at_ms"], turn_id=row["turn"], detail=row["detail"],
        error=row["error"], answer=None if message is None else text_of(message), result=result,
        cancel_requested_by=row["cancel_by"], model=row["model"],
        route=f"{row['route_channel']}:{row['route_target']}" if row["route_channel"] else None,
        queue=_later(row, "mode") or "followup", carries=bool(_later(row, "carries")),
    )  # fmt: skip


def _later(row: Row, column: str) -> Any:
    """A column that came later: a ledger that only readers have met since does not have it yet."""
    return row[column] if column in row.keys() else None  # noqa: SIM118  # a row's own "in" looks at its values


def said(row: Row) -> str:
    """What an input said, as text."""
    payload = decode(row["payload"])
    content = payload.get("content")
    return text_of({"content": content}) if content is not None else ""


def view_of_delivery(row: Row) -> DeliveryView:
    """An outbox row as readers see it."""
    return DeliveryView(
        row["id"], row["input"], f"{row['channel']}:{row['target']}", row["part"], row["state"], row["attempts"],
        row["body"], row["label"], row["created_at_ms"], row["updated_at_ms"], row["detail"], _later(row, "session"),
    )  # fmt: skip


def view_of_turn(row: Row) -> TurnView:
    """A turn's row as readers see it."""
    return TurnView(
        row["id"], row["session"], row["lane"], row["epoch_number"], row["process"], row["state"], row["started_at_ms"],
        row["ended_at_ms"], row["input"], row["outcome"], row["detail"],
    )  # fmt: skip
