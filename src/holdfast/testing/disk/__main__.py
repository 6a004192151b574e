"""`python -m holdfast.testing.disk`: the enumerated faults, one JSON object per part and workload."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from holdfast.testing.disk import enumerate as loops
from holdfast.testing.disk import power, shim
from holdfast.testing.disk.workloads import WORKLOADS

PARTS = ("kill", "kill-log", "power", "fail", "fail-all", "pairs")


def main() -> int:
    """Exit code 1: a promise broke. 2: calls cannot be seen here."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.disk", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append")
    parser.add_argument("--stride", type=int, default=1, help="only every so manieth call, or pair")
    parser.add_argument("--folder", type=Path, default=None, help="where a fresh folder is made [the system's own]")
    parser.add_argument("--states", type=int, default=100, help="of power: so many states per workload")
    parser.add_argument("--seed", type=int, default=1, help="of power")
    parser.add_argument("--seconds", type=float, default=None, help="plant nothing more after that long")
    options = parser.parse_args()
    why = shim.missing()
    if why is not None:
        sys.stderr.write(f"{why}\n")
        return 2
    if shim.LOADED not in os.environ:
        os.execve(sys.executable, [sys.executable, "-m", "holdfast.testing.disk", *sys.argv[1:]], shim.environment())
    gc.collect()
    gc.freeze()  # a child that collects looks at every object that it was born with, and so gets pages of its own
    root = Path(tempfile.mkdtemp(prefix="holdfast-disk-", dir=options.folder))
    broken = False
    until = time.monotonic() + (options.seconds or float("inf"))
    try:
        pieces = [
            (part, name)
            for name in options.workload or WORKLOADS
            for part in options.part or PARTS
            if part != "pairs" or name.startswith("recovery")
        ]
        for at, (part, name) in enumerate(pieces):
            now = time.monotonic()
            if now < until:
                # An even share of what is left: otherwise the deaths of the first workload take all of a short time.
                found = run(part, root, name, options, now + (until - now) / (len(pieces) - at))
                broken = broken or bool(found.broken)
                sys.stdout.write(
                    json.dumps({"part": part, "workload": name, "runs": found.runs, "broken": found.broken}) + "\n"
                )
                sys.stdout.flush()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return int(broken)


def run(part: str, root: Path, name: str, options: argparse.Namespace, until: float) -> loops.Found:
    """One part over one workload, as far as it gets until then."""
    if part == "pairs":
        return loops.recovery_killed_in_recovery(root, name, options.stride, until)
    if part == "power":
        return power.every_state(root, name, states=options.states, seed=options.seed, until_mono=until)
    faults = {
        "kill": loops.KILLS,
        "kill-log": (loops.KILL_IN_LOG,),
        "fail": (loops.ANY_FAIL,),
        "fail-all": loops.FAILS,
    }[part]
    found = loops.Found()
    for fault in faults:
        one = loops.every_call(root, name, fault, until, options.stride)
        found.runs += one.runs
        found.broken += one.broken
    return found


if __name__ == "__main__":
    sys.exit(main())
