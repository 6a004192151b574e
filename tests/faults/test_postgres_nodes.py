"""Nodes of one database that die, stand still or are cut off, and a database that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

import holdfast
from holdfast.clock import SystemClock
from holdfast.config import read_config
from holdfast.errors import OwnershipLostError, SessionTakeoverError, StateAwayError
from holdfast.inbound.event import InboundEvent, Route
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.model import ScriptedModel
from holdfast.testing.proxy import LOOPBACK, TcpProxy
from holdfast.testing.served import served
from holdfast.testing.store_suite.words import claim
from tests.conformance import postgres_server
from tests.conformance.postgres_server import OwnServer
from tests.flow.test_gateway_process import MAIN, START_S
from tests.flow.test_timers_process import EACH_SECOND, fired, seen, until
from tests.flow.test_two_gateways import client

SESSION = "agent:main:main"
SERVER_PATIENCE_S = 3.0
"""As of `connecting.UNREACHABLE`."""


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with postgres_server.own() as server:
        yield server


@pytest.fixture
def url(server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HOLDFAST_NODE_DIR", str(tmp_path / "node"))
    with postgres_server.database(server.url) as url:
        yield url


@pytest.fixture
def proxy(server: OwnServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.socket, server_patience_s=SERVER_PATIENCE_S) as proxy:
        yield proxy


def through(proxy: TcpProxy, url: str) -> str:
    """The same database, as a node behind the proxy names it."""
    return f"postgresql://postgres@{LOOPBACK}:{proxy.port}/{url.split('/')[3].split('?')[0]}"


def epochs(url: str) -> list[int]:
    with psycopg.connect(url) as conn:
        return [row[0] for row in conn.execute("select epoch_number from holdfast.transcripts order by id")]


@asynccontextmanager
async def node(url: str, folder: Path, *more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`holdfast up` as a process of its own: it, and where it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, "--state", url, "up", "--port", "0", *more, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "HOLDFAST_NODE_DIR": str(folder)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            while b"is ready at" not in (line := await process.stdout.readline()):
                assert line
        yield process, line.decode().split()[4]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_running(hf: holdfast.Holdfast, input_id: str, not_by: str = "") -> str:
    """The node whose turn runs the input."""
    async with asyncio.timeout(START_S):
        while True:
            view = await hf.input(input_id)
            turn = await hf.store.turn(view.turn_id) if view.turn_id is not None else None
            if turn is not None and view.state == "running" and turn.process != not_by:
                return turn.process
            await asyncio.sleep(0.02)


def said(text: str, session: str = SESSION) -> InboundEvent:
    return InboundEvent(session, {"content": text}, source="test", route=Route("console", "me"))


async def test_the_turn_of_a_node_that_is_killed_moves_within_seconds(url: str, tmp_path: Path) -> None:
    """A real process, kill -9 in the middle of its turn. About three seconds on a quiet machine."""
    async with node(url, tmp_path / "one") as (process, address), holdfast.open(url) as hf:
        token = {"authorization": f"Bearer {(tmp_path / 'one' / 'token').read_text().strip()}"}
        async with httpx.AsyncClient(base_url=address, headers=token, timeout=START_S) as http:
            body = {"text": "/slow 60 long"}
            input_id = (await http.post(f"/api/sessions/{SESSION}/messages", json=body)).json()["id"]
        dead = await until_running(hf, input_id)
        before = epochs(url)
        async with served(url, model=ScriptedModel("from two")) as two:
            process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            view = await two.hf.wait_input(input_id, START_S)
            took_s = time.monotonic() - killed
        assert (view.state, view.answer, view.attempts) == ("answered", "from two", 2)
        assert took_s < 20
        turns = await hf.store.turns_of(input_id)
        ends = sorted((turn.outcome or "", turn.process == dead) for turn in turns)
        assert ends == [("answered", False), ("died", True)]
        assert all(now > then for now, then in zip(epochs(url), before, strict=True))


@pytest.mark.long
async def test_a_job_each_second_fires_once_among_two_nodes_and_after_one_is_killed(url: str, tmp_path: Path) -> None:
    """Whoever changes the job's row first has the run; a run whose node was killed is ended by the other."""
    config = tmp_path / "holdfast.toml"
    config.write_text(EACH_SECOND)
    async with (
        node(url, tmp_path / "one", "--config", str(config)) as (one, _),
        node(url, tmp_path / "two", "--config", str(config)) as (two, _),
    ):
        await until(url, lambda runs: len(fired(runs)) >= 3)
        one.send_signal(signal.SIGKILL)
        await one.wait()
        before = len(fired((await seen(url))[0]))
        await until(url, lambda runs: len(fired(runs)) >= before + 4)
        two.send_signal(signal.SIGTERM)
        await two.wait()
    runs, inputs = await seen(url)
    times = [run.scheduled_at_ms for run in fired(runs)]
    assert len(times) == len(set(times)), "a time fired twice"
    assert {view.id for view in inputs} <= {run.input_id for run in runs}, "an input that no run knows of"


