"""What a pull request must show of a real run. Nothing in Holdfast reads pull requests yet."""

from __future__ import annotations

import pytest

from tests.cases.given import WAITING, Case, SetAside, check_set_aside, each

FILE = "real_behavior_proof.json"


def set_aside(_: Case) -> SetAside:
    return SetAside(WAITING, "nothing in Holdfast reads pull requests yet")


@pytest.mark.parametrize("case", each(FILE, set_aside))
def test_case(case: Case) -> None:
    raise AssertionError("there is nothing to run this case against")


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside)
