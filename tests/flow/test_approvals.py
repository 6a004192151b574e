"""Calls that a person is asked about: nothing runs before the answer, and an answer is for one call of one turn."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.errors import InputError, UnknownInputError
from holdfast.inbound.event import InboundEvent, Route
from holdfast.lane.policy import LaneLimits
from holdfast.model.client import ToolSpec
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.tool.approval import Approval
from holdfast.tool.gate import GateSettings
from holdfast.tool.policy import Policy, Rules
from holdfast.turn.tools import Tool, ToolCall

MAIN = "agent:main:main"
GROUP = "agent:main:test:group:g1"


class Act:
    """A tool that changes something: it counts."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []
        self.tool = Tool(ToolSpec("act", "Acts.", {"type": "object"}), self.run)

    async def run(self, call: ToolCall) -> str:
        self.calls.append(call.arguments)
        return "acted"


def acting(*arguments: dict[str, object]) -> ScriptedModel:
    return ScriptedModel(*(Reply(calls=[("act", one)]) for one in arguments), "done")


def world_of(path: Path, act: Act, model: ScriptedModel, gate: GateSettings | None = None) -> World:
    return World(path, model=model, tools=[act.tool], gate=gate or GateSettings(), commands=True)


async def asked(world: World, count: int = 1) -> Approval:
    """The newest question, once so many wait."""

    async def look() -> list[Approval] | None:
        found = await world.hf.approvals(pending=True)
        return found if len(found) >= count else None

    return (await world._until(look, f"{count} questions"))[0]


async def results(world: World, session: str = MAIN) -> list[str]:
    return [text for role, text in await world.said(session) if role == "toolResult"]


async def test_a_call_that_changes_something_waits_for_a_yes_in_the_chat(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        first = await world.inbound(MAIN, "please act")
        question = await asked(world)
        [notice] = await world.saw("May this run?")
        assert (notice.target, '"x": 1' in notice.text, f"/approve {question.id}" in notice.text) == (
            "user",
            True,
            True,
        )
        assert act.calls == []
        await world.inbound(MAIN, f"/approve {question.id}")
        assert (await world.settled(first)).state == "answered"
        assert act.calls == [{"x": 1}]
        assert (await world.hf.approvals())[0].state == "used"
        assert await results(world) == ["acted"]
        told = "\n".join(line.text for line in (await world.hf.why(first)).lines)
        assert f"a person was asked whether act may run ({question.id}" in told
        assert f"{question.id}: allowed by /approve" in told


async def test_a_no_is_a_result_and_the_turn_goes_on(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        first = await world.inbound(MAIN, "please act")
        await world.inbound(MAIN, f"/deny {(await asked(world)).id}")
        assert (await world.settled(first)).answer == "done"
        assert act.calls == []
        [result] = await results(world)
        assert result.startswith("denied: /deny")


async def test_nobody_answers_and_the_model_reads_so(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1}), GateSettings(timeout_s=30)) as world:
        first = await world.inbound(MAIN, "please act")
        question = await asked(world)
        await world.pass_time(32)
        assert (await world.settled(first)).answer == "done"
        assert (await results(world))[0].startswith("nobody answered")
        assert (await world.hf.store.approval(question.id)).state == "expired"
        with pytest.raises(InputError, match="already expired"):
            await world.hf.answer_approval(question.id, yes=True, by="late")
        assert act.calls == []


async def test_a_yes_is_for_one_call_and_cannot_be_used_again(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1}, {"x": 2}, {"x": 2})) as world:
        first = await world.inbound(MAIN, "please act")
        seen: list[str] = []
        for _ in range(3):
            question = await asked(world)
            seen.append(question.id)
            await world.hf.answer_approval(question.id, yes=True, by="test")
            with pytest.raises(InputError, match="already"):
                await world.hf.answer_approval(question.id, yes=False, by="test")
            await used(world, question.id)
        assert (await world.settled(first)).answer == "done"
        assert len(set(seen)) == 3
        assert act.calls == [{"x": 1}, {"x": 2}, {"x": 2}]


