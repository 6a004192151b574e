"""Approvals in SQL: each step one transaction, by compare-and-set on the row and on the owner."""

from __future__ import annotations

from typing import Protocol

from holdfast.session.fence import Epoch
from holdfast.store.sql import approval_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.tool.approval import Approval, ApprovalOrder, NotAsked, Scope


class Approving(Ledger, Protocol):
    """A question, its answer and its use are synced: what is not marked as used has not run, after any crash."""

    async def ask_approval(self, order: ApprovalOrder) -> Approval | NotAsked:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Approval | NotAsked:
            asked = approval_rows.ask(conn, order, now_ms)
            self.options.faults("approval.before_commit")
            return asked

        asked = await self.writer.submit(Job(run, durable=True))
        self.options.faults("approval.after_commit")
        self.tell_of_free_slot()
        return asked

    async def decide_approval(
        self, approval: str, *, yes: bool, by: str, scope: Scope, grant_s: float
    ) -> Approval | NotAsked:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> Approval | NotAsked:
            decided = approval_rows.decide(
                conn, approval, yes=yes, by=by, scope=scope, grant_ms=int(grant_s * 1000), now_ms=now_ms
            )
            self.options.faults("approval.before_commit")
            return decided

        decided = await self.writer.submit(Job(run, durable=True))
        self.options.faults("approval.after_commit")
        return decided

    async def use_approval(self, approval: str, turn: str, epoch: Epoch, digest: str) -> bool:
        self.refuse_if_forked()
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            used = approval_rows.use(conn, approval, turn, epoch.nonce, digest, now_ms)
            self.options.faults("approval.before_commit")
            return used

        used = await self.writer.submit(Job(run, durable=True))
        self.options.faults("approval.after_commit")
        return used

    async def close_approval(self, approval: str, event: str) -> None:
        now_ms = self.now_ms()
        await self.writer.submit(Job(lambda conn: approval_rows.close(conn, approval, event, now_ms)))

    async def take_over_question(self, input_id: str, call_id: str, digest: str) -> bool:
        now_ms = self.now_ms()
        return await self.writer.submit(
            Job(lambda conn: approval_rows.take_over(conn, input_id, call_id, digest, now_ms))
        )

    def void_approval(self, approval: str) -> None:
        now_ms = self.now_ms()
        self.writer.post(lambda conn: approval_rows.close(conn, approval, "void", now_ms))

    async def revoke_grants(self, session: str) -> int:
        return await self.writer.submit(Job(lambda conn: approval_rows.revoke(conn, session), durable=True))
