"""Two gateways on different ports, a command and a program, all on one state at once: normal life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.gateway.address import read_address
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from tests.flow.test_gateway_process import START_S, started

SESSION = "agent:main:main"


class Heard:
    """The events a watcher gets over HTTP, as they come."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.ready = asyncio.Event()

    def of(self, kind: str, input_id: str | None = None) -> list[dict[str, Any]]:
        return [one for one in self.events if one["kind"] == kind and input_id in (None, one["input_id"])]

    async def until(self, kind: str, input_id: str) -> dict[str, Any]:
        async with asyncio.timeout(START_S):
            while not (found := self.of(kind, input_id)):  # noqa: ASYNC110  # lines come from a socket, no event says so
                await asyncio.sleep(0.01)
        return found[0]


@asynccontextmanager
async def watching(http: httpx.AsyncClient) -> AsyncIterator[Heard]:
    heard = Heard()

    async def listen() -> None:
        async with http.stream("GET", "/api/events") as stream:
            async for line in stream.aiter_lines():
                heard.ready.set()
                if line.startswith("data:"):
                    heard.events.append(json.loads(line[5:]))

    task = asyncio.create_task(listen())
    try:
        await asyncio.wait_for(heard.ready.wait(), START_S)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def client(gateway: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=START_S)


async def test_watchers_of_one_gateway_hear_of_turns_of_the_other(tmp_path: Path) -> None:
    """Each once, in the order of a turn, whoever runs it; streamed text comes with the answer."""
    async with (
        served(tmp_path, model=ScriptedModel("from one")) as one,
        served(tmp_path, model=ScriptedModel("from two")) as two,
        client(one) as at_one,
        client(two) as at_two,
        watching(at_one) as heard_at_one,
        watching(at_two) as heard_at_two,
    ):
        posted = await at_one.post(f"/api/sessions/{SESSION}/messages", json={"text": "hello"})
        input_id = posted.json()["id"]
        ends = [await heard.until("turn.settled", input_id) for heard in (heard_at_one, heard_at_two)]
        await asyncio.sleep(1.2)  # whoever looks once more tells nothing twice
        assert ends[0]["data"]["state"] == ends[1]["data"]["state"] == "answered"
        assert ends[0]["data"]["answer"] == ends[1]["data"]["answer"] in ("from one", "from two")
        for heard in (heard_at_one, heard_at_two):
            kinds = [one["kind"] for one in heard.events if one["input_id"] == input_id]
            for kind in ("input.accepted", "turn.started", "turn.model", "turn.answer", "turn.settled"):
                assert kinds.count(kind) == 1, kinds
            assert kinds.index("input.accepted") < kinds.index("turn.started") < kinds.index("turn.settled")


async def test_a_message_accepted_by_one_is_answered_by_the_other(tmp_path: Path) -> None:
    """The worker of the one that accepts it takes nothing more."""
    async with served(tmp_path, model=ScriptedModel("from one")) as one, client(one) as at_one:
        await one.gateway.worker.stop(0.0)
        posted = await at_one.post(f"/api/sessions/{SESSION}/messages", json={"text": "hello"})
        async with served(tmp_path, model=ScriptedModel("from two")) as two:
            view = await two.hf.wait_input(posted.json()["id"], START_S)
            assert (view.state, view.answer) == ("answered", "from two")
        seen = (await at_one.get(f"/api/inputs/{posted.json()['id']}")).json()
        assert (seen["state"], seen["answer"]) == ("answered", "from two")


async def test_a_caller_who_waits_at_one_gets_the_answer_of_the_other(tmp_path: Path) -> None:
    async with served(tmp_path, model=ScriptedModel("from one")) as one, client(one) as at_one:
        await one.gateway.worker.stop(0.0)
        waiting = asyncio.create_task(
            at_one.post(f"/api/sessions/{SESSION}/messages", params={"wait": 1}, json={"text": "hello"})
        )
        streaming = asyncio.create_task(
            at_one.post("/v1/chat/completions", headers={"X-Holdfast-Session": "agent:main:other"}, json={
                "model": "holdfast", "stream": True, "messages": [{"role": "user", "content": "hello"}]})
        )  # fmt: skip
        async with served(tmp_path, model=ScriptedModel("from two", "from two")):
            assert (await waiting).json()["answer"] == "from two"
            assert "from two" in (await streaming).text


