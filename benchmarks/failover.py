"""What failover costs beside the model it asks, in microseconds of CPU.

A model that answers at once is asked directly and through the loop, in rotation in one process, with the surroundings
of a real turn; then a chain of which three models refuse with 429. Files that are opened meanwhile are counted.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import FULL, Goal, Report, percentiles, run_with, scratch
from benchmarks.turns import LIMITS, accept
from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, zero_usage
from holdfast.model.failover import ask_along
from holdfast.turn.asking import AgentSettings, Asking, KeylessModels

ROUNDS = 5000 if FULL else 1000
SESSION = "agent:main:bench:direct:failover"


class Instant:
    """Answers at once, or refuses if its name says so."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        if "limited" in request.model:
            raise ProviderError("slow down", status=429)
        yield ModelAnswer([{"type": "text", "text": "hi"}], "stop", "x", "y", "z", zero_usage())


class Opens:
    """How many files were opened while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _args: Any) -> None:
        if self.on and event == "open":
            self.count += 1


def _nothing(_: TextDelta | ThinkingDelta) -> None: ...


async def measure(state: Path) -> dict[str, Any]:
    opens, model = Opens(), Instant()
    direct: list[float] = []
    first: list[float] = []
    after_three: list[float] = []
    request = ModelRequest("a/1", [{"role": "user", "content": "hi"}])
    async with holdfast.open(state, limits=LIMITS) as hf:
        input_id = await accept(hf, SESSION)
        async with hf.turn(SESSION, input_id=input_id) as turn:

            def asking(*chain: str) -> Asking:
                agent = AgentSettings(chain[0], chain[1:])
                models = KeylessModels(lambda _: model)
                return Asking(turn, hf.store, hf.clock, models, agent, None, _nothing)

            async def ask_directly() -> None:
                async for _ in model.stream(request):
                    pass

            one = asking("a/1", "b/2")

            async def ask_one() -> None:
                await ask_along(one.begin(), request, one)

            async def ask_four() -> None:
                four = asking("limited/1", "limited/2", "limited/3", "b/2")
                await ask_along(four.begin(), request, four)

            kinds: list[tuple[list[float], Callable[[], Awaitable[None]]]] = [
                (direct, ask_directly), (first, ask_one), (after_three, ask_four),
            ]  # fmt: skip
            for number in range(-100, ROUNDS):
                for seconds, act in kinds:
                    opens.on = act is ask_one
                    began = time.thread_time()  # of the loop's thread: what the ledger's does, nobody waits for
                    await act()
                    took = time.thread_time() - began
                    opens.on = False
                    if number >= 0:
                        seconds.append(took)
            await turn.append(holdfast.assistant("done", model="a/1"))
    figures: dict[str, Any] = {
        "direct": percentiles(direct), "first_answers": percentiles(first), "three_refuse": percentiles(after_three),
        "files_opened_per_call": opens.count / (ROUNDS + 100),
    }  # fmt: skip
    return figures


def main() -> None:
    logging.getLogger("holdfast").addHandler(logging.NullHandler())
    logging.getLogger("holdfast").propagate = False
    report = Report("failover")
    with scratch() as folder:
        report.figures = run_with(lambda: measure(folder / "state"))
        found = report.figures
        over = found["first_answers"]["p50_us"] - found["direct"]["p50_us"]
        three = found["three_refuse"]["p50_us"] - found["direct"]["p50_us"]
        report.goals = [
            Goal("first model answers, CPU over asking it directly", round(over, 1), "us", at_most=50),
            Goal("three 429s, then an answer, receipts included", round(three, 1), "us", at_most=500),
            Goal("files opened per call", found["files_opened_per_call"], "", at_most=0),
        ]
        report.print(folder)


if __name__ == "__main__":
    main()
