"""Conversations that others keep as plain chat messages: JSON lines, nanobot's sessions, hermes' database.

Each message becomes a line of the transcript format, with an id that follows from its place and its words, so that a
second run knows it again. What is no message of a person, a model or a tool is kept as a note for people.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast import ids
from holdfast.clock import epoch_ms, iso
from holdfast.errors import InputError
from holdfast.inbound.openai_messages import read_message
from holdfast.moving import quietly
from holdfast.moving.conversation import Conversation, Found, Lines
from holdfast.session.entries import CustomEntry, MessageEntry, custom, encode_line, stamped

NOTE_TYPE = "imported:line"
"""customType of what is no chat message: a system prompt, a checkpoint, a line that is no JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message as it stood, and whether the model still saw it there."""

    said: dict[str, Any]
    is_seen: bool = True


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────────────────────────────


def look_at_jsonl(path: Path, *, session: str | None, agent: str) -> Found:
    """A file, or a folder of files, of chat messages: one a line, or `{"messages": […]}` on each line.

    Raises: InputError: nothing is there, or one key is named for several files. OSError.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl")) if path.is_dir() else []
    if not files:
        raise InputError(f"no *.jsonl file at {path}")
    if session is not None and len(files) > 1:
        raise InputError(f"--session names one conversation, and {path} has {len(files)} files; name one of them")
    return Found(tuple(
        Conversation(session or f"agent:{agent}:imported:{one.stem}", str(one), _lines_of_file(one), one.stat().st_size)
        for one in files
    ))  # fmt: skip


def _lines_of_file(path: Path) -> Lines:
    """A transcript as it is; anything else as chat messages."""

    def read() -> Iterator[bytes]:
        first = next((raw for raw in quietly.lines_of(path) if raw.strip()), b"")
        header = _object(first)
        if header is not None and header.get("type") == "session":
            return quietly.lines_of(path)
        return as_lines(list(_messages(quietly.lines_of(path))))

    return read


def _messages(raws: Iterator[bytes]) -> Iterator[Message]:
    for raw in raws:
        if not raw.strip():
            continue
        said = _object(raw)
        if said is None:
            yield Message({"role": "", "content": raw.decode("utf-8", "replace")})
        elif isinstance(said.get("messages"), list):
            yield from (Message(one) for one in said["messages"] if isinstance(one, dict))
        else:
            yield Message(said)


# ── nanobot ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def look_at_nanobot(path: Path, *, agent: str) -> Found:
    """Its sessions, `*.jsonl` with a line of metadata first, in the folder `sessions` of its home or of a workspace.

    Source: nanobot-ai 0.3.5: the key stands in that line, or the file's name is the key in base64.

    Raises: InputError: nothing of it is there. OSError.
    """
    places = (path / "sessions", path / "workspace" / "sessions", path)
    folder = next((one for one in places if one.is_dir() and any(one.rglob("*.jsonl"))), None)
    if folder is None:
        raise InputError(f"no sessions of nanobot at {path}: name its home (~/.nanobot), a workspace or `sessions`")
    found, remarks = list[Conversation](), list[str]()
    for one in sorted(folder.rglob("*.jsonl")):
        about = _object(next(quietly.lines_of(one), b"")) or {}
        if about.get("_type") != "metadata":
            remarks.append(f"{one.name}: no session of nanobot (no line of metadata); not brought in")
            continue
        named = about.get("key")
        key = named if isinstance(named, str) and named else _decoded(one.stem)
        more = about.get("metadata")
        title = more.get("title") if isinstance(more, dict) else None
        found.append(Conversation(
            _as_key(key, agent), str(one), _lines_of_nanobot(one), one.stat().st_size,
            title=title if isinstance(title, str) else None,
        ))  # fmt: skip
    return Found(tuple(found), tuple(remarks))


def _lines_of_nanobot(path: Path) -> Lines:
    """What was summarised away by itself stays in the conversation, as it does there in the file."""

    def read() -> Iterator[bytes]:
        kept = [one for one in _messages(quietly.lines_of(path)) if one.said.get("_type") != "metadata"]
        return as_lines(kept)

    return read


def _decoded(stem: str) -> str:
    with suppress(ValueError):
        return base64.urlsafe_b64decode(stem + "=" * (-len(stem) % 4)).decode()
    return stem


def _as_key(key: str, agent: str) -> str:
    """`channel:chat` there is one conversation with somebody on that channel."""
    channel, colon, peer = key.partition(":")
    return f"agent:{agent}:{channel}:direct:{peer}" if colon and channel and peer else f"agent:{agent}:imported:{key}"


