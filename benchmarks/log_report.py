"""What a report from a large log costs: CPU, and memory against that for a log a tenth as long.

Two logs: one in which every twentieth line matters, as they are, and one of failures alone, the worst there is.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import FULL, Goal, Report, scratch

BYTES = 1_000_000_000 if FULL else 100_000_000
LANE = (
    "2026-05-26T10:{minute:02d}:{second:02d}.{turn:03d}Z [diagnostic] lane task error: lane=session:agent:a:main "
    'durationMs={turn} error="EmbeddedAttemptSessionTakeoverError: session file changed while embedded prompt lock was '
    'released: /home/me/.openclaw/agents/a/sessions/{session}.jsonl"\n'
)
OTHER = "2026-05-26T10:00:00.000Z [gateway] ⇄ res ✓ chat.history 52ms conn=91e3…11b8 id=7f51…90aa\n" * 19


def write_log(path: Path, size: int, *, only_failures: bool) -> None:
    """Repeats some thousand lines until the file has this many bytes."""
    block = "".join(
        LANE.format(minute=turn // 60 % 60, second=turn % 60, turn=turn % 1000, session=turn % 300)
        + ("" if only_failures else OTHER)
        for turn in range(2000)
    ).encode()
    with path.open("wb") as file:
        for _ in range(max(1, size // len(block))):
            file.write(block)


def cost(path: Path) -> dict[str, float]:
    """CPU seconds and the most memory, of the command as people run it."""
    code = (
        "import resource, sys; from holdfast.cli.main import main\n"
        "sys.argv[1:] = ['incidents', 'report', sys.argv[1], '--json']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert json.loads(done.stdout)["events"] > 0
    return {"bytes": path.stat().st_size, "cpu_s": round(cpu_s, 2), "mib": round(int(done.stderr) / 1024, 1)}


def main() -> None:
    report = Report("log_report")
    with scratch() as folder:
        path = folder / "gateway.log"
        for name, only_failures in (("usual", False), ("failures_only", True)):
            for size_name, size in (("", BYTES), ("_tenth", BYTES // 10)):
                write_log(path, size, only_failures=only_failures)
                report.figures[name + size_name] = cost(path)
        usual, tenth = report.figures["usual"], report.figures["usual_tenth"]
        per_gb = usual["cpu_s"] / usual["bytes"] * 1e9
        report.goals = [
            Goal("report of a usual log: CPU per gigabyte", per_gb, "s", at_most=60),
            Goal("report of a usual log: memory by that of a tenth", usual["mib"] / tenth["mib"], "×", at_most=1.2),
        ]
        report.print(folder)


if __name__ == "__main__":
    main()
