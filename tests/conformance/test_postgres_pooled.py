"""A state behind a real PgBouncer in transaction mode: fewer connections than there are nodes' threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import holdfast
from holdfast.clock import SystemClock
from holdfast.errors import InputError
from holdfast.store.copying.database import connect_alone
from holdfast.store.postgres.connecting import SESSION_URL_VARIABLE, connect
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.node import GONE_S, lock_of
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import served
from holdfast.testing.store_suite import Backend, StoreSuite
from holdfast.testing.store_suite.words import ROUTE, SESSION, accept, claim, claim_input, said
from tests.conformance import pgbouncer, postgres_server
from tests.conformance.test_postgres import Postgres
from tests.flow.test_two_gateways import client

pytestmark = pytest.mark.skipif(
    pgbouncer.program() is None, reason="no pgbouncer on this machine: a state behind a pooler was not tested"
)
IGNORES = "ignore_startup_parameters = options"
LOCKS = """select count(*) from pg_locks where locktype='advisory'
 and database=(select oid from pg_database where datname=%s)"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.running() as url:
        yield url


@pytest.fixture
def direct(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HOLDFAST_NODE_DIR", str(tmp_path / "node"))
    monkeypatch.delenv(SESSION_URL_VARIABLE, raising=False)
    with postgres_server.database(server) as url:
        yield url


@pytest.fixture
def url(direct: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a pooler that refuses to hand on what a session is to have set, or, asked for, ignores it."""
    with pgbouncer.bouncer(direct, more=getattr(request, "param", "")) as through:
        yield through


@pytest.mark.long
class TestPooled(StoreSuite):
    """What every store does, all of it through the pooler but for the node's own connection: what is asked of processes
    that die does not wait for the term.
    """

    @pytest.fixture
    def backend(self, direct: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
        monkeypatch.setenv(SESSION_URL_VARIABLE, direct)
        return Postgres(url)


def settings_of_pool(url: str) -> set[tuple[str, ...]]:
    """What whoever comes next finds set in the pooler's connections."""
    names = ("search_path", "synchronous_commit", "default_transaction_read_only", "statement_timeout")
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    found: set[tuple[str, ...]] = set()
    for _ in range(6):
        with psycopg.connect(url) as conn:
            row = conn.execute(f"select {asked}".encode()).fetchone()
            assert row is not None
            found.add(row)
    return found


@pytest.mark.parametrize("url", ["", IGNORES], ids=["refuses options", "ignores options"], indirect=True)
async def test_turns_of_two_nodes_go_through_three_connections_and_nothing_stays_behind_in_them(url: str) -> None:
    """More turns than a statement needs to be prepared; then every lock is free and every setting as it was."""
    before = settings_of_pool(url)
    stores = [PostgresStore.open(url, SystemClock(), PostgresOptions()) for _ in range(2)]
    for number in range(16):
        store = stores[number % 2]
        held = await claim_input(store, await accept(store, f"m{number}", route=ROUTE))
        await held.append(holdfast.user(f"m{number}"))
        assert (await held.inspect()).kind == "unchanged"
        assert await held.answer_last("yes") == "answered"
    assert await said(stores[1]) == [text for number in range(16) for text in (f"m{number}", "yes")]
    with psycopg.connect(url) as conn:
        assert conn.execute(LOCKS.encode(), (url.rpartition("/")[2],)).fetchone() == (0,)
    assert settings_of_pool(url) == before
    for store in stores:
        await store.close()


async def test_a_node_without_a_session_is_gone_once_its_count_has_stood_still_for_the_term(url: str) -> None:
    """It holds no lock that somebody else could inherit; one that counts on lives, however long it is watched."""
    clock = VirtualClock()
    here = PostgresStore.open(url, SystemClock(), PostgresOptions(beat_s=0.05))
    there = PostgresStore.open(url, clock, PostgresOptions())
    owned = await claim(here)
    await owned.append(holdfast.user("hello"))

    async def life() -> str:
        return await there.reads.ask(lambda conn: there.life_in(conn, here.process))

    async def count() -> int:
        row = "select node from processes where name=?"
        return await there.reads.ask(lambda conn: conn.execute(row, (here.process,)).fetchone()[0])

    for _ in range(6):
        seen = await count()
        assert await life() == "alive"
        await clock.advance(30.0)
        async with asyncio.timeout(60):
            while await count() == seen:  # noqa: ASYNC110  # a row of another node's thread
                await asyncio.sleep(0.01)
    here.node.close(in_order=False)  # as a kill does, as far as others can see
    lives = []
    for _ in range(4):
        lives.append(await life())
        await clock.advance(30.0)
    assert lives[:3] == ["alive"] * 3
    assert await life() == "dead"
    assert await there.recover_dead() == 1
    await (await claim(there)).done()
    await there.close()
    await here.close()


async def test_with_a_way_to_the_server_itself_a_node_is_gone_as_quickly_as_ever_and_is_woken(
    direct: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SESSION_URL_VARIABLE, direct)
    here = PostgresStore.open(url, SystemClock(), PostgresOptions())
    there = PostgresStore.open(url, SystemClock(), PostgresOptions())
    with psycopg.connect(direct) as conn:
        held = "select count(*) from pg_locks where locktype='advisory' and objid=(%s::bigint & 4294967295)::oid"
        for store in (here, there):
            assert conn.execute(held.encode(), (lock_of(store.process),)).fetchone() == (1,)
    heard = asyncio.Event()
    with there.hear_of_free_slots(heard.set):
        async with asyncio.timeout(60):
            while not heard.is_set():
                here.tell_of_free_slot()
                await asyncio.sleep(0.05)
    owned = await claim(here)
    await owned.append(holdfast.user("hello"))
    here.node.close(in_order=False)
    async with asyncio.timeout(60):
        while await there.recover_dead() == 0:  # noqa: ASYNC110  # a lock of the server's
            await asyncio.sleep(GONE_S / 10)
    assert [one.life for one in await there.owners()] == []
    await there.close()
    await here.close()


async def test_gateways_behind_a_pooler_answer_and_watchers_of_both_hear_of_it(url: str) -> None:
    """Nobody is woken there: everyone looks once a second."""
    async with (
        served(url, model=ScriptedModel("from one", "more")) as one,
        served(url, model=ScriptedModel("from two")) as two,
        client(one) as at_one,
    ):
        await one.gateway.worker.stop(0.0)
        path = f"/api/sessions/{SESSION}/messages"
        posted = await at_one.post(path, params={"wait": 1}, json={"text": "hello"})
        assert (posted.json()["state"], posted.json()["answer"]) == ("answered", "from two")
        assert two.hf.store.location.startswith("postgresql://")


def test_what_needs_a_session_refuses_a_pooler_and_another_state_is_no_way_to_this_one(
    server: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="goes through a pooler in transaction mode"):
        connect(url, "copying")
    with pytest.raises(InputError, match="goes through a pooler"):
        connect_alone(url)
    with postgres_server.database(server) as other:
        with psycopg.connect(other, autocommit=True) as conn:
            conn.execute("update holdfast.meta set value='s_other' where key='store'")
        monkeypatch.setenv(SESSION_URL_VARIABLE, other)
        with pytest.raises(InputError, match="HOLDFAST_SESSION_URL names another state"):
            PostgresStore.open(url, SystemClock(), PostgresOptions())
