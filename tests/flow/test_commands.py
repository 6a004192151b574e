"""Slash commands in a chat: at once, whatever runs; once, whoever dies; and never in the transcript."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.inbound.commands import COMMANDS, read_command
from holdfast.lane.queue import QueueSettings
from holdfast.testing.model import ScriptedModel
from holdfast.testing.world import World, echo

SESSION = "agent:main:main"


def commanding(path: Path) -> World:
    return World(path, model=ScriptedModel(otherwise=echo), queue=QueueSettings(debounce_ms=0), commands=True)


async def told(world: World, text: str) -> str:
    view = await world.settled(await world.inbound(SESSION, text))
    assert view.state == "answered", view
    assert view.answer is not None
    return view.answer


@pytest.mark.parametrize("text", ["hello", "/etc/hosts is gone", "see /status", "/", "/1", "//", "/Status", "/a.b"])
def test_what_only_looks_like_a_command_is_a_message(text: str) -> None:
    assert read_command("main", {"content": text}) is None


@given(st.sampled_from(["cron", "hook", "heartbeat"]), st.sampled_from(sorted(COMMANDS)))
def test_machines_give_no_commands(lane: str, name: str) -> None:
    assert read_command(lane, {"content": f"/{name}"}) is None


def test_a_client_with_a_history_of_its_own_gives_no_commands() -> None:
    assert read_command("main", {"messages": [{"role": "user", "content": "/stop"}]}) is None


async def test_a_command_acts_at_once_although_a_turn_runs_and_the_queue_is_full(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SESSION, "a long thing")
        await world.model.asked(1)
        waiting = [await world.inbound(SESSION, f"number {n}") for n in range(20)]
        status = await told(world, "/status")
        assert f"answering {first}" in status
        assert "waiting: 20" in status
        assert await told(world, "/stop") == "Stopping 1, and 20 that waited are taken back."
        await world.idle(passing_s=5)
        states = {(await world.hf.input(one)).state for one in (first, *waiting)}
        assert states == {"cancelled"}
        assert await told(world, "/stop") == "There is nothing to stop."


async def test_commands_and_their_answers_are_delivered_and_never_in_the_transcript(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        await world.settled(await world.inbound(SESSION, "hello"))
        await told(world, "/queue collect cap:3")
        await world.idle()
        assert [one.text for one in world.channel.received] == [
            "re: hello", "queue: collect debounce:0s cap:3 drop:summarize",
        ]  # fmt: skip
        assert await world.said(SESSION) == [("user", "hello"), ("assistant", "re: hello")]
        assert await told(world, "/queue") == "queue: collect debounce:0s cap:3 drop:summarize"
        assert await told(world, "/queue default") == "queue: steer debounce:0s cap:20 drop:summarize"


async def test_mistakes_and_unknown_commands_are_explained(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        assert await told(world, "/why") == "nothing was said here before"
        assert "'sometimes' is not understood; there are steer, followup" in await told(world, "/queue sometimes")
        unknown = await told(world, "/dance")
        assert unknown.startswith("There is no command /dance.")
        assert all(f"/{name}: " in unknown for name in COMMANDS)
        assert "no input 'in_nothing'" in await told(world, "/why in_nothing")


async def test_why_tells_of_this_session_only(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        other = await world.inbound("agent:main:other", "a secret")
        await world.settled(other)
        mine = await world.inbound(SESSION, "hello")
        await world.settled(mine)
        assert (await told(world, "/why")).startswith(f"{mine}: answered")
        assert await told(world, f"/why {other}") == f"{other!r} is not of this session"


async def test_a_model_is_chosen_and_given_back(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        assert await told(world, "/model") == "model: scripted/model"
        assert await told(world, "/model scripted/other") == "model: scripted/other (user: chosen)"
        await world.settled(await world.inbound(SESSION, "hello"))
        assert world.model.requests[-1].model == "scripted/other"
        assert "scripted/other" in await told(world, "/status")
        await told(world, "/new")
        assert await told(world, "/model") == "model: scripted/other (user: chosen)"
        assert await told(world, "/model default") == "model: scripted/model"
        assert "takes one model" in await told(world, "/model a/b c/d")
        assert "provider/model" in await told(world, "/model nonsense")


async def test_new_begins_a_conversation_behind_which_the_model_sees_nothing(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        await world.settled(await world.inbound(SESSION, "before"))
        assert "new conversation" in await told(world, "/new")
        await world.settled(await world.inbound(SESSION, "after"))
        assert [message["role"] for message in world.model.requests[-1].messages] == ["user"]
        assert [text for _, text in await world.said(SESSION)] == ["before", "re: before", "after", "re: after"]


async def test_new_waits_for_the_turn_that_runs_and_is_never_steered_into_it(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SESSION, "before")
        await world.model.asked(1)
        new = await world.inbound(SESSION, "/new")
        assert (await world.hf.input(new)).state == "queued"
        world.model.release()
        await world.settled(first)
        assert (await world.settled(new)).state == "answered"


async def test_reset_stops_the_turn_that_runs_and_whoever_asked_is_told(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SESSION, "before")
        await world.model.asked(1)
        reset = await world.inbound(SESSION, "/reset")
        stopped = await world.settled(first)
        assert (stopped.state, stopped.detail) == ("cancelled", "cancelled by /reset")
        world.model.release()
        assert (await world.settled(reset)).state == "answered"
        await world.settled(await world.inbound(SESSION, "after"))
        assert [message["role"] for message in world.model.requests[-1].messages] == ["user"]
        await world.idle(passing_s=5)
        assert "Stopped." in [message.text for message in world.channel.received]


async def test_reset_leaves_a_machines_turn_alone(tmp_path: Path) -> None:
    async with commanding(tmp_path) as world:
        world.model.hold()
        job = await world.inbound(SESSION, "a job", lane="cron")
        await world.model.asked(1)
        await world.inbound(SESSION, "/reset")
        assert (await world.hf.input(job)).cancel_requested_by is None
        world.model.release()
        assert (await world.settled(job)).state == "answered"


async def everything(world: World) -> None:
    await world.inbound(SESSION, "before", key="1")
    await world.idle(passing_s=120)
    await world.inbound(SESSION, "/new", key="2")
    await world.inbound(SESSION, "/queue collect", key="3")
    await world.idle(passing_s=120)
    await world.inbound(SESSION, "after", key="4")
    await world.idle(passing_s=120)


async def test_a_kill_at_any_point_leaves_each_command_carried_out_and_ended_once(tmp_path: Path) -> None:
    died = 0
    for nth in range(1, 400, 13):
        path = tmp_path / str(nth)
        path.mkdir()
        async with commanding(path) as world:
            crash = await world.crash_at(None, everything, nth=nth, make=commanding)
            await everything(world)
            views = await world.hf.inputs()
            assert {view.state for view in views} == {"answered"}
            assert len(views) == 4
            resets = [line for line in await world.transcript(SESSION) if line.get("customType") == "holdfast:reset"]
            assert len(resets) == 1
            assert (await world.hf.queue_settings(SESSION)).mode == "collect"
            if not crash.died:
                break
            died += 1
    assert died > 2