async def test_the_turn_of_a_node_that_stands_still_moves_after_its_term_and_is_lost_to_it(
    url: str, tmp_path: Path
) -> None:
    """SIGSTOP: its connections stay open, so only its beat tells. What it does when it goes on is refused."""
    config = tmp_path / "holdfast.toml"
    config.write_text("[turn]\nbeat_s = 0.3\nbeat_term_s = 2.0\n")
    async with node(url, tmp_path / "one", "--config", str(config)) as (process, address), holdfast.open(url) as hf:
        token = {"authorization": f"Bearer {(tmp_path / 'one' / 'token').read_text().strip()}"}
        async with httpx.AsyncClient(base_url=address, headers=token, timeout=START_S) as http:
            body = {"text": "/slow 3 long"}
            input_id = (await http.post(f"/api/sessions/{SESSION}/messages", json=body)).json()["id"]
            await until_running(hf, input_id)
            async with served(url, model=ScriptedModel("from two"), config=read_config(config, {}).config) as two:
                process.send_signal(signal.SIGSTOP)
                view = await two.hf.wait_input(input_id, START_S)
                assert (view.state, view.answer) == ("answered", "from two")
                process.send_signal(signal.SIGCONT)
                async with asyncio.timeout(START_S):  # it goes on, and finds its turn lost
                    while not any(one["kind"] == "turn.salvaged" for one in await hf.store.events(input_id=input_id)):  # noqa: ASYNC110  # rows of another process
                        await asyncio.sleep(0.05)
                assert (await http.get("/readyz")).status_code == 200
        lines = await hf.store.read_lines(await hf.store.transcript_of(SESSION))
        finals = [line for line in lines if line.origin is not None and line.origin.final]
        assert [line.value()["message"]["model"] for line in finals] == ["demo"]
        assert (await hf.input(input_id)).answer == "from two"


async def test_a_node_that_is_cut_off_loses_its_turn_to_another_and_can_write_nothing_more(
    url: str, proxy: TcpProxy
) -> None:
    """Both ways, and for the server as a machine that is gone. The cut-off node's own answer comes too late; when the
    network is back it finds that out, and what it has finished is kept.
    """
    async with holdfast.open(through(proxy, url)) as cut_off, holdfast.open(url) as other:
        admission = await cut_off.accept(said("hello"))
        assert isinstance(admission, holdfast.Accepted)
        turn = await cut_off.claim(SESSION, input_id=admission.input_id)
        assert isinstance(turn, holdfast.Turn)
        await turn.append(holdfast.user("hello"))
        before = epochs(url)
        proxy.cut()
        appending = asyncio.ensure_future(turn.append(holdfast.assistant("too late", model="demo/demo")))
        async with other.turn(SESSION, input_id=admission.input_id, wait_s=START_S) as taken:
            assert epochs(url)[0] > before[0]
            proxy.heal()
            with pytest.raises(SessionTakeoverError) as told:
                await appending
            assert told.value.verdict.kind == "superseded"
            with pytest.raises(OwnershipLostError):
                await turn.append(holdfast.user("more"))
            await taken.append(holdfast.assistant("in time", model="demo/demo"))
        await cut_off.close_turn(turn, told.value)
        view = await other.input(admission.input_id)
        assert (view.state, view.answer) == ("answered", "in time")


