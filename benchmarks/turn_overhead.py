"""What one durable turn costs beside the model, in F.

A plain turn needs three syncs (accept, answer, settle), a tool round one more. The model layer, which asks `demo/fast`
through the runner of a gateway, is measured apart. Where the time goes:

    python -m benchmarks.turn_overhead profile plain|tool|model_layer
"""

from __future__ import annotations

import cProfile
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import holdfast
from benchmarks.measure import FULL, Goal, Report, SyncCost, has_uvloop, percentiles, run_with, scratch
from benchmarks.turns import LIMITS, accept, plain_turn, tool_turn
from holdfast.clock import SystemClock
from holdfast.model.demo import DemoModel
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.tools import Toolbox

SYNCS = {"plain": 3, "tool": 4, "model_layer": 3}
TURNS = 2000 if FULL else 200
TURNS_PER_SESSION = 10  # a context grows with its session; what is measured here should not
WARM_UP = 30

OneTurn = Callable[[holdfast.Holdfast, str], Awaitable[None]]


def model_layer(hf: holdfast.Holdfast) -> OneTurn:
    """A turn as a gateway runs it: context, request, stream, failover, answer."""
    demo = DemoModel(SystemClock())
    settings = AgentSettings(model="demo/fast")
    runner = Runner(hf, client_for=lambda _: demo, agent_for=lambda _: settings, toolbox=Toolbox())

    async def one(hf: holdfast.Holdfast, session: str) -> None:
        async with hf.turn(session, input_id=await accept(hf, session)) as turn:
            assert turn.view is not None
            await runner.run(turn, turn.view)

    return one


def kinds_of_turn(hf: holdfast.Holdfast) -> dict[str, OneTurn]:
    return {"plain": plain_turn, "tool": tool_turn, "model_layer": model_layer(hf)}


KINDS = ("plain", "tool", "model_layer")


@dataclass
class Cost:
    """What turns of one kind have cost: seconds by the clock, of processor time, and how often a thread had to wait."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    in_syncs: list[float] = field(default_factory=list)  # against F as it was taken just before


async def measure(state: Path, cost: SyncCost) -> dict[str, Cost]:
    """Each kind of turn, taken in rotation with F."""
    found = {kind: Cost() for kind in KINDS}
    async with holdfast.open(state, limits=LIMITS) as hf:
        kinds = kinds_of_turn(hf)
        for number in range(-WARM_UP, TURNS):
            for kind, one_turn in kinds.items():
                session = f"agent:{kind.replace('_', '-')}:bench:direct:{number // TURNS_PER_SESSION}"
                cost.sample()
                before = resource.getrusage(resource.RUSAGE_SELF)
                began = time.perf_counter()
                await one_turn(hf, session)
                if number >= 0:
                    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
                    one = found[kind]
                    one.seconds.append(took)
                    one.processor.append(processor_s(after) - processor_s(before))
                    one.waits.append(after.ru_nvcsw - before.ru_nvcsw)
                    one.in_syncs.append(took / (SYNCS[kind] * cost.seconds[-1]))
    return found


def processor_s(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def figures_of(found: dict[str, Cost], cost: SyncCost) -> dict[str, Any]:
    plain, tool, layered = (percentiles(found[kind].seconds) for kind in KINDS)
    f_us = cost.p50 * 1e6
    return {
        "f": percentiles(cost.seconds),
        "plain_turn": plain,
        "tool_turn": tool,
        "model_layer_turn": layered,
        "plain_turn_in_3f": round(plain["p50_us"] / (3 * f_us), 2),
        "tool_turn_in_4f": round(tool["p50_us"] / (4 * f_us), 2),
        "pairwise_medians": {kind: round(statistics.median(found[kind].in_syncs), 2) for kind in ("plain", "tool")},
        "tool_round_in_f": round((tool["p50_us"] - plain["p50_us"]) / f_us, 2),
        "model_layer_us": round(layered["p50_us"] - plain["p50_us"], 1),
        "processor_us": {kind: percentiles(found[kind].processor)["p50_us"] for kind in KINDS},
        "waits": {kind: statistics.median(found[kind].waits) for kind in KINDS},
    }


def main() -> None:
    report = Report("turn_overhead")
    with scratch() as folder:
        for loop in ["asyncio", *(["uvloop"] if has_uvloop() else [])]:
            with SyncCost(folder) as cost:
                found = run_with(lambda cost=cost, loop=loop: measure(folder / loop, cost), loop)
                report.figures[loop] = figures_of(found, cost)
        standard = report.figures["asyncio"]
        report.goals = [
            Goal("plain turn, against its 3 F", standard["plain_turn_in_3f"], "x", at_most=2.5),
            Goal("turn with a tool round, against its 4 F", standard["tool_turn_in_4f"], "x", at_most=2.5),
        ]
        report.print(folder)


def profile(kind: str) -> None:
    """Where the loop's thread spends its time; what other threads do for it shows as waiting in `poll`."""

    async def many_turns(state: Path) -> None:
        async with holdfast.open(state, limits=LIMITS) as hf:
            one_turn = kinds_of_turn(hf)[kind]
            for number in range(500):
                await one_turn(hf, f"agent:main:bench:direct:{number // TURNS_PER_SESSION}")

    with scratch() as folder:
        profiler = cProfile.Profile()
        profiler.runcall(run_with, lambda: many_turns(folder / "state"))
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    profile(sys.argv[2]) if sys.argv[1:2] == ["profile"] else main()
