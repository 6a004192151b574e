"""What a summary has to tell, and what becomes of one that does not."""

from __future__ import annotations

import pytest

from holdfast.context import summary
from holdfast.context.repair import Message


def user(text: str) -> Message:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see https://example.org/a/b?c=1, please", ["https://example.org/a/b?c=1"]),
        ("it is in /etc/holdfast/holdfast.toml.", ["/etc/holdfast/holdfast.toml"]),
        ("open main.py and ~/notes/today.md", ["main.py", "~/notes/today.md"]),
        ("commit 9841e47, ticket ABC-123, order 4711002, #42", ["9841e47", "ABC-123", "4711002", "#42"]),
        ("write to ada@example.org!", ["ada@example.org"]),
        ("and/or, 12 of 30, deadbeef, well-known", []),
    ],
)
def test_names_are_found(text: str, names: list[str]) -> None:
    assert summary.names_in([user(text)]) == names


def test_the_newest_names_are_kept_and_those_that_a_previous_summary_told() -> None:
    said = [user(f"order {n:06d}") for n in range(100, 200)]
    names = summary.names_in(said, "the path is /data/store")
    assert names[-1] == "000199"
    assert len(names) <= summary.NAMES_MAX
    assert summary.names_in([user("hello")], "the path is /data/store") == ["/data/store"]


@pytest.mark.parametrize(
    ("text", "stop_reason", "fault"),
    [
        ("  \n", "stop", "it was empty"),
        ("half a sent", "length", "it was cut off"),
        ("I look", "toolUse", "it called a tool"),
        ("word " * 400, "stop", "it was too long; at most 50 words"),
    ],
)
def test_what_is_no_summary_is_told(text: str, stop_reason: str, fault: str) -> None:
    assert summary.check(text, stop_reason=stop_reason, names=(), tokens_max=100).fault == fault


def test_a_summary_has_to_tell_every_name() -> None:
    found = summary.check("we wrote /data/STORE", stop_reason="stop", names=("/data/store", "ABC-1"), tokens_max=100)
    assert (found.fault, found.missing, found.is_good) == ("", ("ABC-1",), False)
    assert summary.with_missing("we wrote it", found.missing) == "we wrote it\n\nAlso mentioned: ABC-1"


def test_what_is_asked_has_the_focus_the_names_and_the_record_so_far() -> None:
    asked = summary.ask("User: hi", previous="older", focus="the invoices", names=("A-1",), tokens_max=100)
    assert "<record>\nolder\n</record>" in asked
    assert "<conversation>\nUser: hi\n</conversation>" in asked
    assert "Keep above all: the invoices" in asked
    assert asked.index("letter for letter: A-1") > asked.index("</conversation>")


def test_an_extract_tells_what_the_user_said_and_the_agents_last_word() -> None:
    text = summary.mechanical(
        [user("one"), answer("first"), user("two"), answer("second")], "older", names=("A-1",), tokens_max=1000
    )
    assert text.index("older") < text.index("- one") < text.index("- two") < text.index("second") < text.index("A-1")
    assert "first" not in text
