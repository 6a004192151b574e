"""What building a context costs when the history behind it is long: the window is the same, the rest is compacted.

One session has ten messages, the other ten thousand, of which a compaction has kept the last ten. Each measurement is a
turn of its own that reads and plans its context; the two take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import holdfast
from benchmarks.measure import FULL, Goal, Report, scratch
from holdfast.kernel import Holdfast

MESSAGES, KEPT = 10_000, 10
ROUNDS = 200 if FULL else 40
LONG, SHORT = "agent:main:long", "agent:main:short"


async def fill(hf: Holdfast, session: str, count: int) -> None:
    async with hf.turn(session) as turn:
        for number in range(count // 2):
            await turn.append(holdfast.user(f"question {number} ".ljust(150, "?")))
            await turn.append(holdfast.assistant(f"answer {number} ".ljust(150, "!"), model="p/m"), final=False)
        kept = (await turn.branch())[-KEPT].id
        if count > KEPT:
            await turn.append_compaction("What was said before. " * 20, kept)


async def cpu_s(hf: Holdfast, session: str) -> float:
    """CPU seconds of one context, its file read included."""
    async with hf.turn(session) as turn:
        began = time.process_time()
        messages = await turn.context()
        spent = time.process_time() - began
    assert KEPT <= len(messages) <= KEPT + 1
    return spent


async def measured(folder: Path) -> dict[str, float]:
    async with holdfast.open(folder / "state") as hf:
        await fill(hf, LONG, MESSAGES)
        await fill(hf, SHORT, KEPT)
        seconds: dict[str, list[float]] = {LONG: [], SHORT: []}
        for _ in range(ROUNDS):
            for session, found in seconds.items():
                found.append(await cpu_s(hf, session))
    long, short = (sorted(seconds[session])[ROUNDS // 2] * 1e6 for session in (LONG, SHORT))
    return {"messages_10000_us": round(long, 1), "messages_10_us": round(short, 1), "ratio": round(long / short, 2)}


def main() -> None:
    report = Report("context")
    with scratch() as folder:
        report.figures = {"median_cpu": asyncio.run(measured(folder))}
        ratio = report.figures["median_cpu"]["ratio"]
        report.goals = [Goal("context behind 10,000 messages, in contexts behind 10", ratio, "x", at_most=2.0)]
        report.print(folder)


if __name__ == "__main__":
    main()
