"""A fault at each disk call, one by one, SQLite's own included; what is left keeps every promise. The loops are in
`holdfast.testing.disk`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from holdfast.testing.disk import shim
from holdfast.testing.disk.workloads import WORKLOADS

pytestmark = pytest.mark.proof("disk faults")
ROOT = Path(__file__).parents[2]
RUNS_MIN = 15
"""Fewer than this means that the calls were not counted."""
FEWER = {("opening again", "kill-log"): 3}
"""A state that is there already is opened with few writes."""
IN_CI = ("append", "settle", "accept", "takeover", "delivery", "recovery")
"""Of these every call in CI."""
EACH_THIRD = ("opening", "salvage")
"""Of these every third call in CI: an opening is part of every run, and salvage writes what a settlement does, and some
lines more. They and the others, variants of these, whole in the long version.
"""
SAMPLED = (
    "redelivery", "collecting", "collecting again", "steering", "timer", "heartbeat", "standstill", "compaction",
    "sub-agent",
)  # fmt: skip
"""Of these fewer states in CI, and nothing else: what they are made of is tried whole above."""
REST = tuple(name for name in WORKLOADS if name not in (*IN_CI, *EACH_THIRD, *SAMPLED))
EACH = [
    pytest.param(IN_CI[:3], "1", id="appending"),
    pytest.param(IN_CI[3:], "1", id="taking over"),
    pytest.param(EACH_THIRD, "3", id="every third call"),
    *(pytest.param((name,), "1", id=name, marks=pytest.mark.long) for name in WORKLOADS if name not in IN_CI),
]
"""Several in one process: beginning one costs as much as seven faults."""
RECOVERIES = [name for name in WORKLOADS if name.startswith("recovery")]
Record = Callable[[str, object], None]


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


def run(folder: Path, part: str, workloads: Sequence[str], record: Record, *more: str) -> None:
    if shim.missing() is not None:
        pytest.skip(f"not run: {shim.missing()}")
    command = [sys.executable, "-m", "holdfast.testing.disk", "--part", part, "--folder", str(folder), *more]
    done = subprocess.run(
        [*command, *(word for name in workloads for word in ("--workload", name))],
        cwd=ROOT, env=shim.environment(), capture_output=True, text=True,
    )  # fmt: skip  # seen from the start: it would begin itself anew, and import everything twice
    results = [json.loads(line) for line in done.stdout.splitlines()]
    broken = [text for result in results for text in result["broken"]]
    assert not broken, "\n".join(broken)
    assert done.returncode == 0, done.stderr
    assert [result["workload"] for result in results] == list(workloads)
    for result in results:
        record("disk faults", [part, result["runs"]])
        assert result["runs"] >= FEWER.get((result["workload"], part), RUNS_MIN)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("workloads", "stride"), EACH)
@pytest.mark.promise("P1", "P2", "P3", "I1", "I2", "I5", "I10")
def test_a_process_may_die_at_any_of_its_disk_calls(
    in_memory: Path, workloads: Sequence[str], stride: str, record_property: Record
) -> None:
    run(in_memory, "kill", workloads, record_property, "--stride", stride)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("workloads", "stride"), EACH)
@pytest.mark.promise("P3", "I2")
def test_any_disk_call_may_fail_once(
    in_memory: Path, workloads: Sequence[str], stride: str, record_property: Record
) -> None:
    run(in_memory, "fail", workloads, record_property, "--stride", stride)


@pytest.mark.timeout(1500)
@pytest.mark.promise("P9", "I10")
def test_recovery_may_be_killed_and_the_recovery_after_it_too(in_memory: Path, record_property: Record) -> None:
    """Every first kill with every fifteenth second one, others for each; all pairs in the long version."""
    run(in_memory, "pairs", ["recovery of a final line"], record_property, "--stride", "15")


@pytest.mark.promise("P3", "I1", "I2", "I7")
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("workloads", "states"),
    [
        pytest.param((*EACH_THIRD, *IN_CI[:3]), 30, id="appending"),
        pytest.param(IN_CI[3:], 30, id="taking over"),
        pytest.param(REST, 15, id="the life of a session"),
        pytest.param(SAMPLED, 15, id="ways in"),
    ],
)
def test_whatever_a_power_loss_leaves_keeps_every_promise(
    in_memory: Path, workloads: Sequence[str], states: int, record_property: Record
) -> None:
    """States that POSIX allows after a loss at moments spread over the recorded calls; more in the long version."""
    run(in_memory, "power", workloads, record_property, "--states", str(states))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_whatever_a_power_loss_leaves_of_many_states(in_memory: Path, workload: str, record_property: Record) -> None:
    run(in_memory, "power", [workload], record_property, "--states", "2000", "--seed", "2")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["kill-log", "fail-all"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_any_disk_call_may_say_anything(in_memory: Path, workload: str, part: str, record_property: Record) -> None:
    run(in_memory, part, [workload], record_property)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workload", RECOVERIES)
def test_recovery_may_be_killed_in_recovery_anywhere(in_memory: Path, workload: str, record_property: Record) -> None:
    run(in_memory, "pairs", [workload], record_property)


def test_the_calls_that_are_seen_are_those_that_the_kernel_sees(tmp_path: Path) -> None:
    """Writes and syncs of one workload, counted by strace, against the log of the library."""
    if shim.missing() is not None or shutil.which("strace") is None:
        pytest.skip(f"not run: {shim.missing() or 'strace'}")
    trace = tmp_path / "trace"
    code = (
        "import os, sys, asyncio, holdfast\n"
        "from pathlib import Path\n"
        "from holdfast.testing.disk import shim, workloads\n"
        f"state = Path({str(tmp_path / 'state')!r})\n"
        f"log = os.open({str(tmp_path / 'log')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "shim.arm(state, 'count', 0, 0, log=log)\n"
        "async def main():\n"
        "    async with holdfast.open(state) as hf:\n"
        f"        await workloads.one_turn(workloads.Work(hf, state, Path({str(tmp_path / 'platform')!r}), print))\n"
        "asyncio.run(main())\n"
    )
    calls = "trace=write,pwrite64,fsync,fdatasync,ftruncate,rename,unlink,link"
    command = ["strace", "-f", "-qq", "-y", "-e", calls, "-E", f"LD_PRELOAD={shim.build()}", "-o", str(trace)]
    done = subprocess.run([*command, sys.executable, "-c", code], cwd=ROOT, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), shim.LOADED: str(shim.build()),
    }, capture_output=True, text=True)  # fmt: skip
    if "ptrace" in done.stderr.lower() and done.returncode:
        pytest.skip("not run: strace (this system does not allow ptrace)")
    assert done.returncode == 0, done.stderr
    of_kernel: dict[str, int] = {}
    for line in trace.read_text().splitlines():
        found = re.search(r"\b(write|pwrite64|fsync|fdatasync)\(\d+<([^>]*)>.*= \d+$", line)
        if found and str(tmp_path / "state") in found[2] and not found[2].endswith("-shm"):
            kind = "s" if "sync" in found[1] else "w"
            of_kernel[kind] = of_kernel.get(kind, 0) + 1
    seen = [call.kind for call in shim.read_log((tmp_path / "log").read_bytes())]
    assert {kind: seen.count(kind) for kind in ("s", "w")} == of_kernel
