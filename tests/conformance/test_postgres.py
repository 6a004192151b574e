"""The PostgreSQL store does what every store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import pytest

import holdfast
from holdfast import ids
from holdfast.cli.main import run
from holdfast.clock import Clock, SystemClock
from holdfast.errors import (
    InputError,
    OwnershipLostError,
    ResourceError,
    SessionTakeoverError,
    StateVersionError,
    TranscriptFormatError,
)
from holdfast.inbound.event import Duplicate
from holdfast.lane.policy import LaneLimits
from holdfast.outbox.message import Outcome
from holdfast.session import entries as made
from holdfast.session.fence import Epoch
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.postgres.claiming import Claimed, one_claim
from holdfast.store.postgres.connecting import PER_NODE, connect
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.dialect import translated
from holdfast.store.postgres.schema import STEPS, Step, open_schema
from holdfast.store.postgres.store import PostgresStore
from holdfast.store.postgres.writer import PostgresWriter
from holdfast.store.protocol import Store
from holdfast.store.sql.ledger import Job
from holdfast.store.views import ArchiveView
from holdfast.testing.store_suite import Backend, StoreSuite
from holdfast.testing.store_suite.words import ROUTE, SESSION, accept, claim, claim_input, event, said
from tests.conformance import postgres_server


@dataclass(frozen=True, slots=True)
class Postgres:
    location: str

    def open(self, *, clock: Clock, limits: LaneLimits, beat_term_s: float) -> Store:
        return PostgresStore.open(self.location, clock, PostgresOptions(limits=limits, beat_term_s=beat_term_s))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server.running() as url:
        yield url


class TestPostgres(StoreSuite):
    @pytest.fixture
    def backend(self, server: str) -> Iterator[Backend]:
        with postgres_server.database(server) as url:
            yield Postgres(url)


# ── what only this backend promises ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def url(server: str) -> Iterator[str]:
    with postgres_server.database(server) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore.open(url, SystemClock(), PostgresOptions())
    yield store
    await store.close()


def by_hand(url: str, sql: str, *values: object) -> None:
    """What somebody does with a client of their own."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.encode(), values or None)


STRANGER = b'{"type":"message","id":"stranger","parentId":%s,"timestamp":"2026-01-01T00:00:00.000Z","message":{"role":"user","content":"me too"}}\n'  # noqa: E501
LABEL = (
    b'{"type":"label","id":"labelled","parentId":%s,"timestamp":"2026-01-01T00:00:00.000Z","targetId":%s,"label":"x"}\n'
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update holdfast.lines set raw='{}'::bytea where seq=2", "line 2 was changed by somebody else"),
        ("delete from holdfast.lines where seq=2", "line 2 was removed by somebody else"),
        ("truncate holdfast.lines", "all lines were removed by somebody else"),
    ],
)
async def test_a_line_that_somebody_edits_ends_the_turn_before_it_writes_again(
    store: PostgresStore, url: str, change: str, told: str
) -> None:
    owned = await claim(store)
    await owned.append(made.user("hello"))
    by_hand(url, change)
    with pytest.raises(SessionTakeoverError) as lost:
        await owned.append(made.assistant("hi", model="demo/demo"))
    assert (lost.value.verdict.kind, lost.value.verdict.detail) == ("tampered", told)
    with pytest.raises(OwnershipLostError):
        await owned.inspect()
    await owned.done()
    after = await claim(store)
    assert after.owned.findings == [told]
    await after.append(made.user("again"))
    await after.done()


