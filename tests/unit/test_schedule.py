"""What schedules may be written as, and the pauses after failures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from holdfast.errors import InputError
from holdfast.inbound.schedule import (
    at,
    backoff_s,
    cron,
    duration_ms,
    every,
    is_alert_due,
    next_fire,
    retry_s,
)

NOW = datetime(2026, 5, 22, 10, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def iso_of(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("text", "ms"),
    [("30m", 1_800_000), ("5", 300_000), ("1.5h", 5_400_000), ("90s", 90_000), ("250 ms", 250),
     ("365d", 31_536_000_000), ("0m", 0), ("oops", None), ("", None), ("-5m", None), ("9999999999d", None)],
)  # fmt: skip
def test_durations_are_numbers_with_a_unit_and_minutes_without(text: str, ms: int | None) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [("20m", "UTC", "2026-05-22 10:20:00"), ("2026-05-23T08:00", "UTC", "2026-05-23 08:00:00"),
     ("2026-05-23T08:00", "Europe/Berlin", "2026-05-23 06:00:00"),
     ("2026-05-23T08:00+05:30", "Europe/Berlin", "2026-05-23 02:30:00"),
     ("2026-05-23T08:00:00Z", "America/New_York", "2026-05-23 08:00:00"),
     ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29 01:00:00")],
)  # fmt: skip
def test_a_time_without_a_zone_is_of_the_zone_asked_for_and_a_duration_counts_from_now(
    text: str, zone: str, expected: str
) -> None:
    assert iso_of(at(text, NOW_MS, zone=zone).moment_ms) == expected


def test_a_time_that_has_passed_never_fires() -> None:
    one = at("2026-05-22T09:00", NOW_MS)
    assert next_fire(one, NOW_MS) is None
    assert next_fire(one, one.moment_ms - 1) == one.moment_ms


def test_a_pause_is_in_milliseconds_without_a_unit() -> None:
    assert every("60000", NOW_MS).every_ms == 60_000
    assert iso_of(next_fire(every("1h", NOW_MS), NOW_MS)) == "2026-05-22 11:00:00"


@pytest.mark.parametrize(
    ("make", "names"),
    [(lambda: at("tomorrow", NOW_MS), "2026-05-22T10:00"), (lambda: every("often", NOW_MS), "30s"),
     (lambda: every("10", NOW_MS), "a second or more"), (lambda: cron("61 * * * *"), "minute"),
     (lambda: cron("* * * *"), "fields"), (lambda: cron("0 0 31 2 *"), "day-of-month"),
     (lambda: cron("0 7 * * *", zone="Mars/Olympus"), "Europe/Berlin"),
     (lambda: cron("0 7 * * *", zone="../x"), "IANA"),
     (lambda: at("9999-12-31T23:59:59", NOW_MS, zone="America/New_York"), "9999"),
     (lambda: at("9999-12-31T23:59:59-12:00", NOW_MS), "9999"),
     (lambda: at("0001-01-01T00:00", NOW_MS, zone="Asia/Tokyo"), "year 1")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_the_way_out_is_named(make: object, names: str) -> None:
    with pytest.raises(InputError, match=names):
        make()  # type: ignore[operator]  # a lambda of the table


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("30 7 * * MON-FRI", "2026-05-25 07:30:00"), ("*/10 * * * *", "2026-05-22 10:10:00"),
     ("15 30 11 * * *", "2026-05-22 11:30:15"), ("0 0 1 1 *", "2027-01-01 00:00:00"),
     ("0 9 13 * FRI", "2026-05-29 09:00:00"), ("0 0 * * 7", "2026-05-24 00:00:00")],
)  # fmt: skip
def test_cron_expressions_have_five_or_six_fields(expression: str, expected: str) -> None:
    assert iso_of(next_fire(cron(expression, stagger_s=0), NOW_MS)) == expected


def test_a_recurring_job_backs_off_from_half_a_minute_to_an_hour() -> None:
    assert [backoff_s(n) for n in range(8)] == [0, 30, 60, 300, 900, 3600, 3600, 3600]


def test_a_job_that_runs_once_is_tried_three_times_more_after_what_may_pass() -> None:
    assert [retry_s(n, "overloaded") for n in range(1, 6)] == [60, 120, 300, None, None]
    assert retry_s(1, "auth") is None
    assert retry_s(1, None) is None


def test_an_alert_comes_after_two_failures_in_a_row_and_then_not_for_an_hour() -> None:
    assert not is_alert_due(1, None, NOW_MS)
    assert is_alert_due(2, None, NOW_MS)
    assert is_alert_due(1, None, NOW_MS, timed_out=True)
    assert not is_alert_due(1, NOW_MS - 3_599_000, NOW_MS, timed_out=True)
    assert not is_alert_due(3, NOW_MS - 3_599_000, NOW_MS)
    assert is_alert_due(9, NOW_MS - 3_600_000, NOW_MS)
    assert is_alert_due(3, NOW_MS + 60_000, NOW_MS), "the wall clock was set back"
