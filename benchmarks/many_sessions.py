"""Whether sessions help each other: durable turns a second of one session, of sixteen, and of two processes of eight.

Syncs that wait at the same time become one, and while one session waits for the disk another computes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import (
    FULL,
    Goal,
    Report,
    SyncCost,
    hear,
    listen,
    percentiles,
    run_with,
    say,
    scratch,
    start_worker,
    tell,
)
from benchmarks.turns import LIMITS, plain_turn

SECONDS = 10.0 if FULL else 2.0
TURNS_PER_SESSION = 100
ROUNDS = 3  # one, sixteen and two times eight are taken in rotation; the best of each counts


async def keep_turning(hf: holdfast.Holdfast, name: str, ends_at: float) -> int:
    """One conversation after the other, a turn after the other. Returns how many."""
    count = 0
    while time.monotonic() < ends_at:
        await plain_turn(hf, f"agent:main:bench:direct:{name}-{count // TURNS_PER_SESSION}")
        count += 1
    return count


async def work(state: Path, names: list[str]) -> None:
    """A process with a session per name, all at once from "go" until the time is up."""
    async with holdfast.open(state, limits=LIMITS) as hf:
        await asyncio.gather(*(plain_turn(hf, f"agent:main:bench:direct:{name}-0") for name in names))
        say("ready")
        ends_at = float(listen())
        say(sum(await asyncio.gather(*(keep_turning(hf, name, ends_at) for name in names))))


async def turns_per_second(state: Path, processes: int, sessions: int) -> float:
    workers = [
        await start_worker("many_sessions", str(state), *(f"p{process}s{number}" for number in range(sessions)))
        for process in range(processes)
    ]
    for worker in workers:
        assert await hear(worker) == "ready"
    ends_at = time.monotonic() + SECONDS
    for worker in workers:
        tell(worker, str(ends_at))
    counts = [await hear(worker) for worker in workers]
    for worker in workers:
        await worker.wait()
    return round(sum(counts) / SECONDS, 1)


def main() -> None:
    report = Report("many_sessions")
    kinds = {"1_session": (1, 1), "16_sessions": (1, 16), "2_processes_of_8": (2, 8)}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with scratch() as folder, SyncCost(folder) as cost:
        for number in range(ROUNDS):
            for name, (processes, sessions) in kinds.items():
                state = folder / f"{name}-{number}"
                rates[name].append(run_with(lambda s=state, p=processes, n=sessions: turns_per_second(s, p, n)))
                cost.sample()
        best: dict[str, Any] = {name: max(found) for name, found in rates.items()}
        report.figures = {"turns_per_s": best, "all_rounds": rates, "f": percentiles(cost.seconds)}
        one = best["1_session"]
        report.goals = [
            Goal("16 sessions in one process, against one", round(best["16_sessions"] / one, 2), "x", at_least=1.5),
            Goal(
                "two processes of 8, against one session", round(best["2_processes_of_8"] / one, 2), "x", at_least=2.5
            ),
        ]
        report.print(folder)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(work(Path(sys.argv[1]), sys.argv[2:]))
    else:
        main()
