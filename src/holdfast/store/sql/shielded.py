"""Waiting for work that ends whether or not somebody still waits for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from holdfast.errors import HoldfastError

log = logging.getLogger("holdfast.store")
T = TypeVar("T")


async def shielded(work: asyncio.Future[T]) -> T:
    """What `work` ends in. Cancelled: the work goes on; nobody hears of its result.

    That nobody hears of it is no fault: a turn that was cancelled loses its session while its append still stands in
    line, and the refusal that follows has nobody to go to. Only what the store does not expect is logged.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if not work.cancelled():
            work.add_done_callback(_unheard)
        raise


def _unheard(work: asyncio.Future[T]) -> None:
    if work.cancelled() or (error := work.exception()) is None:
        return
    expected = isinstance(error, HoldfastError | OSError)
    log.log(logging.DEBUG if expected else logging.ERROR, "nobody waited for this any more: %r", error, exc_info=error)
