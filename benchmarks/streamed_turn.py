"""What a streamed turn costs per chunk above pydantic-ai's own, in processor time.

The same answer comes from the same stand-in over a real socket: once to pydantic-ai's own stream, read to its end, once
to a turn of a gateway (runner, failover, prompt window, whoever watches), once more to a turn that is handed each chunk
by itself, as it is where they come more slowly than fifty a second. What a turn costs besides (its store, its
request) is measured with a short answer and taken off. All take turns, so that a busy machine slows all.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import holdfast
from benchmarks.measure import FULL, Goal, Report, scratch
from benchmarks.turns import LIMITS, accept
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ModelRequest, StreamItem
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.model.pydantic_builders import build
from holdfast.testing import wire
from holdfast.testing.provider import ProviderStub, Scene
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.tools import Toolbox

CHUNKS, FEW = 500, 10
ROUNDS = 100 if FULL else 24
WARM_UP = 4
SESSION = "agent:main:main"


Found = dict[tuple[str, int], list[float]]
"""Seconds of processor time, by what was done and how many chunks there were."""


def answer(chunks: int) -> Scene:
    return Scene(wire.openai(" ".join(["word"] * chunks)))


async def cpu_s(work: Callable[[], Awaitable[None]]) -> float:
    began = time.process_time()
    await work()
    return time.process_time() - began


class OneByOne:
    """A client that hands on each chunk by itself, as if it had come alone."""

    def __init__(self, client: PydanticAIModel) -> None:
        self._client = client

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        return self._client.stream(request)


async def measured(folder: Path) -> dict[str, float]:
    async with ProviderStub() as stub, holdfast.open(folder / "state", limits=LIMITS) as hf:
        target = ModelTarget("openai", "gpt-4o", catalog.OPENAI, stub.url, api_key="none")
        adapter, model = build(target, 60.0), PydanticAIModel(target)
        settings = AgentSettings(model="openai/gpt-4o")
        runner, slowly = (
            Runner(hf, client_for=lambda _, one=one: one, agent_for=lambda _: settings, toolbox=Toolbox())
            for one in (model, OneByOne(model))
        )
        number = 0

        async def bare() -> None:
            asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
            async with adapter.open(adapter.encode(ModelRequest("openai/gpt-4o", asked), 60.0)) as streamed:
                async for _ in streamed:
                    pass
            streamed.get()

        async def turn(run: Runner = runner, name: str = "turn") -> None:
            session = f"agent:main:bench:direct:{name}:thread:{number}"
            with hf.events.subscribe():
                async with hf.turn(session, input_id=await accept(hf, session)) as one:
                    assert one.view is not None
                    await run.run(one, one.view)

        async def one_by_one() -> None:
            await turn(slowly, "slowly")

        async def side_by_side(work: Callable[[], Awaitable[None]]) -> Found:
            nonlocal number
            found: Found = {}
            for _ in range(WARM_UP + ROUNDS):
                number += 1  # a turn names its session by it
                for name, one in (("bare", bare), ("turn", work)):
                    for chunks in (CHUNKS, FEW):
                        stub.play(answer(chunks))
                        found.setdefault((name, chunks), []).append(await cpu_s(one))
            return {what: spent[WARM_UP:] for what, spent in found.items()}

        bundled, alone = figures(await side_by_side(turn)), figures(await side_by_side(one_by_one))
        await adapter.aclose()
        await model.aclose()
    return {**bundled, "above_one_by_one_us": alone["above_us"]}


def figures(found: Found) -> dict[str, float]:
    """Per chunk, in microseconds: what the further chunks of a long answer cost."""

    def per_chunk(name: str) -> list[float]:
        pairs = zip(found[name, CHUNKS], found[name, FEW], strict=True)
        return [(many - few) / (CHUNKS - FEW) * 1e6 for many, few in pairs]

    bare, turn = per_chunk("bare"), per_chunk("turn")
    above = [ours - theirs for ours, theirs in zip(turn, bare, strict=True)]
    return {
        "pydantic_ai_us": round(statistics.median(bare), 2),
        "turn_us": round(statistics.median(turn), 2),
        "above_us": round(statistics.median(above), 2),
    }


def main() -> None:
    report = Report("streamed_turn")
    with scratch() as folder:
        report.figures = {"median_cpu_per_chunk": asyncio.run(measured(folder))}
        above = report.figures["median_cpu_per_chunk"]["above_us"]
        report.goals = [Goal("a chunk of a streamed turn, above pydantic-ai's own", above, "us", at_most=10.0)]
        report.print(folder)


if __name__ == "__main__":
    main()
