"""Each example runs as its docstring says, offline, and shows what it is meant to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations import beside

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

ELSEWHERE = {
    "with_openai_agents.py": ("agents", ["That is question 1.", "That is question 2."]),
}
"""Examples of frameworks whose pins do not go with ours, and the environments in which they run."""


def run(example: str, state: Path, environment: str | None = None) -> str:
    python = sys.executable if environment is None else str(beside.python_of(environment))
    found = None if environment is None else beside.environment_of(environment, state.parent)
    command = [python, str(EXAMPLES / example), str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=found)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("example", sorted(SHOWS))
def test_an_example_runs_offline_and_shows_what_it_is_about(example: str, tmp_path: Path) -> None:
    said = run(example, tmp_path / "state")
    for expected in SHOWS[example]:
        assert expected in said


@pytest.mark.xdist_group("beside")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", sorted(ELSEWHERE))
def test_an_example_of_a_framework_in_an_environment_of_its_own_runs_offline(example: str, tmp_path: Path) -> None:
    environment, shows = ELSEWHERE[example]
    said = run(example, tmp_path / "state", environment)
    for expected in shows:
        assert expected in said


def test_no_example_is_left_untried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHOWS, *ELSEWHERE}


def test_the_conversation_of_an_example_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    run("plain.py", tmp_path / "state")
    counts = re.findall(r"You have asked (\d+) question", run("plain.py", tmp_path / "state"))
    assert counts == ["3", "4"]
