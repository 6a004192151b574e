"""What a pull request must show of a real run: the sweeper's gate, against others' verdicts."""

from __future__ import annotations

import pytest

from holdfast_sweeper.proof import judge
from tests.cases.given import Case, check_set_aside, check_words, each

FILE = "real_behavior_proof.json"
WORDS = ("status", "pass", "labels", "missing_fields")


@pytest.mark.parametrize("case", each(FILE))
def test_case(case: Case) -> None:
    verdict = judge(case.data["pull_request"])
    said = {
        "status": verdict.status,
        "pass": verdict.passes,
        "labels": list(verdict.labels),
        "missing_fields": list(verdict.missing),
    }
    assert {word: said[word] for word in case.expected} == case.expected


def test_every_expectation_is_compared() -> None:
    check_words(FILE, lambda _: None, WORDS)
    check_set_aside(FILE, lambda _: None)
