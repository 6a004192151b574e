"""Throwing away what nobody needs any more: stories of ended turns, and rows of processes that are long gone.

Inputs, their dedupe keys and deliveries are never touched: a key outlives its input and every source's redelivery
window. What is open is never touched either: neither inputs that wait or run, with their story, nor running turns, nor
whoever owns or sends something. Age is told by the wall clock, which may jump: the newest `ROWS_KEPT` stay whatever
their age, so a jump costs old stories and nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from holdfast.store.sql import background_rows, claims, outbox_rows, usage_rows
from holdfast.store.sql.connection import Connection, Row
from holdfast.store.sql.ledger import Job, Ledger

KEEP_DAYS = 90.0
"""How long the story of an ended turn is kept (`why`, `turns`): longer than anybody asks after an answer."""
CALLS_KEEP_DAYS = 400.0
"""What model calls have used is kept for at least a year and a month, to be held against a provider's bills."""
ROWS_KEPT = 10_000
"""So many turns, and so many events, are kept in any case: some megabytes."""
ROWS_MAX = 500_000
"""Past so many the oldest go whatever their age: about 200 MB."""
BATCH_ROWS = 200
"""In one transaction, about 2 ms: nobody else's commit waits longer for it."""
BATCHES_MAX = 500
"""In one tidying; the rest is done in the next."""
PAUSE_S = 0.05
DAY_MS = 86_400_000

_EVENTS = """
select seq from (select * from events where seq<:before order by seq limit :rows) e
 where (at_ms<:old_ms or seq<:surplus)
   and not exists(select 1 from inputs i where i.id=e.input and i.state in ('queued', 'running'))
   and not exists(select 1 from turns t where t.id=e.turn and t.state='running')"""
_TURNS = """
select id from (select * from turns where id<:before order by id limit :rows) u
 where state='settled' and (ended_at_ms<:old_ms or id<:surplus)
   and not exists(select 1 from turns c where c.parent=u.id and c.parent is not null and c.state='running')
   and not exists(select 1 from inputs i where i.id=u.input and i.state in ('queued', 'running'))
   and (outcome is not 'died' or process not in (select owner_process from transcripts where owner_turn is not null))"""
_WAITS = """
delete from waits where parent_turn is null
 or not exists(select 1 from turns where id=parent_turn and state='running')"""


def processes_needed(conn: Connection) -> set[str]:
    """Processes that own, send or run something: they must stay provably dead or alive."""
    return claims.processes_owning(conn) | outbox_rows.processes_sending(conn) | background_rows.processes_running(conn)


class Tidying(Ledger, Protocol):
    """Keeping the ledger small, in small steps. Any process may, at any time, also several at once."""

    @property
    @abstractmethod
    def keep_days(self) -> float:
        """For how long the stories of ended turns are kept; 0: for ever."""
        ...

    @abstractmethod
    def is_process_gone(self, conn: Connection, row: Row, old_ms: int) -> bool:
        """Whether a process, by its row, is dead for all purposes: also if that cannot be told, and it is from before
        `old_ms`.
        """
        ...

    async def tidy(self) -> int:
        """Throw away what is older than `keep_days` and not needed; returns how many rows. Cancelled: what is gone is
        gone, the rest stays for the next time.
        """
        await self.writer.submit(Job(lambda conn: conn.execute(_WAITS).rowcount))
        gone = await self._tidy_processes()
        if self.keep_days <= 0:
            return gone
        old_ms = self.now_ms() - int(self.keep_days * DAY_MS)
        newest = await self.reads.ask(_newest_events)
        bounds = {"before": newest - ROWS_KEPT + 1, "surplus": newest - ROWS_MAX + 1, "old_ms": old_ms}
        gone += await self._tidy_rows(_EVENTS, "delete from events where seq=?", bounds)
        bounds = {"before": await self._turn_at(ROWS_KEPT), "surplus": await self._turn_at(ROWS_MAX), "old_ms": old_ms}
        gone += await self._tidy_rows(_TURNS, "delete from turns where id=?", bounds)
        gone += await self.writer.submit(Job(lambda conn: _tidy_tools(conn, old_ms)))
        calls_ms = self.now_ms() - int(max(self.keep_days, CALLS_KEEP_DAYS) * DAY_MS)
        return gone + await self.writer.submit(Job(lambda conn: usage_rows.tidy(conn, calls_ms, BATCH_ROWS)))

    async def _tidy_rows(self, choose: str, delete: str, bounds: dict[str, Any]) -> int:
        """Oldest first, a batch after the other, until one is not wholly old."""

        def run(conn: Connection) -> int:
            chosen = conn.execute(choose, {**bounds, "rows": BATCH_ROWS}).fetchall()
            conn.executemany(delete, [tuple(row) for row in chosen])
            return len(chosen)

        gone = 0
        for _ in range(BATCHES_MAX):
            count = await self.writer.submit(Job(run))
            gone += count
            if count < BATCH_ROWS // 2:
                break
            await self.clock.sleep(PAUSE_S)
        return gone

    async def _turn_at(self, place: int) -> str:
        """The id of the turn that stands there, from the newest on; "" if there are not so many."""
        sql = "select id from turns order by id desc limit 1 offset ?"
        row = await self.reads.ask(lambda conn: conn.execute(sql, (place - 1,)).fetchone())
        return row[0] if row else ""

    async def _tidy_processes(self) -> int:
        """Rows of processes that own and send nothing and do not live. One that cannot be told (its sentinel is gone,
        the machine has not been started anew) is dead for all purposes once it is as old as stories are kept.
        """
        old_ms = self.now_ms() - int((self.keep_days or KEEP_DAYS) * DAY_MS)

        def run(conn: Connection) -> int:
            needed = processes_needed(conn) | {self.process}
            rows = conn.execute("select name, started_at_ms, boot from processes order by started_at_ms limit 2000")
            gone = [
                (row["name"],)
                for row in rows.fetchall()
                if row["name"] not in needed and self.is_process_gone(conn, row, old_ms)
            ]
            conn.executemany("delete from processes where name=?", gone[:BATCH_ROWS])
            return len(gone[:BATCH_ROWS])

        return await self.writer.submit(Job(run))


def _tidy_tools(conn: Connection, old_ms: int) -> int:
    """Questions, consents and programs that ended that long ago. A message's row in the outbox stays."""
    batch = f"limit {BATCH_ROWS})"
    old = (
        f"delete from approvals where id in (select id from approvals where asked_at_ms<? {batch}",  # noqa: S608
        f"delete from background where id in (select id from background where state<>'open' and started_at_ms<? {batch}",  # noqa: S608, E501
        "delete from grants where expires_at_ms<?",
    )
    return sum(conn.execute(sql, (old_ms,)).rowcount for sql in old)


def _newest_events(conn: Connection) -> int:
    return conn.execute("select coalesce(max(seq), 0) from events").fetchone()[0]
