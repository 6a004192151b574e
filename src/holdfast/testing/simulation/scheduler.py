"""Whose turn it is: simulated threads, virtual time, and every choice drawn from one seed.

Only one thread runs at any time. It goes on until it gives way, waits or ends; then the scheduler picks the next one
among those that could run. Time passes a little with each step and jumps to the next alarm when nobody can run.
Callbacks of one event loop keep their order, as asyncio promises; what is random is which thread goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import os
import random
from collections.abc import Callable, Sequence
from contextvars import copy_context

from holdfast.testing.simulation.fiber import Fiber, Hub

STEP_S_MAX = 0.000_4
"""A step takes up to this long, evenly distributed: a disk call or some lines of Python on a busy machine."""


class StuckError(Exception):
    """Nothing can run and no alarm is set, or it goes on for ever. The names of those who wait are in the message."""


class DeadError(BaseException):
    """Raised in the code of a killed process at its next touch of the machine; nothing of it may have an effect."""


class Host:
    """What threads belong to: a process, which may stand still or be dead, or the outside world, which never does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False  # set by `Scheduler.stop` and `go_on`
        self.dead = False


class SimThread:
    """One thread of one host."""

    __slots__ = ("_woken", "alarm", "fiber", "has_loop", "host", "is_ready", "name", "raw_name")

    def __init__(self, host: Host, name: str, fiber: Fiber) -> None:
        self.host = host
        self.name = name
        self.raw_name = name.encode()
        self.fiber = fiber
        self.has_loop = False  # an event loop runs in it
        self.is_ready = False
        self.alarm = 0  # counts waits, so that an old alarm wakes nobody
        self._woken = False


