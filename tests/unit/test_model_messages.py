"""Transcript messages to pydantic-ai's and back."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic_ai import messages as pm
from pydantic_ai.usage import RequestUsage

from holdfast.errors import InputError
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ModelRequest, ToolSpec
from holdfast.model.pydantic_builders import settings_of
from holdfast.model.pydantic_messages import to_content, to_model_messages, to_usage, wire_id

ANTHROPIC = ModelTarget("anthropic", "claude-sonnet-4-5", catalog.ANTHROPIC)
OPENAI = ModelTarget("deepseek", "deepseek-reasoner", catalog.OPENAI)
GOOGLE = ModelTarget("google", "gemini-2.5-pro", catalog.GOOGLE)
BEDROCK = ModelTarget("bedrock", "anthropic.claude-sonnet-4", catalog.BEDROCK)


def assistant(*content: dict[str, Any], provider: str) -> dict[str, Any]:
    return {"role": "assistant", "provider": provider, "model": "m", "content": list(content)}


def response(message: dict[str, Any], target: ModelTarget) -> pm.ModelResponse:
    (out,) = to_model_messages([message], target, target.provider)
    assert isinstance(out, pm.ModelResponse)
    return out


def test_neighbouring_results_and_user_messages_share_one_request() -> None:
    history = [
        {"role": "user", "content": "look"},
        assistant({"type": "toolCall", "id": "call_1", "name": "see", "arguments": {"x": 1}}, provider="anthropic"),
        {"role": "toolResult", "toolCallId": "call_1", "toolName": "see", "content": "seen", "isError": False},
        {"role": "toolResult", "toolCallId": "call_2", "toolName": "see", "content": "no", "isError": True},
        {"role": "user", "content": "and?"},
    ]
    first, said, last = to_model_messages(history, ANTHROPIC, "anthropic")
    assert isinstance(first, pm.ModelRequest)
    assert isinstance(said, pm.ModelResponse)
    assert isinstance(last, pm.ModelRequest)
    call = said.parts[0]
    assert isinstance(call, pm.ToolCallPart)
    assert (call.tool_call_id, call.tool_name, call.args) == ("call_1", "see", {"x": 1})
    good, bad, user = last.parts
    assert isinstance(good, pm.ToolReturnPart)
    assert isinstance(bad, pm.ToolReturnPart)
    assert isinstance(user, pm.UserPromptPart)
    assert (good.tool_call_id, good.outcome, good.content) == ("call_1", "success", "seen")
    assert (bad.tool_call_id, bad.outcome) == ("call_2", "failed")
    assert user.content == "and?"


def test_images_go_as_bytes_in_messages_and_in_results() -> None:
    image = {"type": "image", "data": base64.b64encode(b"PNG").decode(), "mimeType": "image/png"}
    (request,) = to_model_messages(
        [
            {
                "role": "toolResult",
                "toolCallId": "c",
                "toolName": "t",
                "content": [{"type": "text", "text": "a"}, image],
            },
            {"role": "user", "content": [{"type": "text", "text": "b"}, image]},
        ],
        ANTHROPIC,
        "anthropic",
    )
    for part in request.parts:
        assert isinstance(part, pm.ToolReturnPart | pm.UserPromptPart)
        assert isinstance(part.content, list)
        picture = part.content[1]
        assert isinstance(picture, pm.BinaryContent)
        assert (picture.data, picture.media_type) == (b"PNG", "image/png")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image", "data": "not base64!", "mimeType": "image/png"}]},
        {"role": "user", "content": [{"type": "image", "mimeType": "image/png"}]},
        {"role": "user", "content": 5},
        {"role": "bashExecution", "command": "ls"},
        {"role": "toolResult", "toolCallId": "c", "content": "no name"},
        {"role": "assistant", "content": ["not a part"]},
        {"content": "no role"},
    ],
)
def test_what_no_model_can_be_shown_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        to_model_messages([message], ANTHROPIC, "anthropic")


def test_an_answer_with_nothing_to_show_is_left_out() -> None:
    history = [{"role": "user", "content": "a"}, assistant(provider="x"), {"role": "user", "content": "b"}]
    (request,) = to_model_messages(history, ANTHROPIC, "anthropic")
    assert len(request.parts) == 2


def test_ids_are_kept_as_long_as_every_provider_accepts_them() -> None:
    for kept in ("call_abc", "toolu_01A-b", "x" * 40):
        assert wire_id(kept) == kept
    for odd in ("call_1|fc_2", "x" * 41, "", "ümlaut"):
        stand_in = wire_id(odd)
        assert wire_id(stand_in) == stand_in
        assert wire_id(odd) == stand_in
    assert wire_id("a|b") != wire_id("a.b")


# ── thinking and signatures ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", [ANTHROPIC, BEDROCK])
def test_signed_thinking_goes_back_to_its_own_provider_whole(target: ModelTarget) -> None:
    thought = {"type": "thinking", "thinking": "hmm", "thinkingSignature": "sig"}
    hidden = {"type": "thinking", "thinking": "", "thinkingSignature": "blob", "redacted": True}
    text = {"type": "text", "text": "done"}
    sent = response(assistant(thought, hidden, text, provider=target.provider), target)
    assert to_content(sent.parts, target, cut=False) == [thought, hidden, text]


def test_thinking_of_another_provider_or_without_a_signature_is_left_out() -> None:
    signed = {"type": "thinking", "thinking": "hmm", "thinkingSignature": "sig"}
    plain = {"type": "thinking", "thinking": "hmm"}
    text = {"type": "text", "text": "done"}
    foreign = response(assistant(signed, text, provider="openai"), ANTHROPIC)
    unsigned = response(assistant(plain, text, provider="anthropic"), ANTHROPIC)
    for sent in (foreign, unsigned):
        assert [part.part_kind for part in sent.parts] == ["text"]


def test_a_provider_is_known_by_its_other_name_too() -> None:
    thought = {"type": "thinking", "thinking": "hmm", "thinkingSignature": "sig"}
    sent = response(assistant(thought, provider="amazon-bedrock"), BEDROCK)
    assert isinstance(sent.parts[0], pm.ThinkingPart)


def test_a_compatible_servers_thinking_goes_back_in_the_field_it_came_in() -> None:
    thought = {"type": "thinking", "thinking": "hmm", "thinkingSignature": "reasoning_content"}
    sent = response(assistant(thought, provider="deepseek"), OPENAI)
    part = sent.parts[0]
    assert isinstance(part, pm.ThinkingPart)
    assert part.id == "reasoning_content"
    assert to_content(sent.parts, OPENAI, cut=False) == [thought]
    odd = {"type": "thinking", "thinking": "hmm", "thinkingSignature": '{"id":"rs_1"}'}
    assert to_model_messages([assistant(odd, provider="deepseek")], OPENAI, "deepseek") == []


def test_googles_signatures_stay_with_their_parts() -> None:
    content = [
        {"type": "thinking", "thinking": "hmm", "thinkingSignature": "dGhpbms="},
        {"type": "text", "text": "so", "textSignature": "dGV4dA=="},
        {"type": "toolCall", "id": "c1", "name": "t", "arguments": {}, "thoughtSignature": "Y2FsbA=="},
    ]
    assert to_content(response(assistant(*content, provider="google"), GOOGLE).parts, GOOGLE, cut=False) == content
    elsewhere = response(assistant(*content, provider="google"), ANTHROPIC)
    assert all(part.provider_details is None for part in elsewhere.parts if isinstance(part, pm.TextPart))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arguments_that_are_no_object_stay_visible_to_the_tools_own_check() -> None:
    call = pm.ToolCallPart("go", "{broken", "c1")
    (content,) = to_content([call], OPENAI, cut=False)
    assert content["arguments"] == {"INVALID_JSON": "{broken"}


def test_a_call_that_the_length_limit_cut_is_left_out() -> None:
    whole, broken = pm.ToolCallPart("go", '{"a": 1}', "c1"), pm.ToolCallPart("go", '{"a": ', "c2")
    assert [part["id"] for part in to_content([whole, broken], OPENAI, cut=True)] == ["c1"]


def test_usage_counts_cached_tokens_once() -> None:
    usage = to_usage(RequestUsage(input_tokens=17, output_tokens=9, cache_read_tokens=5, cache_write_tokens=2))
    counts = {name: usage[name] for name in ("input", "output", "cacheRead", "cacheWrite", "totalTokens")}
    assert counts == {"input": 10, "output": 9, "cacheRead": 5, "cacheWrite": 2, "totalTokens": 26}


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings(given: dict[str, Any], target: ModelTarget = OPENAI, tools: bool = True) -> dict[str, Any]:
    offered = [ToolSpec("go", "goes", {"type": "object"})] if tools else []
    return dict(settings_of(ModelRequest(target.ref, [], tools=offered, settings=given), target, 30))


def test_settings_of_a_chat_request_are_put_in_other_words_and_unknown_ones_ignored() -> None:
    given = {"temperature": 0.2, "stop": "END", "max_completion_tokens": 50, "n": 3, "top_p": None, "seed": 1}
    assert settings(given) == {
        "temperature": 0.2,
        "stop_sequences": ["END"],
        "max_tokens": 50,
        "seed": 1,
        "timeout": 30,
    }


def test_a_tool_choice_names_a_tool_that_is_offered() -> None:
    chosen = {"type": "function", "function": {"name": "go"}}
    assert settings({"tool_choice": chosen})["tool_choice"] == ["go"]
    assert settings({"tool_choice": "required"})["tool_choice"] == "required"
    assert "tool_choice" not in settings({"tool_choice": "required"}, tools=False)
    with pytest.raises(InputError, match="tool_choice"):
        settings({"tool_choice": {"type": "function", "function": {"name": "other"}}})


def test_bedrock_takes_its_time_limit_with_the_client() -> None:
    assert "timeout" not in settings({}, target=BEDROCK)
