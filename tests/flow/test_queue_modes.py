"""What becomes of messages that find their session busy, from the door to the channel, crashes included."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ProviderError, TurnCancelledError
from holdfast.inbound.event import Accepted, InboundEvent, LaneFull, Route
from holdfast.lane.queue import QueueSettings
from holdfast.model.client import ToolSpec
from holdfast.outbox.outbox import Change
from holdfast.session.entries import assistant
from holdfast.session.ownership import Busy
from holdfast.testing.holder import holding, kill
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.tools import Tool, ToolCall
from holdfast.turn.turn import Turn

SESSION = "agent:main:main"
LOOK = Reply(calls=[("look", {})])


class Gate:
    """A tool that runs until it is let go: the place where a turn's step ends."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def run(self, _: ToolCall) -> str:
        self.entered.set()
        await self.leave.wait()
        return "looked"

    @property
    def tool(self) -> Tool:
        return Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), self.run, restart_safe=True)


def asked(model: ScriptedModel, nth: int) -> list[str]:
    """What the user said in the `nth` request, in the order in which the model was shown it."""
    texts = []
    for message in model.requests[nth - 1].messages:
        if message["role"] == "user":
            content = message["content"]
            texts.append(content if isinstance(content, str) else "".join(part["text"] for part in content))
    return texts


async def states(world: World, *ids: str) -> list[str]:
    return [(await world.hf.input(one)).state for one in ids]


async def test_a_message_is_steered_in_after_the_tools_and_before_the_next_model_call(tmp_path: Path) -> None:
    gate, model = Gate(), ScriptedModel(LOOK, "Both are done.")
    async with World(tmp_path, model=model, tools=[gate.tool], queue=QueueSettings()) as world:
        first = await world.inbound(SESSION, "look at it")
        await gate.entered.wait()
        second = await world.inbound(SESSION, "and be quick")
        gate.leave.set()
        [answer] = await world.saw("Both are done.")
        await world.idle()
        assert await states(world, first, second) == ["answered", "steered"]
        assert asked(model, 2) == ["look at it", "and be quick"]
        assert answer.text == "Both are done."
        assert len(world.channel.received) == 1
        assert (await world.hf.input(second)).answer == "Both are done."
        assert [said for said in await world.said(SESSION) if said[0] == "user"] == [
            ("user", "look at it"), ("user", "and be quick"),
        ]  # fmt: skip
        assert "took it in after a step" in await world.story(second)


@pytest.mark.parametrize(
    "differs", [{"to": "group"}, {"lane": "cron"}, {"waits": True}, {"queue": "followup"}], ids=str
)
async def test_what_may_not_share_the_answer_gets_a_turn_of_its_own(tmp_path: Path, differs: dict[str, str]) -> None:
    gate, model = Gate(), ScriptedModel(LOOK, "First.", "Second.")
    async with World(tmp_path, model=model, tools=[gate.tool], queue=QueueSettings(debounce_ms=0)) as world:
        first = await world.inbound(SESSION, "look at it")
        await gate.entered.wait()
        second = await world.inbound(SESSION, "something else", **differs)  # type: ignore[arg-type]  # one of them each
        gate.leave.set()
        await world.idle()
        assert await states(world, first, second) == ["answered", "answered"]
        assert asked(model, 2) == ["look at it"]
        assert [one.text for one in world.channel.received] == ["First.", "Second."]


async def test_what_comes_after_the_last_step_becomes_a_followup_once_it_is_quiet(tmp_path: Path) -> None:
    model = ScriptedModel("First.", "Second.")
    async with World(tmp_path, model=model, queue=QueueSettings()) as world:
        model.hold()
        first = await world.inbound(SESSION, "one")
        await model.asked(1)
        second = await world.inbound(SESSION, "two")
        model.release()
        await world.settled(first)
        assert await states(world, second) == ["queued"]  # no virtual time has passed: it is not quiet yet
        await world.idle(passing_s=2)
        assert await states(world, first, second) == ["answered", "answered"]
        assert len(model.requests) == 2


async def test_a_failed_turn_leaves_what_it_took_in_to_be_answered_by_itself(tmp_path: Path) -> None:
    gate, model = Gate(), ScriptedModel(LOOK, ProviderError("no", status=401), "Yours is done.")
    async with World(tmp_path, model=model, tools=[gate.tool], queue=QueueSettings(debounce_ms=0)) as world:
        first = await world.inbound(SESSION, "look at it")
        await gate.entered.wait()
        second = await world.inbound(SESSION, "mine too")
        gate.leave.set()
        await world.idle()
        assert await states(world, first, second) == ["failed", "answered"]
        assert [said for said in await world.said(SESSION) if said == ("user", "mine too")] == [("user", "mine too")]