@pytest.mark.long
async def test_two_gateways_a_command_and_a_program_work_on_one_state_at_once(tmp_path: Path) -> None:
    """Real processes. Every message is answered once, each session's in order, and nobody is taken for an intruder."""
    state = tmp_path / "state"
    async with started(state, "--port", "0") as one:
        first = one.told["address"]
        async with started(state, "--port", "0") as two:
            second = two.told["address"]
            assert first != second
            token = {"authorization": f"Bearer {(state / 'token').read_text().strip()}"}
            async with (
                httpx.AsyncClient(base_url=first, headers=token, timeout=START_S) as at_one,
                httpx.AsyncClient(base_url=second, headers=token, timeout=START_S) as at_two,
                holdfast.open(state) as hf,
            ):

                async def by_http(http: httpx.AsyncClient, number: int) -> str:
                    said = await http.post(
                        f"/api/sessions/{SESSION}/messages", params={"wait": 1}, json={"text": f"h{number}"}
                    )
                    return said.json()["answer"]

                async def by_program(number: int) -> str:
                    async with hf.turn("agent:main:main", wait_s=START_S) as turn:
                        await turn.append(holdfast.user(f"p{number}"))
                        async with turn.prompt_window():
                            await asyncio.sleep(0.01)
                        await turn.append(holdfast.assistant(f"program {number}", model="demo/demo"))
                    return "done"

                def by_command(number: int) -> int:
                    return run(["--state", str(state), "send", SESSION, f"c{number}"])

                works = [by_http(http, n) for n in range(4) for http in (at_one, at_two)]
                works += [by_program(n) for n in range(4)]
                commands = [asyncio.to_thread(by_command, n) for n in range(2)]
                answers = await asyncio.gather(*works, *commands)
                assert all(answer is not None for answer in answers)
                assert answers[-2:] == [0, 0]
                lines = [line for line in await hf.session(SESSION).lines() if line.kind == "entry"]
                turns = await hf.turns(limit=100)
                assert {turn.outcome for turn in turns} <= {"answered", "done"}, turns
                roles = [line.message_role for line in lines if line.type == "message"]
                assert roles == ["user", "assistant"] * (len(roles) // 2)
                assert len(roles) == 2 * (8 + 4 + 2)


async def test_senders_whose_messages_wait_at_a_restart_are_told_once_unless_another_gateway_goes_on(
    tmp_path: Path,
) -> None:
    """Also the one whose turn is put back in line because it does not end in time."""
    model, channel = ScriptedModel(otherwise=lambda _: "late"), FakeChannel()
    model.hold()
    async with served(tmp_path, model=model, channels=[channel]) as one:
        await one.hf.accept(holdfast.InboundEvent(SESSION, {"content": "for nobody"}))
        for session, target in ((SESSION, "alice"), (SESSION, "alice"), ("agent:main:other", "bob")):
            route = holdfast.Route(channel.name, target)
            await one.hf.accept(holdfast.InboundEvent(session, {"content": "hello"}, route=route))
        await model.asked(2)
        async with holdfast.open(tmp_path) as two:
            await two.store.begin_boot(3)
            assert await one.hf.store.tell_of_draining() == 0, "the other one answers them"
            await two.store.end_boot()
        await asyncio.wait_for(one.gateway.drain(0.1), START_S)
        told = sorted((got.target, got.text) for got in channel.received)
        assert told == [
            ("alice", "(Restarting; 2 messages wait and will be answered afterwards.)"),
            ("bob", "(Restarting; 1 message waits and will be answered afterwards.)"),
        ]
    model.release()
    async with served(tmp_path, model=model, channels=[channel]):
        await channel.arrived(5)
    assert [got.text for got in channel.received].count("late") == 3


@pytest.mark.parametrize("killed", [False, True])
async def test_commands_find_the_gateway_that_is_left(tmp_path: Path, killed: bool) -> None:
    """The newest is in `gateway.json`. It leaves, or is killed: then the other one is told of again."""
    state = tmp_path / "state"
    async with started(state, "--port", "0") as one, started(state, "--port", "0") as two:
        assert json.loads((state / "gateway.json").read_text())["pid"] == two.process.pid
        (two.process.kill if killed else two.process.terminate)()
        await two.process.wait()
        async with asyncio.timeout(START_S):
            while (told := read_address(state)) is None or told.pid != one.process.pid:  # noqa: ASYNC110  # a file
                await asyncio.sleep(0.05)
        one.process.terminate()
        await one.process.wait()
        assert not (state / "gateway.json").exists()
