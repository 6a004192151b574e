"""The ledger's own counts of open inputs against counting them, over any history of inserts and moves."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from holdfast.inbound.event import InboundEvent
from holdfast.lane.queue import Arrival
from holdfast.store.embedded import schema
from holdfast.store.sql import inbox

LANES = ("main", "cron")
TRANSCRIPTS = ("one", "two")
STATES = ("queued", "running", "answered", "cancelled")
_moves = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.sampled_from(TRANSCRIPTS), st.sampled_from(LANES)),
        st.tuples(st.just("move"), st.integers(0, 20), st.sampled_from(STATES)),
        st.tuples(st.just("undone"), st.sampled_from(TRANSCRIPTS), st.sampled_from(LANES)),
    ),
    max_size=40,
)


def ledger() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    schema.create_or_check(conn, "store")
    return conn


def store_input(conn: sqlite3.Connection, transcript: str, lane: str, name: str) -> None:
    event = InboundEvent(f"agent:main:{transcript}", {"content": "x"}, lane=lane)
    inbox.store(conn, event, transcript, Arrival("followup", 0), name, 0, b"")


@given(_moves)
def test_the_counts_are_those_of_the_inputs(moves: list[tuple[str, str | int, str]]) -> None:
    conn, names = ledger(), []
    for number, (what, where, to) in enumerate(moves):
        if what == "accept":
            names.append(f"in_{number}")
            store_input(conn, str(where), to, names[-1])
        elif what == "move" and names:
            conn.execute("update inputs set state=? where id=?", (to, names[int(where) % len(names)]))
        elif what == "undone":
            conn.execute("begin")
            store_input(conn, str(where), to, f"in_{number}")
            conn.execute("rollback")
    rows = list(conn.execute("select transcript, lane, state from inputs where state in ('queued', 'running')"))
    for transcript in TRANSCRIPTS:
        for lane in LANES:
            here = [row for row in rows if row["transcript"] == transcript]
            waiting = [row for row in rows if row["lane"] == lane and row["state"] == "queued"]
            alike = [row for row in here if row["lane"] == lane]
            assert inbox.depths(conn, transcript, lane) == (len(here), len(alike), len(waiting))
    kept = conn.execute("select count(*) from depths where transcript<>'' and open=0").fetchone()[0]
    assert kept == 0, "a transcript on which nothing is open leaves no row"
