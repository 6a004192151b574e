"""No broken input of any kind crashes a reader of what others have written."""

from __future__ import annotations

import pytest

from holdfast.testing.fuzz import TARGETS, Target, case_of, run, seeds_for

CASES = {"logs": 2500, "transcripts": 12000, "webhooks": 6000, "configuration": 250}
"""About 2 s of CPU in all; `make fuzz` goes on from other seeds."""
MINUTES_S = 120.0
FOUND: dict[str, list[bytes]] = {name: [] for name in CASES}
"""What has crashed a reader once."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_broken_input_is_read_or_refused(target: Target) -> None:
    for case in FOUND[target.name]:
        target.read(case)
    crash = run(target, range(CASES[target.name]))
    assert crash is None, crash


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_broken_input_is_read_or_refused_for_minutes(target: Target) -> None:
    crash = run(target, seeds_for(MINUTES_S, first=10_000_000))
    assert crash is None, crash


def test_a_seed_always_makes_the_same_case_and_a_reader_that_crashes_is_noticed() -> None:
    samples = TARGETS[0].samples
    assert case_of(samples, 7) == case_of(samples, 7) != case_of(samples, 8)

    def fragile(data: bytes) -> None:
        data.decode("ascii")

    crash = run(Target("fragile", samples, fragile), range(200))
    assert crash is not None
    assert isinstance(crash.error, UnicodeDecodeError)
