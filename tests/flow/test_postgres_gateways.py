"""Gateways on one database: what people meet there, at whichever of them they ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli.main import run
from holdfast.gateway.address import Address, write_address
from holdfast.store.postgres.store import PostgresStore
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import ScriptedModel
from holdfast.testing.platform import FakePlatform
from holdfast.testing.served import served
from holdfast.testing.world import echo
from tests.conformance import postgres_server
from tests.conformance.test_postgres import transactions
from tests.flow.test_gateway_process import START_S
from tests.flow.test_hearing import config_of
from tests.flow.test_two_gateways import SESSION, client, watching


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.running() as url:
        yield url


@pytest.fixture
def url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HOLDFAST_NODE_DIR", str(tmp_path / "node"))
    with postgres_server.database(server) as url:
        yield url


async def test_what_one_accepts_the_other_answers_and_watchers_of_both_hear_of_it(url: str) -> None:
    """Each event once and in the order of a turn, though only one of them has a worker that takes anything."""
    async with (
        served(url, model=ScriptedModel("from one")) as one,
        served(url, model=ScriptedModel("from two")) as two,
        client(one) as at_one,
        client(two) as at_two,
        watching(at_one) as heard_at_one,
        watching(at_two) as heard_at_two,
    ):
        await one.gateway.worker.stop(0.0)
        posted = await at_one.post(f"/api/sessions/{SESSION}/messages", params={"wait": 1}, json={"text": "hello"})
        assert (posted.json()["state"], posted.json()["answer"]) == ("answered", "from two")
        input_id = posted.json()["id"]
        for heard in (heard_at_one, heard_at_two):
            assert (await heard.until("turn.settled", input_id))["data"]["answer"] == "from two"
            kinds = [one["kind"] for one in heard.events if one["input_id"] == input_id]
            for kind in ("input.accepted", "turn.started", "turn.model", "turn.answer", "turn.settled"):
                assert kinds.count(kind) == 1, kinds
            assert kinds.index("input.accepted") < kinds.index("turn.started") < kinds.index("turn.settled")
        assert (await at_one.get("/readyz")).json() == {"status": "ready"}
        assert "holdfast_work_held 0.0" in (await at_two.get("/metrics")).text
        assert "<title>Holdfast</title>" in (await at_one.get("/")).text


async def test_answers_that_both_may_deliver_are_delivered_once_each(url: str, tmp_path: Path) -> None:
    """Both have the channel, and both wake for every answer; whoever sends first has it."""
    platform = tmp_path / "platform"
    async with (
        served(url, model=ScriptedModel(*["hi"] * 6), channels=[FakeChannel("fake", platform=platform)]) as one,
        served(url, model=ScriptedModel(*["hi"] * 6), channels=[FakeChannel("fake", platform=platform)]) as two,
        client(one) as at_one,
        client(two) as at_two,
    ):
        for number in range(6):
            at = (at_one, at_two)[number % 2]
            body = {"text": f"m{number}", "route": "fake:somebody"}
            await at.post(f"/api/sessions/agent:main:s{number % 3}/messages", params={"wait": 1}, json=body)
        async with asyncio.timeout(START_S):
            while len(await one.hf.deliveries(state="sent")) < 6:  # noqa: ASYNC110  # rows of another process
                await asyncio.sleep(0.02)
        keys = [arrived.delivery_id for arrived in FakeChannel("fake", platform=platform).received]
        assert len(keys) == len(set(keys)) == 6


async def test_a_channel_moves_to_another_node_when_its_own_is_gone_and_watchers_hear_of_what_is_said_there(
    url: str,
) -> None:
    """A node whose connection has ended is gone for others, dead or not: one that goes on all the same finds that
    somebody else listens, and leaves off.
    """
    here, there = FakePlatform(), FakePlatform()
    model = ScriptedModel(otherwise=echo)
    config = config_of()
    async with served(url, model=model, config=config, adapters={"test": here.adapter()}) as one:
        await here.until(lambda: here.listening == 1)
        async with (
            served(url, model=model, config=config, adapters={"test": there.adapter()}) as two,
            client(one) as at_one,
            watching(at_one) as heard_at_one,
        ):
            [row] = await two.hf.store.listeners()
            assert (row.process, there.listening) == (one.hf.process_id, 0)
            store = one.hf.store
            assert isinstance(store, PostgresStore)
            store.node.close(in_order=False)
            await there.until(lambda: there.listening == 1)
            await here.until(lambda: here.listening == 0)
            receipt = await there.says("hello")
            await there.shows("re: hello")
            assert (await heard_at_one.until("turn.settled", receipt.input_id or ""))["data"]["answer"] == "re: hello"


async def test_a_turn_without_tools_costs_a_gateway_four_commits(url: str) -> None:
    """Accept, claim, the input's line with the call of the model, and the final line with the settlement; counted by
    the writer and by the server. The least of some turns: the story of one that is running is written down beside it
    once a second.
    """
    async with served(url, model=ScriptedModel(*["hi"] * 6)) as gateway, client(gateway) as http:
        store = gateway.hf.store
        assert isinstance(store, PostgresStore)
        writer = store.writer
        counted: list[tuple[int, int]] = []
        for number in range(6):
            before = writer.figures.commits, transactions(url)
            path = f"/api/sessions/{SESSION}/messages"
            said = await http.post(path, params={"wait": 1}, json={"text": f"m{number}"})
            assert said.json()["answer"] == "hi"
            counted.append((writer.figures.commits - before[0], transactions(url) - before[1]))
        assert min(mine for mine, _ in counted[1:]) == 4, counted
        assert min(servers for _, servers in counted[1:]) <= 5, counted  # and the one that asks


async def test_commands_of_the_same_machine_find_the_gateway_of_a_database(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(url, model=ScriptedModel("hi there")) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        told = Address(gateway.url, host, int(port), 1, gateway.hf.store.store_id, "now")
        write_address(tmp_path / "node", told)
        assert await asyncio.wait_for(asyncio.to_thread(run, ["--state", url, "send", SESSION, "hello"]), START_S) == 0
        assert capsys.readouterr().out == "hi there\n"
        assert await asyncio.to_thread(run, ["--state", url, "--json", "turns"]) == 0
        [turn] = json.loads(capsys.readouterr().out)
        assert (turn["session"], turn["outcome"], turn["process"]) == (SESSION, "answered", gateway.hf.process_id)
        for command in (["sessions"], ["outbox"], ["why", SESSION], ["cron", "list"], ["model", "status"], ["usage"]):
            assert await asyncio.to_thread(run, ["--state", url, *command]) == 0, capsys.readouterr()