async def test_while_the_database_cannot_be_reached_nothing_is_accepted_and_a_finished_answer_waits(
    url: str, proxy: TcpProxy
) -> None:
    """503 at the door, no turn begins, and the answer whose turn ran is recorded once the network is back."""
    model = ScriptedModel("finished meanwhile", "later")
    model.hold()
    async with served(through(proxy, url), model=model) as gateway, client(gateway) as http:
        begun = (await http.post(f"/api/sessions/{SESSION}/messages", json={"text": "hello"})).json()["id"]
        await model.asked()
        proxy.cut(to_client=True, to_server=False)  # one way: what we ask arrives, and no answer comes back
        model.release()
        refused = await http.post("/api/sessions/agent:main:other/messages", json={"text": "too early"})
        assert refused.status_code == 503
        with pytest.raises(StateAwayError, match="cannot be used now"):
            await gateway.hf.input(begun)
        proxy.heal()
        view = await until_settled(gateway.hf, begun)
        assert (view.state, view.answer, view.attempts) == ("answered", "finished meanwhile", 1)
        again = await http.post("/api/sessions/agent:main:other/messages", params={"wait": 1}, json={"text": "again"})
        assert again.json()["answer"] == "later"


async def until_settled(hf: holdfast.Holdfast, input_id: str) -> holdfast.InputView:
    async with asyncio.timeout(START_S):
        while True:
            try:
                view = await hf.wait_input(input_id, 1.0)
            except StateAwayError:
                continue
            if view.settled:
                return view


async def test_a_database_that_crashes_and_comes_back_loses_nothing_that_was_acknowledged(
    server: OwnServer, url: str
) -> None:
    async with served(url, model=ScriptedModel(*["yes"] * 40)) as gateway, client(gateway) as http:
        accepted: list[str] = []
        some = asyncio.Event()

        async def keep_asking() -> None:
            for number in range(12):
                body = {"text": f"m{number}"}
                headers = {"idempotency-key": f"k{number}"}
                while True:
                    path = f"/api/sessions/agent:main:s{number % 4}/messages"
                    response = await http.post(path, json=body, headers=headers)
                    if response.status_code in (200, 202):
                        accepted.append(response.json()["id"])
                        if len(accepted) == 4:
                            some.set()
                        break
                    await asyncio.sleep(0.1)

        asking = asyncio.ensure_future(keep_asking())
        await some.wait()
        await asyncio.to_thread(server.crash)
        await asking
        for input_id in accepted:
            assert (await until_settled(gateway.hf, input_id)).state == "answered"
        assert len(set(accepted)) == 12


async def test_a_node_that_closes_while_its_server_is_silent_leaves_nothing_behind(url: str, proxy: TcpProxy) -> None:
    """Its own thread may hear of the silence only after `close` has gone on; it ends by itself all the same."""
    before = {thread.ident for thread in threading.enumerate()}
    store = PostgresStore.open(through(proxy, url), SystemClock(), PostgresOptions(beat_s=0.1))
    owned = await claim(store)
    store.start_beating(owned.owned, still_runs=lambda: True)
    proxy.cut()
    asking = asyncio.ensure_future(store.sessions(prefix="", limit=1))
    store.node.close()
    await store.close()  # although a question still waits
    with pytest.raises(StateAwayError):
        await asking
    proxy.heal()
    async with asyncio.timeout(START_S):
        while any(one.name == "holdfast-node" and one.ident not in before for one in threading.enumerate()):  # noqa: ASYNC110  # a thread
            await asyncio.sleep(0.05)
