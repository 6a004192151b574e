"""What recovery may do, as plain functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.recovery.classify import (
    BOOT_WINDOW_S,
    Action,
    Activity,
    Boot,
    Owner,
    attention,
    is_crash_loop,
    judge,
    plan_recovery,
    unclean_boots,
)
from holdfast.session.fence import Epoch

OWNER = Owner("t_1", ("agent:main:main",), Epoch(3, "aa"), "turn_1", "main", "p_1", 12, "alive", "in_1")
NOW_MS = 10_000_000


@given(life=st.sampled_from(["alive", "dead", "unknown"]), still_s=st.floats(0, 200), is_ours=st.booleans())
@pytest.mark.promise("P9")
def test_only_the_dead_and_those_who_stood_still_for_the_whole_term_are_closed(
    life: Any, still_s: float, is_ours: bool
) -> None:
    plan = plan_recovery([replace(OWNER, life=life, still_s=still_s, is_ours=is_ours)], beat_term_s=90.0)
    assert len(plan.actions) + len(plan.left_alone) == 1
    may_close = not is_ours and (life == "dead" or still_s >= 90.0)
    assert bool(plan.actions) == may_close
    if plan.actions:
        assert plan.actions[0].kind == ("close_dead" if life == "dead" else "close_lapsed")


@pytest.mark.promise("P9")
def test_an_outcome_is_what_the_ledger_shows_and_not_what_was_told() -> None:
    action = Action("close_dead", OWNER, "")
    assert judge(action, closed=True, owners_now=[]) == "effective"
    assert judge(action, closed=False, owners_now=[]) == "not_needed"
    assert judge(action, closed=True, owners_now=[OWNER]) == "ineffective"
    assert judge(action, closed=False, owners_now=[OWNER]) == "ineffective"
    somebody_else = replace(OWNER, epoch=Epoch(4, "bb"))
    assert judge(action, closed=False, owners_now=[somebody_else]) == "not_needed"
    elsewhere = replace(OWNER, transcript="t_2")
    assert judge(action, closed=True, owners_now=[elsewhere]) == "effective"


def boot(age_s: float, *, life: Any = "dead", clean: bool = False) -> Boot:
    return Boot(f"p_{age_s}", NOW_MS - int(age_s * 1000), life, clean)


def test_three_unclean_boots_within_five_minutes_are_a_crash_loop() -> None:
    assert is_crash_loop([boot(1), boot(60), boot(BOOT_WINDOW_S)], NOW_MS)
    assert not is_crash_loop([boot(1), boot(60)], NOW_MS)
    assert not is_crash_loop([boot(1), boot(60), boot(BOOT_WINDOW_S + 1)], NOW_MS)
    assert not is_crash_loop([boot(1), boot(60), boot(70, clean=True)], NOW_MS)
    assert not is_crash_loop([boot(1), boot(60), boot(70, life="alive")], NOW_MS)
    assert is_crash_loop([boot(1), boot(60), boot(70, life="unknown")], NOW_MS)  # its sentinel was tidied away


def test_a_clock_that_was_set_back_hides_no_boot_and_zero_means_never() -> None:
    later = [boot(-3600), boot(1), boot(2)]
    assert len(unclean_boots(later, NOW_MS)) == 3
    assert is_crash_loop(later, NOW_MS)
    assert not is_crash_loop(later, NOW_MS, unclean_max=0)
    assert not is_crash_loop(later, NOW_MS, unclean_max=4)


STALLED = ("session.stalled", "active_work_without_progress")
RUNS_LONG = ("session.long_running", "active_work")


@pytest.mark.parametrize(
    ("activity", "queued", "idle", "said"),
    [
        (Activity(), 0, False, ("session.stuck", "stale_session_state")),
        (Activity("embedded_run", progress_age_ms=10), 0, False, RUNS_LONG),
        (Activity("model_call", owned=False, progress_age_ms=10), 1, True, STALLED),
        (Activity("model_call", progress_age_ms=None), 0, False, STALLED),
        (Activity("tool_call", tool_age_ms=99_000, progress_age_ms=10), 0, False, RUNS_LONG),
    ],
)
def test_only_what_nobody_owns_is_stuck(activity: Activity, queued: int, idle: bool, said: tuple[str, str]) -> None:
    found = attention(activity, queued=queued, idle=idle, stale_ms=30_000)
    assert (found.event, found.reason) == said
    assert found.recovery_eligible == (found.event == "session.stuck")
