"""What there is to bring in of an OpenClaw state directory: its agents, their sessions, transcripts and archives.

    agents/AGENT/sessions/sessions.json            which session is which transcript, with its settings
    agents/AGENT/sessions/SESSION.jsonl            a transcript; also SESSION-topic-TOPIC.jsonl
    agents/AGENT/sessions/….jsonl.reset.TIME       an earlier one, put away when the session began anew; .deleted, .bak
    agents/AGENT/agent/openclaw-agent.sqlite       all of that, in newer releases

A folder of transcripts alone, or one transcript, will do as well. What is only read stays as it is, to the access time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import InputError
from holdfast.moving import quietly
from holdfast.moving.conversation import Conversation, Found, Lines
from holdfast.moving.openclaw_database import Window, read_windows
from holdfast.moving.openclaw_session import Entry, read_entry

STATE_VARIABLE, STATE_AT_HOME = "OPENCLAW_STATE_DIR", ".openclaw"
ORIGINALS = "session-sqlite-import-archive"
"""Where OpenClaw 2026.9 keeps the files that it has read into its database, up to a line that it could not read."""
STORE_BYTES_MAX = 256 * 1024 * 1024
_ARCHIVED = re.compile(r"(?P<stem>.+)\.jsonl\.(?P<why>reset|deleted|bak)\.(?P<at>[0-9A-Za-z.:_-]+)")
_COPY = re.compile(r".+\.(checkpoint\.[^.]+\.jsonl|trajectory\.jsonl|jsonl\.bak-.+)|.+\.trajectory-path\.json")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them. agent: in place of the one that they had; archives, deleted: whether what was put away, and what
    was thrown away, comes along; live: the program may be at work, so an unfinished last line is left for the next run.
    """

    archives: bool = True
    deleted: bool = False
    agent: str | None = None
    live: bool = False


@dataclass(slots=True)
class _Remarks:
    """Of files that stay where they are, one name and a count each."""

    seen: dict[str, list[str]] = field(default_factory=dict)

    def note(self, why: str, name: str) -> None:
        self.seen.setdefault(why, []).append(name)

    def told(self) -> Iterator[str]:
        for why, names in self.seen.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"{names[0]}{more}: {why}"


