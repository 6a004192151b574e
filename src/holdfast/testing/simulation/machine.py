"""The machine of one simulated process: every call is a place where others may run, and where the process may die.

Files are real ones in a folder of the run; locks are real kernel locks, which hold between the descriptors of two
simulated processes as they do between real ones. What is simulated is when calls happen, what fails, what a killed
process leaves and, with `disk.py`, what a power loss does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from holdfast import ids
from holdfast.store.embedded.machine import Event, Machine, Mutex, Queue, Thread
from holdfast.testing.simulation.disk import Disk
from holdfast.testing.simulation.ledgers import LedgerConnection, Ledgers
from holdfast.testing.simulation.scheduler import DeadError, Host, Scheduler, SimThread
from holdfast.testing.simulation.threads import SimEvent, SimMutex, SimPool, SimQueue, SimThreadHandle

if TYPE_CHECKING:
    from holdfast.store.embedded.faults import Point

Trouble = Literal["refused write", "short write", "failed sync", "ledger full", "ledger broken"]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)


class SeededChance(ids.Chance):
    """Identities drawn from the run's seed and its virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def bytes(self, count: int) -> bytes:
        return self._scheduler.random.randbytes(count)

    def now_ms(self) -> int:
        return 1_767_225_600_000 + int(self._scheduler.now * 1000)


class SharedHardware:
    """What the processes of one run have in common: the disk, who waits for kernel locks, which boot it is."""

    def __init__(self, scheduler: Scheduler, root: Path, ledgers: Ledgers) -> None:
        self.scheduler = scheduler
        self.disk = Disk(root)
        self.boot = 1
        self.lock_waiters: list[SimThread] = []
        self.switches = 0.5  # the share of calls at which others may run; drawn anew for each seed
        self.counts: dict[str, int] = {}
        self.ledgers = ledgers
        self.nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def wake_lock_waiters(self) -> None:
        waiting, self.lock_waiters = self.lock_waiters, []
        for thread in waiting:
            self.scheduler.wake(thread)


