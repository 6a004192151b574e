"""A disk that refuses for a moment: what may pass is tried again for a bounded time; what does not is told at once.

A refused append has left nothing in the file, so trying again writes nothing twice. A failed sync is never tried again.
"""

from __future__ import annotations

import errno

from holdfast.clock import Clock
from holdfast.errors import ResourceError

MAY_PASS = frozenset(
    (
        errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM, errno.ENOBUFS, errno.ETIMEDOUT,  # the moment's
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE,  # a limit's, which somebody may raise
    )
)  # fmt: skip
PATIENCE_S = 15.0
"""For how long, in all. A sync tool or a virus scanner holds a file for a second or two; a log rotation frees a disk
within ten. Longer than this, whoever asked is better served by an explanation."""
FIRST_PAUSE_S, PAUSE_MAX_S = 0.05, 1.0


class Patience:
    """The pauses between tries of one operation: growing, all together no longer than `total_s`."""

    def __init__(self, clock: Clock, total_s: float) -> None:
        self._clock = clock
        self._until_mono = clock.mono() + total_s
        self._pause_s = FIRST_PAUSE_S
        self.tries = 0

    async def wait_after(self, refused: ResourceError) -> bool:
        """Sleep before the next try; False at once if there should be none. Cancelled: nothing is pending."""
        pause_s = min(self._pause_s, self._until_mono - self._clock.mono())
        if pause_s <= 0 or not may_pass(refused):
            return False
        self.tries += 1
        self._pause_s = min(self._pause_s * 2, PAUSE_MAX_S)
        await self._clock.sleep(pause_s)
        return True


def may_pass(refused: BaseException) -> bool:
    """Whether the system's own reason is one that goes by itself or by somebody's hand."""
    cause = refused.__cause__
    return isinstance(cause, OSError) and cause.errno in MAY_PASS
