"""Inputs that share a turn, and the settings of a session's queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from holdfast.lane.queue import How, QueueSettings, summary_text
from holdfast.store.sql import boots, queueing
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.ledger import Holder, Job, Ledger
from holdfast.store.sql.rows import said, view_of_input
from holdfast.store.views import InputView


class Sharing(Ledger, Protocol):
    """What a turn takes in besides its own input."""

    def end_of(self, owned: Any) -> int:
        """Where the transcript of a turn ends now, as its owner knows."""
        ...

    async def recall_lines(self, owned: Any, input_id: str, start: int) -> None:
        """What of an input stands in the transcript from `start` on counts as landed from now on."""
        ...

    async def join_waiting(self, owned: Holder, how: How) -> list[InputView]:
        """Take in the inputs that wait and may share this turn, oldest first. Nobody else starts them while it lives.

        They end with the turn's final line if that names them, else they are in their place again when it has ended.
        Costs one look at the ledger where nothing waits. Cancelled: they may have been taken in; the same call, or the
        end of the turn, finds them.
        """
        own = owned.input_row
        if own is None or not await self.reads.ask(lambda conn: queueing.has_waiting(conn, owned.transcript)):
            return []
        turn, nonce, now_ms = owned.turn, owned.epoch.nonce, self.now_ms()
        end = self.end_of(owned)

        def run(conn: Connection) -> list[Row]:
            row = conn.execute("select epoch_nonce from transcripts where id=?", (owned.transcript,)).fetchone()
            if row is None or row[0] != nonce:
                return []  # taken over: the next append says so
            return queueing.join(conn, owned.transcript, turn, own, how, end, now_ms)

        rows = await self.writer.submit(Job(run))
        for row in rows:
            if row["first_offset"] is not None:  # an earlier turn had it, or may have had it: its line may be there
                await self.recall_lines(owned, row["id"], row["first_offset"])
        return [view_of_input(row) for row in rows]

    async def dropped_before(self, input_id: str) -> str | None:
        """What the model is told of inputs that gave way in a full queue, before this input; None: nothing."""
        rows = await self.reads.ask(lambda conn: queueing.dropped_before(conn, input_id))
        return summary_text([said(row) for row in rows]) if rows else None

    async def queue_settings(self, session: str, usual: QueueSettings) -> QueueSettings:
        """How the queue of a session behaves: its own settings over the usual ones."""
        return await self.reads.ask(lambda conn: queueing.settings_of(conn, session, usual))

    async def change_queue(self, session: str, change: dict[str, Any] | None) -> None:
        """Lay a change (`lane/queue.py`) over a session's own settings; None: forget them. Durable when it returns."""
        await self.writer.submit(Job(lambda conn: queueing.change_settings(conn, session, change), durable=True))

    async def tell_of_waiting(self, waiting: Sequence[str]) -> int:
        """Tell the senders of these inputs that they wait, once for each turn they wait behind."""
        now_ms = self.now_ms()
        if not await self.reads.ask(lambda conn: queueing.untold(conn, waiting)):
            return 0
        return await self.writer.submit(Job(lambda conn: queueing.tell_of_waiting(conn, waiting, now_ms)))

    async def tell_of_holder(self, input_id: str, text: str, holder: str) -> int:
        """Tell the sender of an input that waits who holds its conversation up, once."""
        now_ms = self.now_ms()
        return await self.writer.submit(Job(lambda conn: queueing.tell_of_holder(conn, input_id, text, holder, now_ms)))

    async def tell_of_draining(self) -> int:
        """Tell the senders whose messages wait that this gateway restarts, unless another one goes on."""
        now_ms = self.now_ms()

        def others(conn: Connection) -> bool:
            names = boots.gateways(conn)
            return any(name != self.process and self.life_in(conn, name) == "alive" for name in names)

        if await self.reads.ask(others):
            return 0
        return await self.writer.submit(Job(lambda conn: queueing.tell_of_draining(conn, self.process, now_ms)))
