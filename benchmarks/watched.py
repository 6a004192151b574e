"""What it costs a gateway to be watched: the same storm of 200 sessions with a dashboard that follows live and /metrics
read every five seconds, and without, in turns; CPU seconds of the gateway's process.

The dashboard asks as its page does (`gateway/pages/dashboard.js`): everything once, then each second what is new,
less often where much is.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import FULL, Goal, Report, hear, listen, run_with, say, scratch, start_worker, tell
from holdfast.config import Config
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.model.client import ModelRequest, StreamItem
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import served

SESSIONS = 200
TURNS = 10 if FULL else 4  # of each session
PAIRS = 5 if FULL else 2
MODEL_S = (0.2, 2.0)
PAUSE_S = (0.5, 3.0)  # between an answer and the next message: people read
SCRAPE_S = 5.0
OVERLAP_MS = 2000


class Slow:
    """A model that takes its time, the same times in each run."""

    def __init__(self) -> None:
        self._chance = random.Random(3)  # the same storm each time

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        await asyncio.sleep(self._chance.uniform(*MODEL_S))
        async for item in ScriptedModel("An answer of a few words, as people get them.").stream(request):
            yield item


async def work(state: Path) -> None:
    """The gateway and its storm: "go" begins it; says the CPU seconds that the storm took, and how long it lasted."""
    config = Config.model_validate({"lanes": {"widths": {"main": SESSIONS}}})
    async with served(state, model=Slow(), config=config) as gateway:
        say([gateway.url, gateway.token])
        await asyncio.to_thread(listen)

        async def talk(number: int) -> None:
            chance = random.Random(number)
            for turn in range(TURNS):
                await asyncio.sleep(chance.uniform(*PAUSE_S))
                event = InboundEvent(f"agent:main:bench:direct:{number}", {"content": f"message {turn}"})
                admission = await gateway.hf.accept(event)
                assert isinstance(admission, Accepted)
                await gateway.hf.wait_input(admission.input_id, 300)

        began, spent = time.monotonic(), time.process_time()
        await asyncio.gather(*(talk(number) for number in range(SESSIONS)))
        say([time.process_time() - spent, time.monotonic() - began])


async def follow(http: httpx.AsyncClient, asked: dict[str, int]) -> None:
    """A dashboard that is open at its turns."""
    params: dict[str, Any] = {"limit": 10_000}
    while True:
        found = (await http.get("/api/timeline", params=params)).raise_for_status().json()
        (await http.get("/api/overview")).raise_for_status()
        asked["looks"] += 1
        asked["turns_told"] += len(found["turns"])
        running = [turn["id"] for turn in found["turns"] if turn["until_ms"] is None][:400]
        params = {"limit": 2000, "also": ",".join(running), "after": found["told"]}
        params["since_ms"] = found["now_ms"] - OVERLAP_MS
        await asyncio.sleep(min(3.0, max(1.0, len(found["turns"]) * 0.03)))


async def scrape(http: httpx.AsyncClient, asked: dict[str, int]) -> None:
    while True:
        (await http.get("/metrics")).raise_for_status()
        asked["scrapes"] += 1
        await asyncio.sleep(SCRAPE_S)


async def storm(state: Path, *, watched: bool) -> dict[str, Any]:
    """One run; what the gateway's process spent."""
    worker = await start_worker("watched", str(state))
    url, token = await hear(worker)
    asked = {"looks": 0, "turns_told": 0, "scrapes": 0}
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        watching = [asyncio.create_task(each(http, asked)) for each in (follow, scrape)] if watched else []
        tell(worker, "go")
        cpu_s, wall_s = await hear(worker)
        for task in watching:
            task.cancel()
    await worker.wait()
    return {"watched": watched, "cpu_s": round(cpu_s, 3), "wall_s": round(wall_s, 1), **asked}


def main() -> None:
    report = Report("watched")
    runs: list[dict[str, Any]] = []
    with scratch() as folder:
        for number in range(PAIRS):
            for watched in (False, True) if number % 2 else (True, False):  # who goes first pays for cold caches
                run = run_with(lambda n=number, w=watched: storm(folder / f"{n}-{w}", watched=w))
                runs.append(run)  # a run each, one after the other
        # Pair by pair: a machine that others use changes between the first run and the last by more than this costs.
        pairs = [sorted(pair, key=lambda run: run["watched"]) for pair in zip(runs[::2], runs[1::2], strict=True)]
        more = [round((watched["cpu_s"] / alone["cpu_s"] - 1) * 100, 2) for alone, watched in pairs]
        report.figures = {"sessions": SESSIONS, "turns": SESSIONS * TURNS, "more_percent_by_pair": more, "runs": runs}
        report.goals = [Goal("CPU of a watched storm, more than unwatched", statistics.median(more), "%", at_most=3.0)]
        report.print(folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(Path(sys.argv[1])))
    else:
        main()
