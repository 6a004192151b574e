"""Ctrl-Z must not freeze a process that holds a lock others wait for: our own commands put the stop off for a moment.

A section is a span of about a millisecond in which a transcript's write lock or the ledger's lock is held. Counting
them costs nothing until `defer_terminal_stops` has been called. SIGSTOP cannot be put off; waits are bounded because
of it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

WAIT_FOR_END_S = 2.0
"""A section that lasts longer than this (a slow disk) is stopped in after all: a user who stops a program means it."""


class Sections:
    """How many sections this process is in, and a door that can be shut."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self.counting = False

    def enter(self) -> None:
        if self.counting:
            with self._changed:
                self._count += 1

    def leave(self) -> None:
        if self.counting:
            with self._changed:
                self._count = max(0, self._count - 1)
                self._changed.notify_all()

    def stop_between(self) -> None:
        """Stop this process while it is in no section; none can begin until it has been continued."""
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, timeout=WAIT_FOR_END_S)
            os.kill(os.getpid(), signal.SIGSTOP)


sections = Sections()


def defer_terminal_stops() -> None:
    """Let SIGTSTP, SIGTTIN and SIGTTOU stop this process only between sections. Main thread only; for commands."""
    if threading.current_thread() is not threading.main_thread():
        return
    sections.counting = True
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop_soon)


def _stop_soon(_number: int, _frame: FrameType | None) -> None:
    """On a thread: the main thread may itself be inside a section, which it has to be able to leave."""
    threading.Thread(target=sections.stop_between, name="holdfast-stop", daemon=True).start()
