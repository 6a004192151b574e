"""pydantic-ai's conversations in sessions, and its runs as turns."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryImage, ModelRetry, UsageLimits
from pydantic_ai import messages as pm
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationStore, InMemoryConversationStore
from pydantic_ai.exceptions import UsageLimitExceeded, UserError
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel

import holdfast
from holdfast.integrations.pydantic_ai import SessionConversations, WindowModel, own
from tests.integrations.scene_plain import said_in

pytestmark = pytest.mark.xdist_group("integrations")
ADA = "agent:main:pydantic-ai:direct:ada"


@pytest.fixture
async def hf(state: Path) -> AsyncIterator[holdfast.Holdfast]:
    async with holdfast.open(state) as opened:
        yield opened


def question(text: str) -> pm.ModelRequest:
    return pm.ModelRequest([pm.SystemPromptPart("be brief"), pm.UserPromptPart(text)], metadata={"from": "a test"})


def answer(text: str) -> pm.ModelResponse:
    parts = [pm.ThinkingPart("hm", signature="s"), pm.TextPart(text)]
    return pm.ModelResponse(parts, model_name="m", provider_name="p", provider_details={"a": [1, None]})


# ── the store, held against pydantic-ai's own ────────────────────────────────────────────────────────────────────────


async def test_a_conversation_is_read_back_as_it_was_saved(hf: holdfast.Holdfast) -> None:
    store = SessionConversations(hf)
    odd = pm.ModelRequest([pm.UserPromptPart(["look", BinaryImage(b"\x00\x01", media_type="image/png")])])
    saved = [question("hello 😀"), answer("hi"), odd, answer("an image")]
    entries = await store.save(Conversation(conversation_id="ada", messages=list(saved)), scope="team")
    loaded = await SessionConversations(hf).load("ada", scope="team")
    assert loaded is not None
    assert loaded.messages == saved
    assert await SessionConversations(hf).read_entry(entries[2].id) == entries[2]
    assert await store.load("ada", scope="others") is None
    assert await store.load("nobody") is None
    assert [role for role, _ in await said_in_roles(hf)] == ["user", "assistant", "user", "assistant"]


async def said_in_roles(hf: holdfast.Holdfast) -> list[tuple[str, Any]]:
    return [
        (line.message_role or "", line.value()["message"]["content"])
        for line in await hf.session(ADA).lines()
        if line.type == "message"
    ]


async def test_of_two_saves_of_one_revision_the_second_is_refused_whole(hf: holdfast.Holdfast) -> None:
    store = SessionConversations(hf)
    await store.save(Conversation(conversation_id="ada", messages=[question("1"), answer("1")]))
    first, second = await store.load("ada"), await SessionConversations(hf).load("ada")
    assert first is not None
    assert second is not None
    first.messages += [question("2"), answer("2")]
    second.messages += [question("too late"), answer("too late")]
    await store.save(first)
    with pytest.raises(ConversationConflict):
        await store.save(second)
    with pytest.raises(ConversationConflict):
        await store.save(Conversation(conversation_id="ada", messages=[question("new")]))
    assert "too late" not in str(await said_in(hf, ADA))


class Both:
    """The same calls of two stores; what they return has to be alike, ids and times apart."""

    def __init__(self, ours: ConversationStore) -> None:
        self.stores = (ours, InMemoryConversationStore())
        self.loaded: dict[str, tuple[Conversation, Conversation]] = {}

    async def load(self, id: str, limit: int | None) -> None:
        ours, theirs = [await store.load(id, limit=limit) for store in self.stores]
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.messages == theirs.messages
            assert ours.usage == theirs.usage
            self.loaded[id] = (ours, theirs)

    async def either(self, call: Any) -> Any:
        """What both return, or the kind of exception that both raise."""
        results: list[Any] = []
        for index, store in enumerate(self.stores):
            try:
                results.append(await call(store, index))
            except (UserError, LookupError) as refused:
                results.append(type(refused))
        assert [type(one) for one in results[:1]] == [type(one) for one in results[1:]], results
        return results

    async def compare_lists(self) -> None:
        lists = [await store.list_conversations() for store in self.stores]
        told = [
            [(one.conversation_id, one.forked_from, one.scope, len(one.branches)) for one in found] for found in lists
        ]
        assert told[0] == told[1]


@pytest.mark.parametrize("seed", range(4))
async def test_any_history_of_calls_ends_as_in_the_store_that_pydantic_ai_ships(
    hf: holdfast.Holdfast, seed: int
) -> None:
    draw, both, ids = random.Random(seed), Both(SessionConversations(hf)), ["a", "b", "c"]
    for number in range(40):
        id, at, other = draw.choice(ids), draw.randint(0, 4), draw.choice(ids)
        what = draw.choice(["load", "load", "save", "save", "save", "rewrite", "branch", "fork", "delete", "new"])
        if what == "load":
            await both.load(id, draw.choice([None, None, 2]))
        elif what in ("save", "rewrite") and id in both.loaded:
            asked, said = question(str(number)), answer(str(number))
            for one in both.loaded[id]:
                one.messages = one.messages[:at] if what == "rewrite" else one.messages
                one.messages += [asked, said]
                one.new_message_index = None if what == "rewrite" else one.new_message_index
            await both.either(lambda store, index, id=id: store.save(both.loaded[id][index]))
        elif what == "branch" and id in both.loaded:
            await both.either(
                lambda store, index, id=id, at=at: store.branch(
                    id, at=at, expected_revision=both.loaded[id][index].revision
                )
            )
        elif what == "fork":
            await both.either(lambda store, _, id=id, other=other: store.fork(id, new_conversation_id=other))
        elif what == "delete" and draw.random() < 0.4:
            await both.either(lambda store, _, id=id: store.delete(id))
        elif what == "new":
            fresh = [question(f"new {number}")]
            await both.either(
                lambda store, _, id=id, fresh=fresh: store.save(Conversation(conversation_id=id, messages=list(fresh)))
            )
        await both.compare_lists()
    for id in ids:
        await both.load(id, None)


# ── runs as turns ────────────────────────────────────────────────────────────────────────────────────────────────────


async def with_weather(messages: list[pm.ModelMessage], _: AgentInfo) -> pm.ModelResponse:
    last = messages[-1].parts[-1]
    if isinstance(last, pm.ToolReturnPart):
        return pm.ModelResponse([pm.TextPart(f"{last.content}, after {len(messages)} messages")])
    return pm.ModelResponse([pm.ToolCallPart("weather", {"city": "Oslo"})])


async def test_a_run_is_a_turn_and_the_next_one_knows_what_was_said(hf: holdfast.Holdfast) -> None:
    agent: Agent[None, str] = Agent(FunctionModel(with_weather))
    on_disk_when_the_tool_began: list[str] = []

    @agent.tool_plain
    async def weather(city: str) -> str:
        if city == "nowhere":
            raise ModelRetry("no such city")
        roles = [line.message_role for line in await hf.session(ADA).lines() if line.message_role]
        on_disk_when_the_tool_began.append(roles[-1])
        return f"sunny in {city}"

    owned = own(agent, hf)
    first = await owned.run("How is the weather?", conversation_id="ada")
    second = await own(agent, hf).run("And now?", conversation_id="ada")
    assert (first.output, second.output) == ("sunny in Oslo, after 3 messages", "sunny in Oslo, after 7 messages")
    assert on_disk_when_the_tool_began == ["assistant", "assistant"]
    roles = [role for role, _ in await said_in_roles(hf)]
    assert roles == ["user", "assistant", "toolResult", "assistant"] * 2
    assert [turn.outcome for turn in await hf.turns()] == ["answered", "answered"]
    told = [line.text for line in (await hf.why((await hf.turns())[0].id)).lines]
    assert sum("asked function:" in text for text in told) == sum("answered (" in text for text in told) == 2, told


async def test_a_streamed_run_is_a_turn(hf: holdfast.Holdfast) -> None:
    async def pieces(_: list[pm.ModelMessage], __: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        for piece in ("one ", "two"):
            yield piece

    owned = own(Agent(FunctionModel(stream_function=pieces)), hf)
    async with owned.run_stream("count", conversation_id="ada") as streamed:
        assert "".join([text async for text in streamed.stream_text(delta=True)]) == "one two"
    assert await said_in(hf, ADA) == [("user", "count"), ("assistant", "one two")]
    loaded = await owned.conversations.load("ada")
    assert loaded is not None
    assert len(loaded.messages) == 2


async def test_a_run_that_fails_leaves_its_question_to_people_and_the_conversation_as_it_was(
    hf: holdfast.Holdfast,
) -> None:
    async def fails(_: list[pm.ModelMessage], __: AgentInfo) -> pm.ModelResponse:
        raise ConnectionError("no network")

    await own(Agent(TestModel(custom_output_text="hi")), hf).run("hello", conversation_id="ada")
    with pytest.raises(ConnectionError):
        await own(Agent(FunctionModel(fails)), hf).run("lost?", conversation_id="ada")
    assert await said_in(hf, ADA) == [("user", "hello"), ("assistant", "hi"), ("user", "lost?")]
    loaded = await SessionConversations(hf).load("ada")
    assert loaded is not None
    assert len(loaded.messages) == 2
    assert [turn.outcome for turn in await hf.turns()] == ["failed", "answered"]


async def test_an_answer_that_comes_after_the_conversation_was_lost_is_kept_for_people(
    hf: holdfast.Holdfast, state: Path
) -> None:
    async def intrudes(_: list[pm.ModelMessage], __: AgentInfo) -> pm.ModelResponse:
        path = await hf.session(ADA).path()
        assert path is not None
        text = Path(path).read_text(encoding="utf-8").splitlines()
        Path(path).write_text("\n".join(text[:-1]) + "\n", encoding="utf-8")  # somebody cuts the last line off
        return pm.ModelResponse([pm.TextPart("finished all the same")])

    with pytest.raises(holdfast.SessionTakeoverError):
        await own(Agent(FunctionModel(intrudes)), hf).run("hello", conversation_id="ada")
    kept = [path for path in state.rglob("*") if path.is_file() and b"finished all the same" in path.read_bytes()]
    assert kept


async def test_the_limit_of_requests_is_one_of_each_run_and_not_of_the_conversation(hf: holdfast.Holdfast) -> None:
    owned = own(Agent(TestModel(custom_output_text="hi")), hf)
    for _ in range(3):
        await owned.run("hello", conversation_id="ada", usage_limits=UsageLimits(request_limit=1))
    with pytest.raises(UsageLimitExceeded):
        await owned.run("hello", conversation_id="ada", usage_limits=UsageLimits(request_limit=0))


async def test_a_history_of_the_callers_own_is_refused(hf: holdfast.Holdfast) -> None:
    with pytest.raises(holdfast.InputError, match="reads its history"):
        await own(Agent(TestModel()), hf).run("hello", message_history=[question("x")])


async def test_outside_any_turn_a_window_model_is_the_model_itself(hf: holdfast.Holdfast) -> None:
    agent: Agent[None, str] = Agent(WindowModel(TestModel(custom_output_text="hi"), hf))
    assert (await agent.run("hello")).output == "hi"
    assert await hf.turns() == []
