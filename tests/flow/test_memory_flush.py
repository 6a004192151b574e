"""Before a conversation is shortened its agent may note what should be known later: in one folder, once, in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.context import summary
from holdfast.context.memory import FLUSH_TYPE
from holdfast.context.settings import CompactionSettings
from holdfast.errors import ProviderError
from holdfast.inbound.event import LaneFull
from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.lane.queue import QueueSettings
from holdfast.model.client import ModelRequest
from holdfast.session.entries import text_of
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.tool.gate import GateSettings
from holdfast.tool.policy import Policy, Rules

SESSION = "agent:main:main"
NOTES = "memory/2026-01-01.md"
Act = Callable[[ModelRequest], Reply | str]


def is_flush(request: ModelRequest) -> bool:
    return any("about to be shortened" in text_of(one) for one in request.messages)


class Agent:
    """Answers in one word, summarises in two, and does in a memory flush what it is told to."""

    def __init__(self, *steps: Reply | str | Exception) -> None:
        self.steps = list(steps)
        self.flushes: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Reply | str:
        if request.system == summary.SYSTEM:
            return "In short."
        if not is_flush(request):
            return "yes"
        self.flushes.append(request)
        step = self.steps.pop(0) if self.steps else "NO_REPLY"
        if isinstance(step, Exception):
            raise step
        return step


def world_of(path: Path, agent: Act, *, policy: Policy | None = None, **options: Any) -> World:
    gate = GateSettings(policy=policy or Policy())
    return World(path, model=ScriptedModel(otherwise=agent), gate=gate, queue=QueueSettings(debounce_ms=0), **options)


def written(world: World) -> str:
    found = sorted((world.workspace / "memory").glob("*")) if (world.workspace / "memory").is_dir() else []
    return "\n".join(one.read_text() for one in found)


def write(path: str, text: str) -> tuple[str, dict[str, str]]:
    return ("write", {"path": path, "text": text})


async def asked_for(world: World, session: str = SESSION) -> str:
    admission = await ask_for_compaction(world.hf, session, by="a test")
    assert not isinstance(admission, LaneFull)
    return admission.input_id


async def shortened(world: World, *, session: str = SESSION, talk: int = 2) -> str:
    """Talk, have it shortened by an operator, and what `why` tells of that."""
    for number in range(talk):
        await world.settled(await world.inbound(session, f"{number} " + "word " * 200))
    view = await world.settled(await asked_for(world, session))
    assert view.state == "answered", await world.story(view.id)
    return await world.story(view.id)


async def audit(world: World, session: str = SESSION) -> list[dict[str, Any]]:
    return [line for line in await world.transcript(session) if line.get("customType") == FLUSH_TYPE]


async def test_notes_are_written_before_the_summary_and_nobody_hears_of_it(tmp_path: Path) -> None:
    agent = Agent(Reply(calls=[write(NOTES, "likes tea")]), "NO_REPLY")
    async with world_of(tmp_path, agent) as world:
        story = await shortened(world)
        assert written(world) == "likes tea"
        assert "has noted what it wanted to, in 1 calls" in story
        assert [tool.name for tool in agent.flushes[0].tools] == ["write", "edit", "read"]
        lines = await audit(world)
        assert [line["holdfast"]["visibility"] for line in lines] == ["audit"] * 3
        kinds = [line["type"] for line in await world.transcript(SESSION)]
        assert kinds[-4:] == ["custom", "custom", "custom", "compaction"]
        await world.settled(await world.inbound(SESSION, "and now?"))
        assert "likes tea" not in str(world.model.requests[-1].messages)
        await world.idle()
        assert [one.text for one in world.channel.received] == ["yes"] * 3
        await world.check_promises()


@pytest.mark.parametrize(
    "path",
    ["AGENTS.md", "memory", "memory/../MEMORY.md", "/etc/passwd", "memory/run.sh", "../memory/x.md", "memory/ln/x.md"],
)
async def test_nothing_is_written_outside_the_folder_for_notes(tmp_path: Path, path: str) -> None:
    agent = Agent(Reply(calls=[write(path, "mine"), ("edit", {"path": path, "old": "a", "new": "b"})]))
    async with world_of(tmp_path, agent) as world:
        (world.workspace / "memory").mkdir(parents=True)
        (world.workspace / "AGENTS.md").write_text("a")
        (world.workspace / "memory" / "ln").symlink_to("..")
        await shortened(world)
        results = [line["data"] for line in await audit(world) if "result" in line["data"]]
        assert [one["is_error"] for one in results] == [True, True]
        assert (world.workspace / "AGENTS.md").read_text() == "a"
        assert sorted(one.name for one in world.workspace.rglob("*")) == ["AGENTS.md", "ln", "memory"]


async def test_another_tool_is_not_there(tmp_path: Path) -> None:
    agent = Agent(Reply(calls=[("exec", {"command": ["touch", "here"]})]))
    async with world_of(tmp_path, agent) as world:
        await shortened(world)
        [result] = [line["data"] for line in await audit(world) if "result" in line["data"]]
        assert "there is no tool 'exec'" in result["result"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(Rules(deny=("@change",))), "write is denied for everybody"),
        (Policy(Rules(ask=("write", "edit"))), "write is to be asked for for everybody"),
        (Policy(Rules(deny=("write", "edit"))), "write is denied for everybody"),
    ],
)
async def test_what_the_policy_holds_back_is_not_used_and_the_reason_is_told(
    tmp_path: Path, policy: Policy, reason: str
) -> None:
    agent = Agent(Reply(calls=[write(NOTES, "mine")]))
    async with world_of(tmp_path, agent, policy=policy) as world:
        assert f"memory flush: {reason}" in await shortened(world)
        assert agent.flushes == []


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        ("agent:main:slack:group:C1", "a group"),
        ("agent:main:cron:nightly", "no conversation with a person"),
        ("hook:deploy", "no conversation with a person"),
    ],
)
async def test_where_others_speak_nothing_is_noted(tmp_path: Path, session: str, reason: str) -> None:
    agent = Agent(Reply(calls=[write(NOTES, "mine")]))
    async with world_of(tmp_path, agent) as world:
        assert reason in await shortened(world, session=session)
        assert agent.flushes == []


async def test_without_a_tool_to_write_with_it_is_skipped_and_the_reason_told(tmp_path: Path) -> None:
    agent = Agent()
    model = ScriptedModel(otherwise=agent)
    async with World(tmp_path, model=model, queue=QueueSettings(debounce_ms=0)) as world:
        assert "memory flush: the agent has no workspace" in await shortened(world)
    async with world_of(tmp_path / "off", agent, compaction=CompactionSettings(memory_flush=False)) as world:
        assert "it is turned off" in await shortened(world)
    assert agent.flushes == []


async def test_a_users_message_ends_it_and_it_is_begun_anew_as_long_as_nothing_was_written(tmp_path: Path) -> None:
    began = asyncio.Event()
    agent = Agent(Reply("late", gate=asyncio.Event()), Reply(calls=[write(NOTES, "likes tea")]), "NO_REPLY")

    def answers(request: ModelRequest) -> Reply | str:
        if is_flush(request):
            began.set()
        return agent(request)

    async with world_of(tmp_path, answers) as world:
        for number in range(2):
            await world.settled(await world.inbound(SESSION, f"{number} " + "word " * 200))
        asked = await asked_for(world)
        await began.wait()
        urgent = await world.inbound(SESSION, "urgent")
        waited = 0
        while not (await world.hf.input(urgent)).settled and waited < 300:
            await world.pass_time(1)
            waited += 1
        assert (await world.hf.input(urgent)).answer == "yes"
        await world.idle(passing_s=30)
        story = await world.story(asked)
        assert "memory flush: gave way" in story, story
        assert len(agent.flushes) == 3
        assert written(world) == "likes tea"
        assert [line["type"] for line in await world.transcript(SESSION)].count("compaction") == 1


async def test_each_compaction_has_its_own(tmp_path: Path) -> None:
    agent = Agent(Reply(calls=[write(NOTES, "one")]), "NO_REPLY", Reply(calls=[write(NOTES, "two")]), "NO_REPLY")
    async with world_of(tmp_path, agent) as world:
        await shortened(world)
        assert len(agent.flushes) == 2
        await shortened(world)
        assert len(agent.flushes) == 4
        assert written(world) == "two"


async def test_a_model_that_fails_costs_the_notes_and_not_the_compaction(tmp_path: Path) -> None:
    agent = Agent(ProviderError("no such model", status=404))
    async with world_of(tmp_path, agent) as world:
        story = await shortened(world)
        assert "memory flush: no model answered" in story
        assert await audit(world) == []


async def test_a_turn_that_dies_behind_a_note_does_not_ask_for_it_again(tmp_path: Path) -> None:
    """The gateway is stopped while the summary is being written; the next one shortens without another flush."""
    began, held = asyncio.Event(), asyncio.Event()
    agent = Agent(Reply(calls=[write(NOTES, "likes tea")]), "NO_REPLY", Reply(calls=[write(NOTES, "twice")]))

    def answers(request: ModelRequest) -> Reply | str:
        if request.system == summary.SYSTEM and not began.is_set():
            began.set()
            return Reply("late", gate=held)
        return agent(request)

    async with world_of(tmp_path, answers) as world:
        for number in range(2):
            await world.settled(await world.inbound(SESSION, f"{number} " + "word " * 200))
        asked = await asked_for(world)
        await began.wait()
        await world.restart()
        assert (await world.settled(asked)).state == "answered"
        assert len(agent.flushes) == 2
        assert written(world) == "likes tea"
        assert "it was done before" in await world.story(asked)
