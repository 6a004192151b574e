"""Three gateways that die within five minutes: work is held back, visibly, until somebody releases it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest  # noqa: TC002  # the fixture's type is looked at when the tests are collected

import holdfast
from holdfast.cli.main import run
from holdfast.testing.clock import VirtualClock
from tests.flow.test_gateway_process import START_S, ask, started

SESSION = "agent:main:s"


async def dies(state: Path) -> None:
    async with started(state, "--port", "0") as gateway:
        gateway.process.kill()
        await gateway.process.wait()


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(arguments)
    return code, "".join(capsys.readouterr())


async def test_after_three_deaths_work_is_held_back_and_told_of_and_goes_on_when_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    for _ in range(3):
        await dies(state)
    async with started(state, "--port", "0") as gateway, gateway.http() as http:
        greeting = await asyncio.wait_for(read_until(gateway.process, "held back"), START_S)
        assert "holdfast recover --release" in greeting
        assert "3 gateways died" in (await http.get("/readyz")).json()["held"]
        shown = await ask(http, "hello")
        await asyncio.sleep(1.5)
        assert (await http.get(f"/api/inputs/{shown['id']}")).json()["state"] == "queued"

        def by_hand() -> None:
            at = ["--state", str(state)]
            assert "held back" in command(capsys, *at, "why", shown["id"])[1]
            code, told = command(capsys, *at, "recover", "--dry-run")
            assert code == 1
            assert "holdfast recover --release" in told
            assert command(capsys, *at, "recover")[0] == 1
            code, told = command(capsys, *at, "recover", "--release", "--json")
            assert (code, json.loads(told)["released"]) == (0, "3 gateways died within 5 minutes of each other")
            assert command(capsys, *at, "recover", "--dry-run")[0] == 0

        await asyncio.to_thread(by_hand)
        async with holdfast.open(state) as hf:
            assert (await hf.wait_input(shown["id"], 30)).state == "answered"
        assert (await http.get("/readyz")).json() == {"status": "ready"}
    await dies(state)  # the one above was killed as well: two since the release
    async with started(state, "--port", "0") as gateway, gateway.http() as http:
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def read_until(process: asyncio.subprocess.Process, word: str) -> str:
    assert process.stdout is not None
    said = ""
    while word not in said:
        line = await process.stdout.readline()
        assert line, said
        said += line.decode()
    return said


async def test_gateways_that_end_in_order_or_far_apart_hold_nothing(tmp_path: Path) -> None:
    clock = VirtualClock()
    for number in range(5):
        async with holdfast.open(tmp_path, clock=clock) as hf:
            assert await hf.store.begin_boot(3) is None
            if number % 2:
                await hf.store.end_boot()
        await clock.advance(100)


async def test_one_death_too_many_holds_work_in_every_process_and_a_limit_of_zero_never_does(tmp_path: Path) -> None:
    for _ in range(3):
        async with holdfast.open(tmp_path) as hf:
            assert await hf.store.begin_boot(3) is None
    async with holdfast.open(tmp_path) as hf:
        assert await hf.store.begin_boot(0) is None
    async with holdfast.open(tmp_path) as hf, holdfast.open(tmp_path) as other:
        await hf.accept(holdfast.InboundEvent(SESSION, {"content": "x"}))
        assert len((await other.store.queue())[0]) == 1
        hold = await hf.store.begin_boot(3)
        assert hold is not None
        assert (await other.store.queue())[0] == []
        assert await other.held() == hold
        async with hf.turn("agent:main:by-hand") as turn:  # a program that asks for a turn itself knows what it does
            await turn.append(holdfast.user("x"))
        assert await other.release() == hold
        assert len((await hf.store.queue())[0]) == 1
        assert await hf.release() is None
