"""Schedules where clocks change: the two changes of a year in twenty zones, and any moment around them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.inbound import schedule
from holdfast.inbound.schedule import Schedule, cron, next_fire, plan_missed, zone_of

ZONES = [
    "Africa/Cairo", "Africa/Casablanca", "America/Asuncion", "America/Havana", "America/New_York", "America/Santiago",
    "America/Sao_Paulo", "America/St_Johns", "Antarctica/Troll", "Asia/Beirut", "Asia/Gaza", "Asia/Jerusalem",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Australia/Sydney", "Europe/Berlin", "Europe/Dublin", "Europe/London",
    "Pacific/Apia", "Pacific/Auckland",
]  # fmt: skip
START, END = datetime(2005, 1, 1, tzinfo=UTC), datetime(2034, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def local(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, zone_of(zone))


def changes(zone: str, year: int) -> list[datetime]:
    """The instants of a year, to the hour, before which the zone's offset was another."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(366 * 24)]
    offsets = [hour.astimezone(zone_of(zone)).utcoffset() for hour in hours]
    return [hour for hour, before, after in zip(hours[1:], offsets, offsets[1:], strict=False) if before != after]


def fires(one: Schedule, after: datetime, until: datetime) -> list[int]:
    found: list[int] = []
    at = next_fire(one, ms(after))
    while at is not None and at < ms(until):
        found.append(at)
        at = next_fire(one, at)
    return found


moments = st.datetimes(START.replace(tzinfo=None), END.replace(tzinfo=None)).map(lambda at: at.replace(tzinfo=UTC))
times_of_day = st.tuples(st.integers(0, 23), st.integers(0, 59))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [2011, 2026])
def test_a_time_of_day_fires_once_on_each_day_whatever_the_clocks_do(zone: str, year: int) -> None:
    for change in changes(zone, year):
        for hour, minute in [(0, 0), (0, 30), (1, 30), (2, 0), (2, 15), (2, 45), (3, 0), (23, 30)]:
            one = cron(f"{minute} {hour} * * *", zone=zone, stagger_s=0)
            found = [local(at, zone) for at in fires(one, change - 3 * DAY, change + 4 * DAY)]
            days = [at.date() for at in found]
            expected = {(change + n * DAY).astimezone(zone_of(zone)).date() for n in range(-2, 3)}
            if (zone, year) == ("Pacific/Apia", 2011):  # where the clocks jump over a whole day
                expected.discard(date(2011, 12, 30))
            assert expected <= set(days), (change, hour, minute)
            doubled = [day for day in set(days) if days.count(day) > 1 and day != date(2011, 12, 31)]
            assert doubled == [], (change, hour, minute, found)


@given(zone=st.sampled_from(ZONES), after=moments, time_of_day=times_of_day)
def test_the_next_fire_shows_its_time_or_is_the_first_instant_after_a_jump_over_it(
    zone: str, after: datetime, time_of_day: tuple[int, int]
) -> None:
    hour, minute = time_of_day
    at = next_fire(cron(f"{minute} {hour} * * *", zone=zone, stagger_s=0), ms(after))
    assert at is not None
    assert at > ms(after)
    shown = local(at, zone)
    if (shown.hour, shown.minute) != (hour, minute):
        assert local(at - 1000, zone).utcoffset() != shown.utcoffset()


@given(zone=st.sampled_from(ZONES), after=moments)
def test_a_rhythm_goes_on_in_real_time_through_every_change(zone: str, after: datetime) -> None:
    found = fires(cron("*/5 * * * *", zone=zone), after, after + timedelta(hours=5))
    assert {later - earlier for earlier, later in pairwise(found)} == {300_000}
    assert 0 < found[0] - ms(after) <= 300_000


EXPRESSIONS = [
    "0 * * * *", "*/7 * * * *", "30 2 * * *", "15,45 1-3 * * *", "0 9 * * MON-FRI", "0 0 1,15 * FRI", "0 0 29 2 *",
    "5 4 * JAN,JUL SUN", "10 */5 * * * *", "59 59 23 * * *", "0 0 L * *", "0 12 * * 5#2",
]  # fmt: skip


@given(
    zone=st.sampled_from(ZONES), after=moments, expression=st.sampled_from(EXPRESSIONS), earlier=st.integers(1, 10**9)
)
def test_asking_from_anywhere_before_a_fire_finds_no_later_one(
    zone: str, after: datetime, expression: str, earlier: int
) -> None:
    one = cron(expression, zone=zone, job="a job")
    at = next_fire(one, ms(after))
    assert at is not None
    assert at > ms(after)
    assert next_fire(one, at - 1) == at
    from_before = next_fire(one, ms(after) - earlier)
    assert from_before is not None
    assert from_before <= at


@given(after=moments, days=st.integers(1, 40))
def test_day_of_month_and_day_of_week_are_alternatives_when_both_are_given(after: datetime, days: int) -> None:
    found = fires(cron("0 12 13 * FRI", stagger_s=0), after, after + days * DAY)
    shown = [local(at, "UTC") for at in found]
    assert all(at.day == 13 or at.weekday() == 4 for at in shown)
    every_noon = [(after + n * DAY).replace(hour=12, minute=0, second=0, microsecond=0) for n in range(-1, days + 2)]
    wanted = [at for at in every_noon if after < at < after + days * DAY and (at.day == 13 or at.weekday() == 4)]
    assert len(shown) == len(wanted)


@given(anchor=moments, after=moments, pause_s=st.integers(1, 10**7))
def test_a_pause_is_counted_from_its_anchor_and_never_drifts(anchor: datetime, after: datetime, pause_s: int) -> None:
    one = Schedule("every", ms(anchor), pause_s * 1000)
    at = next_fire(one, ms(after))
    assert at is not None
    assert 0 < at - ms(after) <= pause_s * 1000
    assert (at - ms(anchor)) % (pause_s * 1000) == 0


@given(name=st.text(max_size=30), expression=st.sampled_from(["0 * * * *", "0 7 * * *", "0 0 7 * * *"]))
def test_jobs_at_the_top_of_the_hour_are_spread_by_their_name_alone(name: str, expression: str) -> None:
    one = cron(expression, job=name)
    assert one == cron(expression, job=name)
    assert 0 <= one.stagger_s <= schedule.STAGGER_S_MAX
    assert cron(expression, job=name, stagger_s=0).stagger_s == 0
    assert cron("5 * * * *", job=name).stagger_s == 0


jobs = st.lists(st.tuples(st.integers(0, 10**7), st.booleans()), max_size=20)


@given(late=jobs)
def test_of_missed_jobs_few_are_made_up_for_and_none_that_runs_once_is_lost(late: list[tuple[int, bool]]) -> None:
    now = 10**9
    due = [(f"job {n}", now - late_ms, once) for n, (late_ms, once) in enumerate(late)]
    missed = [name for name, at, _ in due if now - at > schedule.MISSED_GRACE_S * 1000]
    plan = plan_missed(due, now)
    made_up = [name for name, _ in plan.made_up]
    assert sorted([*made_up, *plan.left_out]) == sorted(missed)
    assert not {name for name, _, once in due if once} & set(plan.left_out)
    assert sum(not once for name, _, once in due if name in made_up) <= schedule.MISSED_MAX
    assert [at for _, at in plan.made_up] == [now + 5000 * place for place in range(len(made_up))]
