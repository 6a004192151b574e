"""Timers in SQL: rows that change by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from holdfast.inbound.event import Route
from holdfast.inbound.timer import Timer, TimerRun, Wake
from holdfast.store.sql import timer_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger


class Timing(Ledger, Protocol):
    """A run's input is synced when it is accepted, under a key made of timer and time; so a timer that moves on needs
    no sync of its own: after a power loss it fires again and finds that input. Only what people define is synced.
    """

    async def change_timer(
        self,
        seen: Timer | None,
        to: Timer | None,
        *,
        began: TimerRun | None = None,
        ended: TimerRun | None = None,
        used: Sequence[str] = (),
        durable: bool = False,
    ) -> Timer | None:
        self.refuse_if_forked()
        now_ms = self.now_ms()
        after = None if to is None else replace(to, revision=0 if seen is None else seen.revision + 1)

        def run(conn: Connection) -> bool:
            done = timer_rows.change(conn, seen, after, began, ended, used, now_ms)
            self.options.faults("timer.before_commit")
            return done

        done = await self.writer.submit(Job(run, durable=durable))
        self.options.faults("timer.after_commit")
        return (after or seen) if done else None

    async def add_wake(self, wake: Wake) -> bool:
        return await self.writer.submit(Job(lambda conn: timer_rows.add_wake(conn, wake), durable=True))

    async def input_by_key(self, source: str, account: str, key: str) -> str | None:
        return await self.reads.ask(lambda conn: timer_rows.input_by_key(conn, source, account, key))

    async def last_route(self, session: str) -> Route | None:
        return await self.reads.ask(lambda conn: timer_rows.last_route(conn, session))

    async def conversation_at(self, route: Route) -> str | None:
        return await self.reads.ask(lambda conn: timer_rows.conversation_at(conn, route))
