"""The tables of lives: terminal is terminal, and an illegal move changes nothing."""

from __future__ import annotations

import pytest

from holdfast.lane.states import DELIVERY, INPUT, OUTCOME_EVENT, TERMINAL, TRANSITIONS, IllegalMoveError, move


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
