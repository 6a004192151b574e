"""Work that nobody waits for any more: it ends, and what it refuses is no alarm."""

from __future__ import annotations

import asyncio
import logging

import pytest

from holdfast.errors import OwnershipLostError
from holdfast.store.sql.shielded import shielded


@pytest.mark.parametrize(
    ("error", "alarms"),
    [(None, 0), (OwnershipLostError("the turn has ended"), 0), (OSError("no space"), 0), (KeyError("a fault"), 1)],
)
async def test_what_ends_after_its_caller_was_cancelled_is_an_alarm_only_if_it_is_a_fault(
    caplog: pytest.LogCaptureFixture, error: Exception | None, alarms: int
) -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(shielded(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not work.done()
    if error is None:
        work.set_result(7)
    else:
        work.set_exception(error)
    del work, waiting
    await asyncio.sleep(0)
    assert len([one for one in caplog.records if one.levelno >= logging.ERROR]) == alarms


async def test_whoever_still_waits_hears_the_result_and_the_error() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    work.set_result(7)
    assert await shielded(work) == 7
    refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    refused.set_exception(OwnershipLostError("the turn has ended"))
    with pytest.raises(OwnershipLostError):
        await shielded(refused)
