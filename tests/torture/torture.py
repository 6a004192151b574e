"""Everything that looks for a broken promise, for as long as one likes: `make torture SECONDS=7200`.

    python tests/torture/torture.py --seconds 1800

Two lanes side by side. One holds storms of a minute each, every one with a seed of its own. The other works through the
formal models (long bounds), the faults at each disk call (every error, all pairs of recoveries), and then simulated
installations until the time is up. Prints one JSON object per piece and a table at the end; exit code 1 if anything
broke. A piece that needs a tool which is not there says so and counts as not run.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORM_S = 60.0
SEEDS_AT_ONCE = 500
MODEL_SHARE, DISK_SHARE = 0.25, 0.35
"""Of the time, at most, of the lane that does not storm."""
SHM = Path("/dev/shm")


class Torture:
    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._mutex = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.not_run: list[str] = []

    def left(self) -> float:
        return self._until - time.monotonic()

    def tell(self, piece: str, counts: dict[str, int], broken: list[str], **more: Any) -> None:
        with self._mutex:
            self.counts.update(counts)
            self.broken += broken
            print(json.dumps({"piece": piece, **counts, "broken": broken, **more}), flush=True)

    def run(self) -> None:
        lanes = [threading.Thread(target=lane) for lane in (self.storms, self.the_rest)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    # ── storms ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def storms(self) -> None:
        while self.left() > 10 and not self.broken:
            for_s = min(STORM_S, max(10.0, self.left()))
            done = subprocess.run(
                [sys.executable, "-m", "holdfast.testing.storm", "--seconds", f"{for_s:.0f}"],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if not done.stdout:
                self.tell("storm", {}, [f"the storm itself failed: {done.stderr[-2000:]}"])
                continue
            found = json.loads(done.stdout)
            seen = found["seen"]
            counts = {name: found["counts"][name] for name in ("kills", "stops", "long_stops", "edits", "lives")}
            counts |= {
                "storms": 1,
                "inputs answered": seen.get("input answered", 0),
                "turns died": seen.get("turn died", 0),
                "turns taken from the living": seen.get("lost superseded", 0),
                "messages arrived": seen.get("arrived", 0),
                "histories": seen.get("histories", 0),
                "operations in histories": sum(n for name, n in seen.items() if name.startswith("op ")),
            }
            too_little = [text for text in found["broken"] if text.startswith(("planted only", "never seen"))]
            broken = [text for text in found["broken"] if text not in too_little]
            self.tell("storm", counts, broken, seed=found["seed"], kept=found.get("kept"), too_little=too_little)

    # ── the other lane ───────────────────────────────────────────────────────────────────────────────────────────────

    def the_rest(self) -> None:
        self.models(self._seconds * MODEL_SHARE)
        self.disk(self._seconds * DISK_SHARE)
        self.simulation()

    def models(self, seconds: float) -> None:
        if shutil.which("spin") is None:
            self.not_run.append("formal models: no spin")
            return
        command = [sys.executable, "scripts/model.py", *(["--long"] if seconds > 600 else [])]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(300.0, seconds)
            )
        except subprocess.TimeoutExpired:
            self.not_run.append(f"formal models: not done within {seconds:.0f} s")
            return
        broken = [f"models: {done.stdout[-2000:]}{done.stderr[-500:]}"] if done.returncode else []
        self.tell("models", {"model runs": 1}, broken, said=done.stdout.strip().splitlines()[-3:])

    def disk(self, seconds: float) -> None:
        """The longest pieces last, each only if it may begin in time."""
        until = time.monotonic() + seconds
        for part in ("kill", "fail", "power", "kill-log", "pairs", "fail-all"):
            if time.monotonic() > until or self.broken:
                self.not_run.append(f"disk faults: {part}")
                continue
            folder = ["--folder", str(SHM)] if SHM.is_dir() else []
            with subprocess.Popen(
                [sys.executable, "-m", "holdfast.testing.disk", "--part", part, *folder],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            ) as running:  # fmt: skip
                assert running.stdout is not None
                for line in running.stdout:
                    found = json.loads(line)
                    self.tell(f"disk {part}", {f"disk {part}": found["runs"]}, found["broken"], on=found["workload"])
                    if time.monotonic() > until:
                        running.terminate()
                        self.not_run.append(f"disk faults: {part} after {found['workload']}")
                        break

    def simulation(self) -> None:
        if find_spec("holdfast.testing.simulation") is None:
            self.not_run.append("simulation: not there")
            return
        first = secrets.randbelow(1 << 30)
        while self.left() > 20 and not self.broken:
            seeds = ["--seeds", str(SEEDS_AT_ONCE), "--from", str(first)]
            command = [sys.executable, "-m", "holdfast.testing.simulation", *seeds]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            broken = (
                [f"simulation from seed {first}: {done.stdout[-3000:]}{done.stderr[-1000:]}"] if done.returncode else []
            )
            self.tell("simulation", {"seeds": SEEDS_AT_ONCE}, broken, first=first, said=done.stdout.splitlines()[-1:])
            first += SEEDS_AT_ONCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0)
    options = parser.parse_args()
    torture = Torture(options.seconds)
    torture.run()
    print(f"\n{'what':32} count")
    for name, count in sorted(torture.counts.items()):
        print(f"{name:32} {count}")
    for text in torture.not_run:
        print(f"not run: {text}")
    print(f"broken: {len(torture.broken)}")
    for text in torture.broken:
        print(text)
    planted = torture.counts["kills"] > 0
    return 0 if planted and not torture.broken else 1


if __name__ == "__main__":
    sys.exit(main())
