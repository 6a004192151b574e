"""A workspace cannot be left: not by dots, links, hard links or absolute paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import InputError
from holdfast.tool.loops import Calls
from holdfast.tool.policy import Caller, Policy, Rules, rule
from holdfast.tool.workspace import Workspace


def test_no_path_leads_out_of_a_workspace(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "space"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_text("secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    os.link(outside / "secret", root / "hard")
    space = Workspace(str(root))
    ways = ("../outside/secret", "a/../../outside/secret", str(outside / "secret"), "link", "folder/secret", "hard")
    for way in ways:
        with pytest.raises(InputError):
            space.read(way)
        with pytest.raises(InputError):
            space.change(way, "secret", "changed")
    for way in ways[:-1]:
        with pytest.raises(InputError):
            space.write(way, b"changed")
    space.write("hard", b"changed")  # replaces this name; the other keeps its file
    assert (outside / "secret").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["secret"]


def test_an_edit_wants_one_place_and_writes_the_whole_file(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    assert space.write("a/b.txt", b"one two one")
    with pytest.raises(InputError, match="2 times"):
        space.change("a/b.txt", "one", "1")
    assert space.change("a/b.txt", "two", "2") == 1
    assert space.read("a/b.txt") == b"one 2 one"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_an_edit_that_would_make_a_file_too_large_makes_nothing_of_it(tmp_path: Path) -> None:
    """A letter of a long file may stand for a long text: the whole would be hundreds of gigabytes."""
    space = Workspace(str(tmp_path))
    space.write("a.txt", b"a" * 4_000_000)
    with pytest.raises(InputError, match="would have 400000000000 bytes"):
        space.change("a.txt", "a", "b" * 100_000, every=True)
    assert space.read("a.txt") == b"a" * 4_000_000


def test_a_deny_wins_and_only_its_lane_lets_the_untrusted_do_more() -> None:
    user, hook = Caller("main", "main", "", "agent:main:main"), Caller("main", "hook", "", "hook:h")
    assert rule(Policy(), user, "exec", "run").say == "ask"
    assert rule(Policy(), user, "read", "read").say == "allow"
    assert rule(Policy(), hook, "exec", "run").say == "deny"
    wide = Policy(every=Rules(allow=("*",)), agents={"main": Rules(allow=("@run",))})
    assert rule(wide, user, "exec", "run").say == "allow"
    assert rule(wide, hook, "exec", "run").say == "deny"
    assert rule(Policy(lanes={"hook": Rules(ask=("exec",))}), hook, "exec", "run").say == "ask"
    assert (
        rule(Policy(every=Rules(deny=("exec",)), agents={"main": Rules(allow=("*",))}), user, "exec", "run").say
        == "deny"
    )


def test_calls_in_a_circle_are_named_and_the_fourth_is_the_last() -> None:
    calls = Calls()
    found = [calls.next("a", "x") for _ in range(9)]
    assert found[:5] == [None] * 5
    assert [(one.loop, one.is_last) for one in found[5:] if one] == [("same_call", False)] * 3 + [("same_call", True)]
