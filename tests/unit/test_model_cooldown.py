"""Cool-downs: how long, for whom, and when somebody may ask all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.model.cooldown import (
    Cooldown,
    ModelFailure,
    after_failure,
    blocking,
    cooldown_s,
    is_a_last_resort,
    is_forgotten,
    is_worth_a_probe,
    left_s,
    probed,
)

NOW_MS = 1_800_000_000_000
DAY_MS = 24 * 3_600_000


def failure(reason: str, at_ms: int = NOW_MS, retry_after_s: float | None = None) -> ModelFailure:
    return ModelFailure("lab", "k1", "m", reason, at_ms, retry_after_s, "LAB_KEY")


def failed(reason: str, times: int = 1, retry_after_s: float | None = None) -> Cooldown:
    row: Cooldown | None = None
    for _ in range(times):
        row = after_failure(row, failure(reason, retry_after_s=retry_after_s))
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("rate_limit", [30, 60, 300, 300]),
        ("timeout", [30, 60, 300, 300]),
        ("auth", [30, 60, 300, 300]),
        ("billing", [5 * 3600, 10 * 3600, 20 * 3600, 24 * 3600, 24 * 3600]),
        ("auth_permanent", [600, 1200, 2400, 3600, 3600]),
    ],
)
def test_each_failure_in_a_row_lengthens_the_cooldown_up_to_its_limit(reason: str, seconds: list[float]) -> None:
    assert [cooldown_s(reason, n) for n in range(1, len(seconds) + 1)] == seconds
    assert left_s(failed(reason, len(seconds)), NOW_MS) == seconds[-1]


@pytest.mark.parametrize("reason", ["format", "model_not_found", "context_overflow", "session_expired"])
def test_what_is_wrong_with_one_request_leaves_nobody_alone(reason: str) -> None:
    assert after_failure(None, failure(reason)) is None
    before = failed("rate_limit")
    assert after_failure(before, failure(reason)) is before


def test_a_count_is_forgotten_after_a_day_without_a_failure() -> None:
    before = failed("rate_limit", 3)
    later = after_failure(before, failure("rate_limit", NOW_MS + DAY_MS))
    assert later is not None
    assert (later.errors, left_s(later, NOW_MS + DAY_MS)) == (1, 30)
    assert not is_forgotten(before, NOW_MS + DAY_MS - 1)
    assert is_forgotten(before, NOW_MS + DAY_MS)


def test_a_demanded_pause_is_respected_and_capped() -> None:
    assert left_s(failed("rate_limit", retry_after_s=2), NOW_MS) == 2
    assert left_s(failed("rate_limit", 2, retry_after_s=2), NOW_MS) == 60
    assert left_s(failed("rate_limit", retry_after_s=90), NOW_MS) == 90
    assert left_s(failed("rate_limit", retry_after_s=10**9), NOW_MS) == 3600
    long = failed("rate_limit", retry_after_s=900)
    assert not is_worth_a_probe(long, NOW_MS + 800_000)
    assert not is_a_last_resort(long, NOW_MS + 800_000)


def test_a_rate_limit_is_of_one_model_and_a_bill_of_the_whole_key() -> None:
    limited, unpaid = failed("rate_limit"), failed("billing")
    assert blocking([limited], "lab", "k1", "m", NOW_MS) == limited
    assert blocking([limited], "lab", "k1", "other", NOW_MS) is None
    assert blocking([unpaid], "lab", "k1", "other", NOW_MS) == unpaid
    assert blocking([limited, unpaid], "lab", "k1", "m", NOW_MS) == unpaid
    for provider, key in (("lab", "k2"), ("elsewhere", "k1")):
        assert blocking([limited, unpaid], provider, key, "m", NOW_MS) is None


def test_a_cooldown_ends_by_itself_also_when_the_clock_was_set_back() -> None:
    row = failed("timeout", 3)
    assert left_s(row, NOW_MS + 299_000) == 1
    assert left_s(row, NOW_MS + 300_000) == 0
    assert left_s(row, NOW_MS - 60_000) == 0
    assert blocking([row], "lab", "k1", "m", NOW_MS - 60_000) is None


def test_only_what_is_refused_at_once_is_probed_in_passing_and_every_five_minutes() -> None:
    limited = replace(failed("rate_limit", 3), until_ms=NOW_MS + 3_600_000)
    assert not is_worth_a_probe(limited, NOW_MS + 299_000)
    assert is_worth_a_probe(limited, NOW_MS + 300_000)
    assert not is_worth_a_probe(probed(limited, "turn_1", NOW_MS + 300_000), NOW_MS + 400_000)
    assert not is_worth_a_probe(replace(failed("timeout", 3), until_ms=NOW_MS + 3_600_000), NOW_MS + 400_000)


def test_when_nobody_else_can_answer_all_is_asked_but_a_rate_limit_that_ends_soon() -> None:
    for reason in ("timeout", "auth", "billing", "auth_permanent"):
        assert is_a_last_resort(failed(reason, 3), NOW_MS)
    assert not is_a_last_resort(failed("rate_limit"), NOW_MS + 1_000)
    assert not is_a_last_resort(failed("rate_limit", 3), NOW_MS + 29_000)
    assert is_a_last_resort(failed("rate_limit", 3), NOW_MS + 30_000)


def test_a_router_is_never_left_alone() -> None:
    assert after_failure(None, ModelFailure("openrouter", "", "a/b", "billing", NOW_MS)) is None
