"""What turns use is in the ledger, once, whatever became of them; and people can read it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from holdfast.cli.main import run
from holdfast.errors import ProviderError
from holdfast.model.prices import Prices
from holdfast.model.usage import ModelCall, Price, Tokens
from holdfast.store.embedded.schema import connect
from holdfast.store.sql.usage_rows import of_turn
from holdfast.store.views import UsedIn
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import served
from holdfast.testing.world import World
from holdfast.turn.metering import Metering
from holdfast.turn.runner import AgentSettings

KEY = "agent:main:main"
COUNTED = {"input": 100, "output": 20, "cacheRead": 50, "cacheWrite": 10, "reasoning": 5}
PRICE = Price(input=1_000_000, output=2_000_000, cache_read=100_000, cache_write=1_250_000)
COST = 100 + 40 + 5 + 13  # micro-dollars, the cache's rounded up
TOOL = ("no_such_tool", {})


def metering() -> Metering:
    return Metering(Prices({"scripted/model": PRICE, "scripted/other": PRICE}))


async def calls_of(world: World) -> list[ModelCall]:
    found: list[ModelCall] = []
    for turn in reversed(await world.hf.turns(limit=100)):
        found += await world.hf.store.calls_of(turn.id)
    return found


async def test_every_call_of_a_turn_is_counted_with_its_step(tmp_path: Path) -> None:
    model = ScriptedModel(Reply(calls=[TOOL], usage=COUNTED), Reply("done", usage=COUNTED))
    async with World(tmp_path, model=model, metering=metering()) as world:
        view = await world.settled(await world.inbound(KEY, "hello"))
        calls = await calls_of(world)
        assert [(one.step, one.state, one.purpose, one.cost) for one in calls] == [
            (1, "done", "answer", COST), (2, "done", "answer", COST),
        ]  # fmt: skip
        assert calls[0].tokens == Tokens(100, 20, 50, 10, 5)
        assert (calls[0].input_id, calls[0].agent, calls[0].lane, calls[0].key) == (view.id, "main", "main", "")
        assert not calls[0].is_estimate
        told = [line.text for line in (await world.hf.why(view.id)).lines if line.text.startswith("used: ")]
        cached = "160 in (50 from the cache, 10 into the cache), 20 out (5 of them thinking)"
        assert told == [f"used: scripted/model: {cached}, $0.000158"] * 2


async def test_failed_calls_and_other_models_count_too_marked(tmp_path: Path) -> None:
    model = ScriptedModel(ProviderError("busy", status=429), Reply("hello", usage=COUNTED))
    agent = AgentSettings("scripted/model", fallbacks=("scripted/other",))
    async with World(tmp_path, model=model, agent=agent, metering=metering()) as world:
        await world.settled(await world.inbound(KEY, "hello"))
        first, second = await calls_of(world)
        assert (first.model, first.state, first.reason, first.cost, first.tokens) == (
            "scripted/model", "failed", "rate_limit", 0, Tokens(),
        )  # fmt: skip
        assert (second.model, second.state, second.cost) == ("scripted/other", "done", COST)
        (used,) = [row.used for row in await everything(world) if row.model == "scripted/model"]
        assert (used.calls, used.failed) == (1, 1)


@pytest.mark.parametrize("code", ["connection_error", None])
async def test_a_call_that_broke_off_is_guessed(tmp_path: Path, code: str | None) -> None:
    model = ScriptedModel(Reply("four chars each", error=ProviderError("gone", code=code)))
    async with World(tmp_path, model=model, metering=metering()) as world:
        assert (await world.settled(await world.inbound(KEY, "hello"))).state == "failed"
        (call,) = await calls_of(world)
        assert (call.state, call.is_estimate, call.tokens.output) == ("failed", True, 4)
        assert call.tokens.input > 0
        assert call.cost == PRICE.of(call.tokens)


async def test_a_cancelled_call_is_counted_as_cut_off(tmp_path: Path) -> None:
    async with World(tmp_path, metering=metering()) as world:
        world.model.hold()
        one = await world.inbound(KEY, "hello")
        await world.model.asked(1)
        (call,) = await calls_of(world)
        assert (call.state, call.is_estimate) == ("begun", True)  # the ledger knows of it while it is under way
        await world.hf.cancel(one, by="a test")
        assert (await world.settled(one)).state == "cancelled"
        (call,) = await calls_of(world)
        assert call.state == "cut"


async def everything(world: World) -> list[UsedIn]:
    return await world.hf.store.usage(since_ms=0, until_ms=1 << 52)


async def one_message(world: World) -> None:
    await world.settled(await world.inbound(KEY, "hello"))


def make(path: Path) -> World:
    """The world in which a process is killed in the middle of a turn of two calls."""
    model = ScriptedModel(Reply(calls=[TOOL], usage=COUNTED), otherwise=lambda _: Reply("done", usage=COUNTED))
    return World(path, model=model, metering=metering())


async def test_a_turn_that_dies_leaves_its_calls_and_the_next_attempt_adds_its_own(tmp_path: Path) -> None:
    async with make(tmp_path) as world:
        # The fourth append is that of the final answer.
        crash = await world.crash_at("append.after_intent", one_message, make=make, nth=4)
        assert crash.died
        await world.idle(passing_s=120)
        calls = await calls_of(world)
        assert [(call.step, call.state) for call in calls if call.turn == calls[0].turn] == [(1, "done"), (2, "cut")]
        assert len({call.id for call in calls}) == len(calls)


async def test_status_and_the_command_line_tell_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel(Reply("one", usage=COUNTED), Reply("two", usage=COUNTED))
    async with World(tmp_path, model=model, metering=metering(), commands=True) as world:
        await world.settled(await world.inbound(KEY, "hello"))
        await world.settled(await world.inbound("agent:other:main", "hello"))
        told = await world.settled(await world.inbound(KEY, "/status"))
        assert "used in the last 24 hours: 1 call, 160 in" in str(told.answer or (await world.hf.why(told.id)).lines)
        ledger = connect(tmp_path / "state" / "ledger.sqlite3", read_only=True)
        assert sum(len(of_turn(ledger, turn.id)) for turn in await world.hf.turns(limit=10)) == 2
        ledger.close()
    capsys.readouterr()
    state = str(tmp_path / "state")
    told = ["usage", "--by", "agent", "--since", "2000-01-01", "--state", state]
    assert await asyncio.to_thread(run, told) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["main", "1", "0", "160", "50", "10", "20", "$0.000158"],
        ["other", "1", "0", "160", "50", "10", "20", "$0.000158"],
        ["total", "2", "0", "320", "100", "20", "40", "$0.000316"],
    ]  # fmt: skip
    assert await asyncio.to_thread(run, ["usage", "--since", "soon", "--state", state]) == 1


async def test_the_gateway_tells_of_it_over_http(tmp_path: Path) -> None:
    model = ScriptedModel(Reply("hi", usage=COUNTED))
    async with (
        served(tmp_path / "state", model=model) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        said = await http.post(f"/api/sessions/{KEY}/messages", params={"wait": 1}, json={"text": "hello"})
        assert said.json()["answer"] == "hi"
        found = (await http.get("/api/usage", params={"by": "session", "since": "today"})).json()
        [line] = found["lines"]
        assert (line["name"], line["calls"], line["tokens"]["cache_read"], line["failed"]) == (KEY, 1, 50, 0)
        assert found["total"]["tokens"] == line["tokens"]
        refused = await http.get("/api/usage", params={"by": "phase of the moon"})
        assert (refused.status_code, "session, agent" in refused.text) == (400, True)
