"""One run of everything: `python -m benchmarks.peers [PART …]`, parts: contests overheads sizes locks chains queues.

Rounds go through the peers in alternating order, so that a slow minute hits all of them. Kept is each figure of each
round; the page shows medians and, in brackets, the smallest and the largest. Parts that are not asked for keep their
last figures. PEERS_ROUNDS (3) says how many rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from benchmarks.measure import machine
from benchmarks.peers.chart import draw
from benchmarks.peers.environments import ENVIRONMENTS, NOT_MEASURED, ROOT, make, python_of, versions
from benchmarks.peers.page import write_page

T = TypeVar("T")
OUT = ROOT / "docs" / "evidence" / "peers.json"
ROUNDS = int(os.environ.get("PEERS_ROUNDS", "3"))
RUN_S_MAX = 180.0
TURNS = 48
SHAPES = ((1, 8), (2, 4), (4, 2))
"""Processes, and turns at once in each."""
HISTORIES = {0: 20, 1_000: 10, 10_000: 4}
"""Messages before the turn that is measured, and how many turns are."""
SIZES = {"10 KB": (10, 1_000), "1 MB": (100, 10_000), "100 MB": (10_000, 10_000), "1 GB": (100_000, 10_000)}
"""Messages, and characters of each."""
GIGABYTE = ("holdfast_store", "jsonl")
KILLS = 5
STANDS_STILL_S = 15.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A store or a tool, the environment it runs in ("" is our own), and what tables call it."""

    name: str
    environment: str
    title: str


STORES = (
    Peer("holdfast_store", "", "Holdfast"),
    Peer("openai_agents", "openai_agents", "openai-agents `SQLiteSession`"),
    Peer("langgraph", "langgraph", "langgraph SQLite checkpointer"),
    Peer("pydantic_store", "pydantic_ai", "pydantic-ai `ConversationStore`"),
    Peer("pydantic_rows", "pydantic_ai", "pydantic-ai, one row per turn"),
    Peer("nanobot", "nanobot", "nanobot `SessionManager`"),
    Peer("hermes", "hermes", "hermes-agent `SessionDB`"),
    Peer("jsonl", "", "hand-written JSON lines"),
)
ONE_PROCESS_ONLY = {"pydantic_store"}
LOCKS = (
    Peer("holdfast", "", "Holdfast, write lock"),
    Peer("filelock", "locks", "filelock"),
    Peer("filelock_fast", "locks", "filelock, polls of 1 ms"),
    Peer("portalocker", "locks", "portalocker"),
    Peer("portalocker_fast", "locks", "portalocker, polls of 1 ms"),
)
CHAINS = (
    Peer("holdfast", "", "Holdfast `failover.ask`"),
    Peer("litellm", "litellm", "litellm `Router`"),
    Peer("langchain", "langgraph", "langchain `with_fallbacks`"),
    Peer("pydantic_ai", "pydantic_ai", "pydantic-ai `FallbackModel`"),
)
QUEUES = (
    Peer("holdfast", "", "Holdfast `accept`"),
    Peer("sqlite", "", "hand-written SQLite table"),
    Peer("dbos", "dbos", "dbos on SQLite"),
    Peer("memory", "", "`asyncio.Queue`, in memory"),
)
BURSTS = {"holdfast": (1_000, 10_000, 100_000), "sqlite": (1_000, 10_000), "dbos": (1_000,), "memory": (1_000, 100_000)}


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def start(peer: Peer, module: str, *args: object) -> subprocess.Popen[str]:
    command = [str(python_of(peer.environment)), "-m", f"benchmarks.peers.{module}", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)


