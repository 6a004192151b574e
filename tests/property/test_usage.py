"""Whatever is written down of model calls, in whatever order and however often: each is there once, as it ended."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.usage import (
    STATES,
    CallState,
    ModelCall,
    Tokens,
    call_id,
    ended,
    total,
    used_by,
)
from holdfast.observe.usage import day_of, report
from holdfast.store.embedded import schema
from holdfast.store.sql import usage_rows

TURNS = ("turn_a", "turn_ab", "turn_b")
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham")


def ledger() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    for statement in schema.ADDED.split(";\n"):
        if "model_calls" in statement or "table if not exists spent" in statement:
            conn.execute(statement)
    return conn


@st.composite
def calls(draw: st.DrawFn) -> list[ModelCall]:
    """Calls as they ended: some never did."""
    made: list[ModelCall] = []
    for turn in TURNS:
        for number in range(1, draw(st.integers(0, 4)) + 1):
            at_ms = draw(st.integers(0, 4_000_000_000_000))
            guess = ModelCall(
                call_id(turn, number), turn, f"s_{turn}", "main", "main", None, draw(st.sampled_from(["x/1", "y/2"])),
                "", 1, "answer", "begun", at_ms, tokens=Tokens(7, 9), cost=5, is_estimate=True,
            )  # fmt: skip
            state: CallState = draw(st.sampled_from(STATES))
            tokens = Tokens(draw(st.integers(0, 99)), draw(st.integers(0, 99)))
            cost = draw(st.none() | st.integers(0, 99))
            made.append(guess if state == "begun" else ended(guess, state, at_ms + 5, tokens=tokens, cost=cost))
    return made


def begun(call: ModelCall) -> ModelCall:
    return ModelCall(
        call.id, call.turn, call.session, call.agent, call.lane, None, call.model, "", 1, "answer", "begun",
        call.began_at_ms, tokens=Tokens(7, 9), cost=5, is_estimate=True,
    )  # fmt: skip


@given(made=calls(), data=st.data())
@settings(max_examples=150)
def test_sums_equal_the_calls_made_in_any_order_of_crashes_and_re_runs(
    made: list[ModelCall], data: st.DataObject
) -> None:
    """Beginnings, ends and ends of turns come in any order and again and again, as after crashes."""
    conn = ledger()
    told = [begun(one) for one in made] + made
    told += data.draw(st.lists(st.sampled_from(told), max_size=10)) if told else []
    for one in data.draw(st.permutations(told)):
        usage_rows.put(conn, [one])
        if data.draw(st.booleans()):
            usage_rows.cut_off(conn, one.turn, 1)
    for turn in TURNS:
        usage_rows.cut_off(conn, turn, 1)
    kept = [one for turn in TURNS for one in usage_rows.of_turn(conn, turn)]
    assert [one.id for one in kept] == sorted(one.id for one in made)
    by_id = {one.id: one for one in made}
    for one in kept:
        end = by_id[one.id]
        if end.state in ("done", "failed"):
            assert (one.state, one.tokens, one.cost) == (end.state, end.tokens, end.cost)
        else:
            assert one.state == "cut"
    rows = usage_rows.sums(conn, since_ms=0, until_ms=1 << 52, session=None, agent=None)
    assert total(row.used for row in rows) == total(map(used_by, kept))
    one_session = usage_rows.sums(conn, since_ms=0, until_ms=1 << 52, session="s_turn_a", agent="main")
    assert total(row.used for row in one_session) == total(used_by(one) for one in kept if one.turn == "turn_a")


@given(made=calls(), zone=st.sampled_from(ZONES))
@settings(max_examples=100)
def test_each_call_counts_on_the_day_on_which_it_began_in_that_zone(made: list[ModelCall], zone: str) -> None:
    conn = ledger()
    usage_rows.put(conn, made)
    where = ZoneInfo(zone)
    rows = usage_rows.sums(conn, since_ms=0, until_ms=1 << 52, session=None, agent=None)
    found = report(rows, by="day", since_ms=0, until_ms=1, zone=where)
    expected: dict[str, int] = {}
    for one in made:
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=one.began_at_ms)).astimezone(where)
        expected[local.date().isoformat()] = expected.get(local.date().isoformat(), 0) + 1
        assert day_of(one.began_at_ms, where) == local.date().isoformat()
    assert {line.name: line.used.calls for line in found.lines} == expected
