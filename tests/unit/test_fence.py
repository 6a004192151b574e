"""The fence as plain functions: what unrecorded lines amount to, which finding wins, which epoch comes next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.session.fence import (
    DETAIL_BYTES_MAX,
    STRENGTH,
    Fingerprint,
    Verdict,
    classify_lines,
    describe_identity_change,
    next_epoch_number,
    strongest,
)
from holdfast.session.lines import read_line

LEAF = "leaf"
ON_BRANCH = {"root", "middle", LEAF}
TEXT = [{"type": "text", "text": "x"}]


def line(kind: str, id: str = "x1", parent: str | None = LEAF, **more: Any) -> bytes:
    said = {"role": "assistant", "content": TEXT, "provider": "openclaw", "model": "delivery-mirror", "usage": {}}
    bodies: dict[str, dict[str, Any]] = {
        "user": {"type": "message", "message": {"role": "user", "content": TEXT}},
        "assistant": {"type": "message", "message": {**said, "provider": "demo", "model": "demo"}},
        "tool result": {"type": "message", "message": {"role": "toolResult", "toolCallId": "c", "content": TEXT}},
        "mirror": {"type": "message", "message": said},
        "injected": {"type": "message", "message": {**said, "model": "gateway-injected"}},
        "label": {"type": "label", "targetId": "x"},
        "title": {"type": "session_info", "name": "x"},
        "model change": {"type": "model_change", "provider": "p", "modelId": "m"},
        "thinking": {"type": "thinking_level_change", "thinkingLevel": "high"},
        "custom": {"type": "custom", "customType": "x"},
        "custom message": {"type": "custom_message", "customType": "x", "content": "x"},
        "compaction": {"type": "compaction", "summary": "x", "firstKeptEntryId": "x"},
        "branch summary": {"type": "branch_summary", "fromId": "x", "summary": "x"},
        "header": {"type": "session", "version": 3},
        "unknown type": {"type": "holding"},
        "unknown role": {"type": "message", "message": {"role": "narrator", "content": TEXT}},
        "no content": {"type": "message", "message": {"role": "user"}},
    }
    entry = {"id": id, "parentId": parent, "timestamp": "2026-05-22T10:00:00.000Z", **bodies[kind], **more}
    if parent == "absent":
        del entry["parentId"]
    return json.dumps(entry).encode()


def judge(*raws: bytes, leaf: str | None = LEAF) -> Verdict:
    return classify_lines([read_line(raw) for raw in raws], leaves=(leaf,), on_branch=lambda id: id in ON_BRANCH)


# ── single lines ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["label", "title", "model change", "thinking", "custom", "mirror", "injected"])
def test_what_the_model_never_sees_is_adopted_off_the_leaf(kind: str) -> None:
    verdict = judge(line(kind))
    assert (verdict.kind, verdict.entries) == ("adopted", ("x1",))
    assert not verdict.is_takeover()


@pytest.mark.parametrize("kind", ["label", "title", "model change", "thinking", "custom"])
@pytest.mark.parametrize("parent", [None, "absent", "root", "elsewhere"])
def test_off_anything_else_it_is_a_foreign_turn(kind: str, parent: str | None) -> None:
    assert judge(line(kind, parent=parent)).kind == "foreign_turn"


@pytest.mark.parametrize("parent", [None, "absent", "root", "middle", LEAF])
def test_a_mirror_is_adopted_anywhere_on_the_branch_or_without_a_parent(parent: str | None) -> None:
    assert judge(line("mirror", parent=parent)).kind == "adopted"


def test_a_mirror_off_the_branch_is_a_foreign_turn() -> None:
    assert judge(line("mirror", parent="elsewhere")).kind == "foreign_turn"


@pytest.mark.parametrize("kind", ["user", "assistant", "tool result", "custom message", "compaction", "branch summary"])
@pytest.mark.parametrize("parent", [LEAF, None, "elsewhere"])
def test_conversation_is_a_foreign_turn_wherever_it_hangs(kind: str, parent: str | None) -> None:
    verdict = judge(line(kind, parent=parent))
    assert verdict.kind == "foreign_turn"
    assert verdict.is_takeover()
    assert not verdict.is_takeover("warn")


@pytest.mark.parametrize(
    "raw",
    [
        line("header"),
        line("unknown type"),
        line("unknown role"),
        line("no content"),
        b"{",
        b"",
        b"  ",
        b"\0" * 9,
        b"[]",
    ],
)
def test_what_cannot_be_read_is_tampering_in_either_mode(raw: bytes) -> None:
    verdict = judge(raw)
    assert verdict.kind == "tampered"
    assert verdict.is_takeover("warn")


def test_in_a_file_without_entries_the_leaf_is_none() -> None:
    assert judge(line("label", parent=None), leaf=None).kind == "adopted"
    assert judge(line("label", parent=LEAF), leaf=None).kind == "foreign_turn"


def test_no_line_at_all_is_adopted_and_says_what_else_changed() -> None:
    verdict = judge()
    assert (verdict.kind, verdict.entries) == ("adopted", ())
    assert "times" in verdict.detail


# ── several lines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_adopted_lines_may_hang_off_each_other() -> None:
    assert judge(line("label", "a"), line("title", "b", "a"), line("mirror", "c", "b")).kind == "adopted"


def test_nothing_may_hang_off_a_refused_line() -> None:
    assert judge(line("label", "a", "elsewhere"), line("title", "b", "a")).kind == "foreign_turn"


@pytest.mark.parametrize("first", ["label", "user"])
def test_of_several_findings_the_strongest_wins_wherever_it_stands(first: str) -> None:
    for raws in ([line(first, "a"), b"{"], [b"{", line(first, "a")]):
        assert judge(*raws).kind == "tampered"


@pytest.mark.parametrize("id", ["a", LEAF])
def test_an_id_used_twice_is_tampering(id: str) -> None:
    assert judge(line("label", "a"), line("label", id)).kind == "tampered"


def test_the_ids_met_are_listed_up_to_a_bound() -> None:
    raws = [line("label", f"n{number}", f"n{number - 1}" if number else LEAF) for number in range(100)]
    assert judge(*raws).entries == tuple(f"n{number}" for number in range(64))


def test_a_detail_is_cut() -> None:
    for text in ("x" * 500, "é" * 250, "\ud83d" * 100):
        detail = judge(line("label", text, "elsewhere" + text)).detail
        assert len(detail.encode()) <= DETAIL_BYTES_MAX


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_of_findings_is_that_of_the_table() -> None:
    kinds = ["unchanged", "advanced", "adopted", "foreign_turn", "tampered"]
    assert sorted(STRENGTH, key=STRENGTH.__getitem__) == kinds
    for at, kind in enumerate(kinds):
        for weaker in kinds[: at + 1]:
            assert strongest(Verdict(weaker), Verdict(kind)).kind == kind  # type: ignore[arg-type]


def test_superseded_is_a_takeover_in_either_mode() -> None:
    assert Verdict("superseded").is_takeover()
    assert Verdict("superseded").is_takeover("warn")


@pytest.mark.parametrize(
    ("now", "how"),
    [
        (None, "deleted"),
        (Fingerprint(1, 3, 100, 5, 6), "replaced"),
        (Fingerprint(2, 2, 100, 5, 6), "replaced"),
        (Fingerprint(1, 2, 99, 5, 6), "truncated"),
    ],
)
def test_another_or_a_shorter_file_is_tampering(now: Fingerprint | None, how: str) -> None:
    changed = describe_identity_change(Fingerprint(1, 2, 100, 5, 6), now)
    assert changed is not None
    assert changed.kind == "tampered"
    assert how in changed.detail


@pytest.mark.parametrize("now", [Fingerprint(1, 2, 100, 7, 8), Fingerprint(1, 2, 101, 5, 6)])
def test_times_and_growth_alone_lead_to_reading_not_to_a_verdict(now: Fingerprint) -> None:
    assert describe_identity_change(Fingerprint(1, 2, 100, 5, 6), now) is None


def test_the_next_epoch_exceeds_all_that_are_known() -> None:
    assert next_epoch_number() == 1
    assert next_epoch_number(3, 7, 5) == 8
