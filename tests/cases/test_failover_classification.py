"""Errors of providers, of the network and of our own, each with the class that the failover is to see."""

from __future__ import annotations

import pytest

from holdfast.model.failure import classify
from tests.cases.given import Case, check_set_aside, each

FILE = "failover_classification.json"


@pytest.mark.parametrize("case", each(FILE))
def test_case(case: Case) -> None:
    expected = case.expected
    found = classify(case.data["error"], provider=case.data.get("context", {}).get("provider"))
    assert found.coordination is expected.get("coordination", False)
    assert found.reason not in expected.get("not", [])
    if "any_of" in expected:
        assert found.reason in expected["any_of"]
    elif expected["reason"] != "*":  # only what it must not be is said
        assert found.reason == expected["reason"]


def test_no_case_is_set_aside() -> None:
    check_set_aside(FILE, lambda _: None)
