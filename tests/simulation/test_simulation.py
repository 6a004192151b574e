"""The real code in simulated processes under faults: CI's share of seeds, and that a seed means the same every time.

`make sim SEEDS=… FROM=…` runs more; a failure names the command that repeats it.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from holdfast.testing.simulation import Outcome, run_batch, run_seed
from holdfast.testing.simulation.__main__ import main
from holdfast.testing.simulation.ground import Ground

pytestmark = pytest.mark.proof("simulation")
SHARE, CHUNKS = 5_000, 10


def words(broken: list[Outcome]) -> list[str]:
    command = "python -m holdfast.testing.simulation --trace --seed"
    return [f"{command} {one.seed}: {one.broken[0]}" for one in broken]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.promise("P1", "P2", "P3", "P4", "P5", "P6", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10")
def test_every_promise_holds_in_simulated_installations_under_faults(
    chunk: int, record_property: Callable[[str, object], None]
) -> None:
    size = SHARE // CHUNKS
    batch = run_batch(range(chunk * size, (chunk + 1) * size), workers=1)
    met = ", ".join(f"{what} {count}" for what, count in sorted(batch.counts.items()))
    record_property("counts", f"{batch.seeds} simulated seeds, {batch.steps} steps: {met}")
    assert words(batch.broken) == []
    assert batch.never_met() == []


COMES_OF = {
    "queue": ("input steered", "input merged", "interrupted", "dropped for another"),
    "commands": ("began anew", "stopped by /stop"),
    "machines": ("turn gave way",),
    "webhooks": ("said again",),
    "timers": ("job run", "heartbeat run"),
    "sub-agents": ("sub-agent announced",),
    "watchdog": ("turn asked to end", "recovery judged"),
    "compaction": ("compaction",),
    "tools": ("call allowed", "call denied", "nobody answered", "note arrived", "program's end told"),
    "previews": ("beginning became an answer",),
}


@pytest.mark.parametrize("way", COMES_OF)
@pytest.mark.promise("P2", "P3", "P9", "I1", "I5", "I8", "I9")
def test_each_way_into_a_conversation_keeps_its_promises_under_faults(way: str) -> None:
    met: Counter[str] = Counter()
    broken: list[str] = []
    wanted = (*COMES_OF[way], "kill", "power loss")
    with Ground() as ground:
        for seed in range(80):
            if seed >= 20 and all(met[what] for what in wanted):
                break
            outcome = run_seed(seed, ground=ground, only=[way])
            met.update(outcome.counts)
            broken += [f"seed {seed}: {what}" for what in outcome.broken]
    assert broken == []
    assert [what for what in wanted if not met[what]] == []


def test_a_seed_gives_the_same_trace_every_time_and_in_every_process() -> None:
    here = run_batch(range(30), workers=1)
    again = run_batch(range(30), workers=1)
    assert again.digests == here.digests
    alone = {seed: run_seed(seed).digest for seed in range(8)}  # not on ground where others have been
    assert alone == {seed: here.digests[seed] for seed in alone}
    there = subprocess.run(
        [sys.executable, "-m", "holdfast.testing.simulation", "--seeds", "20", "--workers", "1"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert f"traces {run_batch(range(20), workers=1).digest}" in there.stdout
    assert len(set(here.digests.values())) == 30


def test_a_trace_tells_what_happened_and_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_seed(0, keep_trace=True)
    assert any("acknowledged" in line for line in outcome.trace)
    assert main(["--seed", "0", "--trace"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[: len(outcome.trace)] == list(outcome.trace)


def test_a_batch_that_met_no_faults_is_a_failure() -> None:
    batch = run_batch(range(1), workers=1)
    batch.seeds, batch.counts["power loss"] = 500, 0
    assert "power loss" in batch.never_met()


def test_a_batch_in_which_a_way_into_a_conversation_led_nowhere_is_a_failure() -> None:
    batch = run_batch(range(1), workers=1)
    batch.seeds, batch.counts["job run"] = 500, 0
    assert "job run" in batch.never_met()
