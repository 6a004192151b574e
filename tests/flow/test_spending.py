"""Limits on what models may cost: nobody is asked past them, whoever asked is told, and two processes keep to them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import holdfast
from holdfast.clock import epoch_ms
from holdfast.config.spending import SpendingConfig
from holdfast.model.prices import Prices
from holdfast.model.spending import Caps, Guard, SpendingLimits, guards_for, span_of
from holdfast.model.usage import ModelCall, Price, Tokens, call_id, ended
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.metering import Metering
from holdfast.turn.runner import AgentSettings

KEY = "agent:main:main"
DOLLAR = 1_000_000
PRICE = Price(0, 1000 * DOLLAR, 0, 0)  # the answer is guessed at 1,000 tokens: a dollar
ANSWER = {"input": 1, "output": 1000}


def metering(limits: SpendingLimits) -> Metering:
    return Metering(Prices({"scripted/model": PRICE, "scripted/other": PRICE}), limits)


async def test_at_a_limit_nobody_is_asked_and_the_sender_is_told_when_it_opens(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: Reply("hi", usage=ANSWER))
    limits = SpendingLimits(all=Caps(day=2 * DOLLAR))
    agent = AgentSettings("scripted/model", fallbacks=("scripted/other",))
    async with World(tmp_path, model=model, agent=agent, metering=metering(limits)) as world:
        for _ in range(2):
            assert (await world.settled(await world.inbound(KEY, "hello"))).state == "answered"
        third = await world.settled(await world.inbound(KEY, "hello"))
        assert (third.state, third.error, len(model.requests)) == ("failed", "SpendingLimitError", 2)
        tomorrow = world.clock.now().date().toordinal() + 1
        opens = datetime.fromordinal(tomorrow).strftime("%Y-%m-%d at 00:00 UTC")
        await world.saw("the spending limit for all per day, $2.00, is reached: $2.00 are spent")
        await world.saw(f"It opens again on {opens}")
        # It is no model's failure: none is left alone for it, and none was tried in place of it.
        assert (await world.hf.store.models()).cooldowns == []
        story = [line.text for line in (await world.hf.why(third.id)).lines]
        assert any("spending limit" in line for line in story)
        assert not [line for line in story if "gave no answer" in line or "candidate" in line]


async def test_machines_stop_before_people_do(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: Reply("hi", usage=ANSWER))
    limits = SpendingLimits(all=Caps(month=2 * DOLLAR), users_share=0.5)
    agent = AgentSettings("scripted/model")
    async with World(tmp_path, model=model, agent=agent, metering=metering(limits)) as world:
        assert (await world.settled(await world.inbound("agent:main:cron:a", "go", lane="cron"))).state == "answered"
        held = await world.settled(await world.inbound("agent:main:cron:b", "go", lane="cron"))
        assert (held.error, "$1.00 of it are kept for people" in str(held.detail)) == ("SpendingLimitError", True)
        assert (await world.settled(await world.inbound(KEY, "hello"))).state == "answered"


async def test_a_turn_has_a_limit_of_its_own(tmp_path: Path) -> None:
    endless = Reply(calls=[("no_such_tool", {})], usage=ANSWER)
    model = ScriptedModel(otherwise=lambda _: endless)
    agent = AgentSettings("scripted/model")
    async with World(tmp_path, model=model, agent=agent, metering=metering(SpendingLimits(turn=3 * DOLLAR))) as world:
        view = await world.settled(await world.inbound(KEY, "hello"))
        assert (view.error, len(model.requests)) == ("SpendingLimitError", 3)
        assert "the spending limit of one turn, $3.00" in str(view.detail)


async def test_it_warns_once_before_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(otherwise=lambda _: Reply("hi", usage=ANSWER))
    limits = SpendingLimits(agents={"main": Caps(day=4 * DOLLAR)}, warn_at=0.5)
    agent = AgentSettings("scripted/model")
    async with World(tmp_path, model=model, agent=agent, metering=metering(limits)) as world:
        for _ in range(4):
            await world.settled(await world.inbound(KEY, "hello"))
    told = [one.getMessage() for one in caplog.records if one.getMessage().startswith("spending for")]
    assert told == ["spending for agent main per day is at $2.00 of $4.00"]


def call(turn: str, number: int, at_ms: int) -> ModelCall:
    return ModelCall(
        call_id(turn, number), turn, KEY, "main", "main", None, "x/y", "", 1, "answer", "begun", at_ms,
        tokens=Tokens(output=10), cost=10, is_estimate=True,
    )  # fmt: skip


async def test_two_processes_pass_a_limit_by_what_calls_under_way_cost_above_the_guess(state: Path) -> None:
    """Of forty calls guessed at 10 a limit of 100 lets ten begin, whoever makes them. If each then costs 13, that is 30
    above, and no further one begins.
    """
    at_ms = epoch_ms(datetime(2026, 5, 22, tzinfo=UTC))
    guards = guards_for(SpendingLimits(all=Caps(day=100)), call("t", 1, at_ms), is_machine=False)
    async with holdfast.open(state) as one, holdfast.open(state) as other:
        made = [call(f"turn_{n}", 1, at_ms + n) for n in range(40)]
        said = await asyncio.gather(
            *((one if n % 2 else other).store.begin_call([each], guards) for n, each in enumerate(made))
        )
        begun = [each for each, allowance in zip(made, said, strict=True) if allowance.held is None]
        assert len(begun) == 10
        over = [ended(each, "done", at_ms + 99, tokens=Tokens(output=13), cost=13) for each in begun]
        late = await one.store.begin_call([*over, call("turn_x", 1, at_ms)], guards)
        assert (late.held, late.spent) == (guards[0], 130)
        tomorrow = call("turn_y", 1, at_ms + 86_400_000)
        again = guards_for(SpendingLimits(all=Caps(day=100)), tomorrow, is_machine=False)
        assert (await other.store.begin_call([tomorrow], again)).held is None


async def test_a_limit_that_is_set_later_knows_what_was_spent_before(state: Path) -> None:
    at_ms = epoch_ms(datetime(2026, 5, 22, tzinfo=UTC))
    async with holdfast.open(state) as hf:
        for n in range(3):
            await hf.store.begin_call([call(f"turn_{n}", 1, at_ms)])
        for limits in (SpendingLimits(session=Caps(day=35)), SpendingLimits(lanes={"main": Caps(month=35)})):
            guards = guards_for(limits, call("t", 1, at_ms), is_machine=False)
            assert (await hf.store.begin_call([call("turn_3", 1, at_ms)], guards)).spent == 30


def test_limits_from_the_configuration() -> None:
    config = SpendingConfig.model_validate(
        {"day": 5, "session_month": 1.5, "turn": 0.25, "agents": {"main": {"day": 2}}, "timezone": "Europe/Berlin"}
    )
    limits = config.limits()
    one = call("turn_a", 1, epoch_ms(datetime(2026, 3, 29, 12, tzinfo=UTC)))
    found = guards_for(limits, one, is_machine=False)
    assert [(guard.scope, guard.period, guard.limit) for guard in found] == [
        ("all", "day", 5 * DOLLAR), ("agent:main", "day", 2 * DOLLAR),
        (f"session:{KEY}", "month", 1_500_000), ("turn:turn_a", "turn", 250_000),
    ]  # fmt: skip
    day: Guard = found[0]
    assert day.until_ms - day.from_ms == 23 * 3_600_000  # the clocks went forward
    assert span_of("month", one.began_at_ms, ZoneInfo("Europe/Berlin"))[1] == epoch_ms(
        datetime(2026, 3, 31, 22, tzinfo=UTC)
    )
    with pytest.raises(ValueError, match="no time zone"):
        SpendingConfig.model_validate({"timezone": "Mars/Base"})
