"""Threads' tools for the simulation: what `Machine` hands out instead of those of `threading`."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from holdfast.testing.simulation.scheduler import Host, Scheduler, SimThread

P = ParamSpec("P")
T = TypeVar("T")


class SimThreadHandle:
    """Stands for `threading.Thread`."""

    def __init__(self, scheduler: Scheduler, host: Host, run: Callable[[], object], name: str) -> None:
        self._scheduler = scheduler
        self._host = host
        self._run = run
        self._name = name
        self._thread: SimThread | None = None
        self._ended = SimEvent(scheduler)

    def start(self) -> None:
        self._thread = self._scheduler.spawn(self._host, self._name, self._body)

    def _body(self) -> None:
        self._run()
        self._ended.set()

    def is_alive(self) -> bool:
        return self._thread is not None and not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        if self._thread is not None:
            self._ended.wait(timeout)


class SimEvent:
    """Stands for `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[SimThread] = []

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            self._scheduler.wake(thread)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else self._scheduler.now + timeout
        while not self._is_set and (until is None or self._scheduler.now < until):
            thread = self._scheduler.current
            assert thread is not None
            self._waiting.append(thread)
            self._scheduler.wait(until)
            if thread in self._waiting:
                self._waiting.remove(thread)
        return self._is_set


class SimMutex:
    """Stands for `threading.Lock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._waiting: deque[SimThread] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        while self._held:
            if not blocking:
                return False
            thread = self._scheduler.current
            assert thread is not None
            self._waiting.append(thread)
            self._scheduler.wait()
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        if self._waiting:
            self._scheduler.wake(self._waiting.popleft())

    def __enter__(self) -> SimMutex:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SimQueue:
    """Stands for `queue.SimpleQueue`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()
        self._waiting: deque[SimThread] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._waiting:
            self._scheduler.wake(self._waiting.popleft())

    def get(self) -> Any:
        while not self._items:
            thread = self._scheduler.current
            assert thread is not None
            self._waiting.append(thread)
            self._scheduler.wait()
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items


class SimFuture(Future[T]):
    """A future whose `result` lets others run while it waits."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._over = SimEvent(scheduler)
        self.add_done_callback(lambda _: self._over.set())

    def result(self, timeout: float | None = None) -> T:
        if not self.done():
            self._over.wait(timeout)
        return super().result(0)


class SimPool(Executor):
    """At most `size` threads at once; each piece of work runs on a thread of its own, first come, first served."""

    def __init__(self, scheduler: Scheduler, host: Host, size: int, name: str) -> None:
        self._scheduler = scheduler
        self._host = host
        self._free = size
        self._name = name
        self._waiting: deque[Callable[[], None]] = deque()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: SimFuture[T] = SimFuture(self._scheduler)

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001  # handed to whoever waits for it
                future.set_exception(exc)
            else:
                future.set_result(result)

        self._put(work)
        return future

    def submit_from(self, loop: asyncio.AbstractEventLoop, fn: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """As a loop does it: `wrap_future(submit(…))`, without the second future and its condition."""
        future: asyncio.Future[T] = loop.create_future()

        def tell(result: Any, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            if future.cancelled():
                return
            result, error = None, None
            try:
                result = fn(*args)
            except Exception as exc:  # noqa: BLE001  # handed to whoever waits for it
                error = exc
            loop.call_soon_threadsafe(tell, result, error)

        self._put(work)
        return future

    def _put(self, work: Callable[[], None]) -> None:
        self._waiting.append(work)
        if self._free:
            self._free -= 1
            self._scheduler.spawn(self._host, self._name, self._work_off)

    def _work_off(self) -> None:
        while self._waiting:
            self._waiting.popleft()()
        self._free += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del wait, cancel_futures  # nothing outlives a simulated process
