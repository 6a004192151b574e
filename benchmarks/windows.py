"""A thousand prompt windows open at once in one process: what each costs in memory, how long the event loop is kept.

Each conversation claims its turn, says something and enters a prompt window; when all are inside, memory is read; then
they leave at random moments within some seconds, as models end. A round of the event loop is what everybody else waits
for: its processor time is reported, which a busy machine does not change, and the clock's beside it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import FULL, Goal, Report, percentiles, run_with, scratch
from benchmarks.turns import ANSWER, MODEL, QUESTION
from holdfast.lane.policy import LaneLimits

WINDOWS = 1_000
WITHIN_S = 10.0 if FULL else 4.0
LIMITS = LaneLimits(widths={"main": 2 * WINDOWS})


def resident_kb() -> float:
    """Of this process. Linux: /proc; elsewhere nothing is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGESIZE") / 1000


class Rounds:
    """Rounds of the event loop: processor time of its thread and time by the clock, from one to the next."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    async def keep(self) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now_cpu, now = time.thread_time(), time.perf_counter()
            self.cpu.append(now_cpu - cpu)
            self.wall.append(max(0.0, now - wall - 0.001))
            cpu, wall = now_cpu, now


async def converse(hf: holdfast.Holdfast, number: int, inside: list[int], leave: asyncio.Event, at_s: float) -> None:
    async with hf.turn(f"agent:main:bench:direct:w{number}", wait_s=60) as turn:
        await turn.append(holdfast.user(QUESTION))
        async with turn.prompt_window() as window:
            inside.append(number)
            await leave.wait()
            await asyncio.sleep(at_s)
            window.finished(ANSWER)
        await turn.append(holdfast.assistant(ANSWER, model=MODEL))


async def measure(state: Path) -> dict[str, Any]:
    moments = random.Random(33)
    async with holdfast.open(state, limits=LIMITS) as hf:
        leave, inside = asyncio.Event(), list[int]()
        await converse(hf, WINDOWS, inside, _set(), 0.0)  # what is loaded once is no window's
        inside.clear()
        gc.collect()
        before = resident_kb()
        talks = [
            asyncio.create_task(converse(hf, number, inside, leave, moments.uniform(0, WITHIN_S)))
            for number in range(WINDOWS)
        ]
        while len(inside) < WINDOWS:  # noqa: ASYNC110  # nobody tells; it is no part of what is measured
            await asyncio.sleep(0.05)
        gc.collect()
        each_kb = (resident_kb() - before) / WINDOWS
        rounds = Rounds()
        watching = asyncio.create_task(rounds.keep())
        leave.set()
        await asyncio.gather(*talks)
        watching.cancel()
    return {"kb_each": round(each_kb, 1), "round_cpu": percentiles(rounds.cpu), "round_wall": percentiles(rounds.wall)}


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def main() -> None:
    report = Report("windows")
    with scratch() as folder:
        found = report.figures = run_with(lambda: measure(folder / "state"))
        report.goals = [
            Goal("a round of the loop, 1,000 windows, p99 of its processor time", found["round_cpu"]["p99_us"] / 1000,
                 "ms", at_most=20),
            Goal("memory of each of 1,000 open windows", found["kb_each"], "KB", at_most=50),
        ]  # fmt: skip
        report.print(folder)


if __name__ == "__main__":
    main()