def hear(process: subprocess.Popen[str]) -> Any:
    """The next JSON line; what libraries print besides is passed over. Raises EOFError if it has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        if line[:1] in '{["' or line[:1].isdigit():
            return json.loads(line)
    raise EOFError(f"{process.args} ended with {process.wait()}")


def tell(process: subprocess.Popen[str], word: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def run(peer: Peer, module: str, *args: object) -> Any:
    """What a worker prints; None if it did not come to its end in time."""
    process = start(peer, module, *args)
    try:
        out, _ = process.communicate(timeout=RUN_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    lines = [line for line in out.splitlines() if line.strip()]
    if process.returncode != 0 or not lines:
        raise RuntimeError(f"{peer.title}: {module} {args} ended with {process.returncode}")
    return json.loads(lines[-1])


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="peers-", dir=os.environ.get("BENCH_DIR"), ignore_cleanup_errors=True
    ) as one:
        yield Path(one)


def alternating(peers: Sequence[T], number: int) -> Sequence[T]:
    return peers if number % 2 == 0 else peers[::-1]


def said(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Workers:
    """Processes of the stores, started and imported once: up to four of each."""

    def __init__(self, stores: Sequence[Peer], each: int) -> None:
        self._of: dict[str, list[subprocess.Popen[str]]] = {}
        for peer in stores:
            count = 1 if peer.name in ONE_PROCESS_ONLY else each
            self._of[peer.name] = [start(peer, "worker", peer.name) for _ in range(count)]
        for peer in stores:
            said(f"starting {peer.title}")
            for worker in self._of[peer.name]:
                assert hear(worker) == "imported"

    def __getitem__(self, peer: Peer) -> list[subprocess.Popen[str]]:
        return self._of[peer.name]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for workers in self._of.values():
            for worker in workers:
                worker.kill()
                worker.communicate()


def order(worker: subprocess.Popen[str], verb: str, folder: Path, *numbers: int) -> None:
    tell(worker, json.dumps({"verb": verb, "folder": str(folder), "numbers": numbers}))


def done(worker: subprocess.Popen[str], verb: str, folder: Path, *numbers: int) -> Any:
    order(worker, verb, folder, *numbers)
    return hear(worker)


def contest(workers: list[subprocess.Popen[str]], at_once: int) -> dict[str, Any]:
    """One round of turns on one conversation; what became of them, as a reader sees it afterwards."""
    with scratch() as folder:
        for number, worker in enumerate(workers):
            order(worker, "contest", folder, number, at_once, TURNS // len(workers))
        for worker in workers:
            assert hear(worker) == "ready"
        for worker in workers:
            tell(worker)
        found = [hear(worker) for worker in workers]
        history = found[0]["history"] if len(workers) == 1 else done(workers[0], "history", folder)
    return judged([tuple(one) for one in history], found)


def judged(history: list[tuple[str, str]], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of lost turns and of broken pairs among those that were acknowledged."""
    acknowledged = [question for one in found for question in one["acknowledged"]]
    places = {one: at for at, one in enumerate(history)}
    kept = [q for q in acknowledged if ("user", q) in places and ("assistant", "a" + q[1:]) in places]
    adjacent = sum(places["assistant", "a" + q[1:]] == places["user", q] + 1 for q in kept)
    answers = {text for role, text in history if role == "assistant"}
    errors: dict[str, int] = {}
    for one in found:
        for name, count in one["errors"].items():
            errors[name] = errors.get(name, 0) + count
    took = max(one["ended"] for one in found) - min(one["began"] for one in found)
    calls = sum(one["calls"] for one in found)
    return {
        "acknowledged": len(acknowledged), "lost": len(acknowledged) - len(kept), "not_adjacent": len(kept) - adjacent,
        "calls": calls, "thrown_away": calls - len(answers), "errors": errors,
        "kept_per_s": len(kept) / took, "seconds": took,
    }  # fmt: skip


