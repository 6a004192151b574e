"""What a turn costs in PostgreSQL with few and with many sessions and entries.

    python -m benchmarks.postgres_scale URL      # a database that may be lost, as a superuser

Prints JSON: the median of a turn (accept, claim, the input's line, a look at the end of the transcript, final line with
settlement), as a ratio to the median of bare commits of one row that are measured in between, on the same server and
disk.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import psycopg

from holdfast.clock import SystemClock
from holdfast.session import entries as made
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.store_suite.words import ROUTE, accept, claim_input

TURNS = 100
STEPS = ((10, 0), (100_000, 1_000_000), (100_000, 10_000_000))
"""Sessions, and entries in all of them together."""
_SESSIONS = r"""
insert into transcripts(id, path, body) select 't_'||n, 'agent:fill:s'||n, 't_'||n from generate_series(1, {sessions}) n
 on conflict do nothing;
insert into sessions(key, transcript, created_at_ms, updated_at_ms)
 select 'agent:fill:s'||n, 't_'||n, n, n from generate_series(1, {sessions}) n on conflict do nothing;
delete from lines where transcript in (select body from transcripts where path like 'agent:fill:%')
"""
_ENTRIES = """
insert into lines(transcript, seq, id, raw, is_ours)
 select 't_'||s, e, 'e'||s||'_'||e, convert_to('{"type":"message","id":"e'||s||'_'||e||'","parentId":"e'||s||'_'||(e-1)
  ||'","timestamp":"2026-01-01T00:00:00.000Z","message":{"role":"user","content":"'||repeat('x', 80)||'"}}'||chr(10),
  'UTF8'), true
 from generate_series(1, %s) s, generate_series(1, %s) e;
"""
_ENDS = """update transcripts set lines_end=%s, leaf='e'||substr(id, 3)||'_'||%s, bytes=260*%s
 where path like 'agent:fill:%%'"""


def fill(url: str, sessions: int, entries: int) -> None:
    """By a superuser who switches triggers off, as a copy is loaded."""
    each = entries // sessions
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set search_path=holdfast; set session_replication_role=replica; set synchronous_commit=off")
        for statement in _SESSIONS.format(sessions=sessions).split(";\n"):
            conn.execute(statement.encode())
        conn.execute(_ENTRIES.encode(), (sessions if each else 0, each))
        conn.execute(_ENDS.encode(), (each, each, each))
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


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
            assert await store.read_tail(held.owned)
            await held.answer_last()
            turns.append(time.perf_counter() - began)
    turn, commit = statistics.median(turns), statistics.median(bare)
    return {"turn_ms": turn * 1000, "bare_commit_ms": commit * 1000, "ratio": turn / commit}


async def main(url: str) -> None:
    store = PostgresStore.open(url, SystemClock(), PostgresOptions())
    found: list[dict[str, float]] = []
    for sessions, entries in STEPS:
        await asyncio.to_thread(fill, url, sessions, entries)
        await measure(url, store)  # plans and caches are warm then
        found.append({"sessions": sessions, "entries": entries, **await measure(url, store)})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    await store.close()
    print(json.dumps({"steps": found, "last_to_first": found[-1]["ratio"] / found[0]["ratio"]}, indent=1))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
