"""The bytes of a transcript file: opening it, walking its lines, linking them into the chain."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from holdfast.errors import (
    ResourceError,
    TranscriptFormatError,
)
from holdfast.store.embedded import durable
from holdfast.store.embedded.machine import here


def fence_link(previous: bytes, raw: bytes) -> bytes:
    """The chain digest after one more line."""
    return hashlib.sha256(previous + raw).digest()


def open_transcript(path: Path) -> int:
    """Open (or make, mode 0600, exclusively) a transcript for appending.

    Raises:
        TranscriptFormatError: a directory, pipe, device or link; nothing was touched.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = here().open(path, flags)
        except FileNotFoundError:
            fd = _make_transcript(path, flags)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise TranscriptFormatError(f"{path} is not a regular file ({exc.strerror}); move it away") from exc
        raise ResourceError(f"cannot open transcript {path}: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        here().close(fd)
        raise TranscriptFormatError(f"{path} is not a regular file; move it away")
    return fd


def _make_transcript(path: Path, flags: int) -> int:
    """Whoever is first makes it; everybody else opens that one."""
    try:
        fd = here().open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return here().open(path, flags)
    try:
        durable.sync_folder(path.parent)
    except OSError:
        here().close(fd)
        raise
    return fd


def open_lock_file(path: Path) -> int:
    try:
        return here().open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise ResourceError(f"cannot open lock file {path}: {exc.strerror}") from exc


def lines_of(data: bytes) -> list[bytes]:
    """Split after each newline byte, and only there; the ends are kept."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def iter_blocks(fd: int, start: int, end: int, size: int = 1 << 20) -> Iterator[bytes]:
    at = start
    while at < end:
        block = os.pread(fd, min(size, end - at), at)
        if not block:
            return
        at += len(block)
        yield block


def iter_lines(fd: int, start: int = 0, end: int = sys.maxsize) -> Iterator[bytes]:
    rest = b""
    for block in iter_blocks(fd, start, end):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
