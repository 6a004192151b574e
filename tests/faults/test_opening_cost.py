"""What opening a state and its first turn do not do: nothing of it grows with what is there."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

import holdfast
from holdfast.store.embedded import schema

KEY = "agent:main:main"


async def used(state: Path) -> None:
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("before"))


async def test_the_first_append_of_a_known_session_needs_no_thread_of_the_ledger(state: Path) -> None:
    """Each thread that has to be made first costs a hundred microseconds, on a busy machine milliseconds."""
    await used(state)
    before = set(threading.enumerate())
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("first"))
        assert set(threading.enumerate()) - before == set()


async def test_opening_keeps_the_log_that_it_has_begun_to_read(state: Path) -> None:
    """Closing the connection that checks the ledger would have SQLite remove its log and make it anew."""
    await used(state)
    logs: set[int] = set()

    def look(_: str) -> None:
        logs.add(os.stat(state / "ledger.sqlite3-wal").st_ino)

    async with holdfast.open(state, faults=look) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("first"))
    assert len(logs) == 1


async def test_a_second_handle_of_a_process_lets_go_of_no_lock_of_the_first(state: Path) -> None:
    """Closing any descriptor of the ledger would: SQLite's locks are the process's, not the descriptor's."""
    async with holdfast.open(state) as one:
        locks = Path("/proc/locks")
        if not locks.exists():
            return
        inode = os.stat(state / "ledger.sqlite3").st_ino

        def held() -> int:
            return sum(f":{inode} " in line and f" {os.getpid()} " in line for line in locks.read_text().splitlines())

        await one.inputs()
        before = held()
        async with holdfast.open(state):
            assert held() >= before > 0


@pytest.mark.parametrize("left", ["nothing", "a draft", "an empty ledger"])
async def test_a_new_ledger_appears_whole_and_as_if_its_tables_had_been_made_one_by_one(state: Path, left: str) -> None:
    """An empty one is what an older release leaves that died at once, and what a SQLite begins with that cannot write
    out what it has in memory.
    """
    state.mkdir(mode=0o700)
    if left != "nothing":
        (state / ("ledger.new" if left == "a draft" else schema.LEDGER_NAME)).write_bytes(b"")
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("first"))
    assert not (state / "ledger.new").exists()
    with closing(sqlite3.connect(":memory:")) as by_hand, closing(sqlite3.connect(state / schema.LEDGER_NAME)) as made:
        by_hand.executescript(schema.TABLES + schema.ADDED)
        tables = "select type, name, sql from sqlite_master where sql is not null order by name"
        assert made.execute(tables).fetchall() == by_hand.execute(tables).fetchall()
        assert made.execute("pragma journal_mode").fetchone() == ("wal",)
        assert made.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert made.execute("pragma user_version").fetchone() == (schema.SCHEMA_VERSION,)
