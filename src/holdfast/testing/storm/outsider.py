"""What other programs do to a transcript: no lock, no record, no idea that Holdfast is there.

Each edit either adds something that can be recognised later (its ids begin with `x-`) or changes what an outsider had
added, so that whatever else changes or goes missing is a fault of ours. `replace` is the exception: a copy renamed over
the original can take a line with it that was written in between.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.ids import nonce

TORN = b'{"torn by an outsider'
"""An unfinished line; Holdfast closes it with a newline and leaves it there."""
TEXT = [{"type": "text", "text": "said by an outsider"}]
TAIL_BYTES = 64 * 1024


def is_begun(path: Path) -> bool:
    """Whether there is a header that an outsider could append behind."""
    return path.exists() and path.stat().st_size > 0 and b"\n" in path.read_bytes()[:4096]


def leaf_of(path: Path) -> str | None:
    """The id of the newest entry, as a program that only reads the file's end would find it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    for raw in reversed(lines[1:] or lines):
        try:
            entry = json.loads(raw)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("type") not in (None, "session"):
            return entry.get("id")
    return None


def line_of(kind: str, parent: str | None) -> tuple[str, bytes]:
    """(id, bytes) of one whole line."""
    entry_id = f"x-{nonce()[:16]}"
    bodies: dict[str, dict[str, Any]] = {
        "user": {"type": "message", "message": {"role": "user", "content": TEXT, "timestamp": 1}},
        "label": {"type": "label", "targetId": "x", "label": "named"},
        "session_info": {"type": "session_info", "name": "renamed"},
        "custom": {"type": "custom", "customType": "other", "data": 1},
        "unknown": {"type": "holdings"},
    }
    entry = {"id": entry_id, "parentId": parent, "timestamp": "2026-05-22T10:00:00.000Z", **bodies[kind]}
    return entry_id, json.dumps(entry).encode() + b"\n"


def append(path: Path, kind: str) -> str:
    """One whole line, in one write. Returns its id."""
    entry_id, raw = line_of(kind, leaf_of(path))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, raw)
    finally:
        os.close(fd)
    return entry_id


def tear(path: Path) -> str:
    """Begin a line and stop in the middle."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, TORN)
    finally:
        os.close(fd)
    return ""


def edit_in_place(path: Path) -> str:
    """Change one letter of the newest outsider's message; size and modification time stay as they were."""
    before = path.stat()
    at = path.read_bytes().rfind(b"said by an outsider")
    if at < 0:
        return append(path, "user")
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, b"S", at)
    finally:
        os.close(fd)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return ""


def touch(path: Path) -> str:
    os.utime(path)
    return ""


def hard_link(path: Path) -> str:
    """A backup that shares the inode; the one before it goes."""
    backup = path.with_name(path.name + ".backup")
    backup.unlink(missing_ok=True)
    os.link(path, backup)
    return ""


def replace(path: Path) -> str:
    """What an editor or a sync program does: a copy renamed over the original."""
    copy = path.with_name(f"{path.name}.copy-{nonce()[:8]}")
    shutil.copy2(path, copy)
    os.rename(copy, path)
    return ""


EDITS: dict[str, tuple[int, Callable[[Path], str]]] = {
    "user": (6, lambda path: append(path, "user")),
    "label": (2, lambda path: append(path, "label")),
    "session_info": (2, lambda path: append(path, "session_info")),
    "custom": (2, lambda path: append(path, "custom")),
    "unknown": (1, lambda path: append(path, "unknown")),
    "torn": (1, tear),
    "edited": (2, edit_in_place),
    "touched": (1, touch),
    "linked": (1, hard_link),
}
"""Name, weight and edit. `replace` is for sessions of its own."""
CONVERSATION = ("user",)
"""Edits that a turn whose window is open must stop at, and whose lines can be found again."""


def choose_edit(rng: random.Random) -> str:
    names = list(EDITS)
    return rng.choices(names, weights=[EDITS[name][0] for name in names])[0]
