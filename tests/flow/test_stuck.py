"""Turns that stand still: told of with their owner named, asked to end only by leave, taken over only when nothing of
them lives (P9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import holdfast
from holdfast.model.client import ModelRequest, StreamItem, ToolSpec
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.events import Subscription
from holdfast.turn.tools import Tool, ToolCall

KEY = "agent:main:main"
WARN = WatchSettings()
ASK = WatchSettings(live_owners="ask")
TOLD = ("session.long_running", "session.stalled", "session.stuck")


class Work:
    """A tool that does what a test tells it to. `seconds_max`: its own limit."""

    def __init__(self, seconds_max: float | None = None) -> None:
        self.calls: list[ToolCall] = []
        self.runs = asyncio.Event()
        self.ends = asyncio.Event()
        self.tool = Tool(ToolSpec("work", "Works.", {"type": "object"}), self.run, seconds_max=seconds_max)

    async def run(self, call: ToolCall) -> str:
        self.calls.append(call)
        self.runs.set()
        await self.ends.wait()
        return "done"


def recoveries(caplog: pytest.LogCaptureFixture, outcome: str) -> list[str]:
    wanted = f"session.recovery.completed outcome={outcome}"
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(wanted)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in (record.getMessage() for record in caplog.records) if text.startswith(TOLD)]


async def heard(events: Subscription, kind: str) -> holdfast.TurnEvent:
    async with asyncio.timeout(60):
        async for event in events:
            if event.kind == kind:
                return event
    raise AssertionError(f"{kind} never came")


async def working(world: World, work: Work) -> str:
    """A turn whose tool runs; its input."""
    world.model.script(Reply(calls=[("work", {})]))
    input_id = await world.inbound(KEY, "do it")
    async with asyncio.timeout(60):
        await work.runs.wait()
    return input_id


@pytest.mark.promise("P9")
async def test_a_turn_that_stands_still_is_told_of_with_its_owner_and_what_it_does_and_nothing_is_done_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    work = Work()
    async with World(tmp_path, tools=[work.tool], watch=WARN, commands=True) as world:
        input_id = await working(world, work)
        [turn] = world.hf.live_turns()
        with world.hf.events.subscribe() as events:
            await world.pass_time(130)
            event = await heard(events, "session.stalled")
        assert event.data["reason"] == "blocked_tool_call"
        assert event.turn_id == turn.id
        [said] = warnings(caplog)
        owner = (f"turn={turn.id}", "lane=main", f"process={world.hf.process_id}", "pid=", "since_ms=2026-01-01T00:00")
        for fact in (*owner, "doing=tool", "name=work"):
            assert fact in said
        assert "blocked_tool_call" in await world.story(input_id)
        assert "at work: process" in await world.story(input_id)
        [view] = [one for one in await world.hf.turns() if one.state == "running"]
        assert view.work is not None
        assert (view.work.doing, view.work.name, view.work.event) == ("tool", "work", "session.stalled")
        status = await world.settled(await world.inbound(KEY, "/status"))
        assert "tool work for" in (status.answer or "")
        await world.pass_time(900)
        assert len(warnings(caplog)) == 4, "each warning after twice as long: 2, 4, 8, 16 minutes"
        work.ends.set()
        assert (await world.settled(input_id)).state == "answered"
    assert "recovery.requested" not in caplog.text


@pytest.mark.promise("P9")
async def test_a_turn_past_its_limits_is_asked_to_end_by_leave_only_and_what_waits_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    async with World(tmp_path, model=ScriptedModel(), watch=ASK) as world:
        world.model.hold()
        world.model.script("never said", "re: two")
        first = await world.inbound(KEY, "one")
        await world.model.asked(1)
        second = await world.inbound(KEY, "two")
        await world.pass_time(355)
        assert not (await world.hf.input(first)).settled
        await world.pass_time(15)
        stopped = await world.settled(first)
        assert (stopped.state, stopped.error) == ("failed", "TurnStalledError")
        world.model.release()
        assert (await world.settled(second)).answer == "re: two"
        await world.saw("This message was stopped: nothing had been heard of its model scripted/model")
        [turn] = await world.hf.store.turns_of(first)
        assert turn.outcome == "interrupted"
        await world.pass_time(10)
        [effect] = recoveries(caplog, "effective")
        assert turn.id in effect
        assert "recovery was effective" in await world.story(first)
        assert await world.hf.store.marks() == []
        await world.check_promises()


async def test_every_sign_of_work_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    work = Work()
    async with World(tmp_path, tools=[work.tool], watch=ASK) as world:
        input_id = await working(world, work)
        for _ in range(8):
            await world.pass_time(110)
            work.calls[0].say("still at it")
        assert all(text.startswith("session.long_running") for text in warnings(caplog))
        assert warnings(caplog)
        work.ends.set()
        assert (await world.settled(input_id)).state == "answered"
    assert "recovery.requested" not in caplog.text


async def test_a_tool_that_waits_for_a_person_and_a_pause_before_the_next_request_are_no_standstill(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    work = Work()
    async with World(tmp_path, tools=[work.tool], watch=ASK) as world:
        input_id = await working(world, work)
        work.calls[0].wait_for_person("approval of work")
        await world.pass_time(500)
        assert "session.stalled" not in caplog.text
        assert "human_question" in caplog.text
        work.ends.set()
        assert (await world.settled(input_id)).state == "answered"


@pytest.mark.promise("P9")
@pytest.mark.parametrize("isolated", [True, False])
async def test_a_tool_that_is_silent_for_ten_minutes_is_not_killed_while_everybody_talks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, isolated: bool
) -> None:
    """The scenario of record with recovery armed: a heartbeat streams for three minutes of virtual time, then its tool
    says nothing for ten, and people talk meanwhile.
    """
    caplog.set_level(logging.INFO, "holdfast.recovery")
    work, streams = Work(seconds_max=700.0), asyncio.Event()
    beat_key = f"{KEY}:heartbeat" if isolated else KEY
    async with World(tmp_path, tools=[work.tool], watch=ASK) as world:
        world.model.script(Reply(text="looking around", calls=[("work", {})], gate=streams))
        beat = await world.inbound(beat_key, "look around", lane="heartbeat", to=None)
        await world.model.asked(1)
        users: list[str] = []
        for number in range(3):
            users.append(await world.inbound(KEY, f"message {number}"))
            await world.pass_time(60)
            for turn in world.hf.live_turns():
                turn.heard()  # a chunk of its stream
        streams.set()
        async with asyncio.timeout(60):
            await work.runs.wait()
        for number in range(3, 6):
            users.append(await world.inbound(KEY, f"message {number}"))
            await world.pass_time(200)
        assert not recoveries(caplog, "effective")
        assert "recovery.requested" not in caplog.text
        work.ends.set()
        for input_id in (*users, beat):
            assert (await world.settled(input_id)).state in ("answered", "steered", "merged")
        await world.check_promises()
    assert "session.stalled" in caplog.text, "it is told of all the same"


@pytest.mark.promise("P9")
async def test_an_owner_that_does_not_hear_is_reported_and_never_forced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client of its model swallows cancellation."""
    caplog.set_level(logging.INFO, "holdfast.recovery")
    let_go = asyncio.Event()

    class Deaf(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
            await until_let_go(let_go)
            async for item in super().stream(request):
                yield item

    async with World(tmp_path, model=Deaf("done"), watch=ASK) as world:
        input_id = await world.inbound(KEY, "do it")
        await world.pass_time(420)
        [said] = recoveries(caplog, "ineffective")
        assert "never forced" in said
        assert not (await world.hf.input(input_id)).settled
        [owner] = await world.hf.owners()
        assert owner.sessions == (KEY,)
        let_go.set()
        assert (await world.settled(input_id)).settled


async def until_let_go(let_go: asyncio.Event) -> None:
    while not let_go.is_set():
        with suppress(asyncio.CancelledError):
            await let_go.wait()


@pytest.mark.promise("P9")
async def test_a_tool_that_does_not_hear_does_not_keep_its_turn_from_hearing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    let_go = asyncio.Event()

    async def deaf(_: ToolCall) -> str:
        await until_let_go(let_go)
        return "done"

    tool = Tool(ToolSpec("work", "Works.", {"type": "object"}), deaf, seconds_max=60.0)
    async with World(tmp_path, tools=[tool], watch=ASK) as world:
        world.model.script(Reply(calls=[("work", {})]), "re: two")
        first = await world.inbound(KEY, "do it")
        await world.pass_time(420)
        assert (await world.settled(first)).error == "TurnStalledError"
        [said] = recoveries(caplog, "effective")
        [turn] = await world.hf.store.turns_of(first)
        assert (turn.id in said, turn.outcome) == (True, "interrupted")
        await world.saw("This message was stopped: nothing had been heard of its tool work")
        second = await world.inbound(KEY, "two")
        assert (await world.settled(second)).answer == "re: two"
        let_go.set()
        await world.check_promises()


async def test_of_several_watchdogs_one_tells_and_one_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    async with World(tmp_path, model=ScriptedModel("never said")) as world:
        world.hf.watch = ASK
        dogs = [Watchdog(world.hf) for _ in range(5)]
        world.model.hold()
        input_id = await world.inbound(KEY, "one")
        await world.model.asked(1)
        for _ in range(100):
            await world.pass_time(5)
            await asyncio.gather(*(dog.look() for dog in dogs))
        assert (await world.settled(input_id)).error == "TurnStalledError"
    assert len([record for record in caplog.records if "recovery.requested" in record.getMessage()]) == 1
    assert len(recoveries(caplog, "effective")) == 1
    assert len(warnings(caplog)) == 2


@pytest.mark.promise("P9")
async def test_what_was_asked_of_one_turn_is_not_asked_of_the_next_attempt(tmp_path: Path) -> None:
    async with World(tmp_path, model=ScriptedModel(), watch=WARN) as world:
        world.model.hold()
        world.model.script("never said")
        await world.inbound(KEY, "one")
        await world.model.asked(1)
        await world.pass_time(130)
        [mark] = await world.hf.store.marks()
        stale = replace(mark, epoch=mark.epoch._replace(nonce="0" * 32), asked="of another")
        assert not await world.hf.store.change_mark(mark, stale)
        assert await world.hf.store.change_mark(mark, replace(mark, asked="of this one"))
        assert not await world.hf.store.change_mark(mark, replace(mark, asked="late"))
        assert await world.hf.store.asked_to_end() == {mark.turn: "of this one"}


@pytest.mark.promise("P9")
async def test_by_policy_a_conversation_whose_turns_all_stood_still_begins_anew_and_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    asked = replace(ASK, fresh_after=2)
    async with World(
        tmp_path, model=ScriptedModel("never", "never", otherwise=lambda _: "hello"), watch=asked
    ) as world:
        for number in (1, 2):
            world.model.hold()
            input_id = await world.inbound(KEY, f"question {number}")
            await world.model.asked(number)
            await world.pass_time(380)
            assert (await world.settled(input_id)).error == "TurnStalledError"
            world.model.release()
        assert (await world.settled(await world.inbound(KEY, "question 3"))).answer == "hello"
        shown = [message["content"] for message in world.model.requests[-1].messages]
        assert "question 1" not in str(shown)
        assert "question 3" in str(shown)
        assert ("user", "question 1") in await world.said(KEY)
        [said] = [one.getMessage() for one in caplog.records if "fresh_start" in one.getMessage()]
        assert str(world.state) in said
        assert (await world.settled(await world.inbound(KEY, "question 4"))).answer == "hello"
        assert "question 3" in str(world.model.requests[-1].messages), "once is enough"
