"""What a power loss may leave: a workload's disk calls are recorded, then the states that POSIX allows after a loss at
any moment are rebuilt, one after another, and each is opened with the real store, as after a restart of the machine.

The rules are the weakest that a file system may keep. Bytes written and not synced may be there, or not, or some of
them (by sectors of 512), in any order within a file and across files, or as zeros where the file had grown. A name that
was made, moved or removed is on the disk once its folder was synced; before that names of one folder arrive in order,
those of different folders in any. After a sync that failed, what was unsynced is on the disk only if it is written
again.

Source: Pillai et al., All File Systems Are Not Created Equal, 2014 (ALICE); PostgreSQL 2018 for the failed sync.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.store.embedded.machine import Machine
from holdfast.testing.disk import shim
from holdfast.testing.disk.enumerate import FAILURES_MAX, Finisher, Found, Place, Told, forked
from holdfast.testing.disk.shim import Call
from holdfast.testing.disk.workloads import WORKLOADS, Act

SECTOR = 512
CHOICES = ("none", "all", "prefix", "some", "torn", "zeros")


class NextBoot(Machine):
    """The same machine after it was switched on again."""

    def boot_id(self) -> str:
        return "after the power loss"


# ── recording ────────────────────────────────────────────────────────────────────────────────────────────────────────


def record(root: Path, name: str) -> tuple[list[Call], Path]:
    """Every disk call of a workload, its preparation included, with the promises between them. And its folder."""
    place = Place(root / f"{os.getpid()}-{name.replace(' ', '-')}-recorded")
    place.root.mkdir()
    log = place.root / "log"
    before, act = WORKLOADS[name]
    for one, dies in ((before, True), (act, False)):
        if one is None:
            continue
        code, _, why = forked(lambda _, a=one, d=dies: _traced(place, a, log, dies=d))
        if code != (-signal.SIGKILL if dies else 0):
            raise AssertionError(f"recording {name} ended with {code}: {why}")
    return list(shim.read_log(log.read_bytes())), place.state


def _traced(place: Place, act: Act, log: Path, *, dies: bool) -> None:
    import asyncio

    import holdfast

    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    shim.arm(place.state, "count", 0, 0, log=fd)

    async def run() -> None:
        async with holdfast.open(place.state) as hf:
            await act(place.work(hf, lambda *words: shim.note(json.dumps(words))))
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())


# ── the disk, as far as it is known ──────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Inode:
    """A file: what is on the disk for certain, and what was done since."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data); (size, None): cut

    def seen(self) -> bytes:
        return applied(self.durable, self.pending)


def applied(data: bytes, changes: Iterable[tuple[int, bytes | None]]) -> bytes:
    now = bytearray(data)
    for at, written in changes:
        if written is None:
            now = now[:at] + bytes(max(0, at - len(now)))
        else:
            now += bytes(max(0, at - len(now)))
            now[at : at + len(written)] = written
    return bytes(now)


@dataclass(slots=True)
class Disk:
    """Files, names, and what of both is certain. A folder is the inode None."""

    names: dict[str, Inode | None] = field(default_factory=dict)  # as every process sees them
    durable: dict[str, Inode | None] = field(default_factory=dict)
    unsynced: dict[str, list[tuple[str, Inode | None, bool]]] = field(
        default_factory=dict
    )  # by folder: name, what, there
    handles: dict[tuple[int, int], str | Inode | None] = field(default_factory=dict)  # a folder's path, or its file
    told: Told = field(default_factory=list)

    def do(self, call: Call) -> None:
        x, y = call.x.decode(errors="surrogateescape"), call.y.decode(errors="surrogateescape")
        if call.kind == "!":
            self.told.append(json.loads(x))
        elif call.kind == "o":
            self._open(call, x)
        elif call.kind == "w" and isinstance(inode := self.handles.get(call.who), Inode):
            inode.pending.append((call.a, call.x or call.y))
        elif call.kind in "tT":
            inode = self.handles.get(call.who) if call.kind == "t" else self.names.get(x)
            if isinstance(inode, Inode):
                inode.pending.append((call.a, None))
        elif call.kind == "s":
            self._sync(self.handles.get(call.who))
        elif call.kind == "f" and isinstance(inode := self.handles.get(call.who), Inode):
            inode.pending.clear()
        elif call.kind == "m" and x not in self.durable:
            self._name(x, None, there=True)
        elif call.kind in "ud":
            self._name(x, self.names.get(x), there=False)
        elif call.kind == "l":
            self._name(y, self.names.get(x), there=True)
        elif call.kind == "r":
            what = self.names.get(x)
            self._name(x, what, there=False)
            self._name(y, what, there=True)

    def _open(self, call: Call, path: str) -> None:
        if call.a and path not in self.names:
            self._name(path, Inode(), there=True)
        what = self.names.get(path)
        if call.b and isinstance(what, Inode):
            what.pending.append((0, None))
        self.handles[call.who] = path if what is None else what

    def _name(self, path: str, what: Inode | None, *, there: bool) -> None:
        if there:
            self.names[path] = what
        else:
            self.names.pop(path, None)
        self.unsynced.setdefault(os.path.dirname(path), []).append((path, what, there))

    def _sync(self, what: str | Inode | None) -> None:
        if isinstance(what, Inode):
            what.durable, what.pending = what.seen(), []
        elif isinstance(what, str):
            for change in self.unsynced.pop(what, []):
                _apply_name(self.durable, change)


