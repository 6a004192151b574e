"""What building a context costs when the history behind it is long: the window is the same, the rest is compacted.

One session has ten messages, the other ten thousand, of which a compaction has kept the last ten. Each measurement is a
turn of its own that reads and plans its context, in the provider's form; the two take turns, so that a busy machine
slows both. A third session shows a window full of messages: what an old one costs in a further request.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import holdfast
from benchmarks.measure import FULL, Goal, Report, scratch
from holdfast.context.conversions import AllConversions
from holdfast.context.plan import plan
from holdfast.kernel import Holdfast
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.pydantic_messages import to_model_messages

MESSAGES, KEPT = 10_000, 10
WIDE = 1_000
ROUNDS = 200 if FULL else 40
LONG, SHORT, FULL_WINDOW = "agent:main:long", "agent:main:short", "agent:main:full"
TARGET = ModelTarget("openai", "gpt-4o", catalog.OPENAI)


async def fill(hf: Holdfast, session: str, count: int, *, kept: int) -> None:
    async with hf.turn(session) as turn:
        for number in range(count // 2):
            await turn.append(holdfast.user(f"question {number} ".ljust(150, "?")))
            await turn.append(holdfast.assistant(f"answer {number} ".ljust(150, "!"), model="openai/m"), final=False)
        first_kept = (await turn.branch())[-kept].id
        if count > kept:
            await turn.append_compaction("What was said before. " * 20, first_kept)


async def cpu_s(hf: Holdfast, session: str, kept: AllConversions) -> tuple[float, float]:
    """CPU seconds of one context in the provider's form: with its file read, and without."""
    async with hf.turn(session) as turn:
        began = time.process_time()
        lines = await turn.branch()
        was_read = time.process_time()
        known = kept.of(session)
        to_model_messages(plan(lines, turn=turn.id, kept=known).messages, TARGET, "openai", known)
        ended = time.process_time()
    return ended - began, ended - was_read


async def measured(folder: Path) -> dict[str, dict[str, float]]:
    async with holdfast.open(folder / "state") as hf:
        await fill(hf, LONG, MESSAGES, kept=KEPT)
        await fill(hf, SHORT, KEPT, kept=KEPT)
        await fill(hf, FULL_WINDOW, WIDE, kept=WIDE)
        kept = AllConversions()
        for session in (LONG, SHORT, FULL_WINDOW):
            await cpu_s(hf, session, kept)
        whole: dict[str, list[float]] = {LONG: [], SHORT: []}
        again: list[float] = []
        anew: list[float] = []
        for _ in range(ROUNDS):
            for session, found in whole.items():
                found.append((await cpu_s(hf, session, kept))[0])
            again.append((await cpu_s(hf, FULL_WINDOW, kept))[1])
            anew.append((await cpu_s(hf, FULL_WINDOW, AllConversions()))[1])
    long, short = (_median(whole[session]) * 1e6 for session in (LONG, SHORT))
    first, further = _median(anew) / WIDE * 1e6, _median(again) / WIDE * 1e6
    return {
        "next_turn": {"messages_10000_us": _r(long), "messages_10_us": _r(short), "ratio": round(long / short, 2)},
        "old_message": {"first_request_us": _r(first), "further_request_us": _r(further)},
    }


def _median(found: list[float]) -> float:
    return sorted(found)[len(found) // 2]


def _r(value: float) -> float:
    return round(value, 2)


def main() -> None:
    report = Report("context")
    with scratch() as folder:
        report.figures = {"median_cpu": asyncio.run(measured(folder))}
        figures = report.figures["median_cpu"]
        old = figures["old_message"]
        report.goals = [
            Goal(
                "context behind 10,000 messages, in contexts behind 10", figures["next_turn"]["ratio"], "x", at_most=2.0
            ),
            Goal("an old message in a further request", old["further_request_us"], "us", at_most=27.0 / 4),
        ]
        report.print(folder)


if __name__ == "__main__":
    main()
