"""Whether the hot paths have become dearer: ratios against stored ones, past a stated margin a failure.

    python -m benchmarks.check             compare with benchmarks/check.json; exit code 1 past a margin
    python -m benchmarks.check --store     measure and store anew (say why in the commit)

Times mean nothing on another machine or a busier one, so none is stored. Stored are ratios of processor time: an
operation by a fixed piece of work in plain Python that is done in between, in the same process. The smallest of several
rounds counts, which others on the machine disturb least. Beside them stand calls of Python functions, which no load
changes, and instructions, where the processor lets them be counted.
"""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.counters import Instructions
from benchmarks.measure import run_with, scratch
from benchmarks.turns import LIMITS, plain_turn, tool_turn
from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, zero_usage
from holdfast.model.failover import ask
from holdfast.model.failure import classify

STORED = Path(__file__).with_name("check.json")
ROUNDS, EACH = 9, 20
COUNTED = 50
MARGINS = {"ratio": 1.6, "calls": 1.10, "instructions": 1.10}
"""How much dearer a figure may be. Ratios of processor time wander by a third on a busy machine, counts hardly."""
KEY = "agent:main:bench:direct:check"
Figures = dict[str, dict[str, float]]


def piece_of_work() -> None:
    """The unit: about 100 µs of what Python programs do, and nothing that a disk or a kernel has a part in."""
    said = {"role": "user", "content": "x" * 200, "more": list(range(20))}
    for _ in range(10):
        text = json.dumps(said)
        said = dict(sorted(json.loads(text).items()))


class Instant:
    """A model that answers at once; one that is called "limited" refuses."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        if "limited" in request.model:
            raise ProviderError("slow down", status=429)
        yield ModelAnswer([{"type": "text", "text": "hi"}], "stop", "x", "y", "z", zero_usage())


async def operations(hf: holdfast.Holdfast) -> dict[str, Callable[[], Awaitable[Any]]]:
    model = Instant()
    request = ModelRequest("a/1", [{"role": "user", "content": "hi"}])
    async with hf.turn(f"{KEY}-long") as turn:
        for number in range(1_000):
            await turn.append(holdfast.user(f"{number} said before"))

    async def chain(*models: str) -> None:
        await ask(models, request, client_for=lambda _: model, on_item=lambda _: None, on_decision=lambda _: None)

    async def context() -> None:
        async with hf.turn(f"{KEY}-long") as owned:
            await owned.context()

    async def classified() -> None:
        for _ in range(20):
            classify(ProviderError("rate limit exceeded", status=429))

    return {
        "plain turn": lambda: plain_turn(hf, KEY),
        "turn with a tool round": lambda: tool_turn(hf, KEY),
        "turn behind 1,000 messages, with its context": context,
        "chain, first answers": lambda: chain("a/1", "b/2"),
        "chain, three refuse": lambda: chain("limited/1", "limited/2", "limited/3", "b/2"),
        "20 errors classified": classified,
    }


async def measured(state: Path) -> Figures:
    figures: Figures = {}
    async with holdfast.open(state, limits=LIMITS) as hf:
        doing = await operations(hf)
        for act in doing.values():
            for _ in range(3):
                await act()
        spent: dict[str, list[float]] = {name: [] for name in doing}
        units: list[float] = []
        gc.collect()
        for _ in range(ROUNDS):
            for name, act in doing.items():
                units.append(_of_unit())
                began = time.process_time()
                for _ in range(EACH):
                    await act()
                spent[name].append((time.process_time() - began) / EACH)
        unit = min(units)
        for name, act in doing.items():
            figures[name] = {"ratio": min(spent[name]) / unit, "calls": await calls_of(act)}
            with Instructions() as counter:
                for _ in range(COUNTED):
                    await act()
            if counter.taken is not None:
                figures[name]["instructions"] = counter.taken / COUNTED
    return figures


def _of_unit() -> float:
    began = time.process_time()
    for _ in range(EACH):
        piece_of_work()
    return (time.process_time() - began) / EACH


async def calls_of(act: Callable[[], Awaitable[Any]]) -> float:
    """Calls of Python functions on the loop's thread, per operation, without what housekeeping adds."""
    counts: list[int] = []
    for _ in range(COUNTED):
        count = 0

        def hear(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(hear)
        try:
            await act()
        finally:
            sys.setprofile(None)
        counts.append(count)
    return float(sorted(counts)[len(counts) // 4])


def imports() -> dict[str, float]:
    """Processor time of `import holdfast` by that of asyncio and msgspec, and of its first use."""

    def cost(code: str) -> float:
        program = f"import time; b = time.process_time(); {code}; print(time.process_time() - b)"
        command = [sys.executable, "-c", program]
        return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5))

    return {"ratio": cost("import holdfast") / cost("import asyncio, msgspec")}


def compare(now: Figures, stored: Figures) -> tuple[list[str], list[str]]:
    """Lines of a table, and what is past its margin."""
    lines, past = [f"{'':46} {'kind':>12} {'now':>12} {'stored':>12} {'at most':>12}"], list[str]()
    for name, kinds in now.items():
        for kind, figure in kinds.items():
            before = stored.get(name, {}).get(kind)
            limit = None if before is None else before * MARGINS[kind]
            shown = ["-" if one is None else f"{one:,.2f}" for one in (figure, before, limit)]
            bad = limit is not None and figure > limit
            lines.append(f"{name:46} {kind:>12} {shown[0]:>12} {shown[1]:>12} {shown[2]:>12}{'  PAST' if bad else ''}")
            past += [f"{name}: {kind} {figure:,.2f}, stored {before:,.2f}"] if bad and before is not None else []
    return lines, past


def main(arguments: list[str]) -> int:
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)
    with scratch() as folder:
        now: Figures = run_with(lambda: measured(folder / "state"))
    now["import holdfast, by asyncio and msgspec"] = imports()
    if arguments == ["--store"]:
        rounded = {name: {kind: round(one, 3) for kind, one in kinds.items()} for name, kinds in now.items()}
        STORED.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
        return 0
    stored: Figures = json.loads(STORED.read_text(encoding="utf-8"))
    lines, past = compare(now, stored)
    print("\n".join(lines))
    if "instructions" not in now["plain turn"]:
        print("instructions: this machine does not let them be counted", file=sys.stderr)
    missing = set(stored) - set(now)
    for one in (*past, *(f"{name}: not measured any more" for name in sorted(missing))):
        print(f"dearer than stored: {one}", file=sys.stderr)
    return 1 if past or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
