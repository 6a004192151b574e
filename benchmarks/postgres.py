"""What a state in PostgreSQL costs, as ratios to a bare commit on the same server, measured in turns with it.

    python -m benchmarks.postgres            # starts a server from pip

Prints one JSON object. Takeover is in seconds: it waits for time to pass, not for the machine. Claims are those of
nodes that are processes; each claims, commits a bare row, and ends the turn, so that both are measured in one moment.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

import holdfast
from holdfast.clock import SystemClock
from holdfast.inbound.event import InboundEvent
from holdfast.lane.policy import LaneLimits
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.proxy import LOOPBACK, TcpProxy
from holdfast.testing.store_suite.words import accept, claim_input

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance import postgres_server  # found by the line above

ROUNDS = 200
CLAIMS = 210
"""Of each node; the first ten warm it."""
BARE_AT_ONCE = 10
TAKEOVERS = 100
AT_ONCE = 10


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
            await turn.append_last(holdfast.assistant("hi", model="demo/demo"))
            await timed("end with the final line", hf.close_turn(turn, None))
    bare.close()
    unit = statistics.median(spent.pop("bare commit"))
    return {name: round(statistics.median(each) / unit, 2) for name, each in spent.items()} | {
        "bare commit, ms": round(unit * 1000, 3)
    }


async def cpu_of_a_turn(url: str) -> dict[str, float]:
    """This process's CPU time for each turn without tools, and for each bare commit, over as many of both."""
    bare = Bare(url)
    turns, commits = list[float](), list[float]()
    async with holdfast.open(url) as hf:
        for number in range(ROUNDS):
            began = time.process_time()
            admission = await hf.accept(InboundEvent("agent:main:cpu", {"content": "hello"}, key=f"cpu{number}"))
            assert isinstance(admission, holdfast.Accepted)
            turn = await hf.claim("agent:main:cpu", input_id=admission.input_id)
            assert isinstance(turn, holdfast.Turn)
            await turn.append(holdfast.user("hello"))
            await turn.append_last(holdfast.assistant("hi", model="demo/demo"))
            await hf.close_turn(turn, None)
            turns.append(time.process_time() - began)
            began = time.process_time()
            for _ in range(BARE_AT_ONCE):
                bare.commit()
            commits.append((time.process_time() - began) / BARE_AT_ONCE)
    bare.close()
    turn_s, commit_s = statistics.mean(turns), statistics.mean(commits)
    return {"turn, ms": round(turn_s * 1000, 2), "bare commit, ms": round(commit_s * 1000, 3),
            "turn, in bare commits": round(turn_s / commit_s, 1)}  # fmt: skip


async def claims_of_nodes(url: str, nodes: int, *, alone: bool) -> dict[str, float]:
    """Medians over all nodes. `alone`: the long way, on which writers of all nodes stand in one line."""
    command = [sys.executable, "-m", "benchmarks.postgres", "node", url, str(int(alone))]
    processes = [
        await asyncio.create_subprocess_exec(*command, str(number), stdout=asyncio.subprocess.PIPE)
        for number in range(nodes)
    ]
    said = [json.loads((await process.communicate())[0]) for process in processes]
    claims, bare = [one for each in said for one in each["claims"]], [one for each in said for one in each["bare"]]
    claim_s, commit_s = statistics.median(claims), statistics.median(bare)
    return {"in bare commits": round(claim_s / commit_s, 2), "a second": round(nodes / claim_s)}


async def claim_as_a_node(url: str, number: int, *, alone: bool) -> None:
    """Claims of sessions that nobody else wants, one after the other, each beside a bare commit."""
    agents = {"main": {"main": 1000}} if alone else {}  # widths of its own send a claim the long way
    limits = LaneLimits(widths={"main": 1000}, depth_max=10_000, agents=agents)
    store = PostgresStore.open(url, SystemClock(), PostgresOptions(limits=limits))
    bare, claims, commits = Bare(url), list[float](), list[float]()
    for turn in range(CLAIMS):
        session = f"agent:main:n{number}x{turn % 10}"
        input_id = await accept(store, "hello", session=session)
        began = time.perf_counter()
        held = await claim_input(store, input_id)
        claims.append(time.perf_counter() - began)
        commits.append(bare.commit())
        await held.answer_last()
    bare.close()
    await store.close()
    print(json.dumps({"claims": claims[10:], "bare": commits[10:]}))


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

    took: list[float] = []
    for at in range(0, TAKEOVERS, AT_ONCE):
        with ExitStack() as stack:
            proxies = [stack.enter_context(TcpProxy(socket, server_patience_s=0.0)) for _ in range(AT_ONCE)]
            async with holdfast.open(url) as other:
                took += await asyncio.gather(*(one(at + n, other, proxy) for n, proxy in enumerate(proxies)))
    took.sort()
    return {"p50": round(took[len(took) // 2], 2), "p99": round(took[-(len(took) // 100) - 1], 2), "of": len(took)}


async def main() -> None:
    with postgres_server.own() as server, postgres_server.database(server.url) as url:
        told: dict[str, Any] = {"steps, in bare commits": await cost_of_each_step(url)}
        told["client CPU"] = await cpu_of_a_turn(url)
        told["claims"] = {nodes: await claims_of_nodes(url, nodes, alone=False) for nodes in (1, 2, 4)}
        told["claims, the long way"] = {nodes: await claims_of_nodes(url, nodes, alone=True) for nodes in (1, 2, 4)}
        print(json.dumps(told), file=sys.stderr, flush=True)
        told["takeover, s"] = await takeovers(server.socket, url)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        asyncio.run(claim_as_a_node(sys.argv[2], int(sys.argv[4]), alone=bool(int(sys.argv[3]))))
    else:
        asyncio.run(main())
