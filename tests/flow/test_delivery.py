"""From a settled answer to a user who has it: refusals, hangs, lost confirmations, dead senders."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.config import Config
from holdfast.gateway.app import Parts, build_gateway, open_handle
from holdfast.outbox.delivery import Courier
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE, Change, OpenDelivery
from holdfast.store.embedded.faults import Point
from holdfast.store.views import DeliveryView
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import ScriptedModel
from holdfast.testing.world import World

SESSION = "agent:main:main"
LONGEST_S = 30.0


def traits(**changes: Any) -> ChannelTraits:
    return replace(ChannelTraits(longest_request_s=LONGEST_S, text_max=10_000), **changes)


def reconciling(path: Path) -> World:
    """A world whose channel can be asked; also made in the processes that are killed."""
    return World(path, channel=FakeChannel(traits=traits(reconciles=True), platform=path / "platform.jsonl"))


def keeping(path: Path) -> World:
    """A world whose channel makes no second message of a key."""
    there = FakeChannel(traits=traits(keeps_keys_s=6 * LONGEST_S), platform=path / "platform.jsonl")
    return World(path, channel=there)


async def one_message(world: World) -> None:
    await world.inbound(SESSION, "hello", key="k1")
    await world.saw("re: hello")


async def delivery(world: World, state: str) -> DeliveryView:
    """Wait until the newest delivery is in a state."""
    with world.hf.events.subscribe() as events:
        async with asyncio.timeout(60):
            while True:
                [newest] = await world.hf.deliveries(limit=1) or [None]
                if newest is not None and newest.state == state:
                    return newest
                await events.next(timeout_s=0.05)


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refused_message_is_tried_again_after_growing_pauses_and_then_has_failed(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse(times=6)
        await world.inbound(SESSION, "hello")
        for attempt, pause_s in enumerate((5, 25, 120, 600, 600), 1):
            await world.channel.begun(attempt)
            assert (await delivery(world, "pending")).attempts == attempt
            await world.pass_time(pause_s - 1)
            assert len(world.channel.attempts) == attempt
            await world.pass_time(1)
        failed = await delivery(world, "failed")
        assert failed.detail == "test refused it 6 times: refused by the test"
        assert len({request.delivery_id for request in world.channel.attempts}) == 1
        assert "given up (test refused it 6 times" in await world.story(failed.input_id)
        assert world.channel.received == []


async def test_a_permanent_refusal_fails_at_once_and_the_next_message_goes_on(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse(permanent=True)
        first = await world.inbound(SESSION, "one")
        await world.settled(first)
        await world.inbound(SESSION, "two")
        await world.saw("re: two")
        await world.idle()
        states = {one.input_id == first: (one.state, one.detail) for one in await world.hf.deliveries()}
        assert states[True] == ("failed", "test will not take it: refused by the test")
        assert states[False][0] == "sent"


@pytest.mark.promise("I8")
async def test_a_target_gets_its_messages_in_order_and_does_not_hold_up_another(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse()
        first = await world.inbound(SESSION, "one", to="a")
        await world.channel.begun(1)
        for text, target in (("two", "a"), ("three", "b")):
            await world.settled(await world.inbound(SESSION, text, to=target))
        await world.settled(first)
        await world.channel.arrived(1)
        assert [one.target for one in world.channel.received] == ["b"]
        await world.idle(passing_s=120)
        assert [one.text for one in world.channel.received if one.target == "a"] == ["re: one", "re: two"]


async def test_a_platform_that_asks_for_time_gets_it(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse(retry_after_s=90)
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        await delivery(world, "pending")
        await world.pass_time(89)
        assert len(world.channel.attempts) == 1
        await world.pass_time(2)
        await world.saw("re: hello", times=1)


async def test_a_clock_that_is_set_back_does_not_hold_an_answer_back(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        await delivery(world, "pending")
        world.clock.set_wall_clock(-3600)
        await world.idle(passing_s=120)
        await world.saw("re: hello", times=1)


# ── unknown ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P4")
async def test_a_lost_confirmation_leads_to_a_labelled_copy_once_the_request_can_no_longer_be_under_way(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        world.channel.lose_confirmation()
        await world.inbound(SESSION, "hello")
        assert (await delivery(world, "unknown")).detail == "connection lost before the answer"
        await world.pass_time(LONGEST_S - 2)
        assert len(world.channel.attempts) == 1
        await world.idle(passing_s=120)
        assert [one.label for one in await world.saw("re: hello", times=2)] == [None, POSSIBLE_DUPLICATE]


@pytest.mark.parametrize("has_arrived", [True, False])
@pytest.mark.promise("P4")
async def test_where_keys_are_kept_it_is_sent_again_under_its_own_and_shown_once(
    tmp_path: Path, has_arrived: bool
) -> None:
    async with keeping(tmp_path) as world:
        world.channel.lose_confirmation() if has_arrived else world.channel.lose_request()
        await world.inbound(SESSION, "hello")
        await delivery(world, "unknown")
        await world.pass_time(LONGEST_S - 2)
        assert len(world.channel.attempts) == 1
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label is None
        assert (await delivery(world, "sent")).label is None
        assert len(world.channel.attempts) == 2
        assert "sent again in a way that makes no second message" in await world.story(SESSION)


@pytest.mark.promise("P4")
async def test_a_repeated_message_that_is_put_off_is_labelled_when_its_key_may_be_forgotten(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        world.channel.lose_confirmation()
        world.channel.refuse(retry_after_s=600)
        await world.inbound(SESSION, "hello")
        await delivery(world, "unknown")
        await world.pass_time(2 * LONGEST_S)
        await world.channel.begun(2)
        world.channel.forget_keys()
        await world.idle(passing_s=1200)
        assert [one.label for one in await world.saw("re: hello", times=2)] == [None, POSSIBLE_DUPLICATE]


@pytest.mark.parametrize("point", ["delivery.after_started", "delivery.after_send"])
@pytest.mark.promise("P4", "I6")
async def test_a_kill_around_the_send_leaves_one_copy_where_keys_are_kept(tmp_path: Path, point: Point) -> None:
    async with keeping(tmp_path) as world:
        await world.crash_at(point, one_message, make=keeping)
        await world.check_promises()
        [only] = await world.saw("re: hello", times=1)
        assert only.label is None


@pytest.mark.promise("P4")
async def test_where_a_copy_is_not_wanted_the_doubt_is_reported_instead(tmp_path: Path) -> None:
    async with World(tmp_path, channel=FakeChannel(traits=traits(on_unknown="report"))) as world:
        world.channel.lose_request()
        await world.inbound(SESSION, "hello")
        await world.idle(passing_s=120)
        failed = await delivery(world, "failed")
        assert failed.detail is not None
        assert failed.detail.startswith("nobody can tell whether it has arrived")
        assert len(world.channel.attempts) == 1


@pytest.mark.promise("P4", "I6")
async def test_a_platform_that_can_be_asked_has_it_so_it_is_not_sent_again(tmp_path: Path) -> None:
    async with reconciling(tmp_path) as world:
        world.channel.lose_confirmation()
        await world.inbound(SESSION, "hello")
        await world.idle(passing_s=120)
        assert (await delivery(world, "sent")).detail == "#1"
        assert len(world.channel.finds) == 1
        await world.saw("re: hello", times=1)


async def test_a_platform_that_certainly_does_not_have_it_gets_it_without_a_label(tmp_path: Path) -> None:
    async with reconciling(tmp_path) as world:
        world.channel.lose_request()
        await world.inbound(SESSION, "hello")
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label is None
        assert "not on the platform, to be sent again" in await world.story(SESSION)


async def test_a_platform_that_cannot_be_asked_now_is_asked_later(tmp_path: Path) -> None:
    async with reconciling(tmp_path) as world:
        world.channel.lose_confirmation()
        world.channel.fail_find(times=2)
        await world.inbound(SESSION, "hello")
        await world.idle(passing_s=120)
        assert len(world.channel.finds) == 3
        await world.saw("re: hello", times=1)


async def test_a_platform_that_never_answers_leaves_the_decision_to_the_policy(tmp_path: Path) -> None:
    async with reconciling(tmp_path) as world:
        world.channel.lose_confirmation()
        world.channel.fail_find(times=100)
        await world.inbound(SESSION, "hello")
        await delivery(world, "unknown")
        await world.pass_time(1400)
        await world.idle(passing_s=300)
        assert [one.label for one in await world.saw("re: hello", times=2)] == [None, POSSIBLE_DUPLICATE]


async def test_a_send_that_takes_too_long_is_cut_off_and_its_fate_is_unknown(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.hold()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        await world.pass_time(LONGEST_S)
        assert (await delivery(world, "unknown")).detail == "no answer within 30 s"
        world.channel.release()
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label == POSSIBLE_DUPLICATE


async def test_an_error_nobody_expected_of_an_adapter_is_doubt_and_not_a_refusal(tmp_path: Path) -> None:
    class Broken(FakeChannel):
        async def send(self, request: SendRequest) -> Sent:
            await super().send(request)
            raise KeyError("ts")

    async with World(tmp_path, channel=Broken()) as world:
        await world.inbound(SESSION, "hello")
        assert (await delivery(world, "unknown")).detail == "KeyError: 'ts'"


# ── dead and stopped senders ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P4")
async def test_a_send_that_a_living_process_has_begun_is_left_to_it(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.hold()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        other = FakeChannel(traits=traits(longest_request_s=0.0))
        async with holdfast.open(world.state) as hf:
            courier = Courier(hf, [other])
            running = asyncio.create_task(courier.run())
            for _ in range(20):
                hf.answers_arrived.set()
                [seen] = await hf.store.open_deliveries(["test"])
                assert (seen.state, seen.sender) == ("started", "alive")
            await courier.stop()
            await running
        assert other.attempts == []
        world.channel.release()
        await world.saw("re: hello", times=1)


@pytest.mark.promise("P4")
async def test_of_two_processes_that_saw_the_same_row_one_gets_to_send_it(tmp_path: Path) -> None:
    async with World(tmp_path, channel=FakeChannel("other")) as world, holdfast.open(world.state) as hf:
        event = holdfast.InboundEvent(SESSION, {"content": "hello"}, route=holdfast.Route("test", "user"))
        await world.hf.accept(event)
        await delivery(world, "pending")
        [seen_here], [seen_there] = [await one.store.open_deliveries(["test"]) for one in (world.hf, hf)]
        taken = await hf.store.move_delivery(seen_there, "start")
        assert taken is not None
        assert taken.process == hf.process_id
        assert await world.hf.store.move_delivery(seen_here, "start") is None
        assert await world.hf.store.move_delivery(taken, "confirm") is not None  # the row as it is may be moved on


@pytest.mark.promise("P4")
async def test_a_kill_before_the_send_leads_to_a_labelled_copy_where_the_platform_cannot_be_asked(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        await world.crash_at("delivery.after_started", one_message)
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label == POSSIBLE_DUPLICATE
        assert "its sender died before it knew" in await world.story(SESSION)


@pytest.mark.parametrize("point", ["delivery.after_started", "delivery.after_send"])
@pytest.mark.promise("P4", "I6")
async def test_a_kill_around_the_send_leaves_one_copy_where_the_platform_can_be_asked(
    tmp_path: Path, point: Point
) -> None:
    async with reconciling(tmp_path) as world:
        await world.crash_at(point, one_message, make=reconciling)
        await world.check_promises()
        [only] = await world.saw("re: hello", times=1)
        assert only.label is None


async def begun_elsewhere(world: World, sender: holdfast.Holdfast) -> OpenDelivery:
    """Another process has begun to send and says nothing more."""
    event = holdfast.InboundEvent(SESSION, {"content": "hello"}, route=holdfast.Route("late", "user"))
    await world.hf.accept(event)
    await delivery(world, "pending")
    [seen] = await sender.store.open_deliveries(["late"])
    started = await sender.store.move_delivery(seen, "start", Change(piece_chars=len(seen.body)))
    assert started is not None
    return started


@pytest.mark.parametrize("on_unknown", ["resend_labelled", "report"])
@pytest.mark.promise("P4", "I9")
async def test_a_sender_that_stands_still_holds_its_target_up_for_two_minutes_and_no_longer(
    tmp_path: Path, on_unknown: Any
) -> None:
    """It may go on later and send its unlabelled copy: what goes past it has a label, or is a report."""
    async with World(tmp_path) as world, holdfast.open(world.state) as sender:
        stalled = await begun_elsewhere(world, sender)
        late = FakeChannel("late", traits=traits(reconciles=True, on_unknown=on_unknown))
        courier = Courier(world.hf, [late])
        running = asyncio.create_task(courier.run())
        await world.pass_time(LONGEST_S + 85)
        assert late.attempts == []
        await world.pass_time(15)
        after = await delivery(world, "sent" if on_unknown == "resend_labelled" else "failed")
        await world.inbound(SESSION, "next", to=None)
        await courier.stop()
        await running
        assert [one.label for one in late.attempts] == [POSSIBLE_DUPLICATE] * (on_unknown == "resend_labelled")
        assert "stands still" in await world.story(after.input_id)
        assert await sender.store.move_delivery(stalled, "confirm") is None  # it comes too late, and learns so


async def test_a_sender_of_whom_nobody_can_tell_whether_it_lives_is_reported_and_waited_for_as_one_that_stands_still(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(tmp_path) as world:
        async with holdfast.open(world.state) as sender:
            await begun_elsewhere(world, sender)
        (world.state / "processes" / sender.process_id).unlink()
        late = FakeChannel("late", traits=traits(on_unknown="resend_labelled"))
        courier = Courier(world.hf, [late])
        running = asyncio.create_task(courier.run())
        await world.pass_time(100)
        assert late.attempts == []
        await world.pass_time(30)
        await delivery(world, "sent")
        await courier.stop()
        await running
    assert [one.label for one in late.attempts] == [POSSIBLE_DUPLICATE]
    assert [record.message for record in caplog.records if "whose sentinel has been removed" in record.message]


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_courier_that_stops_lets_a_send_end(tmp_path: Path) -> None:
    async with World(tmp_path, channel=FakeChannel("other")) as world:
        channel = FakeChannel()
        courier = Courier(world.hf, [channel])
        running = asyncio.create_task(courier.run())
        channel.hold()
        event = holdfast.InboundEvent(SESSION, {"content": "hello"}, route=holdfast.Route("test", "user"))
        await world.hf.accept(event)
        await channel.begun(1)
        stopping = asyncio.create_task(courier.stop(5.0))
        await asyncio.wait({running})
        assert not stopping.done()
        channel.release()
        await stopping
        assert (await delivery(world, "sent")).attempts == 1


async def test_a_send_that_is_cut_off_by_the_end_of_its_process_is_unknown_and_not_lost(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.hold()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        await world.restart()
        assert (await delivery(world, "unknown")).detail == "cut off while it was being sent"
        world.channel.release()
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label == POSSIBLE_DUPLICATE


@pytest.mark.promise("P3", "I9")
async def test_what_was_pending_at_the_end_of_a_process_is_delivered_by_the_next(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        await delivery(world, "pending")
        await world.restart()
        await world.idle(passing_s=120)
        [only] = await world.saw("re: hello", times=1)
        assert only.label is None


@pytest.mark.promise("P4")
async def test_a_confirmation_that_the_disk_refuses_is_recorded_later_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    class FullDisk:
        is_full = False

        def __call__(self, point: Point) -> None:
            if self.is_full and point == "ledger.before_commit":
                raise sqlite3.OperationalError("database or disk is full")

    disk = FullDisk()
    async with World(tmp_path, faults=disk) as world:
        world.channel.hold()
        await world.inbound(SESSION, "hello")
        await world.channel.begun(1)
        disk.is_full = True
        world.channel.release()
        await world.channel.arrived(1)
        await world.pass_time(10)
        assert (await delivery(world, "started")).attempts == 1
        disk.is_full = False
        await world.idle(passing_s=120)
        await world.saw("re: hello", times=1)


# ── pieces, events ───────────────────────────────────────────────────────────────────────────────────────────────────


def in_pieces(path: Path) -> World:
    channel = FakeChannel(traits=traits(text_max=40, reconciles=True), platform=path / "platform.jsonl")
    return World(path, channel=channel)


LONG = "one two three four five six seven eight nine ten"


async def long_message(world: World) -> None:
    await world.inbound(SESSION, LONG, key="k1")
    await world.saw("ten")


async def test_a_text_too_long_for_one_message_goes_out_in_pieces_with_keys_of_their_own(tmp_path: Path) -> None:
    async with in_pieces(tmp_path) as world:
        world.channel.lose_confirmation()
        await world.inbound(SESSION, LONG)
        await world.idle(passing_s=120)
        pieces = world.channel.received
        assert " ".join(one.text for one in pieces) == f"re: {LONG}", "blank space at a cut is left out"
        assert len(pieces) == len({one.delivery_id for one in pieces}) > 2
        assert all(len(one.text) <= 40 - len(POSSIBLE_DUPLICATE) - 1 for one in pieces)
        [row] = await world.hf.deliveries()
        assert row.state == "sent"


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.promise("P4", "I6")
async def test_a_kill_between_two_pieces_neither_repeats_nor_drops_one(tmp_path: Path, nth: int) -> None:
    async with in_pieces(tmp_path) as world:
        await world.crash_at("delivery.after_send", long_message, nth=nth, make=in_pieces)
        await world.check_promises()
        assert " ".join(one.text for one in world.channel.received) == f"re: {LONG}"


async def test_every_change_of_a_delivery_is_told_to_whoever_watches(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse()
        with world.hf.events.subscribe(session=SESSION) as events:
            input_id = await world.inbound(SESSION, "hello")
            await world.idle(passing_s=120)
            told: list[tuple[str, str]] = []
            while (event := await events.next(timeout_s=0.0)) is not None:
                if event.kind == "delivery":
                    assert event.input_id == input_id
                    told.append((event.data["event"], event.data["state"]))
        assert told == [("start", "started"), ("refuse", "pending"), ("start", "started"), ("confirm", "sent")]


async def test_a_gateway_delivers_to_the_channels_it_is_given(tmp_path: Path) -> None:
    config, channel = Config(), FakeChannel()
    parts = Parts(models={"demo": ScriptedModel("Hello!")}, channels=[channel])
    async with (
        open_handle(config, tmp_path / "state", kind="gateway", parts=parts) as hf,
        build_gateway(config, hf, token="t" * 32, host="127.0.0.1", parts=parts),
    ):
        await hf.accept(holdfast.InboundEvent(SESSION, {"content": "hello"}, route=holdfast.Route("test", "user")))
        [arrived] = await channel.arrived(1)
        assert (arrived.target, arrived.text) == ("user", "Hello!")
