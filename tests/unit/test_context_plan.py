"""The context: what the model is shown, in which order, and what is left out when there is no room."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.context.budget import IMAGE_TOKENS, estimate_tokens
from holdfast.context.plan import Plan, fit, plan
from holdfast.context.repair import INTERRUPTED, pair_calls
from holdfast.ids import input_line_id
from holdfast.session import entries
from holdfast.session.entries import SALVAGE_TYPE, Entry, MessageEntry, Origin, encode_line, stamped
from holdfast.session.lines import Line, read_line

AT = "2026-05-22T10:00:00.000Z"


class Writer:
    """Lines in a row, as a transcript would hold them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, entry: Entry, *, id: str | None = None, turn: str = "other", inputs: tuple[str, ...] = ()) -> str:
        id = id or f"e{len(self.lines)}"
        parent = self.lines[-1].id if self.lines else None
        origin = Origin("store", turn, 1, "main", "proc", inputs)
        line = read_line(encode_line(stamped(entry, id=id, parent=parent, timestamp=AT, origin=origin)))
        assert line.kind == "entry"
        self.lines.append(line)
        return id


@pytest.fixture
def branch() -> Writer:
    return Writer()


def call(id: str, name: str = "tool") -> dict[str, Any]:
    return {"type": "toolCall", "id": id, "name": name, "arguments": {}}


def said(text: str, *calls: str, stop_reason: Any = "stop") -> MessageEntry:
    parts = [{"type": "text", "text": text}] if text else []
    return entries.assistant([*parts, *map(call, calls)], model="p/m", stop_reason=stop_reason)


def told(planned: Plan) -> list[str]:
    """Each message in a word or two: u:text, a:text[calls], r:call=text."""
    return [brief(message) for message in planned.messages]


def brief(message: dict[str, Any]) -> str:
    text = "".join(part.get("text", "") for part in message["content"])
    if message["role"] == "toolResult":
        return f"r:{message['toolCallId']}={'interrupted' if text == INTERRUPTED else text}"
    calls = ",".join(part["id"] for part in message["content"] if part["type"] == "toolCall")
    return f"{message['role'][0]}:{text}" + (f"[{calls}]" if calls else "")


def test_messages_are_shown_in_order(branch: Writer) -> None:
    branch.add(entries.user("q"))
    branch.add(said("look", "c1"))
    branch.add(entries.tool_result("c1", "tool", "found"))
    branch.add(said("done"))
    assert told(plan(branch.lines)) == ["u:q", "a:look[c1]", "r:c1=found", "a:done"]


def test_what_is_not_for_the_model_is_left_out(branch: Writer) -> None:
    branch.add(entries.user("q"))
    branch.add(entries.mirror("copy"))
    branch.add(entries.custom(SALVAGE_TYPE, {"text": "kept for people"}))
    branch.add(entries.label("e0", "mark"))
    branch.add(entries.session_info("title"))
    branch.add(entries.model_change("p/m"))
    branch.add(entries.thinking_level_change("high"))
    branch.add(said("", stop_reason="error"))
    branch.add(said("", "c1", stop_reason="aborted"))
    branch.add(said("  "))
    branch.add(bash("secret", excludeFromContext=True))
    assert told(plan(branch.lines)) == ["u:q"]


def bash(command: str, **fields: Any) -> MessageEntry:
    message = {"role": "bashExecution", "command": command, "output": "out", "cancelled": False, "truncated": False}
    return MessageEntry(message={**message, **fields})


def test_notes_summaries_and_commands_are_shown_as_the_users(branch: Writer) -> None:
    branch.add(entries.custom_message("note", "noted"))
    branch.add(entries.branch_summary("root", "went elsewhere"))
    branch.add(bash("ls", exitCode=2))
    branch.add(MessageEntry(message={"role": "custom", "customType": "k", "content": "old style", "display": True}))
    messages = plan(branch.lines).messages
    assert {message["role"] for message in messages} == {"user"}
    texts = [message["content"][0]["text"] for message in messages]
    assert texts[0] == "noted"
    assert texts[1].endswith("went elsewhere")
    assert "$ ls\nout" in texts[2]
    assert "exit code 2" in texts[2]
    assert texts[3] == "old style"


def test_a_failed_answer_keeps_its_text_but_not_its_thinking(branch: Writer) -> None:
    branch.add(entries.user("q"))
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "half"}, call("c1")]
    branch.add(entries.assistant(parts, model="p/m", stop_reason="aborted"))
    messages = plan(branch.lines).messages
    assert messages[1]["content"] == [{"type": "text", "text": "half"}]


