"""`holdfast prove`: what users run on their own disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.testing.prove import ground
from holdfast.testing.prove.ground import Finding, examine
from holdfast.testing.prove.trial import PROMISES, Result, Verdict, place_for


def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.timeout(240)
def test_it_tries_every_promise_in_a_folder_of_its_own_and_touches_no_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert holdfast("--state", str(state), "sessions").returncode == 1  # there is none
    assert holdfast("--state", str(state), "send", "agent:main:main", "hi", "--model", "demo/fast").returncode == 0
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    done = holdfast("--state", str(state), "prove", "--seconds", "14", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["holds"]
    verdicts = {one["promise"]: one["verdict"] for one in found["promises"]}
    assert verdicts == dict.fromkeys(PROMISES, "held")
    assert found["counts"]["kills"] > 0
    assert Path(found["folder"]).parent == tmp_path
    assert list(tmp_path.iterdir()) == [state]
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_the_ground_of_an_ordinary_disk_holds(tmp_path: Path) -> None:
    assert [finding for finding in examine(tmp_path) if finding.level == "broken"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "level", "promise"),
    [("nfs4", "broken", "P1"), ("9p", "broken", "P6"), ("tmpfs", "remark", "P3"), ("overlay", "remark", "P6")],
)
def test_a_file_system_that_is_known_to_be_unfit_is_named(kind: str, level: str, promise: str) -> None:
    [finding] = ground._of_kind(kind)
    assert finding.level == level
    assert promise in finding.promises
    assert kind in finding.text


def test_a_folder_inside_a_state_is_never_used(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "sessions" / "deep").mkdir(parents=True)
    (state / "holdfast.json").write_text("{}")
    for given in (state, state / "sessions", state / "sessions" / "deep", state / "not-there"):
        assert place_for(given) == tmp_path
    assert place_for(tmp_path) == tmp_path
    assert place_for(tmp_path / "not-there" / "yet") == tmp_path


def test_what_broke_or_cannot_hold_is_the_verdict() -> None:
    held, untried = Verdict("P1", "", tried=["x"]), Verdict("P2", "")
    broken, cannot = Verdict("P3", "", tried=["x"], broken=["y"]), Verdict("P4", "", cannot=["z"])
    assert [one.verdict for one in (held, untried, broken, cannot)] == [
        "held", "not tried", "broken", "cannot hold here",
    ]  # fmt: skip
    assert Result("", "", 1.0, [Finding("remark", (), "")], [held, untried]).holds
    assert not Result("", "", 1.0, [], [held, broken]).holds
    assert not Result("", "", 1.0, [], [held, cannot]).holds


def test_a_state_that_is_no_folder_is_refused_in_words() -> None:
    done = holdfast("--state", "postgres://x/y", "prove", "--seconds", "10")
    assert done.returncode == 1
    assert "give a folder" in done.stderr
