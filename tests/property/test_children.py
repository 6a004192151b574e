"""Sub-agents over any history of spawns, turns, deaths, stops and looks: limits hold, and each end is told once."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import InputConflictError
from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, Parent, Refused, SpawnLimits
from holdfast.lane.policy import LaneLimits
from holdfast.lane.queue import PLAIN
from holdfast.lane.states import TERMINAL
from holdfast.outbox.message import Outcome
from holdfast.store.sql import child_rows, inbox, queueing, timer_rows
from holdfast.store.sql.rows import view_of_input
from tests.property.test_depths import ledger

CONVERSATIONS = ("agent:main:main", "agent:main:other")
LIMITS = SpawnLimits(depth_max=2, per_session_max=2, per_turn_max=3)
LANES = LaneLimits(depth_max=12, per_session_max=3)
ENDS = ("answered", "failed")
OFTEN = ("claim", "spawn", "end", "look")
NOW_AND_THEN = ("ask", "die", "half a look", "late look", "stop", "cancel")
_steps = st.lists(st.tuples(st.sampled_from(OFTEN * 3 + NOW_AND_THEN), st.integers(0, 30)), min_size=30, max_size=80)
BEGINNING = [("ask", 1), ("claim", 0), ("spawn", 1), ("claim", 0), ("spawn", 1)]
"""Somebody has asked something, and a sub-agent of a sub-agent waits."""


@dataclass(slots=True)
class Installation:
    """A ledger, and what may happen to it. `some` chooses among what there is."""

    conn: sqlite3.Connection = field(default_factory=ledger)
    now_ms: int = 0
    keys: int = 0
    seen: list[Child] = field(default_factory=list)  # what a process saw some time ago
    closed: dict[str, Child] = field(default_factory=dict)

    def inputs(self, *states: str) -> list[sqlite3.Row]:
        rows = self.conn.execute("select * from inputs order by seq").fetchall()
        return [row for row in rows if row["state"] in states]

    def children(self, *, only_open: bool = False) -> list[Child]:
        return child_rows.children(self.conn, None, None, only_open, 1000)

    def step(self, what: str, some: int) -> None:
        self.now_ms += 1000
        if what == "ask":
            session = CONVERSATIONS[some % 2]
            self.accept(rules.InboundEvent(session, {"content": "hello"}, lane=("main", "hook")[some % 3 == 0]))
        elif what == "claim" and (rows := self.inputs("queued")):
            self.conn.execute("update inputs set state='running' where id=?", (rows[some % len(rows)]["id"],))
        elif what == "die" and (rows := self.inputs("running")):
            row = rows[some % len(rows)]
            inbox.requeue(self.conn, row, charge=some % 2 == 0, solo=False, why="it died", now_ms=self.now_ms)
        elif what == "end" and (rows := self.inputs("running")):
            row = rows[some % len(rows)]
            outcome = Outcome("cancelled" if row["cancel_by"] else ENDS[some % 2], answer="done", detail="so it ended")
            inbox.settle(self.conn, row, outcome, self.now_ms)
        elif what == "spawn" and (rows := self.inputs("running")):
            self.spawn(rows[some % len(rows)], some)
        elif what in ("look", "half a look"):
            found = self.children(only_open=True)
            for child in found:
                self.announce(child, dies_between=what == "half a look")
            self.seen = found
        elif what == "late look":
            for child in self.seen:
                self.announce(child, dies_between=False)
        elif what == "stop":
            child_rows.stop_those_of(self.conn, session=CONVERSATIONS[some % 2], by="/stop", now_ms=self.now_ms)
        elif what == "cancel" and (found := self.children()):
            child_rows.cancel(self.conn, found[some % len(found)].id, "alice", self.now_ms)

    def accept(self, event: rules.InboundEvent) -> str | None:
        try:
            admission = queueing.accept(
                self.conn, event, f"t:{event.session}", PLAIN, LANES, self.now_ms, inbox.body_digest(event)
            )
        except InputConflictError:
            return timer_rows.input_by_key(self.conn, event.source, event.account, event.key or "")
        return getattr(admission, "input_id", None)

    def spawn(self, row: sqlite3.Row, some: int) -> None:
        view = view_of_input(row)
        parent = Parent(view.session, rules.rights_of(view), view.id)
        self.keys += some % 3 > 0  # now and then the same spawn again
        order = rules.make_order(
            parent, LIMITS, "work", key=str(self.keys), label=None, agent=None, model=None, timeout_s=None
        )
        assert not isinstance(order, Refused)
        child_rows.spawn(self.conn, order, lambda: f"t:{order.session}", LANES, LIMITS, self.now_ms)

    def announce(self, child: Child, *, dies_between: bool) -> None:
        """As `Children` does, from what it has seen, which may be long ago."""
        if child.state != "ended":
            return
        if child.stop_by is None:
            last = inbox.by_id(self.conn, child.last_input)
            assert last is not None
            input_id = self.accept(rules.end_event(child, view_of_input(last)))
            if input_id is None or dies_between:
                return
        else:
            input_id = timer_rows.input_by_key(self.conn, rules.END, "", child.id)
        child_rows.close(self.conn, child, "announce" if input_id is not None else "hush", input_id, self.now_ms)

    def check(self) -> None:
        for child in self.children():
            told = self.conn.execute(
                "select * from inputs where source=? and dedupe_key=?", (rules.END, child.id)
            ).fetchall()
            assert len(told) <= 1, "an end is told once"
            task = inbox.by_id(self.conn, child.input_id)
            assert task is not None
            if told or not child.is_open:
                assert task["state"] in TERMINAL, "nothing is told of work that goes on"
            if child.state == "announced":
                assert [row["id"] for row in told] == [child.announce_id]
                assert told[0]["session"] == child.parent_session
            assert (child.state != "stopped") or (child.stop_by is not None and not told)
            stories = self.conn.execute(
                "select count(*) from events where kind in ('child.announced', 'child.stopped')"
                " and json_extract(data, '$.child')=?",
                (child.id,),
            ).fetchone()[0]
            assert stories == (0 if child.is_open else 2), "it is closed once: for its parent, and for itself"
            assert child.depth <= LIMITS.depth_max
            before = self.closed.get(child.id)
            assert before is None or before == child, "what is closed stays as it is"
            if not child.is_open:
                self.closed[child.id] = child
        for column, most in (("parent_session", LIMITS.per_session_max), ("parent_input", LIMITS.per_turn_max)):
            where = "where state='open'" if column == "parent_session" else ""
            counts = self.conn.execute(f"select {column}, count(*) as n from children {where} group by 1").fetchall()
            assert all(row["n"] <= most for row in counts), column
        above = {child.session: child for child in self.children()}
        for child in above.values():
            parent = above.get(child.parent_session)
            assert parent is None or (child.rights, child.depth) == (parent.rights, parent.depth + 1)

    def to_the_end(self) -> None:
        """Everything that is open comes to its end, as it does once nobody interferes."""
        for _ in range(60):
            for row in self.inputs("queued"):
                self.conn.execute("update inputs set state='running' where id=?", (row["id"],))
            for row in self.inputs("running"):
                inbox.settle(self.conn, row, Outcome("answered", answer="done"), self.now_ms)
            for child in self.children(only_open=True):
                self.announce(child, dies_between=False)
        assert self.inputs("queued", "running") == []
        assert self.children(only_open=True) == []


@settings(max_examples=60, deadline=None)
@given(_steps)
def test_limits_hold_and_every_end_is_told_once_whatever_happens(steps: list[tuple[str, int]]) -> None:
    one = Installation()
    for what, some in [*BEGINNING, *steps]:
        one.step(what, some)
        one.check()
    one.to_the_end()
    one.check()
    for child in one.children():
        assert child.state == "announced" or child.stop_by is not None
