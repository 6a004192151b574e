"""The few calls that make bytes stay: sync of data, sync of a folder, whole writes, unique time stamps."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
import time
from pathlib import Path

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)


def sync_data(fd: int) -> None:
    """Wait until the file's data is on the medium. macOS: F_FULLFSYNC, since fsync there stops at the drive's cache."""
    if sys.platform == "darwin" and _F_FULLFSYNC is not None:
        fcntl.fcntl(fd, _F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_folder(path: Path) -> None:
    """Make a new or renamed file's name durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """One `write` as a rule; goes on after a short one, whose cause (a full disk) the next call then names."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def has_coarse_clock(folder: Path) -> bool:
    """Whether two writes with a look in between can carry the same time stamp on this file system.

    Linux 6.13 and newer give a fresh stamp after each look (multigrain time stamps); others have ticks of 1-4 ms.
    """
    path = folder / f".clock-{secrets.token_hex(8)}"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        seen = set()
        for _ in range(8):
            os.pwrite(fd, b"x", 0)
            seen.add(os.fstat(fd).st_mtime_ns)
        return len(seen) < 8
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def stamp_unique_mtime(fd: int) -> None:
    """Give our own write a modification time nobody else's write can have: the low digits are random.

    Where the system's stamps are coarse, a later write by somebody else sets a coarse stamp, which then differs from
    ours even within the same tick.
    """
    now = time.time_ns()
    unique = now - now % 1_000_000 + 1 + secrets.randbelow(999_998)
    os.utime(fd, ns=(unique, unique))
