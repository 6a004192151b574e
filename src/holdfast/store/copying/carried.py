"""What both directions stand on: which tables go over, in which order, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.errors import InputError
from holdfast.session.key import validate_key
from holdfast.store.postgres.dialect import keys_and_columns

Progress = Callable[[str, int, int], None]
"""What is copied, rows or bytes of it so far, and in all."""
Faults = Callable[[str], None]
"""Called at named points; for tests."""
HELD = "copied"
LEFT_OUT = frozenset({"meta", "depths", "boots", "waits"})
"""Whose state it is is written by whoever makes it; depths are counted by the tables themselves; boots and waits are of
running processes."""
OF_FILES = ("dev", "ino", "boot", "synced_end", "synced_link", "anchor", "anchor_digest", "fingerprint")
"""Of `transcripts`: what one machine knows of a file of its own. It learns it anew, as of a file that is new to it."""
FIRST = ("processes", "transcripts", "sessions")


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied. remarks: what stays behind and why; resumed: an earlier copy was gone on with."""

    source: str
    target: str
    store: str
    sessions: int
    transcripts: int
    archives: int
    lines: int
    bytes: int
    rows: int
    open_inputs: int
    undelivered: int
    resumed: bool
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """The same while it is counted."""

    transcripts: int = 0
    archives: int = 0
    lines: int = 0
    bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mark:
    """Left in a target while it is made: from which state, as it was when the copy began."""

    store: str
    seen: str

    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Mark:
        try:
            found = json.loads(text)
            return Mark(str(found["store"]), str(found["seen"]))
        except (ValueError, KeyError, TypeError):
            return Mark("", "")


def tables() -> Iterator[tuple[str, list[str], list[str]]]:
    """Each table that goes over: its name, primary key and columns, rows that others name first."""
    known = keys_and_columns()
    for name in (*FIRST, *(one for one in known if one not in FIRST)):
        if name not in LEFT_OUT:
            key, columns = known[name]
            yield name, key, [one for one in columns if not (name == "transcripts" and one in OF_FILES)]


def refuse_unfinished(archives: list[tuple[str, str]]) -> None:
    """Raises InputError: an archive, by id and state, that somebody began and did not end."""
    left = [archive for archive, state in archives if state in ("begun", "restoring")]
    if left:
        raise InputError(
            f"archive {left[0]} was left half-way by a process that died; start a gateway on the state for a minute, "
            "which ends that, stop it and copy then"
        )


def is_key(text: str) -> bool:
    try:
        validate_key(text)
    except InputError:
        return False
    return True


def counts_of(count: Callable[[str], Any]) -> tuple[int, int, int]:
    """Sessions, open inputs, and deliveries that are not over."""
    return (
        count("select count(*) from sessions"),
        count("select count(*) from inputs where state in ('queued', 'running')"),
        count("select count(*) from outbox where state in ('pending', 'started', 'unknown')"),
    )


def reason_of(source: str) -> str:
    return f"copied from {source}, and the old state may have gone on since"
