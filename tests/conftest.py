"""For all tiers: what was left out is said out loud; a place for a state directory; other processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.faults.remote import Troupe, troupe
from tests.incidents.summary import write_summary as write_incidents

NOT_RUN = "not run: "


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where a state directory may be made."""
    return tmp_path / "state"


@pytest.fixture
async def processes() -> AsyncIterator[Troupe]:
    """Other processes, for as long as the test lasts."""
    async with troupe() as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may hold half a character; the way from worker to controller takes whole ones only."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A test that needs a tool which is not there calls `pytest.skip("not run: …")`; CI fails on these lines. What a
    test recorded under "counts" (`record_property`) is said, too: how many faults were planted is part of the result.
    """
    faults: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, found in report.user_properties if isinstance(report, pytest.TestReport) else ():
            if name == "counts" and report.when == "call":
                terminalreporter.write_line(f"counts: {found}")
            elif name == "disk faults" and report.when == "call":
                part, runs = found  # pyright: ignore[reportGeneralTypeIssues]  # as test_disk_faults.py records it
                faults[part] += runs
    if faults:
        words = {
            "kill": "kills",
            "fail": "failing calls",
            "pairs": "recoveries killed in recovery",
            "power": "states after a power loss",
        }
        told = ", ".join(f"{count} {words.get(part, part)}" for part, count in faults.items())
        terminalreporter.write_line(f"counts: disk calls hindered one by one: {told}")
    write_incidents(terminalreporter)
    reasons = {
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple)
    }
    for reason in sorted(reason for reason in reasons if reason.startswith(NOT_RUN)):
        terminalreporter.write_line(reason)
