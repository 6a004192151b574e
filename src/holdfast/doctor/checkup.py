"""A check-up: look, look again at what may be over in an instant, mend if asked, look once more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.doctor.checks import check_of, judge
from holdfast.doctor.facts import StateFacts
from holdfast.doctor.finding import Finding, that_stay
from holdfast.errors import CoordinationError, HoldfastError

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

AGAIN_AFTER_S = 1.5
"""Between two looks: whatever uses the state closes what died within a second."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done about a finding. left: why nothing was done; empty: it was."""

    finding: Finding
    said: str
    left: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What came of it.

    Args:
        found: what is so now. mended: what was done, and has helped as far as `found` does not have it.
    """

    found: tuple[Finding, ...]
    mended: tuple[Mended, ...] = ()

    @property
    def helped(self) -> list[Mended]:
        """Repairs after which the finding has gone."""
        still = {one.name for one in self.found}
        return [one for one in self.mended if not one.left and one.finding.name not in still]


def look(
    examine: Callable[[], StateFacts], pause: Callable[[float], object] = time.sleep
) -> tuple[StateFacts, list[Finding]]:
    """The facts and what the checks find. A second look is taken only if something of it may be over in an instant, and
    only if a process lives that could end it.
    """
    facts = examine()
    found = judge(facts)
    if not facts.living or not any(one.passes for one in found):
        return facts, found
    pause(AGAIN_AFTER_S)
    facts = examine()
    return facts, that_stay(found, judge(facts))


async def mend(hf: Holdfast, found: Sequence[Finding]) -> list[Mended]:
    """Do what can be done about those that are mendable, one after the other. A repair that is refused leaves the
    others.

    Raises: HoldfastError: the store has stopped.
    """
    return [await _mend(hf, one) for one in _in_order(found)]


async def _mend(hf: Holdfast, one: Finding) -> Mended:
    repair = check_of(one).repair
    assert repair is not None, one.check
    try:
        return Mended(one, await repair(hf, one))
    except CoordinationError as busy:
        return Mended(one, "", f"it is in use: {busy}")
    except HoldfastError as refused:
        if hf.store.stopped:
            raise
        return Mended(one, "", str(refused))


def _in_order(found: Iterable[Finding]) -> list[Finding]:
    """Sessions are listed before their lines are mended; else as they were found."""
    return sorted((one for one in found if one.mendable), key=lambda one: one.check == "transcripts")
