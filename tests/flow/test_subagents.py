"""Sub-agents from the task that is given away to the parent that hears of its end, with time that stands still."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.errors import ProviderError
from holdfast.inbound.child import Child, Parent, Refused, SpawnLimits, SpawnOrder, make_order
from holdfast.inbound.children import Children
from holdfast.inbound.event import Duplicate, InboundEvent, Route
from holdfast.lane.policy import LaneLimits, default_widths
from holdfast.model.client import ModelRequest, ToolSpec
from holdfast.session.entries import text_of
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.tools import Tool, ToolCall
from tests.flow.test_timers import JOB, due, ended, with_timers

MAIN = "agent:main:main"
LIMITS = SpawnLimits()


def answering(busy: asyncio.Event | None = None, **asks: Reply | list[Reply]) -> ScriptedModel:
    """A model that answers by what it is shown, since parents and children ask in any order: `asks` tells its steps
    after a message of that text, then it says "begun". Sub-agents otherwise say "done: " and their task (once `busy` is
    set), parents "noted: " and what they are told.
    """

    def answer(request: ModelRequest) -> str | Reply:
        users = [at for at, message in enumerate(request.messages) if message["role"] == "user"]
        said = text_of(request.messages[users[-1]])
        done = sum(message["role"] == "assistant" for message in request.messages[users[-1] :])
        steps = asks.get(said, [])
        steps = [steps] if isinstance(steps, Reply) else steps
        if steps:
            return steps[done] if done < len(steps) else "begun"
        if request.system is not None and "You are a sub-agent" in request.system and not said.startswith("[Sub-agent"):
            return Reply(text=f"done: {said}", gate=busy)
        return f"noted: {said}"

    return ScriptedModel(otherwise=answer)


def spawns(*tasks: str, **more: Any) -> Reply:
    return Reply(calls=[("spawn", {"task": task, "label": task, **more}) for task in tasks])


async def until(look: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
    """Wait in real time for what goes on on threads."""
    end = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < end, f"never came: {what}"
        await asyncio.sleep(0.005)
    return found


async def is_asked(model: ScriptedModel, text: str) -> bool:
    """Whether the model has been asked about a message of this text."""
    return any(text_of(request.messages[-1]) == text for request in model.requests)


async def children_in(world: World, *states: str, count: int = 1) -> list[Child]:
    """The children, oldest first, once so many are in one of these states."""

    async def look() -> list[Child] | None:
        found = [one for one in (await world.hf.children())[::-1] if one.state in states]
        return found if len(found) >= count else None

    return await until(look, f"{count} children in {states}")


def results_in(request: ModelRequest) -> list[str]:
    return [text_of(message) for message in request.messages if message["role"] == "toolResult"]


def lanes(**widths: int) -> LaneLimits:
    return LaneLimits(widths={**default_widths(), **widths})


# ── the story ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_child_works_in_a_session_of_its_own_and_its_parent_hears_of_its_end_once(tmp_path: Path) -> None:
    model = answering(begin=spawns("look at the mail"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        asked = await world.inbound(MAIN, "begin", to="alice")
        assert (await world.settled(asked)).answer == "begun"
        await world.idle(passing_s=5)
        [child] = await world.hf.children(session=MAIN)
        assert (child.state, child.outcome, child.depth, child.rights) == ("announced", "answered", 1, "main")
        assert child.session.startswith("agent:main:subagent:")
        assert await world.said(child.session) == [
            ("user", "look at the mail"), ("assistant", "done: look at the mail"),
        ]  # fmt: skip
        told = await world.hf.input(child.announce_id or "")
        assert (told.session, told.lane, told.state, told.route) == (MAIN, "subagent", "answered", "test:alice")
        assert "done: look at the mail" in text_of(told.payload)
        assert [one.text for one in await world.saw("noted: [Sub-agent 'look at the mail'")] == [told.answer]
        assert [one.target for one in world.channel.received] == ["alice", "alice"]
        await world.check_promises()


async def test_its_turn_holds_nothing_of_its_parents_while_it_works(tmp_path: Path) -> None:
    """The parent answers other messages while the child is at work; nothing of the child enters its transcript."""
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("long work"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        await children_in(world, "running")
        before = {view.key: view.updated_at_ms for view in await world.hf.sessions()}
        assert (await world.settled(await world.inbound(MAIN, "hello"))).answer == "noted: hello"
        assert "long work" not in [text for _, text in await world.said(MAIN)]
        used = {view.key: view.updated_at_ms for view in await world.hf.sessions()}[MAIN]
        busy.set()
        await world.idle(passing_s=5)
        views = {view.key: view for view in await world.hf.sessions()}
        assert views[MAIN].updated_at_ms == used >= before[MAIN], "its end is no use of the conversation"
        assert not (await world.hf.models()).pins
        [child] = await world.hf.children()
        assert (views[child.session].parent, views[child.session].child_state) == (MAIN, "announced")
        assert views[MAIN].parent is None


async def test_a_user_comes_before_the_end_of_a_child(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("work"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        [child] = await children_in(world, "running")
        await until(lambda: is_asked(model, "work"), "the child to ask its model")
        model.hold()
        first = await world.inbound(MAIN, "first")
        await until(lambda: is_running(world, first), "the first message to be answered")
        busy.set()
        [child] = await children_in(world, "announced")
        second = await world.inbound(MAIN, "second")
        model.release()
        await world.idle(passing_s=5)
        order = [text for role, text in await world.said(MAIN) if role == "user"]
        assert [text.split("\n")[0][:10] for text in order] == ["begin", "first", "second", "[Sub-agent"]
        assert (await world.hf.input(second)).state == (await world.hf.input(child.announce_id or "")).state


async def is_running(world: World, input_id: str) -> bool:
    return (await world.hf.input(input_id)).state == "running"


async def test_a_child_that_fails_costs_its_parent_nothing_and_is_explained(tmp_path: Path) -> None:
    broken = Reply(error=ProviderError("no such model", status=404))
    model = answering(begin=spawns("work"), work=broken)
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        assert (await world.settled(await world.inbound(MAIN, "begin"))).answer == "begun"
        await world.idle(passing_s=200)
        [child] = await world.hf.children()
        assert (child.state, child.outcome) == ("announced", "failed")
        told = await world.hf.input(child.announce_id or "")
        assert told.state == "answered"
        assert "has failed: " in text_of(told.payload)
        assert not [one for one in await world.hf.turns() if one.outcome == "failed" and one.session == MAIN]


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_limits_are_refused_by_name_and_the_model_goes_on_without(tmp_path: Path) -> None:
    busy = asyncio.Event()
    limits = SpawnLimits(per_session_max=2, per_turn_max=3)
    model = answering(busy, begin=spawns("a", "b", "c"))
    async with World(tmp_path, model=model, spawns=limits) as world:
        assert (await world.settled(await world.inbound(MAIN, "begin"))).state == "answered"
        [_, _, third] = next(found for found in map(results_in, model.requests) if found)
        assert third.startswith("InputError: per_session: 2 sub-agents of this session are at work")
        busy.set()
        await world.idle(passing_s=5)
        assert len(await world.hf.children()) == 2


async def test_the_library_gets_refusals_as_values(tmp_path: Path) -> None:
    async with World(tmp_path, spawns=SpawnLimits(per_turn_max=1, per_session_max=9)) as world:
        hf = world.hf
        accepted = await hf.accept(InboundEvent("agent:main:other", {"content": "x"}, lane="library"))
        assert isinstance(accepted, holdfast.Accepted)
        await world.settled(accepted.input_id)
        session = hf.session(MAIN)
        assert isinstance(await session.spawn("one", key="k"), Child)
        again = await session.spawn("one", key="k")
        assert isinstance(again, Child), "the same key is the same child"
        assert len(await hf.children()) == 1
        for refused, why in [
            (await session.spawn("two", agent="other"), "agent"),
            (await hf.session(again.session).spawn("three"), "depth"),
        ]:
            assert isinstance(refused, Refused)
            assert refused.why == why
        with pytest.raises(holdfast.InputError, match="needs a task"):
            await session.spawn("  ")
        hf.spawn_limits = SpawnLimits(depth_max=0)
        off = await session.spawn("four")
        assert isinstance(off, Refused)
        assert off.why == "off"
        await world.idle(passing_s=5)


async def test_one_input_may_spawn_so_many_however_often_it_is_run(tmp_path: Path) -> None:
    model = answering(begin=[spawns("a", "b"), spawns("c")])
    async with World(tmp_path, model=model, spawns=SpawnLimits(per_turn_max=2)) as world:
        async with world.hf.turn(MAIN) as turn:
            free = [await turn.spawn(f"task {n}") for n in range(3)]
        assert all(isinstance(one, Child) for one in free), "a turn without an input counts by its session alone"
        await world.idle(passing_s=5)
        await world.settled(await world.inbound("agent:main:other", "begin"))
        await world.idle(passing_s=5)
        assert len(await world.hf.children(session="agent:main:other")) == 2
        [*_, last] = [text for one in model.requests for text in results_in(one)]
        assert last.startswith("InputError: per_turn: this turn has had 2 sub-agents")


async def test_how_many_run_at_once_is_the_width_of_their_lane(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("a", "b", "c"))
    async with World(tmp_path, model=model, spawns=LIMITS, limits=lanes(subagent=2)) as world:
        await world.inbound(MAIN, "begin")
        await children_in(world, "running", count=2)
        await world.pass_time(3)
        assert sorted(one.state for one in await world.hf.children()) == ["queued", "running", "running"]
        busy.set()
        await world.idle(passing_s=5)
        assert [one.outcome for one in await world.hf.children()] == ["answered"] * 3


async def test_the_tool_is_not_offered_where_it_would_be_refused(tmp_path: Path) -> None:
    model = answering(begin=spawns("work"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        await world.inbound(MAIN, "begin")
        await world.idle(passing_s=5)
        offered = {("You are a sub-agent" in (one.system or "")): [tool.name for tool in one.tools] for one in
                   model.requests}  # fmt: skip
        assert offered == {False: ["spawn"], True: []}


async def test_the_end_of_a_child_waits_for_its_own_children_whose_result_is_the_last_word(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("outer"), outer=spawns("inner"))
    async with World(tmp_path, model=model, spawns=SpawnLimits(depth_max=2)) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        [outer] = await until(lambda: world.hf.children(session=MAIN), "the outer child")
        assert (await world.settled(outer.input_id)).answer == "begun"
        [inner] = await until(lambda: world.hf.children(session=outer.session), "the inner child")
        await children_in(world, "running", count=2)
        await world.pass_time(3)
        assert [one.state for one in await world.hf.children()] == ["running", "running"], "it only is on it"
        assert (await world.hf.wait_child(outer.id, 0))[0].state == "running"
        busy.set()
        await world.idle(passing_s=10)
        outer, inner = await world.hf.child(outer.id), await world.hf.child(inner.id)
        assert (outer.depth, inner.depth) == (1, 2)
        assert outer.last_input == inner.announce_id != outer.input_id
        [told] = await world.saw("noted: [Sub-agent 'outer'")
        assert "noted: [Sub-agent 'inner'" in told.text
        assert "done: inner" in told.text


# ── rights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_machines_child_has_a_machines_rights(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    limits = SpawnLimits(depth_max=2, agents=("other",))

    async def look(call: ToolCall) -> str:
        seen.append((call.session, call.rights))
        return "seen"

    tool = Tool(ToolSpec("look", "Looks.", {"type": "object"}), look)
    model = answering(issue=[spawns("work", agent="other"), spawns("work")], work=Reply(calls=[("look", {})]))
    async with World(tmp_path, model=model, spawns=limits, tools=[tool]) as world:
        await world.settled(await world.inbound("hook:github", "issue", lane="hook"))
        await world.idle(passing_s=10)
        [child] = await world.hf.children(session="hook:github")
        assert child.rights == "hook"
        refused = [text for one in model.requests for text in results_in(one) if "rights: " in text]
        assert refused, "another agent is more than a machine may ask for"
        assert (await world.hf.input(child.announce_id or "")).lane == "hook", "it waits where its parent's inputs do"
        assert seen == [(child.session, "hook")]
        assert any("no person has asked for" in (one.system or "") for one in model.requests)


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_stop_in_a_chat_stops_its_children_and_nobody_is_told_anew(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("a", "b"))
    async with World(tmp_path, model=model, spawns=LIMITS, commands=True, limits=lanes(subagent=1)) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        await children_in(world, "running")
        status = await world.settled(await world.inbound(MAIN, "/status"))
        assert "sub-agents: " in (status.answer or "")
        assert "a (child_" in (status.answer or "")
        stop = await world.settled(await world.inbound(MAIN, "/stop"))
        assert stop.answer == "Stopping 2 sub-agents."
        await children_in(world, "stopped", count=2)
        await world.idle(passing_s=5)
        assert [(one.state, one.outcome, one.announce_id) for one in await world.hf.children()] == [
            ("stopped", "cancelled", None)] * 2  # fmt: skip
        assert not [view for view in await world.hf.inputs(session=MAIN) if view.source == "subagent"]
        again = await world.settled(await world.inbound(MAIN, "/stop"))
        assert again.answer == "There is nothing to stop."


async def test_cancelling_the_input_that_spawned_cancels_its_children_and_theirs(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=[spawns("a"), Reply(text="too late", gate=busy)])
    async with World(tmp_path, model=model, spawns=SpawnLimits(depth_max=2)) as world:
        asked = await world.inbound(MAIN, "begin")
        await children_in(world, "queued", "running")
        [child] = await world.hf.children()
        inner = await world.hf.session(child.session).spawn("deeper")
        assert isinstance(inner, Child)
        assert await world.hf.cancel(asked, by="alice") in ("requested", "cancelled")
        assert (await world.settled(asked)).state == "cancelled"
        await world.pass_time(2)  # a turn that began in that very moment hears of it at its next look
        for one in (child, inner):
            assert (await world.settled(one.input_id)).state == "cancelled"
        await world.idle(passing_s=5)
        assert {one.state for one in await world.hf.children()} == {"stopped"}
        late = await world.hf.session(MAIN).spawn("after it")
        assert isinstance(late, Child), "the session itself was not stopped"
        await world.hf.cancel(late.id, by="bob")
        busy.set()
        await world.idle(passing_s=5)
        late = await world.hf.child(late.id)
        assert late.state == "announced", "a child that is stopped by itself is told of"
        told = await world.hf.input(late.announce_id or "")
        assert "was stopped before it had a result" in text_of(told.payload)


async def test_a_child_that_takes_too_long_is_stopped_and_its_parent_is_told(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("slow"))
    async with World(tmp_path, model=model, spawns=SpawnLimits(timeout_s=60)) as world:
        await world.settled(await world.inbound(MAIN, "begin", to="alice"))
        await children_in(world, "running")
        await world.pass_time(70)
        await world.idle(passing_s=20)
        [child] = await world.hf.children()
        assert (child.state, child.outcome) == ("announced", "cancelled")
        await world.saw("was stopped: it had taken longer than 60 s")


# ── the parent meanwhile ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_parent_begun_anew_is_told_that_the_task_is_of_the_conversation_before(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("work"))
    async with World(tmp_path, model=model, spawns=LIMITS, commands=True) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        await children_in(world, "running")
        await world.clock.advance(1)
        await world.settled(await world.inbound(MAIN, "/new"))
        busy.set()
        await world.idle(passing_s=5)
        [child] = await world.hf.children()
        shown = model.requests[-1].messages
        assert [text_of(message)[:20] for message in shown] == [
            "(The conversation wa", "[Sub-agent 'work' (c",
        ]  # fmt: skip
        assert child.state == "announced"


async def test_a_full_queue_of_the_parent_delays_the_end_and_loses_nothing(tmp_path: Path) -> None:
    busy = asyncio.Event()
    model = answering(busy, begin=spawns("work"))
    limits = replace(lanes(), per_session_max=2)
    async with World(tmp_path, model=model, spawns=LIMITS, limits=limits) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        [child] = await children_in(world, "running")
        await until(lambda: is_asked(model, "work"), "the child to ask its model")
        model.hold()
        for n in range(3):
            await world.inbound(MAIN, f"message {n}", lane="cron")
        busy.set()
        await world.settled(child.input_id)
        await world.pass_time(3)
        assert [one.state for one in await world.hf.children()] == ["ended"]
        model.release()
        await world.idle(passing_s=20)
        assert [one.state for one in await world.hf.children()] == ["announced"]


async def test_a_jobs_result_is_what_came_of_its_sub_agents(tmp_path: Path) -> None:
    """The run is not over, and nothing of it is announced, while they are at work; it begins afresh all the same."""
    busy = asyncio.Event()
    job = replace(JOB, message="begin")
    model = answering(busy, begin=spawns("look"))
    async with World(tmp_path, model=model, spawns=LIMITS, timers=with_timers(job)) as world:
        await due(world)
        await children_in(world, "running")
        await world.pass_time(5)
        assert [run.state for run in await world.hf.store.timer_runs()] == ["running"]
        assert world.channel.received == []
        busy.set()
        [run] = await ended(world, 1)
        [child] = await world.hf.children()
        assert (run.state, child.rights) == ("ok", "cron")
        told = await world.hf.input(child.announce_id or "")
        assert (told.lane, told.session) == ("cron", "agent:main:cron:job")
        [said] = await world.saw("noted: [Sub-agent 'look'")
        assert "done: look" in said.text
        shown = [text_of(message).split("\n")[0][:10] for message in model.requests[-1].messages]
        assert shown[0] == "begin"
        assert shown[-1] == "[Sub-agent"
        await world.idle(passing_s=60)
        assert len(world.channel.received) == 1, "that it was on it is nobody's news"


async def test_an_end_that_cannot_be_told_keeps_no_other_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with World(tmp_path, spawns=LIMITS) as world:
        parent = Parent("agent:main:broken")
        order = make_order(parent, LIMITS, "lost", key="k", label=None, agent=None, model=None, timeout_s=None)
        assert isinstance(order, SpawnOrder)
        broken = replace(order, parent=replace(parent, route=Route("", "nowhere")))  # as if the ledger were damaged
        assert isinstance(await world.hf.store.spawn(broken, LIMITS), Child)
        other = await world.hf.session(MAIN).spawn("work")
        assert isinstance(other, Child)
        [told] = await children_in(world, "announced")
        assert told.id == other.id
        await children_in(world, "ended")
        await until(lambda: is_logged(caplog, order.id), "the fault to be told")


async def is_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.message and record.levelname == "ERROR" for record in caplog.records)


async def test_two_processes_that_see_an_end_announce_it_once(tmp_path: Path) -> None:
    model = answering(begin=spawns("work"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        async with holdfast.open(world.state, clock=world.clock) as other:
            watching = asyncio.create_task(Children(other).run())
            await world.inbound(MAIN, "begin")
            await world.idle(passing_s=5)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert len([view for view in await world.hf.inputs() if view.source == "subagent"]) == 1
        [child] = await world.hf.children()
        told = await world.hf.input(child.announce_id or "")
        again = await world.hf.accept(
            InboundEvent(MAIN, told.payload, source="subagent", key=child.id, lane="subagent", waits=True)
        )
        assert isinstance(again, Duplicate)


async def test_children_are_put_away_an_hour_after_their_end_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    model = answering(begin=spawns("work"))
    async with World(tmp_path, model=model, spawns=LIMITS) as world:
        await world.inbound(MAIN, "begin")
        await world.idle(passing_s=5)
        [child] = await world.hf.children()
        assert child.session in [view.key for view in await world.hf.sessions()]
        await world.clock.advance(3700)
        await until(lambda: is_put_away(world, child), "the child to be put away")
        assert child.session not in [view.key for view in await world.hf.sessions()]
        assert child.session in [view.key for view in await world.hf.sessions(archived=True)]
        assert await world.said(child.session) == [("user", "work"), ("assistant", "done: work")]


async def is_put_away(world: World, child: Child) -> bool:
    await world.pass_time(1)
    return (await world.hf.child(child.id)).archived_at_ms is not None


async def test_a_turn_that_waits_for_its_child_lends_its_slot_and_no_ring_is_waited_in(tmp_path: Path) -> None:
    """One slot for everybody: the child has it while its parent waits; what would wait for the parent is refused."""
    rings: list[str] = []

    async def wait_for_parent(_: ToolCall) -> str:
        try:
            async with world.hf.turn(MAIN, wait_s=5):
                return "had it"
        except holdfast.WaitRingError as refused:
            rings.append(str(refused))
            return "refused"

    tool = Tool(ToolSpec("wait", "Waits.", {"type": "object"}), wait_for_parent)
    model = answering(work=Reply(calls=[("wait", {})]))
    async with World(tmp_path, model=model, spawns=LIMITS, tools=[tool], limits=lanes(subagent=1)) as world:
        async with world.hf.turn(MAIN, lane="subagent") as turn:
            child = await turn.spawn("work")
            assert isinstance(child, Child)
            await world.pass_time(2)
            assert (await world.hf.child(child.id)).state == "queued", "its parent has the only slot"
            after, view = await world.hf.wait_child(child.id, 60)
            assert (after.state, view.answer) == ("ended", "begun")
        [ring] = rings
        assert "whose owner waits for it" in ring
        await world.idle(passing_s=5)


async def test_a_program_spawns_in_a_turn_waits_and_asks_why(tmp_path: Path) -> None:
    async with World(tmp_path, spawns=LIMITS) as world:
        async with world.hf.turn("agent:main:program") as turn:
            child = await turn.spawn("count the files", label="files", key="1")
            assert isinstance(child, Child)
            assert await turn.spawn("count the files", label="files", key="1") == child
        after, view = await world.hf.wait_child(child.id, 10)
        assert (view.answer, after.label) == ("re: count the files", "files")
        await world.idle(passing_s=5)
        story = await world.story(child.id)
        assert "spawned by agent:main:program" in story
        assert "announced" in story
        route = Route("test", "carol")
        sent = await world.hf.session(MAIN).spawn("another", route=route)
        assert isinstance(sent, Child)
        await world.idle(passing_s=5)
        await world.saw("re: [Sub-agent 'another'")
        with pytest.raises(holdfast.UnknownInputError, match="no sub-agent"):
            await world.hf.child("child_0")


# ── at the terminal ──────────────────────────────────────────────────────────────────────────────────────────────────


def at_the_terminal(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints as JSON about the state of a world that is closed."""
    capsys.readouterr()
    assert run([*words, "--state", str(world.state), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


async def spawn_and_stop(tmp_path: Path) -> World:
    """A state with a child that was answered and one that was stopped by itself."""
    world = World(tmp_path, model=answering(begin=spawns("work")), spawns=LIMITS)
    async with world:
        await world.inbound(MAIN, "begin")
        await world.idle(passing_s=5)
        world.model.hold()
        other = await world.hf.session("agent:main:other").spawn("more work", label="more")
        assert isinstance(other, Child)
        assert await world.hf.cancel(other.id, by="alice") == "requested"
        world.model.release()
        await world.idle(passing_s=5)
    return world


def test_commands_tell_of_sub_agents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = asyncio.run(spawn_and_stop(tmp_path))
    found = at_the_terminal(world, capsys, "children")
    assert sorted((one["label"], one["state"], one["outcome"]) for one in found) == [
        ("more", "announced", "cancelled"), ("work", "announced", "answered"),
    ]  # fmt: skip
    [mine] = at_the_terminal(world, capsys, "children", "--session", MAIN)
    assert mine["label"] == "work"
    assert at_the_terminal(world, capsys, "children", "--open") == []
    of = {one["key"]: (one["parent"], one["child_state"]) for one in at_the_terminal(world, capsys, "sessions")}
    assert of[MAIN] == (None, None)
    assert of[mine["session"]] == (MAIN, "announced")
    told = at_the_terminal(world, capsys, "why", mine["id"])
    assert (told["kind"], told["state"]) == ("child", "announced")
    assert "spawned by agent:main:main" in told["lines"][0]["text"]
    stopped = at_the_terminal(world, capsys, "stop", mine["id"])
    assert stopped["result"] == "already announced"
