"""From a state directory into PostgreSQL. Read `copy` first.

Each step is one transaction that says how far it came: a batch of lines, a batch of rows. While the mark `copying`
stands in `meta` nobody opens the state (`postgres/schema.py`); the last transaction takes it away.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from holdfast.clock import Clock, epoch_ms
from holdfast.errors import InputError
from holdfast.session.branch import leaf_after
from holdfast.session.lines import read_line
from holdfast.store.copying import carried, folder
from holdfast.store.copying.carried import Copied, Faults, Mark, Progress, Tally
from holdfast.store.copying.database import connect_alone
from holdfast.store.embedded.transcript_bytes import iter_lines
from holdfast.store.postgres import schema
from holdfast.store.postgres.connecting import without_password

BATCH = 5000
"""Rows, or lines, of one transaction."""
BATCH_BYTES = 4 * 1024 * 1024
_PROGRESS = "create table copied(what text primary key, at bigint not null, done boolean not null, leaf text)"


def copy(
    source: Path, url: str, clock: Clock, *, hold: bool, progress: Progress, faults: Faults = lambda _: None,
    at_once: int = BATCH,
) -> Copied:  # fmt: skip
    """Raises InputError: there is no source, somebody lives in it, or another state is in the database already."""
    with folder.reading(source) as found, closing(connect_alone(url)) as target:
        return _Copy(found, target, progress, faults, at_once).run(without_password(url), clock, hold=hold)


class _Copy:
    def __init__(
        self, found: folder.Folder, target: psycopg.Connection[Any], progress: Progress, faults: Faults, at_once: int
    ) -> None:
        self._at_once = at_once
        self._state = found.state
        self._ledger = found.ledger
        self._mark = Mark(found.state.store_id, found.seen)
        self._target = target
        self._progress = progress
        self._faults = faults
        self._tally = Tally()
        self._offsets: dict[str, list[int]] = {}  # where lines end, of transcripts whose inputs are open

    def run(self, target: str, clock: Clock, *, hold: bool) -> Copied:
        archives = [(row[0], row[1]) for row in self._ledger.execute("select id, state from archives")]
        carried.refuse_unfinished(archives)
        resumed = self._begin(target)
        self._target.execute("select set_config('holdfast.writer', %s, false)", (self._mark.store,))
        self._copy_lines()
        for name, _, columns in carried.tables():
            self._copy_table(name, columns)
        self._tell_of_what_stays()
        self._finish(str(self._state.path), clock, hold)
        sessions, inputs, sends = carried.counts_of(lambda asked: self._ledger.execute(asked).fetchone()[0])
        tally = self._tally
        return Copied(
            str(self._state.path), target, self._mark.store, sessions, tally.transcripts, tally.archives, tally.lines,
            tally.bytes, sum(tally.rows.values()), inputs, sends, resumed, tuple(tally.remarks),
        )  # fmt: skip

    def _begin(self, target: str) -> bool:
        """Make the tables, or find those of an earlier copy of this very state. Returns whether they were there."""
        raw = self._target
        with raw.transaction():
            there = schema.is_made(raw)
            if there:
                text = schema.copying(raw)
                mark = Mark.read(text) if text is not None else None
                if mark is None or mark.store != self._mark.store:
                    what = "a state" if mark is None else "an unfinished copy of another state"
                    raise InputError(
                        f"{what} is in {target} already; name another database, or drop its schema holdfast first"
                    )
                if mark == self._mark:
                    return True
                self._tally.remarks.append("the source has changed since the earlier copy: begun anew")
                raw.execute("drop schema holdfast cascade")
            schema.make(raw, store=self._mark.store, copying=self._mark.text())
            raw.execute(_PROGRESS)
        self._faults("copy.begun")
        return False

    def _reached(self, what: str) -> tuple[int, bool, str | None]:
        row = self._target.execute("select at, done, leaf from copied where what=%s", (what,)).fetchone()
        return (0, False, None) if row is None else (row[0], row[1], row[2])

    def _note(self, what: str, at: int, *, done: bool, leaf: str | None = None) -> None:
        self._target.execute(
            "insert into copied values(%s,%s,%s,%s) on conflict(what) do update"
            " set at=excluded.at, done=excluded.done, leaf=excluded.leaf",
            (what, at, done, leaf),
        )

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _copy_lines(self) -> None:
        known = [
            (row["id"], self._state.path / row["path"], row["synced_end"])
            for row in self._ledger.execute("select id, path, synced_end from transcripts order by id")
        ]
        archived = [
            (row["name"], self._state.path / "archives" / row["name"], None)
            for row in self._ledger.execute("select name from archives order by id")
        ]
        total = sum(_size(path) for _, path, _ in (*known, *archived))
        for body, path, synced in (*known, *archived):
            self._progress("transcripts", self._tally.bytes, total)
            self._copy_file(body, path, synced)
        self._tally.transcripts, self._tally.archives = len(known), len(archived)
        self._progress("transcripts", total, total)

    def _copy_file(self, body: str, path: Path, synced: int | None) -> None:
        at, done, leaf = self._reached(f"lines {body}")
        seq, offset = (0, 0) if not at else self._place_of(body)
        if not done and path.exists():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                for batch in _batches(iter_lines(fd, offset), self._at_once):
                    seq, offset, leaf = self._write_lines(body, batch, seq, offset, leaf, synced)
            finally:
                os.close(fd)
        if not done:
            self._note(f"lines {body}", seq, done=True, leaf=leaf)
            self._faults("copy.file")
        self._tally.lines += seq
        self._tally.bytes += offset

    def _place_of(self, body: str) -> tuple[int, int]:
        row = self._target.execute(
            "select count(*), coalesce(sum(length(raw)), 0) from lines where transcript=%s", (body,)
        ).fetchone()
        assert row is not None
        return row[0], int(row[1])

    def _write_lines(
        self, body: str, batch: list[bytes], seq: int, offset: int, leaf: str | None, synced: int | None
    ) -> tuple[int, int, str | None]:
        raw = self._target
        with raw.transaction():
            with raw.cursor().copy("copy lines(transcript, seq, id, raw, is_ours) from stdin") as into:
                for one in batch:
                    line = read_line(one.removesuffix(b"\n"))
                    leaf, seq, offset = leaf_after(leaf, line), seq + 1, offset + len(one)
                    # Past what a settlement has noted, what somebody else wrote is nobody's yet: the next owner tells.
                    is_ours = synced is None or offset <= synced or self._is_own(line.origin)
                    into.write_row((body, seq, line.id if line.kind == "entry" else None, one, is_ours))
            self._note(f"lines {body}", seq, done=False, leaf=leaf)
        self._faults("copy.lines")
        return seq, offset, leaf

    def _is_own(self, origin: Any) -> bool:
        return origin is not None and origin.store == self._mark.store

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _copy_table(self, name: str, columns: list[str]) -> None:
        at, done, _ = self._reached(name)
        said = ", ".join(columns)
        total = self._ledger.execute(f"select count(*) from {name}").fetchone()[0]  # noqa: S608  # names of our own
        self._tally.rows[name] = total
        if not done:
            rows = self._ledger.execute(f"select {said} from {name} order by {_order(self._ledger, name)}"  # noqa: S608
                                        f" limit -1 offset {at}")  # fmt: skip
            while batch := rows.fetchmany(self._at_once):
                self._progress(name, at, total)
                self._write_rows(name, columns, [self._row(name, columns, row) for row in batch], at + len(batch))
                at += len(batch)
            self._note(name, at, done=True)

    def _write_rows(self, name: str, columns: list[str], rows: list[list[Any]], at: int) -> None:
        raw = self._target
        more = {"processes": ["node"], "transcripts": ["body", "lines_end", "bytes", "leaf"],
                "archives": ["lines_end", "leaf"]}.get(name, [])  # fmt: skip
        into = sql.SQL("copy {}({}) from stdin").format(
            sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, [*columns, *more]))
        )
        with raw.transaction():
            with raw.cursor().copy(into) as writing:
                for row in rows:
                    writing.write_row([_said(value) for value in row])
            self._note(name, at, done=False)
        self._faults("copy.rows")

    def _row(self, name: str, columns: list[str], row: Any) -> list[Any]:
        said = list(row)
        if name == "processes":
            said.append(-1)  # none of them lives, and none of them has ever been a node: known to be dead at once
        elif name == "transcripts":
            at = columns.index("path")
            said[at] = self._key_of(row["id"], row["path"])
            seq, size, leaf = self._end_of(row["id"])
            said += [row["id"], seq, size, leaf]
        elif name == "archives":
            seq, _, leaf = self._end_of(row["name"])
            said += [seq, leaf]
        elif name == "inputs" and row["first_offset"] is not None and row["state"] in ("queued", "running"):
            said[columns.index("first_offset")] = self._lines_before(row["transcript"], row["first_offset"])
        return said

    def _key_of(self, transcript: str, path: str) -> str:
        """The key that a transcript was made for, whose name it has in a database; else its path stays its name."""
        for (key,) in self._ledger.execute(
            "select key from sessions where transcript=? order by created_at_ms, key", (transcript,)
        ):
            if self._state.transcript_path(key) == self._state.path / path:
                return key
        return path

    def _end_of(self, body: str) -> tuple[int, int, str | None]:
        seq, size = self._place_of(body)
        return seq, size, self._reached(f"lines {body}")[2]

    def _lines_before(self, transcript: str, offset: int) -> int:
        """An open input's place: in a file it is counted in bytes, in a table in lines."""
        if transcript not in self._offsets:
            ends, at = list[int](), 0
            for (length,) in self._target.execute(
                "select length(raw) from lines where transcript=%s order by seq", (transcript,)
            ):
                at += length
                ends.append(at)
            self._offsets[transcript] = ends
        return bisect_right(self._offsets[transcript], offset)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell_of_what_stays(self) -> None:
        listed = {row[0] for row in self._ledger.execute("select path from transcripts")}
        listed |= {f"archives/{row[0]}" for row in self._ledger.execute("select name from archives")}
        beside = [one for one in folder.transcript_files(self._state)
                  if str(one.relative_to(self._state.path)) not in listed]  # fmt: skip
        if beside:
            self._tally.remarks.append(
                f"{len(beside)} file(s) beside the transcripts stay in {self._state.path}: {beside[0].name}"
                + (", ..." if len(beside) > 1 else "")
            )

    def _finish(self, source: str, clock: Clock, hold: bool) -> None:
        raw = self._target
        self._faults("copy.before_finish")
        with raw.transaction():
            for table, column in raw.execute(
                "select table_name, column_name from information_schema.columns"
                " where table_schema='holdfast' and is_identity='YES' and column_name='seq'"
            ).fetchall():
                raw.execute(
                    sql.SQL("select setval(pg_get_serial_sequence(%s, 'seq'), greatest(max({}), 1)) from {}").format(
                        sql.Identifier(column), sql.Identifier(table)
                    ),
                    (f"holdfast.{table}",),
                )
            if hold:
                raw.execute(
                    "insert into holds(id, since_ms, reason) values(%s,%s,%s) on conflict do nothing",
                    (carried.HELD, epoch_ms(clock.now()), carried.reason_of(source)),
                )
            raw.execute("drop table copied")
            raw.execute("delete from meta where key='copying'")
        raw.execute("analyze")
        self._faults("copy.finished")


def _order(ledger: Any, name: str) -> str:
    """In which order rows are read: a later try counts them alike, and sessions keep theirs."""
    made = ledger.execute("select sql from sqlite_master where name=?", (name,)).fetchone()[0]
    if "without rowid" not in made:
        return "rowid"
    key = next(key for found, key, _ in carried.tables() if found == name)
    return ", ".join(key)


def _said(value: Any) -> Any:
    """PostgreSQL's text has no character 0."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _batches(lines: Iterator[bytes], at_once: int) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= at_once or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
