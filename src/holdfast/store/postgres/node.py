"""This node's sign of life, and others'.

A connection of its own, on a thread of its own, holds an advisory lock in the node's name: the server lets it go when
the connection ends. Others who find it free for `GONE_S`, with no sign of the node meanwhile, take the node for gone.
That is safe although the node may live: every commit of a turn is fenced by its epoch. A node whose connection was cut
makes another at once. The same thread renews the beats of this node's turns and hears the notices that wake whoever
waits; they are hints, everyone also looks once a second.

Behind a pooler in transaction mode there is no session to hold a lock or to listen in: a lock that was taken would stay
with a connection of the pooler's, for whoever comes next. A node that has no other way to the server (`session_url`) so
holds none: it counts up instead, with its beats, and is gone once others have watched the count stand still for the
whole term. It hears no notices.
"""

from __future__ import annotations

import hashlib
import logging
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import psycopg

from holdfast.clock import Clock
from holdfast.errors import InputError
from holdfast.recovery.classify import Life
from holdfast.recovery.progress import Report
from holdfast.store.postgres.connecting import SESSION_URL_VARIABLE, Patient, connect
from holdfast.store.sql.connection import Connection

GONE_S = 2.0
LOOK_S = 0.5
CLOSE_S = 5.0
ENDED = -1
CHANNEL = "holdfast"
_HOLDS = """
select 1 from pg_locks where locktype='advisory' and granted and objsubid=1
 and database=(select oid from pg_database where datname=current_database())
 and (classid::bigint << 32 | objid::bigint)=?"""
log = logging.getLogger("holdfast.beats")


def lock_of(process: str) -> int:
    """The advisory lock that says that a node lives: 63 bits of its name."""
    return int.from_bytes(hashlib.sha256(process.encode()).digest()[:8], "big") >> 1


@dataclass(slots=True)
class _Beating:
    until_mono: float
    still_runs: Callable[[], bool]
    report: Callable[[], Report] | None


class Node:
    """The thread. `heard` is called on it for each notice of another node."""

    def __init__(
        self, url: str, store_id: str, process: str, clock: Clock, beat_s: float, heard: Callable[[], object]
    ) -> None:
        self._url = url
        self._store_id = store_id
        self._process = process
        self._clock = clock
        self._beat_s = beat_s
        self._heard = heard
        self._turns: dict[str, _Beating] = {}
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._in_order = True
        self._woken, self._waking = os.pipe()
        self._raw: Patient | None = connect(url, "node", may_be_pooled=True)
        self._hold(self._raw)
        self._thread = threading.Thread(target=self._run, name="holdfast-node", daemon=True)
        self._thread.start()

    def _hold(self, raw: Patient) -> None:
        """Raises InputError: it is another state."""
        row = raw.execute("select value from holdfast.meta where key='store'").fetchone()
        if row is None or row[0] != self._store_id:
            raw.close()
            raise InputError(f"{SESSION_URL_VARIABLE} names another state than the URL does")
        if raw.pooled:
            raw.execute("update holdfast.processes set node=node+1, pooled=true where name=%s", (self._process,))
            return
        raw.execute("select pg_advisory_lock_shared(%s)", (lock_of(self._process),))
        raw.execute("update holdfast.processes set node=node+1, pooled=false where name=%s", (self._process,))
        raw.execute(f"listen {CHANNEL}".encode())

    def start(self, turn: str, max_s: float, still_runs: Callable[[], bool],
              report: Callable[[], Report] | None) -> None:  # fmt: skip
        """Renew a turn until `stop`, its task is done, or `max_s` is over."""
        with self._mutex:
            self._turns[turn] = _Beating(self._clock.mono() + max_s, still_runs, report)

    def stop(self, turn: str) -> None:
        with self._mutex:
            self._turns.pop(turn, None)

    def close(self, *, in_order: bool = True) -> None:
        """`in_order`: others know at once that nothing in this node's name is anybody's any more. Twice is once."""
        if self._stop.is_set():
            return
        self._in_order = in_order
        self._stop.set()
        os.write(self._waking, b"x")
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        last = self._clock.mono()
        while not self._stop.is_set():
            try:
                if self._raw is None or self._raw.closed:
                    self._raw = connect(self._url, "node", may_be_pooled=True)
                    self._hold(self._raw)
                    log.info("node %s is connected again", self._process)
                select.select([self._raw.fileno(), self._woken], [], [], LOOK_S)
                told_by = {notice.payload for notice in self._raw.notifies(timeout=0)}
                if told_by - {self._process}:
                    self._heard()
                if self._clock.mono() - last >= self._beat_s:
                    last = self._clock.mono()
                    self._beat(self._raw)
            except (psycopg.Error, InputError) as exc:
                if not self._stop.is_set():
                    log.warning("node %s has lost its connection: %s", self._process, " ".join(str(exc).split()))
                if self._raw is not None:
                    self._raw.close()
                select.select([self._woken], [], [], LOOK_S / 2)
        self._leave()
        os.close(self._woken)  # by whoever waits on it: a server that is away may keep this thread beyond `close`
        os.close(self._waking)

    def _leave(self) -> None:
        """In order: what is still open in this node's name is known to be nobody's at once."""
        if self._raw is None or self._raw.closed:
            return
        try:
            if self._in_order:
                self._raw.execute("update holdfast.processes set node=%s where name=%s", (ENDED, self._process))
        except psycopg.Error as exc:
            log.debug("the end of node %s was not noted: %s", self._process, exc)
        self._raw.close()

    def _beat(self, raw: Patient) -> None:
        now = self._clock.mono()
        with self._mutex:
            self._turns = {turn: one for turn, one in self._turns.items()
                           if now <= one.until_mono and one.still_runs()}  # fmt: skip
            alive = [(turn, None if one.report is None else msgspec.msgpack.encode(one.report()))
                     for turn, one in self._turns.items()]  # fmt: skip
        if raw.pooled:
            raw.execute("update holdfast.processes set node=node+1 where name=%s", (self._process,))
        if alive:
            raw.cursor().executemany(
                "insert into holdfast.beats as b(turn, beat, report) values(%s, 1, %s)"
                " on conflict(turn) do update set beat=b.beat+1, report=excluded.report",
                alive,
            )


