"""Whether a burst costs per input what a trickle does: accepted inputs that pile up on one session and on a thousand.

Nothing runs meanwhile, so that the queue is as long as it can get; the limits of lanes and sessions are lifted. Inputs
arrive in groups, as from many connections at once, and each is on disk before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import FULL, Goal, Report, SyncCost, percentiles, run_with, scratch
from benchmarks.turns import QUESTION
from holdfast.lane.policy import LaneLimits

FEW = 1_000
MANY = 100_000 if FULL else 10_000
AT_ONCE = 50
WITHIN = 1.5
UNLIMITED = LaneLimits(depth_max=10_000_000, per_session_max=10_000_000)
Cost = dict[str, float]


async def enqueue(hf: holdfast.Holdfast, first: int, count: int, sessions: int) -> Cost:
    """Accept `count` inputs, spread over the sessions. Returns seconds of processor and by the clock, per input."""
    cpu, clock = time.process_time(), time.perf_counter()
    for start in range(first, first + count, AT_ONCE):
        group = range(start, min(start + AT_ONCE, first + count))
        events = [
            holdfast.InboundEvent(f"agent:main:bench:direct:{number % sessions}", {"content": QUESTION})
            for number in group
        ]
        for admission in await asyncio.gather(*(hf.accept(event) for event in events)):
            assert isinstance(admission, holdfast.Accepted), admission
    return {
        "cpu_us": (time.process_time() - cpu) * 1e6 / count,
        "clock_us": (time.perf_counter() - clock) * 1e6 / count,
    }


async def burst(state: Path, sessions: int, cost: SyncCost) -> dict[str, Any]:
    """Fill a state up to MANY; the first FEW and the last FEW are compared with all."""
    async with holdfast.open(state, limits=UNLIMITED) as hf:
        await enqueue(hf, 0, sessions, sessions)  # that the sessions exist is no part of a burst
        parts = {"first": await enqueue(hf, 0, FEW, sessions)}
        cost.sample()
        middle = MANY - 2 * FEW
        parts["middle"] = await enqueue(hf, 0, middle, sessions)
        cost.sample()
        parts["last"] = await enqueue(hf, 0, FEW, sessions)
    whole = {
        name: round((FEW * (parts["first"][name] + parts["last"][name]) + middle * parts["middle"][name]) / MANY, 1)
        for name in ("cpu_us", "clock_us")
    }
    return {"per_input": whole, **{name: {k: round(v, 1) for k, v in part.items()} for name, part in parts.items()}}


def main() -> None:
    report = Report("bursts")
    with scratch() as folder, SyncCost(folder) as cost:
        for sessions in (1, 1_000):
            found = run_with(lambda n=sessions: burst(folder / str(n), n, cost))
            report.figures[f"{sessions}_sessions"] = found
            base = found["first"]
            for name, what in (("cpu_us", "processor"), ("clock_us", "clock")):
                figure = round(found["per_input"][name] / base[name], 2)
                report.goals.append(
                    Goal(f"{MANY:,} inputs over {sessions:,}, per input against {FEW:,} ({what})", figure, "x", WITHIN)
                )
            report.goals.append(
                Goal(f"the last {FEW:,} of them against the first (processor)",
                     round(found["last"]["cpu_us"] / base["cpu_us"], 2), "x", WITHIN)
            )  # fmt: skip
        report.figures["f"] = percentiles(cost.seconds)
        report.print(folder)


if __name__ == "__main__":
    main()
