"""Looking for lines in a transcript file: final ones, those of an input, all of them."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.outbox.message import Outcome, answered_by
from holdfast.session.entries import FORMAT_VERSION
from holdfast.session.lines import Line, read_line
from holdfast.store.embedded.baseline import read_tail
from holdfast.store.embedded.holding import Position
from holdfast.store.embedded.transcript_bytes import iter_lines


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


def answered_from(line: Line) -> Outcome:
    """The outcome that a final line stands for."""
    return answered_by(line.value()["message"], line.id, detail="settled from its final line")
