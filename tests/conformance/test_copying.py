"""A state goes from a folder into PostgreSQL and back, and is the same; killed at any point, it goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import holdfast
from holdfast import opening
from holdfast.cli.main import run
from holdfast.clock import SystemClock
from holdfast.errors import InputError, StateVersionError
from holdfast.inbound.event import Duplicate
from holdfast.model.policy import Pin
from holdfast.session import entries as made
from holdfast.store.copying import carried, into_database
from holdfast.store.postgres import schema
from holdfast.store.postgres.connecting import connect
from holdfast.store.views import ArchiveView
from holdfast.testing.store_suite.words import (
    OTHER,
    ROUTE,
    SESSION,
    accept,
    answered,
    append_metadata,
    claim_input,
    event,
    owning,
    said,
)
from tests.conformance import postgres_server

STRANGE = "agent:main:slack:channel:" + "long and strange \N{SNOWMAN} / " * 9


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.running() as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """An empty database."""
    with postgres_server.database(server) as url:
        by_hand(url, "drop schema holdfast cascade")
        yield url


def by_hand(url: str, sql: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as conn:
        found = conn.execute(sql.encode())
        return found.fetchall() if found.description else []


@pytest.fixture
async def full(tmp_path: Path) -> Path:
    """A state with one of everything: what is open is open, and what is put away is put away."""
    state = tmp_path / "state"
    async with holdfast.open(state) as hf:
        store = hf.store
        await answered(store, "one", ROUTE)  # and its answer has not gone out
        async with owning(store, session=OTHER) as owned:
            await owned.append(made.user("put away"))
            archive = await store.archive(owned.owned, OTHER, why="asked", by="a test")
        assert isinstance(archive, ArchiveView)
        async with owning(store, session=STRANGE) as owned:
            await owned.append(made.user("\N{SNOWMAN}" * 3000))
        await append_metadata(store, made.custom("note", {"a": 1}))
        await accept(store, "waits", key="k1", session=OTHER)
        again = await accept(store, "was tried", session=STRANGE)
        tried = await claim_input(store, again)
        line = tried.line(made.user("was tried"), inputs=(again,))
        await store.append(tried.owned, [line], sync=False)
        await store.requeue(tried.owned, "a test", charge=True)
        pin = Pin("pin1", SESSION, "demo/demo", "user", "asked", 1, by="somebody")
        assert await store.replace_pin(SESSION, seen=None, pin=pin)
    with closing(sqlite3.connect(state / "ledger.sqlite3", isolation_level=None)) as ledger:
        ledger.execute("insert into timers values('t1','cron','config','{}','on',9,0,0,0,null,'',1,null,1)")
        ledger.execute("insert into timer_runs values(4,'r1','t1',1,1,'due','done',1,2,null,null,null)")
        ledger.execute(
            "insert into model_calls values('c1','turn','s','main','main',null,'demo/demo','',1,'answer','done',1,2,'',"
            "5,6,7,8,9,10,0)"
        )
        ledger.execute("insert into spent values('all',0,10,123)")
    torn = next((state / "sessions").glob("*/*.jsonl"))  # as a writer leaves it that loses power
    torn.write_bytes(torn.read_bytes() + b'{"type":"message","id":"torn')
    return state


def bytes_of(state: Path) -> dict[str, bytes]:
    return {str(one.relative_to(state)): one.read_bytes() for one in sorted(state.glob("[as]*/*/*.jsonl"))}


def rows_of(state: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(state / "ledger.sqlite3")) as ledger:
        wanted = [*carried.tables(), ("depths", [], ["transcript", "lane", "open", "queued"])]
        return {
            name: sorted(ledger.execute(f"select {', '.join(columns)} from {name}"), key=repr)
            for name, _, columns in wanted
        }


def check_same(first: Path, second: Path) -> None:
    assert bytes_of(second) == bytes_of(first)
    assert rows_of(second) == rows_of(first)
    assert len(bytes_of(first)) == 4


async def test_a_round_trip_gives_the_same_bytes_and_the_same_rows(full: Path, url: str, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    there = opening.copy(str(full), url, hold=False, progress=lambda *one: told.append(one))
    assert (there.sessions, there.archives, there.open_inputs, there.undelivered) == (3, 1, 2, 1)
    assert there.bytes == sum(map(len, bytes_of(full).values()))
    assert ("transcripts", there.bytes, there.bytes) in told
    back = opening.copy(url, str(tmp_path / "back"), hold=False)
    assert (back.store, back.rows, back.lines, back.resumed) == (there.store, there.rows, there.lines, False)
    check_same(full, tmp_path / "back")


async def test_a_copy_goes_on_with_what_was_open_and_knows_every_key(full: Path, url: str, tmp_path: Path) -> None:
    opening.copy(str(full), url)
    async with holdfast.open(url) as hf:
        store = hf.store
        hold = await store.held()
        assert hold is not None
        assert "copied from" in hold.reason
        assert isinstance(await store.accept(event("waits", key="k1", session=OTHER)), Duplicate)
        assert len(await store.inputs(session=None, state="queued", limit=9)) == 2
        [again] = await store.inputs(session=STRANGE, state="queued", limit=9)
        tried = await claim_input(store, again.id)
        assert tried.owned.attempt == 2
        assert len(tried.owned.landed) == 1  # the input's own line was written before
        await tried.answer()
        [archive] = await store.archives(OTHER, 10)
        await store.check_archive(archive.id, archive.transcript)
    opening.copy(url, str(tmp_path / "back"))
    async with holdfast.open(tmp_path / "back") as hf:
        [archive] = await hf.store.archives(OTHER, 10)
        await hf.store.check_archive(archive.id, archive.transcript)
        [waiting] = await hf.store.inputs(session=None, state="queued", limit=9)
        await (await claim_input(hf.store, waiting.id)).answer("at last")
        assert await said(hf.store) == ["re: one"]


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL; the connections are gone, and nothing is tidied up."""