def state_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Where a live OpenClaw of this user keeps its state."""
    named = environ.get(STATE_VARIABLE, "").strip()
    return Path(named).expanduser() if named else home / STATE_AT_HOME


def look(path: Path, wanted: Wanted, copies: ExitStack) -> Found:
    """All conversations there. Those of databases can be read as long as `copies` is open.

    Raises: InputError: nothing of OpenClaw's is there. ResourceError: a database cannot be read. OSError.
    """
    if not path.exists():
        raise InputError(f"{path} is not there; name OpenClaw's state directory (~/.openclaw), a folder of transcripts "
                         "or one transcript")  # fmt: skip
    if (path / "holdfast.json").exists():
        raise InputError(f"{path} is a state of Holdfast itself; name OpenClaw's state directory, such as ~/.openclaw")
    remarks = _Remarks()
    if path.is_file():
        return Found(tuple(_one_file(path, wanted, copies)))
    folders = sorted(one for one in (path / "agents").glob("*") if one.is_dir())
    if folders:
        found = [one for folder in folders for one in _agent(folder, wanted, remarks, copies)]
    elif (path / "sessions").is_dir() or (path / "agent").is_dir():
        found = list(_agent(path, wanted, remarks, copies))
    elif any(_is_transcript(one.name) for one in path.iterdir()) or (path / "sessions.json").exists():
        found = list(_files(path, wanted.agent or "main", wanted, remarks, done=set()))
    else:
        raise InputError(f"{path} has no `agents` folder, no `sessions.json` and no transcripts (*.jsonl): name "
                         "OpenClaw's state directory, such as ~/.openclaw")  # fmt: skip
    return Found(tuple(_told_apart(found)), tuple(remarks.told()))


def _one_file(path: Path, wanted: Wanted, copies: ExitStack) -> Iterable[Conversation]:
    agent = wanted.agent or "main"
    if path.suffix == ".sqlite":
        windows, _ = read_windows(path, copies)
        return [made for one in windows if (made := _of_window(one, path, agent, wanted))]
    return [Conversation(f"agent:{agent}:imported:{_stem(path.name)}", str(path), _reader(path, wanted), _size(path))]


def _agent(folder: Path, wanted: Wanted, remarks: _Remarks, copies: ExitStack) -> Iterator[Conversation]:
    agent = wanted.agent or folder.name
    database = folder / "agent" / "openclaw-agent.sqlite"
    done: set[str] = set()
    if database.exists():
        windows, left = read_windows(database, copies)
        for remark in left:
            remarks.note(remark, str(database))
        for kept in sorted((folder / ORIGINALS).glob("*.jsonl.imported-*")):
            remarks.note(f"kept in {folder / ORIGINALS} when OpenClaw moved into its database; if that lacks lines, "
                         "bring in this file by its name", kept.name)  # fmt: skip
        for one in windows:
            done.add(one.session_id)
            made = _of_window(one, database, agent, wanted)
            if made is not None:
                yield made
    if (folder / "sessions").is_dir():
        yield from _files(folder / "sessions", agent, wanted, remarks, done=done)


def _of_window(one: Window, path: Path, agent: str, wanted: Wanted) -> Conversation | None:
    if not one.is_current and not wanted.archives:
        return None
    key = _renamed(one.key, wanted) if one.is_current else f"agent:{agent}:imported:{one.session_id}"
    entry = one.entry if one.entry is not None and one.is_current else read_entry({})
    return Conversation(
        key, f"{path} ({one.session_id})", one.lines, one.size_bytes,
        title=entry.title, pin=entry.pin, queue=entry.queue, left=entry.left,
    )  # fmt: skip


def _files(folder: Path, agent: str, wanted: Wanted, remarks: _Remarks, *, done: set[str]) -> Iterator[Conversation]:
    """Those that `sessions.json` names under their keys, then the others. done: sessions that a database has."""
    taken: set[Path] = set()
    for key, entry in _store(folder / "sessions.json", remarks):
        path = _transcript_of(folder, entry)
        if entry.session_id in done:
            taken.add(path)
            continue
        if not path.is_file():
            remarks.note("has no transcript, so nothing was said in it", key)
            continue
        taken.add(path)
        yield Conversation(
            _renamed(key, wanted), str(path), _reader(path, wanted), _size(path), title=entry.title, pin=entry.pin,
            queue=entry.queue, left=entry.left,
        )  # fmt: skip
    for path in sorted(folder.iterdir()):
        if path in taken or not path.is_file() or _stem(path.name) in done:
            continue
        archived = _ARCHIVED.fullmatch(path.name)
        if _COPY.fullmatch(path.name) or (archived is not None and archived["why"] == "bak"):
            remarks.note("a copy, or none of a conversation; not brought in", path.name)
        elif archived is not None and not (wanted.deleted if archived["why"] == "deleted" else wanted.archives):
            how = "--deleted brings it in" if archived["why"] == "deleted" else "left by --no-archives"
            remarks.note(f"was {'thrown away' if archived['why'] == 'deleted' else 'put away'} there; {how}", path.name)
        elif archived is not None or path.suffix == ".jsonl":
            name = path.name if archived is None else f"{archived['stem']}.{archived['why']}.{archived['at']}"
            yield Conversation(f"agent:{agent}:imported:{_stem(name)}", str(path), _reader(path, wanted), _size(path))


def _store(path: Path, remarks: _Remarks) -> Iterator[tuple[str, Entry]]:
    if not path.exists():
        return
    if _size(path) > STORE_BYTES_MAX:
        remarks.note("is larger than any list of sessions; not read", str(path))
        return
    try:
        said: Any = json.loads(quietly.read_all(path))
    except ValueError as wrong:
        remarks.note(f"cannot be read ({wrong}); its transcripts come in without their keys and settings", str(path))
        return
    for key, entry in (said if isinstance(said, dict) else {}).items():
        if isinstance(entry, dict):
            yield key, read_entry(entry)


def _transcript_of(folder: Path, entry: Entry) -> Path:
    """Where it says, if that is there; a state that was moved has it in its own folder under the same name."""
    if entry.file:
        named = folder / entry.file
        return named if named.is_file() else folder / Path(entry.file).name
    return folder / f"{os.path.basename(entry.session_id)}.jsonl"


def _renamed(key: str, wanted: Wanted) -> str:
    """The key, of another agent if one was named. Keys without an agent are `main`'s here as there."""
    head, _, rest = key.partition(":")
    if wanted.agent is None:
        return key
    return f"agent:{wanted.agent}:{rest.partition(':')[2]}" if head == "agent" else f"agent:{wanted.agent}:{key}"


def _told_apart(found: Iterable[Conversation]) -> Iterator[Conversation]:
    """Of several that would have one key the first has it; the others' end in a number."""
    seen: dict[str, int] = {}
    for one in found:
        count = seen[one.key] = seen.get(one.key, 0) + 1
        yield one if count == 1 else _with_key(one, f"{one.key}:{count}")


def _with_key(one: Conversation, key: str) -> Conversation:
    return Conversation(key, one.source, one.lines, one.size_bytes, one.title, one.pin, one.queue, one.left)


def _is_transcript(name: str) -> bool:
    return name.endswith(".jsonl") or _ARCHIVED.fullmatch(name) is not None


def _reader(path: Path, wanted: Wanted) -> Lines:
    return lambda: quietly.lines_of(path, is_live=wanted.live)


def _stem(name: str) -> str:
    return name.removesuffix(".jsonl")


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
