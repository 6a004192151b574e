"""What runs in an environment, `python -m benchmarks.peers.worker STORE`: orders come in, results go out, a line each.

    contest NUMBER AT_ONCE TURNS      turns of one process on the conversation, after a further line that says go
    history                           what is there, read anew
    overhead MESSAGES TURNS           single turns behind a history
    fill MESSAGES CHARACTERS          a conversation of that size
    first                             open it, and one turn

Only the standard library and the peer are imported here, so that what is measured is the peer's; it is imported once.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.store import Model, Opens, Said, Store

WAIT_MS = (20, 60)
"""How long the model of a contest takes."""


async def contest(store: Store, number: int, at_once: int, turns: int) -> dict[str, Any]:
    """Turns of one process, `at_once` of them at the same time. Returns those that were acknowledged."""
    model = Model(number, WAIT_MS)
    await store.history()
    answer("ready")
    await asyncio.to_thread(sys.stdin.readline)
    acknowledged: list[str] = []
    errors: dict[str, int] = {}
    waiting = [f"q {number}-{turn}" for turn in range(turns)]

    async def keep_turning() -> None:
        while waiting:
            question = waiting.pop(0)
            try:
                await store.turn(question, model)
            except Exception as failed:  # an edge: whatever a peer raises means "not acknowledged"
                errors[type(failed).__name__] = errors.get(type(failed).__name__, 0) + 1
            else:
                acknowledged.append(question)

    began = time.monotonic()
    await asyncio.gather(*(keep_turning() for _ in range(at_once)))
    ended = time.monotonic()
    found: dict[str, Any] = {"acknowledged": acknowledged, "errors": errors, "calls": model.calls}
    if number == 0:
        found["history"] = await store.history()  # of a store that lives in memory this is the only reader there is
    return {**found, "began": began, "ended": ended}


def messages(count: int, size: int) -> list[Said]:
    """Question and answer in turn, each of this many characters."""
    return [("assistant", "a" * size) if one % 2 else ("user", "q" * size) for one in range(count)]


async def overhead(store: Store, count: int, turns: int) -> dict[str, Any]:
    """CPU and clock of single turns over a model that answers at once, behind `count` messages of 200 characters."""
    model = Model()
    if count:
        await store.fill(messages(count, 200))
    await store.turn("q warm", model)
    cpu_ms: list[float] = []
    wall_ms: list[float] = []
    for turn in range(turns):
        cpu, wall = time.process_time(), time.perf_counter()
        await store.turn(f"q {turn}", model)
        cpu_ms.append((time.process_time() - cpu) * 1000)
        wall_ms.append((time.perf_counter() - wall) * 1000)
    return {"cpu_ms": cpu_ms, "wall_ms": wall_ms}


async def first(opens: Opens, folder: Path) -> dict[str, Any]:
    """From nothing but an imported library to the end of one turn."""
    cpu, wall = time.process_time(), time.perf_counter()
    store = await opens.open_store(folder)
    opened = time.perf_counter()
    await store.turn("q first", Model())
    took = {"cpu_ms": (time.process_time() - cpu) * 1000, "wall_ms": (time.perf_counter() - wall) * 1000}
    await store.close()
    return {**took, "open_ms": (opened - wall) * 1000}


async def serve(opens: Opens) -> None:
    """Carry out orders, `{"verb", "folder", "numbers"}` on a line each, until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        folder, numbers = Path(order["folder"]), order["numbers"]
        if order["verb"] == "first":
            answer(await first(opens, folder))
            continue
        store = await opens.open_store(folder)
        try:
            match order["verb"]:
                case "contest":
                    answer(await contest(store, *numbers))
                case "history":
                    answer(await store.history())
                case "overhead":
                    answer(await overhead(store, *numbers))
                case "fill":
                    await store.fill(messages(*numbers))
                    answer("filled")
                case other:
                    raise SystemExit(f"no such verb: {other}")
        finally:
            await store.close()


def answer(what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    module: Opens = importlib.import_module(f"benchmarks.peers.stores.{sys.argv[1]}")  # pyright: ignore[reportAssignmentType]
    answer("imported")
    asyncio.run(serve(module))
