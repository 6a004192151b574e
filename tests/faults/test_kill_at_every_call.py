"""A process dies at each of its disk calls, one by one; what is left keeps every promise. See `killpoints_main.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.killpoints_main import WORKLOADS

ROOT = Path(__file__).parents[2]
DEATHS_MIN = 30
"""Fewer than this means that the calls were not counted."""


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one: what survives SIGKILL is the same, and nobody waits for the disk."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=shm, prefix="holdfast-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_process_may_die_at_any_of_its_disk_calls(in_memory: Path, workload: str) -> None:
    command = [sys.executable, "-m", "tests.faults.killpoints_main", workload, str(in_memory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failures = [result for result in results if "wrong" in result]
    assert not failures, f"{failures}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, done.stderr
    print(f"{workload}: {results[-1]['deaths']} deaths")
    assert results[-1]["deaths"] >= DEATHS_MIN
