"""The few calls that make bytes stay: sync of data, sync of a folder, whole writes, unique time stamps."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from holdfast.store.embedded.machine import here


def sync_data(fd: int) -> None:
    """Wait until the file's data is on the medium."""
    here().sync_data(fd)


def sync_folder(path: Path) -> None:
    """Make a new or renamed file's name durable."""
    here().sync_folder(path)


def write_all(fd: int, data: bytes) -> None:
    """One `write` as a rule; goes on after a short one, whose cause (a full disk) the next call then names."""
    machine = here()
    view = memoryview(data)
    while view:
        view = view[machine.write(fd, view) :]


def stamp_unique_mtime(fd: int) -> None:
    """Give our own write a modification time nobody else's write can have: the low digits are random.

    Where the system's stamps are coarse, a later write by somebody else sets a coarse stamp, which then differs from
    ours even within the same tick.
    """
    now = time.time_ns()
    unique = now - now % 1_000_000 + 1 + secrets.randbelow(999_998)
    os.utime(fd, ns=(unique, unique))
