"""Bursts of inputs into a queue, and a session whose worker is killed.

    python -m benchmarks.peers.queues burst QUEUE FOLDER COUNT     per input, nothing running meanwhile
    python -m benchmarks.peers.queues work dbos FOLDER NAME        a worker that says when a turn of the session begins

`sqlite` is a hand-written table, one row and one commit for each input; `memory` an `asyncio.Queue`, which loses all of
it with its process.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

TEXT = "What is the capital of France, and since when?"
AT_ONCE = 50
QUEUE, PARTITION = "turns", "conversation"


async def through_us(folder: Path, count: int) -> None:
    holdfast: Any = importlib.import_module("holdfast")
    policy: Any = importlib.import_module("holdfast.lane.policy")
    limits = policy.LaneLimits(depth_max=10_000_000, per_session_max=10_000_000)
    async with holdfast.open(folder / "state", limits=limits) as hf:
        for start in range(0, count, AT_ONCE):
            events = [holdfast.InboundEvent("agent:main:main", {"content": TEXT}) for _ in range(AT_ONCE)][
                : count - start
            ]
            for one in await asyncio.gather(*(hf.accept(event) for event in events)):
                assert isinstance(one, holdfast.Accepted), one


async def through_sqlite(folder: Path, count: int) -> None:
    db = sqlite3.connect(folder / "queue.db")
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute("create table inputs (id integer primary key, text, state)")
    for _ in range(count):
        with db:
            db.execute("insert into inputs (text, state) values (?, 'queued')", (TEXT,))
    db.close()


async def through_memory(_folder: Path, count: int) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()
    for _ in range(count):
        await queue.put(TEXT)


async def launch_dbos(folder: Path, executor: str) -> tuple[Any, Any]:
    """The library, launched with a queue of one turn at a time per conversation, and a workflow that is one turn: it
    says that it began, and one that is called "hold" never ends.
    """
    logging.disable(logging.ERROR)
    dbos: Any = importlib.import_module("dbos")
    url = f"sqlite:///{folder / 'dbos.sqlite'}"
    dbos.DBOS(config={"name": "bench", "system_database_url": url, "executor_id": executor, "run_admin_server": False})

    async def turn(text: str) -> str:
        print(json.dumps({"began": time.monotonic(), "text": text}), flush=True)
        if text == "hold":
            await asyncio.sleep(600)
        return text

    workflow = dbos.DBOS.workflow()(turn)
    dbos.DBOS.launch()
    await dbos.DBOS.register_queue_async(QUEUE, partition_concurrency=1, polling_interval_sec=0.05)
    return dbos, workflow


async def enqueue(dbos: Any, workflow: Any, text: str) -> None:
    with dbos.SetEnqueueOptions(queue_partition_key=PARTITION):
        await dbos.DBOS.enqueue_workflow_async(QUEUE, workflow, text)


async def through_dbos(folder: Path, count: int) -> None:
    dbos, workflow = await launch_dbos(folder, "burst")
    await enqueue(dbos, workflow, "hold")  # so that the others wait
    START.clear()
    START.update(cpu=time.process_time(), wall=time.perf_counter())
    for _ in range(count):
        await enqueue(dbos, workflow, TEXT)


START: dict[str, float] = {}
"""When the burst itself began, where a library takes its time to start."""
BURSTS = {"holdfast": through_us, "sqlite": through_sqlite, "memory": through_memory, "dbos": through_dbos}


async def burst(queue: str, folder: Path, count: int) -> dict[str, float]:
    START.update(cpu=time.process_time(), wall=time.perf_counter())
    await BURSTS[queue](folder, count)
    cpu, wall = time.process_time() - START["cpu"], time.perf_counter() - START["wall"]
    return {"cpu_us": cpu * 1e6 / count, "wall_us": wall * 1e6 / count}


async def work(folder: Path, executor: str, *texts: str) -> None:
    """A worker of dbos, killed at some time. `texts`: turns that it puts into the queue."""
    dbos, workflow = await launch_dbos(folder, executor)
    print(json.dumps({"ready": time.monotonic()}), flush=True)
    for text in texts:
        await enqueue(dbos, workflow, text)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    if sys.argv[1] == "burst":
        print(json.dumps(asyncio.run(burst(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))), flush=True)
        os._exit(0)  # what was held on purpose is not waited for
    asyncio.run(work(Path(sys.argv[3]), *sys.argv[4:]))