async def test_conversation_that_somebody_inserts_is_a_foreign_turn_and_a_label_is_adopted(
    store: PostgresStore, url: str
) -> None:
    owned = await claim(store)
    await owned.append(made.user("hello"))
    leaf = f'"{owned.owned.leaf}"'.encode()
    insert = "insert into holdfast.lines(transcript, seq, id, raw, is_ours) values(%s, %s, %s, %s, true)"
    transcript = await store.transcript_of(SESSION)
    by_hand(url, insert, transcript, 3, "labelled", LABEL % (leaf, leaf))
    assert (await owned.inspect()).kind == "adopted"
    await owned.append(made.assistant("hi", model="demo/demo"))
    by_hand(url, insert, transcript, 5, "stranger", STRANGER % f'"{owned.owned.leaf}"'.encode())
    with pytest.raises(SessionTakeoverError) as lost:
        await owned.inspect()
    assert lost.value.verdict.kind == "foreign_turn"
    assert await said(store) == ["hello", "hi", "me too"]
    await owned.done()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update holdfast.lines set raw='{}'::bytea where seq=2", "line 2 was changed by somebody else"),
        ("delete from holdfast.lines where seq=2", "line 2 was removed by somebody else"),
        ("truncate holdfast.lines", "all lines were removed by somebody else"),
    ],
)
async def test_an_archive_that_somebody_has_edited_is_not_restored(
    store: PostgresStore, url: str, change: str, told: str
) -> None:
    owned = await claim(store)
    await owned.append(made.user("hello"))
    archive = await store.archive(owned.owned, SESSION, why="asked", by="a test")
    assert isinstance(archive, ArchiveView)
    transcript = await store.transcript_of(SESSION)
    by_hand(url, change if "where" not in change else f"{change} and transcript='{archive.name}'")
    with pytest.raises(TranscriptFormatError, match=told):
        await store.check_archive(archive.id, transcript)
    if "where" in change:
        assert (await owned.inspect()).kind in ("unchanged", "advanced")  # what is there now is untouched
        with pytest.raises(TranscriptFormatError, match="nothing was restored"):
            await store.restore(owned.owned, archive.id)
    await owned.done()


async def test_what_the_server_cuts_off_is_written_once_on_the_next_connection(store: PostgresStore, url: str) -> None:
    first = await accept(store, "one", key="k1")
    by_hand(url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'holdfast %'"
                 " and datname=current_database()")  # fmt: skip
    second = await accept(store, "two", key="k2")
    assert isinstance(await store.accept(event("one", key="k1")), Duplicate)
    waiting, _, _ = await store.queue()
    assert [one.id for one in waiting] == [first, second]
    assert store.writer.figures.reconnects == 2


class Losing:
    """A connection that ends in the moment of a commit: before it, the next time after it."""

    def __init__(self, raw: psycopg.Connection[Any], commits: list[str]) -> None:
        self._raw = raw
        self._commits = commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: Any, *values: Any) -> Any:
        if sql != "commit" or len(self._commits) == 2:
            return self._raw.execute(sql, *values)
        self._commits.append("lost" if not self._commits else "made")
        if self._commits[-1] == "made":
            self._raw.execute(sql)
        self._raw.close()
        raise psycopg.OperationalError("the connection is lost")


async def test_a_commit_whose_answer_was_lost_is_asked_for_by_its_number(store: PostgresStore, url: str) -> None:
    commits: list[str] = []
    writer = PostgresWriter(
        url, store.store_id, lambda _: None,
        lambda url, purpose, **how: cast("psycopg.Connection[Any]", Losing(connect(url, purpose, **how), commits)),
    )  # fmt: skip
    await writer.submit(Job(lambda conn: conn.execute("insert into chores(name, at_ms) values('once', 1)")))
    await asyncio.to_thread(writer.close)
    assert commits == ["lost", "made"]  # done again after the first, and not after the second
    assert await store.reads.ask(lambda conn: conn.execute("select count(*) from chores").fetchone()[0]) == 1


async def test_a_state_of_a_newer_release_is_refused_and_left_alone(url: str) -> None:
    by_hand(url, "update holdfast.meta set value='99' where key='schema'")
    with pytest.raises(StateVersionError, match="schema 99"):
        PostgresStore.open(url, SystemClock(), PostgresOptions())


async def test_many_nodes_that_start_at_once_make_the_tables_once(server: str) -> None:
    with postgres_server.database(server) as url:
        by_hand(url, "drop schema holdfast cascade")
        stores = await asyncio.gather(
            *(asyncio.to_thread(PostgresStore.open, url, SystemClock(), PostgresOptions()) for _ in range(4))
        )
        assert len({store.store_id for store in stores}) == 1
        for store in stores:
            await store.close()


async def test_a_database_that_is_away_is_told_without_its_password(server: str) -> None:
    with pytest.raises(ResourceError, match="cannot be used now") as told:
        PostgresStore.open("postgres://me:secret@127.0.0.1:9/none", SystemClock(), PostgresOptions())
    assert "secret" not in str(told.value)


