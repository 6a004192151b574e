"""A user who meets a machine's turn waits for its next step, not for its end; and runs that begin afresh."""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.lane.policy import YIELDS_MAX
from holdfast.model.client import ToolSpec
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World, echo
from holdfast.turn.tools import Tool

KEY = "agent:main:main"


class Gate:
    """A tool that tells that it runs, and goes on when it is let."""

    def __init__(self) -> None:
        self.runs = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.calls = 0
        self.tool = Tool(ToolSpec("look", "Looks.", {"type": "object"}), self.run)

    async def run(self, _call: object) -> str:
        self.calls += 1
        self.runs.set()
        await self.goes_on.wait()
        self.runs.clear()
        self.goes_on.clear()
        return "seen"


def call(world: World) -> None:
    """The next answer calls the tool."""
    world.model.script(Reply(calls=[("look", {})]))


async def test_a_user_overtakes_a_machine_at_its_next_step_and_the_machine_goes_on_from_there(tmp_path: Path) -> None:
    gate = Gate()
    async with World(tmp_path, tools=[gate.tool]) as world:
        call(world)
        machine = await world.inbound(KEY, "tick", lane="heartbeat", to=None)
        await gate.runs.wait()
        user = await world.inbound(KEY, "hello")
        gate.goes_on.set()
        assert (await world.settled(user)).answer == "re: hello"
        seen = await world.settled(machine)
        assert (seen.state, seen.attempts) == ("answered", 2)
        assert gate.calls == 1, "what it had done before was not done again"
        told = [line.text for line in (await world.hf.why(machine)).lines]
        assert any("gave way" in text for text in told), told


async def test_a_machine_in_a_busy_chat_gives_way_so_often_and_then_ends(tmp_path: Path) -> None:
    gate = Gate()
    async with World(tmp_path, tools=[gate.tool]) as world:
        machine = await world.inbound(KEY, "tick", lane="cron", to=None)
        call(world)
        for _ in range(YIELDS_MAX):
            await gate.runs.wait()
            user = await world.inbound(KEY, "hello")
            world.model.script("Hello!")
            call(world)
            gate.goes_on.set()
            assert (await world.settled(user)).answer == "Hello!"
        await gate.runs.wait()
        user = await world.inbound(KEY, "hello again")
        world.model.script("nothing to report", "Hello!")
        gate.goes_on.set()
        assert (await world.settled(machine)).answer == "nothing to report"
        assert (await world.settled(user)).answer == "Hello!"
        assert gate.calls == YIELDS_MAX + 1


async def test_a_run_that_begins_afresh_is_shown_nothing_of_the_runs_before_it(tmp_path: Path) -> None:
    async with World(tmp_path, model=ScriptedModel(otherwise=echo)) as world:
        for text in ("first", "second"):
            event = InboundEvent("agent:main:cron:job", {"content": text, "context": "fresh"}, lane="cron")
            accepted = await world.hf.accept(event)
            assert isinstance(accepted, Accepted)
            assert (await world.settled(accepted.input_id)).answer == f"re: {text}"
        shown = world.model.requests[-1].messages
        assert [message["role"] for message in shown] == ["user"]
