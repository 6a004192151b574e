"""The outbox in SQL: seeing what is undelivered, and moving it, each row by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.outbox.outbox import NO_CHANGE, Change, OpenDelivery
from holdfast.outbox.preview import Preview
from holdfast.store.sql import outbox_rows, preview_rows
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.store.sql.shielded import shielded


class Delivering(Ledger, Protocol):
    """Every move is one durable commit. A settlement only ever writes "pending" rows: `started` is a commit of its own,
    so that a kill before the send is not "unknown". (A channel that can reconcile could share the settlement's.)
    """

    async def open_deliveries(self, channels: Sequence[str]) -> list[OpenDelivery]:
        """The first unfinished row of each target, with whether its sender lives."""
        now_ms = self.now_ms()
        return await self.reads.ask(
            lambda conn: outbox_rows.first_of_each_target(
                conn, channels, now_ms, lambda row: self.life_in(conn, row["process"])
            )
        )

    async def move_delivery(self, seen: OpenDelivery, event: str, change: Change = NO_CHANGE) -> OpenDelivery | None:
        """Move a row if it still is as it was seen. Cancelled: it is moved or not, and nobody hears of it."""
        self.refuse_if_forked()
        now_ms = self.now_ms()
        if event in ("confirm", "confirm_piece"):
            self.options.faults("delivery.after_send")
        job = Job(
            lambda conn: outbox_rows.move(conn, seen, event, change, self.process, now_ms), durable=True, essential=True
        )
        moved = await shielded(self.writer.submit(job))
        if moved is not None and moved.state == "started":
            self.options.faults("delivery.after_started")
        return moved

    # ── previews ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin_preview(self, delivery_id: str, input_id: str, channel: str, target: str) -> Preview | None:
        """Note that the beginning of an answer is about to be shown. Durable.

        Returns: what is shown already, or None.
        """
        one = Preview(delivery_id, input_id, channel, target, self.process)
        now_ms = self.now_ms()
        job = Job(
            lambda conn: preview_rows.begin(conn, one, now_ms, lambda row: self.life_in(conn, row["process"])),
            durable=True,
        )
        known = await shielded(self.writer.submit(job))
        self.options.faults("preview.after_begin")
        return known

    async def name_preview(self, delivery_id: str, reference: str) -> None:
        """Note what the platform calls it. Not synced: it can be asked for again."""
        self.options.faults("preview.after_send")
        await shielded(self.writer.submit(Job(lambda conn: preview_rows.name(conn, delivery_id, reference))))

    async def end_preview(self, delivery_id: str) -> None:
        """Forget it: it is gone, or was never there."""
        await shielded(self.writer.submit(Job(lambda conn: preview_rows.end(conn, delivery_id))))

    async def preview(self, delivery_id: str) -> Preview | None:
        return await self.reads.ask(
            lambda conn: preview_rows.preview(conn, delivery_id, lambda row: self.life_in(conn, row["process"]))
        )

    async def previews_without_answer(self, channels: Sequence[str]) -> list[Preview]:
        """Those whose input has ended with nothing to say: they are to be taken away."""
        return await self.reads.ask(
            lambda conn: preview_rows.without_answer(conn, channels, lambda row: self.life_in(conn, row["process"]))
        )
