"""What of a chat client's messages is new to a session."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.context.repair import INTERRUPTED
from holdfast.errors import InputError
from holdfast.inbound.chat import align, new_messages, offered_tools
from holdfast.inbound.openai_messages import read_messages, read_tools, to_text, to_tool_calls, to_usage

Message = dict[str, Any]


def said(text: str) -> Message:
    return {"role": "user", "content": text}


def kept(text: str) -> Message:
    """A user's message as the transcript holds it: in parts, with a time."""
    return {"role": "user", "content": [{"type": "text", "text": text}], "timestamp": 1_700_000_000_000}


def answer(text: str, stop: str = "stop", **more: Any) -> Message:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
    return {"role": "assistant", "content": content, "provider": "demo", "model": "demo", "stopReason": stop, **more}


def calls(*ids: str, text: str = "") -> Message:
    parts: list[Message] = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "toolCall", "id": id, "name": f"tool_{id}", "arguments": {}} for id in ids]
    return {"role": "assistant", "content": parts, "provider": "demo", "model": "demo", "stopReason": "toolUse"}


def result(id: str, text: str = "done") -> Message:
    name = f"tool_{id}"
    return {"role": "toolResult", "toolCallId": id, "toolName": name, "content": [{"type": "text", "text": text}]}


MIRROR = answer("a1", provider="openclaw", model="delivery-mirror")
DIVERGED = "diverged: the last stored answer is not in messages"

