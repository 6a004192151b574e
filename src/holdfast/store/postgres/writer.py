"""One thread of a node writes: whatever is ready goes into one transaction, one commit for all of it.

Writers of all nodes share an advisory lock that the transaction takes first and its end lets go. Most of the ledger's
statements (`store/sql`) were written for one writer at a time, each seeing all that was committed before: those take it
alone. Claims and what an owner writes into its own rows (`Job.beside`) share it, and run beside each other. A node that
is stopped or cut off while it has the lock loses it within seconds: the server ends transactions that stand idle
(`connecting.py`).

The connection may go at any moment. What was not committed is done again on the next one; whether a commit whose answer
was lost has happened is asked by its number (`pg_xact_status`). While the database is away, jobs fail after `AWAY_S`,
but for the essential ones (lines and ends of turns, moves of deliveries): those are kept, in order, until it is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
import psycopg.sql
from psycopg.types.json import Jsonb

from holdfast.errors import HoldfastError, OwnershipLostError, ResourceError, StoreStoppedError
from holdfast.store.postgres.connecting import LOCALLY, LedgerConnection, Patient, Row, connect, unreachable
from holdfast.store.postgres.schema import WRITING
from holdfast.store.sql.ledger import Job, Run

BATCH_MAX = 64
AWAY_S = 5.0
"""For how long work that a caller waits for is tried while the database is away."""
RETRY_S = 0.25
UNSURE_S = 600.0
"""For how long it is asked whether a commit has happened whose answer was lost. Whose work it was waits as long."""
TELL_EVERY_S = 5.0
_BEGIN = (
    "begin isolation level read committed{}; select pg_advisory_xact_lock{}({});"
    " select set_config('holdfast.writer', {}, true), pg_current_xact_id()::text"
)
"""One round trip: our turn, who writes, and the number by which a commit is asked for."""
_OWN = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)
"""The statement was at fault, and not the connection or the server, which concern everybody."""
log = logging.getLogger("holdfast.ledger")


@dataclass(slots=True, eq=False)
class Together(Job):
    """Work of one statement, in which nothing is asked in between: with others of its kind it is one round trip and one
    commit. Done again after a connection was lost, it has to find out by itself what it has done.

    Args:
        statement: takes a JSON array of `one` of each, and gives back a row for each, with its place, from 1, in `at`.
        take: makes the result of the row.
    """

    statement: str = ""
    one: Mapping[str, Any] = field(default_factory=dict[str, Any])
    take: Callable[[Row], Any] = lambda row: row


@dataclass(slots=True)
class WriterFigures:
    jobs: int = 0
    commits: int = 0
    beside: int = 0
    """Of the commits, how many ran beside others."""
    reconnects: int = 0
    round_trips: int = 0


class Connecting(Protocol):
    """See `connect`."""

    def __call__(self, url: str, purpose: str, *, may_be_pooled: bool) -> psycopg.Connection[Any]: ...


class PostgresWriter:
    """This node's writing connection and its thread. Safe to call from any thread and loop of this process."""

    def __init__(
        self, url: str, store_id: str, faults: Callable[[Any], None],
        connecting: Connecting = connect,
    ) -> None:  # fmt: skip
        self._url = url
        self._connect = connecting
        self._begin = {
            (beside, pooled): psycopg.sql.SQL(_BEGIN).format(
                psycopg.sql.SQL("; ") + LOCALLY if pooled else psycopg.sql.SQL(""),
                psycopg.sql.SQL("_shared" if beside else ""), WRITING, store_id,
            )
            for beside in (False, True) for pooled in (False, True)
        }  # fmt: skip
        self._faults = faults
        self.figures = WriterFigures()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._away_since: float | None = None
        self._told_mono = 0.0
        self._kept: list[Job] = []  # essential ones that wait for the database
        self._raw: psycopg.Connection[Any] | None = None
        self._stopped: BaseException | None = None
        self._closed = False
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._thread = threading.Thread(target=self._run_forever, name="holdfast-ledger", daemon=True)
        self._started = False

    # ── for callers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, job: Job) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        job.waiting = (loop, future)
        self._put(job)
        return future

    def submit_blocking(self, job: Job) -> Any:
        """The same for a thread that may wait. Never call it from the writer's own thread."""
        job.done = done = threading.Event()
        self._put(job)
        done.wait()
        if job.error is not None:
            raise job.error
        return job.result

    def post(self, run: Run) -> None:
        if self._stopped is None and not self._closed:
            self._put(Job(run))

    @property
    def stopped(self) -> bool:
        return self._stopped is not None or self._closed

    def raise_if_stopped(self) -> None:
        """Raises StoreStoppedError once nothing can be recorded in this process any more."""
        if self._stopped is not None:
            raise StoreStoppedError(f"the ledger stopped: {self._stopped}; restart this process") from self._stopped
        if self._closed:
            raise StoreStoppedError("the state was closed in this process; open it again")

    def close(self) -> None:
        """Finish what is queued, then close. What waits for a database that is away is given up after `AWAY_S`."""
        with self._mutex:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            self._queue.put(None)
        if self._started:
            self._thread.join()
        elif self._raw is not None:
            self._raw.close()

    def _put(self, job: Job) -> None:
        if os.getpid() != self._pid:
            raise OwnershipLostError("this process was forked from the one that opened the state; open it again")
        with self._mutex:
            self.raise_if_stopped()
            self._queue.put(job)
            if not self._started:
                self._started = True
                self._thread.start()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run_forever(self) -> None:
        going = True
        while going:
            whole, going = self._next_batch()
            for batch in _in_parts(whole):
                try:
                    self._run_batch(batch)
                except BaseException as exc:
                    for job in [*batch, *self._kept]:
                        job.error = job.error or exc
                    batch += [job for job in self._kept if job not in batch]
                    self._kept = []
                    self._stopped = exc
                    log.exception("the ledger writer failed; this process stops writing")
                self._answer([job for job in batch if job not in self._kept])
        for job in self._kept:
            job.error = job.error or ResourceError("the state was closed while its database was away")
        self._answer(self._kept)
        self._let_go()

    def _next_batch(self) -> tuple[list[Job], bool]:
        """Kept jobs go first. With any of them the wait for more is short."""
        batch, self._kept = self._kept, []
        try:
            job = self._queue.get(timeout=RETRY_S) if batch else self._queue.get()
        except queue.Empty:
            return batch, True
        while job is not None:
            batch.append(job)
            if len(batch) >= BATCH_MAX:
                return batch, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run_batch(self, batch: list[Job]) -> None:
        """Until it is committed, or the database has been away for too long."""
        if self._stopped is not None:
            raise StoreStoppedError(f"the ledger stopped: {self._stopped}; restart this process")
        jobs = [job for job in batch if job.run is not None or isinstance(job, Together)]
        self._run_jobs(jobs)
        if self._kept:  # who only asks for what was submitted before to be done
            self._kept += [job for job in batch if job.run is None]

    def _run_jobs(self, jobs: list[Job]) -> None:
        while jobs:
            began = time.monotonic()
            for job in jobs:
                job.result, job.error = None, None
            try:
                if isinstance(jobs[0], Together):
                    self._run_together([job for job in jobs if isinstance(job, Together)])
                else:
                    self._transact(jobs)
                self._away_since = None
                return
            except psycopg.Error as exc:
                if isinstance(exc, _OWN):
                    raise
                self._let_go()
                self._away_since = self._away_since or began
                if time.monotonic() >= self._away_since + AWAY_S:
                    self._keep_what_is_essential(jobs, exc)
                    return
                self._tell(exc, "trying again")
                time.sleep(RETRY_S)

    def _keep_what_is_essential(self, jobs: list[Job], exc: psycopg.Error) -> None:
        for job in jobs:
            if job.essential and not self._closed:
                self._kept.append(job)
            else:
                job.error = unreachable(self._url, exc)
                job.error.__cause__ = exc
        if self._kept:
            self._tell(exc, f"{len(self._kept)} lines, ends of turns and sends are kept until it is back")

    def _tell(self, exc: psycopg.Error, what_now: str) -> None:
        """Not more often than is of use to anybody."""
        if time.monotonic() - self._told_mono >= TELL_EVERY_S:
            self._told_mono = time.monotonic()
            log.error("%s; %s", unreachable(self._url, exc), what_now)

    def _run_together(self, jobs: list[Together]) -> None:
        """One statement, which is a transaction by itself.

        Raises: psycopg.Error: it is unknown whether it was committed, and doing it again is right.
        """
        asked = [job.one for job in jobs]
        try:
            rows = self._connection().execute(jobs[0].statement.encode(), (Jsonb(asked),)).fetchall()
        except _OWN as exc:
            for job in jobs:
                job.error = exc
            return
        for row in rows:
            jobs[row["at"] - 1].result = jobs[row["at"] - 1].take(row)
        self._faults("ledger.after_commit")
        self._count(jobs, beside=True)

    def _count(self, jobs: Sequence[Job], *, beside: bool) -> None:
        if isinstance(self._raw, Patient):
            self.figures.round_trips += self._raw.round_trips
            self._raw.round_trips = 0
        self.figures.jobs += len(jobs)
        self.figures.commits += 1
        self.figures.beside += beside

    def _transact(self, jobs: list[Job]) -> None:
        """One transaction for all. Each job's own error is on the job.

        Raises: psycopg.Error: nothing was committed.
        """
        raw = self._connection()
        conn = LedgerConnection(raw)
        beside = all(job.beside for job in jobs)
        begun = raw.execute(self._begin[beside, getattr(raw, "pooled", False)])
        while begun.nextset():
            pass  # to the last of its answers
        named = begun.fetchone()
        assert named is not None
        for job in jobs:
            self._run_one(raw, conn, job, alone=len(jobs) == 1)
        if len(jobs) == 1 and jobs[0].error is not None:
            raw.execute("rollback")
            return
        self._faults("ledger.before_commit")
        self._commit(raw, named[1])
        self._faults("ledger.after_commit")
        self._count(jobs, beside=beside)

    def _run_one(self, raw: psycopg.Connection[Any], conn: LedgerConnection, job: Job, *, alone: bool) -> None:
        assert job.run is not None
        if not alone:
            raw.execute("savepoint job")
        try:
            job.result = job.run(conn)
        except psycopg.Error as exc:
            if not isinstance(exc, _OWN):
                raise
            job.error = exc
        except Exception as exc:  # noqa: BLE001  # the job's own error, handed to whoever waits for it
            job.error = exc
        if not alone:
            raw.execute("rollback to job" if job.error is not None else "release job")

    def _commit(self, raw: psycopg.Connection[Any], number: str) -> None:
        """Raises psycopg.OperationalError: it has not happened."""
        try:
            if raw.execute("commit").statusmessage != "COMMIT":  # a statement had failed, and nobody has said so
                raise ResourceError("the database has rolled a transaction back at its end; nothing was recorded")
        except psycopg.OperationalError as lost:
            if not self._has_committed(number, lost):
                raise

    def _has_committed(self, number: str, lost: psycopg.OperationalError) -> bool:
        """The answer to a commit was lost: ask by its number, for as long as it takes to know. What others want
        meanwhile is refused or kept, as while the database is away.

        Raises: ResourceError: the database has stayed away, or no longer knows, or this node closes.
        """
        self._let_go()
        began = time.monotonic()
        while time.monotonic() < began + (AWAY_S if self._closed else UNSURE_S):
            if time.monotonic() >= began + AWAY_S:
                self._see_to_who_waits(lost)
            try:
                row = self._connection().execute("select pg_xact_status(%s::xid8)", (number,)).fetchone()
            except psycopg.OperationalError:
                self._let_go()
                time.sleep(RETRY_S)
                continue
            if row is not None and row[0] in ("committed", "aborted"):
                return row[0] == "committed"
            time.sleep(RETRY_S)
        raise ResourceError("the database went away during a commit and has not come back: unknown what was recorded; "
                            "restart this process") from lost  # fmt: skip

    def _see_to_who_waits(self, lost: psycopg.OperationalError) -> None:
        waiting: list[Job] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._queue.put(job)  # this node closes
                break
            waiting.append(job)
        before = len(self._kept)
        self._keep_what_is_essential(waiting, lost)
        kept = self._kept[before:]
        self._answer([job for job in waiting if job not in kept])

    def _connection(self) -> psycopg.Connection[Any]:
        if self._raw is None or self._raw.closed:
            self._raw = self._connect(self._url, "writer", may_be_pooled=True)
            self.figures.reconnects += 1
        return self._raw

    def _let_go(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    @staticmethod
    def _answer(batch: list[Job]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        for job in batch:
            if job.waiting is not None:
                by_loop.setdefault(job.waiting[0], []).append(job)
            elif job.done is not None:
                job.done.set()
            elif job.error is not None and not isinstance(job.error, HoldfastError):
                log.error("ledger note failed: %r", job.error)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, jobs)
            except RuntimeError:  # the loop is closed: nobody waits any more
                log.debug("a loop closed before its ledger answers came")


def _in_parts(batch: list[Job]) -> list[list[Job]]:
    """One transaction, alone if one of its jobs has to be, and then the claims: they see what was submitted before."""
    together: list[Job] = [job for job in batch if isinstance(job, Together)]
    rest = [job for job in batch if not isinstance(job, Together)]
    return [part for part in (rest, together) if part]


def _deliver(jobs: list[Job]) -> None:
    for job in jobs:
        assert job.waiting is not None
        future = job.waiting[1]
        if job.when_over is not None:
            job.when_over(job)
        if future.done():
            continue
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(job.result)
