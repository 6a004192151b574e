"""Starts and ends of gateways, and the hold that a crash loop puts on work."""

from __future__ import annotations

from typing import Protocol

from holdfast.store.sql import boots
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.store.views import Hold


class Booting(Ledger, Protocol):
    """Durable, each: what they tell of is that a process died."""

    async def begin_boot(self, unclean_max: int) -> Hold | None:
        now_ms = self.now_ms()

        def run(conn: Connection) -> Hold | None:
            return boots.begin(conn, self.process, now_ms, unclean_max, lambda one: self.life_in(conn, one))

        return await self.writer.submit(Job(run, durable=True))

    async def end_boot(self) -> None:
        await self.writer.submit(Job(lambda conn: boots.end(conn, self.process), durable=True))

    async def release_hold(self) -> Hold | None:
        return await self.writer.submit(
            Job(lambda conn: boots.release(conn, lambda one: self.life_in(conn, one)), durable=True)
        )
