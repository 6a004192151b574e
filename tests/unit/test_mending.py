"""What a mender makes of the lines of a file: valid for every reader, once, without losing a byte of what was said."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.session.branch import active_branch
from holdfast.session.entries import CustomEntry, Origin, encode_line, stamped
from holdfast.session.lines import read_line
from holdfast.session.mending import Mender, find_faults, with_fields, with_role

AT = "2026-05-22T10:00:00.000Z"
HEADER = b'{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}'
ORIGIN = Origin(store="s", turn="t", epoch=1, lane="main", writer="repair")


def stamp(entry: CustomEntry, entry_id: str, parent: str | None) -> bytes:
    return encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=AT, origin=ORIGIN))


def mend(*raws: bytes) -> tuple[list[dict[str, Any]], list[str], list[bytes]]:
    mender = Mender(stamp)
    made = b"".join(mender.take(raw) for raw in raws)
    out = made.split(b"\n")[:-1]
    return [json.loads(raw) for raw in out], mender.told(), out


def said(entry_id: str, parent: str | None, text: str = "x", role: str = "user") -> bytes:
    message = {"role": role, "content": text}
    return json.dumps({"type": "message", "id": entry_id, "parentId": parent, "message": message}).encode()


def is_valid(lines: list[dict[str, Any]]) -> None:
    assert lines[0]["type"] == "session"
    known: set[str | None] = {None}
    for line in lines[1:]:
        assert line["type"] != "session"
        assert line["id"] not in known
        assert line.get("parentId") in known
        known.add(line["id"])


def test_a_good_file_stays_as_it_is_to_the_byte() -> None:
    raws = [HEADER, said("a", None), said("b", "a"), b'{"type":"label","id":"c","parentId":"a","targetId":"a"}']
    _, told, out = mend(*raws)
    assert (told, out) == ([], raws)


@pytest.mark.parametrize("torn", [b'{"type":"mess', b"\x00" * 9, b"caf\xc3", b"[1]", b'{"a":1}', HEADER, b"x" * 20])
def test_what_cannot_be_read_is_set_aside_in_its_place_with_its_bytes(torn: bytes) -> None:
    lines, told, _ = mend(HEADER, said("a", None), torn, said("b", "a"))
    is_valid(lines)
    data = lines[2]["data"]
    kept = data["text"].encode() if "text" in data else base64.b64decode(data["base64"])
    assert (kept, data["bytes"], lines[2]["parentId"]) == (torn, len(torn), "a")
    assert told == ["a line that cannot be read"]


def test_a_line_that_hung_off_a_torn_one_hangs_off_what_stands_in_its_place() -> None:
    lines, told, _ = mend(HEADER, said("a", None), b'{"type":"message","id":"b","par', said("c", "b"))
    assert lines[3]["parentId"] == lines[2]["id"]
    assert told == ["a line that cannot be read", "a parent that does not stand before its child"]


def test_a_later_line_with_a_known_id_gets_one_of_its_own_and_does_not_become_the_leaf() -> None:
    raws = [HEADER, said("a", None, "first"), said("b", "a"), said("a", None, "second"), said("c", "a")]
    lines, told, out = mend(*raws)
    is_valid(lines)
    assert [line["message"]["content"] for line in lines[1:]] == ["first", "x", "second", "x"]
    assert told == ["an id that was used before"]
    before = active_branch([read_line(raw) for raw in raws])
    after = active_branch([read_line(raw) for raw in out])
    assert [line.id for line in before.lines] == [line.id for line in after.lines] == ["a", "c"]


def test_parents_that_are_missing_or_come_later_are_replaced_by_the_leaf() -> None:
    lines, told, _ = mend(HEADER, said("a", "nowhere"), said("b", "c"), said("c", "b"))
    assert [line["parentId"] for line in lines[1:]] == [None, "a", "b"]
    assert told == ["a parent that does not stand before its child (2)"]


def test_blank_lines_are_left_out() -> None:
    lines, told, _ = mend(HEADER, b"", said("a", None), b" \t\r")
    assert len(lines) == 2
    assert told == ["blank lines (2)"]


def test_version_1_gets_the_ids_that_readers_gave_it() -> None:
    raws = [
        b'{"type":"session","id":"s","timestamp":"t","cwd":"/"}',
        b'{"type":"message","timestamp":"t","message":{"role":"user","content":"one"}}',
        b"{torn",
        b'{"type":"message","timestamp":"t","message":{"role":"user","content":"two"}}',
        b'{"type":"compaction","timestamp":"t","summary":"so far","firstKeptEntryIndex":2,"tokensBefore":1e16}',
        b'{"type":"message","timestamp":"t","message":{"role":"hookMessage","customType":"k","content":"hooked"}}',
    ]
    lines, told, out = mend(*raws)
    is_valid(lines)
    assert lines[0]["version"] == 3
    assert told[0] == "session format 1"
    read = active_branch([read_line(raw, version=1) for raw in raws])
    lifted = active_branch([read_line(raw) for raw in out])
    shown = [line.id for line in lifted.lines if line.custom_type != "holdfast:set_aside"]
    assert shown == [line.id for line in read.lines]
    assert lines[4]["firstKeptEntryId"] == lines[3]["id"]
    assert lines[5]["message"]["role"] == "custom"
    assert b'"tokensBefore":1e16' in out[4]


def test_version_2_changes_in_two_places_only() -> None:
    raws = [
        b'{"type":"session","version":2,"id":"s","timestamp":"t","cwd":"/"}',
        b'{"type":"message","id":"a","parentId":null,"message":{"role":"hookMessage","customType":"k","content":"h"}}',
        said("b", "a", 'he wrote "role":"hookMessage"'),
    ]
    lines, _, out = mend(*raws)
    is_valid(lines)
    assert out[0] == raws[0].replace(b'"version":2', b'"version": 3'.replace(b" ", b""))
    assert out[1] == raws[1].replace(b"hookMessage", b"custom")
    assert out[2] == raws[2]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a","data":{"id":"b"}}',
        b'{"data":{"id":"b"},"id":"a"}',
        b'{"data":"\\"id\\":\\"b\\"","id" : "a"}',
        b'{"n":1e400,"id":null}',
        b"{ }",
    ],
)
def test_a_field_is_set_and_everything_else_stays(raw: bytes) -> None:
    before, after = json.loads(raw), json.loads(with_fields(raw, {"id": 'new"id'}))
    assert after == {**before, "id": 'new"id'}


def test_a_role_is_set_even_behind_a_message_that_speaks_of_roles() -> None:
    raw = b'{"message":{"content":[{"type":"toolCall","arguments":{"role":"x"}}],"role":"hookMessage"}}'
    after = json.loads(with_role(raw, "custom"))
    assert after["message"]["role"] == "custom"
    assert after["message"]["content"][0]["arguments"]["role"] == "x"


pieces = st.one_of(
    st.binary(max_size=30).filter(lambda raw: b"\n" not in raw),
    st.builds(said, st.sampled_from("abcdef"), st.one_of(st.none(), st.sampled_from("abcdefg")), st.text(max_size=5)),
    st.builds(lambda raw, keep: raw[:keep], st.builds(said, st.sampled_from("abc"), st.none()), st.integers(1, 60)),
    st.just(HEADER),
    st.just(b'{"type":"later","id":"z","parentId":"a"}'),
    st.just(b'{"type":"later"}'),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces, max_size=12), st.sampled_from([1, 2, 3]))
@pytest.mark.promise("I2", "I10")
def test_whatever_stands_in_a_file_it_is_valid_afterwards_and_mended_once(raws: list[bytes], version: int) -> None:
    header = HEADER.replace(b'"version":3', b'"version":%d' % version)
    lines, told, out = mend(header, *raws)
    is_valid(lines)
    assert find_faults(out) == []
    assert find_faults([header, *raws]) == told
    assert told or out == [header, *raws]
    everything = [json.dumps(line) for line in lines]
    for raw in raws:
        line = read_line(raw, version=version)
        if line.kind == "entry" and version > 1:
            text = json.dumps(json.loads(raw)["message"]["content"])
            assert any(text in one for one in everything)
        elif line.kind != "blank" and line.id is None and line.kind != "entry":
            kept = (line["data"] for line in lines if line.get("customType") == "holdfast:set_aside")
            assert any(
                raw == (data["text"].encode() if "text" in data else base64.b64decode(data["base64"])) for data in kept
            )
