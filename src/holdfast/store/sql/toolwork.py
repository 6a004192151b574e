"""What tools leave in SQL: programs in the background, messages they send."""

from __future__ import annotations

from typing import Protocol

from holdfast.store.sql import background_rows, message_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.tool.message import MessageOrder, NotSent, Queued
from holdfast.tool.running import BackgroundOrder, Ended, NotBegun, Program


class Toolwork(Ledger, Protocol):
    """What is begun and what is sent is synced. Ends are not: after a power loss a program is gone, and is told of as
    such unless its end was an input already, under a key that follows from the program.
    """

    async def send_message(self, order: MessageOrder) -> Queued | NotSent:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Queued | NotSent:
            def register(key: str) -> str:
                return self.register_session(conn, key, now_ms)

            sent = message_rows.send(conn, order, register, self.options.limits, now_ms)
            self.options.faults("message.before_commit")
            return sent

        sent = await self.writer.submit(Job(run, durable=True))
        self.options.faults("message.after_commit")
        return sent

    async def begin_background(self, order: BackgroundOrder) -> str | NotBegun:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> str | NotBegun:
            begun = background_rows.begin(conn, order, self.process, now_ms)
            self.options.faults("background.before_commit")
            return begun

        begun = await self.writer.submit(Job(run, durable=True))
        self.options.faults("background.after_commit")
        return begun

    async def end_background(self, program: str, process: str, ended: Ended) -> bool:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            done = background_rows.end(conn, program, process, ended, now_ms)
            self.options.faults("background.before_commit")
            return done

        done = await self.writer.submit(Job(run))
        self.options.faults("background.after_commit")
        return done

    async def close_background(self, seen: Program, event: str, announce_id: str | None = None) -> bool:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            done = background_rows.close(conn, seen, event, announce_id, now_ms)
            self.options.faults("background.before_commit")
            return done

        done = await self.writer.submit(Job(run))
        self.options.faults("background.after_commit")
        return done

    async def stop_background(self, session: str, by: str) -> int:
        return await self.writer.submit(Job(lambda conn: background_rows.stop(conn, session, by), durable=True))