class Dying:
    """Dies at the n-th point that a copy names."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, point: str) -> None:
        self.left -= 1
        if not self.left:
            raise Killed(point)


async def test_killed_at_every_point_a_copy_goes_on_and_nobody_opens_half_of_one(
    full: Path, url: str, tmp_path: Path
) -> None:
    deaths, died_at = 0, ""
    while died_at != "copy.finished":
        try:
            into_database.copy(
                full, url, SystemClock(), hold=False, progress=lambda *_: None, faults=Dying(2), at_once=2
            )
            break
        except Killed as killed:
            deaths, died_at = deaths + 1, str(killed)
        if died_at != "copy.finished":
            with pytest.raises(InputError, match="has not been finished"), connect(url, "test") as raw:
                schema.open_schema(raw)
    assert deaths > 10
    back, deaths = tmp_path / "back", 0
    while not back.exists():
        try:
            opening.copy(url, str(back), hold=False, faults=Dying(3))
        except Killed:
            deaths += 1
    assert deaths >= 2
    check_same(full, back)


async def test_a_copy_that_sigkill_ends_is_gone_on_with(full: Path, url: str, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom holdfast import opening\nleft = [int(sys.argv[3])]\n"
        "def die(_):\n    left[0] -= 1\n    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "opening.copy(sys.argv[1], sys.argv[2], hold=False, faults=die)\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(full), url, "9")
    assert await killed.wait() == -signal.SIGKILL
    assert opening.copy(str(full), url, hold=False).resumed
    opening.copy(url, str(tmp_path / "back"), hold=False)
    check_same(full, tmp_path / "back")


async def test_a_source_that_has_changed_since_is_copied_from_the_beginning(full: Path, url: str) -> None:
    with pytest.raises(Killed):
        opening.copy(str(full), url, faults=Dying(4))
    async with holdfast.open(full) as hf:
        await accept(hf.store, "one more", session=OTHER)
    done = opening.copy(str(full), url)
    assert (done.open_inputs, done.resumed) == (3, False)
    assert "begun anew" in done.remarks[0]


async def test_nobody_may_live_on_either_side(full: Path, url: str, tmp_path: Path) -> None:
    async with holdfast.open(full):
        with pytest.raises(InputError, match="stop them first"):
            opening.copy(str(full), url)
    opening.copy(str(full), url, hold=False)
    async with holdfast.open(url):
        with pytest.raises(InputError, match="stop them first"):
            opening.copy(url, str(tmp_path / "back"))
    with pytest.raises(InputError, match="a state is in"):
        opening.copy(str(full), url)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").touch()
    with pytest.raises(InputError, match="is there already"):
        opening.copy(url, str(tmp_path / "back"))
    with pytest.raises(InputError, match="backup"):
        opening.copy(str(full), str(tmp_path / "other"))


async def test_the_command_tells_in_words_and_in_json(
    full: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["copy", "--from", str(full), "--to", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sessions"], told["held"], told["resumed"]) == (3, True, False)
    assert run(["copy", "--from", url, "--to", str(tmp_path / "back")]) == 0
    assert "Work is held back there." in capsys.readouterr().out
    assert run(["copy", "--from", url, "--to", str(tmp_path / "back")]) == 1
    assert "is there already" in capsys.readouterr().err


# ── migrations ───────────────────────────────────────────────────────────────────────────────────────────────────────

MORE = schema.Step(2, "one more table", ("create table more(a bigint)", "insert into more values(1)"))


def opened(url: str, steps: tuple[schema.Step, ...] = schema.STEPS) -> str:
    with connect(url, "test") as raw:
        return schema.open_schema(raw, steps)


def test_a_step_is_taken_once_and_an_older_release_refuses_what_it_does_not_know(url: str) -> None:
    store = opened(url)
    assert opened(url, (*schema.STEPS, MORE)) == store
    assert opened(url, (*schema.STEPS, MORE)) == store
    assert by_hand(url, "select * from holdfast.more") == [(1,)]
    assert by_hand(url, "select version, name from holdfast.migrations order by 1") == [
        (1, "the first tables"),
        (2, "one more table"),
    ]
    with pytest.raises(StateVersionError, match=r"knows up to 1; upgrade Holdfast on this node, or copy"):
        opened(url)


def test_a_step_that_fails_leaves_the_schema_as_it_was(url: str) -> None:
    opened(url)
    broken = schema.Step(3, "broken", ("create table half(a bigint)", "select 1/0"))
    with pytest.raises(psycopg.errors.DivisionByZero):
        opened(url, (*schema.STEPS, MORE, broken))
    assert by_hand(url, "select max(version) from holdfast.migrations") == [(1,)]
    assert by_hand(url, "select to_regclass('holdfast.more')::text, to_regclass('holdfast.half')::text") == [
        (None, None)
    ]


def test_a_step_that_is_not_what_was_taken_is_refused_with_the_way_out(url: str) -> None:
    opened(url)
    by_hand(url, "update holdfast.migrations set checksum='another'")
    with pytest.raises(StateVersionError, match="made by a build between releases; copy the state out"):
        opened(url)


def test_nodes_that_start_at_once_take_a_step_once(url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    opened(url)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: opened(url, (*schema.STEPS, MORE)), range(4)))
    assert len(set(stores)) == 1
    assert by_hand(url, "select count(*) from holdfast.more") == [(1,)]