class Scheduler:
    """Runs threads. Everything random comes from `random`, so that the seed decides it."""

    def __init__(
        self, seed: int, *, places: Sequence[str], steps_max: int = 200_000, trace: Callable[[str], None] | None = None
    ) -> None:
        # Other ones each time: left out of the trace.
        self._unlike = {f"pid={os.getpid()}": "pid=1", **{f"{place}/": "" for place in places}}
        self.random = random.Random(seed)
        self._hub = Hub()
        self.now = 0.0
        self.steps = 0
        self.outside = Host("world")
        self.current: SimThread | None = None
        self._steps_max = steps_max
        self._trace = trace
        self._digest = hashlib.sha256()
        self._threads: list[SimThread] = []
        self._ready: list[SimThread] = []
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0
        self._stopped = 0  # hosts that stand still
        self._is_begun = False  # a step whose alarms have still to ring

    # ── the record ───────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, what: str) -> None:
        """One line of the trace. The same seed gives the same lines."""
        who = self.current.name if self.current is not None else "-"
        line = self.alike(f"{self.now:.4f} {who} {what}")
        self._digest.update(line.encode("utf-8", "replace"))
        if self._trace is not None:
            self._trace(line)

    def alike(self, said: str) -> str:
        """Without what differs between two runs of one seed."""
        for here, everywhere in self._unlike.items():
            said = said.replace(here, everywhere)
        return said

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, host: Host, name: str, run: Callable[[], object]) -> SimThread:
        """A new thread, in a copy of the caller's context; it runs when it is picked."""

        def body() -> None:
            try:
                run()
            except DeadError:
                return

        thread = SimThread(host, name, self._hub.make(body, copy_context()))
        self._threads.append(thread)
        self._make_ready(thread)
        return thread

    def _make_ready(self, thread: SimThread) -> None:
        if not thread.is_ready:
            thread.is_ready = True
            self._ready.append(thread)

    def run(self, until: Callable[[], bool]) -> None:
        """Let threads run until `until` says that it is enough. Raises what a thread of the outside world raised.

        Raises:
            StuckError: nobody can run any more, or too many steps were needed.
        """
        while not until():
            if not self._step():
                waiting = sorted(thread.name for thread in self._threads if not thread.fiber.ended)
                raise StuckError(f"nobody can go on at {self.now:.3f} s: {', '.join(waiting)}")
            if self.steps > self._steps_max:
                raise StuckError(f"no end after {self.steps} steps, {self.now:.1f} s")

    def _step(self) -> bool:
        """One thread goes on, or time jumps. False: neither can happen."""
        runnable = self._ready
        if self._stopped and any(thread.host.stopped for thread in runnable):
            runnable = [thread for thread in runnable if not thread.host.stopped]
        if not runnable:
            if not self._alarms:
                return False
            self.now = max(self.now, self._alarms[0][0])
            self._ring()
            return True
        if not self._is_begun:
            self._pass_time()
        self._is_begun = False
        self._ring()
        thread = runnable[int(self.random.random() * len(runnable))]
        if thread.host.dead or not thread.is_ready:
            return True  # an alarm has killed it
        self._take(thread)
        try:
            thread.fiber.resume()
        finally:
            ended, self.current = self.current, None  # another one may have ended: threads hand over to each other
            if ended is not None and ended.fiber.ended:
                self._threads.remove(ended)
        return True

    def _pass_time(self) -> None:
        self.steps += 1
        self.now += self.random.random() * STEP_S_MAX

    def _take(self, thread: SimThread) -> None:
        """It goes on now."""
        self._ready.remove(thread)
        thread.is_ready = False
        self._digest.update(thread.raw_name)
        self.current = thread

    def _ring(self) -> None:
        while self._alarms and self._alarms[0][0] <= self.now:
            heapq.heappop(self._alarms)[2]()

    # ── called by a running thread ───────────────────────────────────────────────────────────────────────────────────

    def give_way(self) -> None:
        """Others may run before this returns. Raises DeadError if the host was killed meanwhile."""
        thread = self._running()
        if not self._ready and not thread.host.stopped and self.steps < self._steps_max:
            self.steps += 1
            self.now += self.random.random() * STEP_S_MAX
            if not self._alarms or self._alarms[0][0] > self.now:
                return  # nobody else could run
        self._make_ready(thread)
        self._leave(thread)

    def wait(self, until: float | None = None) -> bool:
        """Sleep until `wake`, or until the time `until`. Returns whether somebody woke us."""
        thread = self._running()
        thread.alarm += 1
        thread._woken = False  # pyright: ignore[reportPrivateUsage]  # of this very module
        if until is not None:
            number = thread.alarm
            self.call_at(until, lambda: self._alarm(thread, number))
        self._leave(thread)
        return thread._woken  # pyright: ignore[reportPrivateUsage]

    def park(self) -> None:
        """The running thread's host has just been killed: it never goes on."""
        thread = self.current
        assert thread is not None
        self._leave(thread)

    def wake(self, thread: SimThread) -> None:
        """Let a thread go on that waits. One that does not wait takes no notice."""
        if not thread.is_ready and thread is not self.current and not thread.fiber.ended and not thread.host.dead:
            thread._woken = True  # pyright: ignore[reportPrivateUsage]
            self._make_ready(thread)

    def _alarm(self, thread: SimThread, number: int) -> None:
        if thread.alarm == number and not thread.is_ready and not thread.fiber.ended and not thread.host.dead:
            self._make_ready(thread)

    def sleep(self, seconds: float) -> None:
        """For threads of the outside world."""
        until = self.now + seconds
        while self.now < until:
            self.wait(until)

    def call_at(self, when: float, call: Callable[[], object]) -> None:
        """Call something at a time, between two steps. It must not wait."""
        self._order += 1
        heapq.heappush(self._alarms, (when, self._order, call))

    def _running(self) -> SimThread:
        thread = self.current
        if thread is None:
            raise DeadError("no simulated thread runs: something of a dead process was cleaned up")
        if thread.host.dead:
            raise DeadError
        return thread

    def _leave(self, thread: SimThread) -> None:
        """Let others go on, taking along what asyncio keeps per real thread."""
        chosen = self._choose_at_once()
        if chosen is thread:
            return
        if not thread.has_loop:
            thread.fiber.leave(chosen and chosen.fiber)
        else:
            loop = asyncio._get_running_loop()
            task = asyncio.current_task(loop) if loop is not None else None
            if loop is not None:
                if task is not None:
                    asyncio.tasks._leave_task(loop, task)
                asyncio._set_running_loop(None)
            try:
                thread.fiber.leave(chosen and chosen.fiber)
            finally:
                if loop is not None:
                    asyncio._set_running_loop(loop)
                    if task is not None:
                        asyncio.tasks._enter_task(loop, task)
        if thread.host.dead:
            raise DeadError

    def _choose_at_once(self) -> SimThread | None:
        """Who goes on, chosen as `_step` does it, without the way through it. None: alarms ring first, which they do in
        nobody's name, or nobody can go on, or somebody stands still.
        """
        if not self._ready or self._stopped or self.steps >= self._steps_max:
            return None
        self._pass_time()
        if self._alarms and self._alarms[0][0] <= self.now:
            self._is_begun = True
            return None
        thread = self._ready[int(self.random.random() * len(self._ready))]
        self._take(thread)
        return thread

    # ── hosts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self, host: Host) -> None:
        """Its threads are not picked until it goes on."""
        self._stopped += not host.stopped
        host.stopped = True

    def go_on(self, host: Host) -> None:
        self._stopped -= host.stopped
        host.stopped = False

    def forget(self, host: Host) -> None:
        """A killed host's threads never go on. They are unwound by `bury` when the run is over."""
        self._ready = [thread for thread in self._ready if thread.host is not host]
        for thread in self._threads:
            if thread.host is host:
                thread.is_ready = False

    def bury(self) -> None:
        """Unwind whatever is left, so that nothing of this run outlives it. Every host must be dead."""
        self.outside.dead = True
        for thread in self._threads:
            if not thread.fiber.ended and thread.fiber.begun:
                self.current = thread
                for _ in range(50):
                    thread.fiber.throw(DeadError())
                    if thread.fiber.ended:
                        break
        self.current = None
        self._threads.clear()
        self._ready.clear()
        self._alarms.clear()
