"""The kernel lock: exclusion, order, leaving, other files, other processes."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.store.embedded.kernel_lock import KernelLock

LOCKS: list[KernelLock] = []
LONG_S = 20.0
"""Waits that end by an event; only a hang gets near it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def fds() -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for lock in LOCKS:
        lock.close()  # else a later test that forks would close these numbers again, whoever has them then
    LOCKS.clear()
    for fd in opened:
        os.close(fd)


def lock_on(path: Path, fds: list[int], gate: Path | None = None) -> KernelLock:
    """A lock with descriptors of its own: like another process's, as far as the kernel is concerned."""
    fds.append(os.open(path, os.O_CREAT | os.O_RDWR))
    gate_fd = -1
    if gate is not None:
        fds.append(os.open(gate, os.O_CREAT | os.O_RDWR))
        gate_fd = fds[-1]
    LOCKS.append(KernelLock(fds[-2] if gate is not None else fds[-1], gate_fd))
    return LOCKS[-1]


class Granted:
    """Remembers in which order tickets were granted."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self._changed = threading.Condition()

    def as_(self, name: str) -> Callable[[], None]:
        def grant() -> None:
            with self._changed:
                self.order.append(name)
                self._changed.notify_all()

        return grant

    def wait_for(self, count: int) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.order) >= count, LONG_S), self.order
            return list(self.order)


def is_free(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_only_one_holds_it(path: Path, fds: list[int]) -> None:
    one, other = lock_on(path, fds), lock_on(path, fds)
    assert one.try_acquire()
    assert not one.try_acquire()
    assert not other.try_acquire()
    one.release()
    assert other.try_acquire()


def test_waiters_of_one_process_are_served_in_order(path: Path, fds: list[int]) -> None:
    lock, granted = lock_on(path, fds), Granted()
    assert lock.try_acquire()
    for name in ("a", "b", "c"):
        lock.request(granted.as_(name))
    assert granted.order == []
    for count in (1, 2, 3):
        lock.release()
        assert granted.wait_for(count) == ["a", "b", "c"][:count]


def test_nobody_passes_those_who_wait(path: Path, fds: list[int]) -> None:
    lock, granted = lock_on(path, fds), Granted()
    assert lock.try_acquire()
    lock.request(granted.as_("a"))
    lock.release()
    granted.wait_for(1)
    assert not lock.try_acquire()


def test_a_free_lock_is_granted_at_once(path: Path, fds: list[int]) -> None:
    granted = Granted()
    ticket = lock_on(path, fds).request(granted.as_("a"))
    assert ticket.granted
    assert granted.order == ["a"]


def test_a_waiter_that_leaves_is_passed_over(path: Path, fds: list[int]) -> None:
    lock, granted = lock_on(path, fds), Granted()
    assert lock.try_acquire()
    first = lock.request(granted.as_("a"))
    lock.request(granted.as_("b"))
    lock.leave(first)
    lock.release()
    assert granted.wait_for(1) == ["b"]


def test_leaving_after_the_grant_releases(path: Path, fds: list[int]) -> None:
    lock, granted = lock_on(path, fds), Granted()
    ticket = lock.request(granted.as_("a"))
    lock.leave(ticket)
    lock.leave(ticket)  # twice does no harm
    assert lock.try_acquire()


def test_the_last_waiter_leaves_while_another_process_holds_it(path: Path, fds: list[int]) -> None:
    """The thread that waits in the kernel gets the lock for nobody, and must not keep it."""
    theirs, lock = lock_on(path, fds), lock_on(path, fds)
    assert theirs.try_acquire()
    lock.leave(lock.request(lambda: None))
    theirs.release()
    assert theirs.acquire(LONG_S)
    theirs.release()
    assert lock.acquire(LONG_S)


def test_a_long_wait_is_told_of_and_keeps_its_place(path: Path, fds: list[int]) -> None:
    holder, waiter = lock_on(path, fds), lock_on(path, fds)
    told: list[str] = []
    assert holder.try_acquire()
    behind = Granted()

    def tell_again() -> None:
        told.append("again")
        waiter.request(behind.as_("behind"))  # stands after us, although we have waited twice
        holder.release()

    granted = waiter.acquire(LONG_S, [(0.01, lambda: told.append("once")), (0.02, tell_again)])
    assert (granted, told, behind.order) == (True, ["once", "again"], [])
    waiter.release()
    assert behind.wait_for(1) == ["behind"]


def test_what_was_to_be_told_later_is_not_told_of_a_short_wait(path: Path, fds: list[int]) -> None:
    holder, waiter = lock_on(path, fds), lock_on(path, fds)
    assert holder.try_acquire()
    told: list[str] = []
    assert not waiter.acquire(0.05, [(0.01, lambda: told.append("soon")), (0.05, lambda: told.append("too late"))])
    assert told == ["soon"]


def test_acquire_gives_up_after_its_time_and_leaves_no_trace(path: Path, fds: list[int]) -> None:
    theirs, lock = lock_on(path, fds), lock_on(path, fds)
    assert theirs.try_acquire()
    assert not lock.acquire(0.01)
    assert not lock.acquire(0.01)
    theirs.release()
    assert theirs.acquire(LONG_S)
    theirs.release()
    assert lock.acquire(LONG_S)
    lock.release()
    assert is_free(path)


@pytest.mark.parametrize("gated", [False, True])
def test_a_waiter_gets_what_another_process_releases(path: Path, fds: list[int], gated: bool) -> None:
    gate = path.with_suffix(".gate") if gated else None
    theirs, lock, granted = lock_on(path, fds, gate), lock_on(path, fds, gate), Granted()
    assert theirs.try_acquire()
    lock.request(granted.as_("a"))
    theirs.release()
    assert granted.wait_for(1) == ["a"]


def test_with_a_gate_a_waiting_process_is_not_passed_by_the_one_that_releases(path: Path, fds: list[int]) -> None:
    gate = path.with_suffix(".gate")
    greedy, patient, granted = lock_on(path, fds, gate), lock_on(path, fds, gate), Granted()
    assert greedy.try_acquire()
    patient.request(granted.as_("patient"))
    while is_free(gate):
        os.sched_yield()  # until the waiter's thread stands in the gate
    greedy.release()
    assert not greedy.try_acquire()
    assert granted.wait_for(1) == ["patient"]


def test_threads_never_hold_it_together(path: Path, fds: list[int]) -> None:
    gate = path.with_suffix(".gate")
    locks = [lock_on(path, fds, gate) for _ in range(2)]
    inside, worst, total, guard = 0, 0, 0, threading.Lock()

    def work(lock: KernelLock) -> None:
        nonlocal inside, worst, total
        for _ in range(50):
            assert lock.acquire(LONG_S)
            with guard:
                inside += 1
                worst = max(worst, inside)
            with guard:
                inside -= 1
                total += 1
            lock.release()

    threads = [threading.Thread(target=work, args=(locks[index % 2],)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert (worst, total) == (1, 300)


# ── another file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_follows_a_file_that_replaced_its_own(path: Path, fds: list[int]) -> None:
    lock = lock_on(path, fds)
    assert lock.try_acquire()
    old = path.with_suffix(".old")
    path.rename(old)
    assert lock.retarget(os.open(path, os.O_CREAT | os.O_RDWR))
    assert is_free(old)
    assert not is_free(path)
    lock.release()
    assert is_free(path)


def test_a_new_file_that_somebody_else_holds_is_waited_for(path: Path, fds: list[int]) -> None:
    lock = lock_on(path, fds)
    assert lock.try_acquire()
    old = path.with_suffix(".old")
    path.rename(old)
    theirs = lock_on(path, fds)
    assert theirs.try_acquire()
    assert not lock.retarget(os.open(path, os.O_RDWR))
    assert is_free(old)
    lock.release()
    assert not lock.try_acquire()
    granted = Granted()
    lock.request(granted.as_("a"))
    assert granted.order == []
    theirs.release()
    assert granted.wait_for(1) == ["a"]


# ── other processes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_forked_child_neither_holds_nor_frees_it(path: Path, fds: list[int]) -> None:
    """The child lives on; when the parent lets go, the lock is free although the child inherited the descriptor."""
    lock = lock_on(path, fds)
    assert lock.try_acquire()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, b"1" if not lock.try_acquire() else b"0")
        signal.alarm(60)
        signal.pause()
    os.close(writable)
    try:
        assert os.read(readable, 1) == b"1"
        assert not is_free(path)
        lock.release()
        assert is_free(path)
    finally:
        os.close(readable)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_death_of_its_holder_frees_it(path: Path, fds: list[int]) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        held = KernelLock(os.open(path, os.O_CREAT | os.O_RDWR))
        os.write(writable, b"1" if held.try_acquire() else b"0")
        signal.alarm(60)
        signal.pause()
    os.close(writable)
    assert os.read(readable, 1) == b"1"
    os.close(readable)
    lock, granted = lock_on(path, fds), Granted()
    lock.request(granted.as_("a"))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert granted.wait_for(1) == ["a"]


def test_after_close_nothing_is_granted_and_nothing_held(path: Path, fds: list[int]) -> None:
    lock, granted = lock_on(path, fds), Granted()
    assert lock.try_acquire()
    ticket = lock.request(granted.as_("a"))
    lock.close()
    assert is_free(path)
    assert not lock.try_acquire()
    assert not ticket.granted
    assert granted.order == ["a"]  # woken, so that it does not wait for ever


def test_a_thread_that_waits_when_the_lock_is_closed_goes_on_without_it(path: Path, fds: list[int]) -> None:
    theirs, lock = lock_on(path, fds), lock_on(path, fds)
    assert theirs.try_acquire()
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(lock.acquire(LONG_S)))
    waiter.start()
    while not lock._line:
        os.sched_yield()
    lock.close()
    waiter.join(LONG_S / 2)
    assert got == [False]


def test_a_fork_leaves_alone_what_took_the_numbers_of_a_closed_lock(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    lock = KernelLock(fd)
    lock.close()
    os.close(fd)
    reading, writing = os.pipe()  # one of them has the lock's old number
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"alive")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"alive"
    os.waitpid(child, 0)
    assert fd in (reading, writing)