async def test_a_program_opens_it_by_its_url_and_engines_that_are_not_known_are_refused(url: str) -> None:
    async with holdfast.open(url) as hf, hf.turn(SESSION) as turn:
        await turn.append(holdfast.user("hello"))
    with pytest.raises(InputError, match="mysql:// states are not supported"):
        async with holdfast.open("mysql://localhost/state"):
            pass


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("sslmode=verify-ful", "sslmode=verify-ful is none of disable, allow"),
        ("sslmod=require", 'invalid URI query parameter: "sslmod"'),
        ("connect_timeout=5&connect_timeout", "missing key/value separator"),
    ],
)
def test_an_option_that_libpq_does_not_know_is_refused_by_name(options: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        PostgresStore.open(f"postgres://me:secret@127.0.0.1/db?{options}", SystemClock(), PostgresOptions())
    assert "secret" not in str(refused.value)


def test_durability_isolation_and_time_outs_are_ours_whatever_a_url_says(url: str) -> None:
    mark = "&" if "?" in url else "?"
    with connect(f"{url}{mark}options=-c%20synchronous_commit%3Doff%20-c%20work_mem%3D1MB", "test") as raw:
        for name, value in (("synchronous_commit", "on"), ("search_path", "holdfast"), ("work_mem", "1MB")):
            assert raw.execute(f"show {name}".encode()).fetchone()[0] == value


async def test_a_node_keeps_three_connections_whatever_it_does(store: PostgresStore, url: str) -> None:
    for number in range(8):
        await accept(store, f"{number}")
    await asyncio.gather(*(store.sessions(prefix="agent:", limit=10) for _ in range(8)))
    count = (
        "select count(*) from pg_stat_activity where datname=current_database() and application_name like 'holdfast %'"
    )
    with psycopg.connect(url) as conn:
        assert conn.execute(count.encode()).fetchone() == (PER_NODE,)


def test_the_role_of_nodes_works_and_can_neither_empty_lines_nor_switch_triggers_off(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["postgres", "roles"]) == 0
    by_hand(url, capsys.readouterr().out)
    node = url.replace("postgres@", "holdfast_node@").replace("postgres:", "holdfast_node:", 0)
    if "holdfast_node" not in node:
        pytest.skip("the server of HOLDFAST_TEST_POSTGRES_URL asks for passwords, which its roles do not have here")
    asyncio.run(_say_hello(node))
    for forbidden in (
        "truncate holdfast.lines",
        "alter table holdfast.lines disable trigger all",
        "create table holdfast.mine(a int)",
        "set session_replication_role=replica",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            by_hand(node, forbidden)
    more = Step(2, "one more", ("create table more(a bigint)",))
    with connect(node, "test") as raw, pytest.raises(ResourceError, match="start once as their owner"):
        open_schema(raw, (*STEPS, more))
    with connect(node.replace("holdfast_node", "holdfast_owner"), "test") as raw:
        open_schema(raw, (*STEPS, more))


async def _say_hello(url: str) -> None:
    async with holdfast.open(url) as hf, hf.turn(SESSION) as turn:
        await turn.append(holdfast.user("hello"))


async def test_a_reader_sees_what_there_is_and_can_change_nothing(store: PostgresStore, url: str) -> None:
    input_id = await accept(store, "hello", route=ROUTE)
    owned = await claim_input(store, input_id)
    await owned.append(made.user("hello"))
    async with holdfast.open_reader(url) as looking:
        assert (await looking.store.input(input_id)).state == "running"
        [session] = await looking.store.sessions(prefix="agent:", limit=10)
        assert (session.owner_turn, session.path, session.size_bytes > 0) == (owned.turn, None, True)
        lines = await looking.store.read_lines(session.transcript)
        assert [line.type for line in lines] == ["session", "message"]
        [owner] = await looking.store.owners()
        assert (owner.turn, owner.life) == (owned.turn, "alive")
        with pytest.raises(AttributeError, match="opened for reading"):
            await looking.store.accept(event("more"))
        with pytest.raises(AttributeError, match="opened for reading"):
            await looking.store.change_queue(SESSION, None)
    await owned.answer()


async def test_a_reader_makes_no_state(url: str) -> None:
    by_hand(url, "drop schema holdfast cascade")
    with pytest.raises(InputError, match="nobody has opened one"):
        async with holdfast.open_reader(url):
            pass


def transactions(url: str) -> int:
    """How many transactions of this server have written so far, as it counts them itself; this one as well."""
    with psycopg.connect(url) as conn:
        row = conn.execute("select pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return row[0]


async def test_a_program_s_turn_without_tools_costs_four_commits(store: PostgresStore) -> None:
    """Accept, claim, the input's own line, and the final line with the settlement and its deliveries."""
    await store.transcript_of(SESSION)
    before = store.writer.figures.commits
    input_id = await accept(store, "hello", route=ROUTE)
    owned = await claim_input(store, input_id)
    await owned.append(made.user("hello"))
    assert (await owned.inspect()).kind == "unchanged"  # a look beside the writer
    assert await owned.answer_last() == "answered"
    await store.stop_writing(owned.owned)  # only waits
    assert store.writer.figures.commits - before == 4
    assert await said(store) == ["hello", "hi"]
    assert [one.state for one in await store.deliveries(state=None, limit=10)] == ["pending"]


async def test_a_claim_is_one_round_trip_and_one_commit_and_a_whole_turn_is_few(store: PostgresStore) -> None:
    """Its header, the input's state and the lane's slot among it. The rest: three round trips of a transaction, and its
    statements.
    """
    figures = store.writer.figures
    await store.transcript_of(SESSION)
    for number in range(2):
        input_id = await accept(store, f"hello {number}", route=ROUTE)
        before = figures.round_trips, figures.commits
        owned = await claim_input(store, input_id)
        assert (figures.round_trips - before[0], figures.commits - before[1]) == (1, 1)
        before = figures.round_trips, figures.beside
        await owned.append(made.user("hello"))
        assert (figures.round_trips - before[0], figures.beside - before[1]) == (3, 1)
        before = figures.round_trips, figures.beside
        assert await owned.answer_last() == "answered"
        assert (figures.round_trips - before[0], figures.beside - before[1]) == (10, 0)
    assert await said(store) == ["hello", "hi"] * 2


async def test_nodes_that_race_grant_each_session_once_and_fill_a_lane_to_its_width(url: str) -> None:
    """Claims run beside each other, in four nodes at once. Of 24 sessions that each wants, six have a slot, whoever has
    them; when those end, six others do.
    """
    limits = LaneLimits(widths={"main": 6}, depth_max=1000)
    stores = [PostgresStore.open(url, SystemClock(), PostgresOptions(limits=limits)) for _ in range(4)]
    inputs = {n: await accept(stores[0], f"m{n}", session=f"agent:main:s{n}") for n in range(24)}

    async def want(store: PostgresStore, number: int) -> Any:
        request = await request_of(store, f"agent:main:s{number}", inputs[number])
        return await store.claim(request, wait_s=0.0, fence_mode="strict")

    granted: list[str] = []
    for _ in range(4):
        works = [want(store, number) for number in inputs for store in stores]
        got = [one for one in await asyncio.gather(*works) if not isinstance(one, Busy)]
        assert len(got) == 6
        assert len({one.transcript for one in got}) == 6
        granted += [one.input_row["id"] for one in got]
        with psycopg.connect(url) as conn:
            slots = conn.execute("select owner_slot from holdfast.transcripts where owner_turn is not null order by 1")
            assert [row[0] for row in slots] == [1, 2, 3, 4, 5, 6]
        for one in got:
            await stores[0].settle(one, Outcome("skipped", detail="enough"), "skipped", None, [])
    assert sorted(granted) == sorted(inputs.values())
    for store in stores:
        await store.close()


class LosingAnswers:
    """A connection that ends once, behind a claim that was committed and whose answer has not come."""

    def __init__(self, raw: psycopg.Connection[Any], lost: list[str]) -> None:
        self._raw = raw
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: Any, *values: Any) -> Any:
        answer = self._raw.execute(sql, *values)
        if isinstance(sql, bytes) and b"claim_turn" in sql and not self._lost:
            self._lost.append("an answer")
            self._raw.close()
            raise psycopg.OperationalError("the connection is lost")
        return answer


async def test_a_claim_whose_answer_was_lost_is_granted_again_to_the_same_turn(store: PostgresStore, url: str) -> None:
    lost: list[str] = []
    writer = PostgresWriter(
        url, store.store_id, lambda _: None,
        lambda url, purpose, **how: cast("psycopg.Connection[Any]", LosingAnswers(connect(url, purpose, **how), lost)),
    )  # fmt: skip
    input_id = await accept(store, "hello")
    request = await request_of(store, SESSION, input_id)
    found = await writer.submit(one_claim(request, 4, SystemClock()))
    await asyncio.to_thread(writer.close)
    assert lost == ["an answer"]
    assert isinstance(found.got, Claimed)
    assert (found.got.granted.attempt, found.got.granted.epoch) == (1, Epoch(1, request.nonce))
    assert (await store.input(input_id)).attempts == 1
    other = await writer_says(store, await request_of(store, SESSION, input_id))
    assert (other.got.why, other.process) == ("owned", store.process)


async def writer_says(store: PostgresStore, request: ClaimRequest) -> Any:
    return await store.writer.submit(one_claim(request, 4, SystemClock()))


async def test_a_claim_goes_the_long_way_where_there_is_something_to_judge(store: PostgresStore, url: str) -> None:
    """A line by somebody else, and an input whose turn has died: neither is granted before it was looked at."""
    owned = await claim(store)
    await owned.append(made.user("hello"))
    await owned.done()
    insert = "insert into holdfast.lines(transcript, seq, id, raw, is_ours) values(%s, 3, 'stranger', %s, true)"
    by_hand(url, insert, owned.owned.transcript, STRANGER % f'"{owned.owned.leaf}"'.encode())
    assert await writer_says(store, await request_of(store, SESSION, None)) is None
    after = await claim(store)
    assert after.owned.findings == ["1 lines were written by somebody else"]
    await after.done()
    input_id = await accept(store, "again")
    first = await claim_input(store, input_id)
    await store.requeue(first.owned, "interrupted", charge=False)
    assert await writer_says(store, await request_of(store, SESSION, input_id)) is None
    assert (await claim_input(store, input_id)).owned.attempt == 2


async def request_of(store: PostgresStore, session: str, input_id: str | None) -> ClaimRequest:
    transcript = await store.transcript_of(session)
    return ClaimRequest(ids.new_id("turn"), session, transcript, store.process, "main", ids.nonce(), input_id)


async def test_a_final_line_that_the_fence_refuses_ends_nothing_and_neither_is_written(
    store: PostgresStore, url: str
) -> None:
    input_id = await accept(store, "hello", route=ROUTE)
    owned = await claim_input(store, input_id)
    await owned.append(made.user("hello"))
    by_hand(url, "update holdfast.lines set raw='{}'::bytea where seq=2")
    with pytest.raises(SessionTakeoverError) as lost:
        await owned.answer_last()
    assert lost.value.verdict.kind == "tampered"
    assert (await store.input(input_id)).state == "running"
    assert await store.deliveries(state=None, limit=10) == []
    with pytest.raises(OwnershipLostError):
        await owned.answer_last()
    await store.requeue(owned.owned, "lost", charge=True)
    assert (await store.input(input_id)).state == "queued"


async def test_a_line_that_may_wait_is_seen_by_its_turn_and_written_before_whatever_follows(
    store: PostgresStore,
) -> None:
    owned = await claim(store)
    line = owned.line(made.user("hello"))
    before = store.writer.figures.commits
    await store.append(owned.owned, [line], sync=False, soon=True)
    assert owned.owned.has_landed(line[0])
    assert [one.id for one in await store.read_tail(owned.owned)][-1:] == [line[0]]
    assert store.writer.figures.commits == before
    assert await said(store) == []
    await owned.append(made.assistant("hi", model="demo/demo"))
    assert store.writer.figures.commits == before + 1
    assert await said(store) == ["hello", "hi"]
    await owned.done()


@pytest.mark.parametrize(
    ("sqlite", "postgres"),
    [
        ("select 1 where a is ? and b is not t.c and d is not null",
         "select 1 where a is not distinct from %(p1)s and b is distinct from t.c and d is not null"),
        ("insert or ignore into boots(process) values(?)",
         "insert into boots(process) values(%(p1)s) on conflict do nothing"),
        ("insert or replace into boots(process, at_ms, ended) values(?,?,0)",
         ("insert into boots(process, at_ms, ended) values(%(p1)s,%(p2)s,0)"
          " on conflict(process) do update set at_ms=excluded.at_ms, ended=excluded.ended")),
        ("select * from t where (?1 is null or k=?1) and j like 'a%is ?' limit ?2",
         "select * from t where (%(p1)s::text is null or k=%(p1)s) and j like 'a%%is ?' limit nullif(%(p2)s, -1)"),
        ("update t set b=x'' where k=:key and c in ()", "update t set b='\\x'::bytea where k=%(key)s and c in (null)"),
    ],
)  # fmt: skip
def test_a_statement_is_said_in_the_words_of_postgresql(sqlite: str, postgres: str) -> None:
    assert translated(sqlite)[0] == postgres
