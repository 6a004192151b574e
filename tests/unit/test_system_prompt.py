"""What stands before a conversation: files of a workspace, bounded, listed, read again when they change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.context.system_prompt import (
    FILE_BYTES_MAX,
    FILES,
    TOTAL_BYTES_MAX,
    Found,
    SystemPrompt,
    build,
    cut_file,
)
from holdfast.tool.prompt_files import PromptFiles

MAIN = "agent:main:main"
LONG_AGO_NS, HOUR_NS = 1_700_000_000 * 10**9, 3_600 * 10**9


def written(path: Path, text: str, *, at_ns: int = LONG_AGO_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(at_ns, at_ns))
    return path


def states(prompt: SystemPrompt) -> dict[str, str]:
    return {one.name: one.state for one in prompt.files}


def shown(path: Path, session: str = MAIN) -> SystemPrompt:
    return build(session, PromptFiles().read(str(path), FILES))


def test_the_files_stand_in_their_order_between_the_agents_text_and_the_requests(tmp_path: Path) -> None:
    for name in reversed(FILES):
        written(tmp_path / name, f"this is {name}")
    prompt = build(MAIN, PromptFiles().read(str(tmp_path), FILES), before="first", after="last")
    text = prompt.text or ""
    places = [text.index(piece) for piece in ("first", *(f"this is {name}" for name in FILES), "last")]
    assert places == sorted(places)
    assert set(states(prompt).values()) == {"whole"}


def test_a_file_that_is_not_there_is_no_fault_and_a_workspace_without_any_adds_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path / "nowhere").text is None
    assert not (tmp_path / "nowhere").exists()
    written(tmp_path / "SOUL.md", "calm")
    assert states(shown(tmp_path)) == {name: "whole" if name == "SOUL.md" else "missing" for name in FILES}


def test_a_long_file_keeps_its_beginning_and_its_end_and_says_how_much_is_missing(tmp_path: Path) -> None:
    size = len("begin ü end") + 1 + 2 * 30_000
    written(tmp_path / "AGENTS.md", "begin" + "ü" * 30_001 + " " * (size - 60_011) + "ü end")
    [file] = [one for one in shown(tmp_path).files if one.state == "cut"]
    text = shown(tmp_path).text or ""
    assert "begin" in text
    assert "ü end" in text
    assert "bytes left out; the file AGENTS.md" in text
    assert file.shown_bytes <= FILE_BYTES_MAX < file.bytes
    assert "\ufffd" not in text


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3 * FILE_BYTES_MAX), min_size=6, max_size=6), st.sampled_from(["a", "ü", "€", "😀"]))
def test_all_files_together_stay_within_their_bound(sizes: list[int], letter: str) -> None:
    found = [cut_file(name, (letter * size).encode()) for name, size in zip(FILES, sizes, strict=True)]
    prompt = build(MAIN, found)
    assert sum(one.shown_bytes for one in prompt.files) <= TOTAL_BYTES_MAX
    assert all(one.shown_bytes <= FILE_BYTES_MAX for one in prompt.files)
    assert [one.bytes for one in prompt.files] == [size * len(letter.encode()) for size in sizes]
    whole = [one for one in prompt.files if one.state == "whole"]
    assert all(letter * sizes[FILES.index(one.name)] in (prompt.text or "") for one in whole)
    assert len((prompt.text or "").encode()) <= TOTAL_BYTES_MAX + 1_000


def test_a_link_out_of_the_workspace_is_refused_and_one_within_it_is_followed(tmp_path: Path) -> None:
    secret = written(tmp_path / "secret", "a key")
    space = tmp_path / "workspace"
    written(space / "docs" / "agents.md", "how to work")
    (space / "AGENTS.md").symlink_to("docs/agents.md")
    (space / "SOUL.md").symlink_to(secret)
    (space / "TOOLS.md").symlink_to("../secret")
    os.link(secret, space / "USER.md")
    (space / "out").symlink_to(tmp_path)
    (space / "MEMORY.md").symlink_to("out/secret")
    os.mkfifo(space / "IDENTITY.md")
    prompt = shown(space)
    assert states(prompt) == {name: "whole" if name == "AGENTS.md" else "refused" for name in FILES}
    assert "how to work" in (prompt.text or "")
    assert "a key" not in (prompt.text or "")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a\0b", ""])
def test_a_configured_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "secret", "a key")
    [found] = PromptFiles().read(str(tmp_path / "workspace"), [name])
    assert found.text == ""


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "AGENTS.md", "one")
    files = PromptFiles(now_ns=lambda: time.time_ns() + HOUR_NS)
    for _ in range(3):
        assert [one.text for one in files.read(str(tmp_path), ["AGENTS.md"])] == ["one"]
    assert files.reads == 1
    written(path, "two")
    assert [one.text for one in files.read(str(tmp_path), ["AGENTS.md"])] == ["two"]
    assert files.reads == 2
    path.unlink()
    assert [one.bytes for one in files.read(str(tmp_path), ["AGENTS.md"])] == [None]


def test_a_file_that_was_changed_a_moment_ago_is_read_again_even_if_nothing_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    files = PromptFiles()
    for text in ("one", "two"):
        path.write_text(text)
        assert [one.text for one in files.read(str(tmp_path), ["AGENTS.md"])] == [text]


def test_what_is_known_of_a_person_is_not_shown_where_others_listen(tmp_path: Path) -> None:
    for name in FILES:
        written(tmp_path / name, f"this is {name}")
    group = shown(tmp_path, "agent:main:slack:group:C1")
    assert {name for name, state in states(group).items() if state == "withheld"} == {"USER.md", "MEMORY.md"}
    assert "MEMORY.md" not in (group.text or "")
    child = shown(tmp_path, "agent:main:subagent:child_1")
    assert {name for name, state in states(child).items() if state == "whole"} == {"AGENTS.md", "TOOLS.md"}


def test_the_text_follows_from_the_files_alone() -> None:
    found = [Found("AGENTS.md", 3, "one")]
    assert build(MAIN, found) == build(MAIN, list(found))
