"""What there is when everything has come to rest: the ledger's rows, the transcripts' lines, what people saw."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from holdfast.session.entries import text_of
from holdfast.testing.simulation.outsider import Edit, Line, transcript_paths
from holdfast.testing.simulation.people import Seen
from holdfast.testing.simulation.ways import Ways

ANSWERED = ("answered", "steered", "merged")

Rows = list[sqlite3.Row]


@dataclass(frozen=True, eq=False)
class Rest:
    """What there is when everything has come to rest.

    Args:
        paths: of transcripts, by id. lines: of each file. harmed: files that an outsider has damaged.
        counts: faults and effects so far, by name.
    """

    inputs: dict[str, sqlite3.Row]
    turns: Rows
    outbox: Rows
    runs: Rows
    timers: Rows
    children: Rows
    events: Rows
    approvals: Rows
    programs: Rows
    paths: dict[str, Path]
    lines: dict[Path, list[Line]]
    seen: Seen
    ways: Ways
    edits: list[Edit] = field(default_factory=list[Edit])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def harmed(self) -> set[Path]:
        return {edit.path for edit in self.edits if edit.kind == "tampered"}

    @cached_property
    def foreign(self) -> set[Path]:
        """Files in which somebody else has spoken."""
        return {edit.path for edit in self.edits if edit.kind == "foreign_turn"}

    @cached_property
    def epochs(self) -> dict[str, int]:
        """Of turns."""
        return {turn["id"]: turn["epoch_number"] for turn in self.turns}

    @cached_property
    def finals(self) -> dict[str, Line]:
        """The final line of each input."""
        return {one: line for line in self.final_lines for one in line["holdfast"].get("inputs", ())}

    @cached_property
    def final_lines(self) -> list[Line]:
        return [line for lines in self.lines.values() for line in lines if (line.get("holdfast") or {}).get("final")]

    @cached_property
    def answers(self) -> dict[str, list[str]]:
        """What the final lines of each input say."""
        found: dict[str, list[str]] = {}
        for line in self.final_lines:
            for one in line["holdfast"].get("inputs", ()):
                found.setdefault(one, []).append(text_of(line["message"]))
        return found

    def file_of(self, row: sqlite3.Row) -> Path:
        return self.paths[row["transcript"]]

    def lines_of(self, row: sqlite3.Row) -> list[Line]:
        return self.lines.get(self.file_of(row), [])


def load_rest(
    connection: sqlite3.Connection, root: Path, seen: Seen, edits: list[Edit], ways: Ways, counts: dict[str, int]
) -> Rest:
    """Read all of it; nothing may be running.

    Raises:
        sqlite3.DatabaseError: the ledger cannot be read.
    """

    def rows(table: str) -> Rows:
        return list(connection.execute(f"select * from {table}"))

    paths = {row["id"]: root / row["path"] for row in rows("transcripts")}
    lines = {path: _lines(path.read_bytes()) for path in transcript_paths(root)}
    inputs = {row["id"]: row for row in rows("inputs")}
    return Rest(
        inputs, rows("turns"), rows("outbox"), rows("timer_runs"), rows("timers"), rows("children"), rows("events"),
        rows("approvals"), rows("background"), paths, lines, seen, ways, edits, counts,
    )  # fmt: skip


def _lines(data: bytes) -> list[Line]:
    """Those that parse."""
    found: list[Line] = []
    for raw in data.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):
            value = json.loads(raw)
            if isinstance(value, dict):
                found.append(value)
    return found


def content_of(row: sqlite3.Row) -> str:
    return str(json.loads(row["payload"]).get("content"))


def leaves_a_line(row: sqlite3.Row) -> bool:
    """Whether the answer to an input stands in its transcript: commands never enter it, nor what is said of them."""
    payload = json.loads(row["payload"])
    if row["source"] == "compaction" or (row["lane"] == "main" and str(payload.get("content")).startswith("/")):
        return False
    return "announces" not in payload or bool(payload["announces"]["line"])
