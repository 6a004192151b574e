"""Threads that have ended their work and stay for a moment for the next: whoever blocks in the kernel needs one.

Making a thread takes 60 to 100 us, in which an event loop that makes it stands still; waking one takes 10.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable

SPARE_MAX = 8
SPARE_S = 10.0
Work = Callable[[], object]


class SpareThreads:
    """All of a process. Thread-safe; what is started is never waited for, and its errors go to `threading.excepthook`.

    Threads in use are not counted: each is somebody's place in a line, which is bounded there.
    """

    def __init__(self) -> None:
        self._spare: deque[queue.SimpleQueue[tuple[Work, str]]] = deque()

    def start(self, run: Work, name: str) -> None:
        """Run on a thread, new or spare."""
        try:
            hand = self._spare.pop()  # the one that ended last: its stack is warm
        except IndexError:
            threading.Thread(target=self._serve, args=(run, name), name=name, daemon=True).start()
        else:
            hand.put((run, name))

    def _serve(self, run: Work, name: str) -> None:
        hand: queue.SimpleQueue[tuple[Work, str]] = queue.SimpleQueue()
        while True:
            threading.current_thread().name = name
            run()
            if len(self._spare) >= SPARE_MAX:
                return
            self._spare.append(hand)
            try:
                run, name = hand.get(timeout=SPARE_S)
            except queue.Empty:
                try:
                    self._spare.remove(hand)
                except ValueError:
                    run, name = hand.get()  # taken at this very moment
                else:
                    return

    def forget_after_fork(self) -> None:
        """In a forked child there is no other thread."""
        self._spare = deque()


spare_threads = SpareThreads()
os.register_at_fork(after_in_child=spare_threads.forget_after_fork)
