"""What the ledger remembers of models: cool-downs, probes, pins. Turns read it with their claim."""

from __future__ import annotations

from typing import Protocol

from holdfast.model.cooldown import Cooldown, ModelFailure
from holdfast.model.policy import ModelFacts, Pin
from holdfast.store.sql import model_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Holder, Job, Ledger


class Remembering(Ledger, Protocol):
    """Only a user's choice is synced: a cool-down more or less after a power loss is nothing."""

    def models_of(self, owned: Holder) -> ModelFacts:
        return owned.models

    def note_model_failure(self, failure: ModelFailure) -> None:
        self.writer.post(lambda conn: model_rows.note_failure(conn, failure))

    def note_model_well(self, row: Cooldown) -> None:
        self.writer.post(lambda conn: model_rows.remove_cooldown(conn, row.key))

    async def begin_probe(self, row: Cooldown, turn: str, *, every_s: float) -> bool:
        now_ms = self.now_ms()
        return await self.writer.submit(Job(lambda conn: model_rows.begin_probe(conn, row.key, turn, every_s, now_ms)))

    async def replace_pin(self, session: str, *, seen: str | None, pin: Pin | None) -> bool:
        return await self.writer.submit(Job(lambda conn: model_rows.replace_pin(conn, session, seen, pin)))

    def undo_pin(self, session: str, *, written: str, before: Pin | None) -> None:
        self.writer.post(lambda conn: model_rows.replace_pin(conn, session, written, before))

    async def choose_pin(self, session: str, pin: Pin | None) -> Pin | None:
        def run(conn: Connection) -> Pin | None:
            before = model_rows.pin_of(conn, session)
            model_rows.put_pin(conn, session, pin)
            return before

        return await self.writer.submit(Job(run, durable=True))
