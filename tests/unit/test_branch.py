"""Branches: walking trees that others may have damaged, and reading older formats without touching them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.context.plan import plan
from holdfast.session.branch import Tree, active_branch, leaf_after, lift
from holdfast.session.lines import Line, read_line, split_lines


def line(id: str, parent: str | None, **fields: Any) -> Line:
    raw = {"type": "custom", "customType": "k", "id": id, "parentId": parent, **fields}
    return read_line(json.dumps(raw).encode())


def mirror(id: str, **fields: Any) -> Line:
    message = {"role": "assistant", "provider": "openclaw", "model": "delivery-mirror"}
    return read_line(json.dumps({"type": "message", "id": id, "message": message, **fields}).encode())


def ids(lines: Any) -> list[str]:
    return [line.id for line in lines]


HEADER = read_line(b'{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}')


def test_the_last_line_is_the_leaf_and_only_its_branch_is_walked() -> None:
    lines = [HEADER, line("a", None), line("b", "a"), line("c", "a")]
    assert ids(active_branch(lines).lines) == ["a", "c"]
    assert ids(active_branch(lines, "b").lines) == ["a", "b"]


def test_an_empty_file_has_an_empty_branch() -> None:
    assert active_branch([]).lines == ()
    assert active_branch([HEADER]).lines == ()
    assert active_branch([HEADER]).problems == ()


def test_a_missing_parent_ends_the_walk_and_is_reported() -> None:
    branch = active_branch([line("b", "gone"), line("c", "b")])
    assert ids(branch.lines) == ["b", "c"]
    assert branch.problems == ("parent gone is missing",)


def test_a_leaf_that_is_not_there_is_reported() -> None:
    branch = active_branch([line("a", None)], "gone")
    assert branch.lines == ()
    assert branch.problems == ("leaf gone is missing",)


@pytest.mark.parametrize("parents", [("a",), ("b", "a"), ("c", "a", "b")])
def test_a_ring_of_parents_is_walked_once_and_reported(parents: tuple[str, ...]) -> None:
    lines = [line(id, parent) for id, parent in zip("abc", parents, strict=False)]
    branch = active_branch(lines)
    assert sorted(ids(branch.lines)) == sorted("abc"[: len(parents)])
    assert "ring" in branch.problems[0]


def test_a_later_line_with_a_known_id_cannot_replace_the_first() -> None:
    lines = [line("a", None, data="first"), line("b", "a"), line("a", "b", data="second")]
    branch = active_branch(lines)
    assert [entry.value().get("data") for entry in branch.lines] == ["first", None]
    assert "used twice" in branch.problems[0]


def test_malformed_and_unknown_lines_keep_their_place_and_unreadable_ones_are_reported() -> None:
    lines = [line("a", None), line("b", "a", customType=""), line("c", "b", type="leaf"), read_line(b"{torn")]
    branch = active_branch([*lines, line("d", "c")])
    assert ids(branch.lines) == ["a", "b", "c", "d"]
    assert "could not be read" in branch.problems[0]


def test_an_absent_parent_means_the_leaf() -> None:
    branch = active_branch([line("a", None), mirror("m"), line("b", "m")])
    assert ids(branch.lines) == ["a", "m", "b"]


def test_a_mirror_hung_aside_does_not_move_the_leaf() -> None:
    lines = [line("a", None), line("b", "a"), mirror("m", parentId="a")]
    assert ids(active_branch(lines).lines) == ["a", "b"]
    assert ids(active_branch([*lines, mirror("n", parentId="b")]).lines) == ["a", "b", "n"]


def test_leaf_after_agrees_with_the_tree() -> None:
    lines = [HEADER, line("a", None), line("b", "a"), mirror("m", parentId="a"), read_line(b""), line("c", "a")]
    leaf = None
    for count, each in enumerate(lines, 1):
        leaf = leaf_after(leaf, each)
        assert leaf == Tree.of(lines[:count]).leaf


def test_a_branch_of_a_hundred_thousand_lines_is_walked_without_recursion() -> None:
    lines = [line(str(n), str(n - 1) if n else None) for n in range(100_000)]
    assert len(active_branch(lines).lines) == 100_000


V1 = (
    b'{"type":"session","id":"s","timestamp":"t","cwd":"/"}\n'
    b'{"type":"message","timestamp":"t","message":{"role":"user","content":"one"}}\n'
    b"\n"
    b'{"type":"message","timestamp":"t","message":{"role":"assistant","content":[{"type":"text","text":"two"}]}}\n'
    b"{torn\n"
    b'{"type":"message","timestamp":"t","message":{"role":"user","content":"three"}}\n'
    b'{"type":"compaction","timestamp":"t","summary":"so far","firstKeptEntryIndex":3,"tokensBefore":1e16}\n'
    b'{"type":"message","timestamp":"t","message":{"role":"user","content":"four"}}\n'
)
V2 = (
    b'{"type":"session","version":2,"id":"s","timestamp":"t","cwd":"/"}\n'
    b'{"type":"message","id":"a","parentId":null,"message":{"role":"hookMessage","customType":"k","content":"hooked"}}\n'
)


def read_file(data: bytes) -> list[Line]:
    raws, tail = split_lines(data)
    assert tail == b""
    version = read_line(raws[0]).version
    return [read_line(raw, version=version or 3) for raw in raws]


def shown(lines: Any) -> list[str]:
    return [part["text"] for message in plan(lines).messages for part in message["content"]]


def test_a_file_of_version_1_is_read_as_a_chain_with_ids_that_do_not_change() -> None:
    branch = active_branch(read_file(V1))
    assert [line.type for line in branch.lines] == ["message", "message", "message", "compaction", "message"]
    assert ids(branch.lines) == ids(active_branch(read_file(V1)).lines)
    assert len(set(ids(branch.lines))) == 5
    assert branch.lines[3].first_kept == branch.lines[2].id


def test_the_context_of_version_1_begins_where_its_compaction_says() -> None:
    texts = shown(active_branch(read_file(V1)).lines)
    assert "so far" in texts[0]
    assert texts[1:] == ["three", "four"]


def test_a_hook_message_of_version_2_is_shown() -> None:
    assert shown(active_branch(read_file(V2)).lines) == ["hooked"]


@pytest.mark.parametrize("data", [V1, V2])
def test_lifting_changes_no_byte(data: bytes) -> None:
    raws, _ = split_lines(data)
    before = read_file(data)
    lifted = lift(before)
    assert [line.raw for line in before] == raws
    assert {line.raw for line in lifted} <= set(raws)


def test_version_3_is_left_alone() -> None:
    lines = [HEADER, line("a", None)]
    assert lift(lines) is lines
