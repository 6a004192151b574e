"""A long text in messages: nothing is lost, blocks of code stay blocks, limits hold."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.outbox.chunks import ROOM_MIN, cut, fence_at, shown

WORDS = st.sampled_from(
    ["a", "some words", "x" * 30, "`code`", "é\u0301", "👩‍👩‍👧", "- item", "    indented", "# title", "```"]
)
LINES = st.one_of(
    st.lists(WORDS, max_size=6).map(" ".join),
    st.sampled_from(["", "", "```", "```python", "~~~", "~~~~ text", "  ```", "````", "`" * 12, "    ```"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120),
)
TEXTS = st.lists(LINES, min_size=1, max_size=40).map("\n".join)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)$")
OPENING_CHARS_MAX = 8
LANGUAGE_CHARS_MAX = 16


def pieces_of(text: str, room: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        chars = cut(text, start, room)
        assert chars >= 1
        found.append((start, chars))
        start += chars
    return found


def open_block(text: str) -> str | None:
    """The block that is open at the end of a message, told by reading it line by line."""
    fence: str | None = None
    for line in text.split("\n"):
        match = FENCE.fullmatch(line)
        if match is None:
            continue
        if fence is None:
            is_text = (match[1][0] == "`" and "`" in match[2]) or len(match[1]) > OPENING_CHARS_MAX
            fence = None if is_text else match[1]
        elif match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip():
            fence = None
    return fence


def without_fences(text: str) -> str:
    return "".join(char for char in text if char not in "`~" and not char.isspace())


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(ROOM_MIN, 300))
@example("```python\n" + "x = 1\n" * 60 + "```\nafter", 100)
@example("```\n" + "y" * 500 + "\n```", 100)
@example("a" * 95 + " ```not a fence at the beginning of a line", 100)
def test_a_text_in_messages(text: str, room: int) -> None:
    pieces = pieces_of(text, room)
    assert sum(chars for _, chars in pieces) == len(text)
    messages = [shown(text, start, chars) for start, chars in pieces]
    if len(text) > room:
        assert all(len(message) <= room for message in messages)
    for (start, chars), message in zip(pieces, messages, strict=True):
        body = without_fences(text[start : start + chars])
        assert without_fences(message).endswith(body)
        added = without_fences(message).removesuffix(body)  # a block that is opened again says its language again
        assert not added or (FENCE.match(message.split("\n")[0]) and len(added) <= LANGUAGE_CHARS_MAX)
    for message in messages[:-1]:
        assert open_block(message) is None, message


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(ROOM_MIN, 200))
def test_no_message_of_a_text_is_blank(text: str, room: int) -> None:
    if text.strip():
        messages = [shown(text, start, chars) for start, chars in pieces_of(text, room)]
        assert all(message.strip() for message in messages[1:])


def test_a_block_that_has_to_be_cut_is_closed_and_opened_again_in_its_language() -> None:
    text = (
        "Look:\n\n```python\n" + "".join(f"line_{number} = {number}\n" for number in range(12)) + "```\n\nThat is all."
    )
    messages = [shown(text, start, chars) for start, chars in pieces_of(text, 120)]
    assert messages[0].startswith("Look:\n\n```python\nline_0 = 0")
    assert messages[0].endswith("\n```")
    assert messages[1].startswith("```python\nline_")
    assert messages[-1].endswith("That is all.")


def test_a_block_that_fits_is_not_cut() -> None:
    code = "```\n" + "c" * 60 + "\n```"
    text = "w" * 50 + "\n\n" + code + "\nend of it, with some words"
    messages = [shown(text, start, chars) for start, chars in pieces_of(text, 100)]
    assert messages[0] == "w" * 50
    assert messages[1].startswith(code)


def test_a_whole_text_is_shown_but_for_the_blank_space_at_its_end() -> None:
    assert shown("  a\n\nb\n\n", 0, 8) == "  a\n\nb"
    assert fence_at("```\na", 4) is not None
    assert fence_at("```\na", 2) is None


def test_a_family_is_not_parted() -> None:
    family = "👩‍👩‍👧‍👦"
    text = "x" * 96 + family + "y" * 40
    first, second = (shown(text, start, chars) for start, chars in pieces_of(text, 100))
    assert first == "x" * 96
    assert second.startswith(family)
