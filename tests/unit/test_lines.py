"""Lines: awkward JSON, what is malformed, what is conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.context.plan import plan
from holdfast.session.entries import LINE_BYTES_MAX, CustomEntry, MessageEntry, SessionHeader
from holdfast.session.lines import (
    ForeignEntry,
    decode_entry,
    is_conversation,
    is_metadata,
    is_mirror,
    load_object,
    read_line,
    split_lines,
)


def custom(data: bytes) -> bytes:
    return b'{"type":"custom","id":"a","parentId":null,"customType":"k","data":' + data + b"}"


AWKWARD = [
    ("a plain entry", custom(b"1"), "entry"),
    ("half an emoji, escaped", custom(b'"\\ud83d"'), "entry"),
    ("the other half", custom(b'"\\ude00 x"'), "entry"),
    ("a whole emoji in two escapes", custom(b'"\\ud83d\\ude00"'), "entry"),
    ("a half in a key", custom(b'{"\\ud83d":1}'), "entry"),
    ("a half in a key of the line", b'{"\\ud83d":1,"type":"custom","id":"a","customType":"k"}', "entry"),
    ("an integer over 64 bits", custom(b"123456789012345678901234567890"), "entry"),
    ("an integer of 5,000 digits", custom(b"9" * 5_000), "entry"),
    ("NaN", custom(b"NaN"), "entry"),
    ("infinity", custom(b"-Infinity"), "entry"),
    ("1e400", custom(b"1e400"), "entry"),
    ("minus zero", custom(b"-0"), "entry"),
    ("a float no double holds", custom(b"0.1234567890123456789012345678901"), "entry"),
    ("an escaped NUL", custom(b'"\\u0000"'), "entry"),
    ("a line separator, raw", custom("\u2028".encode()), "malformed"),
    ("a line separator in a string", custom('"\u2028"'.encode()), "entry"),
    ("the last code point", custom('"\U0010ffff"'.encode()), "entry"),
    ("carriage return at the end", custom(b"1") + b"\r", "entry"),
    ("space around", b" \t" + custom(b"1") + b" ", "entry"),
    ("the same key twice, the last counts", b'{"type":"label","type":"custom","id":"a","customType":"k"}', "entry"),
    ("an id and then a null one", b'{"type":"custom","id":"a","id":null,"customType":"k"}', "malformed"),
    ("200 deep", custom(b"[" * 200 + b"]" * 200), "entry"),
    ("100,000 deep", custom(b"[" * 100_000 + b"]" * 100_000), "malformed"),
    ("100,000 opened", b"[" * 100_000, "malformed"),
    ("100,000 objects opened", b'{"a":' * 100_000, "malformed"),
    ("invalid UTF-8 in a field nobody reads", custom(b'"\xff"'), "malformed"),
    ("a surrogate in raw UTF-8", custom(b'"\xed\xa0\xbd"'), "malformed"),
    ("an overlong form", custom(b'"\xc0\xaf"'), "malformed"),
    ("a character cut in two", custom(b'"\xe2\x82"'), "malformed"),
    ("a raw control character", custom(b'"\x01"'), "malformed"),
    ("a raw tab in a string", custom(b'"\t"'), "malformed"),
    ("NUL padding", b"\x00" * 40, "malformed"),
    ("NUL behind the object", custom(b"1") + b"\x00", "malformed"),
    ("a byte order mark", b"\xef\xbb\xbf" + custom(b"1"), "malformed"),
    ("UTF-16", custom(b"1").decode().encode("utf-16"), "malformed"),
    ("torn", custom(b'"abc"')[:-5], "malformed"),
    ("two objects on one line", custom(b"1") + custom(b"1"), "malformed"),
    ("a comma too many", custom(b"[1,]"), "malformed"),
    ("single quotes", b"{'type':'custom'}", "malformed"),
    ("an unknown escape", custom(b'"\\q"'), "malformed"),
    ("a number with a leading zero", custom(b"01"), "malformed"),
    ("an array", b"[]", "malformed"),
    ("a string", b'"x"', "malformed"),
    ("null", b"null", "malformed"),
    ("nothing", b"", "blank"),
    ("white space", b" \t\r\n", "blank"),
]


@pytest.mark.parametrize(("raw", "kind"), [row[1:] for row in AWKWARD], ids=[row[0] for row in AWKWARD])
def test_awkward_json(raw: bytes, kind: str) -> None:
    line = read_line(raw)
    assert line.kind == kind
    assert line.raw is raw
    assert (line.reason is not None) == (kind == "malformed")


def test_a_line_over_the_limit_is_malformed_and_not_parsed() -> None:
    assert "longer than" in (read_line(custom(b'"' + b"x" * LINE_BYTES_MAX + b'"')).reason or "")


def entry(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "parentId": None, **fields}).encode()


def message(**fields: Any) -> bytes:
    return entry(type="message", message=fields)


TEXT = [{"type": "text", "text": "x"}]

GOOD = [
    message(role="user", content="x"),
    message(role="user", content=TEXT, timestamp=1),
    message(role="user", content=[{"type": "image", "data": "AA", "mimeType": "image/png"}]),
    message(role="user", content=[{"type": "video", "url": 5}]),
    message(role="assistant", content=TEXT, provider="p", model="m"),
    message(role="assistant", content=[]),
    message(role="assistant", content=[{"type": "thinking", "thinking": "", "thinkingSignature": "s"}]),
    message(role="assistant", content=[{"type": "toolCall", "id": "c", "name": "n", "arguments": {}}]),
    message(role="assistant", provider="openclaw", model="delivery-mirror"),
    message(role="toolResult", toolCallId="c", toolName="n", content=TEXT, isError=False),
    message(role="bashExecution", command="ls", output="", exitCode=0),
    message(role="custom", customType="k", content="x"),
    message(role="hookMessage", customType="k", content=TEXT),
    entry(type="thinking_level_change", thinkingLevel="off"),
    entry(type="model_change", provider="p", modelId="m"),
    entry(type="compaction", summary="", firstKeptEntryId="a", tokensBefore=1),
    entry(type="branch_summary", fromId="root", summary="s"),
    entry(type="custom", customType="k"),
    entry(type="custom_message", customType="k", content="x", display=True),
    entry(type="label", targetId="b"),
    entry(type="label", targetId="b", label=None),
    entry(type="session_info"),
    entry(type="session_info", name=""),
]


@pytest.mark.parametrize("raw", GOOD, ids=range(len(GOOD)))
def test_every_form_the_format_names_is_an_entry(raw: bytes) -> None:
    assert read_line(raw).reason is None
    assert read_line(raw).kind == "entry"
    assert not isinstance(decode_entry(raw), ForeignEntry)


MALFORMED = [
    entry(type="message"),
    entry(type="message", message="x"),
    entry(type="message", message={}),
    entry(type="message", message={"role": 5}),
    message(role="user"),
    message(role="user", content=None),
    message(role="user", content=5),
    message(role="user", content=[5]),
    message(role="user", content=[{"text": "x"}]),
    message(role="user", content=[{"type": "text"}]),
    message(role="user", content=[{"type": "text", "text": 5}]),
    message(role="user", content=[{"type": "image", "data": "AA"}]),
    message(role="assistant"),
    message(role="assistant", provider="openclaw", model="other"),
    message(role="assistant", content=[{"type": "thinking"}]),
    message(role="assistant", content=[{"type": "toolCall", "id": "c", "name": "n"}]),
    message(role="assistant", content=[{"type": "toolCall", "id": "", "name": "n", "arguments": {}}]),
    message(role="assistant", content=[{"type": "toolCall", "id": "c", "name": "n", "arguments": "{}"}]),
    message(role="toolResult", content=TEXT),
    message(role="toolResult", toolCallId="c"),
    message(role="bashExecution", command="ls"),
    message(role="custom", content="x"),
    entry(type="thinking_level_change"),
    entry(type="model_change", provider="p"),
    entry(type="compaction", summary="s"),
    entry(type="compaction", firstKeptEntryId="a"),
    entry(type="branch_summary", fromId="a"),
    entry(type="custom", customType=""),
    entry(type="custom"),
    entry(type="custom_message", customType="k"),
    entry(type="label", label="runtime setting"),
    entry(type="label", targetId=""),
    entry(type="session_info", name=5),
    entry(type=5),
    entry(type="custom", customType="k", parentId=7),
    b'{"type":"custom","customType":"k"}',
    b'{"type":"custom","customType":"k","id":""}',
    b'{"type":"custom","customType":"k","id":"' + b"a" * 513 + b'"}',
    b'{"id":"a","parentId":null}',
    b'{"type":"session","version":4,"id":"s"}',
    b'{"type":"session","version":"3","id":"s"}',
    b'{"type":"session","version":0}',
]


@pytest.mark.parametrize("raw", MALFORMED, ids=range(len(MALFORMED)))
def test_a_known_type_without_what_it_needs_is_malformed(raw: bytes) -> None:
    line = read_line(raw)
    assert line.kind == "malformed"
    assert line.reason
    assert not is_conversation(line)
    assert not is_metadata(line)
    assert isinstance(decode_entry(raw), ForeignEntry)


@pytest.mark.parametrize(
    "raw",
    [
        entry(type="leaf", targetId="b", appendMode="side"),
        entry(type="metadata", message={"role": "assistant", "provider": "openclaw", "model": "delivery-mirror"}),
        entry(type="metadata", message=5, content=5, summary=[]),
        entry(type="Message", message={"role": "user", "content": "x"}),
        message(role="system", content="x"),
    ],
)
def test_what_we_do_not_know_is_unknown_and_keeps_its_place_in_the_tree(raw: bytes) -> None:
    line = read_line(raw)
    assert line.kind == "unknown"
    assert line.id == "a"
    assert line.has_parent
    assert not is_mirror(line)
    assert not is_conversation(line)
    assert not is_metadata(line)
    foreign = decode_entry(raw)
    assert isinstance(foreign, ForeignEntry)
    assert foreign.line.raw == raw


def test_an_absent_parent_is_told_from_a_null_one() -> None:
    absent, null = (read_line(b'{"type":"session_info","id":"a"}'), read_line(entry(type="session_info")))
    assert (absent.parent, absent.has_parent) == (None, False)
    assert (null.parent, null.has_parent) == (None, True)


def test_an_entry_of_version_1_needs_no_id() -> None:
    raw = b'{"type":"custom","customType":"k"}'
    assert read_line(raw).kind == "malformed"
    assert read_line(raw, version=1).kind == "entry"


@pytest.mark.parametrize(("text", "version"), [("", 1), (',"version":2', 2), (',"version":3', 3)])
def test_a_header_says_its_version(text: str, version: int) -> None:
    line = read_line(f'{{"type":"session"{text},"id":"s","cwd":"/"}}'.encode())
    assert (line.kind, line.version, line.id) == ("header", version, "s")
    header = decode_entry(line.raw)
    assert isinstance(header, SessionHeader)
    assert header.version == version


@pytest.mark.parametrize("origin", [5, "me", {}, {"store": 1}, ["a"], {"store": "s", "turn": "t", "epoch": "1"}])
def test_an_origin_of_another_form_is_nobodys_and_the_line_stays_good(origin: Any) -> None:
    line = read_line(entry(type="custom", customType="k", holdfast=origin))
    assert line.kind == "entry"
    assert line.origin is None


def test_an_origin_with_more_in_it_is_read() -> None:
    origin = {"store": "s", "turn": "t", "epoch": 3, "lane": "main", "writer": "w", "later": True}
    found = read_line(entry(type="custom", customType="k", holdfast=origin)).origin
    assert found is not None
    assert (found.epoch, found.inputs, found.final) == (3, (), False)


@pytest.mark.parametrize("model", ["delivery-mirror", "gateway-injected"])
def test_mirrors_are_metadata_and_nothing_else_of_an_assistant_is(model: str) -> None:
    assert is_metadata(read_line(message(role="assistant", provider="openclaw", model=model, content=TEXT)))
    assert is_conversation(read_line(message(role="assistant", provider="other", model=model, content=TEXT)))
    assert is_conversation(read_line(message(role="assistant", provider="openclaw", model="x", content=TEXT)))
    assert is_conversation(read_line(message(role="user", provider="openclaw", model=model, content=TEXT)))


@pytest.mark.parametrize("raw", [raw for raw in GOOD if b'"message"' not in raw], ids=str)
def test_context_is_conversation_and_the_rest_is_metadata(raw: bytes) -> None:
    line = read_line(raw)
    assert is_conversation(line) == (line.type in ("compaction", "branch_summary", "custom_message"))
    assert is_metadata(line) != is_conversation(line)


def test_lines_end_at_newlines_only() -> None:
    data = b'{"a":1}\r\n\n{"b":"\xe2\x80\xa8\x0b\x0c\x85"}\ntail'
    assert split_lines(data) == ([b'{"a":1}\r', b"", b'{"b":"\xe2\x80\xa8\x0b\x0c\x85"}'], b"tail")
    assert split_lines(b"a\n") == ([b"a"], b"")
    assert split_lines(b"") == ([], b"")


@pytest.mark.parametrize("depth", [100, 300, 480, 500, 600, 800, 900, 940, 960, 980, 1_000, 2_000])
@pytest.mark.parametrize("end", [b"1", b'"\\ud83d"'])
def test_no_depth_is_a_crash(depth: int, end: bytes) -> None:
    raw = (
        b'{"type":"message","id":"a","parentId":null,"message":{"role":"user","content":"x","more":'
        + b'{"a":[' * (depth // 2)
        + end
        + b"]}" * (depth // 2)
        + b"}}"
    )
    line = read_line(raw)
    assert line.kind == "entry" if depth <= 300 else line.kind in ("entry", "malformed")
    assert decode_entry(raw)
    assert len(plan([line]).messages) == 1 if depth <= 300 else len(plan([line]).messages) <= 1


def test_integers_are_exact_as_far_as_python_reads_them() -> None:
    assert load_object(b'{"n":123456789012345678901234567890}')["n"] == 123456789012345678901234567890
    assert load_object(b'{"n":-' + b"9" * 5_000 + b"}")["n"] == float("-inf")


def test_awkward_lines_have_typed_forms_too() -> None:
    half = decode_entry(custom(b'{"\\ud83d":1,"t":"\\ud83d"}'))
    assert isinstance(half, CustomEntry)
    assert half.data["t"] == "\ud83d"
    bash = decode_entry(message(role="bashExecution", command="ls", output=""))
    assert isinstance(bash, MessageEntry)
    assert bash.message["command"] == "ls"
