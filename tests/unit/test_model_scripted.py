"""The scripted model that ships for tests."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest, TextDelta
from holdfast.testing.model import Reply, ScriptedModel


def request(text: str = "hi") -> ModelRequest:
    return ModelRequest("any/model", [{"role": "user", "content": text}])


async def answer_of(model: ScriptedModel, text: str = "hi") -> ModelAnswer:
    items = [item async for item in model.stream(request(text))]
    assert isinstance(items[-1], ModelAnswer)
    return items[-1]


async def test_it_answers_in_order_and_remembers_what_it_was_asked() -> None:
    model = ScriptedModel("one", Reply("two", thinking="hmm", calls=[("go", {"n": 1})]))
    assert (await answer_of(model, "a")).text == "one"
    second = await answer_of(model, "b")
    assert (second.text, second.stop_reason) == ("two", "toolUse")
    assert second.tool_calls[0]["arguments"] == {"n": 1}
    assert second.content[0] == {"type": "thinking", "thinking": "hmm"}
    assert [seen.messages[0]["content"] for seen in model.requests] == ["a", "b"]


async def test_an_error_after_text_carries_the_text() -> None:
    model = ScriptedModel(Reply("half an", error=ProviderError("cut")))
    said: list[str] = []

    async def consume() -> None:
        async for item in model.stream(request()):
            assert isinstance(item, TextDelta)
            said.append(item.text)

    with pytest.raises(ProviderError) as caught:
        await consume()
    assert "".join(said) == caught.value.partial == "half an"


async def test_answers_wait_until_they_are_released() -> None:
    model = ScriptedModel("one", "two", "three")
    model.hold()
    waiting = [asyncio.create_task(answer_of(model)) for _ in range(2)]
    await asyncio.wait_for(model.asked(2), 5)
    assert model.open == 2
    assert not any(task.done() for task in waiting)
    model.release()
    assert sorted([(await task).text for task in waiting]) == ["one", "two"]
    assert (await answer_of(model)).text == "three"
    assert model.open == 0


async def test_a_request_that_was_not_expected_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="the script is at its end"):
        await answer_of(ScriptedModel())


async def test_more_can_be_scripted_later_or_made_up_on_the_spot() -> None:
    model = ScriptedModel(otherwise=lambda asked: f"re: {asked.messages[0]['content']}")
    model.script("first")
    assert [(await answer_of(model)).text, (await answer_of(model, "x")).text] == ["first", "re: x"]
