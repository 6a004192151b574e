"""The format over random input: one entry is one line, damage is never taken for an entry, calls are always paired."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.context.plan import Plan, fit, plan
from holdfast.context.repair import pair_calls
from holdfast.ids import input_line_id
from holdfast.session import entries
from holdfast.session.branch import Tree, active_branch
from holdfast.session.entries import CustomEntry, Entry, MessageEntry, Origin, encode_line, stamped
from holdfast.session.key import KEY_BYTES_MAX, file_stem
from holdfast.session.lines import Line, decode_entry, read_line, split_lines

AT = "2026-05-22T10:00:00.000Z"

any_text = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=200)  # surrogates included
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def put(entry: Entry, id: str = "b", parent: str | None = "a", origin: Origin | None = None) -> bytes:
    return encode_line(stamped(entry, id=id, parent=parent, timestamp=AT, origin=origin))


def whole_pairs(text: str) -> str:
    """Two escaped halves side by side are one character to every JSON reader."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(any_text.filter(bool))
@settings(max_examples=1_000)
@pytest.mark.promise("I2")
def test_any_text_is_exactly_one_line_and_comes_back(text: str) -> None:
    data = put(entries.user(text))
    complete, tail = split_lines(data)
    assert len(complete) == 1
    assert tail == b""
    assert len(data.decode().splitlines()) == 1
    line = read_line(complete[0])
    assert line.kind == "entry"
    back = decode_entry(complete[0])
    assert isinstance(back, MessageEntry)
    assert back.message["content"][0]["text"] == whole_pairs(text)


@given(json_values)
def test_any_data_comes_back(value: Any) -> None:
    raw = put(entries.custom("k", value))
    assert read_line(raw).kind == "entry"
    back = decode_entry(raw)
    assert isinstance(back, CustomEntry)
    assert json.dumps(back.data) == json.dumps(json.loads(json.dumps(value)))


@given(st.lists(any_text.filter(bool), max_size=8), st.binary(max_size=20).filter(lambda tail: b"\n" not in tail))
def test_lines_out_are_entries_in(texts: list[str], tail: bytes) -> None:
    data = b"".join(put(entries.user(text)) for text in texts)
    complete, rest = split_lines(data + tail)
    assert len(complete) == len(texts)
    assert rest == tail


@given(st.binary(max_size=200))
def test_reading_any_bytes_never_raises(raw: bytes) -> None:
    assert read_line(raw).raw == raw


jsonish = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.sampled_from(["", "a", "text", "toolCall", "user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "id", "name", "role", "content", "store"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
odd_lines = st.fixed_dictionaries(
    {"type": st.sampled_from([*sorted(entries.ENTRY_TYPES), "session", "leaf", "metadata"])},
    optional=dict.fromkeys(
        ("id", "parentId", "message", "customType", "content", "targetId", "holdfast", "version", "summary"), jsonish
    ),
)


@given(odd_lines)
@settings(max_examples=1_000)
def test_the_fast_and_the_slow_reader_agree(value: dict[str, Any]) -> None:
    fast = read_line(json.dumps(value).encode())
    slow = read_line(json.dumps({**value, "z": "\ud83d"}).encode())
    assert msgspec.structs.replace(fast, raw=b"") == msgspec.structs.replace(slow, raw=b"")


@given(st.integers(min_value=0), any_text.filter(bool))
def test_a_torn_line_is_never_an_entry(at: int, text: str) -> None:
    raw = put(entries.user(text), origin=Origin("s", "t", 1, "main", "p"))[:-1]
    assert read_line(raw[: at % len(raw)]).kind in ("malformed", "blank")


@given(st.integers(min_value=0), st.integers(0, 255))
def test_one_wrong_byte_never_raises_and_never_splits_an_id_from_its_line(at: int, byte: int) -> None:
    raw = bytearray(put(entries.user("hello")))
    raw[at % len(raw)] = byte
    line = read_line(bytes(raw))
    assert line.kind != "entry" or line.id


# ── trees and contexts ───────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def conversations(draw: st.DrawFn) -> list[Line]:
    """A chain of lines with calls and results strewn in any order, ids used again, notes and compactions between."""
    call_ids = st.sampled_from(["c1", "c2", "c3"])
    lines: list[Line] = []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["user", "answer", "answer", "result", "result", "note", "mirror", "compaction"]))
        entry: Entry
        if kind == "user":
            entry = entries.user("q")
        elif kind == "answer":
            parts: list[dict[str, Any]] = [
                {"type": "toolCall", "id": id, "name": "n", "arguments": {}}
                for id in draw(st.lists(call_ids, max_size=3))
            ]
            if draw(st.booleans()):
                parts.insert(0, {"type": "text", "text": draw(st.sampled_from(["answer", " "]))})
            stop: Any = draw(st.sampled_from(["stop", "toolUse", "error", "aborted"]))
            entry = entries.assistant(parts, model="p/m", stop_reason=stop)
        elif kind == "result":
            entry = entries.tool_result(draw(call_ids), "n", "r")
        elif kind == "note":
            entry = entries.custom_message("k", "note")
        elif kind == "mirror":
            entry = entries.mirror("copy")
        else:
            entry = entries.compaction("sum", f"e{draw(st.integers(0, 14))}")
        own = draw(st.booleans())
        origin = Origin("s", "t", 1, "main", "p", ("in_1",)) if own else None
        id = input_line_id("in_1") if kind == "user" and own and number < 3 else f"e{number}"
        lines.append(read_line(put(entry, id=id, parent=lines[-1].id if lines else None, origin=origin)))
    return lines


