"""Conversations of several keys, and conversations that begin anew by themselves, from the door to the channel."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.inbound.freshness import NEVER, ResetPolicy
from holdfast.lane.queue import QueueSettings
from holdfast.model.client import ToolSpec
from holdfast.session.entries import text_of
from holdfast.session.key import type_of
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World, echo
from holdfast.turn.tools import Tool, ToolCall
from holdfast.turn.turn import Turn

SLACK, DISCORD = "agent:main:slack:direct:U1", "agent:main:discord:direct:42"
HOUR = 3600


def asked(world: World, nth: int) -> list[str]:
    """What the user said in the `nth` request, oldest first."""
    return [
        message["content"] if isinstance(message["content"], str) else message["content"][0]["text"]
        for message in world.model.requests[nth - 1].messages
        if message["role"] == "user"
    ]


# ── several keys, one transcript ─────────────────────────────────────────────────────────────────────────────────────


async def test_two_keys_of_one_conversation_have_one_owner_and_answers_go_where_they_were_asked(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SLACK, "from slack", to="slack-dm")
        await world.model.asked(1)
        second = await world.inbound(DISCORD, "from discord", to="discord-dm", home=SLACK)
        queued = await world.hf.input(second)
        assert (queued.state, queued.position) == ("queued", 1)  # behind the other key's
        assert len(await world.hf.turns()) == 1
        world.model.release()
        await world.settled(first)
        await world.settled(second)
        await world.idle()
        assert {(one.target, one.text) for one in world.channel.received} == {
            ("slack-dm", "re: from slack"), ("discord-dm", "re: from discord"),
        }  # fmt: skip
        assert asked(world, 2) == ["from slack", "from discord"]
        assert len(list((world.state / "sessions").glob("*/*.jsonl"))) == 1
        views = {view.key: view.transcript for view in await world.hf.sessions()}
        assert views[SLACK] == views[DISCORD]


async def test_keys_of_one_conversation_in_two_processes_have_one_owner(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(DISCORD, "hello", home=SLACK))
        async with holdfast.open(world.state) as other, other.turn(DISCORD, wait_s=0) as turn:
            waiting = await world.inbound(SLACK, "meanwhile")
            await asyncio.sleep(0.05)  # as long as it likes: it cannot begin
            assert (await world.hf.input(waiting)).state == "queued"
            await turn.append(holdfast.user("from the library"))
        view = await world.settled(waiting)
        assert view.answer == "re: meanwhile"
        assert [text for _, text in await world.said(SLACK)] == [
            "hello", "re: hello", "from the library", "meanwhile", "re: meanwhile",
        ]  # fmt: skip


async def test_a_message_of_another_key_is_not_steered_into_a_turn_that_answers_elsewhere(tmp_path: Path) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def run(_: ToolCall) -> str:
        entered.set()
        await leave.wait()
        return "done"

    tool = Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), run)
    model = ScriptedModel(Reply(calls=[("look", {})]), "first", "second")
    async with World(tmp_path, model=model, tools=[tool], queue=QueueSettings(debounce_ms=0)) as world:
        first = await world.inbound(SLACK, "one", to="slack-dm")
        await entered.wait()
        second = await world.inbound(DISCORD, "two", to="discord-dm", home=SLACK)
        leave.set()
        assert (await world.settled(first)).state == "answered"
        assert (await world.settled(second)).state == "answered"
        await world.idle()
        assert {(one.target, one.text) for one in world.channel.received} >= {
            ("slack-dm", "first"), ("discord-dm", "second"),
        }  # fmt: skip


async def test_commands_speak_of_the_conversation_and_not_of_the_key(tmp_path: Path) -> None:
    async with World(tmp_path, commands=True, queue=QueueSettings(debounce_ms=0)) as world:
        await world.settled(await world.inbound(DISCORD, "hello", home=SLACK))
        world.model.hold()
        running = await world.inbound(SLACK, "a long thing")
        await world.model.asked(2)
        await world.settled(await world.inbound(DISCORD, "/queue collect"))
        assert (await world.hf.queue_settings(SLACK)).mode == "collect"
        await world.hf.pin_model(DISCORD, "scripted/other", by="a test")
        status = (await world.settled(await world.inbound(DISCORD, "/status"))).answer or ""
        assert f"answering {running}" in status
        assert "scripted/other" in status
        await world.settled(await world.inbound(DISCORD, "/stop"))
        assert (await world.settled(running)).state == "cancelled"


async def test_a_key_changes_over_once_it_has_no_open_input_and_back_again(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.model.hold()
        await world.inbound(DISCORD, "mine", home=DISCORD)
        await world.model.asked(1)
        behind = await world.inbound(DISCORD, "still mine", home=SLACK)
        world.model.release()
        await world.settled(behind)
        assert asked(world, 2) == ["mine", "still mine"]
        await world.settled(await world.inbound(DISCORD, "shared", home=SLACK))
        assert asked(world, 3) == ["shared"]
        await world.settled(await world.inbound(DISCORD, "as it is"))
        assert asked(world, 4) == ["shared", "as it is"]
        await world.settled(await world.inbound(DISCORD, "mine again", home=DISCORD))
        assert asked(world, 5) == ["mine", "still mine", "mine again"]
        await world.check_promises()


async def test_where_a_conversation_was_answered_last_counts_under_whichever_key(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one", to="slack-dm"))
        await world.settled(await world.inbound(DISCORD, "two", to="discord-dm", home=SLACK))
        route = await world.hf.store.last_route(SLACK)
        assert route is not None
        assert route.target == "discord-dm"


# ── beginning anew ───────────────────────────────────────────────────────────────────────────────────────────────────


def idle_for_an_hour(path: Path, *, commands: bool = False) -> World:
    def policy(session: str) -> ResetPolicy:
        return NEVER if type_of(session) == "machine" else ResetPolicy(idle_s=HOUR)

    return World(path, model=ScriptedModel(otherwise=echo), resets=policy, commands=commands)


async def test_after_an_idle_hour_a_conversation_begins_anew_and_keeps_what_was_said(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one"))
        world.clock.set_wall_clock(HOUR / 2)
        await world.settled(await world.inbound(SLACK, "two"))
        assert asked(world, 2) == ["one", "two"]
        world.clock.set_wall_clock(HOUR / 2)  # counted from the last word, not from the first
        await world.settled(await world.inbound(SLACK, "three"))
        assert asked(world, 3) == ["one", "two", "three"]
        world.clock.set_wall_clock(HOUR)
        last = await world.inbound(SLACK, "four")
        await world.settled(last)
        assert asked(world, 4) == ["four"]
        assert "a new conversation began here: idle" in await world.story(last)
        texts = [entry["message"]["content"] for entry in await world.transcript(SLACK) if entry["type"] == "message"]
        assert len(texts) == 8
        await world.check_promises()


async def test_machines_receipts_and_renames_keep_no_conversation_fresh(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one"))
        for lane in ("heartbeat", "cron", "hook"):
            world.clock.set_wall_clock(HOUR / 4)
            await world.settled(await world.inbound(SLACK, f"a {lane} turn", lane=lane))
        assert len(asked(world, 4)) == 4  # and they do not begin it anew themselves
        await world.hf.session(SLACK).rename("A title")
        await world.hf.session(SLACK).mark_read(by="alice")
        world.clock.set_wall_clock(HOUR / 4)
        await world.settled(await world.inbound(SLACK, "two"))
        assert asked(world, 5) == ["two"]


async def test_a_word_under_another_key_keeps_the_conversation_fresh(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one"))
        world.clock.set_wall_clock(HOUR / 2)
        await world.settled(await world.inbound(DISCORD, "two", home=SLACK))
        world.clock.set_wall_clock(HOUR / 2)
        await world.settled(await world.inbound(SLACK, "three"))
        assert asked(world, 3) == ["one", "two", "three"]


async def test_what_takes_long_to_answer_is_fresh_when_it_is_answered(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SLACK, "a thing of two hours")
        await world.model.asked(1)
        world.clock.set_wall_clock(2 * HOUR)
        behind = await world.inbound(SLACK, "in the meantime")
        world.clock.set_wall_clock(2 * HOUR)
        world.model.release()
        await world.settled(first)
        await world.settled(behind)
        world.clock.set_wall_clock(HOUR / 2)
        await world.settled(await world.inbound(SLACK, "thanks"))
        assert asked(world, 3)[-2:] == ["in the meantime", "thanks"]


async def test_a_run_that_is_repeated_after_a_kill_begins_anew_once(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one"))
        world.clock.set_wall_clock(HOUR)
        last = await world.inbound(SLACK, "two")
        await world.settled(last)
        resets = [entry for entry in await world.transcript(SLACK) if entry.get("customType") == "holdfast:reset"]
        assert [entry["data"]["by"] for entry in resets] == ["idle"]
        crashed = await world.crash_at("append.after_record", say_it_two_hours_later, nth=2, make=killed)
        assert crashed.died
        await world.idle(passing_s=60)
        resets = [entry for entry in await world.transcript(SLACK) if entry.get("customType") == "holdfast:reset"]
        assert [entry["data"]["by"] for entry in resets] == ["idle", "idle"]
        assert len({entry["id"] for entry in resets}) == 2
        assert (await world.said(SLACK))[-1] == ("assistant", "re: three")
        await world.check_promises()


def killed(path: Path) -> World:
    """The same world, two hours on, in a process of its own."""
    world = idle_for_an_hour(path)
    world.clock.set_wall_clock(10 * HOUR)
    return world


async def say_it_two_hours_later(world: World) -> None:
    await world.settled(await world.inbound(SLACK, "three"))


@pytest.mark.promise("I8")
async def test_what_was_begun_before_a_new_conversation_is_asked_anew_in_it(tmp_path: Path) -> None:
    """A webhook's turn gives way, a new conversation begins, and the turn is run again: its own line stands in the old
    one. The model has to be shown it, and the new one to hold it, once however often it is run.
    """
    async with holdfast.open(tmp_path) as hf:
        accepted = await hf.accept(InboundEvent(SLACK, {"content": "deployed"}, lane="hook"))
        assert isinstance(accepted, Accepted)
        for expected in (1, 2, 2):
            turn = await hf.claim(SLACK, lane="hook", input_id=accepted.input_id)
            assert isinstance(turn, Turn)
            await turn.append_input([{"role": "user", "content": "deployed"}])
            assert text_of((await turn.context())[-1]) == "deployed"
            turn.gave_way_to = "in_of_a_user"
            assert await hf.close_turn(turn, None) == "queued"
            lines = await hf.session(SLACK).lines()
            assert sum(line.message_role == "user" for line in lines) == expected
            if expected == 1:
                await hf.session(SLACK).reset(by="a test", wait_s=5)
        ids = [line.id for line in lines if line.kind == "entry"]
        assert len(ids) == len(set(ids))


async def test_a_clients_own_history_is_left_alone(tmp_path: Path) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        said = [{"role": "user", "content": "one"}]
        for text in ("two", "three"):
            event = holdfast.InboundEvent(SLACK, {"messages": list(said)}, source="test")
            admission = await world.hf.accept(event)
            assert isinstance(admission, holdfast.Accepted)
            view = await world.settled(admission.input_id)
            said += [{"role": "assistant", "content": view.answer}, {"role": "user", "content": text}]
            world.clock.set_wall_clock(2 * HOUR)
        assert not any(entry.get("customType") == "holdfast:reset" for entry in await world.transcript(SLACK))


async def test_a_model_that_failover_has_pinned_goes_with_the_conversation_and_a_users_choice_stays(
    tmp_path: Path,
) -> None:
    async with idle_for_an_hour(tmp_path) as world:
        await world.settled(await world.inbound(SLACK, "one"))
        await world.hf.pin_model(SLACK, "scripted/other", by="a test")
        pin = (await world.hf.store.pins([SLACK]))[SLACK]
        for source, stays in (("user", True), ("auto", False)):
            await world.hf.store.choose_pin(
                SLACK, replace(pin, source=source, origin="scripted/model", expires_at_ms=2**53)
            )
            world.clock.set_wall_clock(HOUR)
            await world.settled(await world.inbound(SLACK, f"with a pin of {source}"))
            assert (SLACK in await world.hf.store.pins([SLACK])) == stays
