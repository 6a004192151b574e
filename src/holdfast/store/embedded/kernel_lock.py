"""A kernel lock that tasks, threads and processes share fairly, with bounded and cancellable waits.

Inside the process waiters stand in one line (first in, first out). Its head alone asks the kernel, through a *gate*:
take the gate, take the lock, leave the gate; so a process that re-takes the lock in a loop cannot starve the others
(with append + sync, 8 processes get equal shares). A wait that has to block does so on a thread of its own; if the
waiter has left by then, the thread hands the lock to the next one or lets it go. Nobody is ever robbed, nothing polls.

Kernel locks (`flock`) belong to an open file description: they go when the process dies. They are released by
unlocking, never by closing, because a forked child may still hold the description open.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.store.embedded.machine import here

_open_locks: weakref.WeakSet[KernelLock] = weakref.WeakSet()


class Ticket:
    """A place in line. `granted` is set once, by whichever thread gave us the lock. Without it, a call of `on_grant`
    means that the lock was closed.
    """

    __slots__ = ("_on_grant", "granted", "left")

    def __init__(self, on_grant: Callable[[], None]) -> None:
        self._on_grant = on_grant
        self.granted = False
        self.left = False

    def grant(self) -> None:
        self.granted = True
        self._on_grant()

    def wake(self) -> None:
        """The lock is closed: nothing will be granted any more."""
        self.left = True
        self._on_grant()


class KernelLock:
    """One lock on `fd`, fair through `gate_fd` (-1: no gate). The fds stay the caller's; `retarget` swaps the file.

    Thread-safe. All methods return at once except `acquire`.
    """

    def __init__(self, fd: int, gate_fd: int = -1) -> None:
        self._fd = fd
        self._gate_fd = gate_fd
        self._machine = here()
        self._mutex = threading.Lock()  # never held while the machine lets others run
        self._busy = False  # held by this process, or being acquired for it
        self._line: deque[Ticket] = deque()
        self._closed = False
        _open_locks.add(self)

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def try_acquire(self) -> bool:
        """Take it if nobody, here or elsewhere, holds it or waits for it in this process. Never blocks."""
        with self._mutex:
            if self._busy or self._line or self._closed:
                return False
            self._busy = self._try_kernel()
            return self._busy

    def request(self, on_grant: Callable[[], None]) -> Ticket:
        """Stand in line; `on_grant` is called once, from any thread, when the lock is ours. `leave` gives the place
        up.
        """
        ticket = Ticket(on_grant)
        with self._mutex:
            if not self._busy and not self._line and self._try_kernel():
                self._busy = True
                start_thread = False
                granted = True
            else:
                self._line.append(ticket)
                granted = False
                start_thread = not self._busy
                self._busy = True
        if granted:
            ticket.grant()
        elif start_thread:
            self._start_waiting()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a place up, granted or not. Calling it for a ticket that was granted releases the lock."""
        with self._mutex:
            if ticket.left:
                return
            ticket.left = True
            granted = ticket.granted
            if not granted:
                try:
                    self._line.remove(ticket)
                except ValueError:
                    granted = True  # being granted at this moment
        if granted:
            self.release()

    def acquire(self, timeout_s: float, told: Sequence[tuple[float, Callable[[], None]]] = ()) -> bool:
        """Block this thread (never an event loop) for at most `timeout_s`. False: not granted, no trace left.

        Args:
            told: what to call after so many seconds of waiting, soonest first; our place in line is kept meanwhile.
        """
        if self.try_acquire():
            return True
        ready = self._machine.event()
        ticket = self.request(ready.set)
        waited_s = 0.0
        for after_s, tell in told:
            if after_s >= timeout_s:
                break
            if ready.wait(after_s - waited_s):
                return ticket.granted
            waited_s = after_s
            tell()
        if not ready.wait(timeout_s - waited_s):
            self.leave_if_waiting(ticket)
        return ticket.granted

    def leave_if_waiting(self, ticket: Ticket) -> None:
        """Give a place up unless it was granted meanwhile (then the lock is the caller's: see `ticket.granted`)."""
        with self._mutex:
            if ticket in self._line:
                self._line.remove(ticket)
                ticket.left = True

    # ── giving back ──────────────────────────────────────────────────────────────────────────────────────────────────

    def release(self) -> None:
        """Unlock, then let the next waiter of this process queue behind other processes like anybody else. After
        `close` there is nothing to give back, and the descriptor's number may be somebody else's.
        """
        with self._mutex:
            if self._closed:
                return
            self._unlock_kernel()
            if not self._line:
                self._busy = False
                return
            ticket = self._line.popleft() if self._try_kernel() else None
            if ticket is not None:
                ticket.granted = True
        if ticket is not None:
            ticket.grant()
        else:
            self._start_waiting()

    def retarget(self, fd: int) -> bool:
        """While held: let go, and from now on lock the file behind `fd`, which is consumed. Our own descriptor keeps
        its number, so that no other thread ever meets a closed one.

        Returns: False if somebody else holds that file: then nothing is held, and `release` and `acquire` wait for it.
        """
        granted = self._machine.try_lock(fd)
        self._unlock_kernel()
        self._machine.turn_to(fd, self._fd)
        return granted

    def close(self) -> None:
        """No more grants from now on; whoever waits is woken without one. Does not close the fds."""
        with self._mutex:
            self._closed = True
            waiting = list(self._line)
            self._line.clear()
            if self._busy:
                self._unlock_kernel()
                self._busy = False
        for ticket in waiting:
            ticket.wake()

    # ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _try_kernel(self) -> bool:
        machine = self._machine
        if self._gate_fd < 0:
            return machine.try_lock(self._fd)
        if not machine.try_lock(self._gate_fd):
            return False
        try:
            return machine.try_lock(self._fd)
        finally:
            machine.unlock(self._gate_fd)

    def _unlock_kernel(self) -> None:
        self._machine.unlock(self._fd)

    def _start_waiting(self) -> None:
        self._machine.start(self._wait_for_kernel, "holdfast-lock-wait")

    def _wait_for_kernel(self) -> None:
        """Runs while `_busy` is set on behalf of the line. Works on duplicates, so that `close` cannot pull them
        away.
        """
        with self._mutex:
            if self._closed:
                return
            fd = self._machine.dup(self._fd)
            gate_fd = self._machine.dup(self._gate_fd) if self._gate_fd >= 0 else -1
        try:
            self._block_for(fd, gate_fd)
            with self._mutex:
                ticket = self._line.popleft() if self._line and not self._closed else None
                if ticket is None:
                    self._machine.unlock(fd)
                    self._busy = False
                else:
                    ticket.granted = True
            if ticket is not None:
                ticket.grant()
        finally:
            self._machine.close(fd)
            if gate_fd >= 0:
                self._machine.close(gate_fd)

    def _block_for(self, fd: int, gate_fd: int) -> None:
        machine = self._machine
        if gate_fd < 0:
            machine.lock(fd)
            return
        machine.lock(gate_fd)
        try:
            machine.lock(fd)
        finally:
            machine.unlock(gate_fd)

    def forget_after_fork(self) -> None:
        """In a forked child: the lock is the parent's. Close without unlocking, and never grant again."""
        if self._closed:
            return  # its descriptors are gone, and their numbers may be somebody else's by now
        self._closed = True
        self._mutex = threading.Lock()
        self._line.clear()
        for fd in (self._fd, self._gate_fd):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError:
                    continue


def describe_holder(fd: int) -> str:
    """Who holds the lock on an open file, as the kernel tells (Linux): for messages only."""
    at = os.fstat(fd)
    place = f"{os.major(at.st_dev):02x}:{os.minor(at.st_dev):02x}:{at.st_ino}"
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "holder unknown"
    for lock in locks:
        fields = lock.split()
        if place in fields and "FLOCK" in fields and "->" not in fields:
            return describe_process(int(fields[fields.index(place) - 1]))
    return "holder unknown"


def describe_process(pid: int) -> str:
    """`pid=123 (stopped)`."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return f"pid={pid} (state unknown)"
    words = {"T": "stopped", "t": "being traced", "Z": "zombie", "D": "waiting for the disk"}
    return f"pid={pid} ({words.get(state, 'running')})"


def _forget_all_after_fork() -> None:
    for lock in list(_open_locks):
        lock.forget_after_fork()


os.register_at_fork(after_in_child=_forget_all_after_fork)
