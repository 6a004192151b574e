"""The simulation finds bugs that are planted in the real code (`planted.py`), each as the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.testing.simulation import run_seed
from holdfast.testing.simulation.ground import Ground
from tests.simulation.planted import BUGS

pytestmark = pytest.mark.proof("simulation")
WITHIN = 400
"""Seeds in which each has to be found."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
@pytest.mark.promise("I13")
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    bug = BUGS[name]
    with Ground() as ground:
        for seed in range(WITHIN):
            outcome = run_seed(seed, ground=ground, alter=bug.alter, harm=bug.harm, only=bug.only)
            told = [one for one in outcome.broken if one.startswith(bug.breaks)]
            if told:
                record_property("counts", f"planted bug {name!r}: found in seed {seed}: {told[0][:120]}")
                return
    pytest.fail(f"{name!r} was not found in {WITHIN} seeds")
