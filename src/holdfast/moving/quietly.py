"""Reading another program's files so that it never notices: no byte, no name and no time of theirs changes.

Access times stay, too, where the system allows it (Linux, files of one's own). A database is read from a copy in a
temporary folder: opening it in place would write beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from holdfast.errors import ResourceError

BLOCK_BYTES = 1 << 20
TRIES = 10
PAUSE_S = 0.3


def open_quietly(path: Path) -> int:
    """A descriptor for reading. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # somebody else's file: its access time may move
        return os.open(path, flags)


def read_all(path: Path) -> bytes:
    """Raises OSError."""
    return b"".join(blocks(path))


def blocks(path: Path) -> Iterator[bytes]:
    """Raises OSError."""
    fd = open_quietly(path)
    try:
        while block := os.read(fd, BLOCK_BYTES):
            yield block
    finally:
        os.close(fd)


def lines_of(path: Path, *, is_live: bool = False) -> Iterator[bytes]:
    """Lines without their newlines. `is_live`: somebody may be appending, so an unfinished last line is not one yet.

    Raises OSError.
    """
    rest = b""
    for block in blocks(path):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest and not is_live:
        yield rest


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """An SQLite database as it is at one moment, whoever writes to it, opened for reading.

    Raises: ResourceError: it is written to without a pause, or is none.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-import-") as folder:
        copy = Path(folder) / "copy.sqlite"
        _copy_at_rest(path, copy)
        try:
            with closing(sqlite3.connect(copy)) as found:
                found.execute("pragma query_only=on")
                found.execute("select count(*) from sqlite_master").fetchone()
                yield found
        except sqlite3.DatabaseError as exc:
            raise ResourceError(f"{path} cannot be read as a database: {exc}") from exc


def _copy_at_rest(path: Path, copy: Path) -> None:
    """The file and its log, as they were between two writes: neither has changed from before to after the copy."""
    parts = [(Path(f"{path}{end}"), Path(f"{copy}{end}")) for end in ("", "-wal")]
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        before = [_look(source) for source, _ in parts]
        for source, target in parts:
            target.unlink(missing_ok=True)
            if source.exists():
                with open(target, "wb") as out:
                    for block in blocks(source):
                        out.write(block)
        if [_look(source) for source, _ in parts] == before:
            return
    shutil.rmtree(copy.parent, ignore_errors=True)
    raise ResourceError(f"{path} is being written to without a pause; stop the program that uses it, and try again")


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
