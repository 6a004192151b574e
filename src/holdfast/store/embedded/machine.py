"""What a process of the embedded store stands on: descriptors, bytes, kernel locks, threads. Real by default.

Everything in this folder that writes, syncs, locks, waits on a thread or asks which boot this is goes through the
`Machine` of its context. Nobody passes it along, just as nobody passes along an address space: `here()` is the real
machine unless code runs inside `Machine.entered`, which is how the simulation (`testing/simulation`) puts several
processes with a disk of their own beside each other. Objects that outlive a call keep the machine they were made on.

Calls that may block or let others run say so; `try_lock` and `unlock` never do.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from holdfast.store.embedded.spare_threads import spare_threads

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)


class Thread(Protocol):
    """The part of `threading.Thread` that is used here."""

    def start(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


class Event(Protocol):
    """The part of `threading.Event` that is used here."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Mutex(Protocol):
    """The part of `threading.Lock` that is used here. Only for spans in which the machine may let others run."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Queue(Protocol):
    """The part of `queue.SimpleQueue` that is used here; `get_nowait` raises `queue.Empty`."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any: ...
    def get_nowait(self) -> Any: ...
    def empty(self) -> bool: ...


LEDGER_OPTIONS: dict[str, Any] = {
    "isolation_level": None, "check_same_thread": False, "timeout": 5.0, "cached_statements": 256,
}  # fmt: skip


class Machine:
    """The operating system as it is. A simulated one overrides what it simulates."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it, and in tasks made there, `here()` is this machine."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # ── descriptors and bytes ────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def dup(self, fd: int) -> int:
        return os.dup(fd)

    def turn_to(self, fd: int, number: int) -> None:
        """`number` becomes a name of what `fd` names; `fd` is consumed."""
        os.dup2(fd, number, inheritable=False)
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        return os.pwrite(fd, data, at)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync_data(self, fd: int) -> None:
        """Wait until the file's data is on the medium. macOS: F_FULLFSYNC, since fsync there stops at the drive's
        cache.
        """
        if sys.platform == "darwin" and _F_FULLFSYNC is not None:
            fcntl.fcntl(fd, _F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make a new or renamed file's name durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def connect(self, where: str | Path, *, is_uri: bool) -> sqlite3.Connection:
        """A connection to the ledger, for one thread at a time; transactions are begun and ended in so many words."""
        return sqlite3.connect(where, **LEDGER_OPTIONS, uri=is_uri)

    # ── kernel locks: they belong to an open file description ────────────────────────────────────────────────────────

    def try_lock(self, fd: int) -> bool:
        """Never waits. False: somebody else holds it, or the system refuses."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False

    def lock(self, fd: int) -> None:
        """Block this thread until it is ours."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def thread(self, run: Callable[[], object], name: str) -> Thread:
        return threading.Thread(target=run, name=name, daemon=True)

    def start(self, run: Callable[[], object], name: str) -> None:
        """Run on a thread that nobody joins: one that has ended other such work, if there is one, since making a thread
        costs as much as a sync. A machine with threads of its own kind makes one of these.
        """
        if type(self).thread is Machine.thread:
            spare_threads.start(run)
        else:
            self.thread(run, name).start()

    def pool(self, size: int, name: str) -> Executor:
        return ThreadPoolExecutor(size, thread_name_prefix=name)

    def event(self) -> Event:
        return threading.Event()

    def mutex(self) -> Mutex:
        return threading.Lock()

    def queue(self) -> Queue:
        return queue.SimpleQueue()

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────────────────

    def boot_id(self) -> str:
        """Something that changes with each boot of this machine."""
        return _boot_id()

    def working_folder(self) -> str:
        return os.getcwd()

    def mounts(self) -> list[str]:
        """The lines of /proc/self/mountinfo; none where the system does not tell."""
        try:
            return Path("/proc/self/mountinfo").read_text().splitlines()
        except OSError:
            return []

    def has_coarse_clock(self, folder: Path) -> bool:
        """Whether two writes with a look in between can carry the same time stamp on this file system.

        Linux 6.13 and newer give a fresh stamp after each look (multigrain time stamps); others have ticks of 1-4 ms.
        """
        path = folder / f".clock-{os.urandom(8).hex()}"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            seen: set[int] = set()
            for _ in range(8):
                os.pwrite(fd, b"x", 0)
                seen.add(os.fstat(fd).st_mtime_ns)
            return len(seen) < 8
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        import subprocess

        return subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True
        ).stdout.strip()
    raise RuntimeError("no boot id on this platform; Linux and macOS are supported")


_current: ContextVar[Machine | None] = ContextVar("holdfast_machine", default=None)
_of_process = Machine()


def here() -> Machine:
    """The machine on which this code runs."""
    return _current.get() or _of_process


def stand_on(machine: Machine) -> None:
    """From now on this process with all its threads stands on another machine, where none was entered: as after a
    restart, for tests of what a power loss leaves.
    """
    global _of_process
    _of_process = machine
