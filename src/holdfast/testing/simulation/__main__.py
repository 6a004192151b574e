"""Run seeds: `python -m holdfast.testing.simulation --seed 7 --trace`. Exit code 1 if a promise broke."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from holdfast.testing.simulation.batch import Batch, run_batch
from holdfast.testing.simulation.run import run_seed
from holdfast.version import __version__

COMMAND = "python -m holdfast.testing.simulation"
PROMISES_HELD = {
    "make sim": ("P1", "P2", "P3", "P4", "P5", "P6", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10")
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Simulated installations under faults, each from a seed."
    )
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens in it")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to run (default 500)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="real processes to run them in (default 2)")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return _one(given.seed, trace=given.trace)
    return _many(range(given.first, given.first + given.seeds), given.workers)


def _one(seed: int, *, trace: bool) -> int:
    outcome = run_seed(seed, keep_trace=trace)
    for line in outcome.trace:
        _say(line)
    _say(f"seed {seed}: {outcome.steps} steps, {outcome.virtual_s:.1f} virtual s, trace {outcome.digest[:16]}")
    _say(f"  {_told(outcome.counts)}")
    for broken in outcome.broken:
        _say(f"  BROKEN {broken}")
    return 1 if outcome.broken else 0


def _many(seeds: range, workers: int) -> int:
    began = time.monotonic()

    def on_progress(batch: Batch) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{batch.seeds} of {len(seeds)} seeds, {len(batch.broken)} broken ")

    batch = run_batch(seeds, workers=workers, on_progress=on_progress)
    seconds = time.monotonic() - began
    _say(
        f"{batch.seeds} seeds from {seeds.start}: {batch.steps} steps, {batch.virtual_s / 3600:.1f} virtual h"
        f" in {seconds:.0f} s; traces {batch.digest}"
    )
    _say(f"met: {_told(batch.counts)}")
    for outcome in sorted(batch.broken, key=lambda one: one.seed):
        _say(f"BROKEN seed {outcome.seed}: {outcome.broken[0][:300]}")
        _say(f"  repeat (holdfast {__version__}{_commit()}): {COMMAND} --seed {outcome.seed} --trace")
    never = batch.never_met()
    if never:
        _say(f"BROKEN run: never met {', '.join(never)}; such a run proves nothing about them")
    if not batch.broken and not never:
        _say("every promise held")
    return 1 if batch.broken or never else 0


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items())) or "nothing"


def _commit() -> str:
    """The commit of the code that runs, if it runs from a checkout."""
    asked = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return f", commit {asked.stdout.strip()}" if asked.returncode == 0 else ""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
