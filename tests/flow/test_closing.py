"""A handle that is closed too early refuses, and hangs nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

import holdfast
from holdfast.store.embedded.reads import Reads
from holdfast.store.sql.ledger import Job


async def test_a_turn_that_outlives_its_handle_ends_at_once_and_its_session_is_free(tmp_path: Path) -> None:
    opened = holdfast.open(tmp_path / "state")
    hf = await opened.__aenter__()
    turn = hf.turn("agent:main:main")
    own = await turn.__aenter__()
    await own.append(holdfast.user("hello"))
    await opened.__aexit__(None, None, None)
    async with asyncio.timeout(60):
        await turn.__aexit__(None, None, None)
    async with holdfast.open(tmp_path / "state") as again, again.turn("agent:main:main", wait_s=5) as following:
        assert [message["role"] for message in await following.context()] == ["user"]


async def test_a_closed_handle_refuses_new_work(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path / "state") as hf:
        pass
    with pytest.raises(holdfast.StoreStoppedError, match="open it again"):
        await hf.accept(holdfast.InboundEvent("agent:main:main", {"content": "hello"}))


async def test_closing_goes_on_although_a_question_to_the_ledger_takes_long(tmp_path: Path) -> None:
    """It had raised a bare TimeoutError and left files and the sentinel open, on a machine that stood still."""
    async with holdfast.open(tmp_path / "state"):
        pass
    reads, begun, may_end = Reads(tmp_path / "state"), threading.Event(), threading.Event()

    def take_long(ledger: sqlite3.Connection) -> int:
        begun.set()
        assert may_end.wait(60)
        return ledger.execute("select 1").fetchone()[0]

    asking = asyncio.ensure_future(reads.ask(take_long))
    assert await asyncio.to_thread(begun.wait, 60)
    reads.close(wait_s=0.01)
    may_end.set()
    assert await asking == 1


async def test_a_turn_that_is_claimed_while_the_state_is_closed_leaves_a_sign_that_its_owner_is_gone(
    tmp_path: Path,
) -> None:
    """Its owner's sign of life had been removed by then: others did not know whether it lived, and nobody closed it."""
    began, may_go_on = threading.Event(), threading.Event()

    def keep_busy(_conn: sqlite3.Connection) -> None:
        began.set()
        assert may_go_on.wait(60)

    opened = holdfast.open(tmp_path / "state")
    hf = await opened.__aenter__()
    async with hf.turn("agent:main:main") as turn:
        await turn.append(holdfast.user("hello"))
    busy = hf.store.writer.submit(Job(keep_busy))  # pyright: ignore[reportAttributeAccessIssue]
    assert await asyncio.to_thread(began.wait, 60)
    closing = asyncio.create_task(opened.__aexit__(None, None, None))
    for _ in range(20):  # until it waits for what it asked of the ledger
        await asyncio.sleep(0)
    claiming = asyncio.create_task(hf.claim("agent:main:main", wait_s=0))
    for _ in range(20):  # until that waits, too
        await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(busy, claiming, closing, return_exceptions=True)
    async with holdfast.open(tmp_path / "state") as again, again.turn("agent:main:main", wait_s=5) as following:
        await following.append(holdfast.user("nobody is in the way"))
