"""Whom a line is for: by what it says, by its kind, and never more for the model than its kind allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.context.plan import plan, shown_message
from holdfast.errors import InputError
from holdfast.session import entries
from holdfast.session.entries import SALVAGE_TYPE, Entry, Origin, encode_line, stamped
from holdfast.session.lines import Line, is_conversation, read_line
from holdfast.session.visibility import PARTIAL_TYPE, visibility_of

AT = "2026-05-22T10:00:00.000Z"
ORIGIN = Origin("store", "turn", 1, "main", "turn")


def written(entry: Entry, *, origin: Origin | None = ORIGIN) -> Line:
    line = read_line(encode_line(stamped(entry, id="e1", parent=None, timestamp=AT, origin=origin)))
    assert line.kind == "entry"
    return line


def by_others(**fields: Any) -> Line:
    return read_line(json.dumps({"id": "f1", "parentId": None, "timestamp": AT, **fields}).encode())


USUAL: list[tuple[Entry, str]] = [
    (entries.user("hello"), "model"),
    (entries.assistant("hi", model="p/m"), "model"),
    (entries.tool_result("c1", "tool", "found"), "model"),
    (entries.custom_message("note", "a note"), "model"),
    (entries.compaction("a summary", "e0"), "model"),
    (entries.branch_summary("root", "left"), "model"),
    (entries.mirror("delivered"), "user"),
    (entries.custom(SALVAGE_TYPE, {"text": "late"}), "user"),
    (entries.custom(PARTIAL_TYPE, {"text": "cut"}), "user"),
    (entries.custom("state"), "audit"),
    (entries.label("e0", "name"), "audit"),
    (entries.session_info("title"), "audit"),
    (entries.model_change("p/m"), "audit"),
]


@pytest.mark.parametrize(("entry", "visibility"), USUAL, ids=lambda value: value if isinstance(value, str) else None)
def test_a_line_that_says_nothing_is_seen_as_its_kind_is(entry: Entry, visibility: str) -> None:
    assert visibility_of(written(entry, origin=None)) == visibility
    is_shown = shown_message(written(entry)) is not None or plan([written(entry)]).messages
    assert bool(is_shown) == (visibility == "model")


@pytest.mark.parametrize("visibility", ["user", "audit"])
def test_what_is_not_for_the_model_is_left_out_of_its_context(visibility: Any) -> None:
    made: list[Entry] = [
        entries.user("hello", visibility=visibility),
        entries.assistant("hi", model="p/m", visibility=visibility),
        entries.tool_result("c1", "tool", "found", visibility=visibility),
        entries.custom_message("note", "a note", visibility=visibility),
    ]
    for entry in made:
        line = written(entry)
        assert line.value()["holdfast"]["visibility"] == visibility
        assert visibility_of(line) == visibility
        assert plan([line]).messages == []
        assert shown_message(line) is None
        assert is_conversation(line), "the fence does not go by it"


def test_a_state_for_people_says_so_in_its_line() -> None:
    assert visibility_of(written(entries.custom("bill", {"eur": 3}, visibility="user"))) == "user"


def test_the_visibility_stands_in_the_origin_and_nowhere_else() -> None:
    value = written(entries.user("hello", visibility="model")).value()
    assert value["holdfast"]["visibility"] == "model"
    assert [name for name in value if "visibility" in name] == []
    assert "visibility" not in written(entries.user("hello")).value()["holdfast"]


@given(st.sampled_from([entry for entry, _ in USUAL]), st.sampled_from(["model", "user", "audit", "later", ""]))
def test_nothing_is_put_before_the_model_by_a_word(entry: Entry, said: str) -> None:
    line = written(entry, origin=Origin("store", "turn", 1, "main", "turn", visibility=said))
    usual = visibility_of(written(entry, origin=None))
    assert line.origin is not None, "an unknown word does not make the line somebody else's"
    if usual != "model":
        assert visibility_of(line) != "model"
        assert plan([line]).messages == []
        assert shown_message(line) is None
    if said not in ("model", "user", "audit"):
        assert visibility_of(line) == usual


@given(st.sampled_from(["user", "audit"]))
def test_a_summary_stands_for_what_it_covers_whatever_it_says(said: str) -> None:
    origin = Origin("store", "turn", 1, "main", "turn", visibility=said)
    assert visibility_of(written(entries.compaction("a summary", "e0"), origin=origin)) == "model"


def test_the_lines_of_others_have_what_their_kind_has() -> None:
    ran = {"role": "bashExecution", "command": "ls", "output": "x", "exitCode": 0}
    assert visibility_of(by_others(type="message", message=ran)) == "model"
    assert visibility_of(by_others(type="message", message={**ran, "excludeFromContext": True})) == "user"
    assert visibility_of(by_others(type="message", message={**ran, "excludeFromContext": False})) == "model"
    for model in entries.MIRROR_MODELS:
        mirror = {"role": "assistant", "content": "x", "provider": entries.MIRROR_PROVIDER, "model": model}
        assert visibility_of(by_others(type="message", message=mirror)) == "user"
    assert visibility_of(by_others(type="news")) == "audit"
    assert visibility_of(read_line(b"{")) == "audit"


def test_a_word_that_is_none_is_refused_when_an_entry_is_made() -> None:
    with pytest.raises(InputError, match="unknown visibility 'all'"):
        holdfast.user("hello", visibility="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="never for the model"):
        holdfast.custom("state", visibility="model")