async def test_what_waits_is_collected_into_one_turn_and_answered_once(tmp_path: Path) -> None:
    model = ScriptedModel("First.", "All of it.", "For the group.")
    async with World(tmp_path, model=model, queue=QueueSettings(mode="collect")) as world:
        model.hold()
        first = await world.inbound(SESSION, "one")
        await model.asked(1)
        rest = [await world.inbound(SESSION, text) for text in ("two", "three")]
        other = await world.inbound(SESSION, "for the group", to="group")
        rest.append(await world.inbound(SESSION, "four"))
        model.release()
        await world.idle(passing_s=5)
        assert await states(world, first, *rest, other) == ["answered", "answered", "merged", "merged", "answered"]
        assert asked(model, 2)[-3:] == ["two", "three", "four"]
        to_user = [one.text for one in world.channel.received if one.target == "user"]
        assert to_user == ["First.", "All of it.\n\n(This answers your last 3 messages.)"]
        assert {(await world.hf.input(one)).answer for one in rest} == {"All of it."}


async def test_an_interrupting_message_stops_the_turn_and_its_work_is_kept(tmp_path: Path) -> None:
    gate, model = Gate(), ScriptedModel(LOOK, "The newer one.")
    async with World(tmp_path, model=model, tools=[gate.tool], queue=QueueSettings(mode="interrupt")) as world:
        first = await world.inbound(SESSION, "a long thing")
        await gate.entered.wait()
        second = await world.inbound(SESSION, "no, this")
        await world.idle(passing_s=5)
        assert await states(world, first, second) == ["cancelled", "answered"]
        assert [one.text for one in world.channel.received] == ["The newer one."]
        assert "a newer message" in ((await world.hf.input(first)).detail or "")
        assert ("user", "a long thing") in await world.said(SESSION)


async def busy(world: World, model: ScriptedModel, count: int) -> tuple[str, list[str]]:
    """One message runs, `count` wait behind it."""
    model.hold()
    first = await world.inbound(SESSION, "running")
    await model.asked(1)
    return first, [await world.inbound(SESSION, f"number {n}") for n in range(1, count + 1)]


