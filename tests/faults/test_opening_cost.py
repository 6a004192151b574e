"""What opening a state and its first turn do not do: nothing of it grows with what is there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import holdfast

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
