"""How often the disk is waited for: counted in the system calls themselves."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from tests.faults import checks

KEY = "agent:main:main"
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


@pytest.mark.promise("P3", "I7")
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


async def begun(hf: Holdfast) -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": "question"}))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def answered(hf: Holdfast, answer: str) -> None:
    async with hf.turn(KEY, input_id=await begun(hf)) as turn:
        await turn.append(holdfast.assistant(answer, model="test/test"))


async def test_a_settlement_makes_durable_what_was_written_behind_the_last_sync_of_its_turn(state: Path) -> None:
    passed: list[str] = []
    async with holdfast.open(state, faults=passed.append) as hf:
        async with hf.turn(KEY, input_id=await begun(hf)) as turn:
            await turn.append(holdfast.assistant("an answer", model="test/test"), durable=True)
            await turn.append(holdfast.assistant("and a better one", model="test/test"))
        assert passed.count("transcript.after_sync") == 2
        size = Path(turn.transcript.path).stat().st_size
        assert checks.rows(state, "select synced_end from transcripts") == [{"synced_end": size}]
    passed.clear()
    async with holdfast.open(state, faults=passed.append) as hf:
        async with hf.turn(KEY, input_id=await begun(hf)) as turn:
            await turn.append(holdfast.assistant("synced, and nothing behind it", model="test/test"), durable=True)
        assert passed.count("transcript.after_sync") == 1


async def test_whoever_claims_after_a_settlement_takes_the_ledgers_word_for_what_is_durable(state: Path) -> None:
    """The record of the file is not told by the settlement; without the ledger's word the lines are synced again."""
    passed: list[str] = []
    async with holdfast.open(state) as one, holdfast.open(state, faults=passed.append) as other:
        await answered(one, "an answer")
        async with other.turn(KEY) as turn:
            rec = turn._owned.claim.record  # pyright: ignore[reportAttributeAccessIssue]
            assert rec.synced == rec.end == Path(turn.transcript.path).stat().st_size
        assert "transcript.before_sync" not in passed
        await answered(one, "another")
        with sqlite3.connect(state / "ledger.sqlite3") as ledger:
            ledger.execute("update transcripts set synced_link=x'00'")  # of another history: its word does not count
        ledger.close()
        async with other.turn(KEY):
            pass
        assert "transcript.before_sync" in passed
