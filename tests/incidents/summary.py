"""After the incidents: passed, failed and waiting, per family. Called by `tests/conftest.py`: with several workers the
process that writes the summary loads no `conftest.py` of a folder.
"""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast.cli.incidents import family_table
from holdfast.testing.incidents.runner import why_not_run
from tests.incidents.scenarios import FURTHER, INCIDENTS, KNOWN_TO_FAIL


def write_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts of what was really run; a scenario known to fail counts as failed."""
    ran = {
        report.nodeid.split("[")[-1].rstrip("]")
        for outcome in ("passed", "failed", "xfailed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and "test_incidents.py::test_it" in report.nodeid
    }
    failed = {
        report.nodeid.split("[")[-1].rstrip("]")
        for report in terminalreporter.getreports("failed")
        if isinstance(report, pytest.TestReport)
    }
    if not ran:
        return
    for title, incidents in (("incidents", INCIDENTS), ("further incidents", FURTHER)):
        counts: Counter[tuple[str, str]] = Counter()
        for incident in incidents:
            not_run = why_not_run(incident)
            if not_run is not None:
                counts[incident.family, not_run[0]] += 1
            elif incident.id in ran:
                bad = incident.id in failed or incident.id in KNOWN_TO_FAIL
                counts[incident.family, "failed" if bad else "passed"] += 1
        terminalreporter.section(title)
        for line in family_table(counts):
            terminalreporter.write_line(line)
