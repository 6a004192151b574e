"""The bugs of `patches.py` can still be planted, and the tests that are to find them are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import holdfast
from tests.mutations.patches import MUTATIONS, Mutation

PACKAGE = Path(holdfast.__file__).parent
TESTS = Path(__file__).parents[1]
SUITE = Path(holdfast.__file__).parent / "testing" / "store_suite"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_bug_can_still_be_planted_and_its_test_is_there(mutation: Mutation) -> None:
    text = (PACKAGE / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"its text stands {text.count(mutation.old)} times in {mutation.file}"
    planted = text.replace(mutation.old, mutation.new)
    assert planted != text
    ast.parse(planted)
    file, *names = mutation.test.split("::")
    sources = [TESTS / file, *(SUITE.glob("*.py") if file.startswith("conformance") else ())]
    assert all(any(name in path.read_text(encoding="utf-8") for path in sources) for name in names)


def test_there_are_enough_of_them() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 12
