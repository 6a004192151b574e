"""What the promises stand on, asked of one folder's file system: locks between processes that end with them, renames,
places of appends, shared memory, time stamps, syncs.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.store.embedded.machine import here
from holdfast.store.embedded.state_dir import SHARED_FILE_SYSTEMS, file_system_of

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
LAYERED = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs"})
SYNC_US_MIN = 20.0
"""No disk, and no cache that outlives a power loss, confirms a sync faster."""
SYNCS = 25
F_OFD_SETLK = 37


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the ground.

    Args:
        level: "broken": the named promises cannot hold here. "remark": good to know.
        promises: those it concerns, e.g. ("P1", "P5").
    """

    level: Literal["broken", "remark"]
    promises: tuple[str, ...]
    text: str


def examine(folder: Path) -> list[Finding]:
    """Ask everything. Forks, so it wants a process without threads. Leaves nothing behind in `folder`."""
    found = list(_of_kind(file_system_of(folder)))
    for ask in (_flock, _record_locks, _rename, _append, _shared_memory, _times, _syncs, _open_description_locks):
        place = folder / f"ground-{ask.__name__.strip('_')}"
        try:
            found += ask(place)
        except OSError as exc:
            found.append(Finding("broken", ("P1", "P3"), f"{ask.__name__.strip('_')}: {exc.strerror or exc}"))
        finally:
            for left in folder.glob("ground-*"):
                left.unlink()
    return found


def _of_kind(kind: str) -> Iterator[Finding]:
    if kind in SHARED_FILE_SYSTEMS:
        yield Finding(
            "broken", ("P1", "P3", "P5", "P6"),
            f"a {kind} file system: locks and time stamps cannot be trusted between machines, so Holdfast refuses to "
            "open a state on it; use a local disk, or PostgreSQL",
        )  # fmt: skip
    elif kind in IN_MEMORY:
        yield Finding("remark", ("P3",), f"{kind} is memory: kills are survived, a restart of the machine is not")
    elif kind in LAYERED:
        yield Finding(
            "remark", ("P3", "P6"),
            f"{kind} is a container's own layer: it goes with the container, and a file from a lower layer becomes "
            "another one when it is first written; put the state on a volume",
        )  # fmt: skip


def _in_child(act: Callable[[], bool]) -> bool:
    """What another process says."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if act() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _can_flock(path: Path) -> bool:
    fd = _file(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def _flock(path: Path) -> Iterator[Finding]:
    """P1 stands on it: exclusive between descriptors and processes, gone with its process, and not before."""
    fd = _file(path)
    fcntl.flock(fd, fcntl.LOCK_EX)
    if _can_flock(path) or _in_child(lambda: _can_flock(path)):
        yield Finding("broken", ("P1", "P5"), "flock does not keep others out")
    moved = path.with_name(path.name + "-moved")
    os.rename(path, moved)
    if _in_child(lambda: _can_flock(moved)):
        yield Finding("broken", ("P1", "P5"), "flock is lost when its file is renamed")
    os.close(fd)

    def take_and_die() -> bool:
        fcntl.flock(_file(moved), fcntl.LOCK_EX)
        os.kill(os.getpid(), 9)
        return False

    _in_child(take_and_die)
    if not _can_flock(moved):
        yield Finding("broken", ("P1", "P9"), "flock outlives the process that held it: nobody can be told to be dead")


def _record_locks(path: Path) -> Iterator[Finding]:
    """SQLite's own locks."""
    fd = _file(path)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)

    def can_lock() -> bool:
        try:
            fcntl.lockf(_file(path), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return False
        return True

    if _in_child(can_lock):
        yield Finding(
            "broken", ("P1", "P3"), "POSIX record locks do not keep others out: SQLite's files would be damaged"
        )
    os.close(fd)


def _open_description_locks(path: Path) -> Iterator[Finding]:
    """Not used by this release; other programs beside it may want them."""
    fd = _file(path)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError:
        yield Finding("remark", (), "no locks of open file descriptions (OFD); Holdfast does without them")
    finally:
        os.close(fd)


def _rename(path: Path) -> Iterator[Finding]:
    """A replacement is another file under the same name, at once."""
    path.write_bytes(b"old")
    before = os.stat(path)
    other = path.with_name(path.name + "-new")
    other.write_bytes(b"new")
    os.rename(other, path)
    after = os.stat(path)
    if path.read_bytes() != b"new" or (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino):
        yield Finding("broken", ("P6",), "a file renamed over another cannot be told from it")


def _append(path: Path) -> Iterator[Finding]:
    """O_APPEND goes to the end, whoever wrote last, and the descriptor tells where that was."""
    ours = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    theirs = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.write(ours, b"aa")
    os.write(theirs, b"bbb")
    os.write(ours, b"c")
    where = os.lseek(ours, 0, os.SEEK_CUR)
    os.close(ours)
    os.close(theirs)
    if path.read_bytes() != b"aabbbc" or where != 6:
        yield Finding(
            "broken", ("P3", "P6"), "appends do not go to the end of the file, or do not tell where they went"
        )


def _shared_memory(path: Path) -> Iterator[Finding]:
    """SQLite's log has an index that all processes map."""
    fd = _file(path)
    os.ftruncate(fd, mmap.PAGESIZE)

    def write_in_child() -> bool:
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            memory[0] = 7
        return True

    with mmap.mmap(fd, mmap.PAGESIZE) as memory:
        _in_child(write_in_child)
        if memory[0] != 7:
            yield Finding("broken", ("P1", "P3"), "memory mapped from a file is not shared between processes")
    os.close(fd)


def _times(path: Path) -> Iterator[Finding]:
    fd = _file(path)
    before = os.fstat(fd).st_mtime_ns
    time.sleep(0.05)
    os.write(fd, b"x")
    after = os.fstat(fd).st_mtime_ns
    os.close(fd)
    if after <= before:
        yield Finding("broken", ("P6",), "a write does not change the file's time stamp")
    elif here().has_coarse_clock(path.parent):
        yield Finding(
            "remark", ("P6",),
            "coarse time stamps: two writes within some milliseconds look alike, so Holdfast stamps its own",
        )  # fmt: skip


def _syncs(path: Path) -> Iterator[Finding]:
    fd = _file(path)
    took_us: list[float] = []
    for _ in range(SYNCS):
        os.write(fd, b"x" * 4096)
        began = time.perf_counter()
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
        took_us.append((time.perf_counter() - began) * 1e6)
    os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as exc:
        yield Finding("broken", ("P3",), f"a folder cannot be synced ({exc.strerror}): new files may vanish")
    finally:
        os.close(folder)
    median_us = statistics.median(took_us)
    if median_us < SYNC_US_MIN:
        yield Finding(
            "remark", ("P3",),
            f"a sync returns after {median_us:.0f} µs, faster than a disk can be: what is behind it may forget at a "
            "power loss",
        )  # fmt: skip
