"""Properties of the checks of `holdfast doctor`: they judge, and never guess."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.doctor.checks import judge
from holdfast.doctor.facts import ClaimFact, FileFact, TranscriptFact
from holdfast.doctor.finding import Finding, that_stay, with_faults_first
from holdfast.doctor.lines import LinesFound
from holdfast.session.mending import find_faults
from tests.unit.test_doctor import WELL

LIVES = st.sampled_from(["alive", "dead", "unknown"])
STATES = st.sampled_from([None, "running", "settled"])
HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"}


@given(st.lists(st.tuples(LIVES, STATES), max_size=6))
def test_a_claim_is_found_if_its_holder_does_not_live_and_mended_only_if_that_is_sure(lives: list[Any]) -> None:
    claims = tuple(
        ClaimFact(f"t{n}", ("k",), f"turn_{n}", "main", f"p{n}", n, life, state)
        for n, (life, state) in enumerate(lives)
    )
    found = {one.subject: one for one in judge(replace(WELL, ledger=replace(WELL.ledger, claims=claims)))}
    for claim in claims:
        is_well = claim.life == "alive" and claim.turn_state == "running"
        assert (claim.turn in found) == (not is_well)
        assert is_well or found[claim.turn].mendable == (claim.life == "dead")


@given(st.integers(0, 0o7777), st.booleans(), st.sampled_from(["file", "folder"]))
def test_rights_are_found_exactly_where_somebody_else_has_any(mode: int, ours: bool, kind: Any) -> None:
    found = judge(replace(WELL, files=(FileFact("x", kind, mode, ours),)))
    assert bool(found) == (not ours or bool(mode & 0o077))
    assert all(one.mendable == ours for one in found)


@given(st.booleans(), st.booleans(), st.booleans())
def test_a_transcript_that_nobody_lists_is_never_more_than_listed_again(
    keyed: bool, listed: bool, problem: bool
) -> None:
    one = TranscriptFact("sessions/a/b.jsonl", 5, "k" if keyed else None, ("k",) if listed else ())
    found = judge(replace(WELL, transcripts=(one,), problem="broken" if problem else ""))
    index = [each for each in found if each.check == "index"]
    assert bool(index) == (not listed and not problem)
    assert all("would move" in each.way_out and each.mendable == keyed for each in index)


FINDINGS = st.lists(
    st.builds(Finding, st.sampled_from("ab"), st.sampled_from("xy"), st.text(max_size=3), passes=st.booleans()),
    max_size=8,
)


@given(FINDINGS, FINDINGS)
def test_a_second_look_adds_nothing_and_drops_only_what_passes(before: list[Finding], after: list[Finding]) -> None:
    stay = that_stay(before, after)
    assert [one for one in after if one in stay] == stay
    assert all(one.passes and one.name not in {each.name for each in before} for one in after if one not in stay)
    assert that_stay(after, after) == after


@given(FINDINGS)
def test_showing_faults_first_loses_none(found: list[Finding]) -> None:
    assert sorted(map(repr, with_faults_first(found))) == sorted(map(repr, found))


STEPS = st.lists(
    st.tuples(st.sampled_from(["call", "result", "say", "user", "junk"]), st.sampled_from("123")), max_size=12
)


def line_of(number: int, what: str, call: str, parent: str | None) -> bytes:
    if what == "junk":
        return b'{"torn'
    content: list[dict[str, Any]] = [{"type": "text", "text": "so"}]
    message: dict[str, Any] = {"role": "user" if what == "user" else "assistant", "content": content, "timestamp": 1}
    if what in ("call", "say"):
        message["stopReason"] = "stop"
    if what == "call":
        content.append({"type": "toolCall", "id": call, "name": "work", "arguments": {}})
    if what == "result":
        message |= {"role": "toolResult", "toolCallId": call, "toolName": "work", "isError": False}
    entry = {"type": "message", "id": f"x{number}", "parentId": parent, "timestamp": "t", "message": message}
    return json.dumps(entry).encode()


@given(STEPS)
def test_lines_are_judged_as_a_mender_does_and_calls_are_paired_by_id(steps: list[tuple[str, str]]) -> None:
    """Against a plain model: a result answers the latest open call of its id."""
    raws, parent = [json.dumps(HEADER).encode()], None
    for number, (what, call) in enumerate(steps):
        raws.append(line_of(number, what, call, parent))
        parent = parent if what == "junk" else f"x{number}"
    found = LinesFound()
    for raw in raws:
        found.take(raw)
    assert list(found.faults) == find_faults(raws)
    open_calls: list[tuple[str, int]] = []
    unasked, last = 0, -1
    for number, (what, call) in enumerate(steps):
        if what in ("call", "say"):
            last = number
        if what == "call":
            open_calls.append((call, number))
        if what == "result":
            of = [one for one in open_calls if one[0] == call]
            unasked += not of
            if of:
                open_calls.remove(of[-1])
    assert (found.unasked, found.unanswered) == (unasked, sum(number < last for _, number in open_calls))
