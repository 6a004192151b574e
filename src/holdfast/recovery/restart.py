"""A gateway's boot: noted when it starts and when it ends in order, so that a crash loop is seen and stopped.

After three boots that ended uncleanly within five minutes, work is held back: inputs are taken in, acknowledged and
kept, and nothing is run, in whatever process, until somebody has looked and releases it (`holdfast recover --release`).
Held work is told of: in the log, in the gateway's greeting, by `/readyz`, `why` and `recover`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.errors import ResourceError
from holdfast.store.protocol import LaneStore
from holdfast.store.views import Hold

log = logging.getLogger("holdfast.recovery")


@asynccontextmanager
async def booted(store: LaneStore, *, unclean_max: int) -> AsyncIterator[Hold | None]:
    """While a gateway runs. Yields the hold on work, if there is one. Leaving by an exception is no end in order."""
    hold = await store.begin_boot(unclean_max)
    if hold is not None:
        log.error("work is held back: %s", hold.way_out)
    yield hold
    try:
        await store.end_boot()
    except ResourceError as exc:  # a ledger that failed: no end in order
        log.error("the end of this gateway could not be noted: %s", exc)
