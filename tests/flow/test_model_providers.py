"""Real SDKs against a loopback server that misbehaves: every way a provider's stream can end.

Each case runs for every interface; a `Dialect` tells how that interface words it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.errors import ProviderError
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ModelAnswer, ModelRequest, TextDelta, ThinkingDelta, ToolSpec
from holdfast.model.failure import classify
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.testing import wire
from holdfast.testing.provider import ProviderStub, Scene, json_scene

SILENCE_S = 0.4
KEY = "key-that-must-not-be-told"
TOOL = ToolSpec("get", "gets", {"type": "object", "properties": {"a": {"type": "integer"}}})
AWS_STREAM = "application/vnd.amazon.eventstream"


@dataclass(frozen=True)
class Dialect:
    """How one interface puts things."""

    api: str
    provider: str
    model: str
    events: Callable[..., list[bytes]]
    calling: dict[str, Any]  # arguments of `events` for one call of `get` with {"a": 1}
    length: str
    withheld: str
    limited: tuple[dict[str, Any], dict[str, str]]  # body and headers of a 429
    error_event: bytes
    error_event_reason: str
    content_type: str = "text/event-stream"

    def scene(self, chunks: list[bytes], **fields: Any) -> Scene:
        return Scene(chunks, content_type=self.content_type, **fields)


def error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


DIALECTS = [
    Dialect(
        api=catalog.OPENAI,
        provider="openai",
        model="gpt-4o",
        events=wire.openai,
        calling={"calls": [("call_1", "get", '{"a": 1}')], "finish": "tool_calls"},
        length="length",
        withheld="content_filter",
        limited=(error("rate_limit_error", f"slow down, {KEY}"), {"retry-after": "7"}),
        error_event=wire.sse({"error": {"type": "server_error", "code": "server_error", "message": "boom"}}),
        error_event_reason="server_error",
    ),
    Dialect(
        api=catalog.OPENAI,
        provider="lab",
        model="vendor/some-model",
        events=wire.openai,
        calling={"calls": [("call_1", "get", '{"a": 1}')], "finish": "stop"},  # some servers say it like this
        length="length",
        withheld="content_filter",
        limited=(error("rate_limit_error", f"slow down, {KEY}"), {"retry-after": "7"}),
        error_event=wire.sse({"error": {"code": 503, "message": "the engine is overloaded"}}),
        error_event_reason="overloaded",
    ),
    Dialect(
        api=catalog.ANTHROPIC,
        provider="anthropic",
        model="claude-stub",
        events=wire.anthropic,
        calling={"calls": [("call_1", "get", '{"a": 1}')], "finish": "tool_use"},
        length="max_tokens",
        withheld="refusal",
        limited=(error("rate_limit_error", f"slow down, {KEY}"), {"retry-after": "7"}),
        error_event=wire.sse(error("overloaded_error", "Overloaded"), event="error"),
        error_event_reason="overloaded",
    ),
    Dialect(
        api=catalog.GOOGLE,
        provider="google",
        model="gemini-2.5-flash",
        events=wire.google,
        calling={"call": ("get", {"a": 1}, "c2ln")},
        length="MAX_TOKENS",
        withheld="SAFETY",
        limited=(
            {"error": {"code": 429, "message": f"Quota, {KEY}", "status": "RESOURCE_EXHAUSTED"}},
            {"retry-after": "7"},
        ),
        error_event=wire.sse({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
        error_event_reason="overloaded",
    ),
    Dialect(
        api=catalog.BEDROCK,
        provider="bedrock",
        model="anthropic.claude-sonnet-4-20250514-v1:0",
        events=wire.bedrock,
        calling={"calls": [("call_1", "get", '{"a": 1}')], "finish": "tool_use"},
        length="max_tokens",
        withheld="guardrail_intervened",
        limited=({"message": "Too many requests"}, {"x-amzn-errortype": "ThrottlingException", "retry-after": "7"}),
        error_event=wire.aws_event("throttlingException", {"message": "slow"}, message_type="exception"),
        error_event_reason="rate_limit",
        content_type=AWS_STREAM,
    ),
]


@pytest.fixture(params=DIALECTS, ids=lambda dialect: f"{dialect.api}-{dialect.provider}")
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    if request.param.api == catalog.BEDROCK:  # AWS reads its credentials from the environment and from files
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
    return request.param


@pytest.fixture
async def stub() -> AsyncIterator[ProviderStub]:
    async with ProviderStub() as server:
        yield server


def target_of(dialect: Dialect, url: str) -> ModelTarget:
    key, region = (None, "us-east-1") if dialect.api == catalog.BEDROCK else (KEY, None)
    return ModelTarget(dialect.provider, dialect.model, dialect.api, url, key, region)


@pytest.fixture
async def model(dialect: Dialect, stub: ProviderStub) -> AsyncIterator[PydanticAIModel]:
    client = PydanticAIModel(target_of(dialect, stub.url))
    yield client
    await client.aclose()


def request_to(model: PydanticAIModel, timeout_s: float = 20.0) -> ModelRequest:
    return ModelRequest(
        model.target.ref,
        [{"role": "user", "content": "hi"}],
        system="be nice",
        tools=[TOOL],
        settings={"temperature": 0.5, "max_tokens": 100, "stop": ["END"]},
        timeout_s=timeout_s,
    )


async def answer_of(model: PydanticAIModel) -> ModelAnswer:
    items = [item async for item in model.stream(request_to(model))]
    answer = items.pop()
    assert isinstance(answer, ModelAnswer)
    assert "".join(item.text for item in items if isinstance(item, TextDelta)) == answer.text
    return answer


async def failure_of(model: PydanticAIModel, timeout_s: float = 20.0) -> ProviderError:
    """The error a request ends in. What was streamed must be in `.partial`, no answer come, and no secret be told."""
    said: list[str] = []

    async def consume() -> None:
        async for item in model.stream(request_to(model, timeout_s)):
            assert not isinstance(item, ModelAnswer), "a failed request yields no answer"
            said.extend([item.text] if isinstance(item, TextDelta) else [])

    with pytest.raises(ProviderError) as caught:
        await consume()
    failed = caught.value
    assert failed.partial == "".join(said)
    assert (failed.provider, failed.model) == (model.target.provider, model.target.model)
    assert KEY not in f"{failed} {failed.body}"
    return failed


# ── good answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_whole_answer_streams_and_ends(dialect: Dialect, stub: ProviderStub, model: PydanticAIModel) -> None:
    stub.play(dialect.scene(dialect.events("Hello there friend")))
    answer = await answer_of(model)
    assert (answer.text, answer.stop_reason) == ("Hello there friend", "stop")
    assert (answer.provider, answer.model, answer.api) == (dialect.provider, dialect.model, dialect.api)
    assert answer.usage["input"] > 0
    assert answer.usage["output"] > 0


async def test_a_tool_call_comes_with_its_id_and_arguments(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("let me see", **dialect.calling)))
    answer = await answer_of(model)
    assert answer.stop_reason == "toolUse"
    (call,) = answer.tool_calls
    assert (call["name"], call["arguments"]) == ("get", {"a": 1})
    if dialect.api == catalog.GOOGLE:  # which gives calls no ids
        assert call["id"]
        assert call["thoughtSignature"] == "c2ln"
    else:
        assert call["id"] == "call_1"


async def test_an_answer_cut_at_its_length_says_so(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("Hello there", finish=dialect.length)))
    answer = await answer_of(model)
    assert (answer.text, answer.stop_reason) == ("Hello there", "length")


async def test_system_tools_settings_and_text_reach_the_provider(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("ok")))
    await answer_of(model)
    seen = str(stub.requests[0].body)
    for expected in ("be nice", "'hi'", "gets", "0.5", "100", "END"):
        assert expected in seen


# ── streams that end wrongly ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_without_the_providers_finish_reason_is_no_answer(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("Hello there friend", finish=None)))
    failed = await failure_of(model)
    assert failed.code == "no_finish_reason"
    assert failed.partial == "Hello there friend"
    assert classify(failed).reason == "timeout"


async def test_a_cut_connection_keeps_what_was_said(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("Hello there friend", finish=None)[:3], end="cut"))
    failed = await failure_of(model)
    assert (failed.code, failed.sent) == ("connection_error", True)
    assert failed.__cause__ is not None


async def test_a_connection_cut_after_the_finish_reason_loses_no_answer(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel, caplog: pytest.LogCaptureFixture
) -> None:
    whole = dialect.events("Hello there friend")
    if dialect.api != catalog.GOOGLE:  # there the finish reason comes with the last event
        whole.pop()
    stub.play(dialect.scene(whole, end="cut"))
    answer = await answer_of(model)
    assert (answer.text, answer.stop_reason) == ("Hello there friend", "stop")
    assert "after the answer was complete" in caplog.text


async def test_a_stalled_stream_ends_after_the_longest_silence(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("Hello there friend", finish=None)[:3], end="stall"))
    failed = await failure_of(model, SILENCE_S)
    assert (failed.code, failed.sent) == ("timeout", True)
    assert classify(failed).reason == "timeout"


async def test_a_provider_that_never_answers_times_out(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(Scene(silent=True))
    failed = await failure_of(model, SILENCE_S)
    assert (failed.code, failed.partial) == ("timeout", "")


async def test_an_error_event_inside_a_good_response_is_an_error(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    before = dialect.events("Hello there friend", finish=None)[:3]
    stub.play(dialect.scene([*before, dialect.error_event]))
    failed = await failure_of(model)
    assert classify(failed).reason == dialect.error_event_reason


async def test_a_page_of_html_with_status_200_is_an_error(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    page = b"<html><body>Please log in to the hotel network.</body></html>"
    stub.play(Scene([page], content_type="text/html"))
    failed = await failure_of(model)
    assert failed.code == "unexpected_response"
    assert classify(failed).reason == "timeout"


async def test_an_empty_response_is_an_error(dialect: Dialect, stub: ProviderStub, model: PydanticAIModel) -> None:
    stub.play(dialect.scene([]))
    failed = await failure_of(model)
    assert failed.code in ("unexpected_response", "no_finish_reason")


async def test_a_withheld_answer_is_an_error_of_its_own(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(dialect.scene(dialect.events("Hel", finish=dialect.withheld)))
    failed = await failure_of(model)
    assert (failed.code, failed.partial) == ("content_filter", "Hel")


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rate_limit_keeps_status_wait_and_body_and_is_not_tried_again(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    body, headers = dialect.limited
    stub.play(json_scene(body, 429, **headers))
    failed = await failure_of(model)
    assert (failed.status, failed.retry_after_s) == (429, 7.0)
    assert classify(failed).reason == "rate_limit"
    assert failed.body
    assert len(stub.requests) == 1, "the SDK must not retry"


async def test_a_server_error_is_not_tried_again_inside(
    dialect: Dialect, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(json_scene({"error": {"message": "boom"}, "message": "boom"}, 500))
    failed = await failure_of(model)
    assert (failed.status, classify(failed).reason) == (500, "server_error")
    assert len(stub.requests) == 1


async def test_a_context_overflow_is_named(dialect: Dialect, stub: ProviderStub, model: PydanticAIModel) -> None:
    text = "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)"
    bodies = {
        catalog.OPENAI: {"error": {"code": "context_length_exceeded", "message": "maximum context length"}},
        catalog.ANTHROPIC: error("invalid_request_error", "prompt is too long: 208423 tokens > 200000 maximum"),
        catalog.GOOGLE: {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": text}},
        catalog.BEDROCK: {"message": "Input is too long for requested model.", "__type": "ValidationException"},
    }
    stub.play(json_scene(bodies[dialect.api], 400))
    failed = await failure_of(model)
    assert (failed.status, classify(failed).reason) == (400, "context_overflow")


async def test_a_refused_connection_was_not_sent(dialect: Dialect) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        model = PydanticAIModel(target_of(dialect, f"http://127.0.0.1:{taken.getsockname()[1]}"))
        failed = await failure_of(model)
        await model.aclose()
    assert (failed.code, failed.sent) == ("connection_error", False)


# ── cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancelling_closes_the_connection(dialect: Dialect, stub: ProviderStub, model: PydanticAIModel) -> None:
    chunks = dialect.events("Hello there friend", finish=None)[:3]
    # Kept alive, as the real ones are: of a connection announced to close, the AWS client lets go of the socket.
    stub.play(dialect.scene(chunks, end="stall", headers={"Connection": "keep-alive"}))
    first = asyncio.Event()

    async def consume() -> None:
        async for _ in model.stream(request_to(model)):
            first.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(first.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.client_gone(), 60)


# ── thinking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_signed_thinking_streams_and_goes_back_unchanged(stub: ProviderStub) -> None:
    model = PydanticAIModel(ModelTarget("anthropic", "claude-stub", catalog.ANTHROPIC, stub.url, KEY))
    stub.play(Scene(wire.anthropic("so", thinking=("let me think", "SIGNED"))), Scene(wire.anthropic("again")))
    items = [item async for item in model.stream(request_to(model))]
    answer = items.pop()
    assert isinstance(answer, ModelAnswer)
    assert "".join(item.text for item in items if isinstance(item, ThinkingDelta)) == "let me think"
    history = [{"role": "user", "content": "hi"}, answer.message(0), {"role": "user", "content": "go on"}]
    assert [item async for item in model.stream(ModelRequest(model.target.ref, history))]
    sent = stub.requests[1].body["messages"][1]["content"][0]
    assert (sent["type"], sent["thinking"], sent["signature"]) == ("thinking", "let me think", "SIGNED")
    await model.aclose()


async def test_thinking_of_a_compatible_server_goes_back_in_its_own_field(stub: ProviderStub) -> None:
    model = PydanticAIModel(ModelTarget("deepseek", "deepseek-reasoner", catalog.OPENAI, stub.url, KEY))
    stub.play(Scene(wire.openai("so", reasoning="let me think")), Scene(wire.openai("again")))
    answer = [item async for item in model.stream(request_to(model))][-1]
    assert isinstance(answer, ModelAnswer)
    history = [{"role": "user", "content": "hi"}, answer.message(0), {"role": "user", "content": "go on"}]
    assert [item async for item in model.stream(ModelRequest(model.target.ref, history))]
    assert stub.requests[1].body["messages"][1]["reasoning_content"] == "let me think"
    await model.aclose()


async def test_a_server_without_keys_gets_nobody_elses(stub: ProviderStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = PydanticAIModel(ModelTarget("ollama", "llama3", catalog.OPENAI, stub.url))
    stub.play(Scene(wire.openai("hi")))
    await answer_of(model)
    assert KEY not in str(stub.requests[0].headers)
    assert stub.requests[0].body["max_tokens"] == 100
    await model.aclose()
