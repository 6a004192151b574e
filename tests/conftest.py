"""For all tiers: what was left out is said out loud."""

from __future__ import annotations

import pytest

NOT_RUN = "not run: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A test that needs a tool which is not there calls `pytest.skip("not run: …")`; CI fails on these lines."""
    reasons = {
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple)
    }
    for reason in sorted(reason for reason in reasons if reason.startswith(NOT_RUN)):
        terminalreporter.write_line(reason)
