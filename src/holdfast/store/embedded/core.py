"""What all parts of the embedded store stand on: the state directory, the ledger, open files, threads and the write
lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import ids
from holdfast.clock import Clock, epoch_ms
from holdfast.errors import (
    CoordinationError,
    OwnershipLostError,
    SessionWriteLockLostError,
    TranscriptFormatError,
)
from holdfast.lane.policy import LaneLimits
from holdfast.recovery.classify import Life
from holdfast.session.key import key_of_stem, validate_key
from holdfast.store.embedded import durable
from holdfast.store.embedded.beats import Beater
from holdfast.store.embedded.bell import Bell
from holdfast.store.embedded.faults import Faults, no_faults
from holdfast.store.embedded.holding import NeedsProofError, TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.owned import OwnedTurn, noted_end
from holdfast.store.embedded.patience import PATIENCE_S
from holdfast.store.embedded.reads import Reads
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.embedded.sentinel import Sentinel, life_by_boot
from holdfast.store.embedded.state_dir import StateDir
from holdfast.store.embedded.sweeping import LockFileSweep
from holdfast.store.embedded.writer import LedgerWriter
from holdfast.store.sql import claims, inbox
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.registering import Registering
from holdfast.store.sql.shielded import shielded
from holdfast.store.sql.tidying import processes_needed
from holdfast.store.sql.watch import BeatWatch

if TYPE_CHECKING:
    from holdfast.store.embedded.openclaw_lock import LockFiles

log = logging.getLogger("holdfast.store")
T = TypeVar("T")
Build = Callable[[str | None], bytes]
PROOFS_MAX = 6


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Numbers of the embedded store (DESIGN §3; the write lock's from semantics.md 2.1).

    Args:
        acquire_timeout_ms: longest wait for the write lock.
        max_hold_ms: a holder of the write lock past this is reported, never robbed.
        beat_s, beat_term_s: how often a turn shows life; how long its beat is watched standing still before it lapses.
        turn_max_s: no turn is renewed for longer.
        disk_patience_s: for how long an append is tried again that the disk refuses for a reason that may pass.
        keep_days: for how long the stories of ended turns are kept; 0: for ever (`sql/tidying.py`).
        lock_files: how OpenClaw's lock file beside each transcript is taken; None: it is not.
        faults: called at named points; for tests (`faults.py`).
        is_left: whether the recovery of a transcript, by its session keys, is left to somebody outside: then its dead
            owner stays until they have closed it (`recovery/watching.py`).
    """

    limits: LaneLimits = field(default_factory=LaneLimits)
    acquire_timeout_ms: int = 60_000
    max_hold_ms: int = 300_000
    beat_s: float = 15.0
    beat_term_s: float = 90.0
    turn_max_s: float = 172_800.0
    disk_patience_s: float = PATIENCE_S
    keep_days: float = 90.0
    kind: str = "library"
    lock_files: LockFiles | None = None
    faults: Faults = no_faults
    is_left: Callable[[Sequence[str]], bool] = lambda _: False


FILES_MAX = 64
"""Transcripts kept open, each with four descriptors, before those that nobody uses are closed again. Programs start
with 256 (macOS) or 1,024 descriptors; opening one again costs about 0.1 ms."""


_SESSION = "select t.id, t.path from sessions s join transcripts t on t.id=s.transcript where s.key=?"


