"""Run the benchmarks, each in a process of its own, and print their goals beside the figures.

    python -m benchmarks [PROGRAM …]      BENCH_FULL=1 takes minutes instead of seconds; BENCH_DIR names another disk

Each program's JSON is kept in benchmarks/out/. A goal that is not met is said, not punished: the exit code is 1 only
when a program failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAMS = (
    "turn_overhead", "failover", "prompt_window", "write_lock", "takeover", "many_sessions", "bursts", "classification",
    "context", "streamed_turn",
    "log_report", "watched", "windows",
)  # fmt: skip
OUT = Path(__file__).parent / "out"


def run(program: str) -> dict[str, Any] | None:
    """The program's report, also kept in OUT; None if it failed (its complaint is on standard error)."""
    print(f"{program} …", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        return None
    OUT.mkdir(exist_ok=True)
    (OUT / f"{program}.json").write_text(done.stdout, encoding="utf-8")
    return json.loads(done.stdout)


def table(reports: list[dict[str, Any]]) -> list[str]:
    rows = [f"{'':14} {'':62} {'figure':>9} {'goal':>10}"]
    for report in reports:
        for goal in report["goals"]:
            wanted = f"≤ {goal['at_most']:g}" if goal["at_most"] is not None else f"≥ {goal['at_least']:g}"
            figure = f"{goal['figure']:.2f} {goal['unit']}".strip()
            met = "" if goal["met"] else "  missed"
            rows.append(f"{report['program']:14} {goal['what']:62} {figure:>9} {wanted + ' ' + goal['unit']:>10}{met}")
    return rows


def main(programs: list[str]) -> int:
    unknown = set(programs) - set(PROGRAMS)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    reports = [run(program) for program in programs or PROGRAMS]
    print("\n".join(table([report for report in reports if report is not None])))
    failed = reports.count(None)
    if failed:
        print(f"{failed} of {len(reports)} programs failed; see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
