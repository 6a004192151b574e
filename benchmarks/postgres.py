"""What a state in PostgreSQL costs, as ratios to a bare commit on the same server, measured in turns with it.

    python -m benchmarks.postgres            # starts a server from pip

Prints one JSON object. Takeover is in seconds: it waits for time to pass, not for the machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import holdfast
from holdfast.inbound.event import InboundEvent
from holdfast.testing.proxy import LOOPBACK, TcpProxy

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance import postgres_server  # found by the line above

ROUNDS = 60
WINDOW_S = 2.0
TAKEOVERS = 10


class Bare:
    """A commit of one small row, as anybody would make it."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)
        self._conn.execute("create table if not exists bare(n bigint)")

    def commit(self) -> float:
        began = time.perf_counter()
        self._conn.execute("insert into bare values(1)")
        return time.perf_counter() - began

    def close(self) -> None:
        self._conn.close()


async def cost_of_each_step(url: str) -> dict[str, float]:
    """Medians over `ROUNDS` turns, each step beside a bare commit of the same moment."""
    bare = Bare(url)
    spent: dict[str, list[float]] = {"bare commit": []}

    async def timed(name: str, work: Awaitable[Any]) -> Any:
        began = time.perf_counter()
        result = await work
        spent.setdefault(name, []).append(time.perf_counter() - began)
        spent["bare commit"].append(bare.commit())
        return result

    async with holdfast.open(url) as hf:
        for number in range(ROUNDS):
            event = InboundEvent("agent:main:main", {"content": "hello"}, key=f"cost{number}")
            admission = await timed("accept", hf.accept(event))
            turn = await timed("claim", hf.claim("agent:main:main", input_id=admission.input_id))
            await timed("append", turn.append(holdfast.user("hello")))
            await timed("look at the fence", turn.inspect())
            await timed("append", turn.append(holdfast.assistant("hi", model="demo/demo")))
            await timed("settle", hf.close_turn(turn, None))
    bare.close()
    unit = statistics.median(spent.pop("bare commit"))
    return {name: round(statistics.median(each) / unit, 2) for name, each in spent.items()} | {
        "bare commit, ms": round(unit * 1000, 3)
    }


async def claims_of_nodes(url: str, nodes: int) -> float:
    """Claims that end at once, of all nodes together, for each bare commit of one connection in the same time."""
    bare = Bare(url)
    async with asyncio.TaskGroup() as group, contexts(url, nodes) as handles:
        works = [partial(_claim, hf, n) for n, hf in enumerate(handles) for _ in range(4)]
        claims = await _count(group, works)
    began, commits = time.perf_counter(), 0
    while time.perf_counter() - began < WINDOW_S:
        bare.commit()
        commits += 1
    bare.close()
    return round(claims / commits, 2)


@asynccontextmanager
async def contexts(url: str, nodes: int) -> AsyncIterator[list[holdfast.Holdfast]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(holdfast.open(url)) for _ in range(nodes)]


async def _claim(hf: holdfast.Holdfast, number: int) -> None:
    async with hf.turn(f"agent:main:n{number}x{id(asyncio.current_task())}"):
        pass


async def _count(group: asyncio.TaskGroup, works: Sequence[Callable[[], Awaitable[None]]]) -> int:
    until, done = time.perf_counter() + WINDOW_S, 0

    async def repeat(work: Callable[[], Awaitable[None]]) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work()
            done += 1

    for task in [group.create_task(repeat(work)) for work in works]:
        await task
    return done


async def takeovers(socket: str, url: str) -> dict[str, float]:
    """Seconds from the moment a node's connections end for good until another owns its session."""
    name = url.split("/")[3].split("?")[0]

    async def one(number: int, other: holdfast.Holdfast, proxy: TcpProxy) -> float:
        session = f"agent:main:t{number}"
        async with holdfast.open(f"postgresql://postgres@{LOOPBACK}:{proxy.port}/{name}") as hf:
            assert isinstance(await hf.claim(session), holdfast.Turn)
            proxy.cut()
            began = time.perf_counter()
            async with other.turn(session, wait_s=60.0):
                return time.perf_counter() - began

    with ExitStack() as stack:
        proxies = [stack.enter_context(TcpProxy(socket, server_patience_s=0.0)) for _ in range(TAKEOVERS)]
        async with holdfast.open(url) as other:
            took = sorted(await asyncio.gather(*(one(n, other, proxy) for n, proxy in enumerate(proxies))))
    return {"p50": round(took[len(took) // 2], 2), "longest of ten": round(took[-1], 2)}


async def main() -> None:
    with postgres_server.own() as server, postgres_server.database(server.url) as url:
        told: dict[str, Any] = {"steps, in bare commits": await cost_of_each_step(url)}
        told["claims for each bare commit"] = {nodes: await claims_of_nodes(url, nodes) for nodes in (1, 2, 4)}
        told["takeover, s"] = await takeovers(server.socket, url)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
