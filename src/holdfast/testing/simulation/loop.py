"""One simulated process's event loop: asyncio's contract on virtual time, and nothing of the real world.

Callbacks run in the order in which they were scheduled; timers in the order of their times. When nothing is ready the
thread sleeps until its next timer or until another thread hands something over. Sockets, signals and subprocesses are
refused by not being there: a simulation that quietly left the simulator would prove nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, TypeVar

from holdfast.testing.simulation.scheduler import DeadError, Host, Scheduler, SimThread
from holdfast.testing.simulation.threads import SimPool

T = TypeVar("T")


class _Handle:
    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.args = args
        self.context = context if context is not None else copy_context()
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class SimLoop(asyncio.AbstractEventLoop):
    """Runs in one simulated thread; others reach it through `call_soon_threadsafe`."""

    def __init__(self, scheduler: Scheduler, host: Host) -> None:
        self._scheduler = scheduler
        self._host = host
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._order = 0
        self._thread: SimThread | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run_main(self, main: Coroutine[Any, Any, T]) -> T | None:
        """Run until `main` has ended; returns what it returned. None if the process was killed."""
        self._thread = self._scheduler.current
        assert self._thread is not None
        self._thread.has_loop = True
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done() and not self._host.dead:
                self._go_round()
            return task.result() if task.done() and not self._host.dead else None
        finally:
            asyncio._set_running_loop(None)

    def _go_round(self) -> None:
        now = self.time()
        while self._timers and self._timers[0][0] <= now:
            self._ready.append(heapq.heappop(self._timers)[2])
        if not self._ready:
            while self._timers and self._timers[0][2].is_cancelled:
                heapq.heappop(self._timers)
            self._scheduler.wait(self._timers[0][0] if self._timers else None)
            return
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.is_cancelled:
                handle.context.run(handle.callback, *handle.args)
            if self._host.dead:
                return
        self._scheduler.give_way()

    def bury(self) -> None:
        """Close the coroutines of a dead process, whose clean-up no longer reaches anything."""
        for task in self._tasks:
            coroutine = task.get_coro()
            if not task.done() and isinstance(coroutine, CoroutineType):
                for end in (lambda it=coroutine: it.throw(DeadError()), coroutine.close):
                    # Thrown first: `close` leaves asynchronous generators on the way in a state that cannot be ended.
                    with contextlib.suppress(BaseException):  # whatever a dead one's clean-up says, nobody hears it
                        end()
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()

    # ── what asyncio asks of a loop ──────────────────────────────────────────────────────────────────────────────────

    def time(self) -> float:
        return self._scheduler.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = self.call_soon(callback, *args, context=context)
        if self._thread is not None and self._thread is not self._scheduler.current:
            self._scheduler.wake(self._thread)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(callback, args, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        if len(self._tasks) > 64:
            self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
        if not isinstance(executor, SimPool):
            raise RuntimeError("only pools of the simulated machine exist here; this call would leave the simulation")
        return executor.submit_from(self, func, *args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._host.dead and not isinstance(context.get("exception"), DeadError):
            self._scheduler.note(f"unhandled: {context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._thread is not None

    def is_closed(self) -> bool:
        return False
