"""One thread per process writes the ledger: whatever is ready goes into one transaction, one sync for all of it.

A `Job` has up to four parts, all run on this thread unless said otherwise, in this order for the whole batch:

    sync      disk syncs of transcripts that must come before the commit; several fan out over a pool
    prepare   taking transcript write locks, without waiting (lock order: transcript, then ledger)
    run       SQL, in a savepoint of its own: a job that fails takes nothing with it and breaks nobody else's
    finish    after the commit (or failure): fence records, unlocking

The commit is FULL if any job of the batch asks for durability, else NORMAL (about 30 µs, survives SIGKILL but not power
loss; the next FULL commit makes it durable too). A `flock` around the transaction keeps processes fair: SQLite's own
busy handler starves writers for seconds (platform notes: 3.0 s against 1.8 ms at p99).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import queue
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, OwnershipLostError, ResourceError, StoreStoppedError
from holdfast.store.embedded import durable as disk
from holdfast.store.embedded import schema
from holdfast.store.embedded.faults import Faults, no_faults
from holdfast.store.embedded.kernel_lock import KernelLock, describe_holder
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.sections import sections
from holdfast.store.sql.ledger import Job, Run

BATCH_MAX = 128
RESERVE_BYTES = 64 * 1024
LOG_BYTES_MAX = 4 * 1024 * 1024
"""SQLite's write-ahead log is folded into the ledger when it has grown to this."""
LOG_LOOK_EVERY = 64
log = logging.getLogger("holdfast.ledger")


class _JobFailedError(Exception):
    """The only job of a transaction failed by itself; its error is the cause (internal)."""


@dataclass(slots=True)
class WriterFigures:
    """For metrics and for the test that counts the syncs of a turn."""

    jobs: int = 0
    commits: int = 0
    durable_commits: int = 0
    batches_of: dict[int, int] = field(default_factory=dict)


