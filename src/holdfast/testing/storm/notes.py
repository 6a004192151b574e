"""What the clients of a storm write down: before each call, and when they hear of its result.

One file per life of a client, one JSON line per note, written with one call, so that a kill loses at most the note that
was being written. Times are the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `number` ties a call to its result; `kind` is "call", "result" or a single event's own word."""

    client: str
    at_ns: int
    kind: str
    number: int
    what: str
    facts: dict[str, Any]


class Notebook:
    """One client's notes of one life. Safe to kill at any time."""

    def __init__(self, folder: Path, client: str) -> None:
        self.client = client
        self._fd = os.open(folder / f"{client}.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number = 0

    def call(self, what: str, **facts: Any) -> int:
        """About to do something; returns its number."""
        self._number += 1
        self._write("call", self._number, what, facts)
        return self._number

    def result(self, number: int, what: str, **facts: Any) -> None:
        """It has returned."""
        self._write("result", number, what, facts)

    def event(self, what: str, **facts: Any) -> None:
        """Something happened that was no call of ours."""
        self._write("event", 0, what, facts)

    def _write(self, kind: str, number: int, what: str, facts: dict[str, Any]) -> None:
        line = json.dumps([time.monotonic_ns(), kind, number, what, facts]).encode() + b"\n"
        os.write(self._fd, line)


def read_notes(path: Path) -> list[Note]:
    """The whole notes of one life, in order."""
    client = path.stem
    *lines, _torn = path.read_bytes().split(b"\n")
    return [Note(client, *json.loads(line)) for line in lines]


def all_notes(folder: Path) -> Iterator[list[Note]]:
    """The notes of each life, by client."""
    for path in sorted(folder.glob("*.jsonl")):
        yield read_notes(path)