async def used(world: World, approval: str) -> None:
    async def look() -> bool | None:
        return (await world.hf.store.approval(approval)).state == "used" or None

    await world._until(look, "its use")


async def test_a_yes_for_the_session_covers_the_same_call_until_the_conversation_begins_anew(tmp_path: Path) -> None:
    act = Act()
    model = ScriptedModel(*[Reply(calls=[("act", {"x": 1})]), "done"] * 3)
    async with world_of(tmp_path, act, model) as world:
        first = await world.inbound(MAIN, "act")
        await world.inbound(MAIN, f"/approve {(await asked(world)).id} session")
        await world.settled(first)
        assert (await world.settled(await world.inbound(MAIN, "again"))).answer == "done"
        assert len(act.calls) == 2
        await world.settled(await world.inbound(MAIN, "/new"))
        third = await world.inbound(MAIN, "again")
        await world.hf.answer_approval((await asked(world)).id, yes=False, by="test")
        assert (await world.settled(third)).answer == "done"
        assert len(act.calls) == 2


async def test_an_answer_to_a_question_of_a_turn_that_was_stopped_changes_nothing(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        first = await world.inbound(MAIN, "please act")
        question = await asked(world)
        await world.inbound(MAIN, "/stop")
        assert (await world.settled(first)).state == "cancelled"
        with pytest.raises(InputError, match="already void"):
            await world.hf.answer_approval(question.id, yes=True, by="late")
        await world.idle()
        assert act.calls == []
        assert await world.hf.approvals(pending=True) == []
        assert [role for role, _ in await world.said(MAIN)] == ["user", "assistant", "toolResult"]  # paired


async def test_only_the_conversation_itself_or_an_approver_may_answer(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        await world.inbound(MAIN, "please act")
        question = await asked(world)
        stranger = await world.inbound("agent:main:test:direct:mallory", f"/approve {question.id}", to="mallory")
        in_group = await world.inbound(GROUP, f"/approve {question.id}", to="group")
        for one in (stranger, in_group):
            assert "that may be answered from here" in ((await world.settled(one)).answer or "")
        assert (await world.hf.store.approval(question.id)).state == "pending"
        with pytest.raises(UnknownInputError):
            await world.hf.answer_approval("ap_nothing", yes=True, by="test")
        await world.hf.answer_approval(question.id, yes=False, by="test")
        await world.idle()
        assert act.calls == []


@pytest.mark.parametrize("lane", ["hook", "cron", "heartbeat", "other"])
async def test_nobody_is_asked_in_a_lane_that_may_only_read(tmp_path: Path, lane: str) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        first = await world.inbound("hook:h1", "please act", lane=lane)
        assert (await world.settled(first)).answer == "done"
        assert (act.calls, await world.hf.approvals()) == ([], [])
        assert (await results(world, "hook:h1"))[0].startswith("denied: act was not run")
        assert [tool.name for tool in world.model.requests[0].tools if tool.name == "act"] == []  # nor is it offered


async def test_what_a_group_may_do_is_asked_of_an_operator_and_not_of_the_group(tmp_path: Path) -> None:
    act = Act()
    policy = Policy(trusted_groups=(GROUP,))
    async with world_of(tmp_path, act, acting({"x": 1}), GateSettings(policy)) as world:
        first = await world.inbound(GROUP, "please act", to="group")
        question = await asked(world)
        await world.saw("May this run?")
        await world.inbound(GROUP, f"/approve {question.id}", to="group")
        await world.settled(first)
        assert act.calls == [{"x": 1}]
    other = Act()
    rules = Policy(lanes={"hook": Rules(ask=("act",))})
    gate = GateSettings(rules, notice_route=Route("test", "operator"))
    async with world_of(tmp_path / "2", other, acting({"x": 2}), gate) as world:
        first = await world.inbound("hook:h1", "please act", lane="hook", to="somebody")
        question = await asked(world)
        assert [one.target for one in await world.saw("May this run?")] == ["operator"]
        await world.hf.answer_approval(question.id, yes=True, by="operator")
        await world.settled(first)
        assert other.calls == [{"x": 2}]


async def test_a_question_outlives_a_restart_as_a_new_one_of_the_next_attempt(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        first = await world.inbound(MAIN, "please act")
        before = await asked(world)
        await world.restart()
        after = await asked(world)
        assert (await world.hf.store.approval(before.id)).state == "void"
        assert after.id != before.id
        with pytest.raises(InputError, match="already void"):
            await world.hf.answer_approval(before.id, yes=True, by="late")
        assert act.calls == []
        await world.hf.answer_approval(after.id, yes=True, by="test")
        assert (await world.settled(first)).answer == "done"
        assert act.calls == [{"x": 1}]
        assert await results(world) == ["acted"]
        await world.check_promises()


async def test_a_slot_is_lent_while_a_person_thinks(tmp_path: Path) -> None:
    act = Act()
    model = ScriptedModel(Reply(calls=[("act", {})]), "other", "done")
    async with World(
        tmp_path, model=model, tools=[act.tool], gate=GateSettings(), limits=LaneLimits(widths={"main": 1})
    ) as world:
        first = await world.inbound(MAIN, "please act")
        question = await asked(world)
        second = await world.inbound("agent:main:test:direct:b", "hello", to="b")
        assert (await world.settled(second)).answer == "other"
        await world.hf.answer_approval(question.id, yes=True, by="test")
        assert (await world.settled(first)).answer == "done"
        assert act.calls == [{}]


async def test_secrets_are_in_no_question_no_result_and_no_transcript(tmp_path: Path) -> None:
    canary = "canary-5f2a9c71d3"

    async def leak(call: ToolCall) -> str:
        return f"the key is {canary}, and {call.arguments['key']}"

    tool = Tool(ToolSpec("leak", "Leaks.", {"type": "object"}), leak)
    model = ScriptedModel(Reply(calls=[("leak", {"key": canary})]), "done")
    async with World(tmp_path, model=model, tools=[tool], gate=GateSettings(), secrets=[canary]) as world:
        with world.hf.events.subscribe(session=MAIN) as events:
            first = await world.inbound(MAIN, "please leak")
            question = await asked(world)
            assert canary not in question.shown
            await world.hf.answer_approval(question.id, yes=True, by="test")
            await world.settled(first)
            await world.idle()
            told: list[str] = []
            while (event := await events.next(timeout_s=0.01)) is not None:
                told.append(str(event))
        assert "[redacted]" in (await results(world))[0]
        assert canary not in "".join(told)
        assert canary not in "".join(one.text for one in world.channel.received)
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
        assert kept == []


async def test_many_questions_of_one_session_do_not_pile_up(tmp_path: Path) -> None:
    act = Act()
    async with world_of(tmp_path, act, acting({"x": 1})) as world:
        event = InboundEvent(MAIN, {"content": "please act"}, source="world", waits=True)
        await world.hf.accept(event)
        question = await asked(world)
        again = await world.hf.approvals(pending=True)
        assert [one.id for one in again] == [question.id]
        await world.hf.answer_approval(question.id, yes=False, by="test")
        await asyncio.wait_for(world.idle(), 60)


async def test_the_command_line_lists_shows_and_answers(tmp_path: Path) -> None:
    act = Act()

    async def run(*words: str) -> str:
        command = [sys.executable, "-m", "holdfast", "--state", str(tmp_path / "state"), "approvals", *words]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        return out.decode()

    clock = VirtualClock(datetime.now(UTC))  # the command has the machine's
    model = acting({"x": 1})
    async with World(tmp_path, model=model, tools=[act.tool], gate=GateSettings(), clock=clock) as world:
        first = await world.inbound(MAIN, "please act")
        question = await asked(world)
        assert question.id in await run("list")
        assert '{"x": 1}' in await run("show", question.id)
        assert act.calls == []
        assert "approved" in await run("approve", question.id)
        await world.pass_time(2)  # another process has answered: seen at the next look
        assert (await world.settled(first)).answer == "done"
        assert act.calls == [{"x": 1}]
