"""What a turn costs in PostgreSQL with few and with many sessions: `python -m benchmarks.postgres_scale URL`.

URL: a database that may be lost. Prints JSON: the median of accept, claim, line, answer and settlement, as a ratio to
the median of bare commits of one row that are measured in between, on the same server and disk.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import psycopg

from holdfast.clock import SystemClock
from holdfast.session import entries as made
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.store_suite.words import ROUTE, accept, claim_input

TURNS = 40
STEPS = ((10, 0), (100_000, 1_000_000))
"""Sessions, and entries in all of them together."""
_FILL = """
insert into holdfast.transcripts(id, path, body)
 select 't_'||n, 'agent:fill:s'||n, 't_'||n from generate_series(1, %s) n on conflict do nothing;
insert into holdfast.sessions(key, transcript, created_at_ms, updated_at_ms)
 select 'agent:fill:s'||n, 't_'||n, n, n from generate_series(1, %s) n on conflict do nothing;
insert into holdfast.lines(transcript, seq, id, raw, is_ours)
 select 't_'||(1 + n %% %s), 1 + n / %s, 'e'||n, convert_to(repeat('x', 200)||chr(10), 'UTF8'), true
 from generate_series(0, %s) n on conflict do nothing;
analyze"""


def fill(url: str, store_id: str, sessions: int, entries: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select set_config('holdfast.writer', %s, false)", (store_id,))
        conn.execute("set search_path=holdfast")
        for statement in _FILL.split(";\n"):
            count = statement.count("%s")
            values: list[Any] = [sessions] * (count - 1) + [entries - 1] if "lines" in statement else [sessions] * count
            conn.execute(statement.encode(), values or None)


async def measure(url: str, store: PostgresStore) -> dict[str, float]:
    turns, bare = list[float](), list[float]()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table if not exists public.bare(a bigint)")
        for number in range(TURNS):
            began = time.perf_counter()
            conn.execute("insert into public.bare values(1)")
            bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            session = f"agent:fill:s{number % 10 + 1}"
            held = await claim_input(store, await accept(store, "hello", route=ROUTE, session=session))
            await held.append(made.user("hello"))
            await held.answer()
            turns.append(time.perf_counter() - began)
    turn, commit = statistics.median(turns), statistics.median(bare)
    return {"turn_ms": turn * 1000, "bare_commit_ms": commit * 1000, "ratio": turn / commit}


async def main(url: str) -> None:
    store = PostgresStore.open(url, SystemClock(), PostgresOptions())
    found: list[dict[str, float]] = []
    for sessions, entries in STEPS:
        await asyncio.to_thread(fill, url, store.store_id, sessions, entries)
        await measure(url, store)  # plans and caches are warm then
        found.append({"sessions": sessions, "entries": entries, **await measure(url, store)})
    await store.close()
    print(json.dumps({"steps": found, "last_to_first": found[-1]["ratio"] / found[0]["ratio"]}, indent=1))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
