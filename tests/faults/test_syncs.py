"""How often the disk is waited for: counted in the system calls themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "plain_turn": 3,  # accept, answer, settle
    "turn_with_a_tool": 4,  # and the call, before the tool starts
    "library_turn": 1,  # the answer, on leaving
    "idle_turn": 0,
    "metadata": 0,
    "durable_metadata": 1,
    "duplicate": 1,  # what is acknowledged is durable
    "reading": 0,
}


def test_each_kind_of_turn_costs_exactly_its_syncs(state: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("not run: strace")
    trace = tmp_path / "trace"
    command = [
        "strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs,msync,access", "-o", str(trace),
        sys.executable, "-m", "tests.faults.syncs_main", str(state),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "ptrace" in done.stderr.lower() and done.returncode:
        pytest.skip("not run: strace (this system does not allow ptrace)")
    assert done.returncode == 0, done.stderr
    found: dict[str, set[int]] = {name: set() for name in EXPECTED}
    count = 0
    for line in trace.read_text().splitlines():
        mark = re.search(r'access\("/(begin|end)/(\w+)"', line)
        if mark is None:
            count += bool(re.search(r"\b(fsync|fdatasync|sync|syncfs|msync)\(", line))
        elif mark[1] == "begin":
            count = 0
        else:
            found[mark[2]].add(count)
    assert found == {name: {syncs} for name, syncs in EXPECTED.items()}
