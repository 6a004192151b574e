"""Each example runs as its docstring says, offline, and shows what it is meant to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWS = {
    "plain.py": ["You have asked 1 question(s)", "You have asked 2 question(s)", "the session meanwhile: unchanged"],
    "sync_plain.py": ["You have asked 2 question(s)", "settled, answered"],
    "two_processes.py": ["40 of 40 turns are in the transcript; 0 of them were torn apart"],
    "with_fastapi.py": [
        "200 ada, you have said 1 thing(s); the latest was 'Who owns this?'.",
        "200 ada, you have said 2 thing(s); the latest was 'And now?'.",
        "200 bob, you have said 1 thing(s)",
    ],
    "with_pydantic_ai_owned.py": ["That is question 1.", "That is question 2."],
    "with_langgraph.py": ["That is question 1.", "That is question 2."],
    "with_pydantic_ai.py": [
        "It is sunny in Lima.",
        "session, user, assistant, toolResult, assistant, user, assistant, toolResult, assistant",
    ],
}


def run(example: str, state: Path) -> str:
    command = [sys.executable, str(EXAMPLES / example), str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("example", sorted(SHOWS))
def test_an_example_runs_offline_and_shows_what_it_is_about(example: str, tmp_path: Path) -> None:
    said = run(example, tmp_path / "state")
    for expected in SHOWS[example]:
        assert expected in said


def test_no_example_is_left_untried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWS)


def test_the_conversation_of_an_example_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    run("plain.py", tmp_path / "state")
    counts = re.findall(r"You have asked (\d+) question", run("plain.py", tmp_path / "state"))
    assert counts == ["3", "4"]
