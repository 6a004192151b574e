"""Errors of providers, of the network and of our own, each with the class that the failover is to see.

`failover_classification.json`: what others met. `fresh_errors.json`: bodies of current providers.
`classification_rules.json`: ours, so that each row of the tables in `holdfast.model` has a case; a new row needs one
there.
"""

from __future__ import annotations

import pytest

from holdfast.model.failure import FailureClass, classify
from holdfast.model.failure_codes import PROVIDER_CODES, TRANSPORT_CODES
from holdfast.model.failure_rules import NAMES, STATUSES, Rule
from holdfast.model.failure_texts import TEXTS
from tests.cases.given import SHIPPED, Case, cases, check_set_aside, each

FILES = ("failover_classification.json", "classification_rules.json", "fresh_errors.json")


def found_in(case: Case) -> FailureClass:
    return classify(case.data["error"], provider=case.data.get("context", {}).get("provider"))


@pytest.mark.parametrize("case", [case for file in FILES for case in each(file)])
def test_case(case: Case) -> None:
    expected = case.expected
    found = found_in(case)
    assert found.coordination is expected.get("coordination", False)
    assert found.reason not in expected.get("not", [])
    if "any_of" in expected:
        assert found.reason in expected["any_of"]
    elif expected["reason"] != "*":  # only what it must not be is said
        assert found.reason == expected["reason"]


def test_no_case_is_set_aside() -> None:
    for file in FILES:
        check_set_aside(file, lambda _: None)


def test_every_row_of_the_tables_decides_at_least_one_case() -> None:
    rows: list[Rule] = [
        rule for table in (PROVIDER_CODES, TRANSPORT_CODES) for rules in table.values() for rule in rules
    ]
    rows += [*STATUSES.values(), *NAMES.values(), *(rule for rule, _ in TEXTS)]
    decided = {found_in(case).rule for file in FILES for case in cases(file, SHIPPED)}
    assert [row for row in rows if row not in decided] == []
