"""Faults for the named points of the store (`store/embedded/faults.py`): list them, die at one, fail at one.

Handed in as `holdfast.open(state, faults=kill_at("settle.after_sync"))`, or through `World.crash_at`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence

from holdfast.store.embedded.faults import Point


class Trace:
    """Remembers every point that was passed, in order, of all threads together; does nothing else."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def __call__(self, point: Point) -> None:
        self.points.append(point)


class AtPoint:
    """Does something at the `nth` passing of one of some points.

    Args:
        points: which; none given: any.
        act: what to do, on the thread that passes the point; may raise what the disk could raise there.
        nth: counted from 1 over all of `points`.
        times: how many passings in a row, from the nth on; None: all later ones.
    """

    def __init__(self, *points: Point, act: Callable[[], object], nth: int = 1, times: int | None = 1) -> None:
        self._points: Sequence[Point] = points
        self._act = act
        self._nth = nth
        self._times = times
        self._passed = 0
        self._mutex = threading.Lock()

    def __call__(self, point: Point) -> None:
        if self._points and point not in self._points:
            return
        with self._mutex:
            self._passed += 1
            past = self._passed - self._nth
        if past >= 0 and (self._times is None or past < self._times):
            self._act()


def kill_at(*points: Point, nth: int = 1) -> AtPoint:
    """SIGKILL this process: nothing is flushed, nothing unlocked, no handler runs."""
    return AtPoint(*points, act=lambda: os.kill(os.getpid(), signal.SIGKILL), nth=nth)


def stop_at(*points: Point, nth: int = 1) -> AtPoint:
    """SIGSTOP this process until somebody continues it."""
    return AtPoint(*points, act=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP), nth=nth)


def fail_at(*points: Point, error: Callable[[], Exception], nth: int = 1, times: int | None = 1) -> AtPoint:
    """Raise what the disk could raise there, e.g. `lambda: OSError(errno.ENOSPC, "no space left")`."""

    def act() -> None:
        raise error()

    return AtPoint(*points, act=act, nth=nth, times=times)
