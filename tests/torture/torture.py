"""Everything that looks for a broken promise, for as long as one likes: `make torture SECONDS=7200`.

    python tests/torture/torture.py --seconds 1800

Three lanes side by side, so that each gets its turn however busy the machine is: storms of a minute each, every one
with a seed of its own; simulated installations, from a seed drawn anew; and the formal models, followed by the faults
at disk calls, workload by workload, and states after a power loss from further seeds until the time is up. Prints one
JSON object per piece and a table at the end; exit code 1 if anything broke. What did not come to its turn, or not to
its end, is said by name and counts as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.testing.disk import shim
from holdfast.testing.disk.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
STORM_S = 60.0
SEEDS_AT_ONCE = 500
"""A batch of so many must have met every kind of fault, or it fails."""
GRACE_S = 60.0
"""What a batch of seeds may take beyond the time."""
MODELS_PART = 0.5
"""Of the time, at most, before the disk has its turn in the same lane."""
LONG_FROM_S = 3600.0
"""From so long a run on the models are searched within their wide bounds, too."""
DISK_PARTS = ("kill", "fail", "power")
LONG_DISK_PARTS = ("kill-log", "fail-all")
SHM = Path("/dev/shm")


class Torture:
    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._mutex = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.not_run: list[str] = []
        self.loads: list[float] = []

    def left(self) -> float:
        return self._until - time.monotonic()

    def goes_on(self, *, for_s: float = 0.0) -> bool:
        """Whatever was found: an hour that one finding ends tells nothing of all that is still to come."""
        return self.left() > for_s

    def tell(self, piece: str, counts: dict[str, int], broken: list[str], **more: Any) -> None:
        load = round(os.getloadavg()[0], 1)
        with self._mutex:
            self.counts.update(counts)
            self.broken += broken
            self.loads.append(load)
            print(json.dumps({"piece": piece, **counts, "broken": broken, **more, "load": load}), flush=True)

    def run(self) -> None:
        lanes = [threading.Thread(target=self._lane, args=(lane,)) for lane in (self.storms, self.narrow, self.seeds)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def _lane(self, lane: Callable[[], None]) -> None:
        """A lane that falls over is a finding: a thread's exception would be forgotten."""
        try:
            lane()
        except Exception as exc:  # the edge of the thread
            self.tell(lane.__name__, {}, [f"the lane itself failed: {exc!r}"])

    # ── storms ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def storms(self) -> None:
        while self.goes_on(for_s=10):
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
            self.tell(
                "storm", counts, broken, seed=found["seed"], seconds=found["counts"]["seconds"], calm_s=found["calm_s"],
                kept=found.get("kept") if broken else None, too_little=too_little,
            )  # fmt: skip
            if not broken and "kept" in found:
                shutil.rmtree(found["kept"], ignore_errors=True)

    # ── simulated installations ──────────────────────────────────────────────────────────────────────────────────────

    def seeds(self) -> None:
        if find_spec("greenlet") is None:
            self.not_run.append("simulation: no greenlet")
            return
        first = secrets.randbelow(1 << 30)
        workers = max(1, (os.cpu_count() or 1) - 1)
        while self.goes_on(for_s=20):
            seeds = ["--seeds", str(SEEDS_AT_ONCE), "--from", str(first), "--workers", str(workers)]
            command = [sys.executable, "-m", "holdfast.testing.simulation", *seeds]
            with ended_in_time(command, self.left() + GRACE_S) as lines:
                said = list(lines)
            if not any(line.startswith(("every promise held", "BROKEN")) for line in said):
                if self.left() > 0:
                    self.tell("simulation", {}, [f"the simulation itself failed: {' '.join(command)}"])
                self.not_run.append(f"simulation: the seeds from {first} on")
                return
            broken = [line.strip() for line in said if line.startswith(("BROKEN", "  repeat"))]
            met = next((line for line in said if line.startswith("met: ")), "")
            counts = {"simulated seeds": SEEDS_AT_ONCE}
            for what, name in (("kill", "kills"), ("stop", "stops"), ("power loss", "power losses")):
                found = re.search(rf"\b{what} (\d+)(,|$)", met)
                counts[f"simulated {name}"] = int(found[1]) if found else 0
            self.tell("simulation", counts, broken, first=first, said=said[:1])
            first += SEEDS_AT_ONCE

    # ── what goes through one narrow place after the other ───────────────────────────────────────────────────────────

    def narrow(self) -> None:
        self.models(long=False)
        self.disk()
        if self._seconds >= LONG_FROM_S and self.goes_on():
            self.models(long=True)
        while self.goes_on() and shim.missing() is None:
            for name in WORKLOADS:
                self.disk_piece("power", name, "--states", "200", "--seed", str(secrets.randbelow(1 << 30)))

    def models(self, *, long: bool) -> None:
        """Each run counts as soon as it is done; those that are not begun in time are named."""
        if shutil.which("spin") is None or shutil.which("gcc") is None:
            self.not_run.append("formal models: no spin or no gcc")
            return
        command = [sys.executable, "scripts/model.py", "--workers", "1", *(["--long"] if long else [])]
        listed = subprocess.run([*command, "--list"], cwd=ROOT, capture_output=True, text=True, check=True)
        to_do, done = len(listed.stdout.splitlines()), 0
        limit_s = self.left() if long else self._seconds * MODELS_PART
        with ended_in_time([*command, "--json"], limit_s) as lines:
            for line in lines:
                if not line.startswith("{"):
                    continue
                found = json.loads(line)
                done += 1
                counts = {"planted bugs found by models": 1} if found["planted"] else {}
                counts = counts or {"runs of models": 1, "states of models": found["states"]}
                broken = [] if found["ok"] else [f"model {found['model']}, {found['name']}: {found['said']}"]
                self.tell(f"model {found['model']}", counts, broken, on=found["name"])
        if done < to_do:
            self.not_run.append(f"formal models: {to_do - done} of {to_do} runs")

    def disk(self) -> None:
        """Each workload whole before the next: death, failure and power loss. What costs hours comes last."""
        if shim.missing() is not None:
            self.not_run.append(f"disk faults: {shim.missing()}")
            return
        pieces = [(part, name) for name in WORKLOADS for part in DISK_PARTS]
        pieces += [("pairs", name) for name in WORKLOADS if name.startswith("recovery")]
        pieces += [(part, name) for name in WORKLOADS for part in LONG_DISK_PARTS]
        for at, (part, name) in enumerate(pieces):
            if not self.goes_on():
                self.not_run.append(
                    f"disk faults: {len(pieces) - at} of {len(pieces)} pieces, from {part} of {name} on"
                )
                return
            self.disk_piece(part, name)

    def disk_piece(self, part: str, name: str, *more: str) -> None:
        if not self.goes_on():
            return
        folder = ["--folder", str(SHM)] if SHM.is_dir() else []
        seconds = ["--seconds", f"{self.left():.0f}"]
        command = [sys.executable, "-m", "holdfast.testing.disk", "--part", part, "--workload", name]
        done = subprocess.run(
            [*command, *folder, *seconds, *more], cwd=ROOT, env=shim.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        found: dict[str, Any] = {"runs": 0, "broken": [f"{part} of {name}: {done.stderr}"]}
        if done.stdout:
            found = json.loads(done.stdout)
        self.tell(f"disk {part}", {f"disk {part}": found["runs"]}, found["broken"], on=name, more=more)
        if self.left() <= 0:
            self.not_run.append(f"disk faults: the end of {part} of {name}")


@contextmanager
def ended_in_time(command: list[str], limit_s: float) -> Iterator[Iterator[str]]:
    """The lines that it prints; after `limit_s` it is ended with all that it has started."""
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    timer = threading.Timer(limit_s, _kill_all_of, (running,))
    timer.start()
    try:
        assert running.stdout is not None
        yield iter(running.stdout)
    finally:
        timer.cancel()
        _kill_all_of(running)
        running.stdout.close()
        running.wait()


def _kill_all_of(running: subprocess.Popen[str]) -> None:
    if running.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0)
    options = parser.parse_args()
    began = time.monotonic()
    torture = Torture(options.seconds)
    torture.run()
    loads = sorted(torture.loads)
    print(f"\n{'what':32} count")
    for name, count in sorted(torture.counts.items()):
        print(f"{name:32} {count:,}")
    for text in torture.not_run:
        print(f"not run: {text}")
    print(
        f"commit {commit()}, {os.cpu_count()} cores, priority {os.nice(0)}, {time.monotonic() - began:.0f} s;"
        f" load {loads[0]} to {loads[-1]}, half of the time above {loads[len(loads) // 2]}"
    )
    print(f"broken: {len(torture.broken)}")
    for text in torture.broken:
        print(text)
    planted = torture.counts["kills"] > 0
    return 0 if planted and not torture.broken else 1


if __name__ == "__main__":
    sys.exit(main())
