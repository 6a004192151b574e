"""Threads that stay for the next work, and how many."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

from holdfast.store.embedded.spare_threads import SPARE_MAX, SpareThreads

PATIENCE_S = 10.0


def wait_for_spare(threads: SpareThreads, count: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while len(threads._spare) < count:
        assert time.monotonic() < until, "no thread came back"
        time.sleep(0)


def test_work_that_comes_later_runs_on_the_thread_that_has_ended_its_own() -> None:
    threads, seen = SpareThreads(), SimpleQueue[int]()
    for _ in range(3):
        threads.start(lambda: seen.put(threading.get_ident()))
        wait_for_spare(threads, 1)
    assert seen.get() == seen.get() == seen.get()


def test_work_that_comes_meanwhile_runs_beside_it_and_few_threads_stay() -> None:
    threads, go, ended = SpareThreads(), threading.Event(), threading.Barrier(SPARE_MAX + 5)
    together = threading.Barrier(SPARE_MAX + 5)

    def work() -> None:
        together.wait(PATIENCE_S)  # all of them run at once
        go.wait(PATIENCE_S)
        if ended.wait(PATIENCE_S) == 0:
            go.clear()

    for _ in range(SPARE_MAX + 4):
        threads.start(work)
    together.wait(PATIENCE_S)
    go.set()
    ended.wait(PATIENCE_S)
    wait_for_spare(threads, SPARE_MAX)
    assert len(threads._spare) == SPARE_MAX


def test_a_forked_child_hands_nothing_to_threads_it_does_not_have() -> None:
    threads, seen = SpareThreads(), SimpleQueue[int]()
    threads.start(lambda: seen.put(1))
    wait_for_spare(threads, 1)
    threads.forget_after_fork()
    threads.start(lambda: seen.put(2))
    assert [seen.get(timeout=PATIENCE_S), seen.get(timeout=PATIENCE_S)] == [1, 2]
