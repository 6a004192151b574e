"""What `holdfast doctor` wants to know of an embedded state. Nothing in it changes, whoever uses it meanwhile.

The ledger is asked in one read transaction, so that what it says fits together; files are looked at before and after
that, and may be of another moment: what can be over in an instant is looked for twice (`doctor/checkup.py`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from holdfast.doctor.facts import (
    ArchiveFact,
    DiskFacts,
    FileFact,
    LedgerFacts,
    SessionFact,
    StateFacts,
    TranscriptFact,
)
from holdfast.doctor.lines import LinesFound
from holdfast.recovery.classify import Life
from holdfast.session.entries import LINE_BYTES_MAX
from holdfast.session.key import key_of_stem
from holdfast.store.embedded.reader import Looks
from holdfast.store.embedded.sentinel import life_by_boot, probe
from holdfast.store.embedded.state_dir import SHARED_FILE_SYSTEMS, StateDir, file_system_of, look_at_state_dir
from holdfast.store.embedded.transcript_bytes import iter_blocks
from holdfast.store.sql import archive_rows
from holdfast.store.sql.examining import ledger_facts

Progress = Callable[[str, int, int], None]
"""Told what is looked at, how much of it is done, and how much there is."""
OF_STATE = ("processes", "sessions", "fence", "archives", "bells", "background")
"""Folders that hold nothing but our files; a workspace or a plugin's folder beside them is its owner's."""
OF_USERS = ("holdfast.toml",)
"""Written by people, with rights as they like; what is secret in it is looked at with the configuration."""


def examine(path: Path, now_ms: int, progress: Progress = lambda _what, _done, _all: None) -> StateFacts:
    """Everything the checks need. Takes about a second per 200 MB of transcripts.

    Raises:
        ResourceError: not a state directory, or not readable at all. StateVersionError: written by a newer release.
    """
    state = look_at_state_dir(path)
    ledger, problem = LedgerFacts(), ""
    looks = Looks(state.path)
    try:
        progress("ledger", 0, 1)
        connection = looks.connect()
        try:
            ledger = _ledger(connection, state, now_ms)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as exc:
        problem = str(exc)
    finally:
        looks.close()
    transcripts = tuple(_transcripts(state, ledger, progress))
    return StateFacts(
        str(state.path),
        now_ms,
        ledger,
        transcripts,
        tuple(_files(state.path)),
        _disk(state.path),
        problem,
        _living(state),
    )


def _living(state: StateDir) -> int:
    try:
        return len(state.living())
    except FileNotFoundError:
        return 0  # a folder that was lost: whoever opens the state makes it


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _ledger(conn: sqlite3.Connection, state: StateDir, now_ms: int) -> LedgerFacts:
    def life_of(process: str) -> Life:
        life = probe(state.processes, process)
        return life if life != "unknown" else life_by_boot(conn, process)

    conn.execute("begin")
    try:
        return replace(
            ledger_facts(conn, now_ms, life_of),
            sessions=tuple(_sessions(conn)),
            archives=tuple(_archives(conn, state.path)),
            damage=tuple(row[0] for row in conn.execute("pragma quick_check(5)") if row[0] != "ok"),
        )
    finally:
        conn.execute("rollback")


def _sessions(conn: sqlite3.Connection) -> Iterator[SessionFact]:
    rows = conn.execute(
        "select s.key, t.id, t.path, t.synced_end>0 or t.fingerprint is not null as spoken"
        " from sessions s join transcripts t on t.id=s.transcript order by s.key"
    )
    for row in rows:
        yield SessionFact(row["key"], row["id"], row["path"], bool(row["spoken"]))


def _archives(conn: sqlite3.Connection, folder: Path) -> Iterator[ArchiveFact]:
    left = {one.id for one in archive_rows.unfinished(conn)}
    for row in conn.execute("select id, session, name, state, bytes from archives order by at_ms"):
        try:
            found: int | None = os.lstat(folder / "archives" / row["name"]).st_size
        except OSError:
            found = None
        yield ArchiveFact(row["id"], row["session"], row["name"], row["state"], row["bytes"], found, row["id"] in left)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _transcripts(state: StateDir, ledger: LedgerFacts, progress: Progress) -> Iterator[TranscriptFact]:
    listed: dict[str, list[str]] = {}
    for one in ledger.sessions:
        listed.setdefault(one.path, []).append(one.key)
    owned = {one.transcript for one in ledger.claims}
    in_use = {one.path for one in ledger.sessions if one.transcript in owned}
    paths = [path for path in sorted(state.sessions.glob("*/*.jsonl")) if ".kept-" not in path.name]
    sizes = [(path, _size(path)) for path in paths]
    total, done = sum(size for _, size in sizes), 0
    for path, size in sizes:
        progress("transcripts", done, total)
        done += size
        if path.is_symlink():
            continue  # judged as a link; what it leads to is listed by its own name
        name = str(path.relative_to(state.path))
        keys = tuple(listed.get(name, ()))
        key = None if keys else key_of_stem(path.stem)  # which takes some milliseconds
        fits = key is not None and state.transcript_path(key) == path
        yield _read(path, TranscriptFact(
            name, size, key if fits else None, tuple(listed.get(name, ())), in_use=name in in_use
        ))  # fmt: skip
    progress("transcripts", total, total)


def _read(path: Path, fact: TranscriptFact) -> TranscriptFact:
    found = LinesFound()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return replace(fact, unread="not a regular file")
            for raw in _bounded_lines(fd):
                if fact.in_use and not raw.endswith(b"\n"):
                    break  # its owner is writing it
                found.take(raw.removesuffix(b"\n"))
        finally:
            os.close(fd)
    except OSError as exc:
        return replace(fact, unread=exc.strerror or str(exc))
    return replace(fact, faults=found.faults, unanswered=found.unanswered, unasked=found.unasked)


def _bounded_lines(fd: int) -> Iterator[bytes]:
    """The lines of a file. One that is too long to be a line is cut where that is sure: memory stays bounded whatever
    somebody has put there.
    """
    rest = bytearray()
    for block in iter_blocks(fd, 0, sys.maxsize):
        *whole, last = block.split(b"\n")
        for part in whole:
            rest += part[: LINE_BYTES_MAX + 1 - len(rest)]
            yield bytes(rest) + b"\n"
            rest.clear()
        rest += last[: LINE_BYTES_MAX + 1 - len(rest)]
    if rest:
        yield bytes(rest)


def _files(state: Path) -> Iterator[FileFact]:
    """The state directory, its files, and what is below its own folders."""
    yield _file(state, state)
    there = [one for one in sorted(state.iterdir()) if one.name not in OF_USERS]
    waiting = [one for one in there if not one.is_dir() or one.is_symlink() or one.name in OF_STATE]
    while waiting:
        path = waiting.pop()
        try:
            fact = _file(state, path)
            if fact.kind == "folder":
                waiting += path.iterdir()
        except OSError:
            continue  # gone meanwhile, or judged by what its folder says
        yield fact


def _file(state: Path, path: Path) -> FileFact:
    found = os.lstat(path)
    is_ours = found.st_uid == os.geteuid()
    name = str(path.relative_to(state)) if path != state else "."
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        real = os.path.realpath(path)
        inside = Path(real).is_relative_to(os.path.realpath(state))
        return FileFact(name, "link", mode, is_ours, "" if inside else real)
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return FileFact(name, kind, mode, is_ours)


def _disk(path: Path) -> DiskFacts:
    kind, room = file_system_of(path), os.statvfs(path)
    files = room.f_favail if room.f_files else None
    return DiskFacts(kind, kind in SHARED_FILE_SYSTEMS, room.f_bavail * room.f_frsize, files)


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
