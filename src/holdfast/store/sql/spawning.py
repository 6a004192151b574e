"""Sub-agents in SQL: a child and its input in one transaction, its end by compare-and-set."""

from __future__ import annotations

import asyncio
from typing import Protocol

from holdfast import ids
from holdfast.errors import WaitRingError
from holdfast.inbound.child import Child, Refused, SpawnLimits, SpawnOrder
from holdfast.session.key import validate_key
from holdfast.store.sql import child_rows, claims
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger


class Spawning(Ledger, Protocol):
    """A spawn is synced, as every input that is accepted. The close is not: its announcement was, under a key that
    follows from the child, so after a power loss it is met as a duplicate.
    """

    async def spawn(self, order: SpawnOrder, limits: SpawnLimits) -> Child | Refused:
        self.refuse_if_forked()
        validate_key(order.session)
        now_ms = self.now_ms()

        def run(conn: Connection) -> Child | Refused:
            def register() -> str:
                return self.register_session(conn, order.session, now_ms)

            made = child_rows.spawn(conn, order, register, self.options.limits, limits, now_ms)
            self.options.faults("child.before_commit")
            return made

        made = await self.writer.submit(Job(run, durable=True))
        self.options.faults("child.after_commit")
        return made

    async def stop_children(self, session: str, by: str) -> list[str]:
        now_ms = self.now_ms()
        return await self.writer.submit(
            Job(lambda conn: child_rows.stop_those_of(conn, session=session, by=by, now_ms=now_ms), durable=True)
        )

    async def cancel_child(self, child: str, by: str) -> str:
        now_ms = self.now_ms()
        return await self.writer.submit(Job(lambda conn: child_rows.cancel(conn, child, by, now_ms), durable=True))

    async def close_child(self, seen: Child, event: str, announce_id: str | None = None) -> bool:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            done = child_rows.close(conn, seen, event, announce_id, now_ms)
            self.options.faults("child.before_commit")
            return done

        done = await self.writer.submit(Job(run))
        self.options.faults("child.after_commit")
        return done

    async def begin_waiting(self, session: str, turn: str) -> str:
        wait, now_ms = ids.new_id("w"), self.now_ms()

        def run(conn: Connection) -> list[str]:
            transcript = conn.execute("select transcript from sessions where key=?", (session,)).fetchone()[0]
            ring = claims.begin_wait(conn, wait, self.process, transcript, turn, now_ms)
            if not ring:
                claims.lend_slot(conn, turn, True)
            return ring

        try:
            ring = await self.writer.submit(Job(run))
        except asyncio.CancelledError:
            self.end_waiting(wait, turn)  # it is noted all the same
            raise
        if ring:
            raise WaitRingError(f"turn {turn} would wait for session {session!r}, whose owner waits for it: "
                                f"{' -> '.join(ring)}")  # fmt: skip
        self.tell_of_free_slot()
        return wait

    def end_waiting(self, wait: str, turn: str) -> None:
        def run(conn: Connection) -> None:
            claims.end_wait(conn, wait)
            claims.lend_slot(conn, turn, False)

        self.writer.post(run)

    async def archive_children(self, before_ms: int) -> int:
        now_ms = self.now_ms()
        return await self.writer.submit(Job(lambda conn: child_rows.archive(conn, before_ms, now_ms)))
