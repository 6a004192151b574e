"""What a check has found. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["fault", "remark"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Args:
        check: the name of the check.
        subject: what it is about: an id, a session key, a path. With `check` it tells findings apart.
        text: what is wrong, and what it means, in one sentence.
        way_out: what somebody can do; empty where `mendable` says it all.
        level: "fault": a promise is broken or about to be. "remark": good to know, and no reason for an exit code.
        mendable: `--fix` can put it right.
        passes: in a state that is being used it may be over by itself in an instant; it counts once it has been seen
            in two looks.
        about: what a repair has to know besides.
    """

    check: str
    subject: str
    text: str
    way_out: str = ""
    level: Level = "fault"
    mendable: bool = False
    passes: bool = False
    about: str = ""

    @property
    def name(self) -> tuple[str, str, str]:
        """What makes it the same finding in another look: a file that grows meanwhile has the same fault."""
        return self.check, self.subject, self.about


def that_stay(before: Iterable[Finding], after: Iterable[Finding]) -> list[Finding]:
    """Findings of the second of two looks: those that pass only if the first one had them, too."""
    seen = {one.name for one in before}
    return [one for one in after if not one.passes or one.name in seen]


def with_faults_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which people want them, that of the checks within each level."""
    return sorted(findings, key=lambda one: one.level != "fault")
