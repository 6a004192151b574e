"""Official OpenAI clients against a real gateway: nothing stubbed but the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from holdfast.clock import SystemClock
from holdfast.config import Config
from holdfast.errors import ProviderError
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.turn.events import Subscription

SESSION = {"X-Holdfast-Session": "agent:main:main"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def client_of(gateway: Served, *, max_retries: int = 0, timeout: float = 90.0) -> Any:
    """An official client; Any, because its overloads know no requests put together from parts."""
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=max_retries, timeout=timeout)


@asynccontextmanager
async def talking(tmp_path: Path, model: ScriptedModel, **options: Any) -> AsyncIterator[tuple[Served, Any]]:
    async with served(tmp_path / "state", model=model, **options) as gateway, client_of(gateway) as client:
        yield gateway, client


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def stored_texts(gateway: Served, session: str = "agent:main:main") -> list[tuple[str, str]]:
    """(role, text) of the messages in the transcript."""
    entries = await gateway.hf.session(session).entries()
    messages = [entry.message for entry in entries if hasattr(entry, "message")]
    return [(m["role"], "".join(p.get("text", "") for p in _parts(m["content"]))) for m in messages]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"text": content}] if isinstance(content, str) else content


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_comes_whole_with_its_reason_and_usage(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("Hello to you.")) as (gateway, client):
        raw = await client.chat.completions.with_raw_response.create(
            model="holdfast", messages=said("hello"), extra_headers=SESSION
        )
        answer = raw.parse()
        assert answer.choices[0].message.content == "Hello to you."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "demo/demo"
        assert answer.usage.total_tokens == 0  # what the scripted model says
        assert raw.headers["x-holdfast-session"] == "agent:main:main"
        view = await gateway.hf.input(raw.headers["x-holdfast-input"])
        assert (view.state, view.answer) == ("answered", "Hello to you.")
        assert await stored_texts(gateway) == [("user", "hello"), ("assistant", "Hello to you.")]


async def test_an_answer_streams_in_pieces_and_ends_with_reason_and_usage(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("one two three")) as (_, client):
        stream = await client.chat.completions.create(
            model="holdfast", messages=said("count"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "one two three"
    assert len(pieces) == 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_clients_own_accumulator_reads_the_stream(tmp_path: Path) -> None:
    script = ScriptedModel(Reply(text="Let me look.", calls=[("weather", {"city": "Ghent"})]))
    async with (
        talking(tmp_path, script) as (_, client),
        client.chat.completions.stream(model="holdfast", messages=said("weather?"), tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Let me look."
    calls = final.choices[0].message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", '{"city": "Ghent"}')]
    assert final.choices[0].finish_reason == "tool_calls"


async def test_an_answer_cut_by_its_length_says_so(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel(Reply(text="too lo", stop_reason="length"))) as (_, client):
        answer = await client.chat.completions.create(model="holdfast", messages=said("long"), max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


async def test_settings_and_prompts_reach_the_model(tmp_path: Path) -> None:
    model = ScriptedModel("ok")
    async with talking(tmp_path, model) as (_, client):
        await client.chat.completions.create(
            model="demo/other",
            messages=[{"role": "system", "content": "be brief"}, *said("hi")],
            temperature=0.5,
            max_completion_tokens=7,
            seed=3,
        )
    request = model.requests[0]
    assert (request.model, request.system) == ("demo/other", "be brief")
    assert (request.settings["temperature"], request.settings["max_tokens"], request.settings["seed"]) == (0.5, 7, 3)


async def test_the_input_is_stored_before_the_first_byte(tmp_path: Path) -> None:
    model = ScriptedModel("at last")
    model.hold()
    async with talking(tmp_path, model) as (gateway, client):
        stream = await client.chat.completions.create(model="holdfast", messages=said("hi"), stream=True)
        first = await anext(aiter(stream))
        view = await gateway.hf.input(first.id.removeprefix("chatcmpl-"))
        assert view.state in ("queued", "running")  # after two seconds nobody waits for its turn to begin
        model.release()
        assert [c.choices[0].finish_reason async for c in stream][-1] == "stop"


async def test_text_of_tool_rounds_is_one_message_to_a_streaming_client(tmp_path: Path) -> None:
    model = ScriptedModel(Reply(text="Let me see.", calls=[("echo", {"text": "five"})]), "It is five.", "Indeed.")
    async with talking(tmp_path, model) as (_, client):
        stream = await client.chat.completions.create(
            model="holdfast", messages=said("how many?"), stream=True, extra_headers=SESSION
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "Let me see.\n\nIt is five."
        raw = await client.chat.completions.with_raw_response.create(
            model="holdfast",
            messages=[*said("how many?"), {"role": "assistant", "content": text}, *said("sure?")],
            extra_headers=SESSION,
        )
        assert raw.headers["x-holdfast-history"] == "aligned"


# ── tools of the client ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clients_own_tools_go_round(tmp_path: Path, stream: bool) -> None:
    model = ScriptedModel(
        Reply(calls=[("weather", {"city": "Ghent"}), ("weather", {"city": "Bruges"})]), "Rain in both."
    )
    async with talking(tmp_path, model) as (gateway, client):
        history = said("weather in Ghent and Bruges?")
        asked = await _complete(client, history, stream=stream)
        assert asked["finish"] == "tool_calls"
        assert [json.loads(c["function"]["arguments"])["city"] for c in asked["calls"]] == ["Ghent", "Bruges"]
        history.append({"role": "assistant", "content": None, "tool_calls": asked["calls"]})
        history += [{"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in asked["calls"]]
        told = await _complete(client, history, stream=stream)
        assert (told["text"], told["finish"]) == ("Rain in both.", "stop")
        assert [role for role, _ in await stored_texts(gateway)] == [
            "user", "assistant", "toolResult", "toolResult", "assistant",
        ]  # fmt: skip
    shown = model.requests[1].messages
    assert [m["role"] for m in shown] == ["user", "assistant", "toolResult", "toolResult"]
    assert [m["toolName"] for m in shown[2:]] == ["weather", "weather"]
    assert not any(m["isError"] for m in shown[2:])


async def _complete(client: Any, messages: list[Any], *, stream: bool) -> dict[str, Any]:
    if not stream:
        answer = await client.chat.completions.create(
            model="holdfast", messages=messages, tools=[WEATHER], extra_headers=SESSION
        )
        choice = answer.choices[0]
        calls = [call.model_dump(exclude_none=True) for call in choice.message.tool_calls or []]
        return {"text": choice.message.content, "finish": choice.finish_reason, "calls": calls}
    async with client.chat.completions.stream(
        model="holdfast", messages=messages, tools=[WEATHER], extra_headers=SESSION
    ) as events:
        final = (await events.get_final_completion()).choices[0]
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
        for c in final.message.tool_calls or []
    ]
    return {"text": final.message.content, "finish": final.finish_reason, "calls": calls}


# ── sessions and history ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_session_each_request_has_one_of_its_own(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("a1", "b1", "a2")) as (gateway, client):
        create = client.chat.completions.with_raw_response.create
        first = await create(model="holdfast", messages=said("hello"))
        second = await create(model="holdfast", messages=said("hello"))
        session = first.headers["x-holdfast-session"]
        assert session != second.headers["x-holdfast-session"]
        assert first.headers["x-holdfast-history"] == "appended"
        on = await create(
            model="holdfast",
            messages=[*said("hello"), {"role": "assistant", "content": "a1"}, *said("and?")],
            extra_headers={"X-Holdfast-Session": session},
        )
        assert on.headers["x-holdfast-history"] == "aligned"
        expected = [("user", "hello"), ("assistant", "a1"), ("user", "and?"), ("assistant", "a2")]
        assert await stored_texts(gateway, session) == expected


async def test_a_user_has_a_session_that_lasts(tmp_path: Path) -> None:
    model = ScriptedModel("hi", "again")
    async with talking(tmp_path, model) as (_, client):
        create = client.chat.completions.with_raw_response.create
        first = await create(model="holdfast/Support", messages=said("one"), user="Zoë")
        await create(model="holdfast/Support", messages=said("two"), user="Zoë")
    assert first.headers["x-holdfast-session"] == "agent:Support:user:Zoë"
    assert len(model.requests[1].messages) == 3


async def test_a_history_that_departs_from_the_session_is_named_and_loses_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel("a1", "a2")) as (gateway, client):
        create = client.chat.completions.with_raw_response.create
        await create(model="holdfast", messages=said("u1"), extra_headers=SESSION)
        other = [*said("x"), {"role": "assistant", "content": "y"}, *said("u2")]
        raw = await create(model="holdfast", messages=other, extra_headers=SESSION)
        assert raw.headers["x-holdfast-history"] == "diverged: the last stored answer is not in messages"
        assert [text for _, text in await stored_texts(gateway)] == ["u1", "a1", "u2", "a2"]


# ── repetitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key_replays_the_stored_answer(tmp_path: Path, stream: bool) -> None:
    model = ScriptedModel("once")
    async with served(tmp_path / "state", model=model) as gateway, client_of(gateway) as client:
        create = client.chat.completions.with_raw_response.create
        key = {"Idempotency-Key": "k1"}
        first = await create(model="holdfast", messages=said("hi"), extra_headers=key)
        again = await create(model="holdfast", messages=said("hi"), extra_headers=key, stream=stream)
        if stream:
            text = "".join([c.choices[0].delta.content or "" async for c in again.parse()])
        else:
            text = again.parse().choices[0].message.content
        assert text == "once"
        assert again.headers["x-holdfast-input"] == first.headers["x-holdfast-input"]
        assert again.headers["x-holdfast-joined"] == first.headers["x-holdfast-input"]
        assert again.headers["x-holdfast-session"] == first.headers["x-holdfast-session"]
        with pytest.raises(openai.ConflictError) as refused:
            await create(model="holdfast", messages=said("something else"), extra_headers=key)
        assert refused.value.code == "idempotency_key_reused"
    assert len(model.requests) == 1


async def test_a_client_that_times_out_and_retries_gets_the_answer_of_its_first_try(tmp_path: Path) -> None:
    model = ScriptedModel("worth the wait", "a second turn")
    model.hold()
    async with served(tmp_path / "state", model=model) as gateway:
        async with client_of(gateway, max_retries=50, timeout=0.4) as client:
            with gateway.hf.events.subscribe() as events:
                create = client.chat.completions.with_raw_response.create
                asking = asyncio.create_task(create(model="holdfast", messages=said("hi")))
                await happened(events, "input.joined")
                model.release()
            raw = await asking
        assert raw.parse().choices[0].message.content == "worth the wait"
        assert raw.headers["x-holdfast-joined"] == raw.headers["x-holdfast-input"]
        assert int(raw.http_request.headers["x-stainless-retry-count"]) >= 1
        assert len(await gateway.hf.inputs()) == 1
    assert len(model.requests) == 1


async def happened(events: Subscription, kind: str) -> None:
    """Wait for an event of this kind."""
    async with asyncio.timeout(60):
        async for event in events:
            if event.kind == kind:
                return


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_retry_whose_first_try_was_answered_gets_that_answer(tmp_path: Path, is_restarted: bool) -> None:
    model = ScriptedModel("answered", "a second turn")
    ask: dict[str, Any] = {"model": "holdfast", "messages": said("hi")}
    retry = ask | {"extra_headers": {"x-stainless-retry-count": "1"}}
    async with talking(tmp_path, model) as (_, client):
        first = await client.chat.completions.create(**ask)
        again = None if is_restarted else await client.chat.completions.create(**retry)
    if again is None:
        async with talking(tmp_path, model) as (_, client):
            again = await client.chat.completions.create(**retry)
    assert again.id == first.id
    assert again.choices[0].message.content == "answered"
    assert len(model.requests) == 1


async def test_a_retry_in_a_named_session_is_found_after_a_restart(tmp_path: Path) -> None:
    model = ScriptedModel("answered", "a second turn")
    async with served(tmp_path / "state", model=model) as gateway, client_of(gateway) as client:
        first = await client.chat.completions.create(model="holdfast", messages=said("hi"), extra_headers=SESSION)
    async with served(tmp_path / "state", model=model) as gateway, client_of(gateway) as client:
        again = await client.chat.completions.create(
            model="holdfast", messages=said("hi"), extra_headers=SESSION | {"x-stainless-retry-count": "2"}
        )
    assert again.id == first.id
    assert len(model.requests) == 1


async def test_equal_questions_of_callers_who_are_there_are_two_questions(tmp_path: Path) -> None:
    model = ScriptedModel("first", "second")
    model.hold()
    async with talking(tmp_path, model) as (_, client):
        create = client.chat.completions.create
        asking = [
            asyncio.create_task(create(model="holdfast", messages=said("ok"), extra_headers=SESSION)) for _ in range(2)
        ]
        await model.asked(1)
        model.release()
        answers = [(await task).choices[0].message.content for task in asking]
    assert sorted(filter(None, answers)) == ["first", "second"]


async def test_a_caller_who_leaves_stops_nothing_and_may_come_back(tmp_path: Path) -> None:
    model = ScriptedModel("you left too early", "a second turn")
    model.hold()
    async with talking(tmp_path, model) as (gateway, client):
        ask: dict[str, Any] = {"model": "holdfast", "messages": said("hi"), "extra_headers": SESSION}
        stream = await client.chat.completions.create(**ask, stream=True)
        input_id = (await anext(aiter(stream))).id.removeprefix("chatcmpl-")
        with gateway.hf.events.subscribe() as events:
            await stream.close()
            await happened(events, "input.left")
            back = asyncio.create_task(client.chat.completions.create(**ask))
            await happened(events, "input.joined")
        model.release()
        assert (await back).choices[0].message.content == "you left too early"
        async with httpx.AsyncClient(headers=gateway.headers, timeout=60) as http:
            told = (await http.get(f"{gateway.url}/api/inputs/{input_id}")).json()
        assert (told["state"], told["answer"]) == ("answered", "you left too early")
    assert len(model.requests) == 1


# ── ends without an answer ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_turn_is_an_error_with_the_inputs_id_and_is_not_retried(tmp_path: Path) -> None:
    model = ScriptedModel(ProviderError("the provider is on fire", status=400, provider="demo"))
    async with served(tmp_path / "state", model=model) as gateway, client_of(gateway, max_retries=2) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await client.chat.completions.create(model="holdfast", messages=said("hi"))
        body = failed.value.body
        assert isinstance(body, dict)
        view = await gateway.hf.input(body["input_id"])
        assert view.state == "failed"
        assert "on fire" in body["message"]
    assert failed.value.status_code == 502
    assert len(model.requests) == 1


async def test_a_turn_that_fails_while_it_streams_ends_in_an_error_event(tmp_path: Path) -> None:
    broken = Reply(text="half an ans", error=ProviderError("connection lost", provider="demo"))
    async with talking(tmp_path, ScriptedModel(broken)) as (_, client):
        stream = await client.chat.completions.create(model="holdfast", messages=said("hi"), stream=True)
        chunks, failure = await _read_to_its_failure(stream)
    assert failure["input_id"].startswith("in_")
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}


async def _read_to_its_failure(stream: Any) -> tuple[list[Any], dict[str, Any]]:
    """The chunks of a stream and the error that it ends in."""
    chunks: list[Any] = []
    try:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - a comprehension would lose them with the error
    except openai.APIError as failed:
        return chunks, cast("dict[str, Any]", failed.body)
    raise AssertionError("the stream ended as if all were well")


async def test_a_cancelled_turn_is_an_error_and_names_who_stopped_it(tmp_path: Path) -> None:
    model = ScriptedModel("never said")
    model.hold()
    async with talking(tmp_path, model) as (gateway, client):
        asking = asyncio.create_task(client.chat.completions.create(model="holdfast", messages=said("hi")))
        await model.asked(1)
        [view] = await gateway.hf.inputs()
        await gateway.hf.cancel(view.id, by="the operator")
        with pytest.raises(openai.ConflictError) as stopped:
            await asking
    assert stopped.value.code == "cancelled"
    assert "the operator" in str(stopped.value)


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "ok")
    model.hold()
    config = Config.model_validate({"lanes": {"queue_per_session_max": 1}})
    async with talking(tmp_path, model, config=config) as (_, client):
        create = client.chat.completions.create
        asking = [
            asyncio.create_task(create(model="holdfast", messages=said(f"m{n}"), extra_headers=SESSION)) for n in "1234"
        ]
        await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
        refused: list[Any] = [task.exception() for task in asking if task.done()]
        model.release()
        answered = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in refused} == {openai.RateLimitError}
    assert all(int(error.response.headers["retry-after"]) > 0 for error in refused)
    assert sum(not isinstance(one, BaseException) for one in answered) >= 2


async def test_a_draining_gateway_refuses_new_input_and_sends_waiting_callers_away(tmp_path: Path) -> None:
    model = ScriptedModel("never said here")
    model.hold()
    async with talking(tmp_path, model) as (gateway, client):
        stream = await client.chat.completions.create(
            model="holdfast", messages=said("hi"), stream=True, extra_headers=SESSION
        )
        await model.asked(1)
        await gateway.gateway.drain(0.0)
        _, sent_away = await _read_to_its_failure(stream)
        assert sent_away["code"] == "draining"
        assert (await gateway.hf.input(sent_away["input_id"])).state == "queued"
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model="holdfast", messages=said("more"))
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) > 0


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class HastyClock(SystemClock):
    """A clock that runs fifty times as fast, so that a minute of silence passes in a second."""

    def mono(self) -> float:
        return super().mono() * 50


async def test_a_silent_stream_shows_signs_of_life(tmp_path: Path) -> None:
    model = ScriptedModel("at last")
    model.hold()
    async with served(tmp_path / "state", model=model, clock=HastyClock()) as gateway:
        body = {"model": "holdfast", "stream": True, "messages": said("hi")}
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(headers=gateway.headers, timeout=60) as http,
            http.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as response,
        ):
            lines = response.aiter_lines()
            assert await anext(line async for line in lines if line == ": running, 0 ahead")
            model.release()
            assert [line async for line in lines if line][-1] == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_another_process_gave_is_seen_within_a_second_or_so(tmp_path: Path, stream: bool) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel()) as idle,
        served(tmp_path / "state", model=ScriptedModel("from elsewhere")),
        client_of(idle) as client,
        asyncio.timeout(60),
    ):
        await idle.gateway.worker.stop(0.0)
        raw = await client.chat.completions.with_raw_response.create(
            model="holdfast", messages=said("hi"), stream=stream, extra_headers=SESSION
        )
        if stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse()])
        else:
            text = raw.parse().choices[0].message.content
    assert text == "from elsewhere"
    assert raw.headers["x-holdfast-history"] in ("unknown", "pending")


async def test_models_are_listed_and_unknown_ones_refused(tmp_path: Path) -> None:
    config = Config.model_validate({"agents": {"support": {"model": "demo/fast"}}})
    async with talking(tmp_path, ScriptedModel(), config=config) as (_, client):
        names = [model.id async for model in client.models.list()]
        assert names[:2] == ["holdfast", "holdfast/support"]
        assert {"demo/demo", "demo/fast"} <= set(names)
        for unknown in ("gpt-5", "nobody/nothing"):
            with pytest.raises(openai.NotFoundError) as refused:
                await client.chat.completions.create(model=unknown, messages=said("hi"))
            assert refused.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve(unknown)
        for name in ("holdfast", "holdfast/support", "demo/demo"):
            assert (await client.models.retrieve(name)).id == name


async def test_what_a_session_cannot_give_is_refused_by_name(tmp_path: Path) -> None:
    async with talking(tmp_path, ScriptedModel()) as (_, client):
        for extra, word in [({"n": 2}, "n:"), ({"logprobs": True}, "logprobs"), ({"max_tokens": 0}, "max_tokens")]:
            with pytest.raises(openai.BadRequestError, match=word):
                await client.chat.completions.create(model="holdfast", messages=said("hi"), **extra)