# ── hermes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def look_at_hermes(path: Path, *, agent: str, copies: ExitStack) -> Found:
    """The sessions of its database, `state.db`.

    Source: hermes-agent 0.19.0. Messages that it had summarised are brought in for people to read, those that were
    taken back are not. The conversations can be read as long as `copies` is open.

    Raises: InputError: it is no such database. ResourceError.
    """
    file = path / "state.db" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"no state.db at {path}: name hermes' home (~/.hermes) or the database")
    found, remarks = list[Conversation](), list[str]()
    db = copies.enter_context(quietly.database(file))
    try:
        for name, source, key, title in db.execute(
            "select id, source, session_key, display_name from sessions order by started_at"
        ).fetchall():
            size, taken_back = db.execute(
                "select coalesce(sum(length(content)), 0), sum(active=0 and compacted=0)"
                " from messages where session_id=?", (name,)
            ).fetchone()  # fmt: skip
            if taken_back:
                remarks.append(f"{name}: {taken_back} messages that were taken back there stay there")
            lines = _lines_of_hermes(db, name)
            found.append(
                Conversation(_hermes_key(key, name, source, agent), f"{file} ({name})", lines, size, title=title)
            )
    except sqlite3.OperationalError as exc:
        raise InputError(f"{file} is no database of hermes that this release knows: {exc}") from exc
    return Found(tuple(_under_one_key_each(found)), tuple(remarks))


def _hermes_key(key: str | None, name: str, source: str, agent: str) -> str:
    if key and key.startswith("agent:"):
        return key
    return f"agent:{agent}:imported:{key or f'{source}-{name}'}"


def _under_one_key_each(found: Sequence[Conversation]) -> Iterator[Conversation]:
    """Several sessions may have been one key's, one after the other: the last is the conversation now."""
    last = {one.key: one for one in found}
    for one in found:
        is_last = last[one.key] is one
        name = one.source.rpartition("(")[2].rstrip(")")
        yield one if is_last else Conversation(f"{one.key}:{name}", one.source, one.lines, one.size_bytes, one.title)


def _lines_of_hermes(db: sqlite3.Connection, session: str) -> Lines:
    return lambda: as_lines(list(_of_hermes(db, session)))


def _of_hermes(db: sqlite3.Connection, session: str) -> Iterator[Message]:
    for role, content, call, calls, tool, at, active in db.execute(
        "select role, content, tool_call_id, tool_calls, tool_name, timestamp, active from messages"
        " where session_id=? and (active<>0 or compacted<>0) order by id", (session,)
    ):  # fmt: skip
        said: dict[str, Any] = {"role": role, "content": _parts(content), "timestamp": at}
        more = {"tool_call_id": call, "name": tool, "tool_calls": _list(calls)}
        yield Message(said | {name: value for name, value in more.items() if value}, is_seen=bool(active))


def _parts(content: Any) -> Any:
    """Content of several parts is kept as JSON behind a mark."""
    if isinstance(content, str) and content.startswith("\x00json:"):
        with suppress(ValueError):
            return json.loads(content.removeprefix("\x00json:"))
    return content


def _list(text: Any) -> Any:
    with suppress(ValueError, TypeError):
        return json.loads(text)
    return None


# ── from messages to lines ───────────────────────────────────────────────────────────────────────────────────────────


def as_lines(messages: Sequence[Message]) -> Iterator[bytes]:
    """Lines of a transcript, without newlines. Where the model stopped seeing what was before, a new branch begins."""
    parent: str | None = None
    was_seen, calls = True, dict[str, str]()
    for number, message in enumerate(messages):
        if message.is_seen and not was_seen:
            parent = None
        was_seen = message.is_seen
        entry = _entry(message.said, calls)
        entry_id = ids.derived_id("plain", number, json.dumps(message.said, sort_keys=True, default=str))
        at = _time(message.said)
        yield encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=at, origin=None)).rstrip(b"\n")
        parent = entry_id


def _entry(said: dict[str, Any], calls: dict[str, str]) -> MessageEntry | CustomEntry:
    try:
        message = read_message(said, calls, "message")
    except InputError as wrong:
        return custom(NOTE_TYPE, {"said": said, "why": str(wrong)})
    return MessageEntry(message={**message, "timestamp": epoch_ms(datetime.fromisoformat(_time(said)))})


def _time(said: dict[str, Any]) -> str:
    """When it was said, as far as that is known: an ISO time, or seconds or milliseconds since 1970."""
    value = said.get("timestamp") or said.get("created_at") or said.get("time") or 0
    with suppress(ValueError, OverflowError, OSError, TypeError):
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return iso(at if at.tzinfo else at.replace(tzinfo=UTC))
        return iso(datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC))
    return iso(datetime.fromtimestamp(0, UTC))


def _object(raw: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        said = json.loads(raw)
        return said if isinstance(said, dict) else None
    return None
