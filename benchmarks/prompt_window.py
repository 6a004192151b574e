"""Whether history costs anything: the same steps on transcripts of 10 KB, 1 MB, 100 MB and 1 GB.

Each transcript is recorded by Holdfast itself, in lines of up to 8 MB so that it takes seconds, not minutes. Measured
are a whole turn (claim, window, one line, settle), the window alone, and the first append after the state was opened.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import FULL, Goal, Report, SyncCost, percentiles, run_with, scratch

KB, MB, GB = 1000, 1000**2, 1000**3
SIZES = {"10 KB": 10 * KB, "1 MB": MB, "100 MB": 100 * MB, "1 GB": GB}
LINE_BYTES = 8 * MB
ROUNDS = 500 if FULL else 60
OPENINGS = 50 if FULL else 10


def session_of(size: str) -> str:
    return f"agent:main:bench:direct:{size.replace(' ', '-')}"


async def record(state: Path) -> dict[str, int]:
    """Write the transcripts through turns. Returns their sizes in bytes."""
    sizes: dict[str, int] = {}
    async with holdfast.open(state) as hf:
        for size, wanted in SIZES.items():
            async with hf.turn(session_of(size)) as turn:
                await turn.append(holdfast.user("the beginning"))
                path = Path(turn.transcript.path)
                while (left := wanted - path.stat().st_size) > 0:
                    await turn.append(holdfast.custom("filler", "x" * max(1, min(LINE_BYTES, left - 400))))
            sizes[size] = path.stat().st_size
    return sizes


async def cycles(state: Path, cost: SyncCost) -> dict[str, dict[str, list[float]]]:
    """Seconds per size, sizes taken in rotation."""
    found: dict[str, dict[str, list[float]]] = {size: {"turn": [], "window": []} for size in SIZES}
    async with holdfast.open(state) as hf:
        for number in range(-5, ROUNDS):
            for size, seconds in found.items():
                cost.sample()
                began = time.perf_counter()
                async with hf.turn(session_of(size)) as turn:
                    entered = time.perf_counter()
                    async with turn.prompt_window():
                        pass
                    left = time.perf_counter()
                    await turn.append(holdfast.assistant("one line", model="bench/instant"))
                if number >= 0:
                    seconds["turn"].append(time.perf_counter() - began)
                    seconds["window"].append(left - entered)
    return found


async def openings(state: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds from nothing to a first line in the file, the handle being opened anew each time."""
    found: dict[str, dict[str, list[float]]] = {size: {"open": [], "first_append": [], "whole": []} for size in SIZES}
    for _ in range(OPENINGS):
        for size, seconds in found.items():
            began = time.perf_counter()
            async with holdfast.open(state) as hf:
                opened = time.perf_counter()
                async with hf.turn(session_of(size)) as turn:
                    await turn.append(holdfast.user("first"))
                    appended = time.perf_counter()
            seconds["open"].append(opened - began)
            seconds["first_append"].append(appended - opened)
            seconds["whole"].append(appended - began)
    return found


def all_percentiles(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    return {size: {name: percentiles(seconds) for name, seconds in kinds.items()} for size, kinds in found.items()}


def spread(figures: dict[str, dict[str, Any]], name: str) -> float:
    """The slowest size against 10 KB, by medians."""
    medians = {size: kinds[name]["p50_us"] for size, kinds in figures.items()}
    return round(max(medians.values()) / medians["10 KB"], 2)


def main() -> None:
    report = Report("prompt_window")
    with scratch() as folder, SyncCost(folder) as cost:
        state = folder / "state"
        report.figures["bytes"] = run_with(lambda: record(state))
        cycle = report.figures["cycle"] = all_percentiles(run_with(lambda: cycles(state, cost)))
        opening = report.figures["opening"] = all_percentiles(run_with(lambda: openings(state)))
        report.figures["f"] = percentiles(cost.seconds)
        report.goals = [
            Goal("turn with a window, slowest size against 10 KB", spread(cycle, "turn"), "x", at_most=1.2),
            Goal("window alone, slowest size against 10 KB", spread(cycle, "window"), "x", at_most=1.2),
            Goal("open and first append at 1 GB", opening["1 GB"]["whole"]["p50_us"] / 1000, "ms", at_most=5.0),
        ]
        report.print(folder)


if __name__ == "__main__":
    main()
