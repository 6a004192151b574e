"""Locks between processes: alone, against each other around one append and its sync, and after the holder was killed.

    python -m benchmarks.peers.locks alone LOCK FOLDER           seconds of single takings
    python -m benchmarks.peers.locks contend LOCK FOLDER         appends from "go" until the time is up
    python -m benchmarks.peers.locks hold LOCK FOLDER            says when it has the lock, and keeps it until it dies

Locks: `filelock` and `portalocker` as they come, `…_fast` with polls of 1 ms in place of their 50 and 250 ms, and
`holdfast`, the write lock of a transcript. Its append is the whole of one: fence, record, line, sync.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

SECONDS = 1.5
TAKINGS = 3000
WAIT_S = 60.0
LINE = b"x" * 1023 + b"\n"
KEPT: list[Any] = []


def made(name: str, folder: Path) -> Callable[[], AbstractContextManager[Any]]:
    """How to take a peer's lock."""
    kind, _, fast = name.partition("_")
    path = str(folder / "the.lock")
    library: Any = importlib.import_module(kind)
    if kind == "filelock":
        lock = library.FileLock(path)
        poll = {"poll_interval": 0.001} if fast else {}
        return lambda: lock.acquire(timeout=WAIT_S, **poll)
    interval = {"check_interval": 0.001} if fast else {}
    return lambda: library.Lock(path, timeout=WAIT_S, **interval)


def ours(folder: Path) -> Any:
    module: Any = importlib.import_module("holdfast.store.embedded.holding")
    fence = folder / f"fence-{os.getpid()}"
    fence.mkdir()
    return module.TranscriptFile("bench", folder / "transcript.jsonl", fence, "bench")


def alone(name: str, folder: Path) -> list[float]:
    seconds: list[float] = []
    if name == "holdfast":
        file = ours(folder)
        for _ in range(TAKINGS):
            began = time.perf_counter()
            assert file.try_hold()
            file.release()
            seconds.append(time.perf_counter() - began)
        return seconds
    take = made(name, folder)
    for _ in range(TAKINGS):
        began = time.perf_counter()
        with take():
            pass
        seconds.append(time.perf_counter() - began)
    return seconds


async def appends(name: str, folder: Path) -> Callable[[], Awaitable[None]]:
    """One append and its sync under the lock."""
    if name == "holdfast":
        holdfast: Any = importlib.import_module("holdfast")
        opened = holdfast.open(folder / "state")
        hf = await opened.__aenter__()
        KEPT.append(opened)  # a context that nobody keeps is closed
        session = hf.session("agent:main:main")
        await session.append_metadata(holdfast.custom("ready"))

        async def through_us() -> None:
            await session.append_metadata(holdfast.custom("contender", LINE.decode()), durable=True)

        return through_us
    take = made(name, folder)
    fd = os.open(folder / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    async def append() -> None:
        with take():
            os.write(fd, LINE)
            os.fdatasync(fd)

    return append


async def contend(name: str, folder: Path) -> dict[str, Any]:
    append = await appends(name, folder)
    print(json.dumps("ready"), flush=True)
    began = now = float(sys.stdin.readline())
    count, longest = 0, 0.0
    while (before := now) < began + SECONDS:
        await append()
        now = time.monotonic()
        longest, count = max(longest, now - before), count + 1
    return {"count": count, "longest_ms": longest * 1000}


async def hold(name: str, folder: Path) -> None:
    """Says "waiting" once all is loaded and opened and only the lock is wanting."""
    if name == "holdfast":  # the right that outlives a lock: the turn
        holdfast: Any = importlib.import_module("holdfast")
        async with holdfast.open(folder / "state") as hf:
            print(json.dumps("waiting"), flush=True)
            async with hf.turn("agent:main:main", wait_s=WAIT_S):
                print(json.dumps(time.monotonic()), flush=True)
                await asyncio.to_thread(sys.stdin.readline)
        return
    take = made(name, folder)
    print(json.dumps("waiting"), flush=True)
    with take():
        print(json.dumps(time.monotonic()), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    verb, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if verb == "alone":
        print(json.dumps(alone(name, folder)))
    elif verb == "contend":
        print(json.dumps(asyncio.run(contend(name, folder))))
    else:
        asyncio.run(hold(name, folder))