class StoreCore(Registering):
    """One process's hold on a state directory. All methods may be used from any task of one event loop."""

    file_class = TranscriptFile  # what it is made of; a test of the tests makes one with a bug
    writer_class = LedgerWriter

    def __init__(self, state: StateDir, clock: Clock, options: StoreOptions) -> None:
        self.state = state
        self.clock = clock
        self._options = options
        with ExitStack() as if_refused:  # by the disk or a limit: nothing of this process is left behind
            self.sentinel = Sentinel(state.processes)
            if_refused.callback(self.sentinel.close)
            self._writer = self.writer_class(
                state.path,
                state.store_id,
                options.faults,
                lock_timeout_ms=options.acquire_timeout_ms,
                connection=state.ledger,
            )
            if_refused.callback(self.writer.close)
            self._reads = Reads(state.path)
            self.beater = Beater(clock, options.beat_s)
            self.watch = BeatWatch(clock, options.beat_term_s)
            self.findings = list(state.findings)
            self.slot_freed = asyncio.Event()
            self.bell = Bell(state.path / "bells", self.sentinel.name)
            self._coarse = here().has_coarse_clock(state.fence)
            self._files: dict[str, TranscriptFile] = {}
            self._told_of_waits: Callable[[float], object] | None = None
            self._closed = False
            self._known = {}
            self._paths: dict[str, str] = {}  # of transcripts just found, which are about to be opened
            self._pool = here().pool(32, "holdfast-store")
            self._register()
            self._lock_files = LockFileSweep(state.sessions, options.lock_files, options.faults)
            self._lock_files.sweep()  # as OpenClaw does at its start
            if self.findings:
                self._list_again()
            if_refused.pop_all()

    @property
    def options(self) -> StoreOptions:
        return self._options

    @property
    def writer(self) -> LedgerWriter:
        return self._writer

    @property
    def reads(self) -> Reads:
        return self._reads

    @property
    def store_id(self) -> str:
        return self.state.store_id

    @property
    def process(self) -> str:
        return self.sentinel.name

    @property
    def location(self) -> str:
        return str(self.state.path)

    @property
    def stopped(self) -> bool:
        return self.writer.stopped

    def use_limits(self, limits: LaneLimits) -> None:
        self._options = replace(self._options, limits=limits)

    def raise_if_stopped(self) -> None:
        self.writer.raise_if_stopped()

    def now_ms(self) -> int:
        return epoch_ms(self.clock.now())

    def _register(self) -> None:
        """Note this process; the first one to open makes what it sees durable before acting on it."""
        others = {
            name: self.sentinel.life_of(name) for name in os.listdir(self.state.processes) if name != self.process
        }
        alone = "alive" not in others.values()
        dead = {name for name, life in others.items() if life == "dead"}
        row = (self.process, self.sentinel.pid, self.options.kind, self.now_ms(), boot_id())

        def run(conn: Connection) -> set[str]:
            newest = conn.execute("select boot from processes order by rowid desc limit 1").fetchone()
            conn.execute("insert into processes(name, pid, kind, started_at_ms, boot) values(?,?,?,?,?)", row)
            if alone and newest is not None and newest["boot"] != boot_id():
                inbox.note_that_they_may_have_run(conn)
            return processes_needed(conn) if dead else set()

        needed = self.writer.run_here(Job(run, durable=alone))
        self._tidy_sentinels(dead - needed)

    def _list_again(self) -> None:
        """The ledger was begun anew: conversations that are there are listed again, under the keys that can be read off
        their names. The others are found when somebody speaks in them: their names follow from their keys.
        """
        paths = [path for path in sorted(self.state.sessions.glob("*/*.jsonl")) if ".kept-" not in path.name]
        named = [(key_of_stem(path.stem), path) for path in paths if path.is_file() and not path.is_symlink()]
        keys = [key for key, path in named if key is not None and self.state.transcript_path(key) == path]
        now_ms = self.now_ms()

        def run(conn: Connection) -> None:
            for key in keys:
                self.register_session(conn, key, now_ms)

        self.writer.run_here(Job(run, durable=True))
        told = f"the sessions were listed again from their transcripts: {len(keys)} of {len(paths)} files"
        if len(keys) < len(paths):
            told += "; the others are found once somebody speaks in them"
        self.findings.append(told)
        for finding in self.findings:
            log.error("%s: %s", self.state.path, finding)

    def life_in(self, conn: Connection, process: str) -> Life:
        """Whether a process lives. Death is told by its sentinel, or by a boot that is over (sentinels are not synced
        and may be gone after a power loss).
        """
        life = self.sentinel.life_of(process)
        return life if life != "unknown" else life_by_boot(conn, process)

    async def sweep_lock_files(self) -> int:
        """Remove what dead writers of another program have left beside transcripts; how many files that were."""
        if self.options.lock_files is None:
            return 0
        return await self.in_thread(self._lock_files.sweep)

    def _tidy_sentinels(self, dead: set[str]) -> None:
        """Remove sentinels of processes that were dead before the ledger was asked what they own: nothing. Else each
        opening of a state that is never left alone would probe all who ever died there.
        """
        for name in dead:
            (self.state.processes / name).unlink(missing_ok=True)

    async def close(self) -> None:
        """Finish the ledger's work and let go of everything. Turns and sends still open in this process are lost; its
        sentinel then stays, unlocked, so that others see at once that it is dead. A second time does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self.beater.close()
        self.bell.close()
        leaves_something_open = Job(lambda conn: self.process in processes_needed(conn))
        await self.in_thread(self.writer.close, leaves_something_open)
        self.reads.close()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._pool.shutdown(wait=False)
        # Not answered: the ledger has stopped, or a forked child closes; then nobody knows, and it stays.
        self.sentinel.close(keep=leaves_something_open.result is not False)

    def tell_of_free_slot(self) -> None:
        """Wake whoever waits for a slot, here and in other processes."""
        self.slot_freed.set()
        self.bell.ring()

    def hear_of_free_slots(self, wake: Callable[[], object]) -> AbstractContextManager[None]:
        """Within it `wake` is called when another process has freed a slot; see `Bell.heard_by`."""
        return self.bell.heard_by(wake)

    @contextmanager
    def hear_of_lock_waits(self, told: Callable[[float], object]) -> Iterator[None]:
        before, self._told_of_waits = self._told_of_waits, told
        try:
            yield
        finally:
            self._told_of_waits = before

    # ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def transcript_of(self, key: str) -> str:
        """The transcript id behind a session key; registers the key if it is new."""
        known = self._known.get(key)
        if known is not None:
            return known
        validate_key(key)
        look = Job(lambda conn: conn.execute(_SESSION, (key,)).fetchone())
        if self.writer.run_at_once(look) and look.result is not None:
            transcript, self._paths[look.result[0]] = look.result
        else:
            now_ms = self.now_ms()
            transcript = await self.writer.submit(Job(lambda conn: self.register_session(conn, key, now_ms)))
        self._known[key] = transcript
        return transcript

    def own_transcript(self, conn: Connection, key: str) -> str:
        path = self.state.canonical(self.state.transcript_path(key))
        transcript = self.find_by_file(conn, path)
        if transcript is None:
            transcript = ids.new_id("t")
            conn.execute(
                "insert into transcripts(id, path, boot) values(?,?,?)",
                (
                    transcript,
                    str(path.relative_to(os.path.realpath(self.state.path))),
                    "" if path.exists() else boot_id(),
                ),
            )
        return transcript

    def find_by_file(self, conn: Connection, path: Path) -> str | None:
        """A path whose device and inode are already registered names the same transcript (links, second keys)."""
        relative = str(path.relative_to(os.path.realpath(self.state.path)))
        row = conn.execute("select id from transcripts where path=?", (relative,)).fetchone()
        if row is not None or not path.exists():
            return row[0] if row else None
        here = os.stat(path)
        for other in conn.execute("select id, path from transcripts"):
            try:
                there = os.stat(self.state.path / other["path"])
            except OSError:
                continue
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                return other["id"]
        return None

    async def file_of(self, transcript: str) -> TranscriptFile:
        """The open file of a transcript, one object per process. It is closed when others are wanted: whoever awaits
        anything while using it counts among its `users` (see `in_use`).
        """
        file = self._files.pop(transcript, None)
        if file is None:
            relative = self._paths.pop(transcript, None) or await self.reads.transcript_path(transcript)
            file = self._files.pop(transcript, None)
            if file is None:
                self._close_idle_files()
                file = self.open_file(transcript, self.state.path / relative)
        self._files[transcript] = file  # the latest used stands last
        return file

    def _close_idle_files(self) -> None:
        """Keep at most `FILES_MAX` open, or as many as are in use at this moment; the longest unused go first."""
        surplus = len(self._files) - FILES_MAX + 1
        for transcript in list(self._files) if surplus > 0 else ():
            file = self._files[transcript]
            if file.users == 0:
                del self._files[transcript]
                file.close()
                surplus -= 1
                if surplus == 0:
                    return

    def in_use(self, file: TranscriptFile, work: asyncio.Future[T]) -> asyncio.Future[T]:
        """`work`, during which `file` stays open, whoever may have stopped waiting for it."""

        def done(_: asyncio.Future[T]) -> None:
            file.users -= 1

        file.users += 1
        work.add_done_callback(done)
        return work

    def open_file(self, transcript: str, path: Path) -> TranscriptFile:
        if not path.parent.exists():
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as exc:  # somebody has put something else in its place
                raise TranscriptFormatError(f"{path.parent} cannot be a folder ({exc.strerror}); move it away") from exc
            durable.sync_folder(path.parent.parent)
        file = self.file_class(transcript, path, self.state.fence, self.process)
        file.coarse_clock = self._coarse
        file.max_hold_ms = self.options.max_hold_ms
        file.faults = self.options.faults
        if self.options.lock_files is not None:
            from holdfast.store.embedded.openclaw_lock import OpenClawLock

            file.beside = OpenClawLock(path, self.options.lock_files, self.options.faults)
        file.ledger_epoch = lambda: self._ask_on_thread(lambda conn: claims.owner_of(conn, transcript))
        file.ledger_noted = lambda turn: self._ask_on_thread(lambda conn: noted_end(conn, turn))
        return file

    def _ask_on_thread(self, question: Callable[[Connection], T]) -> T:
        """Ask the ledger with the write lock held. It may be busy for a while: an event loop goes to a thread."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.writer.submit_blocking(Job(question))
        raise NeedsProofError

    # ── the write lock ───────────────────────────────────────────────────────────────────────────────────────────────

    async def with_lock(self, file: TranscriptFile, act: Callable[[Any], T], owned: OwnedTurn | None) -> T:
        """Run `act` holding the write lock: at once on this loop if it is free, else on a thread that waits."""
        self.refuse_if_forked()
        if file.try_hold():
            try:
                return act(None)
            except (NeedsProofError, SessionWriteLockLostError):
                pass
            finally:
                file.release()
        return await self.in_thread_with(file, self.with_lock_blocking, file, act, owned)

    def with_lock_blocking(self, file: TranscriptFile, act: Callable[[Any], T], owned: OwnedTurn | None) -> T:
        proof = None
        for attempt in range(PROOFS_MAX):
            with self.holding(file):
                try:
                    if attempt == PROOFS_MAX - 1 and owned is not None:  # with everybody else waiting for us
                        proof = file.prove(file.look() or owned.claim.record)
                    return act(proof)
                except NeedsProofError:
                    rec = file.look()
                except SessionWriteLockLostError:
                    if attempt == PROOFS_MAX - 1:
                        raise
                    rec = None
            proof = file.prove(rec) if rec is not None else None
        raise CoordinationError(f"{file.path} changed {PROOFS_MAX} times while it was being read; try again")

    def hold_blocking(self, file: TranscriptFile, timeout_ms: int | None = None) -> None:
        """Take a write lock on a thread that may block. `timeout_ms`: None: as the options say. Raises: as the file."""
        told, began_mono = self._told_of_waits, self.clock.mono()
        try:
            file.hold_blocking(timeout_ms or self.options.acquire_timeout_ms)
        finally:
            if told is not None:
                told(self.clock.mono() - began_mono)

    @contextmanager
    def holding(self, file: TranscriptFile) -> Iterator[None]:
        self.hold_blocking(file)
        try:
            yield
        finally:
            file.release()

    def refuse_if_forked(self) -> None:
        if not self.sentinel.is_ours():
            raise OwnershipLostError("this process was forked from the one that owns the turn; it owns nothing")

    async def submit_holding(self, file: TranscriptFile, job: Job, timeout_ms: int | None = None) -> Any:
        """Take the write lock on a thread, then submit a job whose `finish` lets it go. Cancelled: the job still
        runs. `timeout_ms`: None: as the options say.
        """

        async def act() -> Any:
            await self.in_thread(self.hold_blocking, file, timeout_ms)
            return await self.writer.submit(job)

        return await shielded(self.in_use(file, asyncio.ensure_future(act())))

    async def in_thread_with(self, file: TranscriptFile, act: Callable[..., T], *args: Any) -> T:
        """As `in_thread`, for work on an open file: it stays open until the work has ended."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, act, *args)
        return await shielded(self.in_use(file, work))

    async def in_thread(self, act: Callable[..., T], *args: Any) -> T:
        """On a pool thread; if the caller is cancelled the work still ends as if it had not been."""
        loop = asyncio.get_running_loop()
        return await shielded(loop.run_in_executor(self._pool, act, *args))

    def note_events(self, events: list[inbox.StoryLine]) -> None:
        """Story lines for `why`; nobody waits for them."""
        self.writer.post(lambda conn: inbox.note_events(conn, events))
