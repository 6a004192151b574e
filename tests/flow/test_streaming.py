"""An answer is shown while it is written, and the message in which it was shown becomes the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.channel.listening import Adapter
from holdfast.config import Config
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.model.client import ModelRequest, StreamItem, TextDelta, ToolSpec
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE
from holdfast.outbox.preview import Mode, preview_text
from holdfast.outbox.showing import Showing, Surface
from holdfast.store.embedded.faults import Point
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.platform import FakePlatform
from holdfast.testing.served import Served, served
from holdfast.testing.world import World
from holdfast.turn.events import TurnEvent
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"
PAUSE = "(pause)"
BEGIN = "Here is the beginning of a long answer,"
ANSWER = f"{BEGIN} {PAUSE} and here is how it ends."
TWO = f"A first paragraph that is done.\n\nA second one that {PAUSE} is not."


class Halting(ScriptedModel):
    """Stops before each word "(pause)" until it may go on."""

    def __init__(self, *script: str | Reply | BaseException, **rest: Any) -> None:
        super().__init__(*script, **rest)
        self.may_go_on = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        async for item in super().stream(request):
            if isinstance(item, TextDelta) and PAUSE in item.text:
                await self.may_go_on.wait()
            yield item


@asynccontextmanager
async def showing(
    tmp_path: Path, model: ScriptedModel, streaming: Mode = "partial", tools: Sequence[Tool] = ()
) -> AsyncIterator[tuple[FakePlatform, Served]]:
    platform = FakePlatform()
    config = Config.model_validate({"channels": {"test": {"dm": "open", "streaming": streaming}}})
    async with served(
        tmp_path / "state", model=model, config=config, adapters={"test": platform.adapter()}, tools=tools
    ) as gateway:
        yield platform, gateway


@pytest.mark.parametrize(
    ("text", "mode", "shown"),
    [
        (ANSWER, "off", ""), ("too short", "partial", ""), ("NO_REPLY", "partial", ""),
        (BEGIN, "partial", f"{BEGIN} …"),
        (TWO, "block", "A first paragraph that is done. …"), (BEGIN, "block", ""),
        ("Look at this:\n\n```python\nx = 1\n\ny = 2", "block", ""),
        ("Look at this code:\n\n```python\nx = 1", "partial", "Look at this code:\n\n```python\nx = 1\n```\n…"),
        ("Look at this code:\n\n```\nx = 1\n```", "partial", "Look at this code:\n\n```\nx = 1\n```\n…"),
        ("word " * 50, "partial", "word " * 16 + "word …"),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_text_that_is_not_all_there(text: str, mode: Mode, shown: str) -> None:
    assert preview_text(text, mode, 101) == shown


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("streaming", "first"), [("partial", f"{BEGIN} …"), ("block", "A first paragraph that is done. …")]
)
async def test_an_answer_grows_and_stays_one_message(tmp_path: Path, streaming: Mode, first: str) -> None:
    answer = ANSWER if streaming == "partial" else TWO
    model = Halting(answer)
    async with showing(tmp_path, model, streaming) as (platform, gateway):
        await platform.says("hello")
        await platform.shows(first)
        assert platform.typed[:1] == ["U1"]
        assert platform.messages[0].preview
        model.may_go_on.set()
        await platform.shows(answer)
        assert (len(platform.messages), platform.messages[0].preview) == (1, False)
        await until_none(gateway)


async def until_none(gateway: Served) -> None:
    """Wait until every delivery is done; then no beginning is known any more."""
    async with asyncio.timeout(60):
        while True:
            rows = await gateway.hf.deliveries()
            if rows and all(row.state == "sent" for row in rows):
                break
            await asyncio.sleep(0.02)
    assert [await gateway.hf.store.preview(row.id) for row in rows] == [None] * len(rows)


async def test_nothing_is_shown_before_an_answer_where_that_is_off_or_the_answer_short(tmp_path: Path) -> None:
    async with showing(tmp_path, Halting("short"), "partial") as (platform, gateway):
        await platform.says("hello")
        await platform.shows("short")
        await until_none(gateway)
        assert [len(one.versions) for one in platform.messages] == [1]


async def test_the_beginning_of_an_answer_that_came_to_nothing_is_taken_away(tmp_path: Path) -> None:
    async def look(call: ToolCall) -> str:
        return "seen"

    tool = Tool(ToolSpec("look", "Looks.", {"type": "object"}), look, effect="none")
    model = Halting(Reply(text=ANSWER, calls=[("look", {})]), "NO_REPLY")
    async with showing(tmp_path, model, tools=[tool]) as (platform, gateway):
        await platform.says("hello")
        await platform.shows(f"{BEGIN} …")
        model.may_go_on.set()
        await platform.until(lambda: platform.texts == [] and len(platform.messages) == 1)
        assert await gateway.hf.deliveries() == []


@pytest.mark.promise("P4")
async def test_a_beginning_of_which_nobody_heard_is_found_and_becomes_the_answer(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with showing(tmp_path, model) as (platform, gateway):
        platform.lose_answer()
        await platform.says("hello")
        await platform.until(lambda: len(platform.messages) == 1)
        model.may_go_on.set()
        await platform.shows(ANSWER)
        await until_none(gateway)
        assert len(platform.messages) == 1


@pytest.mark.promise("P4")
async def test_a_last_edit_of_which_nobody_heard_is_found(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with showing(tmp_path, model) as (platform, gateway):
        await platform.says("hello")
        await platform.shows(f"{BEGIN} …")
        platform.lose_answer()
        model.may_go_on.set()
        await platform.shows(ANSWER)
        await until_none(gateway)
        assert len(platform.messages) == 1


async def test_where_the_beginning_was_taken_away_the_answer_goes_out_anew(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with showing(tmp_path, model) as (platform, gateway):
        await platform.says("hello")
        await platform.shows(f"{BEGIN} …")
        await platform.remove("0", "U1")
        model.may_go_on.set()
        await platform.shows(ANSWER)
        await until_none(gateway)
        assert platform.texts == [ANSWER]


async def test_a_turn_that_fails_says_so_in_place_of_the_beginning(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with showing(tmp_path, model) as (platform, gateway):
        receipt = await platform.says("hello")
        await platform.shows(f"{BEGIN} …")
        await gateway.hf.cancel(receipt.input_id or "", by="test")
        await until_none_shown(platform)
        assert len(platform.messages) == 1


@pytest.mark.promise("P4")
async def test_whoever_delivers_waits_for_what_an_earlier_turn_of_the_input_still_shows(tmp_path: Path) -> None:
    """Its request is on the way when the turn is lost and the next one begins, in the same process."""
    channel = FakeChannel()
    channel.hold()
    async with holdfast.open(tmp_path) as hf:
        showing = Showing(hf, [Surface(Adapter(channel, editor=channel), "partial")])
        running = asyncio.create_task(showing.run())
        await asyncio.sleep(0)  # it listens from its first step on
        accepted = await hf.accept(InboundEvent(SESSION, {"content": "hello"}, route=Route("test", "user")))
        assert isinstance(accepted, Accepted)
        turn = await hf.claim(SESSION, input_id=accepted.input_id)
        assert isinstance(turn, holdfast.Turn)
        turn.publish("turn.delta", text=BEGIN)
        await channel.begun()
        hf.events.publish(TurnEvent("turn.started", SESSION, 0, accepted.input_id, "the next"))
        ending = asyncio.create_task(showing.ended(accepted.input_id))
        await asyncio.wait({ending}, timeout=0.1)
        assert not ending.done()
        channel.release()
        await ending
        assert [one.text for one in channel.received] == [f"{BEGIN} …"]
        showing.stop()
        await running


async def until_none_shown(platform: FakePlatform) -> None:
    await platform.until(lambda: not any(one.preview and not one.is_gone for one in platform.messages))


# ── a process dies ───────────────────────────────────────────────────────────────────────────────────────────────────

DEATHS: list[tuple[Point, int, str]] = [
    ("preview.after_begin", 1, "the ledger knows, nothing was shown"),
    ("preview.after_send", 1, "it is shown, and nobody knows its name"),
    ("settle.after_sync", 1, "it is shown, the answer is in its file and not settled"),
    ("settle.after_commit", 1, "the answer is queued, its beginning is shown"),
    ("delivery.after_started", 1, "the last edit is about to go out"),
    ("delivery.after_send", 1, "the last edit has arrived, the ledger does not know"),
]


def world_of(path: Path, *, reconciles: bool = True) -> World:
    from holdfast.channel.channel import ChannelTraits

    traits = ChannelTraits(reconciles=reconciles, longest_request_s=2.0, text_max=1000)
    channel = FakeChannel(traits=traits, platform=path / "platform.jsonl")
    return World(path, model=Halting(otherwise=lambda _: ANSWER), channel=channel, streaming="partial")


def world_that_cannot_be_asked(path: Path) -> World:
    return world_of(path, reconciles=False)


async def begin(world: World) -> None:
    await world.inbound("agent:main:main", "hello", key="k1")


def let_go_on(world: World) -> None:
    vars(world.model)["may_go_on"].set()  # in a process of its own this module is there twice, and so is the class


async def story(world: World) -> None:
    """The beginning is shown, then the rest comes."""
    await begin(world)
    while not world.channel.received:
        await world.pass_time(1)
    let_go_on(world)
    await world.idle(passing_s=30)


async def check(world: World) -> list[str]:
    let_go_on(world)
    await begin(world)
    await world.idle(passing_s=200)
    await world.check_promises()
    assert not [one for one in world.channel.received if one.preview and one.delivery_id is None]
    return [f"{one.label or ''} {one.text}".strip() for one in world.channel.received]


@pytest.mark.promise("P4")
@pytest.mark.parametrize(("point", "nth", "when"), DEATHS, ids=[point for point, _, _ in DEATHS])
async def test_a_process_may_die_while_an_answer_is_shown(tmp_path: Path, point: Point, nth: int, when: str) -> None:
    async with world_of(tmp_path) as world:
        crash = await world.crash_at(point, story, nth=nth, make=world_of)
        assert crash.died, when
        assert await check(world) == [ANSWER], when


@pytest.mark.promise("P4")
async def test_where_nobody_can_tell_whether_a_beginning_is_shown_the_answer_is_labelled(tmp_path: Path) -> None:
    async with world_that_cannot_be_asked(tmp_path) as world:
        await world.crash_at("preview.after_send", story, make=world_that_cannot_be_asked)
        assert await check(world) == [f"{BEGIN} …", f"{POSSIBLE_DUPLICATE} {ANSWER}"]
