"""Threads that have ended their work and stay for a moment for the next: whoever blocks in the kernel needs one.

Making a thread of `threading` and waiting until it has begun takes 60 to 100 us on a quiet machine and milliseconds on
a busy one, in which an event loop stands still. Waking one that is there takes 10, making one without waiting 30.
"""

from __future__ import annotations

import _thread
import os
import queue
from collections import deque
from collections.abc import Callable

SPARE_MAX = 8
SPARE_S = 10.0
Work = Callable[[], object]


class SpareThreads:
    """All of a process. Thread-safe; what is started is never waited for, and its errors go to `sys.unraisablehook`.

    Threads in use are not counted: each is somebody's place in a line, which is bounded there.
    """

    def __init__(self) -> None:
        self._spare: deque[queue.SimpleQueue[Work]] = deque()

    def start(self, run: Work) -> None:
        """Run on a thread, new or spare."""
        try:
            hand = self._spare.pop()  # the one that ended last: its stack is warm
        except IndexError:
            _thread.start_new_thread(self._serve, (run,))
        else:
            hand.put(run)

    def _serve(self, run: Work) -> None:
        hand: queue.SimpleQueue[Work] = queue.SimpleQueue()
        while True:
            run()
            if len(self._spare) >= SPARE_MAX:
                return
            self._spare.append(hand)
            try:
                run = hand.get(timeout=SPARE_S)
            except queue.Empty:
                try:
                    self._spare.remove(hand)
                except ValueError:
                    run = hand.get()  # taken at this very moment
                else:
                    return

    def forget_after_fork(self) -> None:
        """In a forked child there is no other thread."""
        self._spare = deque()


spare_threads = SpareThreads()
os.register_at_fork(after_in_child=spare_threads.forget_after_fork)