def contests(stores: Sequence[Peer]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Workers(stores, SHAPES[-1][0]) as workers:
        for number in range(ROUNDS):
            for processes, at_once in SHAPES:
                for peer in alternating(stores, number):
                    if processes > 1 and peer.name in ONE_PROCESS_ONLY:
                        continue
                    said(f"contest {number + 1}: {peer.title}, {processes} x {at_once}")
                    rows = found.setdefault(peer.name, {}).setdefault(f"{processes} x {at_once}", [])
                    rows.append(contest(workers[peer][:processes], at_once))
    return found


def overheads(stores: Sequence[Peer]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Workers(stores, 1) as workers:
        for number in range(ROUNDS):
            for count, turns in HISTORIES.items():
                for peer in alternating(stores, number):
                    said(f"overhead {number + 1}: {peer.title}, {count} messages")
                    with scratch() as folder:
                        row = done(workers[peer][0], "overhead", folder, count, turns)
                    values = {name: statistics.median(one) for name, one in row.items()}
                    found.setdefault(peer.name, {}).setdefault(str(count), []).append(values)
    return found


def sizes(stores: Sequence[Peer]) -> dict[str, Any]:
    """A file of each size is made once; each of the rounds opens it and adds a turn."""
    found: dict[str, Any] = {}
    kept = [one for one in stores if one.name not in ONE_PROCESS_ONLY]
    with Workers(kept, 1) as workers:
        for size, (count, length) in SIZES.items():
            for peer in kept:
                if size == "1 GB" and peer.name not in GIGABYTE:
                    continue
                said(f"sizes: {peer.title}, {size}")
                with scratch() as folder:
                    assert done(workers[peer][0], "fill", folder, count, length) == "filled"
                    rows = [done(workers[peer][0], "first", folder) for _ in range(ROUNDS)]
                found.setdefault(peer.name, {})[size] = rows
    return found


def locks(peers: Sequence[Peer]) -> dict[str, Any]:
    found: dict[str, Any] = {one.name: {"alone_us": [], "contests": [], "after_kill_ms": []} for one in peers}
    for number in range(ROUNDS):
        for peer in alternating(peers, number):
            said(f"locks {number + 1}: {peer.title}")
            rows = found[peer.name]
            with scratch() as folder:
                rows["alone_us"].append(statistics.median(run(peer, "locks", "alone", peer.name, folder)) * 1e6)
            with scratch() as folder:
                rows["contests"].append(lock_contest(peer, folder))
            with scratch() as folder:
                rows["after_kill_ms"] += handovers(peer, folder)
    return found


def lock_contest(peer: Peer, folder: Path) -> dict[str, float]:
    workers = [start(peer, "locks", "contend", peer.name, folder) for _ in range(4)]
    for worker in workers:
        assert hear(worker) == "ready"
    begins = time.monotonic() + 0.2
    for worker in workers:
        tell(worker, str(begins))
    results = [hear(worker) for worker in workers]
    for worker in workers:
        worker.communicate()
    counts = [one["count"] for one in results]
    return {
        "appends": sum(counts), "fairness": min(counts) / max(counts),
        "longest_ms": max(one["longest_ms"] for one in results),
    }  # fmt: skip


def handovers(peer: Peer, folder: Path) -> list[float]:
    """Milliseconds from SIGKILL of the holder to the moment in which a waiting process has it."""
    took: list[float] = []
    holder = start(peer, "locks", "hold", peer.name, folder)
    assert hear(holder) == "waiting"
    hear(holder)
    for _ in range(KILLS):
        waiter = start(peer, "locks", "hold", peer.name, folder)
        assert hear(waiter) == "waiting"
        time.sleep(0.3)
        killed = time.monotonic()
        os.kill(holder.pid, signal.SIGKILL)
        took.append((hear(waiter) - killed) * 1000)
        holder.communicate()
        holder = waiter
    holder.kill()
    holder.communicate()
    return took


def chains(peers: Sequence[Peer]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(ROUNDS):
        for peer in alternating(peers, number):
            said(f"chains {number + 1}: {peer.title}")
            row = run(peer, "fallbacks", peer.name)
            if row is None:
                said(f"{peer.title}: not within {RUN_S_MAX:g} s")
                continue
            medians = {name: statistics.median(row[name]) for name in ("first", "after_three")}
            found.setdefault(peer.name, []).append({**medians, "local_error": row["local_error"]})
    return found


def queues(peers: Sequence[Peer]) -> dict[str, Any]:
    found: dict[str, Any] = {"bursts": {}, "killed": {}}
    for number in range(ROUNDS):
        for peer in alternating(peers, number):
            for count in BURSTS[peer.name]:
                said(f"queues {number + 1}: {peer.title}, {count:,}")
                with scratch() as folder:
                    row = run(peer, "queues", "burst", peer.name, folder, count)
                found["bursts"].setdefault(peer.name, {}).setdefault(f"{count:,}", []).append(row)
    if any(one.name == "dbos" for one in peers):
        dbos = next(one for one in peers if one.name == "dbos")
        for again in (False, True):
            said(f"a killed worker: {dbos.title}, {'the same one again' if again else 'another one lives'}")
            name = "dbos, restarted under its name" if again else "dbos, another worker lives"
            found["killed"][name] = [killed_dbos(dbos, again=again) for _ in range(ROUNDS)]
    return found


def killed_dbos(peer: Peer, *, again: bool) -> float | None:
    """Seconds from a worker's death in a turn to the beginning of the session's next one; None: not within the limit.

    Args:
        again: the worker is started anew under its name after the kill, else another one has been waiting all along.
    """
    with scratch() as folder:
        first = start(peer, "queues", "work", "dbos", folder, "A", "hold", "second")
        while "began" not in hear(first):
            pass
        other = None if again else start(peer, "queues", "work", "dbos", folder, "B")
        if other is not None:
            while "ready" not in hear(other):
                pass
        killed = time.monotonic()
        first.kill()
        first.communicate()
        if other is None:
            other = start(peer, "queues", "work", "dbos", folder, "A")
        try:
            out, _ = other.communicate(timeout=STANDS_STILL_S)
        except subprocess.TimeoutExpired as ended:
            other.kill()
            out = text_of(ended.stdout) + text_of(other.communicate()[0])
        rows = [json.loads(line) for line in out.splitlines() if line.startswith('{"began"')]
        return min((row["began"] - killed for row in rows), default=None)


def text_of(what: str | bytes | IO[Any] | None) -> str:
    return what.decode() if isinstance(what, bytes) else what if isinstance(what, str) else ""


PARTS: dict[str, tuple[Callable[[Sequence[Peer]], dict[str, Any]], Sequence[Peer]]] = {
    "contests": (contests, STORES), "overheads": (overheads, STORES), "sizes": (sizes, STORES), "locks": (locks, LOCKS),
    "chains": (chains, CHAINS), "queues": (queues, QUEUES),
}  # fmt: skip


def main(asked: list[str]) -> int:
    unknown = set(asked) - set(PARTS) - {"page"}
    if unknown:
        print(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}, page", file=sys.stderr)
        return 2
    if shutil.disk_usage(tempfile.gettempdir()).free < 4 * 1000**3:
        print("4 GB of free disk are needed for transcripts of a gigabyte", file=sys.stderr)
        return 1
    report: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if asked != ["page"]:
        why_not = {one.name: make(one) for one in ENVIRONMENTS}
        missing = {name: why for name, why in why_not.items() if why is not None}
        there = [one for one in ENVIRONMENTS if one.name not in missing]
        report["versions"] = {package: version for one in there for package, version in versions(one.name).items()}
        report["missing"] = {**NOT_MEASURED, **missing}
        for name in asked or PARTS:
            part, peers = PARTS[name]
            with scratch() as folder:
                report[f"{name}_machine"] = machine(folder)
            report[name] = part([one for one in peers if one.environment not in missing])
            OUT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    titles = {"stores": STORES, "locks": LOCKS, "chains": CHAINS, "queues": QUEUES}
    named = {group: {one.name: one.title for one in peers} for group, peers in titles.items()}
    write_page(report, named)
    draw(report, named["stores"], ROOT / "docs" / "images" / "peers.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