class LifeWatch:
    """What this node has seen of others: their locks, and behind a pooler how they count.

    Args:
        term_s: for how long a count has to have been watched standing still.
    """

    def __init__(self, process: str, clock: Clock, term_s: float = 90.0) -> None:
        self._process = process
        self._clock = clock
        self._term_s = term_s
        self._free: dict[str, tuple[int, float]] = {}
        self._counts: dict[str, tuple[int, float, float]] = {}  # the count, since when, and when it was looked at
        self._mutex = threading.Lock()

    def life_in(self, conn: Connection, process: str) -> Life:
        """Dead once the lock has been free for `GONE_S` and the node has not come back meanwhile; unknown before."""
        if process == self._process:
            return "alive"
        row = conn.execute("select node, pooled from processes where name=?", (process,)).fetchone()
        if row is not None and row[0] == ENDED:
            return "dead"  # in order: the server may not have noticed yet that the connection has ended
        if row is not None and row[1]:
            return self._life_by_count(process, row[0])
        held = conn.execute(_HOLDS, (lock_of(process),)).fetchone() is not None
        with self._mutex:
            if held:
                self._free.pop(process, None)
                return "alive"
            if row is None:
                return "unknown"
            now = self._clock.mono()
            count, since = self._free.get(process, (-1, now))
            if count != row[0]:
                self._free[process] = (row[0], now)
                return "unknown"
            return "dead" if now - since >= GONE_S else "unknown"

    def _life_by_count(self, process: str, count: int) -> Life:
        """Looks that are far apart prove nothing: the database may have been away for everybody in between."""
        now = self._clock.mono()
        with self._mutex:
            before, since, looked = self._counts.get(process, (count, now, now))
            if before != count or now - looked > self._term_s / 2:
                since = now
            self._counts[process] = (count, since, now)
            return "dead" if now - since >= self._term_s else "alive"


def beat_of(conn: Connection, turn: str) -> bytes:
    """What a turn's owner has shown last; changes while it lives."""
    row = conn.execute("select beat from beats where turn=?", (turn,)).fetchone()
    return b"" if row is None else str(row[0]).encode()


def report_of(conn: Connection, turn: str) -> Report | None:
    row = conn.execute("select report from beats where turn=?", (turn,)).fetchone()
    return None if row is None or row[0] is None else msgspec.msgpack.decode(row[0], type=Report)
