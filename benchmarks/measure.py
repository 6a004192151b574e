"""What the benchmarks share: F, percentiles, goals, facts about the machine.

F is the price of durability here and now: one append of 1 KB and its fdatasync, taken in the same process and between
the measured operations, so that a disk that is slow for a minute is slow for both.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

FULL = os.environ.get("BENCH_FULL") == "1"
KILOBYTE = b"x" * 1023 + b"\n"


class SyncCost:
    """F: `sample` appends 1 KB to a file of its own beside the state and syncs it."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "f-samples", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.seconds: list[float] = []

    def sample(self) -> None:
        began = time.perf_counter()
        os.write(self._fd, KILOBYTE)
        fdatasync(self._fd)
        self.seconds.append(time.perf_counter() - began)

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)

    def __enter__(self) -> SyncCost:
        for _ in range(20):
            self.sample()
        self.seconds.clear()  # the first ones allocate
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: TracebackType | None) -> None:
        os.close(self._fd)


fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def percentiles(seconds: Sequence[float]) -> dict[str, float | int]:
    """In microseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6, 1)

    return {
        "count": len(ordered),
        "p50_us": round(statistics.median(ordered) * 1e6, 1),
        "p90_us": at(0.90),
        "p99_us": at(0.99),
        "max_us": round(ordered[-1] * 1e6, 1),
    }


@dataclass(frozen=True)
class Goal:
    """One figure that has a goal. `at_most` or `at_least`: the other is None."""

    what: str
    figure: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        if self.at_most is not None:
            return self.figure <= self.at_most
        return self.at_least is not None and self.figure >= self.at_least

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass
class Report:
    """The one JSON object that a program prints."""

    program: str
    figures: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def print(self, folder: Path) -> None:
        goals = [goal.as_dict() for goal in self.goals]
        whole = {"program": self.program, "full": FULL, "machine": machine(folder), "figures": self.figures}
        print(json.dumps({**whole, "goals": goals}, indent=1))


def machine(folder: Path) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "file_system": file_system_of(folder),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def file_system_of(folder: Path) -> str:
    """Type of the mount that `folder` is on, "unknown" where /proc does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    where = str(folder.resolve())
    holding = [mount for mount in mounts if where == mount[1] or where.startswith(mount[1].rstrip("/") + "/")]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for states, on the disk that BENCH_DIR names, else where temporary files go. Removed at the end."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        yield Path(folder)


def run_with(work: Callable[[], Awaitable[Any]], loop: str = "asyncio") -> Any:
    """Run on the standard loop, or on "uvloop", which a gateway uses."""

    async def main() -> Any:
        return await work()

    if loop == "asyncio":
        return asyncio.run(main())
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def has_uvloop() -> bool:
    try:
        import uvloop
    except ImportError:
        return False
    return bool(uvloop.__name__)


async def start_worker(module: str, *args: str) -> asyncio.subprocess.Process:
    """Another process running `module` of this package; it speaks lines over its standard input and output."""
    pipe, command = asyncio.subprocess.PIPE, [sys.executable, "-m", f"benchmarks.{module}", *args]
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)


async def hear(process: asyncio.subprocess.Process) -> Any:
    """The next line of a worker, from JSON. Raises EOFError if it has ended."""
    assert process.stdout is not None
    raw = await process.stdout.readline()
    if not raw:
        raise EOFError(f"worker {process.pid} ended with {await process.wait()}")
    return json.loads(raw)


def tell(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word.encode() + b"\n")


def say(value: Any) -> None:
    """The worker's side of `hear`."""
    print(json.dumps(value), flush=True)


def listen() -> str:
    """The worker's side of `tell`; empty once the other end has gone."""
    return sys.stdin.readline().strip()