ROWS: dict[str, tuple[list[Message], list[Message], list[Message], str]] = {
    # name: what is stored, what the client sends, what is appended, the header
    "an empty session takes the one message": ([], [said("u1")], [said("u1")], "appended"),
    "an empty session takes the whole history": (
        [], [said("u1"), answer("a1"), said("u2")], [said("u1"), answer("a1"), said("u2")], "appended",
    ),
    "one message without history is appended": ([kept("u1"), answer("a1")], [said("u2")], [said("u2")], "appended"),
    "an equal question is a new question": ([kept("u1"), answer("a1")], [said("u1")], [said("u1")], "appended"),
    "the full history adds the last message": (
        [kept("u1"), answer("a1")], [said("u1"), answer("a1"), said("u2")], [said("u2")], "aligned",
    ),
    "several messages after the last answer are all new": (
        [kept("u1"), answer("a1")],
        [said("u1"), answer("a1"), said("u2"), said("u3")],
        [said("u2"), said("u3")],
        "aligned",
    ),
    "a client that cut its old messages off is aligned": (
        [kept("u1"), answer("a1"), kept("u2"), answer("a2")],
        [answer("a2"), said("u3")],
        [said("u3")],
        "aligned",
    ),
    "a session compacted to its end is aligned": (
        [kept("u2"), answer("a2")],
        [said("u1"), answer("a1"), said("u2"), answer("a2"), said("u3")],
        [said("u3")],
        "aligned",
    ),
    "white space does not count": (
        [kept("u1"), answer("a line\n\nand one more ")],
        [said(" u1\n"), answer("a line\nand one more"), said("u2")],
        [said("u2")],
        "aligned",
    ),
    "equal short answers are told apart by what stands before them": (
        [kept("u1"), answer("ok"), kept("u2"), answer("ok")],
        [said("u1"), answer("ok"), said("u2"), answer("ok"), said("u3")],
        [said("u3")],
        "aligned",
    ),
    "an edited question before an equal answer is named": (
        [kept("u1"), answer("ok"), kept("u2"), answer("ok")],
        [said("u1"), answer("ok"), said("other")],
        [said("other")],
        "diverged: message 1 of 3 (user) is not what is stored",
    ),
    "an edited older message is named": (
        [kept("u1"), answer("a1"), kept("u2"), answer("a2")],
        [said("edited"), answer("a1"), said("u2"), answer("a2"), said("u3")],
        [said("u3")],
        "diverged: message 1 of 5 (user) is not what is stored",
    ),
    "a question asked again in place of its answer diverges": (
        [kept("u1"), answer("a1"), kept("u2"), answer("a2")],
        [said("u1"), answer("a1"), said("u2 better")],
        [said("u2 better")],
        DIVERGED,
    ),
    "an answer of another session diverges": (
        [kept("u1"), answer("a1")], [said("x"), answer("y"), said("z")], [said("z")], DIVERGED,
    ),
    "somebody else's turn in between diverges": (
        [kept("u1"), answer("a1"), kept("beat"), answer("all is well")],
        [said("u1"), answer("a1"), said("u2")],
        [said("u2")],
        DIVERGED,
    ),
    "what another model answered meanwhile is taken along": (
        [kept("u1"), answer("a1")],
        [said("u1"), answer("a1"), said("u2"), answer("elsewhere"), said("u3")],
        [said("u2"), answer("elsewhere"), said("u3")],
        "aligned",
    ),
    "a mirror of the answer is not an answer": (
        [kept("u1"), answer("a1"), MIRROR], [said("u1"), answer("a1"), said("u2")], [said("u2")], "aligned",
    ),
    "a failed answer is not an answer": (
        [kept("u1"), answer("a1"), kept("u2"), answer("par", stop="error")],
        [said("u1"), answer("a1"), said("u2"), said("u3")],
        [said("u3")],
        "aligned",
    ),
    "a message whose turn failed is not stored twice": (
        [kept("u1"), answer("a1"), kept("u2")],
        [said("u1"), answer("a1"), said("u2"), said("u3")],
        [said("u3")],
        "aligned",
    ),
    "a message sent again after its turn failed is asked again": (
        [kept("u1"), answer("a1"), kept("u2")], [said("u1"), answer("a1"), said("u2")], [said("u2")], "aligned",
    ),
    "the first message of a session sent again after it failed": ([kept("u1")], [said("u1")], [said("u1")], "appended"),
    "the first turn failed and the client goes on": ([kept("u1")], [said("u1"), said("u2")], [said("u2")], "appended"),
    "a client that keeps no answers adds its last message": (
        [kept("u1"), answer("a1"), kept("u2"), answer("a2")],
        [said("u1"), said("u2"), said("u3")],
        [said("u3")],
        DIVERGED,
    ),
    "tool rounds of ours are not in the client's view": (
        [kept("u1"), calls("c1"), result("c1"), answer("a1")],
        [said("u1"), answer("a1"), said("u2")],
        [said("u2")],
        "aligned",
    ),
    "a streaming client has the text of all rounds in one message": (
        [kept("u1"), calls("c1", text="let me look"), result("c1"), answer("it is 5")],
        [said("u1"), answer("let me look\n\nit is 5"), said("u2")],
        [said("u2")],
        "aligned",
    ),
    "the result of a client's tool is appended": (
        [kept("u1"), calls("c1")], [said("u1"), calls("c1"), result("c1")], [result("c1")], "aligned",
    ),
    "the results of two calls are appended in order": (
        [kept("u1"), calls("c1", "c2")],
        [said("u1"), calls("c1", "c2"), result("c2"), result("c1")],
        [result("c2"), result("c1")],
        "aligned",
    ),
    "a made-up result does not stand for the client's own": (
        [kept("u1"), calls("c1", "c2"), result("c1", INTERRUPTED), result("c2", INTERRUPTED)],
        [said("u1"), calls("c1", "c2"), result("c2"), result("c1")],
        [result("c2"), result("c1")],
        "aligned",
    ),
    "a second round of a client's tools": (
        [kept("u1"), calls("c1"), result("c1"), calls("c2")],
        [said("u1"), calls("c1"), result("c1"), calls("c2"), result("c2")],
        [result("c2")],
        "aligned",
    ),
    "a question after a round of a client's tools": (
        [kept("u1"), calls("c1"), result("c1"), answer("a1")],
        [said("u1"), calls("c1"), result("c1"), answer("a1"), said("u2")],
        [said("u2")],
        "aligned",
    ),
    "results sent without history are appended": (
        [kept("u1"), calls("c1", "c2")], [result("c1"), result("c2")], [result("c1"), result("c2")], "appended",
    ),
    "a new question in place of the results": (
        [kept("u1"), calls("c1")], [said("u1"), calls("c1"), said("never mind")], [said("never mind")], "aligned",
    ),
    "results whose turn failed are sent again": (
        [kept("u1"), calls("c1"), result("c1")],
        [said("u1"), calls("c1"), result("c1")],
        [result("c1")],
        "appended",
    ),
    "results of calls that are not stored bring their calls along": (
        [kept("u1"), answer("a1")],
        [said("x"), calls("c9"), result("c9")],
        [calls("c9"), result("c9")],
        DIVERGED,
    ),
    "a turn that broke off between its tools is not an answer to look for": (
        [kept("u1"), answer("a1"), kept("u2"), calls("c1"), result("c1", "interrupted")],
        [said("u1"), answer("a1"), said("u2"), said("u3")],
        [said("u3")],
        "aligned",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_only_what_follows_the_last_stored_answer_is_new(name: str) -> None:
    stored, sent, appended, history = ROWS[name]
    alignment = align(sent, stored)
    assert alignment.append == appended
    assert alignment.history == history


def test_a_divergence_is_named_only_when_there_is_one() -> None:
    stored = [kept("u1"), answer("a1")]
    assert align([said("u1"), answer("a1"), said("u2")], stored).divergence is None
    assert align([said("x"), answer("y"), said("z")], stored).divergence == "the last stored answer is not in messages"


def test_images_tell_messages_apart() -> None:
    def shown(data: str) -> Message:
        return {"role": "user", "content": [{"type": "image", "data": data, "mimeType": "image/png"}]}

    stored = [shown("AAAA"), answer("a1")]
    assert align([shown("AAAA"), answer("a1"), said("u2")], stored).history == "aligned"
    assert align([shown("BBBB"), answer("a1"), said("u2")], stored).history.startswith("diverged: message 1 of 3")


def test_a_result_gets_the_name_of_its_tool_from_the_stored_call() -> None:
    nameless = {**result("c1"), "toolName": ""}
    assert align([nameless], [kept("u1"), calls("c1")]).append[0]["toolName"] == "tool_c1"


def test_nothing_that_was_given_is_changed() -> None:
    stored, sent = [kept("u1"), calls("c1")], [said("u1"), calls("c1"), {**result("c1"), "toolName": ""}]
    before = repr((stored, sent))
    align(sent, stored)
    assert repr((stored, sent)) == before


def test_many_equal_answers_are_aligned_in_little_time() -> None:
    rounds = 2_000
    stored = [message for _ in range(rounds) for message in (kept("go on"), answer("ok"))]
    sent = [message for _ in range(rounds) for message in (said("go on"), answer("ok"))]
    alignment = align([said("edited"), *sent[1:], said("last")], stored)
    assert alignment.append == [said("last")]
    assert alignment.divergence == f"message 1 of {2 * rounds + 1} (user) is not what is stored"


def test_a_payload_that_is_one_message_is_appended_as_it_is() -> None:
    alignment = new_messages({"content": "hello"}, [kept("u1"), answer("a1")])
    assert alignment.append == [said("hello")]
    assert alignment.history == "appended"


# ── OpenAI's messages ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_is_read_with_its_prompts_taken_out() -> None:
    read = read_messages(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "what is it?"}]},
            {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": [1, 2]}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ]
    )
    assert read.system == "be brief\n\nand kind"
    user, call, found = read.messages
    assert user == {"role": "user", "content": [{"type": "text", "text": "what is it?"}]}
    assert call["content"] == [{"type": "toolCall", "id": "c1", "name": "look", "arguments": {"at": [1, 2]}}]
    assert call["stopReason"] == "toolUse"
    assert (found["toolCallId"], found["toolName"], found["isError"]) == ("c1", "look", False)