def test_unknown_and_malformed_lines_are_left_out(branch: Writer) -> None:
    branch.add(entries.user("q"))
    strange = [b'{"type":"leaf","id":"x","parentId":"e0"}', b'{"type":"message","id":"y","parentId":"x"}']
    assert told(plan([*branch.lines, *map(read_line, strange)])) == ["u:q"]


def test_half_an_emoji_is_shown_as_a_replacement_and_a_whole_one_is_kept(branch: Writer) -> None:
    branch.add(entries.user("cut \ud83d and \U0001f600 whole"))
    assert told(plan(branch.lines)) == ["u:cut \ufffd and \U0001f600 whole"]


def test_the_newest_compaction_stands_for_what_it_covers(branch: Writer) -> None:
    branch.add(entries.user("lost"))
    branch.add(entries.compaction("older", "e0"))
    kept = branch.add(entries.user("kept"))
    branch.add(said("answer"))
    branch.add(entries.compaction("newer", kept))
    branch.add(entries.user("after"))
    planned = plan(branch.lines)
    assert planned.pinned == 1
    assert told(planned)[0].endswith("newer")
    assert told(planned)[1:] == ["u:kept", "a:answer", "u:after"]


def test_a_compaction_that_keeps_nothing_we_can_find_keeps_nothing(branch: Writer) -> None:
    branch.add(entries.user("lost"))
    branch.add(entries.compaction("all of it", "gone"))
    branch.add(entries.user("after"))
    assert told(plan(branch.lines))[1:] == ["u:after"]


def test_a_result_whose_call_was_compacted_away_is_left_out(branch: Writer) -> None:
    branch.add(said("", "c1"))
    kept = branch.add(entries.tool_result("c1", "tool", "found"))
    branch.add(said("answer"))
    branch.add(entries.compaction("sum", kept))
    assert told(plan(branch.lines))[1:] == ["a:answer"]


def test_the_turns_own_input_and_steps_come_last(branch: Writer) -> None:
    branch.add(entries.user("before"))
    branch.add(said("answered"))
    branch.add(entries.user("mine"), id=input_line_id("in_1"), turn="t1", inputs=("in_1",))
    branch.add(entries.custom_message("note", "meanwhile"))
    branch.add(said("", "c1"), turn="t2", inputs=("in_1",))
    branch.add(entries.tool_result("c1", "tool", "found"), turn="t2")
    planned = plan(branch.lines, inputs=["in_1"], turn="t2")
    assert told(planned) == ["u:before", "a:answered", "u:meanwhile", "u:mine", "a:[c1]", "r:c1=found"]
    assert planned.own == 3


def test_the_turns_own_input_is_shown_even_when_a_compaction_covers_it(branch: Writer) -> None:
    branch.add(entries.user("mine"), id=input_line_id("in_1"), turn="t1", inputs=("in_1",))
    branch.add(said("", "c1"), turn="t1", inputs=("in_1",))
    branch.add(entries.tool_result("c1", "tool", "found"), turn="t1", inputs=("in_1",))
    branch.add(entries.compaction("sum", "gone"), turn="t1")
    assert told(plan(branch.lines, inputs=["in_1"], turn="t1"))[1:] == ["u:mine"]


def test_results_that_are_the_turns_input_go_to_the_call_they_answer(branch: Writer) -> None:
    branch.add(entries.user("q"))
    branch.add(said("", "c1"))
    branch.add(entries.tool_result("c1", "tool", "from the client"), turn="t2", inputs=("in_2",))
    planned = plan(branch.lines, inputs=["in_2"], turn="t2")
    assert told(planned) == ["u:q", "a:[c1]", "r:c1=from the client"]
    assert fit(planned, 1).messages == planned.messages


# ── pairing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def paired(branch: Writer) -> list[str]:
    return told(plan(branch.lines))


def test_a_call_without_a_result_gets_one_that_says_interrupted(branch: Writer) -> None:
    branch.add(said("look", "c1", "c2"))
    branch.add(entries.tool_result("c2", "tool", "found"))
    branch.add(entries.user("next"))
    assert paired(branch) == ["a:look[c1,c2]", "r:c1=interrupted", "r:c2=found", "u:next"]
    synthetic = plan(branch.lines).messages[1]
    assert (synthetic["isError"], synthetic["toolName"]) == (True, "tool")


def test_a_result_without_a_call_is_left_out(branch: Writer) -> None:
    branch.add(entries.tool_result("c0", "tool", "early"))
    branch.add(said("", "c1"))
    branch.add(entries.tool_result("c1", "tool", "first"))
    branch.add(entries.tool_result("c1", "tool", "again"))
    assert paired(branch) == ["a:[c1]", "r:c1=first"]


def test_results_stand_directly_behind_their_call(branch: Writer) -> None:
    branch.add(said("", "c1", "c2"))
    branch.add(entries.tool_result("c2", "tool", "two"))
    branch.add(entries.user("between"))
    branch.add(entries.tool_result("c1", "tool", "one"))
    assert paired(branch) == ["a:[c1,c2]", "r:c1=one", "r:c2=two", "u:between"]


