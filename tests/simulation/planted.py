"""Bugs that the simulation has to find, each as small as somebody might write it, handed in where parts are made."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

from holdfast.model.client import ModelClient, ModelRequest, StreamItem
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Epoch, Verdict
from holdfast.store.embedded import inbox
from holdfast.store.embedded.holding import Claim, TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.embedded.writer import Job, LedgerWriter
from holdfast.testing.simulation.machine import SharedHardware, SimMachine
from holdfast.testing.simulation.process import Parts
from holdfast.testing.simulation.run import HARM
from holdfast.testing.simulation.scheduler import Host


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, the promises of which at least one has to be reported as broken, and the faults that bring it out."""

    alter: Callable[[Parts], Parts]
    breaks: tuple[str, ...]
    harm: tuple[str, ...] = HARM


class UnfencedFile(TranscriptFile):
    """Takes whatever the record says for its own."""

    def inspect(self, claim: Claim, proof: Any = None) -> Verdict:
        rec = self.look()
        if rec is not None:
            claim.record = rec
        return Verdict("unchanged")


class UnfencedStore(EmbeddedStore):
    file_class = UnfencedFile


class EarlyFile(TranscriptFile):
    """Looks at the fence when asked to, and not again when it appends."""

    is_appending = False

    def inspect(self, claim: Claim, proof: Any = None) -> Verdict:
        return UnfencedFile.inspect(self, claim) if self.is_appending else super().inspect(claim, proof)  # type: ignore[arg-type]

    def append_owned(self, claim: Claim, lines: Any, proof: Any = None) -> Any:
        self.is_appending = True
        try:
            return super().append_owned(claim, lines, proof)
        finally:
            self.is_appending = False


class EarlyStore(EmbeddedStore):
    """Compares the epoch, lets go of the write lock, and takes it again for the append."""

    file_class = EarlyFile

    async def append(self, owned: Any, lines: Any, **how: Any) -> Any:
        await self.inspect(owned)
        machine = here()
        assert isinstance(machine, SimMachine)
        await self.in_thread(machine.touch, "the way from one thread to another")
        return await super().append(owned, lines, **how)


class UnlockedMachine(SimMachine):
    """Grants the write lock of a transcript to everybody who asks."""

    def __init__(self, hardware: SharedHardware, host: Host) -> None:
        super().__init__(hardware, host)
        self._free: set[int] = set()

    def open(self, path: Any, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        (self._free.add if str(path).endswith((".jsonl", ".gate")) else self._free.discard)(fd)
        return fd

    def try_lock(self, fd: int) -> bool:
        return fd in self._free or super().try_lock(fd)


class UnrepairedMachine(SimMachine):
    """Leaves torn ends of transcripts as they are."""

    def truncate(self, fd: int, size: int) -> None:
        self.touch("truncate")

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return 1 if bytes(data) == b"\n" else super().write(fd, data)


def writer_that_hurries(*names: str) -> type[EmbeddedStore]:
    """A store that does not wait for the sync of jobs made in functions of these names."""

    class HastyWriter(LedgerWriter):
        def submit(self, job: Job) -> asyncio.Future[Any]:
            if any(name in job.run.__qualname__.split(".") for name in names):
                job.durable = False
            return super().submit(job)

    class HastyStore(EmbeddedStore):
        writer_class = HastyWriter

    return HastyStore


class UnsyncedFile(TranscriptFile):
    """Says that a sync is done, without one."""

    def sync(self, upto: Any = None) -> Any:
        return upto


class UnsyncedStore(EmbeddedStore):
    file_class = UnsyncedFile


class ForgetfulStore(EmbeddedStore):
    """Puts a dead owner's input back without looking for its final line."""

    def close_predecessor(self, conn: Any, file: Any, transcript: Any, predecessor: Any, now_ms: Any) -> None:
        super().close_predecessor(conn, None, transcript, predecessor, now_ms)

    def _close_if_answered_before(self, conn: Any, file: Any, wanted: Any, row: Any, base: Any, now_ms: Any) -> bool:
        return False


class PushyStore(EmbeddedStore):
    """Settles with a kept answer whatever has become of the input."""

    async def settle_salvaged(self, input_id: str, epoch: Epoch, outcome: Outcome) -> str:
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> str:
            row = inbox.by_id(conn, input_id)
            assert row is not None
            return inbox.settle(conn, row, outcome, now_ms)

        return await self.writer.submit(Job(run, durable=True))


def with_store(kind: type[EmbeddedStore]) -> Callable[[Parts], Parts]:
    return lambda parts: replace(parts, make_store=kind.open)


class SlowModel:
    """So slow that a stopped process is still asking it when somebody else has taken its turn and asks, too."""

    def __init__(self, model: ModelClient) -> None:
        self._model = model

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        await asyncio.sleep(2.0)
        async for item in self._model.stream(request):
            yield item


def slowly(alter: Callable[[Parts], Parts]) -> Callable[[Parts], Parts]:
    return lambda parts: replace(alter(parts), model=SlowModel(parts.model))


def with_machine(kind: type[SimMachine]) -> Callable[[Parts], Parts]:
    return lambda parts: replace(parts, make_machine=kind)


BUGS = {
    "no fence": Bug(with_store(UnfencedStore), ("P6", "I4", "I1")),
    "epoch compared before the lock": Bug(with_store(EarlyStore), ("P6", "I4", "I1"), ("stop", "edit")),
    "no write lock": Bug(with_machine(UnlockedMachine), ("P5", "I1", "I2", "I8", "P6", "P3")),
    "no repair of a torn end": Bug(with_machine(UnrepairedMachine), ("I2", "P3", "I9", "P5"), ("disk", "kill planned")),
    "acknowledged before the sync": Bug(with_store(writer_that_hurries("accept")), ("P3",)),
    "delivered before its settlement is synced": Bug(
        with_store(writer_that_hurries("settle", "move_delivery", "_end_with")), ("I6", "I7", "P4", "P2", "P3")
    ),
    "settled before the final line is synced": Bug(with_store(UnsyncedStore), ("P3", "I7")),
    "a takeover that ignores the final line": Bug(with_store(ForgetfulStore), ("I1", "P3", "P2")),
    "a kept answer that settles unasked": Bug(slowly(with_store(PushyStore)), ("P2", "P3", "I1"), ("stop",)),
}
