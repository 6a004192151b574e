"""The lines of log files that may matter, whatever the files are: plain, gzip, a journal's export; gigabytes at flat
memory.

A log is mostly about other things. So a file is searched for some words at the speed of memory, and only the records
around what was found are looked at.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, cast

from holdfast.errors import InputError
from holdfast.observe.incidents.log_lines import LogLine, day_in_name, export_record, line_of

CHUNK_BYTES = 4 * 1024 * 1024
RECORD_BYTES_MAX = 1024 * 1024
"""A longer record is looked at in its first part: a line of a log that is longer than that is a mistake."""
_GZIP = b"\x1f\x8b"
_EXPORT = b"__CURSOR="
NEEDLES = (
    b"lane task error",
    b"odel-fallback/decision",
    b"odel_fallback_decision",
    b"odel fallback decision",
    b"All models failed",
    b"gent failed before reply",
    b"session.long_running",
    b"session.stalled",
    b"session.stuck",
    b"session.recovery.",
    b"stuck session",
    b"stalled session",
    b"long-running session",
    b"session file locked",
)
"""What stands in every line that `log_events.event_of` knows. A line without any of them is not decoded."""
Progress = Callable[[int], object]
"""Called with the number of bytes that were read since the last call."""


@dataclass(frozen=True, slots=True)
class Source:
    """A log to read. `bytes_total`: of the file as it lies on the disk; None: not known (a pipe)."""

    name: str
    bytes_total: int | None
    day: date | None


def source_of(path: Path) -> Source:
    """A file, with the day its lines are of where they name only the time of day: the one in its name, else the day of
    its last change.

    Raises: InputError: there is no such file, or it cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    return Source(str(path), stat.st_size, day_in_name(path.name) or datetime.fromtimestamp(stat.st_mtime, UTC).date())


def lines_of(path: Path, source: Source, progress: Progress) -> Iterator[LogLine]:
    """The lines of a file that may matter, in its order.

    Raises: InputError: the file cannot be read, or is damaged (a gzip file cut short); what was read until then has
    been handed out.
    """
    try:
        with path.open("rb", buffering=0) as raw:
            counted = cast("IO[bytes]", _Counted(raw, progress))
            head = raw.read(2)
            raw.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=counted)) if head == _GZIP else counted
            yield from _matching(stream, source, CHUNK_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InputError(f"{path} is damaged ({exc}); what comes before that place was counted") from exc
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def lines_of_stream(
    stream: IO[bytes], source: Source, progress: Progress, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[LogLine]:
    """The same of an open stream, such as standard input."""
    yield from _matching(cast("IO[bytes]", _Counted(stream, progress)), source, chunk_bytes)


@contextmanager
def journal(arguments: tuple[str, ...]) -> Iterator[IO[bytes]]:
    """The system's journal as an export, oldest first, made by `journalctl` with these further arguments.

    Raises: InputError: there is no journalctl, or it refused.
    """
    command = ["journalctl", "--output=export", "--output-fields=MESSAGE,__REALTIME_TIMESTAMP", "--no-pager"]
    try:
        process = subprocess.Popen(  # noqa: S603  # a fixed program; its arguments are the operator's own
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as exc:
        raise InputError(f"the journal cannot be read: journalctl: {exc.strerror or exc}; give files instead") from exc
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018
    try:
        yield process.stdout
        said = process.stderr.read(4096).decode("utf-8", "replace").strip()
        if process.wait() != 0:
            raise InputError(f"the journal cannot be read: {said or f'journalctl ended with {process.returncode}'}")
    finally:
        process.kill()
        process.communicate()


class _Counted(io.RawIOBase):
    """A stream that tells how much of it was read, as the disk has it."""

    def __init__(self, raw: Any, progress: Progress) -> None:
        super().__init__()
        self._raw, self._progress = raw, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._progress(len(data))
        return len(data)


def _matching(stream: IO[bytes], source: Source, chunk_bytes: int) -> Iterator[LogLine]:
    reader = io.BufferedReader(cast("io.RawIOBase", stream), CHUNK_BYTES) if isinstance(stream, _Counted) else stream
    rest = b""
    is_export: bool | None = None
    while True:
        chunk = reader.read(chunk_bytes)
        if is_export is None:
            is_export = chunk.startswith(_EXPORT)
        separator = b"\n\n" if is_export else b"\n"
        data = rest + chunk
        end = len(data) if not chunk else data.rfind(separator) + len(separator)
        if chunk and end < len(separator):  # no end of a record yet
            rest = data if len(data) <= RECORD_BYTES_MAX else data[:RECORD_BYTES_MAX]
            continue
        yield from _found(data, end, separator, is_export=is_export, source=source)
        if not chunk:
            return
        rest = data[end:]


def _found(data: bytes, end: int, separator: bytes, *, is_export: bool, source: Source) -> Iterator[LogLine]:
    """The records of `data[:end]` in which a needle stands, in their order, each once."""
    seen_to = 0
    following = [data.find(needle, 0, end) for needle in NEEDLES]
    while True:
        at = min((place for place in following if place >= 0), default=-1)
        if at < 0:
            return
        start = data.rfind(separator, seen_to, at)
        start = seen_to if start < 0 else start + len(separator)
        stop = data.find(separator, at, end)
        stop = end if stop < 0 else stop
        record = data[start : min(stop, start + RECORD_BYTES_MAX)]
        line = export_record(record) if is_export else line_of(record, source.day)
        if line is not None:
            yield line
        seen_to = stop
        for i, place in enumerate(following):
            if 0 <= place < stop:
                following[i] = data.find(NEEDLES[i], stop, end)
