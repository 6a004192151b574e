"""What `holdfast doctor --fix` may change; nearly all of it is the ledger's (`store/sql/repairing.py`)."""

from __future__ import annotations

from holdfast.errors import InputError
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.repairing import LedgerRepairing


class Repairing(LedgerRepairing, PostgresCore):
    async def list_session(self, key: str, path: str) -> bool:
        """List a transcript that no session names under the key that it was made for.

        Raises: InputError: it was made for another.
        """
        if path != key:
            raise InputError(f"{path} is not where session {key!r} has its transcript")
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            there = conn.execute("select 1 from transcripts where path=?", (path,)).fetchone()
            listed = conn.execute("select 1 from sessions where key=?", (key,)).fetchone()
            if there is None or listed is not None:
                return False
            self.register_session(conn, key, now_ms)
            return True

        return await self.writer.submit(Job(run, durable=True))

    async def narrow_rights(self, name: str) -> bool:
        """Rights are the database's to give; `holdfast postgres roles` prints which."""
        del name
        return False