class SimMachine(Machine):
    """As one simulated process sees it.

    Attributes:
        doom: after so many more calls the process is killed, in the middle of one; None: it is not.
        troubles: what the disk will refuse next, each once.
        on_kill: called when `doom` strikes. `dies_in_sync`: it strikes in the next sync of a commit; only together with
            all processes, since to one that lives a commit does not show before its sync.
        ambush: after so many more calls, what happens to the process then (it is stopped), in the middle of one.
    """

    def __init__(self, hardware: SharedHardware, host: Host) -> None:
        self.hardware = hardware
        self.host = host
        self.doom: int | None = None
        self.dies_in_sync = False
        self.ambush: tuple[int, Callable[[], object]] | None = None
        self.troubles: list[Trouble] = []
        self.has_failed = False  # the disk has refused something
        self.on_kill: Callable[[], None] = lambda: None
        self.connections: list[LedgerConnection] = []
        self._scheduler = hardware.scheduler
        self._descriptors: set[int] = set()

    # ── life and death ───────────────────────────────────────────────────────────────────────────────────────────────

    def touch(self, what: str, *, gives_way: bool = True) -> None:
        """One call to the machine. Raises DeadError in a process that has been killed."""
        if self.host.dead:
            raise DeadError
        if self.doom is not None:
            self.doom -= 1
            if self.doom <= 0:
                self._die(what)
        if self.ambush is not None:
            left, strike = self.ambush
            self.ambush = (left - 1, strike) if left > 1 else None
            if left <= 1:
                self._scheduler.note(f"ambushed in {what}")
                strike()
                self._scheduler.give_way()
                return
        if (
            gives_way
            and self._scheduler.current is not None
            and self._scheduler.random.random() < self.hardware.switches
        ):
            self._scheduler.give_way()

    def at_point(self, point: Point) -> None:
        """The store's named points (`store/embedded/faults.py`)."""
        self._scheduler.note(point)
        self.touch(point)

    def _die(self, what: str) -> None:
        self._scheduler.note(f"killed in {what}")
        self.on_kill()
        self._scheduler.park()

    def takes_trouble(self, kind: Trouble) -> bool:
        if kind not in self.troubles:
            return False
        self.troubles.remove(kind)
        self._scheduler.note(f"disk: {kind}")
        self.hardware.count(kind)
        self.has_failed = True
        return True

    def release_all(self) -> None:
        """What the system does when a process has died: its descriptors are gone, and with them its locks.

        Their numbers stay taken until the run is over, so that no late call of the dead meets a file of somebody else.
        """
        for fd in self._descriptors:
            os.dup2(self.hardware.nothing, fd, inheritable=False)
        for connection in self.connections:
            self.hardware.ledgers.give_back(connection)
        self.connections.clear()
        self.hardware.wake_lock_waiters()

    def bury(self) -> None:
        """Let go of what is left, when the run is over."""
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()

    # ── descriptors and bytes ────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        self.touch("open")
        fd = super().open(path, flags, mode)
        self._descriptors.add(fd)
        if flags & os.O_EXCL:
            self.hardware.disk.made(fd)
        return fd

    def close(self, fd: int) -> None:
        if fd in self._descriptors:
            self._descriptors.remove(fd)
        elif self.host.dead:
            return
        super().close(fd)
        self.hardware.wake_lock_waiters()

    def dup(self, fd: int) -> int:
        if self.host.dead:
            raise DeadError
        copy = super().dup(fd)
        self._descriptors.add(copy)
        return copy

    def turn_to(self, fd: int, number: int) -> None:
        if self.host.dead:
            raise DeadError
        super().turn_to(fd, number)
        self._descriptors.discard(fd)
        self.hardware.wake_lock_waiters()

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.doom == 1 and len(data) > 1:  # a large write may be cut by the end of its process
            self._put(fd, data[: 1 + int(self._scheduler.random.random() * (len(data) - 1))])
        self.touch("write")
        if self.takes_trouble("refused write"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if len(data) > 1 and self.takes_trouble("short write"):
            self.troubles.append("refused write")
            return self._put(fd, data[: 1 + int(self._scheduler.random.random() * (len(data) - 1))])
        return self._put(fd, data)

    def _put(self, fd: int, data: bytes | memoryview) -> int:
        count = super().write(fd, data)
        self.hardware.disk.written(fd, os.lseek(fd, 0, os.SEEK_CUR) - count, count)
        return count

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        self.touch("pwrite")
        if self.takes_trouble("refused write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = super().pwrite(fd, data, at)
        self.hardware.disk.written(fd, at, count)
        return count

    def truncate(self, fd: int, size: int) -> None:
        self.touch("truncate")
        super().truncate(fd, size)

    def sync_data(self, fd: int) -> None:
        """What was there when it began is durable when it ends."""
        self.touch("sync")
        if self.takes_trouble("failed sync"):
            self.hardware.disk.sync_failed(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.hardware.disk.synced(fd)
        self.touch("synced")

    def sync_folder(self, path: Path) -> None:
        self.touch("sync of a folder")
        self.hardware.disk.folder_synced(path)

    def connect(self, where: str | Path, *, is_uri: bool) -> sqlite3.Connection:
        """One that an ended process has left open is as good as a new one, and has read the schema already."""
        self.touch("open of the ledger")
        connection = self.hardware.ledgers.take(where, is_uri=is_uri, root=self.hardware.disk.root)
        connection.begin_on(self)
        return connection

    # ── kernel locks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def try_lock(self, fd: int) -> bool:
        if self.host.dead:
            raise DeadError
        return super().try_lock(fd)

    def lock(self, fd: int) -> None:
        while not self.try_lock(fd):
            thread = self._scheduler.current
            assert thread is not None
            self.hardware.lock_waiters.append(thread)
            self._scheduler.wait()

    def unlock(self, fd: int) -> None:
        if self.host.dead:
            raise DeadError
        super().unlock(fd)
        self.hardware.wake_lock_waiters()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def thread(self, run: Callable[[], object], name: str) -> Thread:
        return SimThreadHandle(self._scheduler, self.host, run, f"{self.host.name}.{name.removeprefix('holdfast-')}")

    def pool(self, size: int, name: str) -> Executor:
        return SimPool(self._scheduler, self.host, size, f"{self.host.name}.{name.removeprefix('holdfast-')}")

    def event(self) -> Event:
        return SimEvent(self._scheduler)

    def mutex(self) -> Mutex:
        return SimMutex(self._scheduler)

    def queue(self) -> Queue:
        return SimQueue(self._scheduler)

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────────────────

    def boot_id(self) -> str:
        return f"boot-{self.hardware.boot}"

    def working_folder(self) -> str:
        return "/simulation"

    def mounts(self) -> list[str]:
        return []

    def has_coarse_clock(self, folder: Path) -> bool:
        """Yes, on every file system, so that a seed means the same everywhere."""
        del folder
        return True


def is_locked(path: Path) -> bool:
    """Whether anybody holds the kernel lock on a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
