"""Entries: what the constructors refuse, and the exact bytes of a line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from holdfast.errors import InputError, InputTooLargeError
from holdfast.session import entries
from holdfast.session.entries import LINE_BYTES_MAX, Entry, MessageEntry, Origin, SessionHeader, encode_line, stamped
from holdfast.session.lines import decode_entry, is_conversation, is_metadata, is_mirror, read_line

AT = "2026-05-22T10:00:00.000Z"
AT_MS = 1_779_444_000_000
ORIGIN = Origin("store", "turn_1", 7, "main", "proc", ("in_1",), True)


def written(entry: Entry, origin: Origin | None = None) -> bytes:
    return encode_line(stamped(entry, id="bb", parent="aa", timestamp=AT, origin=origin))


def test_fields_stand_in_the_order_openclaw_writes_them_with_the_origin_last() -> None:
    line = written(entries.user("hello"), ORIGIN)
    assert line == (
        b'{"type":"message","id":"bb","parentId":"aa","timestamp":"2026-05-22T10:00:00.000Z",'
        b'"message":{"role":"user","content":[{"type":"text","text":"hello"}],"timestamp":1779444000000},'
        b'"holdfast":{"store":"store","turn":"turn_1","epoch":7,"lane":"main","writer":"proc","inputs":["in_1"],'
        b'"final":true}}\n'
    )


def test_a_header_has_no_parent() -> None:
    header = SessionHeader(version=3, id="s1", timestamp=AT, cwd="/home/me")
    assert encode_line(header) == (
        b'{"type":"session","version":3,"id":"s1","timestamp":"2026-05-22T10:00:00.000Z","cwd":"/home/me"}\n'
    )


def test_without_an_origin_the_key_is_left_out() -> None:
    assert b"holdfast" not in written(entries.label("aa", "good"))


def test_a_root_has_a_null_parent() -> None:
    line = encode_line(stamped(entries.user("x"), id="a", parent=None, timestamp=AT, origin=None))
    assert json.loads(line)["parentId"] is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (entries.model_change("a/b/c"), {"type": "model_change", "provider": "a", "modelId": "b/c"}),
        (entries.thinking_level_change("high"), {"type": "thinking_level_change", "thinkingLevel": "high"}),
        (entries.label("aa"), {"type": "label", "targetId": "aa"}),
        (entries.label("aa", "good"), {"type": "label", "targetId": "aa", "label": "good"}),
        (entries.session_info(), {"type": "session_info"}),
        (entries.session_info("Title"), {"type": "session_info", "name": "Title"}),
        (entries.custom("k"), {"type": "custom", "customType": "k"}),
        (entries.custom("k", None), {"type": "custom", "customType": "k", "data": None}),
        (
            entries.custom_message("k", "note", display=False),
            {"type": "custom_message", "customType": "k", "content": "note", "display": False},
        ),
        (
            entries.compaction("sum", "aa", tokens_before=9),
            {"type": "compaction", "summary": "sum", "firstKeptEntryId": "aa", "tokensBefore": 9},
        ),
        (entries.branch_summary("root", "sum"), {"type": "branch_summary", "fromId": "root", "summary": "sum"}),
    ],
)
def test_each_type_is_written_with_its_fields_and_read_back_whole(entry: Entry, expected: dict[str, Any]) -> None:
    line = written(entry)
    assert json.loads(line) == {**expected, "id": "bb", "parentId": "aa", "timestamp": AT}
    assert read_line(line).kind == "entry"
    assert decode_entry(line) == stamped(entry, id="bb", parent="aa", timestamp=AT, origin=None)


def test_a_mirror_has_the_shape_openclaw_knows_and_is_metadata() -> None:
    line = written(entries.mirror("sent"))
    message = json.loads(line)["message"]
    assert (message["api"], message["provider"], message["model"], message["stopReason"]) == (
        "openai-responses",
        "openclaw",
        "delivery-mirror",
        "stop",
    )
    assert message["usage"]["totalTokens"] == 0
    found = read_line(line)
    assert is_mirror(found)
    assert is_metadata(found)
    assert not is_conversation(found)


def test_a_message_keeps_a_time_of_its_own() -> None:
    entry = MessageEntry(message={"role": "user", "content": "x", "timestamp": 5})
    assert json.loads(written(entry))["message"]["timestamp"] == 5
    assert json.loads(written(entries.user("x")))["message"]["timestamp"] == AT_MS


def test_stamping_leaves_the_given_entry_as_it_was() -> None:
    entry = entries.user("x")
    stamped(entry, id="a", parent=None, timestamp=AT, origin=ORIGIN)
    assert entry.id == ""
    assert "timestamp" not in entry.message


@pytest.mark.parametrize(
    "make",
    [
        lambda: entries.user(""),
        lambda: entries.user([]),
        lambda: entries.user([{"type": "toolCall", "id": "c", "name": "n", "arguments": {}}]),
        lambda: entries.user([{"type": "text"}]),
        lambda: entries.user([{"type": "image", "data": "AAAA"}]),
        lambda: entries.user(["text"]),  # pyright: ignore[reportArgumentType]
        lambda: entries.assistant("x", model="nameless"),
        lambda: entries.assistant("x", model="/m"),
        lambda: entries.assistant("x", model="p/"),
        lambda: entries.assistant("x", model="p/m", stop_reason="tired"),  # pyright: ignore[reportArgumentType]
        lambda: entries.assistant([{"type": "toolCall", "id": "c", "name": "n", "arguments": "{}"}], model="p/m"),
        lambda: entries.tool_result("", "n", "x"),
        lambda: entries.custom(""),
        lambda: entries.custom_message("", "x"),
        lambda: entries.label(""),
        lambda: entries.model_change("m"),
        lambda: entries.compaction("s", ""),
    ],
)
def test_what_readers_would_call_malformed_cannot_be_made(make: Any) -> None:
    with pytest.raises(InputError):
        make()


def test_half_an_emoji_is_written_as_an_escape_and_comes_back() -> None:
    line = written(entries.user("cut \ud83d here ü"))
    assert b"\\ud83d" in line
    assert read_line(line).kind == "entry"
    back = decode_entry(line)
    assert isinstance(back, MessageEntry)
    assert back.message["content"][0]["text"] == "cut \ud83d here ü"


@pytest.mark.parametrize("broken", ["", "\ud83d"])
def test_numbers_without_a_json_word_become_null(broken: str) -> None:
    line = written(entries.custom("k", {"a": math.nan, "b": [math.inf, 1.5], "c": broken}))
    assert json.loads(line)["data"] == {"a": None, "b": [None, 1.5], "c": broken}


@pytest.mark.parametrize(
    "text", ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\x00"]
)
def test_no_line_break_of_any_alphabet_gets_into_a_line(text: str) -> None:
    line = written(entries.user(f"a{text}b{text}"))
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["message"]["content"][0]["text"] == f"a{text}b{text}"


def test_a_line_of_exactly_the_limit_is_written_and_one_byte_more_is_refused() -> None:
    room = LINE_BYTES_MAX - len(written(entries.user("x"))) + 1
    line = written(entries.user("x" * room))
    assert len(line) == LINE_BYTES_MAX
    assert read_line(line).kind == "entry"
    with pytest.raises(InputTooLargeError, match="over the limit"):
        written(entries.user("x" * (room + 1)))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_is_bounded_when_writing() -> None:
    assert read_line(written(entries.custom("k", nested(126)))).kind == "entry"
    for depth in (entries.DEPTH_MAX + 1, 900, 100_000):
        with pytest.raises(InputTooLargeError, match="nested"):
            written(entries.custom("k", nested(depth)))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert read_line(written(entries.custom("k", [[] for _ in range(1_000)]))).kind == "entry"


def test_a_ring_in_the_data_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InputTooLargeError):
        written(entries.custom("k", ring))


@pytest.mark.parametrize("value", [object(), 1j, {(1, 2): 3}])
def test_what_json_has_no_form_for_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="plain JSON"):
        written(entries.custom("k", {"v": value}))


def test_an_entry_that_was_not_stamped_is_not_written() -> None:
    with pytest.raises(ValueError, match="stamped"):
        encode_line(entries.user("x"))
