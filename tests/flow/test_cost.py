"""Cost does not grow with history (P10): no statement of a turn, of `why` or of the lists reads through a table."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent, Route

KEY = "agent:main:main"
GROWS = ("inputs", "i", "turns", "u", "events", "outbox", "o")
"""Tables, and their names in joins, that have a row or more for each input there ever was."""


@pytest.mark.promise("P10")
async def test_no_statement_reads_through_a_table_that_grows(state: Path) -> None:
    asked: set[str] = set()
    async with holdfast.open(state) as hf:
        hf.store.writer._connection.set_trace_callback(asked.add)  # pyright: ignore[reportAttributeAccessIssue]
        await hf.store.reads.ask(  # pyright: ignore[reportAttributeAccessIssue]
            lambda connection: connection.set_trace_callback(asked.add)
        )
        event = InboundEvent(KEY, {"content": "hello"}, key="k", route=Route("test", "alice"), origin={"join": "j"})
        admission = await hf.accept(event)
        assert isinstance(admission, Accepted)
        await hf.accept(event)
        await hf.find_join(event)
        await hf.store.queue()
        await hf.store.cancel_requests()
        async with hf.turn(KEY, input_id=admission.input_id) as turn:
            await turn.append(holdfast.user("hello"))
            await hf.cancel(admission.input_id, by="a test")
            async with hf.turn("agent:main:other"):
                pass
            await turn.append(holdfast.assistant("hi", model="test/test"))
        await hf.store.open_deliveries(["test"])
        await hf.store.recover_dead()
        await hf.why(admission.input_id)
        await hf.why(turn.id)
        await hf.why(KEY)
        await hf.inputs(session=KEY)
        await hf.inputs(state="queued")
        await hf.turns(session=KEY)
        await hf.deliveries(state="pending")
        await hf.sessions(prefix="agent:main")
    ledger = sqlite3.connect(state / "ledger.sqlite3")
    read_through: list[str] = []
    for statement in asked:
        if re.match(r"\s*(select|update|insert|delete)", statement):
            for row in ledger.execute(f"explain query plan {statement}"):
                scans = re.fullmatch(r"SCAN (\w+)", row[3])
                if scans and scans[1] in GROWS:
                    read_through.append(f"{row[3]}: {statement}")
    assert len(asked) > 20
    assert read_through == []
