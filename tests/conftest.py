"""For all tiers: what was left out is said out loud; a place for a state directory; other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.faults.remote import Troupe, troupe
from tests.incidents.summary import write_summary as write_incidents

NOT_RUN = "not run: "

# How long an example takes says something about the machine's load, and nothing about the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# What a shell puts into the background ignores SIGINT, and every program that is started inherits that: those that are
# tested here would not hear of Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where a state directory may be made."""
    return tmp_path / "state"


@pytest.fixture
async def processes() -> AsyncIterator[Troupe]:
    """Other processes, for as long as the test lasts."""
    async with troupe() as started:
        yield started


@pytest.fixture(autouse=True)
def _share_of_the_proof(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[None]:
    """Measures what a test marked `proof` costs, in CPU seconds of itself and of the processes that it waited for: on a
    busy machine they say more than the clock.
    """
    mark = request.node.get_closest_marker("proof")
    if mark is None:
        yield
        return
    began_s, spent_s = time.time(), _spent_s()
    yield
    record_property("proof", [mark.args[0], _spent_s() - spent_s, began_s, time.time()])


def _spent_s() -> float:
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The proof's tests go first: they take longest, and the worker that is left with one would end long after all
    others.
    """
    items.sort(key=lambda item: item.get_closest_marker("proof") is None)


def pytest_sessionfinish() -> None:
    """The server of PostgreSQL that the processes of a run share is left once no test can want it any more."""
    postgres = sys.modules.get("tests.conformance.postgres_server")
    if postgres is not None:
        postgres.leave()


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
    models = [0, 0, 0]
    for report in terminalreporter.getreports("passed"):
        for name, found in report.user_properties if isinstance(report, pytest.TestReport) else ():
            if name == "counts" and report.when == "call":
                terminalreporter.write_line(f"counts: {found}")
            elif name == "disk faults" and report.when == "call":
                part, runs = found  # pyright: ignore[reportGeneralTypeIssues]  # as test_disk_faults.py records it
                faults[part] += runs
            elif name == "model" and report.when == "call":
                holding, states, bugs = found  # pyright: ignore[reportGeneralTypeIssues]  # as test_model.py records it
                models = [models[0] + holding, models[1] + states, models[2] + bugs]
    if any(models):
        terminalreporter.write_line(
            f"counts: formal models: {models[0]} runs hold, {models[1]:,} states; {models[2]} planted bugs found"
        )
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
    _write_shares(terminalreporter)
    reasons = {
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple)
    }
    for reason in sorted(reason for reason in reasons if reason.startswith(NOT_RUN)):
        terminalreporter.write_line(reason)


def _write_shares(terminalreporter: pytest.TerminalReporter) -> None:
    """What each part of the proof has cost."""
    tests: Counter[str] = Counter()
    spent_s: Counter[str] = Counter()
    spans: list[tuple[float, float]] = []
    for report in terminalreporter.getreports(""):  # among them those of tearing down, which know what a test has cost
        for name, found in report.user_properties if isinstance(report, pytest.TestReport) else ():
            if name == "proof" and report.when == "teardown":
                part, cpu_s, began_s, ended_s = found  # pyright: ignore[reportGeneralTypeIssues]  # as recorded above
                tests[part] += 1
                spent_s[part] += cpu_s
                spans.append((began_s, ended_s))
    if not spans:
        return
    terminalreporter.section("the proof's shares")
    for part, cpu_s in spent_s.most_common():
        terminalreporter.write_line(
            f"{part:<12} {tests[part]:>4} tests {cpu_s:>7.0f} s of CPU  {cpu_s / spent_s.total():>4.0%}"
        )
    clock_s = max(ended for _, ended in spans) - min(began for began, _ in spans)
    total_s = spent_s.total()
    terminalreporter.write_line(
        f"{'together':<12} {tests.total():>4} tests {total_s:>7.0f} s of CPU: {total_s / 2:.0f} s of two cores;"
        f" {clock_s:.0f} s by the clock, with all that ran in between"
    )
