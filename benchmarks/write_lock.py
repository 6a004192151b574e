"""The write lock: what it costs when nobody else wants it, and how fair it is when everybody does.

Contenders are processes that append a line without a turn and sync it, as fast as they can, to one transcript. With
eight of them, one is then killed and another stopped and continued, while the others go on.
"""

from __future__ import annotations

import asyncio
import os
import signal
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
from holdfast.store.embedded.holding import TranscriptFile

SESSION = "agent:main:main"
SECONDS = 10.0 if FULL else 2.0
HOLDINGS = 200_000 if FULL else 20_000
PAUSED_S = 0.5  # how long one contender stands still


def uncontended(folder: Path) -> dict[str, float | int]:
    """Take and release, nobody else there: gate, lock, a look at the path, unlock."""
    fence = folder / "fence"
    fence.mkdir()
    file = TranscriptFile("bench", folder / "transcript.jsonl", fence, "bench")
    seconds: list[float] = []
    for _ in range(HOLDINGS):
        began = time.perf_counter()
        assert file.try_hold()
        file.release()
        seconds.append(time.perf_counter() - began)
    file.close()
    return percentiles(seconds)


# ── one contender ────────────────────────────────────────────────────────────────────────────────────────────────────


async def contend(state: Path) -> None:
    """Append and sync from "go" until the time is up, then tell how often and how long the longest wait was."""
    async with holdfast.open(state) as hf:
        session = hf.session(SESSION)
        await session.append_metadata(holdfast.custom("ready"))
        say("ready")
        ends_at = float(listen())
        longest, count, began = 0.0, 0, time.monotonic()
        while began < ends_at:
            await session.append_metadata(holdfast.custom("contender", count), durable=True)
            now = time.monotonic()
            longest, count, began = max(longest, now - began), count + 1, now
        say({"count": count, "longest_s": longest})


# ── the contest ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def start_contest(state: Path, number: int) -> list[asyncio.subprocess.Process]:
    """Contenders that begin at the same moment and end at the same moment."""
    workers = [await start_worker("write_lock", str(state)) for _ in range(number)]
    for worker in workers:
        assert await hear(worker) == "ready"
    for worker in workers:
        tell(worker, str(time.monotonic() + SECONDS))
    return workers


async def contest(state: Path, number: int) -> dict[str, Any]:
    workers = await start_contest(state, number)
    results = [await hear(worker) for worker in workers]
    for worker in workers:
        await worker.wait()
    return summary(results)


async def disturbed_contest(state: Path, number: int) -> dict[str, Any]:
    """One contender dies, another stands still for a while; both are left out of the fairness of the others."""
    killed, stopped, *others = workers = await start_contest(state, number)
    await asyncio.sleep(SECONDS / 4)
    os.kill(killed.pid, signal.SIGKILL)
    os.kill(stopped.pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSED_S)
    os.kill(stopped.pid, signal.SIGCONT)
    results = [await hear(worker) for worker in others]
    for worker in workers:
        await worker.wait()
    return {**summary(results), "paused_s": PAUSED_S}


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    counts = [result["count"] for result in results]
    return {
        "appends_per_s": round(sum(counts) / SECONDS, 1),
        "fairness": round(min(counts) / max(counts), 3),
        "longest_wait_ms": round(max(result["longest_s"] for result in results) * 1000, 2),
        "counts": counts,
    }


def main() -> None:
    report = Report("write_lock")
    with scratch() as folder, SyncCost(folder) as cost:
        report.figures["uncontended"] = uncontended(folder)
        for number in (2, 4, 8):
            cost.sample()
            result = run_with(lambda number=number: contest(folder / f"state-{number}", number))
            report.figures[f"{number}_processes"] = result
        disturbed = run_with(lambda: disturbed_contest(folder / "state-disturbed", 8))
        report.figures["8_processes_one_killed_one_stopped"] = disturbed
        report.figures["f"] = percentiles(cost.seconds)
        report.goals = [
            Goal("fairness of 8 processes", report.figures["8_processes"]["fairness"], "", at_least=0.9),
            Goal("fairness of the other 6 when one is killed and one stopped", disturbed["fairness"], "", at_least=0.9),
        ]
        report.print(folder)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(contend(Path(sys.argv[1])))
    else:
        main()
