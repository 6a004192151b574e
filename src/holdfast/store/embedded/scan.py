"""Looking for lines in a transcript file: final ones, those of an input, all of them."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.session.branch import reaches_back
from holdfast.session.entries import FORMAT_VERSION
from holdfast.session.lines import Line, read_line
from holdfast.store.embedded.baseline import read_tail
from holdfast.store.embedded.holding import Position
from holdfast.store.embedded.transcript_bytes import iter_lines, lines_of

CONTEXT_STEP_BYTES = 16 * 1024
"""How much is read at first of a transcript's end: a context that was just shortened. Each further step is larger."""


def read_file(path: Path, bytes_max: int | None) -> list[Line]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        if bytes_max is not None and size > bytes_max:
            return read_tail(fd, size, bytes_max)
        raws = list(iter_lines(fd, 0, size))
    finally:
        os.close(fd)
    if not raws:
        return []
    version = read_line(raws[0]).version or FORMAT_VERSION
    return [read_line(raw.removesuffix(b"\n"), version=version) for raw in raws if raw.endswith(b"\n")]


def read_context(path: Path, bytes_max: int, upto: int | None = None) -> list[Line]:
    """The newest lines, as far back as a context can need them: to the newest compaction's first kept line, to where
    the conversation begins, or about `bytes_max` bytes. What stands before that costs nothing.

    Args:
        upto: an offset up to which they are wanted in any case, within `bytes_max`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        lines: list[Line] = []
        end, oldest = _end_of_lines(fd), max(0, os.fstat(fd).st_size - bytes_max)
        step = CONTEXT_STEP_BYTES
        while end > 0 and (end > oldest or not lines):
            start = max(0, end - step)
            data = os.pread(fd, end - start, start)
            cut = data.find(b"\n") + 1 if start > 0 else 0
            step *= 4
            if start > 0 and cut in (0, len(data)):
                continue  # in the middle of one long line
            lines = [*(read_line(raw.removesuffix(b"\n")) for raw in lines_of(data[cut:])), *lines]
            end = start + cut
            if (upto is None or end <= upto) and reaches_back(lines):
                break
    finally:
        os.close(fd)
    is_version_1 = bool(lines) and lines[0].version == 1
    return read_file(path, bytes_max) if is_version_1 else lines


def _end_of_lines(fd: int) -> int:
    """Behind the last newline; what follows is a line that somebody has not finished."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - CONTEXT_STEP_BYTES)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _line_start(fd: int, offset: int) -> int:
    """`offset` if a line can begin there, else 0: the file was cut or rewritten since the offset was noted."""
    if offset == 0 or os.pread(fd, 1, offset - 1) == b"\n":
        return offset
    return 0


def find_final(fd: int, start: int, store_id: str, input_id: str) -> Line | None:
    """The line that answers an input for good, if the transcript has it at or after `start`."""
    needle = input_id.encode()
    for raw in iter_lines(fd, _line_start(fd, start)):
        if needle not in raw or not raw.endswith(b"\n"):
            continue
        line = read_line(raw)
        origin = line.origin
        is_final = line.kind == "entry" and origin is not None and origin.final and origin.store == store_id
        if is_final and origin is not None and input_id in origin.inputs:
            return line
    return None


def find_lines_of(fd: int, start: int, input_id: str) -> dict[str, Position]:
    """What earlier attempts at an input have written: id to position."""
    needle = input_id.encode()
    found: dict[str, Position] = {}
    at = _line_start(fd, start)
    for raw in iter_lines(fd, at):
        if needle in raw:
            line = read_line(raw)
            if line.id and line.origin is not None and input_id in line.origin.inputs:
                found[line.id] = Position(at, len(raw), b"")
        at += len(raw)
    return found


def first_offsets(fd: int, start: int) -> dict[str, int]:
    """Where the first line of each input stands, of those that have one at or after `start`."""
    found: dict[str, int] = {}
    at = _line_start(fd, start)
    for raw in iter_lines(fd, at):
        origin = read_line(raw).origin if raw.endswith(b"\n") else None
        for input_id in origin.inputs if origin is not None else ():
            found.setdefault(input_id, at)
        at += len(raw)
    return found
