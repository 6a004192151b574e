"""What others do to a transcript, with plain file operations: no lock, no claim, no code of ours."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from holdfast.testing.incidents.scenario import ScenarioError

WHEN = "2026-01-01T00:00:00.000Z"


def last_id(path: Path) -> str | None:
    """The id on the last line of a transcript, None if that is the header."""
    last = json.loads(path.read_bytes().splitlines()[-1])
    return None if last["type"] == "session" else last["id"]


def entry(path: Path, kind: str) -> dict[str, Any]:
    """A line as another program would write it."""
    base = {"id": uuid.uuid4().hex[:8], "parentId": last_id(path), "timestamp": WHEN}
    if kind in ("user", "assistant"):
        content = [{"type": "text", "text": f"{kind} by somebody else"}]
        message: dict[str, Any] = {"role": kind, "content": content, "timestamp": 0}
        if kind == "assistant":
            message |= {"provider": "other", "model": "other", "api": "other", "stopReason": "stop", "usage": {}}
        return {"type": "message", **base, "message": message}
    if kind == "compaction_like":
        return {"type": "compaction", **base, "summary": "all of it", "firstKeptEntryId": base["parentId"],
                "tokensBefore": 1}  # fmt: skip
    raise ScenarioError(f"others write no line of kind {kind!r}")


def append_foreign(path: Path, kind: str) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(entry(path, kind)).encode() + b"\n")


def rewrite_foreign(path: Path, kind: str) -> None:
    """Replace the file as an editor does, or slip in what looks like a record of ours."""
    if kind == "compaction_like":
        append_foreign(path, kind)
        return
    if kind != "replace":
        raise ScenarioError(f"unknown kind of rewrite {kind!r}")
    copy = path.with_name(path.name + ".new")
    copy.write_bytes(path.read_bytes())
    append_foreign(copy, "assistant")
    os.replace(copy, path)


def touch(path: Path, kind: str) -> None:
    """Change attributes; the bytes stay the same."""
    if kind == "ctime":
        mode = path.stat().st_mode
        path.chmod(mode ^ 0o020)
        path.chmod(mode)
    elif kind == "mtime":
        os.utime(path, (1, 1))
    elif kind == "hardlink":
        os.link(path, path.with_name(path.name + ".link"))
    else:
        raise ScenarioError(f"unknown attribute {kind!r}")


def corrupt_file(path: Path, how: str) -> bytes:
    """Damage a transcript. Returns what is left of the torn line, or nothing."""
    data = path.read_bytes()
    if how == "last line cut":
        kept = data[: len(data) - 10]
        path.write_bytes(kept)
        return kept[kept.rfind(b"\n") + 1 :]
    if how == "cut inside a multi-byte character":
        raw = json.dumps(entry(path, "assistant"), ensure_ascii=False).encode()
        torn = raw[: raw.index(b"somebody")] + "naïv".encode()[:3]
        with path.open("ab") as file:
            file.write(torn)
        return torn
    if how == "tool_result without call":
        message = {"role": "toolResult", "toolCallId": "nobody", "toolName": "work", "isError": False,
                   "content": [{"type": "text", "text": "late"}], "timestamp": 0}  # fmt: skip
        line = {**entry(path, "user"), "message": message}
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
        return b""
    if how == "thinking signature altered":
        content = [
            {"type": "thinking", "thinking": "hm", "thinkingSignature": "altered"},
            {"type": "text", "text": "said"},
        ]
        line = entry(path, "assistant")
        line["message"] = {**line["message"], "content": content}
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
        return b""
    raise ScenarioError(f"unknown damage {how!r}")
