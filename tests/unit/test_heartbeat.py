"""A heartbeat's decisions: hours, the file, reasons in their order, what of an answer is for anybody."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.inbound import heartbeat, heartbeat_file
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.heartbeat import (
    Defer,
    Reply,
    Surroundings,
    gate,
    is_active,
    is_only_ack,
    next_tick,
    plan_reply,
    skip_reason,
)
from holdfast.inbound.heartbeat_file import due_tasks, read_instructions
from tests.property.test_schedule import ZONES, changes, moments

MINUTE, DAY_MS = 60_000, 86_400_000

FILE = """# Heartbeat

Look at the calendar.

tasks:
- name: mail
  interval: 2h
  prompt: "Look for mail that cannot wait."
- name: backup
  interval: 1d
  prompt: Is there one of today?
- name: broken
  prompt: This has no interval.

Be short.
"""

# ── how often ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(interval=st.integers(1000, 10 * DAY_MS), after=st.integers(0, 2 * 10**12), agents=st.sets(st.text(), min_size=2))
def test_ticks_are_one_interval_apart_and_each_agent_has_its_own(interval: int, after: int, agents: set[str]) -> None:
    for agent in agents:
        first = next_tick(interval, "store", agent, after)
        assert 0 < first - after <= interval
        assert next_tick(interval, "store", agent, first) == first + interval


def test_agents_do_not_all_wake_at_once() -> None:
    ticks = {next_tick(30 * MINUTE, "store", f"agent {n}", 0) // MINUTE for n in range(100)}
    assert len(ticks) > 20


@given(moment=moments, zone=st.sampled_from(ZONES), start=st.integers(0, 1439), end=st.integers(0, 1440))
def test_hours_and_the_hours_between_them_share_the_day(moment: datetime, zone: str, start: int, end: int) -> None:
    first, last = (f"{at // 60:02}:{at % 60:02}" for at in (start, end))
    within = is_active(first, last, zone, moment)
    if start == end:
        assert not within
    elif end == 1440:
        shown = moment.astimezone(heartbeat.zone_of(zone))
        assert within == (shown.hour * 60 + shown.minute >= start)
    else:
        assert within != is_active(last, first, zone, moment)


@pytest.mark.parametrize("zone", ZONES)
def test_hours_are_those_of_the_wall_on_the_days_when_clocks_change(zone: str) -> None:
    for change in changes(zone, 2026):
        for step in range(-30 * 60, 30 * 60, 7):
            at = change + timedelta(minutes=step)
            shown = at.astimezone(heartbeat.zone_of(zone)).strftime("%H:%M")
            assert is_active("01:30", "03:10", zone, at) == ("01:30" <= shown < "03:10")


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_has_text_and_tasks_and_half_a_task_is_text() -> None:
    read = read_instructions(FILE)
    assert [(task.name, task.interval_ms) for task in read.tasks] == [("mail", 120 * MINUTE), ("backup", DAY_MS)]
    assert "Look at the calendar." in read.text
    assert "This has no interval." in read.text
    assert "Be short." in read.text
    assert "cannot wait" not in read.text
    assert not read.empty


def test_a_file_of_tasks_alone_has_no_text_and_one_of_headings_is_empty() -> None:
    tasks = read_instructions("# Heartbeat\n\ntasks:\n- name: a\n  interval: 5m\n  prompt: look\n")
    assert (tasks.text, tasks.empty, len(tasks.tasks)) == ("", False, 1)
    assert read_instructions("# Heartbeat\n\n- [ ]\n<!-- nothing -->\n").empty
    assert not read_instructions(None).empty


@given(st.text())
def test_whatever_a_file_holds_is_read_without_complaint(content: str) -> None:
    read = read_instructions(content)
    assert read.empty == (not read.text and not read.tasks)


def test_tasks_are_due_when_their_interval_has_passed_and_when_the_clock_was_set_back() -> None:
    tasks = read_instructions(FILE).tasks
    now = 10**12

    def names(**ago: int) -> list[str]:
        return [task.name for task in due_tasks(tasks, {name: now - at for name, at in ago.items()}, now)]

    assert names() == ["mail", "backup"]
    assert names(mail=119 * MINUTE, backup=DAY_MS) == ["backup"]
    assert names(mail=-MINUTE, backup=MINUTE) == ["mail"]


def test_the_prompt_holds_the_file_the_tasks_that_are_due_and_what_happened() -> None:
    read = read_instructions(FILE)
    said = heartbeat_file.prompt(read, read.tasks[:1], ["a job has ended"], "noon")
    assert [part in said for part in ("noon", "calendar", "cannot wait", "a job has ended", "HEARTBEAT_OK")] == [
        True
    ] * 5
    assert "Is there one of today" not in said


# ── whether it runs ──────────────────────────────────────────────────────────────────────────────────────────────────

ORDER: list[tuple[str, dict[str, Any]]] = [
    ("disabled", {"enabled": False}),
    ("quiet-hours", {"active": False}),
    ("requests-in-flight", {"in_flight": True}),
    ("requests-in-flight", {"undelivered_ms": 29_999}),
    ("cron-in-progress", {"cron_runs": True}),
    ("lanes-busy", {"nested_busy": True, "skip_when_busy": True}),
    ("empty-heartbeat-file", {"file_empty": True}),
    ("no-tasks-due", {"tasks_only": True}),
    ("dm-blocked", {"direct_blocked": True}),
    ("alerts-disabled", {"can_show": False}),
]


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_the_first_reason_that_holds_is_the_one_that_is_told(place: int) -> None:
    around = Surroundings()
    for _, facts in ORDER[place:]:
        around = replace(around, **facts)
    assert skip_reason(around, "interval") == ORDER[place][0]


def test_what_only_saves_a_model_call_does_not_hold_back_news() -> None:
    around = Surroundings(file_empty=True, tasks_only=True)
    assert skip_reason(around, "wake") is None
    assert skip_reason(replace(around, has_events=True), "interval") is None
    assert skip_reason(Surroundings(nested_busy=True, undelivered_ms=30_000), "interval") is None


@given(
    starts=st.lists(st.integers(0, 200_000), max_size=30),
    intent=st.sampled_from(["scheduled", "event", "immediate", "task"]),
    next_due=st.integers(0, 400_000),
)
def test_whoever_waits_as_told_runs_and_never_more_than_five_times_a_minute(
    starts: list[int], intent: heartbeat.Intent, next_due: int
) -> None:
    ran: list[int] = []
    now = 0
    for at in sorted(starts):
        now = max(now, at)
        deferred: Defer | None = Defer("flood", now)
        for _ in range(4):
            deferred = gate(intent, now, next_due_ms=next_due, last_start_ms=max(ran, default=None), starts=ran)
            if deferred is None:
                break
            assert deferred.retry_at_ms > now
            now = deferred.retry_at_ms
        assert deferred is None
        ran.append(now)
    assert all(sum(at - 60_000 <= other <= at for other in ran) <= 5 for at in ran)
    if intent != "immediate":
        assert all(later - earlier >= 30_000 for earlier, later in pairwise(ran))


def test_a_stamp_from_the_future_holds_nobody_back() -> None:
    assert gate("scheduled", 1000, last_start_ms=10**9, starts=[10**9] * 9) is None


def test_an_event_waits_for_the_next_regular_time_once_the_agent_has_run() -> None:
    assert gate("event", 50_000, next_due_ms=100_000, last_start_ms=1) == Defer("not-due", 100_000)
    assert gate("manual", 50_000, next_due_ms=100_000, last_start_ms=49_999, starts=[49_000] * 9) is None


# ── what of its answer is for anybody ────────────────────────────────────────────────────────────────────────────────


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=50))
def test_a_text_without_the_token_is_left_alone_and_with_it_alone_it_is_nothing(text: str) -> None:
    if "HEARTBEAT_OK" not in text and text.strip():
        assert heartbeat.strip_ack(text, heartbeat=True) == heartbeat.Acked(text.strip(), skip=False, stripped=False)
    assert heartbeat.strip_ack("HEARTBEAT_OK HEARTBEAT_OK", heartbeat=False).skip


def test_a_rest_is_an_acknowledgement_up_to_its_length_and_only_for_heartbeats() -> None:
    assert plan_reply("HEARTBEAT_OK " + "a" * 300, 0) == Reply("ack")
    assert plan_reply("HEARTBEAT_OK " + "a" * 301, 0) == Reply("send", "a" * 301)
    assert not heartbeat.strip_ack("HEARTBEAT_OK fine", heartbeat=False).skip
    assert plan_reply("HEARTBEAT_OKAY then", 0) == Reply("send", "HEARTBEAT_OKAY then")


def test_the_same_text_is_said_once_a_day() -> None:
    last: dict[str, Any] = {"last_text": "The disk is full", "last_sent_ms": 5000}
    assert plan_reply("The disk is full", 5000 + DAY_MS - 1, **last) == Reply("duplicate")
    assert plan_reply("The disk is full", 5000 + DAY_MS, **last).kind == "send"
    assert plan_reply("The disk is full", 4000, **last).kind == "send"
    assert plan_reply("The disk is nearly full", 6000, **last).kind == "send"


def test_a_silent_answer_is_for_nobody() -> None:
    assert plan_reply("NO_REPLY", 0, show_ok=True) == Reply("silent")
    assert is_only_ack([("NO_REPLY", False)])
    assert not is_only_ack([("NO_REPLY", True)])


def test_what_is_shown_can_be_chosen() -> None:
    assert plan_reply("HEARTBEAT_OK", 0, show_ok=True) == Reply("send", "HEARTBEAT_OK")
    assert plan_reply("Fire!", 0, show_alerts=False) == Reply("silent")


@pytest.mark.parametrize(
    ("every_ms", "limit_s", "longest_s"), [(1_800_000, None, 600), (60_000, None, 60), (60_000, 900, 900)]
)
def test_a_run_lasts_no_longer_than_the_pause_or_ten_minutes_unless_it_is_said(
    every_ms: int, limit_s: int | None, longest_s: float
) -> None:
    assert HeartbeatSettings("main", every_ms, "agent:main:main", limit_s=limit_s).timeout_s == longest_s
