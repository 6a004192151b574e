"""What the writers of many nodes wait for each other: `python -m benchmarks.claims_at_scale` prints JSON.

A simulation, and no measurement. A state in PostgreSQL has one line of writing transactions: each takes the same
advisory lock and holds it until its commit (docs/design/0023). Nodes put what is ready into one transaction, at most
`batch` jobs. So the line is a queue with one server; its law is known (Pollaczek and Khinchine, 1930), and a test holds
the program to it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import asdict, dataclass

JOBS_PER_TURN = 5
"""Commits of a turn without tools (tests/conformance/test_postgres.py)."""


@dataclass(frozen=True, slots=True)
class Load:
    """nodes, and what all of them together are asked for. hold_ms: from the lock to the commit, and per job in it."""

    nodes: int
    turns_per_s: float
    hold_ms: float = 1.0
    job_ms: float = 0.2
    batch: int = 64


@dataclass(frozen=True, slots=True)
class Waits:
    """Of jobs, from when they are ready until they are committed. busy: share of the time that the lock is held."""

    jobs: int
    transactions: int
    busy: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


def simulate(load: Load, *, seed: int, jobs: int) -> Waits:
    """Jobs come at random (Poisson), each to a node drawn at random; nodes with something to write stand in line once,
    in the order in which they came, and take what has come to them until it is their turn.
    """
    rng = random.Random(seed)
    rate_per_ms = load.turns_per_s * JOBS_PER_TURN / 1000
    waiting: dict[int, list[float]] = {}
    line: list[tuple[float, int]] = []
    waits: list[float] = []
    now, busy, transactions, made = 0.0, 0.0, 0, 1
    coming = rng.expovariate(rate_per_ms)
    while len(waits) < jobs:
        while made <= jobs and (coming <= now or not line):
            node = rng.randrange(load.nodes)
            if node not in waiting:
                waiting[node] = []
                heapq.heappush(line, (coming, node))
            waiting[node].append(coming)
            now = max(now, line[0][0])
            coming += rng.expovariate(rate_per_ms)
            made += 1
        since, node = heapq.heappop(line)
        taken, left = waiting[node][: load.batch], waiting[node][load.batch :]
        hold = load.hold_ms + load.job_ms * len(taken)
        now = max(now, since) + hold
        busy, transactions = busy + hold, transactions + 1
        waits += [now - came for came in taken]
        if left:
            waiting[node] = left
            heapq.heappush(line, (now, node))
        else:
            del waiting[node]
    waits.sort()
    return Waits(
        len(waits),
        transactions,
        busy / now,
        sum(waits) / len(waits),
        waits[len(waits) // 2],
        waits[len(waits) * 99 // 100],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=50_000)
    given = parser.parse_args()
    loads = [Load(nodes, turns) for nodes in (1, 10, 100, 1000) for turns in (10.0, 100.0, 160.0, 500.0, 900.0)]
    found = [{**asdict(load), **asdict(simulate(load, seed=given.seed, jobs=given.jobs))} for load in loads]
    print(json.dumps({"seed": given.seed, "jobs_per_turn": JOBS_PER_TURN, "loads": found}, indent=1))


if __name__ == "__main__":
    main()
