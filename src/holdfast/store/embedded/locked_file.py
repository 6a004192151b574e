"""An open transcript with its write lock, its record and its waiting room: taking, following the path, letting go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast.clock import SystemClock
from holdfast.errors import (
    ResourceError,
    SessionWriteLockLostError,
    SessionWriteLockTimeoutError,
    TranscriptFormatError,
)
from holdfast.session.fence import Epoch, Fingerprint
from holdfast.store.embedded.faults import Faults, no_faults
from holdfast.store.embedded.kernel_lock import KernelLock, describe_process
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.record_file import RecordFile
from holdfast.store.embedded.sections import sections
from holdfast.store.embedded.transcript_bytes import open_lock_file, open_transcript

if TYPE_CHECKING:
    from holdfast.store.embedded.openclaw_lock import OpenClawLock

log = logging.getLogger("holdfast.store")
WAIT_TOLD_MS = 2000
"""A wait for the write lock is told in the log once it has lasted this long: an append takes about a millisecond."""


class Reached(NamedTuple):
    """An end of the file and the chain digest there: what is durable, or what somebody has noted."""

    end: int
    link: bytes


class LockedFile:
    """A transcript as this process has it open, and its write lock. Shared by all its tasks and threads."""

    def __init__(self, transcript_id: str, path: Path, fence_folder: Path, process: str) -> None:
        self.id = transcript_id
        self.path = path
        self.process = process
        self.machine = machine = here()
        with ExitStack() as if_refused:  # the transcript first: what is no transcript gets no lock files
            self.fd = open_transcript(path)
            if_refused.callback(machine.close, self.fd)
            self._gate_fd = open_lock_file(fence_folder / f"{transcript_id}.gate")
            if_refused.callback(machine.close, self._gate_fd)
            self._line_fd = open_lock_file(fence_folder / f"{transcript_id}.line")
            if_refused.callback(machine.close, self._line_fd)
            self.record = RecordFile(fence_folder / transcript_id)
            if_refused.pop_all()
        self.line = KernelLock(self._line_fd)
        self.lock = KernelLock(self.fd, self._gate_fd)
        at = os.fstat(self.fd)
        self._open_file = (at.st_dev, at.st_ino)
        self._path_text = str(path)  # asked about in each holding
        self.users = 0  # turns and background work that need this object to stay open
        self.seen: Fingerprint | None = None  # what the path named when the lock was granted; None: no file of ours
        self.gone = ""  # then: what became of it, in words
        self.failed: OSError | None = None
        self.ledger_epoch: Callable[[], Epoch | None] = lambda: None
        self.ledger_noted: Callable[[str], Reached | None] = lambda _turn: None
        self.coarse_clock = False
        self.max_hold_ms = 300_000
        self.faults: Faults = no_faults
        self.beside: OpenClawLock | None = None  # another program's lock, taken after ours and released before it

    # ── the write lock ───────────────────────────────────────────────────────────────────────────────────────────────

    def try_hold(self) -> bool:
        """Take the write lock without waiting; False if anybody holds it or stands in line, or if another program's
        lock file is in the way, stale or not.
        """
        sections.enter()
        held = False
        try:
            held = self.lock.try_acquire() and self._settle_into_lock()
            return held
        finally:
            if not held:
                sections.leave()

    def hold_blocking(self, timeout_ms: int) -> None:
        """Take the write lock, on a thread that may block.

        Raises:
            SessionWriteLockTimeoutError: names the holder; nothing was written and no place in line is left behind.
        """
        began_mono = SystemClock().mono() if self.beside is not None else 0.0
        for _ in range(8):
            if not self._acquire_reporting(timeout_ms):
                raise SessionWriteLockTimeoutError(str(self.path), timeout_ms, self.describe_holder())
            passed_ms = int((SystemClock().mono() - began_mono) * 1000) if self.beside is not None else 0
            if self._settle_into_lock(max(1, timeout_ms - passed_ms)):
                sections.enter()
                return
        raise SessionWriteLockTimeoutError(str(self.path), timeout_ms, "a file that is replaced again and again")

    def _acquire_reporting(self, timeout_ms: int) -> bool:
        """Wait; that it takes long is told, and a holder past `max_hold_ms` is reported, never robbed."""
        marks = sorted([(WAIT_TOLD_MS, logging.INFO), (self.max_hold_ms, logging.WARNING)])
        told = [(ms / 1000, partial(self._tell_of_wait, ms, level)) for ms, level in marks]
        granted = self.lock.acquire(timeout_ms / 1000, told)
        if not granted and timeout_ms <= self.max_hold_ms:
            self._tell_of_wait(timeout_ms, logging.WARNING)
        return granted

    def _tell_of_wait(self, waited_ms: int, level: int) -> None:
        log.log(level, "write lock of %s: not free after %d ms, held by %s", self.path, waited_ms,
                self.describe_holder())  # fmt: skip

    @contextmanager
    def held(self, timeout_ms: int) -> Iterator[None]:
        self.hold_blocking(timeout_ms)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        self._unlock()
        sections.leave()

    def _unlock(self) -> None:
        if self.beside is not None:
            self.beside.release()
        self.lock.release()

    def describe_holder(self) -> str:
        """Who seems to hold the write lock, in words, for messages only."""
        pid = self.record.holder_pid()
        holder = "holder unknown" if pid is None else describe_process(pid)
        beside = self.beside.describe() if self.beside is not None else ""
        return f"{holder}; {beside}" if beside else holder

    def _settle_into_lock(self, wait_ms: int = 0) -> bool:
        """With the kernel lock just granted: take the lock file that goes with it, then follow the path to the file it
        names now. False: nothing is held, since somebody else holds one of them; asking for the lock again waits.
        """
        try:
            if self.failed is not None:
                raise ResourceError(f"{self.path}: an earlier sync failed ({self.failed}); restart this process")
            settled = (self.beside is None or self._take_beside(self.beside, wait_ms)) and self._follow_path()
            if settled:
                self.record.note_holder()
        except BaseException:
            self._unlock()
            raise
        if not settled:
            self._unlock()
        return settled

    def _take_beside(self, beside: OpenClawLock, wait_ms: int) -> bool:
        """Whoever waits for the lock file holds the kernel lock: others of ours stand in its line, not around the file.

        Raises:
            SessionWriteLockTimeoutError, SessionWriteLockStaleError: it was not to be had within `wait_ms`.
        """
        if beside.try_take():
            return True
        if wait_ms == 0:
            return False
        self.record.note_holder()
        told_ms = min(WAIT_TOLD_MS, wait_ms)
        if beside.take(told_ms / 1000):
            return True
        self._tell_of_wait(told_ms, logging.INFO)
        if wait_ms > told_ms and beside.take((wait_ms - told_ms) / 1000):
            return True
        raise SessionWriteLockTimeoutError(str(self.path), wait_ms, beside.describe() or self.describe_holder())

    def confirm_held(self) -> None:
        """Before the file is written to: OpenClaw takes over the lock file of a process that stood still for too long,
        and is not told of ours.

        Raises:
            SessionWriteLockLostError: it is not ours any more. Nothing was written; begin another holding.
        """
        if self.beside is not None and not self.beside.is_ours():
            raise SessionWriteLockLostError(
                f"{self.path}: our lock file was taken while this process stood still; now: {self.describe_holder()}"
            )

    def _follow_path(self) -> bool:
        try:
            at = os.lstat(self._path_text)
        except (FileNotFoundError, NotADirectoryError):
            self.seen, self.gone = None, "deleted"
            return True
        if (at.st_dev, at.st_ino) != self._open_file:
            try:
                fd = open_transcript(self.path)
            except TranscriptFormatError:
                self.seen, self.gone = None, "replaced by something that is no regular file"
                return True
            return self.turn_to(fd)
        self.seen = Fingerprint(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        return True

    # ── with the lock held ───────────────────────────────────────────────────────────────────────────────────────────

    def turn_to(self, fd: int) -> bool:
        """From now on the transcript is this open file (`fd` is consumed). False: somebody else has its write lock."""
        granted = self.lock.retarget(fd)
        self.seen = self.fingerprint()
        self._open_file = (self.seen.dev, self.seen.ino)
        return granted

    def fingerprint(self) -> Fingerprint:
        """The open file as it is at this moment (`seen` is what the path named when the lock was granted)."""
        at = os.fstat(self.fd)
        return Fingerprint(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)

    def close(self) -> None:
        """Release everything. Open claims on this file are lost to this process."""
        if self.beside is not None:
            self.beside.release()
        self.lock.close()
        self.line.close()
        for fd in (self.fd, self._gate_fd, self._line_fd):
            self.machine.close(fd)
        self.record.close()
