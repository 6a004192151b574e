"""What other programs do to a transcript: no lock, no record, no idea that Holdfast is there.

Each function changes the file at `path` and returns nothing. `run` calls one in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEXT = [{"type": "text", "text": "from outside"}]


def run(act: str, path: str, **how: Any) -> None:
    """Call one of the functions below in another process, and wait until it is done."""
    subprocess.run([sys.executable, "-S", __file__, act, path, json.dumps(how)], check=True)


def last_id(path: str) -> str | None:
    """The id of the newest entry, as a program that only reads the file would find it."""
    leaf = None
    for raw in Path(path).read_bytes().splitlines():
        try:
            entry = json.loads(raw)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("type") != "session":
            leaf = entry.get("id", leaf)
    return leaf


def line_of(kind: str, path: str, parent: Any = "leaf", **more: Any) -> bytes:
    """One whole line of a kind, hung off the newest entry unless `parent` says otherwise."""
    entry: dict[str, Any] = {"type": kind, "id": f"x{time.monotonic_ns():x}", "timestamp": "2026-05-22T10:00:00.000Z"}
    entry["parentId"] = last_id(path) if parent == "leaf" else parent
    if parent == "absent":
        del entry["parentId"]
    said = {"role": "assistant", "content": TEXT, "usage": {}, "stopReason": "stop", "timestamp": 1}
    bodies: dict[str, dict[str, Any]] = {
        "user": {"type": "message", "message": {"role": "user", "content": TEXT, "timestamp": 1}},
        "assistant": {"type": "message", "message": {**said, "provider": "demo", "model": "demo"}},
        "mirror": {"type": "message", "message": {**said, "provider": "openclaw", "model": "delivery-mirror"}},
        "label": {"targetId": "x", "label": "named"},
        "session_info": {"name": "renamed"},
        "model_change": {"provider": "demo", "modelId": "other"},
        "thinking_level_change": {"thinkingLevel": "high"},
        "custom": {"customType": "other", "data": 1},
        "custom_message": {"customType": "other", "content": "note", "display": True},
        "compaction": {"summary": "all of it", "firstKeptEntryId": "x", "tokensBefore": 1},
        "branch_summary": {"fromId": "root", "summary": "left"},
        "unknown_type": {"type": "holdings"},
        "unknown_role": {"type": "message", "message": {"role": "narrator", "content": TEXT}},
        "malformed_message": {"type": "message", "message": {"role": "user"}},
        "header": {"type": "session", "version": 3, "cwd": "/"},
    }
    entry.update(bodies[kind])
    entry.update(more)
    return json.dumps(entry).encode() + b"\n"


def append(path: str, kind: str, **more: Any) -> None:
    """Append one whole line."""
    append_bytes(path, line_of(kind, path, **more).decode())


def append_bytes(path: str, text: str) -> None:
    with open(path, "ab") as file:
        file.write(text.encode())


def edit_in_place(path: str, restore_times: bool = True) -> None:
    """Change one byte inside the first message; size as before, modification time as before if asked."""
    before = os.stat(path)
    data = Path(path).read_bytes()
    at = data.rindex(b'"text": "') + 9 if b'"text": "' in data else data.rindex(b'"text":"') + 8
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"#")
    if restore_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_at(path: str, at: int) -> None:
    """Change the byte at one offset; everything else stays, the modification time too."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(b"+" if old == b"#" else b"#")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(path: str) -> None:
    os.utime(path)


def chmod(path: str) -> None:
    os.chmod(path, 0o640)


def hard_link(path: str) -> None:
    """A backup that shares the inode: only change time and link count move."""
    os.link(path, path + ".backup")


def truncate(path: str, leave: int = -1) -> None:
    """Cut to `leave` bytes; -1: the last line goes."""
    data = Path(path).read_bytes()
    os.truncate(path, leave if leave >= 0 else data[:-1].rfind(b"\n") + 1)


def delete(path: str) -> None:
    os.unlink(path)


def delete_folder(path: str) -> None:
    """The folder that `path` stands in, with everything in it."""
    shutil.rmtree(os.path.dirname(path))


def recreate(path: str) -> None:
    """Unlink, then write the same bytes to a new file."""
    data = Path(path).read_bytes()
    os.unlink(path)
    Path(path).write_bytes(data)


def replace_with_same(path: str) -> None:
    """What an editor or a sync program does: a copy renamed over the original."""
    copy = path + ".new"
    shutil.copy2(path, copy)
    os.rename(copy, path)


def replace_with_link(path: str) -> None:
    os.rename(path, path + ".moved")
    os.symlink(path + ".moved", path)


def replace_with_folder(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


def replace_with_pipe(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3]))
