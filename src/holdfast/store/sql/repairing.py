"""What `holdfast doctor --fix` may change in the ledger. Each looks again, in its own transaction,
whether what was found is still so; what has changed meanwhile is left alone.
"""

from __future__ import annotations

from typing import Protocol

from holdfast.store.sql import claims, inbox
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger

_RECOUNT = """
insert into depths
 select transcript, lane, count(*), sum(state='queued') from inputs where state in ('queued', 'running')
  group by transcript, lane
 union all
 select '', lane, count(*), sum(state='queued') from inputs where state in ('queued', 'running') group by lane"""


class LedgerRepairing(Ledger, Protocol):
    """Needs no owner: nobody owns what these are about, which is what is wrong with it."""

    async def requeue_stranded(self, input_id: str) -> str | None:
        """Put an input back in its place that runs in no turn: the one it names owns nothing. Nothing is charged. Its
        next owner looks for a final line in the transcript first, as after a crash.

        Returns: the state it is in then; None: it has ended, or a turn owns it after all.
        """
        now_ms = self.now_ms()

        def run(conn: Connection) -> str | None:
            row = inbox.by_id(conn, input_id)
            if row is None or row["state"] != "running":
                return None
            owner = conn.execute(
                "select 1 from transcripts where id=? and owner_turn is not null and epoch_nonce=?",
                (row["transcript"], row["epoch_nonce"]),
            ).fetchone()
            if owner is not None:
                return None
            why = "the turn that ran it owned nothing any more (holdfast doctor)"
            return inbox.requeue(conn, row, charge=False, solo=bool(row["solo"]), why=why, now_ms=now_ms)

        state = await self.writer.submit(Job(run, durable=True))
        self.tell_of_free_slot()
        return state

    async def close_stray_turn(self, turn: str) -> bool:
        """Close the row of a turn that owns nothing. False: it is closed, or owns its transcript after all."""
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            owner = conn.execute("select 1 from transcripts where owner_turn=?", (turn,)).fetchone()
            row = conn.execute("select state from turns where id=?", (turn,)).fetchone()
            if owner is not None or row is None or row["state"] != "running":
                return False
            claims.end_turn(conn, turn, "died", "it owned nothing any more (holdfast doctor)", now_ms)
            claims.forget_waits_of(conn, turn)
            return True

        return await self.writer.submit(Job(run, durable=True))

    async def recount_queues(self) -> None:
        """Count open and waiting inputs anew."""

        def run(conn: Connection) -> None:
            conn.execute("delete from depths")
            conn.execute(_RECOUNT)

        await self.writer.submit(Job(run, durable=True))

    async def remove_pin(self, session: str, pin_id: str) -> bool:
        """Take a pin away if it is still this very one."""

        def run(conn: Connection) -> bool:
            changed = conn.execute("delete from model_pins where session=? and id=?", (session, pin_id))
            return changed.rowcount == 1

        return await self.writer.submit(Job(run, durable=True))
