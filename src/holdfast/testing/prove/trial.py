"""The trial: ground, then the fault at each disk call, then a storm; one verdict per promise. Read `Trial._try`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.errors import InputError, ResourceError
from holdfast.store.embedded.state_dir import file_system_of
from holdfast.testing.disk import shim
from holdfast.testing.prove.ground import Finding, examine

PROMISES = {
    "P1": "one owner at any instant",
    "P2": "one end of every input",
    "P3": "nothing acknowledged is lost",
    "P4": "at most one unlabelled copy arrives",
    "P5": "no false takeover",
    "P6": "no missed takeover",
    "P9": "recovery proves its effect",
}
"""Those that a disk can break. The others (P7, P8, P10) are held by tests."""
DISK_SHARE = 0.4
"""Of the time, for the faults at each disk call."""
FREE_BYTES_MIN = 256 * 1024 * 1024
STORM_S_MIN = 5.0
TOO_LITTLE = ("planted only", "never seen")
Progress = Callable[[str, float, str], None]
"""Told the phase ("ground", "disk calls", "storm"), how much of it is done (0 to 1), and what was counted, in words."""


@dataclass(slots=True)
class Verdict:
    """One line of the table. `verdict`: "held", "broken", "cannot hold here" or "not tried"."""

    promise: str
    text: str
    tried: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.broken:
            return "broken"
        return "cannot hold here" if self.cannot else "held" if self.tried else "not tried"


@dataclass(slots=True)
class Result:
    folder: str
    file_system: str
    seconds: float
    ground: list[Finding]
    promises: list[Verdict]
    counts: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(one.verdict in ("held", "not tried") for one in self.promises)

    def as_json(self) -> dict[str, Any]:
        promises = [asdict(one) | {"verdict": one.verdict} for one in self.promises]
        return asdict(self) | {"promises": promises, "holds": self.holds}


def place_for(state: Path) -> Path:
    """The existing folder in which a fresh one is made: on the disk of `state`, and never in a state.

    Raises:
        InputError: a state that fills its whole file system.
    """
    given = Path(os.path.abspath(state))
    where = given
    while not where.is_dir():
        where = where.parent
    while is_state(where):
        where = where.parent
    wanted = given if given.exists() else where
    if os.stat(wanted).st_dev != os.stat(where).st_dev:
        raise InputError(f"{given} is a state and a file system of its own; name an empty folder on it with --state")
    return where


def is_state(folder: Path) -> bool:
    """Whether a folder is a state, or is inside one."""
    return any((one / "holdfast.json").exists() for one in (folder, *folder.parents))


class Trial:
    """One trial on one disk.

    Args:
        state: a state directory, existing or not, or any folder; decides which disk is tried.
        seconds: how long it may take in all, give or take a few.
        keep: leave the folder behind.
    """

    def __init__(
        self, state: Path, seconds: float, *, keep: bool = False, progress: Progress = lambda *_: None
    ) -> None:
        self._where = place_for(state)
        self._seconds = seconds
        self._keep = keep
        self._progress = progress

    def run(self) -> Result:
        """All of it. Raises ResourceError: the folder cannot be made, or the disk is too full for a trial."""
        began = time.monotonic()
        try:
            free = shutil.disk_usage(self._where).free
            folder = Path(tempfile.mkdtemp(prefix="holdfast-prove-", dir=self._where))
        except OSError as exc:
            raise ResourceError(f"cannot make a folder in {self._where}: {exc.strerror or exc}") from exc
        try:
            if free < FREE_BYTES_MIN:
                raise ResourceError(
                    f"{self._where} has {free >> 20} MiB free; a trial wants {FREE_BYTES_MIN >> 20} MiB"
                )
            return self._try(folder, began)
        finally:
            if not self._keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _try(self, folder: Path, began: float) -> Result:
        result = Result(
            str(folder), file_system_of(folder), 0.0, examine(folder),
            [Verdict(promise, text) for promise, text in PROMISES.items()],
        )  # fmt: skip
        self._progress("ground", 1.0, f"{result.file_system}, {len(result.ground)} findings")
        by_name = {one.promise: one for one in result.promises}
        for finding in result.ground:
            if finding.level == "broken":
                for promise in finding.promises:
                    by_name[promise].cannot.append(finding.text)
        if all(not one.cannot for one in result.promises):
            self._disk(folder, by_name, result)
            self._storm(folder, by_name, result, max(STORM_S_MIN, self._seconds - (time.monotonic() - began)))
        result.seconds = round(time.monotonic() - began, 1)
        return result

    def _disk(self, folder: Path, by_name: dict[str, Verdict], result: Result) -> None:
        """As many as fit in; which is said."""
        why = shim.missing()
        if why is not None:
            result.remarks.append(f"faults at each disk call were not tried: {why}")
            return
        until = time.monotonic() + self._seconds * DISK_SHARE
        runs = {"kill": 0, "fail": 0}
        with subprocess.Popen(
            [sys.executable, "-m", "holdfast.testing.disk", "--part", "kill", "--part", "fail", "--folder", str(folder),
             "--seconds", f"{self._seconds * DISK_SHARE}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=shim.environment(),
        ) as running:  # fmt: skip
            assert running.stdout is not None
            for line in running.stdout:
                found = json.loads(line)
                runs[found["part"]] += found["runs"]
                by_name["P3"].broken += found["broken"]
                words = f"{runs['kill']} kills at disk calls, {runs['fail']} failing calls"
                done = 1 - max(0.0, until - time.monotonic()) / (self._seconds * DISK_SHARE)
                self._progress("disk calls", done, words)
        if not sum(runs.values()):
            result.remarks.append("faults at each disk call were not tried: not enough time")
            return
        by_name["P3"].tried.append(f"{runs['kill']} kills at disk calls, {runs['fail']} failing calls")
        by_name["P9"].tried.append(f"{sum(runs.values())} recoveries")
        result.counts |= {"kills at disk calls": runs["kill"], "failing disk calls": runs["fail"]}

    def _storm(self, folder: Path, by_name: dict[str, Verdict], result: Result, seconds: float) -> None:
        gateways = "1" if find_spec("uvicorn") is not None and find_spec("fastapi") is not None else "0"
        with subprocess.Popen(
            [sys.executable, "-m", "holdfast.testing.storm", "--seconds", f"{seconds:.1f}", "--folder", str(folder),
             "--gateways", gateways, "--progress"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as running:  # fmt: skip
            assert running.stderr is not None
            assert running.stdout is not None
            began, complaints = time.monotonic(), ""
            for line in running.stderr:
                if not line.startswith("{"):
                    complaints = (complaints + line)[-2000:]
                    continue
                counts = json.loads(line)
                words = f"{counts['kills']} kills, {counts['stops']} stops, {counts['edits']} foreign edits"
                self._progress("storm", min(1.0, (time.monotonic() - began) / seconds), words)
            said = running.stdout.read()
        if not said:
            raise ResourceError(f"the storm ended without a result: {complaints}")
        found = json.loads(said)
        for promise, words in found["tried"].items():
            by_name[promise].tried.append(words)
        result.counts |= found["counts"]
        if not result.counts["kills"]:
            raise ResourceError("the storm killed nobody, so it proves nothing; give it more time with --seconds")
        for text in found["broken"]:
            if text.startswith(TOO_LITTLE):
                result.remarks.append(
                    f"{text}: this machine was too slow for the whole storm; more --seconds prove more"
                )
                continue
            promise = text[:2] if text[:2] in by_name else "P9" if text.startswith(("I9", "I10")) else "P3"
            by_name[promise].broken.append(text)
