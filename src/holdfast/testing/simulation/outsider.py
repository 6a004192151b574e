"""Another program that writes to transcripts with plain file operations: no lock, no claim, none of our code.

Each edit is of one of the kinds that the fence tells apart (DESIGN §3). It happens at an instant at which nobody holds
the write lock, since what somebody does in the very instant of an append is seen only after the write (a stated limit).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from holdfast.testing.simulation.disk import LEDGER, Disk
from holdfast.testing.simulation.ledgers import Ledgers
from holdfast.testing.simulation.machine import is_locked

WHEN = "2026-01-01T00:00:00.000Z"

Line = dict[str, Any]


@dataclass(slots=True)
class Edit:
    """One edit, with what there was: who owned the transcript and which lines it had just
    afterwards, by what they say and by their ids (an edit may change either, mending gives new ids).

    Args:
        kind: "adopted", "foreign_turn" or "tampered": what the owner has to find.
        destroys: whether it may have damaged lines that were there.
        before: the file's inode and bytes. `undone`: a later edit has brought exactly these back, so that whoever did
            not look in between has nothing to find.
    """

    path: Path
    how: str
    kind: str
    destroys: bool
    owner: str | None
    lines: frozenset[str]
    ids: frozenset[str]
    before: tuple[int, bytes]
    undone: bool = False


def transcript_paths(root: Path) -> list[Path]:
    """Transcripts alone, without the kept answers beside them."""
    return sorted(path for path in (root / "sessions").glob("*/*.jsonl") if ".kept-" not in path.name)


def what_lines_say(data: bytes) -> dict[str, Line]:
    """Every line that parses, by what it says: mending may give a line another id and another parent."""
    found: dict[str, Line] = {}
    for raw in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            value = json.loads(raw)
            if isinstance(value, dict):
                said = {name: value[name] for name in sorted(value) if name not in ("id", "parentId")}
                found[json.dumps(said)] = value
    return found


def line_ids(data: bytes) -> list[str]:
    """Ids of all lines that parse, in order."""
    found: list[str] = []
    for raw in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            value = json.loads(raw)
            if isinstance(value, dict) and value.get("type") != "session" and isinstance(value.get("id"), str):
                found.append(value["id"])
    return found


def owner_of(root: Path, path: Path, ledgers: Ledgers) -> str | None:
    """The turn that the ledger calls the owner of a transcript."""
    if not (root / LEDGER).exists():
        return None
    try:
        row = (
            ledgers.observer(root)
            .execute("select owner_turn from transcripts where path=?", (str(path.relative_to(root)),))
            .fetchone()
        )
        return row[0] if row else None
    except sqlite3.OperationalError:
        return None  # it is being made


class Outsider:
    """Edits transcripts at random."""

    def __init__(self, root: Path, random: Random, disk: Disk, ledgers: Ledgers) -> None:
        self._root = root
        self._random = random
        self._disk = disk
        self._ledgers = ledgers
        self._count = 0
        self.edits: list[Edit] = []

    def edit(self) -> Edit | None:
        """Change one transcript, durably. None: there is none, or somebody is writing at this moment."""
        paths = transcript_paths(self._root)
        if not paths:
            return None
        path = paths[int(self._random.random() * len(paths))]
        before = path.read_bytes()
        if is_locked(path) or b"\n" not in before or not before.endswith(b"\n"):
            return None
        owner, inode = owner_of(self._root, path, self._ledgers), path.stat().st_ino
        how, kind, destroys, act = _EDITS[int(self._random.random() * len(_EDITS))]
        self._count += 1
        if not act(self, path, before):
            return None
        after = path.read_bytes() if path.exists() else b""
        self._make_durable(path)
        done = Edit(path, how, kind, destroys, owner, frozenset(what_lines_say(after)), frozenset(line_ids(after)),
                    (inode, before))  # fmt: skip
        now = (path.stat().st_ino if path.exists() else -1, after)
        for number, one in enumerate(self.edits):
            if one.path == path and one.before == now:
                for undone in [*self.edits[number:], done]:
                    undone.undone = undone.undone or undone.path == path
        self.edits.append(done)
        return done

    def _make_durable(self, path: Path) -> None:
        self._disk.folder_synced(path.parent)
        if path.exists():
            fd = os.open(path, os.O_RDONLY)
            try:
                self._disk.synced(fd)
            finally:
                os.close(fd)

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _entry(self, before: bytes, kind: str, parent: str | None = None, **more: Any) -> bytes:
        ids = line_ids(before)
        leaf = parent or (ids[-1] if ids else None)
        entry = {"type": kind, "id": f"other{self._count:03}", "parentId": leaf, "timestamp": WHEN, **more}
        return json.dumps(entry).encode() + b"\n"

    @staticmethod
    def _append(path: Path, data: bytes) -> bool:
        with path.open("ab") as file:
            file.write(data)
        return True

    def label(self, path: Path, before: bytes) -> bool:
        ids = line_ids(before)
        return bool(ids) and self._append(path, self._entry(before, "label", targetId=ids[0], label="kept"))

    def note(self, path: Path, before: bytes) -> bool:
        return self._append(path, self._entry(before, "custom", customType="other", data={"n": self._count}))

    def touch(self, path: Path, before: bytes) -> bool:
        del before
        os.utime(path, (self._count, self._count))
        return True

    def say(self, path: Path, before: bytes) -> bool:
        message = {"role": "user", "content": f"from outside {self._count}", "timestamp": 0}
        return self._append(path, self._entry(before, "message", message=message))

    def branch(self, path: Path, before: bytes) -> bool:
        """Off a line behind which conversation stands: metadata of ours alone might have come after it unseen."""
        ids = line_ids(before)
        said = [raw for raw in before.split(b"\n") if b'"type":"message"' in raw]
        if not ids or len(said) < 2 or ids[0].encode() in said[-1].split(b'"parentId"')[0]:
            return False
        return self._append(path, self._entry(before, "custom", parent=ids[0], customType="other", data={}))

    def second_header(self, path: Path, before: bytes) -> bool:
        return self._append(path, before.split(b"\n", 1)[0] + b"\n")

    def rubbish(self, path: Path, before: bytes) -> bool:
        del before
        return self._append(path, b"{rubbish}\n")

    def torn(self, path: Path, before: bytes) -> bool:
        return self._append(path, self._entry(before, "custom", customType="other", data={})[:-5])

    def cut(self, path: Path, before: bytes) -> bool:
        end = before.rstrip(b"\n").rfind(b"\n") + 1
        if end <= 0:
            return False
        os.truncate(path, end)
        return True

    def rewrite(self, path: Path, before: bytes) -> bool:
        """One byte of a text, in place; the size stays."""
        at = before.rfind(b"message ")
        if at < 0:
            return False
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, b"M", at)
        finally:
            os.close(fd)
        return True

    def replace(self, path: Path, before: bytes) -> bool:
        copy = path.with_name(path.name + ".new")
        copy.write_bytes(before)
        copy.chmod(0o600)
        os.replace(copy, path)
        return True

    def delete(self, path: Path, before: bytes) -> bool:
        del before
        path.unlink()
        return True


Act = Callable[[Outsider, Path, bytes], bool]
_EDITS: tuple[tuple[str, str, bool, Act], ...] = (
    ("a label", "adopted", False, Outsider.label),
    ("a custom line", "adopted", False, Outsider.note),
    ("other times", "adopted", False, Outsider.touch),
    ("a user's message", "foreign_turn", False, Outsider.say),
    ("a user's message", "foreign_turn", False, Outsider.say),
    ("a line on another branch", "foreign_turn", False, Outsider.branch),
    ("a second header", "tampered", False, Outsider.second_header),
    ("a malformed line", "tampered", False, Outsider.rubbish),
    ("a torn line", "tampered", False, Outsider.torn),
    ("the last line cut off", "tampered", True, Outsider.cut),
    ("a byte rewritten in place", "tampered", True, Outsider.rewrite),
    ("replaced by a copy", "tampered", True, Outsider.replace),
    ("deleted", "tampered", True, Outsider.delete),
)
