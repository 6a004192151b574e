"""The Responses API as the official client speaks it, against a real gateway: nothing stubbed but the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from holdfast.errors import ProviderError
from holdfast.testing.model import Reply, ScriptedModel
from tests.flow.test_gateway_chat import SESSION, stored_texts, talking

WEATHER = {
    "type": "function", "name": "weather", "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip


async def test_a_response_comes_whole_and_the_next_one_continues_its_session(tmp_path: Path) -> None:
    model = ScriptedModel("Hello to you.", "Paris.")
    async with talking(tmp_path, model) as (gateway, client):
        first = await client.responses.create(model="holdfast", input="hello", instructions="be brief")
        assert (first.output_text, first.status, first.model) == ("Hello to you.", "completed", "demo/demo")
        assert first.usage.total_tokens == 0  # what the scripted model says
        session = (await gateway.hf.input(first.id.removeprefix("resp_"))).session
        second = await client.responses.create(model="holdfast", input="and?", previous_response_id=first.id)
        assert (second.output_text, second.previous_response_id) == ("Paris.", first.id)
        assert await stored_texts(gateway, session) == [
            ("user", "hello"), ("assistant", "Hello to you."), ("user", "and?"), ("assistant", "Paris.")
        ]  # fmt: skip
        assert "be brief" in str(model.requests[0].system)
        kept = await client.responses.retrieve(first.id)
        assert (kept.status, kept.output_text) == ("completed", "Hello to you.")


async def test_a_whole_history_may_be_sent_and_only_what_is_new_is_appended(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("one", "two")) as (gateway, client):
        said: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "first"}]}]
        first = await client.responses.create(model="holdfast", input=said, extra_headers=SESSION)
        said += [item.model_dump() for item in first.output]
        said += [{"role": "user", "content": "second"}]
        answer = await client.responses.with_raw_response.create(model="holdfast", input=said, extra_headers=SESSION)
        assert answer.headers["x-holdfast-history"] == "aligned"
        assert [text for _, text in await stored_texts(gateway)] == ["first", "one", "second", "two"]


async def test_the_events_of_a_stream_are_those_that_the_client_knows(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("one two three")) as (_, client):
        stream = await client.responses.create(model="holdfast", input="count", stream=True)
        events = [event async for event in stream]
        kinds = [event.type for event in events]
        deltas = kinds.count("response.output_text.delta")
        assert deltas >= 2
        assert [kind for kind in kinds if kind != "response.output_text.delta"] == [
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
            "response.output_text.done", "response.content_part.done", "response.output_item.done",
            "response.completed",
        ]  # fmt: skip
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two three"
        assert events[-1].response.output_text == "one two three"


async def test_the_clients_own_accumulator_reads_the_stream(tmp_path: Path) -> None:
    model = ScriptedModel(Reply("looking", calls=[("weather", {"city": "Rome"})]))
    async with (
        talking(tmp_path, model) as (_, client),
        client.responses.stream(model="holdfast", input="weather?", tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_response()
        text, call = final.output
        assert (text.content[0].text, call.name, call.arguments) == ("looking", "weather", '{"city": "Rome"}')


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clients_own_tools_go_round(tmp_path: Path, stream: bool) -> None:
    model = ScriptedModel(Reply(calls=[("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})]), "Sun and snow.")

    async def ask(client: Any, **what: Any) -> Any:
        made = await client.responses.create(model="holdfast", tools=[WEATHER], stream=stream, **what)
        if not stream:
            return made
        return [event async for event in made][-1].response

    async with talking(tmp_path, model) as (_, client):
        first = await ask(client, input="weather?")
        calls = [item for item in first.output if item.type == "function_call"]
        assert [call.arguments for call in calls] == ['{"city": "Rome"}', '{"city": "Oslo"}']
        results = [
            {"type": "function_call_output", "call_id": call.call_id, "output": text}
            for call, text in zip(calls, ("sun", "snow"), strict=True)
        ]
        second = await ask(client, input=results, previous_response_id=first.id)
        assert second.output_text == "Sun and snow."
        shown = [message for message in model.requests[1].messages if message["role"] == "toolResult"]
        assert [message["toolCallId"] for message in shown] == [call.call_id for call in calls]


async def test_an_answer_cut_by_its_length_is_incomplete(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel(Reply("too lo", stop_reason="length"))) as (_, client):
        cut = await client.responses.create(model="holdfast", input="tell", max_output_tokens=16)
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_a_turn_that_fails_is_an_error_or_ends_the_stream_as_failed(tmp_path: Path) -> None:
    refused = ProviderError("no such key", status=401)
    async with talking(tmp_path, ScriptedModel(refused, Reply("half", error=refused))) as (_, client):
        with pytest.raises(openai.APIStatusError) as failed:
            await client.responses.create(model="holdfast", input="hello")
        body: Any = failed.value.body
        kept = await client.responses.retrieve(f"resp_{body['input_id']}")
        assert (kept.status, kept.error is not None) == ("failed", True)
        events = [event async for event in await client.responses.create(model="holdfast", input="x", stream=True)]
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "failed"
        assert events[-1].response.error.message


async def test_a_response_can_be_looked_at_and_stopped_while_it_runs(tmp_path: Path) -> None:
    model = ScriptedModel("late")
    model.hold()
    async with talking(tmp_path, model) as (gateway, client):
        asking = asyncio.create_task(client.responses.create(model="holdfast", input="hello", extra_headers=SESSION))
        await model.asked(1)
        [view] = await gateway.hf.inputs(limit=1)
        running = await client.responses.retrieve(f"resp_{view.id}")
        assert running.status == "in_progress"
        await client.responses.cancel(f"resp_{view.id}")
        with pytest.raises(openai.APIStatusError):
            await asking
        assert (await client.responses.retrieve(f"resp_{view.id}")).status == "cancelled"


async def test_an_idempotency_key_replays_the_response(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("only once")) as (_, client):
        key = {"Idempotency-Key": "k1"}
        made = [await client.responses.create(model="holdfast", input="hi", extra_headers=key) for _ in range(2)]
        first, again = (one.model_dump(exclude={"holdfast"}) for one in made)
        assert first == again


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": []}, "input: must be"), ({"input": "x", "background": True}, "background"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"), ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}, "input[1].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0]"), ({"input": "x", "previous_response_id": "old"}, "resp_"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "input: the last"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]"),
    ],
)  # fmt: skip
async def test_what_cannot_be_given_is_refused_by_name(tmp_path: Path, body: dict[str, Any], named: str) -> None:
    async with talking(tmp_path, ScriptedModel()) as (gateway, client):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.post("/responses", body={"model": "holdfast", **body}, cast_to=object)
        assert named in str(refused.value)
        assert await gateway.hf.inputs(limit=1) == []


async def test_a_response_that_is_not_known_cannot_be_continued(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("here")) as (_, client):
        with pytest.raises(openai.NotFoundError, match="no response 'resp_in_nosuch'"):
            await client.responses.create(model="holdfast", input="x", previous_response_id="resp_in_nosuch")
        first = await client.responses.create(model="holdfast", input="x")
        with pytest.raises(openai.BadRequestError, match="belongs to session"):
            await client.responses.create(
                model="holdfast", input="x", previous_response_id=first.id, extra_headers=SESSION
            )
