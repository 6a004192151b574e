"""The SQL of model calls. Every function takes a connection; those that write run inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.model.spending import Allowance, Guard, judge, scopes_of
from holdfast.model.usage import STATES, ModelCall, Tokens, Used
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.views import UsedIn

OLD_SUMS_MS = 40 * 86_400_000
"""Sums of days and months that ended that long ago are thrown away."""
QUARTER_MS = 900_000
"""Sums are taken over quarters of an hour: the days of every time zone begin at one."""
_COLUMNS = (
    "id, turn, session, agent, lane, input, model, key, step, purpose, state, began_at_ms, ended_at_ms, reason,"
    " input_tokens, output_tokens, cache_read, cache_write, reasoning, cost, is_estimate"
)
_PUT = f"insert or replace into model_calls({_COLUMNS}) values({','.join('?' * 21)})"
_SUMS = (
    "count(*) as calls, sum(state in ('failed', 'cut')) as failed, sum(purpose='summary') as summaries,"
    " sum(is_estimate) as guessed, sum(input_tokens) as input, sum(output_tokens) as output,"
    " sum(cache_read) as cache_read, sum(cache_write) as cache_write, sum(reasoning) as reasoning,"
    " coalesce(sum(cost), 0) as cost, sum(cost is null) as unpriced"
)


def put(conn: Connection, calls: Iterable[ModelCall]) -> None:
    """Write calls down. One that is known moves on in its life only, so that writing it again changes nothing."""
    for call in calls:
        known = conn.execute("select state, coalesce(cost, 0) from model_calls where id=?", (call.id,)).fetchone()
        if known is None or STATES.index(known[0]) < STATES.index(call.state):
            conn.execute(_PUT, _values(call))
            _count(conn, call, (call.cost or 0) - (0 if known is None else known[1]))


def _count(conn: Connection, call: ModelCall, micros: int) -> None:
    """Add to the sums that somebody keeps an eye on."""
    if micros:
        conn.executemany(
            "update spent set micros=micros+?1 where scope=?2 and from_ms<=?3 and until_ms>?3",
            [(micros, scope, call.began_at_ms) for scope in scopes_of(call)],
        )


def begin(conn: Connection, calls: Sequence[ModelCall], guards: tuple[Guard, ...]) -> Allowance:
    """Write calls down, the last of which is about to be made; unless a limit forbids it: then those before it."""
    put(conn, calls[:-1])
    call = calls[-1]
    allowance = judge(guards, {guard: _spent(conn, guard, call) for guard in guards}, call.cost)
    if allowance.held is None:
        put(conn, [call])
    return allowance


def _spent(conn: Connection, guard: Guard, call: ModelCall) -> int:
    """What counts against a limit now, in micro-dollars."""
    if guard.period == "turn":
        sql = "select coalesce(sum(cost), 0) from model_calls where id>? and id<?"
        return conn.execute(sql, (f"{call.turn}:", f"{call.turn};")).fetchone()[0]
    key = (guard.scope, guard.from_ms, guard.until_ms)
    row = conn.execute("select micros from spent where scope=? and from_ms=? and until_ms=?", key).fetchone()
    if row is not None:
        return row[0]
    kind, _, name = guard.scope.partition(":")
    where = {"all": "?=''", "agent": "agent=?", "lane": "lane=?", "session": "session=?"}[kind]
    micros = conn.execute(
        f"select coalesce(sum(cost), 0) from model_calls where {where} and began_at_ms>=? and began_at_ms<?",  # noqa: S608
        (name, guard.from_ms, guard.until_ms),
    ).fetchone()[0]
    conn.execute("delete from spent where until_ms<?", (guard.from_ms - OLD_SUMS_MS,))
    conn.execute("insert into spent values(?,?,?,?)", (*key, micros))
    return micros


def cut_off(conn: Connection, turn: str, now_ms: int) -> None:
    """The turn has ended: what it asked and nobody has heard of since was cut off. What it cost is guessed."""
    conn.execute(
        "update model_calls set state='cut', ended_at_ms=?, reason='the turn ended' where id>? and id<?"
        " and state='begun'",
        (now_ms, f"{turn}:", f"{turn};"),
    )


def of_turn(conn: Connection, turn: str) -> list[ModelCall]:
    """The calls of a turn, in order."""
    if not _has_table(conn):
        return []
    rows = conn.execute(
        f"select {_COLUMNS} from model_calls where id>? and id<? order by id",  # noqa: S608  # our own words
        (f"{turn}:", f"{turn};"),
    )
    return [_call(row) for row in rows]


def sums(conn: Connection, *, since_ms: int, until_ms: int, session: str | None, agent: str | None) -> list[UsedIn]:
    """Sums over each quarter of an hour, by session, agent, lane and model; of calls begun in that span."""
    if not _has_table(conn):
        return []
    of_session = "and session=:session" if session is not None else ""
    of_agent = "and agent=:agent" if agent is not None else ""
    rows = conn.execute(
        f"select began_at_ms/{QUARTER_MS} as quarter, session, agent, lane, model, {_SUMS} from model_calls"  # noqa: S608
        f" where began_at_ms>=:since and began_at_ms<:until {of_session} {of_agent}"
        " group by quarter, session, agent, lane, model order by quarter",
        {"since": since_ms, "until": until_ms, "session": session, "agent": agent},
    )
    return [
        UsedIn(row["quarter"] * QUARTER_MS, row["session"], row["agent"], row["lane"], row["model"], _used(row))
        for row in rows
    ]


def tidy(conn: Connection, old_ms: int, limit: int) -> int:
    """Throw away the oldest calls that began that long ago; returns how many."""
    return conn.execute(
        "delete from model_calls where id in (select id from model_calls where began_at_ms<? limit ?)", (old_ms, limit)
    ).rowcount


def _has_table(conn: Connection) -> bool:
    """A reader may look at a ledger that no release with this table has opened yet."""
    return conn.execute("select 1 from sqlite_master where name='model_calls'").fetchone() is not None


def _values(call: ModelCall) -> tuple[Any, ...]:
    t = call.tokens
    return (
        call.id, call.turn, call.session, call.agent, call.lane, call.input_id, call.model, call.key, call.step,
        call.purpose, call.state, call.began_at_ms, call.ended_at_ms, call.reason, t.input, t.output, t.cache_read,
        t.cache_write, t.reasoning, call.cost, int(call.is_estimate),
    )  # fmt: skip


def _call(row: Row) -> ModelCall:
    tokens = Tokens(
        row["input_tokens"], row["output_tokens"], row["cache_read"], row["cache_write"], row["reasoning"]
    )  # fmt: skip
    return ModelCall(
        row["id"], row["turn"], row["session"], row["agent"], row["lane"], row["input"], row["model"], row["key"],
        row["step"], row["purpose"], row["state"], row["began_at_ms"], row["ended_at_ms"], row["reason"], tokens,
        row["cost"], bool(row["is_estimate"]),
    )  # fmt: skip


def _used(row: Row) -> Used:
    tokens = Tokens(row["input"], row["output"], row["cache_read"], row["cache_write"], row["reasoning"])
    return Used(
        row["calls"], row["failed"], row["summaries"], row["guessed"], tokens, row["cost"], row["unpriced"]
    )  # fmt: skip