def test_ids_that_a_model_counts_anew_pair_with_the_latest_call(branch: Writer) -> None:
    branch.add(said("", "call_0"))
    branch.add(entries.tool_result("call_0", "tool", "one"))
    branch.add(said("", "call_0"))
    branch.add(said("", "call_0"))
    branch.add(entries.tool_result("call_0", "tool", "three"))
    assert paired(branch) == [
        "a:[call_0]", "r:call_0=one", "a:[call_0]", "r:call_0=interrupted", "a:[call_0]", "r:call_0=three",
    ]  # fmt: skip


def test_a_call_made_twice_in_one_message_counts_once_and_the_text_stays(branch: Writer) -> None:
    branch.add(said("look", "c1", "c1"))
    assert paired(branch) == ["a:look[c1]", "r:c1=interrupted"]


def test_a_failed_answer_keeps_only_calls_that_were_answered(branch: Writer) -> None:
    branch.add(said("look", "c1", "c2", stop_reason="error"))
    branch.add(entries.tool_result("c1", "tool", "found"))
    assert paired(branch) == ["a:look[c1]", "r:c1=found"]


def test_pairing_does_not_change_what_it_is_given() -> None:
    message = {"role": "assistant", "content": [call("c1"), call("c1")]}
    pair_calls([message])
    assert len(message["content"]) == 2


# ── fitting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def long_branch(branch: Writer) -> Plan:
    for n in range(4):
        branch.add(entries.user(f"q{n}" + "x" * 300))
        branch.add(said("", f"c{n}"))
        branch.add(entries.tool_result(f"c{n}", "tool", "found"))
        branch.add(said("done"))
    return plan(branch.lines)


def test_what_fits_is_left_whole(branch: Writer) -> None:
    planned = long_branch(branch)
    fitted = fit(planned, 100_000)
    assert (fitted.outcome, fitted.dropped, fitted.messages) == ("whole", 0, planned.messages)
    assert fitted.tokens == sum(map(estimate_tokens, planned.messages))
    assert fit(planned, fitted.tokens).outcome == "whole"


def test_the_oldest_exchanges_are_dropped_whole(branch: Writer) -> None:
    planned = long_branch(branch)
    whole = fit(planned, 100_000).tokens
    fitted = fit(planned, whole - 1)
    assert (fitted.outcome, fitted.dropped) == ("trimmed", 4)
    assert fitted.messages == planned.messages[4:]
    assert fitted.tokens <= whole - 1


def test_when_even_the_last_exchange_is_too_large_the_outcome_says_so(branch: Writer) -> None:
    planned = long_branch(branch)
    fitted = fit(planned, 10)
    assert (fitted.outcome, fitted.dropped, fitted.messages) == ("overflow", 12, planned.messages[12:])


def test_a_summary_is_never_dropped(branch: Writer) -> None:
    kept = branch.add(entries.user("kept"))
    branch.add(said("answer"))
    branch.add(entries.compaction("sum", kept))
    branch.add(entries.user("after"))
    fitted = fit(plan(branch.lines), 1)
    assert brief(fitted.messages[0]).endswith("sum")
    assert brief(fitted.messages[1]) == "u:after"


def test_the_turns_own_input_is_never_dropped_even_after_it_was_steered(branch: Writer) -> None:
    branch.add(entries.user("before"))
    branch.add(said("answered"))
    branch.add(entries.user("mine"), id=input_line_id("in_1"), turn="t1", inputs=("in_1",))
    branch.add(said("step"), turn="t1", inputs=("in_1",))
    branch.add(entries.user("steered"), id=input_line_id("in_2"), turn="t1", inputs=("in_2",))
    fitted = fit(plan(branch.lines, inputs=["in_1", "in_2"], turn="t1"), 1)
    assert [brief(message) for message in fitted.messages] == ["u:mine", "a:step", "u:steered"]


def test_the_estimate_counts_bytes_calls_and_images() -> None:
    text = {"role": "user", "content": [{"type": "text", "text": "abc" * 10}]}
    image = {"role": "user", "content": [{"type": "image", "data": "A" * 9_000, "mimeType": "image/png"}]}
    big_call = {"role": "assistant", "content": [{**call("c"), "arguments": {"x": "y" * 3_000}}]}
    assert estimate_tokens(text) == 14
    assert estimate_tokens(image) == 4 + IMAGE_TOKENS
    assert estimate_tokens(big_call) > 1_000
    chinese = {"role": "user", "content": [{"type": "text", "text": "一" * 30}]}
    assert estimate_tokens(chinese) == 34
