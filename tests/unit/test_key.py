"""Session keys: their parts, what is refused, and the file names made of them."""

from __future__ import annotations

import re

import pytest

from holdfast.errors import InputError
from holdfast.session.key import SessionKey, file_stem, key_of_stem, parse_key, validate_key

STEM = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("agent:main:main", SessionKey("agent:main:main", "main", "main")),
        ("agent:Work:main", SessionKey("agent:Work:main", "Work", "main")),
        ("agent:a:slack:channel:C1", SessionKey("agent:a:slack:channel:C1", "a", "chat", "slack", "channel", "C1")),
        (
            "agent:a:slack:direct:U1:thread:17.5",
            SessionKey("agent:a:slack:direct:U1:thread:17.5", "a", "chat", "slack", "direct", "U1", "17.5"),
        ),
        (
            "agent:a:matrix:group:!r:host:thread:$e:x",
            SessionKey("agent:a:matrix:group:!r:host:thread:$e:x", "a", "chat", "matrix", "group", "!r:host", "$e:x"),
        ),
        ("agent:a:cron:nightly:1", SessionKey("agent:a:cron:nightly:1", "a", "cron", name="nightly:1")),
        ("hook:gh:42", SessionKey("hook:gh:42", "main", "hook", name="gh:42")),
        ("agent:a:main:heartbeat", SessionKey("agent:a:main:heartbeat", "a", "main", heartbeat=True)),
        ("agent:a", SessionKey("agent:a", "main", "other")),
        ("agent:a:", SessionKey("agent:a:", "main", "other")),
        ("agent::main", SessionKey("agent::main", "main", "other")),
        ("agent:../x:main", SessionKey("agent:../x:main", "main", "other")),
        ("agent:a:slack:shout:C1", SessionKey("agent:a:slack:shout:C1", "a", "other")),
        ("hook:", SessionKey("hook:", "main", "other")),
        ("Grüße an alle", SessionKey("Grüße an alle", "main", "other")),
    ],
)
def test_keys_are_taken_apart(text: str, key: SessionKey) -> None:
    assert parse_key(text) == key


def test_the_agents_folder_is_the_same_on_every_file_system() -> None:
    assert parse_key("agent:Work:main").folder == "work"
    assert parse_key("agent:../..:main").folder == "main"


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("x" * 513, "512"),
        ("é" * 257, "512"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("a\ud83d", "surrogate"),
    ],
)
def test_what_is_no_key_is_refused_with_the_way_out(key: str, word: str) -> None:
    for call in (validate_key, parse_key, file_stem):
        with pytest.raises(InputError, match=word):
            call(key)


def test_the_longest_key_is_accepted() -> None:
    assert validate_key("é" * 256) == "é" * 256
    assert STEM.fullmatch(file_stem("é" * 256))


def test_a_stem_can_be_read_and_never_changes() -> None:
    assert file_stem("agent:main:main") == "agent-main-main-6d9217fe77c7f11d9cc992aabe81a2d09604e9c4"


@pytest.mark.parametrize(
    "key", ["..", ".", "../../etc/passwd", "/", "\\", "%2e%2e", "a..b", "-rf", ".hidden", "CON", "~"]
)
@pytest.mark.promise("I12")
def test_a_stem_stays_inside_its_folder(key: str) -> None:
    stem = file_stem(key)
    assert STEM.fullmatch(stem)
    assert ".." not in stem
    assert stem[0] not in ".-"


def hostile_keys() -> list[str]:
    shapes = [
        "../" * 3 + "{}", "..\\{}", "/{}", "%2e%2e%2f{}", "{}/..", "agent:main:{}", "AGENT:MAIN:{}", "agent:maın:{}",
        "аgent:main:{}", "{}.jsonl", "{}.jsonl.lock", "x" * 400 + "{}", "é{}", "e\u0301{}", "{} ", " {}", "\u202e{}",
        "{}\u200b", ".{}", "{}?*|<>\"'",
    ]  # fmt: skip
    return [shape.format(number) for number in range(500) for shape in shapes]


@pytest.mark.promise("I12")
def test_ten_thousand_hostile_keys_have_distinct_harmless_stems() -> None:
    keys = hostile_keys()
    stems = {file_stem(key).lower() for key in keys}
    assert len(set(keys)) == 10_000
    assert len(stems) == 10_000
    assert all(STEM.fullmatch(stem) and ".." not in stem for stem in stems)


@pytest.mark.parametrize(
    "key",
    [
        "agent:main:main",
        "agent:Work:main",
        "agent:a:slack:channel:C1",
        "hook:gh:42",
        "my-notes",
        "agent:main:S:heartbeat",
    ],
)
def test_a_usual_key_is_read_off_its_file_name(key: str) -> None:
    assert key_of_stem(file_stem(key)) == key


@pytest.mark.parametrize("key", ["agent:a:matrix:group:!r:host", "größe", "agent:main:" + "x" * 80, "a:" * 30 + "end"])
def test_a_key_that_its_file_name_does_not_tell_is_not_guessed(key: str) -> None:
    assert key_of_stem(file_stem(key)) is None


@pytest.mark.parametrize("stem", ["", "agent-main-main", "agent-main-main-0123456789abcdef", "-"])
def test_another_file_name_is_no_key(stem: str) -> None:
    assert key_of_stem(stem) is None
