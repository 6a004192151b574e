"""What the ledger keeps of model calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.model.spending import Allowance, Guard
from holdfast.model.usage import ModelCall
from holdfast.store.sql import usage_rows
from holdfast.store.sql.ledger import Job, Ledger


class Accounting(Ledger, Protocol):
    """A call's beginning is not synced by itself: with the machine's power goes at most what was asked since the last
    settlement of anybody, and whoever died then is told of as having asked less.
    """

    async def begin_call(self, calls: Sequence[ModelCall], guards: tuple[Guard, ...] = ()) -> Allowance:
        noted = tuple(calls)
        return await self.writer.submit(Job(lambda conn: usage_rows.begin(conn, noted, guards), beside=not guards))
