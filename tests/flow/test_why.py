"""What `why` tells of inputs that ended long ago."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent, Route

KEY = "agent:main:main"


async def test_the_delivery_of_an_old_input_is_told_however_many_came_after_it(state: Path) -> None:
    async with holdfast.open(state) as hf:
        admission = await hf.accept(InboundEvent(KEY, {"content": "hello"}, route=Route("test", "alice")))
        assert isinstance(admission, Accepted)
        async with hf.turn(KEY, input_id=admission.input_id) as turn:
            await turn.append(holdfast.user("hello"))
            await turn.append(holdfast.assistant("hi", model="test/test"))
    with sqlite3.connect(state / "ledger.sqlite3") as ledger:
        ledger.execute(
            "insert into outbox(id, input, channel, target, part, body, state, created_at_ms, updated_at_ms)"
            " with recursive n(i) as (select 1 union all select i+1 from n where i<1001)"
            " select 'd_'||i, 'in_other', 'test', 'bob', 0, 'x', 'sent', 1, 1 from n"
        )
    async with holdfast.open(state) as hf:
        told = [line.text for line in (await hf.why(admission.input_id)).lines]
        assert any("delivery to test:alice" in text for text in told), told
