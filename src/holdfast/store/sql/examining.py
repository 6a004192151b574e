"""What `holdfast doctor` wants to know of a ledger, asked alike of either engine. Every function runs inside one
transaction that only reads, so that what they say fits together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.doctor.facts import (
    ClaimFact,
    CountFact,
    DeliveryFact,
    LedgerFacts,
    OpenInputFact,
    StrayTurnFact,
    UnsentFact,
)
from holdfast.recovery.classify import Life
from holdfast.store.sql import boots, claims, model_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.rows import view_of_input

WEEK_MS = 7 * 86_400_000
TAKEN_OVER_MAX = 100


def ledger_facts(conn: Connection, now_ms: int, life_of: Callable[[str], Life]) -> LedgerFacts:
    """All but the list of sessions, archives and what is wrong with the file, which are each backend's own."""
    held = boots.held(conn)
    return LedgerFacts(
        claims=tuple(_claims(conn, life_of)),
        inputs=tuple(_open_inputs(conn)),
        unsent=tuple(_unsent(conn)),
        deliveries=tuple(_deliveries(conn, life_of)),
        strays=tuple(_strays(conn)),
        counts=tuple(_counts(conn)),
        pins=tuple(model_rows.pin_facts(conn)),
        newest_ms=_newest_ms(conn),
        held_since_ms=None if held is None else held.since_ms,
        held="" if held is None else held.way_out,
        gateways=sum(life_of(name) == "alive" for name in boots.gateways(conn)),
        taken_over=tuple(_taken_over(conn, now_ms)),
    )


def _claims(conn: Connection, life_of: Callable[[str], Life]) -> Iterator[ClaimFact]:
    for one in claims.owners(conn, "", life_of):
        row = conn.execute("select state from turns where id=?", (one.turn,)).fetchone()
        yield ClaimFact(
            one.transcript, one.sessions, one.turn, one.lane, one.process, one.pid, one.life, row[0] if row else None
        )


def _open_inputs(conn: Connection) -> Iterator[OpenInputFact]:
    rows = conn.execute(
        "select i.id, i.session, i.state, i.turn, i.accepted_at_ms, t.id as placed,"
        " t.owner_turn is not null and t.owner_turn=i.turn and t.epoch_nonce=i.epoch_nonce as owned"
        " from inputs i left join transcripts t on t.id=i.transcript where i.state in ('queued', 'running')"
    )
    for row in rows:
        yield OpenInputFact(
            row["id"], row["session"], row["state"], row["turn"], bool(row["owned"]), row["placed"] is not None,
            row["accepted_at_ms"],
        )  # fmt: skip


def _unsent(conn: Connection) -> Iterator[UnsentFact]:
    rows = conn.execute(
        "select * from inputs i where state='answered' and route_channel is not null"
        " and not exists(select 1 from outbox o where o.input=i.id)"
    )
    for row in rows:
        view = view_of_input(row)
        yield UnsentFact(
            view.id, view.session, view.route or "", view.answer, view.detail, view.settled_at_ms or view.accepted_at_ms
        )


def _deliveries(conn: Connection, life_of: Callable[[str], Life]) -> Iterator[DeliveryFact]:
    for row in conn.execute("select * from outbox where state not in ('sent', 'dropped') order by seq"):
        life = life_of(row["process"]) if row["state"] == "started" and row["process"] else None
        yield DeliveryFact(
            row["id"], row["input"], row["channel"], row["target"], row["state"], row["attempts"], row["detail"],
            row["updated_at_ms"], life,
        )  # fmt: skip


def _strays(conn: Connection) -> Iterator[StrayTurnFact]:
    rows = conn.execute(
        "select id, session, process from turns u where state='running'"
        " and not exists(select 1 from transcripts t where t.id=u.transcript and t.owner_turn=u.id)"
    )
    for row in rows:
        yield StrayTurnFact(row["id"], row["session"], row["process"])


def _counts(conn: Connection) -> Iterator[CountFact]:
    kept = {(row[0], row[1]): (row[2], row[3]) for row in conn.execute("select * from depths")}
    true: dict[tuple[str, str], tuple[int, int]] = {}
    for transcript, lane, count, queued in conn.execute(
        "select transcript, lane, count(*), sum(state='queued') from inputs where state in ('queued', 'running')"
        " group by transcript, lane"
    ):
        true[transcript, lane] = (count, queued)
        before = true.get(("", lane), (0, 0))
        true["", lane] = (before[0] + count, before[1] + queued)
    for transcript, lane in sorted(kept.keys() | true.keys()):
        a, b = kept.get((transcript, lane), (0, 0)), true.get((transcript, lane), (0, 0))
        if a != b:
            yield CountFact(transcript, lane, a, b)


def _newest_ms(conn: Connection) -> int:
    """Of what was added last in each table: a clock that is behind them was set back, or theirs was ahead."""
    asked = (
        "select accepted_at_ms from inputs order by seq desc limit 1",
        "select at_ms from events order by seq desc limit 1",
        "select started_at_ms from turns order by id desc limit 1",
        "select max(started_at_ms) from processes",
    )
    return max((row[0] or 0 for sql in asked for row in conn.execute(sql)), default=0)


def _taken_over(conn: Connection, now_ms: int) -> list[tuple[str, str]]:
    rows = conn.execute(
        "select id, session from turns where outcome='taken_over' and ended_at_ms>=? order by id desc limit ?",
        (now_ms - WEEK_MS, TAKEN_OVER_MAX),
    )
    return [(row["id"], row["session"]) for row in rows]
