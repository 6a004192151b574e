"""The database in which newer releases of OpenClaw (2026.9) keep an agent's sessions: `agent/openclaw-agent.sqlite`.

Source: the tables as the release makes them. `session_nodes` has a row per session key with its entry,
`session_windows` one per transcript of it, the current and earlier ones; `transcript_events` the lines, as text or
compressed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import InputError
from holdfast.moving import quietly
from holdfast.moving.conversation import Lines
from holdfast.moving.openclaw_session import Entry, read_entry

EVENT_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """One transcript: which session's, whether it is the current one, and its lines."""

    session_id: str
    key: str
    is_current: bool
    entry: Entry | None
    lines: Lines
    size_bytes: int


def read_windows(path: Path, copies: ExitStack) -> tuple[list[Window], list[str]]:
    """All transcripts of an agent's database, and remarks on what is not among them. Lines can be read as long as
    `copies` is open.

    Raises: InputError: it is no such database, or has lines that only the extra `openclaw` can unpack. ResourceError.
    """
    found = copies.enter_context(quietly.database(path))
    try:
        return _windows(found), _remarks(found)
    except sqlite3.OperationalError as exc:
        raise InputError(f"{path} is no session database of OpenClaw that this release knows: {exc}") from exc


def _windows(found: sqlite3.Connection) -> list[Window]:
    nodes = {row[0]: (row[1], row[2]) for row in found.execute(
        "select session_key, current_session_id, entry_json from session_nodes"
    )}  # fmt: skip
    windows: list[Window] = []
    for session_id, key in found.execute(
        "select session_id, session_key from session_windows order by created_at"
    ).fetchall():
        current, entry = nodes.get(key, (None, None))
        is_current = current == session_id
        known = _entry(entry) if is_current else None
        lines, size = _reader(found, session_id), _size(found, session_id)
        windows.append(Window(session_id, key, is_current, known, lines, size))
    return windows


def _entry(text: Any) -> Entry | None:
    with suppress(ValueError, TypeError):
        said = json.loads(text)
        return read_entry(said) if isinstance(said, dict) else None
    return None


def _size(found: sqlite3.Connection, session_id: str) -> int:
    return found.execute(
        "select coalesce(sum(coalesce(event_utf8_bytes, length(event_json))), 0) from transcript_events"
        " where session_id=?", (session_id,)
    ).fetchone()[0]  # fmt: skip


def _reader(found: sqlite3.Connection, session_id: str) -> Lines:
    return lambda: _lines(found, session_id)


def _lines(found: sqlite3.Connection, session_id: str) -> Iterator[bytes]:
    """In the order in which they were written. Text is one line of JSON already; if not, it is put on one."""
    unpack: Callable[[bytes], bytes] | None = None
    for text, packed in found.execute(
        "select event_json, event_zstd from transcript_events where session_id=? order by seq", (session_id,)
    ):
        if text is None:
            unpack = unpack or _unpacker()
            text = unpack(packed).decode("utf-8", "surrogateescape")
        raw = text.encode("utf-8", "surrogateescape")
        if b"\n" in raw:
            with suppress(ValueError):
                raw = json.dumps(json.loads(text), separators=(",", ":")).encode()
        yield raw.replace(b"\n", b" ")


def _unpacker() -> Callable[[bytes], bytes]:
    try:
        import zstandard
    except ImportError:
        raise InputError(
            "this database has compressed lines, which need the extra `openclaw`: pip install 'holdfast[openclaw]'"
        ) from None
    return lambda packed: zstandard.ZstdDecompressor().decompress(packed, max_output_size=EVENT_BYTES_MAX)


def _remarks(found: sqlite3.Connection) -> list[str]:
    """What the database has besides, that is only counted."""
    asked = {
        "transcripts that OpenClaw had packed away as archives stay there": "session_transcript_archives",
        "transcripts that OpenClaw had put into cold storage stay there": "session_transcript_cold_archives",
        "messages that waited for their turn stay there: send them again": "session_pending_inputs",
    }
    remarks: list[str] = []
    for words, table in asked.items():
        with suppress(sqlite3.OperationalError):
            count = found.execute(f"select count(*) from {table}").fetchone()[0]  # noqa: S608  # names of our own
            remarks += [f"{count} {words}"] if count else []
    return remarks
