"""The fence cases, with real files and through the library alone.

A case's words against ours: `unchanged` is `unchanged`; `advance` is `advanced` or `adopted`; `takeover` is one of the
three verdicts that raise, and then nothing is written after what was found; `untrusted` is a new turn that reads the
file anew and says what it met. "Next locked write" is leaving the prompt window and then an append.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import holdfast
from tests.cases.fence_scene import (
    WORDS,
    Scene,
    check_by_next_write,
    must_be_met_openly,
    must_have_gone_on,
    must_have_stopped,
)
from tests.cases.fence_script import NotUnderstoodError, read_script
from tests.cases.fence_stories import STORIES
from tests.cases.given import FOLDER, LEFT_OUT, NOT_UNDERSTOOD, Case, SetAside, check_set_aside, check_words, each

FILE = "fence_cases.json"

SET_ASIDE: dict[str, str] = {
    "fn-060": "the format has no entry of type `metadata`; an unknown type is tampering, and our own turns write none",
    "fn-081": "no caller's code runs while the write lock is held, so nothing can ask for it again from inside",
}
NOT_COMPARED: dict[str, str] = {
    "lock_acquisitions": "the lock is taken once per append and once per window; the counts are another program's",
    "release_calls_total": "as lock_acquisitions",
    "acquisitions": "as lock_acquisitions",
    "releases": "that it is free afterwards is what is asked instead",
    "raised_by": "leaving a window and appending raise the same error",
    "merge_called": "there is no copy in memory to merge into: the next context is read from the file",
    "queued_publications": "as merge_called; that nothing lands after a takeover is compared",
    "last_record": "no restoring leaf row is needed: our next line names its parent, which `leaf` compares",
    "reason": "words for people",
    "dispose_settles": "leaving a turn does not wait for the write lock; that the lock is free afterwards is compared",
    "settles": "as dispose_settles",
}
COMPARED = frozenset(
    (
        "verdict",
        "accept",
        "first_check",
        "merged",
        "merged_ids",
        "callback_error_propagates",
        "trusted_snapshot",
        "raises",
        "leaf",
        "side_text_in_context",
        "file_contains",
        "file_excludes",
        "merged_order",
    )
)


def set_aside(case: Case) -> SetAside | None:
    if case.id in SET_ASIDE:
        return SetAside(LEFT_OUT, SET_ASIDE[case.id])
    if case.data["kind"] == "lifecycle":
        return None if case.id in STORIES else SetAside(NOT_UNDERSTOOD, "no story is written for these steps")
    try:
        read_script(case)
    except NotUnderstoodError as unknown:
        return SetAside(NOT_UNDERSTOOD, str(unknown))
    return None


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case, tmp_path: Path) -> None:
    if case.data["kind"] == "lifecycle":
        await STORIES[case.id](case, tmp_path / "state")
        return
    script = read_script(case)
    async with holdfast.open(tmp_path / "state") as hf, AsyncExitStack() as turns:
        scene = Scene(tmp_path / "state", hf, script, turns)
        await scene.prepare()
        for step in script.steps:
            await scene.take(step.do)
        if "untrusted" in script.accepted:
            await must_be_met_openly(scene)
            return
        verdict = await check_by_next_write(scene)
        assert WORDS[verdict.kind] in script.accepted, verdict
        if WORDS[verdict.kind] == "takeover":
            await must_have_stopped(scene)
        else:
            await must_have_gone_on(scene, case)


# ── the tables are complete ──────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_left_out_without_a_reason_and_the_rest_is_understood() -> None:
    check_set_aside(FILE, set_aside, SET_ASIDE, STORIES)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, NOT_COMPARED)
    assert not COMPARED & set(NOT_COMPARED)


def test_the_folder_of_cases_is_there() -> None:
    assert FOLDER.is_dir()