async def test_a_full_queue_drops_the_oldest_and_tells_the_model_and_the_sender_once(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    settings = QueueSettings(mode="followup", debounce_ms=0, cap=2)
    async with World(tmp_path, model=model, queue=settings) as world:
        _, waiting = await busy(world, model, 5)
        assert await states(world, *waiting) == ["skipped", "skipped", "skipped", "queued", "queued"]
        model.release()
        await world.idle()
        assert "limit 2" in ((await world.hf.input(waiting[0])).detail or "")
        told = "[3 messages were dropped because too many were waiting; in short:]\n- number 1\n- number 2\n- number 3"
        assert asked(model, 2) == ["running", told, "number 4"]
        assert asked(model, 3).count(told) == 1
        notices = [one.text for one in world.channel.received if "dropped" in one.text]
        assert notices[-1] == "(Too many messages are waiting: 3 messages were dropped, the oldest first.)"


async def test_with_drop_old_nobody_is_told_by_the_model(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    async with World(tmp_path, model=model, queue=QueueSettings("followup", 0, 1, "old")) as world:
        _, waiting = await busy(world, model, 2)
        model.release()
        await world.idle()
        assert await states(world, *waiting) == ["skipped", "answered"]
        assert asked(model, 2) == ["running", "number 2"]


@pytest.mark.parametrize("waits", [False, True])
async def test_with_drop_new_or_a_waiting_caller_the_new_one_is_refused(tmp_path: Path, waits: bool) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    settings = QueueSettings("followup", 0, 1, "old" if waits else "new")
    async with World(tmp_path, model=model, queue=settings) as world:
        _, waiting = await busy(world, model, 1)
        event = InboundEvent(SESSION, {"content": "too much"}, route=Route("test", "user"), waits=waits)
        assert isinstance(await world.hf.accept(event), LaneFull)
        model.release()
        await world.idle()
        assert await states(world, *waiting) == ["answered"]


async def test_who_waits_longer_than_two_seconds_is_told_once_for_all_messages(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    async with World(tmp_path, model=model, queue=QueueSettings(mode="followup", debounce_ms=0)) as world:
        await busy(world, model, 3)
        await world.pass_time(6)
        [notice] = await world.saw("Still busy")
        assert notice.text == "(Still busy with something earlier; 3 messages wait.)"
        model.release()
        await world.idle()
        assert sum("Still busy" in one.text for one in world.channel.received) == 1


async def test_a_sessions_own_settings_win_over_the_configured_ones_and_outlive_a_restart(tmp_path: Path) -> None:
    async with World(tmp_path, queue=QueueSettings()) as world:
        settings = await world.hf.change_queue(SESSION, {"mode": "collect", "cap": 3})
        assert settings == QueueSettings(mode="collect", cap=3)
        await world.restart()
        assert await world.hf.queue_settings(SESSION) == settings
        assert await world.hf.change_queue(SESSION, None) == QueueSettings()


@pytest.mark.promise("P3", "I8")
async def test_a_restart_replays_the_queue_with_its_modes_and_its_order(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    async with World(tmp_path, model=model, queue=QueueSettings(mode="collect")) as world:
        first, waiting = await busy(world, model, 3)
        await world.restart()
        assert await states(world, first, *waiting) == ["queued"] * 4
        model.release()
        await world.idle(passing_s=5)
        assert await states(world, first, *waiting) == ["answered", "merged", "merged", "merged"]  # none had begun


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def collecting(path: Path) -> World:
    return World(path, queue=QueueSettings(mode="collect"))


async def a_collected_turn(world: World) -> None:
    """One message runs while three more arrive, which then are one turn."""
    world.model.hold()
    await world.inbound(SESSION, "one")
    await world.model.asked(1)
    for text in ("two", "three", "four"):
        await world.inbound(SESSION, text)
    world.model.release()
    await world.idle(passing_s=5)


def steering(path: Path) -> World:
    return World(path, model=ScriptedModel(LOOK, otherwise=lambda _: "Both."), tools=[_look(path)],
                 queue=QueueSettings(debounce_ms=0))  # fmt: skip


def _look(path: Path) -> Tool:
    """Sends the second message while it runs, once in all."""

    async def run(_: ToolCall) -> str:
        world = STEERED[path]
        await world.inbound(SESSION, "and this", key="second")
        return "looked"

    return Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), run, restart_safe=True)


STEERED: dict[Path, World] = {}


async def a_steered_turn(world: World) -> None:
    STEERED[world.path] = world
    await world.inbound(SESSION, "look", key="first")
    await world.idle(passing_s=5)


@pytest.mark.parametrize(("story", "make"), [(a_collected_turn, collecting), (a_steered_turn, steering)])
@pytest.mark.promise("P2", "P3")
async def test_a_kill_at_any_point_of_a_shared_turn_loses_and_repeats_nothing(
    tmp_path: Path, story: Callable[[World], Awaitable[None]], make: Callable[[Path], World]
) -> None:
    died = 0
    for nth in range(1, 400, 17):
        path = tmp_path / str(nth)
        path.mkdir()
        async with make(path) as world:
            STEERED[path] = world
            crash = await world.crash_at(None, story, nth=nth, make=make)
            await world.check_promises()
            said = [text for role, text in await world.said(SESSION) if role == "user"] if world.acknowledged else []
            assert len(said) == len(set(said)), said
            if not crash.died:
                break
            died += 1
    assert died > 2


async def test_who_waits_for_an_owner_that_shows_no_life_is_told_who_it_is(tmp_path: Path) -> None:
    async with World(tmp_path, model=ScriptedModel("Here.")) as world, holding(str(world.state), SESSION) as holder:
        holder.send_signal(signal.SIGSTOP)
        waiting = await world.inbound(SESSION, "anybody there?")
        await world.pass_time(75)
        [told] = await world.saw("held by")
        assert f"pid {holder.pid}), run turn_" in told.text
        assert "no life for " in told.text
        assert (await world.hf.input(waiting)).state == "queued"
        await kill(holder)
        while not (await world.hf.input(waiting)).settled:  # a look a second, each with the time that threads need
            await world.pass_time(1)
            await asyncio.sleep(0.01)
        assert (await world.hf.input(waiting)).answer == "Here."
        assert await world.hf.store.tell_of_holder(waiting, "(too late)", "nobody") == 0


async def test_who_waits_for_a_turn_that_works_is_told_of_no_holder(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    async with World(tmp_path, model=model, queue=QueueSettings(mode="followup", debounce_ms=0)) as world:
        await busy(world, model, 1)
        await world.pass_time(75)
        await world.saw("Still busy")
        model.release()
        await world.idle()
        assert [one.text for one in world.channel.received if "held by" in one.text] == []


async def test_of_two_processes_only_the_owner_takes_in_what_waits(tmp_path: Path) -> None:
    """The second handle looks at the queue while the first one's turn has taken the input in: it finds nothing."""
    gate, model = Gate(), ScriptedModel(LOOK, "Both.", "And this.")
    async with World(tmp_path, model=model, tools=[gate.tool], queue=QueueSettings(debounce_ms=0)) as world:
        await world.inbound(SESSION, "look")
        await gate.entered.wait()
        accepted = await world.hf.accept(InboundEvent(SESSION, {"content": "and this"}, queue="steer"))
        assert isinstance(accepted, Accepted)
        [turn] = world.hf.live_turns()
        assert await turn.take_in("steer") == []  # no route: another place than the running turn's
        mine = await world.inbound(SESSION, "and that")
        assert [view.id for view in await turn.take_in("steer")] == [mine]
        waiting, _, _ = await world.hf.store.queue()
        assert [one.id for one in waiting] == [accepted.input_id]
        gate.leave.set()
        await world.idle()
        assert await states(world, mine, accepted.input_id) == ["steered", "answered"]


async def test_whoever_stands_in_line_in_another_process_waits_too_until_it_is_quiet(tmp_path: Path) -> None:
    settings = QueueSettings(mode="collect", debounce_ms=60_000)
    async with holdfast.open(tmp_path) as hf, holdfast.open(tmp_path) as other:
        hf.queue_for = lambda _: settings
        first, second = [
            await hf.accept(InboundEvent(SESSION, {"content": text}, queue="collect")) for text in ("one", "two")
        ]
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        turn = await hf.claim(SESSION, input_id=first.input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "one"}])
        await turn.append(assistant("One.", model="demo/demo"))
        await hf.close_turn(turn, None)
        early = await other.claim(SESSION, input_id=second.input_id, wait_s=5)
        assert isinstance(early, Busy)
        assert early.why == "not quiet"


async def test_who_takes_back_what_a_turn_has_taken_in_gets_its_answer_if_it_comes(tmp_path: Path) -> None:
    """Its line stands before the answer, whose final line names it: that wins. Without an answer it ends as asked."""
    async with holdfast.open(tmp_path) as hf:
        for is_answered, state in ((True, "merged"), (False, "cancelled")):
            first, second = [
                await hf.accept(InboundEvent(SESSION, {"content": text}, queue="collect")) for text in ("one", "two")
            ]
            assert isinstance(first, Accepted)
            assert isinstance(second, Accepted)
            turn = await hf.claim(SESSION, input_id=first.input_id)
            assert isinstance(turn, Turn)
            await turn.append_input([{"role": "user", "content": "one"}])
            assert [view.id for view in await turn.take_in("merge")] == [second.input_id]
            assert await hf.cancel(second.input_id, by="a test") == "requested"
            if is_answered:
                await turn.append(assistant("Both.", model="demo/demo"))
            await hf.close_turn(turn, None)
            if not is_answered:
                turn = await hf.claim(SESSION, input_id=second.input_id)
                assert isinstance(turn, Turn)
                with pytest.raises(TurnCancelledError) as asked_to:
                    await turn.check()
                await hf.close_turn(turn, asked_to.value)
            assert (await hf.input(second.input_id)).state == state


async def test_a_command_neither_gives_way_in_a_full_queue_nor_tells_the_model_of_what_did(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "Yes.")
    settings = QueueSettings(mode="followup", debounce_ms=0, cap=1)
    async with World(tmp_path, model=model, queue=settings, commands=True) as world:
        model.hold()
        await world.inbound(SESSION, "running")
        await model.asked(1)
        dropped = await world.inbound(SESSION, "number 1")
        command = await world.inbound(SESSION, "/new")
        kept = await world.inbound(SESSION, "number 2")
        model.release()
        await world.idle()
        assert await states(world, dropped, command, kept) == ["skipped", "answered", "answered"]
        told = "[1 message was dropped because too many were waiting; in short:]\n- number 1"
        assert asked(model, 2) == [told, "number 2"]


async def test_a_notice_that_was_said_anew_while_it_was_being_cut_goes_out_whole(tmp_path: Path) -> None:
    """A courier has seen the shorter one, and how long it is."""
    settings = QueueSettings(mode="followup", debounce_ms=0, cap=1)
    async with holdfast.open(tmp_path) as hf:
        hf.queue_for = lambda _: settings
        first = await hf.accept(InboundEvent(SESSION, {"content": "0"}, route=Route("test", "user")))
        assert isinstance(first, Accepted)
        assert isinstance(await hf.claim(SESSION, input_id=first.input_id), Turn)
        for text in ("1", "2"):
            await hf.accept(InboundEvent(SESSION, {"content": text}, route=Route("test", "user")))
        [seen] = await hf.store.open_deliveries(["test"])
        await hf.accept(InboundEvent(SESSION, {"content": "3"}, route=Route("test", "user")))
        start = Change(piece_chars=len(seen.body))
        assert await hf.store.move_delivery(seen, "start", start) is None
        [now] = await hf.store.open_deliveries(["test"])
        assert "2 messages were dropped" in now.body
        assert await hf.store.move_delivery(now, "start", Change(piece_chars=len(now.body))) is not None