class LedgerWriter:
    """The ledger's writing connection and its thread. Safe to call from any thread and loop of this process."""

    def __init__(
        self,
        folder: Path,
        store_id: str,
        faults: Faults = no_faults,
        *,
        lock_timeout_ms: int = 60_000,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        self._path = folder / schema.LEDGER_NAME
        self._faults = faults
        self._path_text = str(self._path)  # asked about before each transaction
        self._reserve = folder / schema.RESERVE_NAME
        self._machine = machine = here()
        self._lock_fd = machine.open(
            folder / "ledger.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._lock = KernelLock(self._lock_fd)
        self._lock_timeout_ms = lock_timeout_ms
        self.figures = WriterFigures()
        self._queue = machine.queue()
        self._stopped: BaseException | None = None
        self._full_sync = True
        self._turn = machine.mutex()  # whose thread uses the connection
        self._pool = machine.pool(16, "holdfast-sync")
        try:
            self._connection = self._connect(store_id, connection)
        except BaseException:
            self._lock.close()
            machine.close(self._lock_fd)
            raise
        self._inode = os.stat(self._path).st_ino
        self._fill_reserve()
        self._pid = os.getpid()
        self._closed = False
        self._start = threading.Lock()
        self._started = False
        self._at_work = False  # whether the thread has a batch in hand
        self._thread = machine.thread(self._run_forever, "holdfast-ledger")

    def _connect(self, store_id: str, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if not self._lock.acquire(self._lock_timeout_ms / 1000):
            raise self._locked()
        try:
            if connection is None:
                self._make_file(store_id)
                connection = schema.connect(self._path)
            schema.create_or_check(connection, store_id)
        except (OSError, sqlite3.DatabaseError) as exc:
            raise ResourceError(f"cannot open ledger {self._path}: {exc}") from exc
        finally:
            self._lock.release()
        return connection

    def _make_file(self, store_id: str) -> None:
        """With our mode, whole or not at all, if it is not there. One that is there is left to SQLite: closing a
        descriptor of it would let go of the locks that other connections of this process hold on it.
        """
        if os.path.islink(self._path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if self._path.exists():
            return
        draft = self._path.with_name("ledger.new")  # nobody else makes one: we hold the lock of the ledger
        draft.unlink(missing_ok=True)
        fd = self._machine.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            disk.write_all(fd, schema.new_ledger(store_id))
            disk.sync_data(fd)
        finally:
            self._machine.close(fd)
        os.rename(draft, self._path)
        disk.sync_folder(self._path.parent)

    def _locked(self) -> ResourceError:
        return ResourceError(
            f"ledger {self._path} locked (timeout {self._lock_timeout_ms}ms): {describe_holder(self._lock_fd)}; "
            "if that process is stopped, continue it (kill -CONT) or end it, then try again"
        )

    # ── for callers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue one job; await what it returns. Cancelled: the job runs all the same; nobody hears of its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        job.waiting = (loop, future)
        self._put(job)
        return future

    def run_at_once(self, job: Job) -> bool:
        """Run a job that asks for no sync on this very thread, if nobody uses the ledger at this instant.

        Saves two thread hops (about 150 µs). Returns False, with nothing done, if it has to be submitted instead. The
        job's result or error is on the job.
        """
        if (
            self._closed
            or self._stopped is not None
            or os.getpid() != self._pid
            or not self._turn.acquire(blocking=False)
        ):
            return False
        try:
            if not self._queue.empty() or not self._lock.try_acquire():
                return False
            try:
                self._run_batch([job], locked=True)
            finally:
                self._lock.release()
            return True
        finally:
            self._turn.release()

    def run_here(self, job: Job) -> Any:
        """Run a job on this very thread, syncs included: for opening, when nobody else uses the ledger yet.

        Raises: what the job raises.
        """
        with self._turn:
            self._run_batch([job])
        if job.error is not None:
            raise job.error
        return job.result

    def submit_blocking(self, job: Job) -> Any:
        """The same for a thread that may wait. Never call it from the ledger's own thread."""
        job.done = done = self._machine.event()
        self._put(job)
        done.wait()
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def is_idle(self) -> bool:
        """Whether what is submitted now would be begun at once. Only a hint: others may submit too."""
        return not self._at_work and self._queue.empty()

    def post(self, run: Run) -> None:
        """Run without telling anybody: notes for people that no promise rests on. Errors are logged."""
        if self._stopped is None and not self._closed:
            self._put(Job(run))

    def close(self, last: Job | None = None) -> None:
        """Finish what is queued, then close; what is submitted afterwards is refused. Safe to call twice.

        Args:
            last: runs behind everything else, so that nothing can happen after what it sees.
        """
        with self._start:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            if last is not None:
                self._queue.put(last)
            self._queue.put(None)
        if self._started:
            self._thread.join()
        else:
            self._run_forever()  # no job ever needed the thread
        self._pool.shutdown(wait=False)

    @property
    def stopped(self) -> bool:
        return self._stopped is not None or self._closed

    def raise_if_stopped(self) -> None:
        """Raises StoreStoppedError once nothing can be recorded in this process any more."""
        if self._stopped is not None:
            raise StoreStoppedError(f"the ledger stopped: {self._stopped}; restart this process") from self._stopped
        if self._closed:
            raise StoreStoppedError("the state was closed in this process; open it again")

    def _put(self, job: Job) -> None:
        if os.getpid() != self._pid:
            raise OwnershipLostError("this process was forked from the one that opened the state; open it again")
        with self._start:
            self.raise_if_stopped()
            self._queue.put(job)
            self._start_thread()

    def _start_thread(self) -> None:
        if not self._started:
            self._started = True
            self._thread.start()  # not before it is needed: opening a state waits for no thread

    def make_ready(self) -> None:
        """For whoever is going to wait, and will be in a hurry then: the thread is there already."""
        with self._start:
            if not self._closed and os.getpid() == self._pid:
                self._start_thread()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run_forever(self) -> None:
        going = True
        while going:
            self._at_work = False
            batch, going = self._next_batch()
            self._at_work = True
            if batch:
                try:
                    with self._turn:
                        self._run_batch(batch)
                except BaseException as exc:
                    for job in batch:
                        job.error = job.error or exc
                    self._stopped = exc
                    log.exception("the ledger writer failed; this process stops writing")
                self._answer(batch)
                self._fold_log_if_long()
        self._connection.close()
        self._lock.close()
        self._machine.close(self._lock_fd)

    def _fold_log_if_long(self) -> None:
        """Checkpoint, on this thread and after everybody has been answered. Takes no lock that a writer needs."""
        if self.figures.commits % LOG_LOOK_EVERY or self._stopped is not None:
            return
        try:
            if os.stat(f"{self._path_text}-wal").st_size > LOG_BYTES_MAX:
                with self._turn:
                    self._connection.execute("pragma wal_checkpoint(passive)")
        except (OSError, sqlite3.OperationalError) as exc:
            log.warning("the ledger's log could not be folded in yet: %s", exc)

    def _next_batch(self) -> tuple[list[Job], bool]:
        first = self._queue.get()
        batch: list[Job] = []
        job: Job | None = first
        while job is not None:
            batch.append(job)
            if len(batch) >= BATCH_MAX:
                return batch, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run_batch(self, batch: list[Job], *, locked: bool = False) -> None:
        if self._stopped is not None:
            raise StoreStoppedError(f"the ledger stopped: {self._stopped}; restart this process")
        self._sync_first([job for job in batch if job.sync is not None])
        for job in batch:
            if job.error is None and job.prepare is not None:
                try:
                    job.prepare()
                    job.prepared = True
                except Exception as exc:  # noqa: BLE001  # the job's own error, handed to whoever waits for it
                    job.error = exc
        ready = [job for job in batch if job.error is None and job.run is not None]
        committed = False
        try:
            if ready:
                committed = self._transact(ready, locked)
        finally:
            for job in batch:
                if job.prepared and job.finish is not None:
                    self._finish(job, committed)

    @staticmethod
    def _finish(job: Job, committed: bool) -> None:
        assert job.finish is not None
        try:
            job.result = job.finish(committed and job.error is None, job.result)
        except Exception as exc:  # noqa: BLE001  # the job's own error, handed to whoever waits for it
            job.error = job.error or exc

    def _sync_first(self, jobs: list[Job]) -> None:
        def one(job: Job) -> None:
            assert job.sync is not None
            try:
                job.sync()
            except Exception as exc:  # noqa: BLE001  # the job's own error, handed to whoever waits for it
                job.error = exc

        if len(jobs) == 1:
            one(jobs[0])  # a hop would cost more than it hides
        elif jobs:
            list(self._pool.map(one, jobs))  # syncs of separate files share the journal's commit

    def _transact(self, jobs: list[Job], locked: bool) -> bool:
        """One transaction for all. Returns whether it committed; each job's own error is on the job.

        `locked`: the caller holds the lock already.
        """
        if locked:
            return self._transact_locked(jobs)
        if not self._lock.acquire(self._lock_timeout_ms / 1000):
            for job in jobs:
                job.error = self._locked()
            return False
        try:
            return self._transact_locked(jobs)
        finally:
            self._lock.release()

    def _transact_locked(self, jobs: list[Job]) -> bool:
        try:
            return self._transact_once(jobs)
        except _JobFailedError as failed:
            jobs[0].error = failed.__cause__
            return False
        except sqlite3.DatabaseError as exc:
            if "full" not in str(exc) or not any(job.essential for job in jobs) or not self._give_reserve_back():
                self._fail(jobs, exc)
                return False
        try:
            return self._transact_once([job for job in jobs if job.error is None])
        except sqlite3.DatabaseError as exc:
            self._fail(jobs, exc)
            return False

    def _transact_once(self, jobs: list[Job]) -> bool:
        full = any(job.durable for job in jobs)
        self._check_not_replaced()
        self._sync_commits(full)
        sections.enter()
        try:
            self._connection.execute("begin immediate")
            try:
                if len(jobs) == 1:
                    self._run_alone(jobs[0])
                else:
                    for job in jobs:
                        self._run_in_savepoint(job)
                self._faults("ledger.before_commit")
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        finally:
            sections.leave()
        self._faults("ledger.after_commit")
        figures = self.figures
        figures.jobs += len(jobs)
        figures.commits += 1
        figures.durable_commits += full
        figures.batches_of[len(jobs)] = figures.batches_of.get(len(jobs), 0) + 1
        return True

    def _sync_commits(self, full: bool) -> None:
        """Whether commits from now on wait for the disk."""
        if full != self._full_sync:
            self._connection.execute(f"pragma synchronous={'full' if full else 'normal'}")
            self._full_sync = full

    def _run_alone(self, job: Job) -> None:
        """The only job of a transaction needs no savepoint: if it fails, the transaction is rolled back."""
        try:
            job.result = job.run(self._connection) if job.run is not None else None
        except sqlite3.DatabaseError as exc:
            if not _is_the_jobs_own(exc):
                raise
            raise _JobFailedError from exc
        except Exception as exc:
            raise _JobFailedError from exc

    def _run_in_savepoint(self, job: Job) -> None:
        self._connection.execute("savepoint job")
        try:
            job.result = job.run(self._connection) if job.run is not None else None
        except sqlite3.DatabaseError as exc:
            if not _is_the_jobs_own(exc):
                raise  # the disk or the file: concerns the whole batch
            self._connection.execute("rollback to job")
            job.error = exc
        except Exception as exc:  # noqa: BLE001  # the job's own error, handed to whoever waits for it
            self._connection.execute("rollback to job")
            job.error = exc
        self._connection.execute("release job")

    def _fail(self, jobs: list[Job], exc: sqlite3.DatabaseError) -> None:
        """A full disk fails the batch and life goes on; anything else about the file ends this process's writing."""
        if "full" in str(exc):
            exc.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what callers know it by (HTTP: 507)
        for job in jobs:
            if job.error is None:
                job.error = ResourceError(f"ledger {self._path}: {exc}; nothing of this was recorded")
                job.error.__cause__ = exc
        if "full" not in str(exc) and "locked" not in str(exc):
            self._stopped = exc

    def _check_not_replaced(self) -> None:
        try:
            inode = os.stat(self._path_text).st_ino
        except FileNotFoundError:
            inode = -1
        if inode != self._inode:
            self._stopped = StoreStoppedError(
                f"ledger {self._path} was replaced or removed under this process; restart it (see `holdfast recover`)"
            )
            raise self._stopped

    # ── the reserve ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _fill_reserve(self) -> None:
        """Keep 64 KiB of the disk for the explanation of why it is full. Best effort: without it we explain less."""
        try:
            fd = os.open(self._reserve, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            log.warning("no reserve for a full disk at %s: %s", self._reserve, exc)
            return
        try:
            if os.fstat(fd).st_size < RESERVE_BYTES:
                disk.write_all(fd, b"\0" * RESERVE_BYTES)
        except OSError as exc:
            log.warning("no reserve for a full disk at %s: %s", self._reserve, exc)
        finally:
            os.close(fd)

    def _give_reserve_back(self) -> bool:
        try:
            if self._reserve.stat().st_size == 0:
                return False
            os.truncate(self._reserve, 0)
        except OSError:
            return False
        log.error("disk full: used the reserve at %s to record why; free some space and restart", self._reserve)
        return True

    # ── answering ────────────────────────────────────────────────────────────────────────────────────────────────────

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


def _is_the_jobs_own(exc: sqlite3.DatabaseError) -> bool:
    """Whether the statement was at fault, and not the disk or the file, which concern everybody."""
    return isinstance(exc, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError)


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
