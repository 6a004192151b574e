"""A handle that is closed too early refuses, and hangs nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import holdfast


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
