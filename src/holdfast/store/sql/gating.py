"""Channels in SQL: who may speak, what was turned away, who listens."""

from __future__ import annotations

from typing import Protocol

from holdfast.inbound.pairing import ListenerView, Pairing
from holdfast.store.sql import channel_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger


class Gating(Ledger, Protocol):
    """What people were told or have decided is synced. Who listens and what was turned away is not: after a power loss
    nobody listens, and a count is a count.
    """

    async def ask_pairing(self, channel: str, sender: str, name: str) -> Pairing | None:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Pairing | None:
            asked = channel_rows.ask(conn, channel, sender, name, now_ms)
            self.options.faults("pairing.before_commit")
            return asked

        asked = await self.writer.submit(Job(run, durable=True))
        self.options.faults("pairing.after_commit")
        return asked

    async def approve_pairing(self, channel: str, code: str, by: str) -> Pairing | None:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Pairing | None:
            channel_rows.expire(conn, channel, now_ms)
            seen = channel_rows.by_code(conn, channel, code)
            decided = None if seen is None else channel_rows.decide(conn, seen, "approve", by, now_ms)
            self.options.faults("pairing.before_commit")
            return decided

        decided = await self.writer.submit(Job(run, durable=True))
        self.options.faults("pairing.after_commit")
        return decided

    async def revoke_pairing(self, channel: str, sender: str, by: str) -> Pairing | None:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Pairing | None:
            seen = channel_rows.pairing(conn, channel, sender)
            if seen is None or seen.state not in ("pending", "approved"):
                return seen
            return channel_rows.decide(conn, seen, "revoke", by, now_ms)

        return await self.writer.submit(Job(run, durable=True))

    def note_turned_away(self, channel: str, reason: str, peer: str, sender: str) -> None:
        now_ms = self.now_ms()
        self.writer.post(lambda conn: channel_rows.note_turned_away(conn, channel, reason, peer, sender, now_ms))

    async def take_listening(self, channel: str, seen: ListenerView | None) -> bool:
        self.refuse_if_forked()
        now_ms = self.now_ms()
        return await self.writer.submit(
            Job(lambda conn: channel_rows.take_listening(conn, channel, seen, self.process, now_ms))
        )

    def note_listening(self, channel: str, state: str, detail: str | None) -> None:
        now_ms = self.now_ms()
        self.writer.post(lambda conn: channel_rows.note_listening(conn, channel, self.process, state, detail, now_ms))

    def note_position(self, channel: str, position: str) -> None:
        self.writer.post(lambda conn: channel_rows.note_position(conn, channel, self.process, position))

    async def leave_listening(self, channel: str) -> None:
        await self.writer.submit(Job(lambda conn: channel_rows.leave_listening(conn, channel, self.process)))
