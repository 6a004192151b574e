"""Totals per case file at the end of the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from tests.cases.given import LEFT_OUT, NOT_UNDERSTOOD, WAITING, Case

COLUMNS = ("passed", "failed", LEFT_OUT, WAITING, NOT_UNDERSTOOD)
totals: defaultdict[str, Counter[str]] = defaultdict(Counter)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each report say which file its case is from."""
    for item in items:
        case = (
            item.callspec.params.get("case")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if isinstance(case, Case):
            item.user_properties.append(("case file", case.file))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file = dict(report.user_properties).get("case file")
    outcome = outcome_of(report)
    if isinstance(file, str) and outcome is not None:
        totals[file][outcome] += 1


def outcome_of(report: pytest.TestReport) -> str | None:
    """The column a report counts in; None for the phases of a test that say nothing new."""
    if report.failed:
        return "failed"
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        return next((column for column in COLUMNS if reason.startswith(f"{column}: ")), None)
    return "passed" if report.when == "call" and report.passed else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not totals:
        return
    terminalreporter.section("case files")
    terminalreporter.write_line(f"{'':36} {'cases':>6}" + "".join(f"{column:>16}" for column in COLUMNS))
    for file in sorted(totals):
        counts = totals[file]
        row = "".join(f"{counts[column]:>16}" for column in COLUMNS)
        terminalreporter.write_line(f"{file:36} {counts.total():>6}{row}")
