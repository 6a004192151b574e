"""The real machine, and whether anything is under way on its threads: for tests in which time passes only then."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from holdfast.store.embedded.machine import Machine, Queue

P = ParamSpec("P")
T = TypeVar("T")


class WatchedMachine(Machine):
    """The operating system as it is. Counts what was handed to its pools and queues and has not been dealt with."""

    def __init__(self) -> None:
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def is_at_work(self) -> bool:
        """Whether a thread has something to do. What it has done may still have to be heard of by an event loop."""
        return self._under_way > 0

    def count(self, more: int) -> None:
        """So many more pieces of work; fewer if negative."""
        with self._lock:
            self._under_way += more

    def pool(self, size: int, name: str) -> Executor:
        return _WatchedPool(size, name, self)

    def queue(self) -> Queue:
        return _WatchedQueue(self)


class _WatchedPool(ThreadPoolExecutor):
    def __init__(self, size: int, name: str, machine: WatchedMachine) -> None:
        super().__init__(size, thread_name_prefix=name)
        self._machine = machine

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        self._machine.count(1)
        future.add_done_callback(lambda _: self._machine.count(-1))
        return future


class _WatchedQueue:
    """A `SimpleQueue` with one reader: what it has taken is dealt with when it comes for more."""

    def __init__(self, machine: WatchedMachine) -> None:
        self._machine = machine
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._taken = 0

    def put(self, item: Any) -> None:
        self._machine.count(1)
        self._items.put(item)

    def get(self) -> Any:
        self._machine.count(-self._taken)
        self._taken = 0
        item = self._items.get()
        self._taken = 1
        return item

    def get_nowait(self) -> Any:
        item = self._items.get_nowait()
        self._taken += 1
        return item

    def empty(self) -> bool:
        return self._items.empty()
