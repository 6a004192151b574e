"""A process dies on the way of an approval, a message or a program in the background: each happens once, or is told of.

As for sub-agents (`test_children_die.py`): whatever was acknowledged is there, nothing has happened twice.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import InputError
from holdfast.inbound.event import InboundEvent, LaneFull
from holdfast.model.client import ModelRequest
from holdfast.session.entries import text_of
from holdfast.store.embedded.faults import Point
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.tool.gate import GateSettings
from holdfast.tool.policy import Policy, Rules

MAIN, BOB = "agent:main:main", "agent:main:test:direct:bob"
FREE = GateSettings(Policy(Rules(allow=("*",))))


def acting(request: ModelRequest) -> Reply | str:
    """Calls what its newest message names, then says how that went."""
    newest = request.messages[-1]
    text = text_of(newest)
    if newest["role"] == "toolResult":
        return f"did it: {text[:20]}"
    if text == "message":
        return Reply(calls=[("message", {"text": "lunch?", "to": "test:bob"})])
    if text == "program":
        return Reply(calls=[("exec", {"argv": ["true"], "background": True})])
    if text == "write":
        return Reply(calls=[("write", {"path": "file", "text": "written"})])
    return "noted" if text.startswith("[Background program") else f"re: {text}"


def free_world(path: Path) -> World:
    return World(path, model=ScriptedModel(otherwise=acting), gate=FREE)


def asking_world(path: Path) -> World:
    return World(path, model=ScriptedModel(otherwise=acting), gate=GateSettings())


async def send(world: World) -> None:
    await world.settled(await world.inbound(BOB, "hello", key="k0", to="bob"))
    await world.inbound(MAIN, "message", key="k1")


async def start(world: World) -> None:
    await world.inbound(MAIN, "program", key="k1")


async def ask(world: World) -> None:
    first = await world.inbound(MAIN, "write", key="k1")
    await answer(world, first)


async def answer(world: World, first: str) -> None:
    """Somebody says yes to whatever is asked, until the input has ended."""

    async def look() -> bool | None:
        for one in await world.hf.approvals(pending=True):
            with suppress(InputError):  # it is of the attempt that died, and void by now
                await world.hf.answer_approval(one.id, yes=True, by="test")
        return (await world.hf.input(first)).settled or None

    await world._until(look, "a yes, and the end", 30)


MESSAGE: list[tuple[Point, int]] = [
    ("message.before_commit", 1), ("message.after_commit", 1), ("settle.after_sync", 2), ("settle.after_commit", 2),
    ("claim.after_record", 3), ("settle.after_commit", 3), ("delivery.after_started", 2),
]  # fmt: skip


@pytest.mark.parametrize(("point", "nth"), MESSAGE, ids=[f"{point}-{nth}" for point, nth in MESSAGE])
async def test_a_message_is_sent_once_and_known_once(tmp_path: Path, point: Point, nth: int) -> None:
    async with free_world(tmp_path) as world:
        assert (await world.crash_at(point, send, nth=nth, make=free_world)).died
        await send(world)
        await world.check_promises()
        assert [text for _, text in await world.said(BOB)] == ["hello", "re: hello", "lunch?"]
        copies = [one for one in world.channel.received if "lunch?" in one.text]
        assert [one.target for one in copies] == ["bob"]
        # Killed in a send (of this or of the answer, which go to different people), nobody can tell: then by a label.
        assert copies[0].label is None or point.startswith("delivery.")


PROGRAM: list[tuple[Point, int]] = [
    ("background.before_commit", 1), ("background.after_commit", 1), ("background.before_commit", 2),
    ("background.after_commit", 2), ("background.before_commit", 3), ("background.after_commit", 3),
    ("accept.after_commit", 2),
]  # fmt: skip


@pytest.mark.parametrize(("point", "nth"), PROGRAM, ids=[f"{point}-{nth}" for point, nth in PROGRAM])
async def test_the_end_of_a_program_is_told_once(tmp_path: Path, point: Point, nth: int) -> None:
    async with free_world(tmp_path) as world:
        assert (await world.crash_at(point, start, nth=nth, make=free_world)).died
        await start(world)
        await world.check_promises()
        programs = await world.hf.store.background()
        assert [one.state for one in programs] == ["announced"] * len(programs)
        told = [text for role, text in await world.said(MAIN) if role == "user" and text.startswith("[Background")]
        assert len(told) == len(programs) <= 1
        if (point, nth) != ("background.before_commit", 1):  # else the call was cut off before anything was started
            assert len(programs) == 1


APPROVAL: list[tuple[Point, int]] = [
    ("approval.before_commit", 1), ("approval.after_commit", 1), ("approval.before_commit", 2),
    ("approval.after_commit", 2), ("approval.before_commit", 3), ("approval.after_commit", 3),
]  # fmt: skip


@pytest.mark.parametrize(("point", "nth"), APPROVAL, ids=[f"{point}-{nth}" for point, nth in APPROVAL])
async def test_a_call_runs_after_a_yes_of_its_own_attempt_only(tmp_path: Path, point: Point, nth: int) -> None:
    async with asking_world(tmp_path) as world:
        assert (await world.crash_at(point, ask, nth=nth, make=asking_world)).died
        before = {one.id for one in await world.hf.approvals() if one.state != "used"}
        file = world.workspace / "file"
        assert not file.exists()  # also where the yes was used: the process died before the tool began
        first = await world.inbound(MAIN, "write", key="k1")
        await answer(world, first)
        await world.check_promises()
        used = [one for one in await world.hf.approvals() if one.state == "used"]
        assert all(one.id not in before for one in used)
        assert file.read_text() == "written"
        results = [text for role, text in await world.said(MAIN) if role == "toolResult"]
        assert results == ["made file (7 bytes)"]


@pytest.mark.promise("I8")
async def test_a_call_whose_attempt_died_has_its_result_although_others_were_answered_since(tmp_path: Path) -> None:
    async def begin(hf: holdfast.Holdfast, text: str, lane: str) -> holdfast.Turn:
        accepted = await hf.accept(InboundEvent(MAIN, {"content": text}, key=text, lane=lane))
        assert not isinstance(accepted, LaneFull)
        turn = await hf.claim(MAIN, lane=lane, input_id=accepted.input_id)
        assert isinstance(turn, holdfast.Turn)
        await turn.append_input([{"role": "user", "content": text}])
        return turn

    call = {"type": "toolCall", "id": "call_1", "name": "deploy", "arguments": {}}
    async with holdfast.open(tmp_path) as hf:
        turn = await begin(hf, "an event", "hook")
        await turn.append(holdfast.assistant([call], model="demo/demo", stop_reason="toolUse"))
    async with holdfast.open(tmp_path) as hf:
        turn = await begin(hf, "hello", "main")  # a user comes before a machine
        assert await turn.pending_calls() == []
        await turn.append(holdfast.assistant("hi", model="demo/demo"))
        await hf.close_turn(turn, None)
        turn = await begin(hf, "an event", "hook")
        assert [(one.call["id"], one.may_have_started) for one in await turn.pending_calls()] == [("call_1", True)]
        await turn.append_interrupted(call)
        assert await turn.pending_calls() == []