def assert_paired(messages: list[dict[str, Any]]) -> None:
    """Every call is answered once, directly behind its message, in order; no result stands anywhere else."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "toolResult":
            assert waiting
            assert message["toolCallId"] == waiting.pop(0)
            continue
        assert waiting == []
        assert message["content"]
        waiting = [part["id"] for part in message["content"] if part["type"] == "toolCall"]
        assert len(waiting) == len(set(waiting))
    assert waiting == []


@given(conversations(), st.booleans())
@settings(max_examples=500)
def test_no_context_has_a_call_without_a_result_or_a_result_without_a_call(lines: list[Line], own: bool) -> None:
    planned = plan(lines, inputs=["in_1"] if own else [], turn="t" if own else None)
    assert_paired(planned.messages)
    assert pair_calls(planned.messages) == planned.messages
    assert_no_input_is_lost(lines, planned, own)


def assert_no_input_is_lost(lines: list[Line], planned: Plan, own: bool) -> None:
    if own and any(line.id == input_line_id("in_1") for line in lines):
        tail = planned.messages[len(planned.messages) - planned.own :]
        assert any(message["role"] == "user" and message["content"][0]["text"] == "q" for message in tail)


@given(conversations(), st.integers(0, 200))
@settings(max_examples=300)
def test_what_is_left_after_fitting_is_a_whole_end_of_the_plan(lines: list[Line], room: int) -> None:
    planned = plan(lines, inputs=["in_1"], turn="t")
    fitted = fit(planned, room)
    assert_paired(fitted.messages[planned.pinned :])
    rest = planned.messages[planned.pinned :]
    assert fitted.messages == planned.messages[: planned.pinned] + rest[fitted.dropped :]
    assert len(rest) - fitted.dropped >= planned.own
    assert (fitted.tokens > room) == (fitted.outcome == "overflow")


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 12)), max_size=12), st.integers(0, 12))
def test_any_tangle_of_parents_is_walked_in_bounds(tangle: list[tuple[int, int | None]], leaf: int) -> None:
    lines = [
        read_line(put(entries.session_info("x"), id=f"n{id}", parent=None if parent is None else f"n{parent}"))
        for id, parent in tangle
    ]
    for branch in (active_branch(lines), Tree.of(lines).walk(f"n{leaf}")):
        ids = [line.id for line in branch.lines]
        assert len(ids) == len(set(ids))
        assert all(child.parent == parent.id for parent, child in zip(branch.lines, branch.lines[1:], strict=False))


keys = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=120).filter(
    lambda key: key.strip() and len(key.encode()) <= KEY_BYTES_MAX
)


@given(keys, keys)
@settings(max_examples=500)
@pytest.mark.promise("I12")
def test_two_keys_never_share_a_stem(one: str, two: str) -> None:
    stems = file_stem(one), file_stem(two)
    assert (stems[0].lower() == stems[1].lower()) == (one == two)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", stem) and ".." not in stem for stem in stems)
