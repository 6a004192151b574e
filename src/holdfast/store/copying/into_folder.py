"""From PostgreSQL into a state directory. Read `copy` first.

The folder is made beside its place, under a name that nobody opens (`.NAME.copying`, and `.NAME.copying.json` says of
which state), and gets its own name at the end. A transcript is written under another name and renamed, a table is one
transaction; what has its name, or its rows, is whole and is not copied again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.clock import Clock, epoch_ms
from holdfast.errors import InputError, ResourceError
from holdfast.store.copying import carried
from holdfast.store.copying.carried import Copied, Faults, Mark, Progress, Tally
from holdfast.store.copying.database import connect_alone, seen
from holdfast.store.embedded import durable, schema
from holdfast.store.embedded.state_dir import FOLDERS, FORMAT, StateDir, opening, unusable
from holdfast.store.postgres.connecting import without_password
from holdfast.store.postgres.schema import check_schema

if TYPE_CHECKING:
    import psycopg

BATCH_ROWS = 5000


def copy(
    url: str, target: Path, clock: Clock, *, hold: bool, progress: Progress, faults: Faults = lambda _: None
) -> Copied:
    """Raises InputError: there is no source, a node lives in it, or something is at `target` already."""
    target = Path(os.path.abspath(target))
    if os.path.lexists(target) and not (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        raise InputError(f"{target} is there already; move it away first, or name another")
    draft = target.with_name(f".{target.name}.copying")
    with closing(connect_alone(url)) as source:
        store = check_schema(source)
        if store is None:
            raise InputError(f"no state in {without_password(url)}: nobody has opened one there yet")
        source.execute("begin isolation level repeatable read read only")
        try:
            with opening(draft):
                return _Copy(source, draft, Mark(store, seen(source)), progress, faults).run(url, target, clock, hold)
        except OSError as exc:
            raise unusable(draft, exc) from exc


class _Copy:
    def __init__(
        self, source: psycopg.Connection[Any], draft: Path, mark: Mark, progress: Progress, faults: Faults
    ) -> None:
        self._source = source
        self._draft = draft
        self._mark = mark
        self._progress = progress
        self._faults = faults
        self._state = StateDir(draft, mark.store)
        self._tally = Tally()

    def run(self, url: str, target: Path, clock: Clock, hold: bool) -> Copied:
        archives = self._source.execute("select id, state from archives").fetchall()
        carried.refuse_unfinished([(row[0], row[1]) for row in archives])
        resumed = self._begin()
        self._copy_lines()
        place = self._draft / schema.LEDGER_NAME
        with closing(schema.connect(place)) as ledger:
            schema.create_or_check(ledger, self._mark.store)
            ledger.execute("pragma foreign_keys=off")
            for name, _, columns in carried.tables():
                self._copy_table(ledger, name, columns)
            self._settle_in(ledger, without_password(url), clock, hold)
            ledger.execute("pragma wal_checkpoint(truncate)")
        self._faults("copy.before_finish")
        self._take_place(target)
        self._faults("copy.finished")
        sessions, inputs, sends = carried.counts_of(lambda asked: self._source.execute(asked.encode()).fetchone()[0])  # type: ignore[index]  # a count has a row
        tally = self._tally
        return Copied(
            without_password(url), str(target), self._mark.store, sessions, tally.transcripts, tally.archives,
            tally.lines, tally.bytes, sum(tally.rows.values()), inputs, sends, resumed, tuple(tally.remarks),
        )  # fmt: skip

    def _begin(self) -> bool:
        """Make the folder, or find that of an earlier copy of this very state. Returns whether it was there."""
        draft, marked = self._draft, _mark_of(self._draft)
        mark = Mark.read(marked.read_text()) if marked.exists() else None
        if mark == self._mark:
            return True
        if mark is None and any(draft.iterdir()):
            raise InputError(f"{draft} is in the way of this copy, and is none; move it away")
        if mark is not None and mark.store != self._mark.store:
            raise InputError(f"{draft} is an unfinished copy of another state; remove it, or name another target")
        if mark is not None:
            self._tally.remarks.append("the source has changed since the earlier copy: begun anew")
            marked.unlink()
        for one in list(draft.iterdir()):
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        os.chmod(draft, 0o700)
        for folder in FOLDERS:
            (draft / folder).mkdir(mode=0o700)
        marker = json.dumps({"format": FORMAT, "store": self._mark.store}).encode() + b"\n"
        _write(draft / "holdfast.json", marker)
        _write(marked, self._mark.text().encode())
        self._faults("copy.begun")
        return False

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _copy_lines(self) -> None:
        known = [(row[0], self._path_of(row[1]), row[2])
                 for row in self._source.execute("select body, path, bytes from transcripts order by id")]  # fmt: skip
        archived = [(row[1], f"archives/{self._archive_name(*row)}", row[3])
                    for row in self._source.execute(_ARCHIVES)]  # fmt: skip
        total = sum(size for _, _, size in (*known, *archived))
        for body, name, _ in (*known, *archived):
            self._progress("transcripts", self._tally.bytes, total)
            self._copy_file(body, self._draft / name)
        self._tally.transcripts, self._tally.archives = len(known), len(archived)
        self._progress("transcripts", total, total)

    def _copy_file(self, body: str, path: Path) -> None:
        if path.exists():
            self._tally.bytes += path.stat().st_size
            row = self._source.execute("select count(*) from lines where transcript=%s", (body,)).fetchone()
            self._tally.lines += row[0] if row is not None else 0
            return
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        part, size, count, torn = path.with_name(f".{path.name}.part"), 0, 0, False
        fd = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, self._source.cursor(name="lines") as rows:
            rows.itersize = BATCH_ROWS
            for (raw,) in rows.execute("select raw from lines where transcript=%s order by seq", (body,)):
                file.write(b"\n" + raw if torn else raw)  # a torn line that others follow is closed, as an owner would
                size, count, torn = size + len(raw) + torn, count + 1, not raw.endswith(b"\n")
            file.flush()
            durable.sync_data(fd)
        if count:
            os.rename(part, path)  # a transcript that has not begun has no file
        else:
            part.unlink()
        self._tally.bytes += size
        self._tally.lines += count
        self._faults("copy.file")

    def _path_of(self, name: str) -> str:
        """Where the transcript of that name stands. A key's is made of the key; one from another folder has its path.

        Raises: ResourceError: a name that leads out of the folder.
        """
        if name.startswith("sessions/") and ".." not in Path(name).parts:
            return name
        if carried.is_key(name):
            return str(self._state.transcript_path(name).relative_to(self._draft))
        raise ResourceError(f"the transcript {name!r} has no place in a folder; no key is like that")

    def _archive_name(self, archive: str, name: str, path: str, _size: int) -> str:
        if name.endswith(".jsonl") and len(Path(name).parts) == 2 and ".." not in name:
            return name
        place = Path(self._path_of(path))
        return f"{place.parent.name}/{place.stem}.{archive}.jsonl"

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _copy_table(self, ledger: sqlite3.Connection, name: str, columns: list[str]) -> None:
        source = self._source
        row = source.execute(f"select count(*) from {name}".encode()).fetchone()  # noqa: S608  # names of our own
        total = self._tally.rows[name] = row[0] if row is not None else 0
        if ledger.execute(f"select count(*) from {name}").fetchone()[0] == total:  # noqa: S608
            return
        insert = f"insert into {name}({', '.join(columns)}) values({', '.join('?' * len(columns))})"
        change, done = self._changed(name, columns), 0
        ledger.execute(f"delete from {name}")  # noqa: S608  # a hold of the copy that was killed
        order = "order by rowid" if name == "sessions" else ""
        ledger.execute("begin immediate")
        with source.cursor(name="rows") as rows:
            rows.itersize = BATCH_ROWS
            rows.execute(f"select {', '.join(columns)} from {name} {order}".encode())  # noqa: S608
            while batch := rows.fetchmany(BATCH_ROWS):
                self._progress(name, done, total)
                ledger.executemany(insert, [change(list(row)) for row in batch])
                done += len(batch)
                self._faults("copy.rows")
        ledger.execute("commit")
        self._faults("copy.table")

    def _changed(self, name: str, columns: list[str]) -> Callable[[list[Any]], list[Any]]:
        """How a row is said of files: paths, names, and places within a transcript in bytes."""
        if name == "transcripts":
            path = columns.index("path")

            def place(row: list[Any]) -> list[Any]:
                row[path] = self._path_of(row[path])
                return row

            return place
        if name == "archives":
            named = {row[0]: self._archive_name(*row) for row in self._source.execute(_ARCHIVES)}
            at, own = columns.index("name"), columns.index("id")

            def call(row: list[Any]) -> list[Any]:
                row[at] = named[row[own]]
                return row

            return call
        if name == "inputs":
            state, where, which = (columns.index(one) for one in ("state", "first_offset", "transcript"))

            def count(row: list[Any]) -> list[Any]:
                if row[where] is not None and row[state] in ("queued", "running"):
                    row[where] = self._bytes_before(row[which], row[where])
                return row

            return count
        return lambda row: row

    def _bytes_before(self, transcript: str, seq: int) -> int:
        row = self._source.execute(
            "select coalesce(sum(length(raw)), 0) from lines where transcript=body_of(%s) and seq<=%s",
            (transcript, seq),
        ).fetchone()
        return int(row[0]) if row is not None else 0

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle_in(self, ledger: sqlite3.Connection, source: str, clock: Clock, hold: bool) -> None:
        """The hold, and a sentinel that nobody holds for each process: so it is known that none of them lives here."""
        ledger.execute("begin immediate")
        if hold:
            ledger.execute("insert or replace into holds(id, since_ms, reason) values(?,?,?)",
                           (carried.HELD, epoch_ms(clock.now()), carried.reason_of(source)))  # fmt: skip
        ledger.execute("commit")
        for (process,) in ledger.execute("select name from processes").fetchall():
            if Path(process).name == process and not process.startswith("."):
                _write(self._draft / "processes" / process, b"")

    def _take_place(self, target: Path) -> None:
        draft = self._draft
        for folder, _, _ in os.walk(draft, topdown=False):
            durable.sync_folder(Path(folder))
        if target.exists():
            target.rmdir()
        os.rename(draft, target)
        _mark_of(draft).unlink()
        durable.sync_folder(target.parent)


_ARCHIVES = """
select a.id, a.name, t.path, a.bytes from archives a join transcripts t on t.id=a.transcript order by a.id"""


def _mark_of(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.json")


def _write(path: Path, data: bytes) -> None:
    """A small file, whole under its name or not there."""
    part = path.with_name(f"{path.name}.part")
    fd = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        durable.write_all(fd, data)
        durable.sync_data(fd)
    finally:
        os.close(fd)
    os.rename(part, path)
