"""The tables of lives: terminal is terminal, and an illegal move changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.lane.states import (
    DELIVERY,
    INPUT,
    OUTCOME_EVENT,
    TERMINAL,
    TRANSITIONS,
    IllegalMoveError,
    move,
    states_of,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.promise("P2")
def test_terminal_states_are_never_reopened() -> None:
    assert not [key for key in INPUT if key[0] in TERMINAL]


def test_every_terminal_state_can_be_reached_from_the_queue() -> None:
    assert {state for (before, _), state in INPUT.items() if before == "queued"} - {"running"} == set(TERMINAL)


def test_every_outcome_has_its_event() -> None:
    assert set(OUTCOME_EVENT) == set(TERMINAL)
    for state, event in OUTCOME_EVENT.items():
        assert move("input", "queued", event) == state


@pytest.mark.promise("P4")
def test_a_sent_delivery_stays_sent() -> None:
    assert not [key for key in DELIVERY if key[0] in ("sent", "dropped")]


@pytest.mark.parametrize("machine", sorted(TRANSITIONS))
def test_a_move_that_is_not_in_the_table_raises(machine: str) -> None:
    with pytest.raises(IllegalMoveError, match="no move 'fly'"):
        move(machine, "queued", "fly")


@pytest.mark.parametrize("machine", sorted(TRANSITIONS))
def test_the_page_draws_each_move_of_the_table_and_no_other(machine: str) -> None:
    page = (ROOT / "docs/states.md").read_text()
    section = page.split(f"\n## {machine.capitalize()}\n")[1].split("\n## ")[0]
    drawn = re.findall(r"^ +(\w+) --> (\w+): (\w+)$", section, re.MULTILINE)
    assert sorted(drawn) == sorted((before, after, event) for (before, event), after in TRANSITIONS[machine].items())


def test_the_formal_model_knows_only_states_of_the_tables() -> None:
    """`formal/ownership.pml`: states of inputs are named numbers, those of deliveries stand in a comment."""
    model = (ROOT / "formal/ownership.pml").read_text()
    inputs = re.findall(r"^#define ([A-Z]+) (\d)$", model, re.MULTILINE)
    of_inputs = model.split("byte st[2]")[0].rsplit("byte owner,", 1)[1]
    named = [name.lower() for name, number in inputs if f"#define {name} {number}" in of_inputs]
    assert named[:2] == ["queued", "running"]
    assert len(named) > 4
    assert set(named) <= set(states_of("input"))
    told = re.search(r"/\* delivery: 0 none, (.+?) \*/", model)
    assert told is not None
    assert {one.split()[1] for one in told[1].split(", ")} <= set(states_of("delivery"))
