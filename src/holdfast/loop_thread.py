"""An event loop on a thread of its own, for programs without one: what `holdfast.sync` stands on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, TypeVar

from holdfast.errors import InputError, OwnershipLostError

T = TypeVar("T")


class LoopThread:
    """An event loop on a thread of its own, and the ways other threads hand it work."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._stopping = asyncio.Event()
        self._holding: set[asyncio.Task[None]] = set()

    def start(self, opened: AbstractAsyncContextManager[T]) -> T:
        """Begin the thread and enter `opened` on it; `stop` leaves it. Once only."""
        if self._thread is not None:
            raise InputError("this handle was opened before; call holdfast.sync.open() again")
        ready: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(opened, ready)), name="holdfast-sync", daemon=True
        )
        self._thread.start()
        try:
            return ready.result()
        except BaseException:
            self.stop()
            raise

    async def _serve(self, opened: AbstractAsyncContextManager[T], ready: concurrent.futures.Future[T]) -> None:
        self._loop = asyncio.get_running_loop()
        if self._closed:
            return  # whoever opened it was interrupted before we began
        try:
            async with opened as held:
                ready.set_result(held)
                await self._stopping.wait()
                for task in self._holding:
                    task.cancel()
                await asyncio.gather(*self._holding, return_exceptions=True)
        except BaseException as exc:
            if ready.done():
                raise
            ready.set_exception(exc)

    def stop(self) -> None:
        """Interrupt what is still held, leave what was opened, end the thread. Calls fail from now on."""
        self._closed = True
        self._post(self._stopping.set)
        if self._thread is not None:
            self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`, which runs on the loop with this thread's context variables."""
        future = self._submit(work)
        try:
            return _result_of(future)
        except BaseException:
            future.cancel()  # only an interrupted wait leaves something to cancel
            raise

    @contextmanager
    def held(self, opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter and leave an asynchronous context in one task, as the beat of a turn asks for."""
        holding = _Holding(opened)
        future = self._submit(self._hold(holding))
        try:
            inner = holding.ready.result()
        except BaseException:
            future.cancel()
            raise
        try:
            yield inner
        except BaseException as exc:
            holding.failure = exc
            raise
        finally:
            if os.getpid() == self._pid:
                self._post(holding.leave.set)
                _finish(future)

    async def _hold(self, holding: _Holding[Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._holding.add(task)
        try:
            await holding.run()
        finally:
            self._holding.discard(task)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Ctrl-C may come at any instruction in here: `work` is then ended by the loop, if it has got it already."""
        handed_over = False
        try:
            if os.getpid() != self._pid:
                raise OwnershipLostError("this process was forked from the one that opened the handle; open another")
            if self._loop is None or self._closed:
                raise InputError("this handle is not open; use it inside `with holdfast.sync.open(state) as hf`")
            handed_over = True
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException as exc:
            if handed_over and not isinstance(exc, RuntimeError):  # that is a loop that has ended
                self._post(lambda: _end(work))
            else:
                work.close()
            raise

    def _post(self, act: Callable[[], None]) -> None:
        """Have `act` called on the loop."""
        if self._loop is None or os.getpid() != self._pid:
            return
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            return  # the loop has ended, and with it everything that could wait for this


class _Holding(Generic[T]):
    """An asynchronous context that another thread is in."""

    def __init__(self, opened: AbstractAsyncContextManager[T]) -> None:
        self._opened = opened
        self.ready: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.leave = asyncio.Event()
        self.failure: BaseException | None = None  # what the other thread left it with

    async def run(self) -> None:
        try:
            async with self._opened as held:
                self.ready.set_result(held)
                await self.leave.wait()
                if self.failure is not None:
                    raise self.failure
        except BaseException as exc:
            if not self.ready.done():
                self.ready.set_exception(exc)
            elif exc is not self.failure:  # its own thread goes on raising that one
                raise


def _end(work: Coroutine[Any, Any, Any]) -> None:
    """End a coroutine that nobody waits for, on its loop."""
    tasks = [task for task in asyncio.all_tasks() if task.get_coro() is work]
    for task in tasks:
        task.cancel()
    if not tasks and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
        work.close()


def _result_of(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise InputError("the handle was closed by another thread while this call waited") from None


def _finish(future: concurrent.futures.Future[None]) -> None:
    """Wait for the end of a turn even if Ctrl-C is pressed meanwhile; a second one is obeyed at once."""
    try:
        _result_of(future)
    except KeyboardInterrupt:
        if not future.done():
            _result_of(future)
        raise
