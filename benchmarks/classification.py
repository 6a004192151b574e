"""What it costs to tell failures apart: 10,000 errors, as the failover meets them and as lines of `holdfast classify`.

The errors are those of the case files, taken in turn: real texts and bodies of many providers, nested ones among them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.measure import Goal, Report, scratch
from holdfast.errors import ProviderError, SessionWriteLockTimeoutError
from holdfast.model.failure import classify

CASES = Path(__file__).parents[1] / "tests" / "cases"
FILES = ("failover_classification.json", "classification_rules.json", "fresh_errors.json")
COUNT = 10_000
ROUNDS = 3


def known_errors() -> list[dict[str, Any]]:
    return [case["error"] for file in FILES for case in json.loads((CASES / file).read_text(encoding="utf-8"))["cases"]]


def exceptions() -> list[BaseException]:
    """The same as exceptions with a cause, as they come from the seam; every tenth stands over a coordination error."""
    found: list[BaseException] = []
    for index, error in enumerate(known_errors()):
        status = error.get("status")
        raised = ProviderError(
            str(error.get("message", "")), status=status if isinstance(status, int) else None, body=error.get("body")
        )
        inside = SessionWriteLockTimeoutError("a.jsonl", 1, "pid 7") if index % 10 == 0 else OSError(104, "reset")
        raised.__cause__ = RuntimeError("wrapper")
        raised.__cause__.__cause__ = inside
        found.append(raised)
    return found


def cpu_s(errors: list[Any]) -> float:
    """CPU seconds for `COUNT` of them; the best of some rounds, for others work here too."""
    spent: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for error in islice(cycle(errors), COUNT):
            classify(error, provider="openai")
        spent.append(time.process_time() - began)
    return round(min(spent), 3)


def cpu_s_of_the_command(folder: Path) -> float:
    """CPU seconds of `holdfast classify` for as many lines, start included."""
    lines = folder / "errors.jsonl"
    with lines.open("w", encoding="utf-8") as file:
        for number, error in enumerate(islice(cycle(known_errors()), COUNT)):
            file.write(json.dumps({"id": number, **error}) + "\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with lines.open("rb") as stdin:
        command = [sys.executable, "-m", "holdfast", "classify"]
        done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, check=True)
    assert done.stdout.count(b"\n") == COUNT
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3)


def main() -> None:
    report = Report("classification")
    with scratch() as folder:
        report.figures = {
            "count": COUNT,
            "mappings_cpu_s": cpu_s(known_errors()),
            "exceptions_with_causes_cpu_s": cpu_s(exceptions()),
            "command_cpu_s": cpu_s_of_the_command(folder),
        }
        report.goals = [
            Goal("10,000 errors as mappings", report.figures["mappings_cpu_s"], "s", at_most=1.0),
            Goal("10,000 exceptions with causes", report.figures["exceptions_with_causes_cpu_s"], "s", at_most=1.0),
        ]
        report.print(folder)


if __name__ == "__main__":
    main()
