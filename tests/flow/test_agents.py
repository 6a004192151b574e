"""Agents with settings of their own: how many turns at once, which tools, where those work."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from holdfast.config import Config
from holdfast.gateway.app import agents_of
from holdfast.lane.policy import LaneLimits, Waiting, choose, slot_of
from holdfast.model.client import ToolSpec
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.runner import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

NOTHING = {"type": "object", "properties": {}}
NARROW = LaneLimits(widths={"main": 4}, agents={"coder": {"main": 1}})


def waiting(number: int, agent: str) -> Waiting:
    return Waiting(number, f"in_{number}", f"t_{number}", "main", 0.0, agent=agent)


def test_an_agent_that_is_full_keeps_nobody_else_from_starting() -> None:
    line = [*(waiting(n, "coder") for n in range(6)), *(waiting(n, "main") for n in range(6, 10))]
    assert [one.id for one in choose(line, {}, NARROW, solo_running=False)] == ["in_0", "in_6", "in_7", "in_8"]
    running = {"main": 1, slot_of("main", "coder"): 1}
    assert [one.id for one in choose(line, running, NARROW, solo_running=False)] == ["in_6", "in_7", "in_8"]
    assert [one.id for one in choose(line, {}, LaneLimits(widths={"main": 2}), solo_running=False)] == ["in_0", "in_1"]


async def test_an_agents_width_counts_over_all_processes_and_others_go_past_it(tmp_path: Path) -> None:
    async with World(tmp_path, limits=NARROW) as world:
        world.model.hold()
        coders = [await world.inbound(f"agent:coder:slack:direct:{n}", f"coder {n}") for n in range(3)]
        other = await world.inbound("agent:main:slack:direct:9", "somebody else")
        await world.model.asked(2)
        running = {view.id for view in await world.hf.inputs(state="running")}
        assert running == {coders[0], other}
        world.model.release()
        for one in (*coders, other):
            assert (await world.settled(one)).state == "answered"
        await world.check_promises()


async def test_a_claim_beside_the_worker_keeps_to_the_agents_width_too(tmp_path: Path) -> None:
    async with World(tmp_path, limits=NARROW) as world:
        world.model.hold()
        await world.inbound("agent:coder:slack:direct:1", "one")
        await world.model.asked(1)
        with pytest.raises(holdfast.SessionBusyError, match="1 of 1 slots of agent coder taken"):
            await world.hf.claim("agent:coder:slack:direct:2", wait_s=0)
        async with world.hf.turn("agent:main:main", wait_s=0):
            pass
        world.model.release()


async def test_an_agent_is_shown_its_own_tools_and_can_call_no_other(tmp_path: Path) -> None:
    seen: list[ToolCall] = []

    async def run(call: ToolCall) -> str:
        seen.append(call)
        return "done"

    tools = [Tool(ToolSpec(name, "Does it.", NOTHING), run) for name in ("allowed", "forbidden")]
    agent = AgentSettings(model="scripted/model", tools=("allowed", "unheard-of"), workspace="work/here")
    model = ScriptedModel(Reply(calls=[("forbidden", {}), ("allowed", {})]), "finished")
    async with World(tmp_path, model=model, tools=tools, agent=agent) as world:
        view = await world.settled(await world.inbound("agent:coder:main", "try"))
        assert view.answer == "finished"
        assert [tool.name for tool in model.requests[0].tools] == ["allowed"]
        results = [
            entry["message"]["content"][0]["text"]
            for entry in await world.transcript("agent:coder:main")
            if entry["type"] == "message" and entry["message"]["role"] == "toolResult"
        ]
        assert results == ["there is no tool 'forbidden'; there are: allowed", "done"]
        assert [(call.name, call.workspace) for call in seen] == [("allowed", "work/here")]


@pytest.mark.parametrize(("tools", "expected"), [(None, None), ([], ()), (["now"], ("now",))])
def test_what_an_agent_leaves_unset_is_filled_in_at_one_place(
    tools: list[str] | None, expected: tuple[str, ...] | None
) -> None:
    table = {"model": "openai/gpt-5", "widths": {"main": 2}, "dm_scope": "main", "fence_mode": "warn"}
    config = Config.model_validate({"agents": {"coder": table | ({} if tools is None else {"tools": tools})}})
    coder, other = config.agent("coder"), config.agent("other")
    assert (coder.model, coder.fallbacks, coder.fence_mode, coder.dm_scope) == ("openai/gpt-5", (), "warn", "main")
    assert (other.model, other.fence_mode, other.dm_scope, other.tools) == ("demo/demo", "strict", "per-peer", None)
    assert config.limits().agent_width("coder", "main") == 2
    assert config.limits().agent_width("other", "main") is None
    settings = agents_of(config, "state")("agent:coder:main")
    assert (settings.tools, settings.workspace) == (expected, str(Path("state/agents/coder/workspace")))
