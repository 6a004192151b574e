"""Reading a state in PostgreSQL, beside the writer or without one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import psycopg

from holdfast.clock import Clock, epoch_ms
from holdfast.errors import InputError, StateAwayError
from holdfast.lane.policy import LaneLimits
from holdfast.node_dir import without_password
from holdfast.recovery.classify import Life, Owner
from holdfast.session.lines import Line
from holdfast.session.retention import Conversation, Kept
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.connecting import (
    LedgerConnection,
    Patient,
    begin,
    check_url,
    connect,
    in_transaction,
    unreachable,
)
from holdfast.store.postgres.node import GONE_S, LOOK_S, LifeWatch, report_of
from holdfast.store.postgres.schema import check_schema
from holdfast.store.sql import archive_rows, claims
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Writer
from holdfast.store.sql.reading import LedgerReading
from holdfast.store.sql.reads import LedgerReads
from holdfast.store.views import SessionView

T = TypeVar("T")
END_LINES = 200
CLOSE_S = 5.0
log = logging.getLogger("holdfast.store")
AWAY_AGAIN_S = 0.25
"""For how long nobody tries again after a question that had no answer."""


class Reads(LedgerReads):
    """A reading connection on a thread of its own. Each question is one transaction that changes nothing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._raw: Patient | None = None
        self._pool = ThreadPoolExecutor(1, "holdfast-read")
        self._away: tuple[float, StateAwayError] | None = None

    async def ask(self, question: Callable[[Any], T]) -> T:
        """Raises StateAwayError: the database cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question)

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Who stood in line behind one that had no answer is told the same, and does not wait as long once more."""
        if self._away is not None and time.monotonic() < self._away[0]:
            raise StateAwayError(str(self._away[1]))
        try:
            if self._raw is None or self._raw.closed:
                self._raw = connect(self._url, "reader", may_be_pooled=True)
                if not self._raw.pooled:
                    self._raw.execute("set default_transaction_read_only=on")
            if self._raw.pooled:
                return self._asked_in_transaction(self._raw, question)
            return question(LedgerConnection(self._raw))
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            if self._raw is not None:
                self._raw.close()
            refused = unreachable(self._url, exc)
            self._away = (time.monotonic() + AWAY_AGAIN_S, refused)
            raise refused from exc

    @staticmethod
    def _asked_in_transaction(raw: Patient, question: Callable[[Any], T]) -> T:
        begin(raw, read_only=True)
        try:
            return question(LedgerConnection(raw))
        finally:
            if not raw.closed:
                raw.execute("rollback")

    def close(self) -> None:
        def shut() -> None:
            if self._raw is not None:
                self._raw.close()

        try:
            self._pool.submit(shut).result(timeout=CLOSE_S)
        except TimeoutError:  # a question that still waits for its answer; its thread closes the connection behind it
            log.warning("the reading connection has not closed within %g s; its thread goes on closing it", CLOSE_S)
        self._pool.shutdown(wait=False)


class PostgresReading(LedgerReading, Protocol):
    """Views of transcripts and of who lives. None of it writes."""

    clock: Clock

    @property
    def reads(self) -> Reads: ...

    async def read_lines(self, transcript: str) -> list[Line]:
        return await self.reads.ask(lambda conn: transcripts.read_lines(conn, transcript))

    async def read_end(self, transcript: str) -> list[Line]:
        return await self.reads.ask(lambda conn: transcripts.read_lines(conn, transcript, END_LINES))

    async def sessions(self, *, prefix: str, limit: int, archived: bool = False) -> list[SessionView]:
        found = await self.reads.sessions(prefix=prefix, limit=limit, archived=archived, place=lambda _: (None, 0))

        def ask(conn: Connection) -> dict[str, int]:
            size = "select bytes from transcripts where id=?"
            return {one.transcript: conn.execute(size, (one.transcript,)).fetchone()[0] for one in found}

        sizes = await self.reads.ask(ask)
        return [replace(one, size_bytes=sizes[one.transcript]) for one in found]

    async def retained(self) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
        def ask(conn: Connection) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
            sizes = {row[0]: row[1] for row in conn.execute("select id, bytes from transcripts")}
            return archive_rows.retained(conn, lambda row: sizes[row["id"]])

        return await self.reads.ask(ask)

    async def watch_lives(self) -> None:
        """A node is gone once its lock has been free for `GONE_S`: whoever has just come has to watch for so long."""
        until = self.clock.mono() + GONE_S + 2 * LOOK_S
        while any(life == "unknown" for _, _, life in await self.reads.owned_transcripts(self.life_in)):
            if self.clock.mono() >= until:
                return
            await self.clock.sleep(LOOK_S / 2)

    async def owners(self) -> list[Owner]:
        def ask(conn: Connection) -> list[Owner]:
            found = claims.owners(conn, self.process, lambda process: self.life_in(conn, process))
            return [replace(one, report=report_of(conn, one.turn)) for one in found]

        return await self.reads.ask(ask)


@dataclass(frozen=True, slots=True)
class LookOptions:
    """What a reader goes by."""

    limits: LaneLimits = field(default_factory=LaneLimits)
    faults: Callable[[Any], None] = lambda _: None


class ReadOnlyStore(PostgresReading):
    """The reading half of the store: no row of its own, no lock, one connection that may change nothing."""

    def __init__(self, url: str, clock: Clock) -> None:
        check_url(url)
        self.clock = clock
        self._url = url
        try:
            with connect(url, "looking", may_be_pooled=True) as raw, in_transaction(raw):
                if check_schema(raw) is None:
                    raise InputError(f"no state in {without_password(url)}: nobody has opened one there yet")
        except psycopg.OperationalError as exc:
            raise unreachable(url, exc) from exc
        self._reads = Reads(url)
        self._lives = LifeWatch("", clock)

    def __getattr__(self, name: str) -> object:
        raise _only_reads(name)

    @property
    def writer(self) -> Writer:
        raise _only_reads("writer")

    def register_session(self, conn: Connection, key: str, now_ms: int, home: str | None = None) -> str:
        del conn, key, now_ms, home
        raise _only_reads("register_session")

    def refuse_if_forked(self) -> None:
        raise _only_reads("refuse_if_forked")

    def tell_of_free_slot(self) -> None:
        raise _only_reads("tell_of_free_slot")

    @property
    def reads(self) -> Reads:
        return self._reads

    @property
    def options(self) -> LookOptions:
        return LookOptions()

    @property
    def process(self) -> str:
        """A reader has no name among the processes of the state."""
        return ""

    @property
    def location(self) -> str:
        return without_password(self._url)

    @property
    def stopped(self) -> bool:
        return False

    def now_ms(self) -> int:
        return epoch_ms(self.clock.now())

    def life_in(self, conn: Connection, process: str) -> Life:
        return self._lives.life_in(conn, process)

    async def close(self) -> None:
        """Let go of everything. A second time does nothing."""
        self.reads.close()


def _only_reads(name: str) -> AttributeError:
    return AttributeError(f"this state is opened for reading, which knows no {name!r}; use `holdfast.open`")
