"""The offline model: the same text every time, and what the words at its beginning do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, ToolSpec
from holdfast.model.demo import DemoModel, Script, read_script
from holdfast.model.failure import classify

LOOKUP = ToolSpec("lookup", "looks up", {"type": "object"})


class SleepCounter:
    """A clock that does not wait but adds up."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def mono(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def ask(
    *messages: dict[str, Any], model: str = "demo/demo", tools: list[ToolSpec] | None = None, clock: Any = None
) -> tuple[ModelAnswer, list[StreamItem]]:
    items = [
        item
        async for item in DemoModel(clock or SleepCounter()).stream(
            ModelRequest(model, list(messages), tools=tools or [])
        )
    ]
    answer = items.pop()
    assert isinstance(answer, ModelAnswer)
    return answer, items


async def failure(text: str, model: str = "demo/demo") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(user(text), model=model)
    return caught.value


async def test_it_quotes_the_message_and_counts_the_users_messages() -> None:
    answer, items = await ask(user("one"), {"role": "assistant", "content": []}, user("hello there"))
    assert answer.text == "echo #2: hello there"
    assert "".join(item.text for item in items if isinstance(item, TextDelta)) == answer.text
    assert (answer.stop_reason, answer.provider, answer.model, answer.api) == ("stop", "demo", "demo", "demo")


async def test_the_same_context_gives_the_same_answer() -> None:
    assert await ask(user("again")) == await ask(user("again"))


async def test_parts_are_read_and_a_long_text_is_cut_with_its_length() -> None:
    answer, _ = await ask(user([{"type": "text", "text": "see "}, {"type": "image", "data": "", "mimeType": "x"}]))
    assert answer.text == "echo #1: see [image]"
    long, _ = await ask(user("x" * 5000))
    assert long.text == f"echo #1: {'x' * 200}… (5000 characters)"
    whole, _ = await ask(user("y" * 2000))
    assert "y" * 2000 in whole.text


async def test_it_pauses_after_each_word_and_the_fast_one_does_not() -> None:
    clock = SleepCounter()
    await ask(user("a b c"), clock=clock)
    assert clock.slept == [0.025] * 5
    fast = SleepCounter()
    await ask(user("a b c"), model="demo/fast", clock=fast)
    assert fast.slept == []


async def test_a_tool_is_called_if_it_is_offered_and_its_result_is_told() -> None:
    asked = user('/tool lookup {"q": {"deep": "}"}} please')
    answer, _ = await ask(asked, tools=[LOOKUP])
    assert answer.stop_reason == "toolUse"
    (call,) = answer.tool_calls
    assert (call["name"], call["arguments"]) == ("lookup", {"q": {"deep": "}"}})
    result = {"role": "toolResult", "toolCallId": call["id"], "toolName": "lookup", "content": "42"}
    after, _ = await ask(asked, answer.message(0), result, tools=[LOOKUP])
    assert after.text == f"echo #1: {asked['content']} → lookup: 42"
    assert after.tool_calls == []


async def test_several_tools_are_called_at_once_with_ids_of_their_own() -> None:
    answer, _ = await ask(user("/tool lookup {} /tool lookup"), tools=[LOOKUP])
    ids = [call["id"] for call in answer.tool_calls]
    assert len(ids) == len(set(ids)) == 2


async def test_a_call_made_again_in_a_longer_context_has_another_id() -> None:
    first, _ = await ask(user("/tool lookup"), tools=[LOOKUP])
    second, _ = await ask(user("hi"), user("/tool lookup"), tools=[LOOKUP])
    assert first.tool_calls[0]["id"] != second.tool_calls[0]["id"]


async def test_a_tool_that_is_not_offered_is_named_not_called() -> None:
    answer, _ = await ask(user("/tool nothere {}"))
    assert answer.text == "echo #1: /tool nothere {} (no tool named nothere is offered)"


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("429", 429, "rate_limit"),
        ("500", 500, "server_error"),
        ("401", 401, "auth"),
        ("402", 402, "billing"),
        ("529", 529, "overloaded"),
        ("timeout", None, "timeout"),
        ("overflow", 400, "context_overflow"),
    ],
)
async def test_it_fails_as_it_is_told_to(what: str, status: int | None, reason: str) -> None:
    error = await failure(f"/fail {what}")
    assert (error.status, error.provider, error.model, error.partial) == (status, "demo", "demo", "")
    assert classify(error).reason == reason


async def test_a_cut_breaks_off_half_way_and_keeps_what_was_said() -> None:
    said: list[str] = []

    async def consume() -> None:
        request = ModelRequest("demo/demo", [user("/fail cut one two three")])
        async for item in DemoModel(SleepCounter()).stream(request):
            assert isinstance(item, TextDelta)
            said.append(item.text)

    with pytest.raises(ProviderError) as caught:
        await consume()
    assert caught.value.partial == "".join(said) == "echo #1: /fail"
    assert classify(caught.value).reason == "timeout"


async def test_failing_once_leaves_the_backup_to_answer() -> None:
    assert (await failure("/fail 429 once hello")).status == 429
    answer, _ = await ask(user("/fail 429 once hello"), model="demo/backup")
    assert answer.text == "echo #1: /fail 429 once hello"
    assert (await failure("/fail 429 hello", model="demo/backup")).status == 429


async def test_a_slow_answer_lasts_as_long_as_it_was_told_and_shows_signs_of_life() -> None:
    clock = SleepCounter()
    answer, items = await ask(user("/slow 10 hi"), model="demo/fast", clock=clock)
    assert clock.mono() == pytest.approx(10)
    assert max(clock.slept) <= 0.5
    assert answer.text.startswith("echo #1: /slow 10 hi")
    assert len(items) == 20


async def test_thinking_comes_first_and_is_kept_apart() -> None:
    answer, items = await ask(user("/think hi"))
    assert isinstance(items[0], ThinkingDelta)
    assert answer.content[0] == {"type": "thinking", "thinking": "thinking about: /think hi"}
    assert answer.text == "echo #1: /think hi"


async def test_a_long_answer_has_that_many_more_words() -> None:
    answer, _ = await ask(user("/long 3 hi"))
    assert answer.text == "echo #1: /long 3 hi word1 word2 word3"


async def test_usage_grows_with_what_is_read_and_said() -> None:
    short, _ = await ask(user("a"))
    long, _ = await ask(user("a " * 500))
    assert 0 < short.usage["input"] < long.usage["input"]
    assert short.usage["totalTokens"] == short.usage["input"] + short.usage["output"]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello /fail 429", Script()),
        ("/failure", Script()),
        ("/slow soon", Script()),
        ("/tool", Script()),
        ("/tool x {broken", Script(tools=[("x", {})])),
        ("/think /slow 2 /long 4", Script(think=True, slow_s=2.0, long_words=4)),
        ("/fail 500 once more", Script(fail="500", fail_once=True)),
        ("/fail 500 onceover", Script(fail="500")),
        ("/slow 999999", Script(slow_s=3600.0)),
    ],
)
def test_only_words_at_the_beginning_are_commands(text: str, script: Script) -> None:
    assert read_script(text) == script
