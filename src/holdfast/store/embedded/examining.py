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
    ClaimFact,
    CountFact,
    DeliveryFact,
    DiskFacts,
    FileFact,
    LedgerFacts,
    OpenInputFact,
    SessionFact,
    StateFacts,
    StrayTurnFact,
    TranscriptFact,
    UnsentFact,
)
from holdfast.doctor.lines import LinesFound
from holdfast.recovery.classify import Life
from holdfast.session.entries import LINE_BYTES_MAX
from holdfast.session.key import key_of_stem
from holdfast.store.embedded.reader import Looks
from holdfast.store.embedded.sentinel import life_by_boot, probe
from holdfast.store.embedded.state_dir import SHARED_FILE_SYSTEMS, StateDir, file_system_of, look_at_state_dir
from holdfast.store.embedded.transcript_bytes import iter_blocks
from holdfast.store.sql import archive_rows, boots, claims, model_rows
from holdfast.store.sql.rows import view_of_input

Progress = Callable[[str, int, int], None]
"""Told what is looked at, how much of it is done, and how much there is."""
WEEK_MS = 7 * 86_400_000
TAKEN_OVER_MAX = 100
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
        held = boots.held(conn)
        return LedgerFacts(
            claims=tuple(_claims(conn, life_of)),
            inputs=tuple(_open_inputs(conn)),
            unsent=tuple(_unsent(conn)),
            deliveries=tuple(_deliveries(conn, life_of)),
            strays=tuple(_strays(conn)),
            counts=tuple(_counts(conn)),
            pins=tuple(model_rows.pin_facts(conn)),
            sessions=tuple(_sessions(conn)),
            archives=tuple(_archives(conn, state.path)),
            newest_ms=_newest_ms(conn),
            held_since_ms=None if held is None else held.since_ms,
            held="" if held is None else held.way_out,
            gateways=sum(life_of(name) == "alive" for name in boots.gateways(conn)),
            taken_over=tuple(_taken_over(conn, now_ms)),
            damage=tuple(row[0] for row in conn.execute("pragma quick_check(5)") if row[0] != "ok"),
        )
    finally:
        conn.execute("rollback")


def _claims(conn: sqlite3.Connection, life_of: Callable[[str], Life]) -> Iterator[ClaimFact]:
    for one in claims.owners(conn, "", life_of):
        row = conn.execute("select state from turns where id=?", (one.turn,)).fetchone()
        yield ClaimFact(
            one.transcript, one.sessions, one.turn, one.lane, one.process, one.pid, one.life, row[0] if row else None
        )


def _open_inputs(conn: sqlite3.Connection) -> Iterator[OpenInputFact]:
    rows = conn.execute(
        "select i.id, i.session, i.state, i.turn, i.accepted_at_ms, t.id as placed,"
        " t.owner_turn is not null and t.owner_turn=i.turn and t.epoch_nonce=i.epoch_nonce as owned"
        " from inputs i left join transcripts t on t.id=i.transcript where i.state in ('queued', 'running')"
    )
    for row in rows:
        yield OpenInputFact(
            row["id"], row["session"], row["state"], row["turn"], bool(row["owned"]), row["placed"] is not None,
            row["accepted_at_ms"],
        )  # fmt: skip


def _unsent(conn: sqlite3.Connection) -> Iterator[UnsentFact]:
    rows = conn.execute(
        "select * from inputs i where state='answered' and route_channel is not null"
        " and not exists(select 1 from outbox o where o.input=i.id)"
    )
    for row in rows:
        view = view_of_input(row)
        yield UnsentFact(
            view.id, view.session, view.route or "", view.answer, view.detail, view.settled_at_ms or view.accepted_at_ms
        )


def _deliveries(conn: sqlite3.Connection, life_of: Callable[[str], Life]) -> Iterator[DeliveryFact]:
    for row in conn.execute("select * from outbox where state not in ('sent', 'dropped') order by seq"):
        life = life_of(row["process"]) if row["state"] == "started" and row["process"] else None
        yield DeliveryFact(
            row["id"], row["input"], row["channel"], row["target"], row["state"], row["attempts"], row["detail"],
            row["updated_at_ms"], life,
        )  # fmt: skip


def _strays(conn: sqlite3.Connection) -> Iterator[StrayTurnFact]:
    rows = conn.execute(
        "select id, session, process from turns u where state='running'"
        " and not exists(select 1 from transcripts t where t.id=u.transcript and t.owner_turn=u.id)"
    )
    for row in rows:
        yield StrayTurnFact(row["id"], row["session"], row["process"])


def _counts(conn: sqlite3.Connection) -> Iterator[CountFact]:
    kept = {(row[0], row[1]): (row[2], row[3]) for row in conn.execute("select * from depths")}
    true: dict[tuple[str, str], tuple[int, int]] = {}
    for transcript, lane, count, queued in conn.execute(
        "select transcript, lane, count(*), sum(state='queued') from inputs where state in ('queued', 'running')"
        " group by transcript, lane"
    ):
        true[transcript, lane] = (count, queued)
        before = true.get(("", lane), (0, 0))
        true["", lane] = (before[0] + count, before[1] + queued)
    for transcript, lane in sorted(kept.keys() | true.keys()):
        a, b = kept.get((transcript, lane), (0, 0)), true.get((transcript, lane), (0, 0))
        if a != b:
            yield CountFact(transcript, lane, a, b)


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


def _newest_ms(conn: sqlite3.Connection) -> int:
    """Of what was added last in each table: a clock that is behind them was set back, or theirs was ahead."""
    asked = (
        "select accepted_at_ms from inputs order by seq desc limit 1",
        "select at_ms from events order by seq desc limit 1",
        "select started_at_ms from turns order by id desc limit 1",
        "select max(started_at_ms) from processes",
    )
    return max((row[0] or 0 for sql in asked for row in conn.execute(sql)), default=0)


def _taken_over(conn: sqlite3.Connection, now_ms: int) -> list[tuple[str, str]]:
    rows = conn.execute(
        "select id, session from turns where outcome='taken_over' and ended_at_ms>=? order by id desc limit ?",
        (now_ms - WEEK_MS, TAKEN_OVER_MAX),
    )
    return [(row["id"], row["session"]) for row in rows]


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
