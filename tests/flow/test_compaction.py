"""Conversations that become too long: shortened before, between and in the middle of turns, by hand, and by nobody who
has lost them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.context import summary
from holdfast.context.plan import SUMMARY_HEAD
from holdfast.context.settings import CompactionSettings
from holdfast.errors import ProviderError
from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.lane.queue import QueueSettings
from holdfast.model.client import ModelRequest, ToolSpec
from holdfast.session.entries import text_of
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"
WINDOW = 4_000
ABOUT_1000_TOKENS = "word " * 600
OVERFLOW = "This model's maximum context length is 4000 tokens. However, your messages resulted in 9000 tokens."


def is_summary(request: ModelRequest) -> bool:
    return request.system == summary.SYSTEM


def answers(request: ModelRequest) -> str:
    """Summaries are "In short.", everything else is answered in one word."""
    return "In short." if is_summary(request) else "yes"


def small(path: Path, model: ScriptedModel | None = None, **options: Any) -> World:
    model = model or ScriptedModel(otherwise=answers)
    return World(path, model=model, context_window=WINDOW, commands=True, queue=QueueSettings(debounce_ms=0), **options)


def asked(world: World, *, summaries: bool) -> list[ModelRequest]:
    return [request for request in world.model.requests if is_summary(request) == summaries]


async def compactions(world: World) -> list[dict[str, Any]]:
    return [line for line in await world.transcript(SESSION) if line["type"] == "compaction"]


async def talk(world: World, *texts: str) -> None:
    for text in texts:
        view = await world.settled(await world.inbound(SESSION, text))
        assert view.state == "answered", await world.story(view.id)


async def fill(world: World) -> None:
    """Three messages, after which the threshold is passed and there still is room."""
    await talk(world, f"0 {ABOUT_1000_TOKENS}", f"1 {ABOUT_1000_TOKENS}", f"2 {ABOUT_1000_TOKENS[:2100]}")


async def test_a_conversation_is_shortened_between_turns_before_it_fills_the_window(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        await fill(world)
        await world.idle(passing_s=5)
        [line] = await compactions(world)
        assert line["summary"] == "In short."
        assert line["details"]["why"] == "threshold"
        assert line["tokensBefore"] > WINDOW * 2 // 3
        await talk(world, "and now?")
        shown = world.model.requests[-1].messages
        assert text_of(shown[0]) == SUMMARY_HEAD + "In short."
        assert text_of(shown[-1]) == "and now?"
        assert len([text for role, text in await world.said(SESSION) if role == "user"]) == 4
        await world.idle(passing_s=5)
        assert [one.text for one in world.channel.received] == ["yes"] * 4  # nobody is told of it
        await world.check_promises()


async def test_a_conversation_without_room_for_the_next_message_is_shortened_in_its_turn(tmp_path: Path) -> None:
    settings = CompactionSettings(headroom_tokens=0, reserve_tokens=1)
    async with small(tmp_path, compaction=settings) as world:
        await talk(world, *[f"{n} {ABOUT_1000_TOKENS}" for n in range(3)], f"last {ABOUT_1000_TOKENS}")
        [line] = await compactions(world)
        assert line["details"]["why"] == "room"
        shown = [text_of(message) for message in world.model.requests[-1].messages]
        assert shown[0].startswith(SUMMARY_HEAD)
        assert shown[-1].startswith("last")
        assert (await world.hf.inputs(limit=1))[0].attempts == 1


async def test_a_context_that_is_refused_as_too_long_is_shortened_and_the_same_model_asked_once_more(
    tmp_path: Path,
) -> None:
    model = ScriptedModel("a", "b", ProviderError(OVERFLOW, status=400), "In short.", "after all", otherwise=answers)
    async with World(tmp_path, model=model) as world:
        await talk(world, "one", "two")
        view = await world.settled(await world.inbound(SESSION, "three"))
        assert view.answer == "after all"
        assert [one["details"]["why"] for one in await compactions(world)] == ["overflow"]
        assert text_of(model.requests[-1].messages[-1]) == "three"
        assert {one.model for one in model.requests} == {"scripted/model"}
        assert (await world.hf.models()).cooldowns == []
        story = await world.story(view.id)
        assert "refused as too long" in story
        assert "the conversation was shortened from" in story


async def test_a_context_that_is_still_too_long_has_a_named_outcome_and_is_no_failure_of_the_model(
    tmp_path: Path,
) -> None:
    refused = [ProviderError(OVERFLOW, status=400) for _ in range(2)]
    async with World(tmp_path, model=ScriptedModel("a", "b", refused[0], "In short.", refused[1])) as world:
        await talk(world, "one", "two")
        view = await world.settled(await world.inbound(SESSION, "three"))
        assert (view.state, view.error) == ("failed", "TurnLimitError")
        assert "does not fit the context window" in (view.detail or "")
        assert (await world.hf.models()).cooldowns == []
        assert len(world.model.requests) == 5


async def test_where_there_is_nothing_to_leave_out_the_model_is_asked_only_once(tmp_path: Path) -> None:
    async with World(tmp_path, model=ScriptedModel(ProviderError(OVERFLOW, status=400))) as world:
        view = await world.settled(await world.inbound(SESSION, "one"))
        assert (view.state, view.error) == ("failed", "TurnLimitError")
        assert await compactions(world) == []


async def test_a_turn_whose_own_steps_fill_the_window_keeps_its_question_in_sight(tmp_path: Path) -> None:
    async def look(_: ToolCall) -> str:
        return "found " * 500

    tool = Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), look)

    def act(request: ModelRequest) -> str | Reply:
        if is_summary(request):
            return "It has looked."
        results = sum(len([one for one in world.model.requests if not is_summary(one)]) for _ in range(1))
        return Reply(calls=[("look", {})]) if results < 8 else "found it"

    async with small(tmp_path, ScriptedModel(otherwise=act), tools=[tool]) as world:
        view = await world.settled(await world.inbound(SESSION, "what is there?"))
        assert view.answer == "found it"
        assert await compactions(world)
        shown = world.model.requests[-1].messages
        assert [text_of(one) for one in shown if one["role"] == "user"][-1] == "what is there?"
        calls = [part["id"] for one in shown for part in one["content"] if part["type"] == "toolCall"]
        assert calls == [one["toolCallId"] for one in shown if one["role"] == "toolResult"]
        await world.idle(passing_s=5)
        await world.check_promises()


async def test_after_a_pause_long_results_are_shown_without_their_middle_and_kept_whole(tmp_path: Path) -> None:
    async def look(_: ToolCall) -> str:
        return "found " * 2_000

    tool = Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), look)
    model = ScriptedModel(Reply(calls=[("look", {})]), "found it", "yes")
    async with World(tmp_path, model=model, tools=[tool]) as world:
        await talk(world, "what is there?")
        await world.pass_time(301)
        await talk(world, "sure?")
        [shown] = [text_of(one) for one in model.requests[-1].messages if one["role"] == "toolResult"]
        assert "characters left out" in shown
        assert ("toolResult", "found " * 2_000) in await world.said(SESSION)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_user_shortens_a_conversation_and_says_what_to_keep(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        await talk(world, "the invoice is in /data/invoices/2026.pdf", "thanks")
        view = await world.settled(await world.inbound(SESSION, "/compact the invoices"))
        assert (view.answer or "").startswith("Shortened: about ")
        [line] = await compactions(world)
        assert line["details"]["focus"] == "the invoices"
        assert line["summary"] == "In short.\n\nAlso mentioned: /data/invoices/2026.pdf"
        first, again = (text_of(one.messages[0]) for one in asked(world, summaries=True))
        assert "Keep above all: the invoices" in first
        assert "it does not tell /data/invoices/2026.pdf" in again
        assert "/compact" not in json.dumps(await world.said(SESSION))


async def test_in_an_empty_conversation_there_is_nothing_to_shorten(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        view = await world.settled(await world.inbound(SESSION, "/compact"))
        assert view.answer == "Nothing was shortened: there is nothing to shorten."
        assert world.model.requests == []


async def test_what_is_shortened_again_takes_the_older_summary_in(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        await talk(world, "one", "/compact", "two", "three", "/compact")
        asked_last = text_of(asked(world, summaries=True)[-1].messages[0])
        assert "<record>\nIn short.\n</record>" in asked_last
        assert "User: one" not in asked_last
        assert len(await compactions(world)) == 2


async def test_a_compaction_waits_for_the_turn_that_has_the_session(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        world.model.hold()
        first = await world.inbound(SESSION, "one")
        await world.model.asked(1)
        by_hand = await world.inbound(SESSION, "/compact")
        asked_for = await ask_for_compaction(world.hf, SESSION, by="the operator")
        assert {(await world.hf.input(one)).state for one in (by_hand, asked_for.input_id)} == {"queued"}  # pyright: ignore[reportAttributeAccessIssue]
        world.model.release()
        assert (await world.settled(first)).state == "answered"
        assert (await world.settled(by_hand)).state == "answered"
        await world.idle(passing_s=5)
        turns = await world.hf.turns(session=SESSION)
        assert len(turns) == 3


# ── summaries that are of no use ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_summary_that_is_of_no_use_twice_becomes_an_extract(tmp_path: Path) -> None:
    model = ScriptedModel("a", "b", Reply(" "), Reply("cut off here", stop_reason="length"))
    async with small(tmp_path, model) as world:
        await talk(world, "please remember ABC-123", "thanks")
        view = await world.settled(await world.inbound(SESSION, "/compact"))
        assert "an extract stands in their place" in (view.answer or "")
        [line] = await compactions(world)
        assert "- please remember ABC-123" in line["summary"]
        assert line["details"]["by"] == "extract"
        assert "a summary was not used: it was cut off" in await world.story(view.id)


async def test_a_summary_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    model = ScriptedModel("a", "word " * 20_000, "In short.")
    async with small(tmp_path, model) as world:
        await talk(world, "one", "/compact")
        [line] = await compactions(world)
        assert line["summary"] == "In short."


async def test_without_a_model_nothing_is_shortened_and_the_turn_sees_what_fits(tmp_path: Path) -> None:
    settings = CompactionSettings(headroom_tokens=0, reserve_tokens=1)

    def act(request: ModelRequest) -> Reply | str:
        return Reply(error=ProviderError("no credit", status=402)) if is_summary(request) else "yes"

    async with small(tmp_path, ScriptedModel(otherwise=act), compaction=settings) as world:
        await talk(world, *[f"{n} {ABOUT_1000_TOKENS}" for n in range(4)])
        assert await compactions(world) == []
        view = (await world.hf.inputs(session=SESSION, limit=1))[0]
        story = await world.story(view.id)
        assert "old messages were left out" in story
        assert "the conversation was not shortened: no model wrote a summary" in story


async def test_a_long_conversation_is_summarised_in_parts(tmp_path: Path) -> None:
    async with World(tmp_path, model=ScriptedModel(otherwise=answers)) as world:
        await talk(world, *[f"{n} {ABOUT_1000_TOKENS}" for n in range(8)])
    async with small(tmp_path) as world:  # the agent has another model now
        await talk(world, "and now?")
        parts = asked(world, summaries=True)
        assert len(parts) >= 3
        assert "<record>\nIn short.\n</record>" in text_of(parts[-1].messages[0])
        assert len(await compactions(world)) == 1


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def held_in_upkeep(world: World) -> str:
    """A conversation past the threshold, with room left, whose compaction waits for its summary."""
    await talk(world, *[f"{n} {ABOUT_1000_TOKENS}" for n in range(2)])
    world.model.hold()
    count = len(world.model.requests)
    admission = await ask_for_compaction(world.hf, SESSION, by="a test", why="hand")
    await world.model.asked(count + 1)
    return admission.input_id  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_users_message_goes_first_and_the_compaction_is_done_after_it(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        upkeep = await held_in_upkeep(world)
        message = await world.inbound(SESSION, "hello")
        await world.pass_time(2)
        while world.model.open:  # the summary's stream is closed
            await world.pass_time(0.1)
            if len(world.model.requests) and not is_summary(world.model.requests[-1]):
                break
        world.model.release()
        assert (await world.settled(message)).answer == "yes"
        assert await world.settled(upkeep)
        await world.idle(passing_s=5)
        kinds = [line["type"] if line["type"] == "compaction" else text_of(line["message"])[:5]
                 for line in await world.transcript(SESSION)]  # fmt: skip
        assert kinds[-3:] == ["hello", "yes", "compaction"]
        assert "gave way to" in await world.story(upkeep)


async def test_a_stopped_compaction_leaves_the_session_as_it_was(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        upkeep = await held_in_upkeep(world)
        before = await world.transcript(SESSION)
        await world.hf.cancel(upkeep, by="somebody")
        assert (await world.settled(upkeep)).state == "cancelled"
        assert await world.transcript(SESSION) == before
        world.model.release()
        await talk(world, "hello")


async def test_a_summary_that_does_not_come_in_time_is_given_up(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        upkeep = await held_in_upkeep(world)
        await world.pass_time(181)
        view = await world.settled(upkeep)
        assert (view.state, view.detail) == ("skipped", "no summary within 180 s")
        assert await compactions(world) == []


async def test_whoever_lost_the_session_while_the_summary_was_written_appends_none(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        upkeep = await held_in_upkeep(world)
        [session] = await world.hf.sessions(prefix=SESSION)
        path = Path(session.path or "")
        leaf = (await world.transcript(SESSION))[-1]["id"]
        foreign = {"type": "message", "id": "f0", "parentId": leaf, "timestamp": "2026-01-01T00:00:00.000Z",
                   "message": {"role": "user", "content": "from elsewhere", "timestamp": 0}}  # fmt: skip
        path.write_bytes(path.read_bytes() + json.dumps(foreign).encode() + b"\n")
        world.model.release()
        await world.settled(upkeep)
        lost = [one for one in await world.hf.turns(session=SESSION) if "foreign_turn" in (one.detail or "")]
        assert len(lost) == 1
        [line] = await compactions(world)  # of the next turn, which has read what somebody else wrote
        assert (line["parentId"], line["holdfast"]["turn"] != lost[0].id) == ("f0", True)


async def test_a_user_who_asks_for_it_gets_it_once_whoever_dies_after_the_summary(tmp_path: Path) -> None:
    async with small(tmp_path) as world:
        await talk(world, "one", "two")
        crash = await world.crash_at("append.after_write", by_hand, make=make)
        assert crash.died
        await world.idle(passing_s=120)
        assert len(await compactions(world)) == 1
        await world.saw("Shortened: about ")


async def by_hand(world: World) -> None:
    await world.settled(await world.inbound(SESSION, "/compact"))


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make(path: Path) -> World:
    return small(path)


async def upkeep(world: World) -> None:
    await ask_for_compaction(world.hf, SESSION, by="a test", key="once")
    await world.idle(passing_s=5)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.promise("P3", "P5")
async def test_whoever_dies_anywhere_in_a_compaction_leaves_a_whole_conversation(tmp_path: Path) -> None:
    async with small(tmp_path / "before") as world:
        await talk(world, "one", "two")
        await world.idle(passing_s=5)
    for nth in range(1, 200):
        shutil.copytree(tmp_path / "before", tmp_path / str(nth))
        async with small(tmp_path / str(nth)) as world:
            crash = await world.crash_at(None, upkeep, nth=nth, make=make)
            await upkeep(world)
            assert len(await compactions(world)) == 1
            await talk(world, "and now?")
            assert text_of(world.model.requests[-1].messages[0]).startswith(SUMMARY_HEAD)
            assert [text for role, text in await world.said(SESSION) if role == "user"] == ["one", "two", "and now?"]
            await world.check_promises()
        if not crash.died:
            assert nth > 5
            return
    raise AssertionError("there are more than 200 points")
