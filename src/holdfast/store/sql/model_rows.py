"""The SQL of what is known of models. Every function takes a connection; those that write run inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from holdfast.doctor.facts import PinFact
from holdfast.inbound.event import Route
from holdfast.model.cooldown import Cooldown, ModelFailure, after_failure, is_due, is_forgotten, left_s, probed
from holdfast.model.policy import NOTHING_KNOWN, Fallback, ModelFacts, ModelsAfter, ModelsNow, Pin
from holdfast.outbox.message import notice_delivery
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.session_rows import home_of

_COOLDOWN = "provider, credential, model, reason, errors, failed_at_ms, until_ms, asked_at_ms, demanded, label, probing"
_PIN = "id, session, model, source, reason, set_at_ms, expires_at_ms, origin, set_by, checked_at_ms, credential, holds"


_ANYTHING = """select exists(select 1 from model_cooldowns)
 or exists(select 1 from model_pins where session=coalesce((select home from sessions where key=?1), ?1))
 or exists(select 1 from model_fallbacks where session=?1)"""


def facts(conn: Connection, session: str) -> ModelFacts:
    """What a turn of `session` has to know; read in the transaction of its claim. As a rule nothing: asked first, since
    every claim of every session comes by here.
    """
    if not conn.execute(_ANYTHING, (session,)).fetchone()[0]:
        return NOTHING_KNOWN
    return ModelFacts(tuple(_cooldowns(conn)), pin_of(conn, session), _fallback_of(conn, session))


def everything(conn: Connection) -> ModelsNow:
    """For people; nothing where a reader looks at a ledger that no release with these tables has opened yet."""
    if conn.execute("select 1 from sqlite_master where name='model_fallbacks'").fetchone() is None:
        return ModelsNow([], [], [])
    rows = conn.execute(f"select {_PIN} from model_pins order by session")  # noqa: S608  # our own words
    pins = [pin for pin in map(_pin, rows) if pin is not None]
    fallbacks = [Fallback(*row) for row in conn.execute("select * from model_fallbacks order by session")]
    return ModelsNow(_cooldowns(conn), pins, fallbacks)


# ── cool-downs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _cooldowns(conn: Connection) -> list[Cooldown]:
    return [_cooldown(row) for row in conn.execute(f"select {_COOLDOWN} from model_cooldowns")]  # noqa: S608


def _cooldown(row: Row) -> Cooldown:
    values: dict[str, Any] = dict(row)
    values["demanded"] = bool(values["demanded"])
    return Cooldown(**values)


def _cooldown_of(conn: Connection, key: tuple[str, str, str]) -> Cooldown | None:
    row = conn.execute(
        f"select {_COOLDOWN} from model_cooldowns where provider=? and credential=? and model=?",  # noqa: S608
        key,
    ).fetchone()
    return None if row is None else _cooldown(row)


def _put(conn: Connection, row: Cooldown) -> None:
    conn.execute(
        f"insert or replace into model_cooldowns({_COOLDOWN}) values(?,?,?,?,?,?,?,?,?,?,?)",
        (
            row.provider, row.credential, row.model, row.reason, row.errors, row.failed_at_ms, row.until_ms,
            row.asked_at_ms, int(row.demanded), row.label, row.probing,
        ),
    )  # fmt: skip


def note_failure(conn: Connection, failure: ModelFailure) -> None:
    """Count a failure. What says nothing any more goes on this occasion, so that the table stays small."""
    for row in _cooldowns(conn):
        if is_forgotten(row, failure.at_ms):
            remove_cooldown(conn, row.key)
    conn.execute("delete from model_pins where expires_at_ms<=?", (failure.at_ms,))
    after = after_failure(_cooldown_of(conn, failure.key), failure)
    if after is not None:
        _put(conn, after)


def remove_cooldown(conn: Connection, key: tuple[str, str, str]) -> None:
    conn.execute("delete from model_cooldowns where provider=? and credential=? and model=?", key)


def begin_probe(conn: Connection, key: tuple[str, str, str], turn: str, every_s: float, now_ms: int) -> bool:
    """Let `turn` ask in spite of a cool-down, unless somebody has done so within `every_s`, or another turn that runs
    is at it now. True as well if the cool-down has gone or ended meanwhile.
    """
    row = _cooldown_of(conn, key)
    if row is None or left_s(row, now_ms) == 0:
        return True
    if not is_due(row, now_ms, every_s=every_s):
        return False
    if row.probing and row.probing != turn:
        other = conn.execute("select 1 from turns where id=? and state='running'", (row.probing,)).fetchone()
        if other is not None:
            return False
    _put(conn, probed(row, turn, now_ms))
    return True


# ── pins ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pin(row: Row) -> Pin | None:
    """None for a row that cannot be a pin: somebody has put it there by hand. It counts for nothing, and `holdfast
    doctor` tells of it; raising would end every turn of its session.
    """
    values: dict[str, Any] = dict(row)
    values |= {"by": values.pop("set_by"), "holds": bool(values["holds"])}
    try:
        return Pin(**values)
    except ValueError:
        return None


def pin_of(conn: Connection, session: str) -> Pin | None:
    """The pin of a session, which is that of all keys of its transcript."""
    home = home_of(conn, session)
    row = conn.execute(f"select {_PIN} from model_pins where session=?", (home,)).fetchone()  # noqa: S608
    return None if row is None else _pin(row)


def pin_facts(conn: Connection, session: str | None = None) -> list[PinFact]:
    """The pins as the rows have them, also what cannot be one; of one session, or all."""
    if conn.execute("select 1 from sqlite_master where name='model_pins'").fetchone() is None:
        return []
    where, values = ("", ()) if session is None else ("where p.session=?", (home_of(conn, session),))
    rows = conn.execute(
        f"select p.*, t.id as known from model_pins p left join turns t on t.id=p.set_by {where} order by p.session",  # noqa: S608
        values,
    )
    return [
        PinFact(
            row["id"], row["session"], row["model"], row["source"], row["reason"], row["set_at_ms"],
            row["expires_at_ms"], row["origin"], row["set_by"], row["known"] is not None,
        )
        for row in rows
    ]  # fmt: skip


def pins_of(conn: Connection, sessions: Iterable[str]) -> dict[str, Pin]:
    found = {session: pin_of(conn, session) for session in sessions}
    return {session: pin for session, pin in found.items() if pin is not None}


def put_pin(conn: Connection, session: str, pin: Pin | None) -> None:
    """The session's pin from now on; None: no pin."""
    session = home_of(conn, session)
    if pin is None:
        conn.execute("delete from model_pins where session=?", (session,))
        return
    conn.execute(
        f"insert or replace into model_pins({_PIN}) values(?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            pin.id, session, pin.model, pin.source, pin.reason, pin.set_at_ms, pin.expires_at_ms, pin.origin, pin.by,
            pin.checked_at_ms, pin.credential, int(pin.holds),
        ),
    )  # fmt: skip


