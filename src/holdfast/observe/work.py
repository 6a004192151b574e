"""What a running turn does, as lists show it."""

from __future__ import annotations

from holdfast.recovery.watching import Finding, in_words
from holdfast.store.views import WorkView


def work_of(finding: Finding) -> WorkView:
    """What an owner was found to do, as of its last beat."""
    owner, found = finding.owner, finding.attention
    report = None if finding.lapsed else owner.report
    return WorkView(
        owner.pid, owner.life, report.doing if report else None, report.name if report else None,
        report.doing_ms // 1000 if report else None, report.still_ms // 1000 if report else None,
        found.event if found else None, found.reason if found else None, in_words(finding),
    )  # fmt: skip