def test_an_image_travels_as_data() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,iVBO\nRw0K", "detail": "low"}}
    read = read_messages([{"role": "user", "content": [image]}])
    assert read.messages[0]["content"] == [{"type": "image", "data": "iVBORw0K", "mimeType": "image/png"}]


def call_with(arguments: Any) -> Message:
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "wizard", "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": ""}], "messages[0]: the message is empty"),
        ([{"role": "user", "content": " \n"}], "messages[0]: the message is empty"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "messages[0]: the message is empty"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}],
            "nothing is fetched",
        ),
        ([{"role": "system", "content": "only a prompt"}], "the last message"),
        ([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "the last message"),
        ([call_with("not json"), {"role": "user", "content": "u"}], "messages[0].tool_calls[0].function.arguments"),
        ([call_with("[1]"), {"role": "user", "content": "u"}], "messages[0].tool_calls[0].function.arguments"),
        ([call_with("[" * 100_000), {"role": "user", "content": "u"}], "messages[0].tool_calls[0].function.arguments"),
        ([call_with(7), {"role": "user", "content": "u"}], "messages[0].tool_calls[0].function.arguments"),
        ([{"role": "tool", "content": "r"}], "messages[0].tool_call_id"),
    ],
)
def test_a_faulty_conversation_is_refused_with_the_place_of_its_fault(messages: Any, place: str) -> None:
    with pytest.raises(InputError) as refused:
        read_messages(messages)
    assert place in str(refused.value)


def test_tools_are_read_with_an_empty_schema_where_none_is_given() -> None:
    tools = read_tools([{"type": "function", "function": {"name": "now"}}])
    assert tools == [{"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}]
    assert offered_tools({"messages": [], "tools": tools})[0].name == "now"
    assert offered_tools({"content": "hi"}) == []


@pytest.mark.parametrize(
    "tools",
    [
        "now",
        ["now"],
        [{"type": "web_search"}],
        [{"type": "function", "function": {"name": "has space"}}],
        [{"type": "function", "function": {"name": "f", "parameters": []}}, {}],
        [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}],
    ],
)
def test_faulty_tools_are_refused(tools: Any) -> None:
    with pytest.raises(InputError, match=r"^tools"):
        read_tools(tools)


def test_an_answer_is_shown_with_the_calls_that_are_the_clients() -> None:
    message = calls("c1", "c2", text="I need both")
    assert to_text(message) == "I need both"
    shown = to_tool_calls(message, ["tool_c2"])
    assert shown == [{"id": "c2", "type": "function", "function": {"name": "tool_c2", "arguments": "{}"}}]


def test_cached_tokens_are_part_of_the_prompt() -> None:
    assert to_usage({"input": 10, "cacheRead": 5, "cacheWrite": 1, "output": 7}) == {
        "prompt_tokens": 16,
        "completion_tokens": 7,
        "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