def replace_pin(conn: Connection, session: str, seen: str | None, pin: Pin | None) -> bool:
    """The same, if the pin is still the one that was seen (its id; None: there was none)."""
    now = pin_of(conn, session)
    if (now.id if now is not None else None) != seen:
        return False
    put_pin(conn, session, pin)
    return True


# ── what a turn has found out ────────────────────────────────────────────────────────────────────────────────────────


def take_in(conn: Connection, session: str, input_id: str | None, after: ModelsAfter, now_ms: int) -> None:
    """Keep what a turn that answered has found out, with its settlement."""
    for key in after.well:
        remove_cooldown(conn, key)
    pin = pin_of(conn, session)
    if pin is not None and pin.id == after.pin_ended:
        put_pin(conn, session, None)
    elif pin is not None and pin.id == after.pin_holds and not pin.holds:
        put_pin(conn, session, replace(pin, holds=True))
    elif pin is not None and pin.id == after.checked:
        put_pin(conn, session, replace(pin, checked_at_ms=now_ms))
    if after.fallback == after.fallback_before or _fallback_of(conn, session) != after.fallback_before:
        return  # nothing new, or somebody else has told it
    conn.execute("delete from model_fallbacks where session=?", (session,))
    if (now := after.fallback) is not None:
        conn.execute(
            "insert into model_fallbacks values(?,?,?,?,?)",
            (session, now.selected, now.active, now.reason, now.since_ms),
        )
    if after.notice is not None and input_id is not None:
        channel, target, text = after.notice
        told = notice_delivery(input_id, Route(channel, target), text)
        conn.execute(
            "insert or ignore into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
            " values(?,?,?,?,?,?,'pending',?,?)",
            (told.id, input_id, told.channel, told.target, told.part, told.body, now_ms, now_ms),
        )


def _fallback_of(conn: Connection, session: str) -> Fallback | None:
    row = conn.execute("select * from model_fallbacks where session=?", (session,)).fetchone()
    return None if row is None else Fallback(*row)