def _apply_name(names: dict[str, Inode | None], change: tuple[str, Inode | None, bool]) -> None:
    path, what, there = change
    if there:
        names[path] = what
    else:
        names.pop(path, None)


def after_loss(disk: Disk, chance: random.Random) -> dict[str, bytes | None]:
    """One allowed outcome: what each path holds (None: a folder)."""
    names = dict(disk.durable)
    for changes in disk.unsynced.values():
        for change in changes[: chance.choice((0, len(changes), chance.randint(0, len(changes))))]:
            _apply_name(names, change)
    whole = chance.choice((None, "none", "all"))  # often everything or nothing: narrow places lie at the edges
    found: dict[str, bytes | None] = {}
    for path, what in names.items():
        found[path] = None if what is None else _content(what, whole or chance.choice(CHOICES), chance)
    return {path: data for path, data in found.items() if _has_its_folders(path, found)}


def _has_its_folders(path: str, found: dict[str, bytes | None]) -> bool:
    folder = os.path.dirname(path)
    return folder not in _known_folders(found) or found.get(folder, b"") is None


def _known_folders(found: dict[str, bytes | None]) -> set[str]:
    return {os.path.dirname(path) for path in found}


def _content(inode: Inode, how: str, chance: random.Random) -> bytes:
    changes = inode.pending
    if how == "none" or not changes:
        return inode.durable
    if how == "all":
        return inode.seen()
    if how == "prefix":
        return applied(inode.durable, changes[: chance.randint(0, len(changes))])
    if how == "some":
        return applied(inode.durable, [one for one in changes if chance.random() < 0.5])
    if how == "zeros":
        grown = len(inode.seen())
        return inode.durable[:grown] + bytes(max(0, grown - len(inode.durable)))
    return applied(inode.durable, _torn(changes[: chance.randint(1, len(changes))], chance))


def _torn(changes: Sequence[tuple[int, bytes | None]], chance: random.Random) -> list[tuple[int, bytes | None]]:
    """The last of them reached the disk in part: up to a sector, or the later sectors without the first."""
    at, data = changes[-1]
    if data is None:
        return list(changes)
    sector = (SECTOR - at % SECTOR) + SECTOR * chance.randint(0, len(data) // SECTOR)
    part = (at, data[:sector]) if chance.random() < 0.7 else (at + sector, data[sector:])
    return [*changes[:-1], part]


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def every_state(root: Path, name: str, *, states: int, seed: int = 1, until_mono: float = math.inf) -> Found:
    """Up to so many different states after a loss at moments spread over the whole workload, until the time is up."""
    calls, state = record(root, name)
    found, chance, seen = Found(), random.Random(seed), set[str]()
    disk = Disk()
    disk.names[str(state)] = disk.durable[str(state)] = None  # its own folder is synced outside of what we see
    moments = sorted(chance.sample(range(1, len(calls) + 1), min(states, len(calls))))
    tries = max(1, states // len(moments))
    done = 0
    with Finisher(NextBoot()) as finisher:
        for moment in moments:
            for call in calls[done:moment]:
                disk.do(call)
            done = moment
            if time.monotonic() > until_mono:
                break
            for _ in range(tries):
                left = after_loss(disk, chance)
                digest = hashlib.sha256(repr((sorted(left.items()), disk.told)).encode()).hexdigest()
                if digest in seen:
                    continue
                seen.add(digest)
                wrong = _try(root, state, left, disk.told, finisher)
                found.runs += 1
                if wrong is not None:
                    kept = f"{name}: state {found.runs} of seed {seed}, after call {moment} of {len(calls)}"
                    found.broken.append(f"{kept}: {wrong}")
                    if len(found.broken) >= FAILURES_MAX:
                        return found
    return found


def _try(root: Path, recorded: Path, left: dict[str, bytes | None], told: Told, finisher: Finisher) -> str | None:
    place = Place(root / f"{os.getpid()}-after-loss")
    place.root.mkdir()
    try:
        for path, data in sorted(left.items()):
            if not path.startswith(str(recorded)):
                continue
            here = place.state / os.path.relpath(path, recorded)
            if data is None:
                here.mkdir(mode=0o700, parents=True, exist_ok=True)
            else:
                here.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                here.write_bytes(data)
                here.chmod(0o600)
        arrived = [text.encode() + b"\n" for kind, _, text in told if kind == "arrived"]
        place.platform.write_bytes(b"".join(arrived))
        return finisher.finish(place, [one for one in told if one[0] != "arrived"], may_fail=False)
    finally:
        shutil.rmtree(place.root, ignore_errors=True)
