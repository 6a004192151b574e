"""What all parts of the PostgreSQL store stand on: connections, the writer, the node and its name."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import psycopg

from holdfast import ids
from holdfast.clock import Clock, epoch_ms
from holdfast.errors import OwnershipLostError
from holdfast.lane.policy import LaneLimits
from holdfast.node_dir import without_password
from holdfast.recovery.classify import Life
from holdfast.session.key import validate_key
from holdfast.store.postgres.connecting import check_url, connect, in_transaction, session_url, unreachable
from holdfast.store.postgres.node import CHANNEL, LifeWatch, Node
from holdfast.store.postgres.reading import Reads
from holdfast.store.postgres.schema import open_schema
from holdfast.store.postgres.writer import PostgresWriter
from holdfast.store.sql import inbox
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.registering import Registering
from holdfast.store.sql.watch import BeatWatch

log = logging.getLogger("holdfast.store")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Numbers of the PostgreSQL store, as in `holdfast.open`."""

    limits: LaneLimits = field(default_factory=LaneLimits)
    beat_s: float = 15.0
    beat_term_s: float = 90.0
    turn_max_s: float = 172_800.0
    keep_days: float = 90.0
    kind: str = "library"
    faults: Callable[[Any], None] = lambda _: None
    is_left: Callable[[Sequence[str]], bool] = lambda _: False


class PostgresCore(Registering):
    """One node's hold on a state. All methods may be used from any task of one event loop."""

    def __init__(self, url: str, clock: Clock, options: PostgresOptions) -> None:
        check_url(url)
        self._url = url
        self.clock = clock
        self._options = options
        self._pid = os.getpid()
        self._process = ids.new_id("p")
        self._known = {}
        try:
            with connect(url, "opening", may_be_pooled=True) as raw:
                self._store_id = open_schema(raw)
                with in_transaction(raw) as conn:
                    conn.execute(
                        "insert into processes(name, pid, kind, started_at_ms, boot) values(?,?,?,?,?)",
                        (self._process, self._pid, options.kind, self.now_ms(), platform.node()),
                    )
            self._with_soon: dict[str, Any] = {}  # by turn: those that have lines to write soon (`writing.py`)
            self.slot_freed = asyncio.Event()
            self._loop: asyncio.AbstractEventLoop | None = None
            self._wakes: list[Callable[[], object]] = []
            self.lives = LifeWatch(self._process, clock, options.beat_term_s)
            self.watch = BeatWatch(clock, options.beat_term_s)
            self.node = Node(session_url(url), self._store_id, self._process, clock, options.beat_s, self._heard)
        except psycopg.OperationalError as exc:
            raise unreachable(url, exc) from exc
        self._writer = PostgresWriter(url, self._store_id, options.faults)
        self._reads = Reads(url)
        self._closed = False

    @property
    def options(self) -> PostgresOptions:
        return self._options

    @property
    def writer(self) -> PostgresWriter:
        return self._writer

    @property
    def reads(self) -> Reads:
        return self._reads

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def process(self) -> str:
        return self._process

    @property
    def location(self) -> str:
        return without_password(self._url)

    @property
    def stopped(self) -> bool:
        return self.writer.stopped

    def use_limits(self, limits: LaneLimits) -> None:
        self._options = replace(self._options, limits=limits)

    def raise_if_stopped(self) -> None:
        self.writer.raise_if_stopped()

    def now_ms(self) -> int:
        return epoch_ms(self.clock.now())

    def refuse_if_forked(self) -> None:
        if os.getpid() != self._pid:
            raise OwnershipLostError("this process was forked from the one that owns the turn; it owns nothing")

    def life_in(self, conn: Connection, process: str) -> Life:
        return self.lives.life_in(conn, process)

    async def close(self) -> None:
        """Finish the ledger's work and let go of everything. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.writer.close)
        await loop.run_in_executor(None, self.node.close)
        self.reads.close()

    # ── waking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def tell_of_free_slot(self) -> None:
        self.slot_freed.set()
        self.writer.post(self.notify_in)

    def notify_in(self, conn: Connection) -> None:
        """Wake whoever waits in other nodes, once this transaction is committed."""
        conn.execute("select pg_notify(?, ?)", (CHANNEL, self._process))

    def _heard(self) -> None:
        """On the node's thread: another node has told of something."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._wake_all)
        except RuntimeError:
            log.debug("the loop that heard notices has gone")

    def _wake_all(self) -> None:
        self.slot_freed.set()
        for wake in list(self._wakes):
            wake()

    @contextmanager
    def hear_of_free_slots(self, wake: Callable[[], object]) -> Iterator[None]:
        """Within it `wake` is called when another node has freed a slot. A hint: it may be missed."""
        self._loop = asyncio.get_running_loop()
        self._wakes.append(wake)
        try:
            yield
        finally:
            self._wakes.remove(wake)

    def hear_of_lock_waits(self, told: Callable[[float], object]) -> AbstractContextManager[None]:
        """Nobody here waits for a write lock by itself: rows are locked within a transaction."""
        del told
        return _nothing()

    # ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def transcript_of(self, key: str) -> str:
        """The transcript id behind a session key; registers the key if it is new."""
        known = self._known.get(key)
        if known is None:
            validate_key(key)
            listed = "select transcript from sessions where key=?"
            row = await self.reads.ask(lambda conn: conn.execute(listed, (key,)).fetchone())
            now_ms = self.now_ms()
            known = row[0] if row is not None else await self.writer.submit(
                Job(lambda conn: self.register_session(conn, key, now_ms))
            )  # fmt: skip
            self._known[key] = known
        return known

    def own_transcript(self, conn: Connection, key: str) -> str:
        row = conn.execute("select id from transcripts where path=?", (key,)).fetchone()
        if row is not None:
            return row[0]
        transcript = ids.new_id("t")
        conn.execute("insert into transcripts(id, path, body) values(?,?,?)", (transcript, key, transcript))
        return transcript

    async def sweep_lock_files(self) -> int:
        return 0

    def note_events(self, events: list[inbox.StoryLine]) -> None:
        """Story lines for `why`; nobody waits for them."""
        self.writer.post(lambda conn: inbox.note_events(conn, events))


@contextmanager
def _nothing() -> Iterator[None]:
    yield
