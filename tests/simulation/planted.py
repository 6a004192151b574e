"""Bugs that the simulation has to find, each as small as somebody might write it, handed in where parts are made."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast import ids
from holdfast.inbound.child import BACKGROUND_END, END
from holdfast.inbound.event import Admission, Duplicate, InboundEvent
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.lane.queue import PLAIN, QueueSettings
from holdfast.model.client import ModelClient, ModelRequest, StreamItem
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import Outcome
from holdfast.outbox.preview import Preview
from holdfast.recovery.watchdog import Watchdog
from holdfast.session.entries import custom
from holdfast.session.fence import Epoch, Verdict
from holdfast.store.embedded.holding import Claim, TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.embedded.writer import LedgerWriter
from holdfast.store.sql import inbox
from holdfast.store.sql.ledger import Job
from holdfast.testing.simulation.machine import SharedHardware, SimMachine
from holdfast.testing.simulation.process import Parts
from holdfast.testing.simulation.run import HARM
from holdfast.testing.simulation.scheduler import Host
from holdfast.tool.approval import Approval
from holdfast.turn.commands import Commands
from holdfast.turn.runner import Runner
from holdfast.turn.turn import RESET_TYPE, Turn


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, the promises of which at least one has to be reported as broken, and what brings it out: faults, and ways
    into a conversation (`ways.py`).
    """

    alter: Callable[[Parts], Parts]
    breaks: tuple[str, ...]
    harm: tuple[str, ...] = HARM
    only: tuple[str, ...] | None = ()


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


class HeedlessWriter(LedgerWriter):
    """Whoever opens a state takes what it shows for durable."""

    def run_here(self, job: Job) -> Any:
        job.durable = False
        return super().run_here(job)


class HeedlessStore(EmbeddedStore):
    """Answers a redelivery from what it reads."""

    writer_class = HeedlessWriter

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        row = await self.reads.ask(
            lambda conn: conn.execute("select id, state from inputs where dedupe_key=?", (event.key,)).fetchone()
        )
        return await super().accept(event, usual, is_command=is_command) if row is None else Duplicate(*row)


class NewKeyStore(EmbeddedStore):
    """Each process remembers the keys that it has seen itself."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        own = replace(event, key=f"{event.key} {self.process}")
        return await super().accept(own, usual, is_command=is_command)


class TellingStore(EmbeddedStore):
    """Each process tells a parent of the ends of its sub-agents."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        own = replace(event, key=f"{event.key} {self.process}") if event.source == END else event
        return await super().accept(own, usual, is_command=is_command)


class TellingAllStore(EmbeddedStore):
    """Each process tells a session of the ends of its programs."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        own = replace(event, key=f"{event.key} {self.process}") if event.source == BACKGROUND_END else event
        return await super().accept(own, usual, is_command=is_command)


class OpenStore(EmbeddedStore):
    """Nobody's answer is waited for."""

    async def use_approval(self, approval: str, turn: str, epoch: Epoch, digest: str) -> bool:
        return True

    async def approval(self, approval: str) -> Approval | None:
        found = await super().approval(approval)
        return None if found is None else replace(found, state="approved")


class BlindStore(EmbeddedStore):
    """Whoever delivers does not look whether the beginning is there already."""

    async def preview(self, delivery_id: str) -> Preview | None:
        return None


class RewritingStore(EmbeddedStore):
    """Takes inputs in without looking whether an earlier turn had written their lines."""

    async def join_waiting(self, owned: Any, how: Any) -> Any:
        before = dict(owned.claim.landed)
        taken = await super().join_waiting(owned, how)
        owned.claim.landed = before
        return taken


class HastyQueueStore(EmbeddedStore):
    """Whatever waits begins as soon as it can."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        return await super().accept(event, replace(usual, debounce_ms=0), is_command=is_command)


class PoliteStore(EmbeddedStore):
    """Lets a turn finish that is to be interrupted."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        waits = replace(usual, mode="collect") if usual.mode == "interrupt" else usual
        return await super().accept(event, waits, is_command=is_command)


class ForgetfulRunner(Runner):
    """Throws away what a model had said when its turn was stopped."""

    async def _keep_partial(self, turn: Turn, text: str, why: str) -> None:
        return


class SilentlyDroppingStore(EmbeddedStore):
    """A turn does not hear of what was dropped before it."""

    async def dropped_before(self, input_id: str) -> str | None:
        return None


class ImpatientStore(EmbeddedStore):
    """What gives way is over."""

    async def requeue(
        self, owned: Any, why: str, *, charge: bool, yielded: bool = False, calls: Sequence[ModelCall] = ()
    ) -> None:
        if yielded:
            await self.settle(owned, Outcome("skipped", detail=why), "requeued", why, [])
        else:
            await super().requeue(owned, why, charge=charge, calls=calls)


class ForgettingStore(EmbeddedStore):
    """Summaries say that they keep a line that is not there."""

    async def append(self, owned: Any, lines: Any, **how: Any) -> Any:
        def of(build: Callable[[str | None], bytes]) -> Callable[[str | None], bytes]:
            return lambda parent: build(parent).replace(b'"firstKeptEntryId":"', b'"firstKeptEntryId":"0')

        return await super().append(owned, [(entry_id, of(build)) for entry_id, build in lines], **how)


class TwiceTimers(Timers):
    """Each process fires by itself."""

    async def _accept(self, event: InboundEvent) -> str | None:
        return await super()._accept(replace(event, key=f"{event.key} {ids.new_id('key')}"))


class NarrowCommands(Commands):
    """`/stop` forgets what waits; `/new` is one more line of the old conversation."""

    async def _inputs(self, session: str, state: str | None, limit: int = 1000) -> Any:
        return [] if state == "queued" else await super()._inputs(session, state, limit)


class ContinuingCommands(Commands):
    async def in_turn(self, turn: Turn, view: Any, compact: Any) -> bool:
        if view.payload["content"] in ("/new", "/reset"):
            await turn.append(custom(RESET_TYPE, {"by": "/new", "input": turn.input_id}))
            turn.outcome = Outcome("answered", answer="begun", detail="a command")
            return True
        return await super().in_turn(turn, view, compact)


class RashWatchdog(Watchdog):
    """Asks turns to end that have not stood still for long."""

    def __init__(self, hf: Holdfast) -> None:
        super().__init__(hf)
        self._settings = replace(hf.watch, warn_s=0.05, abort_s=0.1)


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
    "a duplicate acknowledged without a sync": Bug(with_store(HeedlessStore), ("P3",), ("redelivery",)),
    "a redelivery that is another input": Bug(with_store(NewKeyStore), ("P", "I"), only=("webhooks",)),
    "ends of sub-agents told by each process": Bug(with_store(TellingStore), ("I1",), only=("sub-agents",)),
    "ends of programs told by each process": Bug(with_store(TellingAllStore), ("I1",), only=("tools",)),
    "a call that nobody's answer is waited for": Bug(with_store(OpenStore), ("tools",), only=("tools",)),
    "an answer beside its beginning": Bug(with_store(BlindStore), ("P4",), only=("previews",)),
    "lines of messages taken in, written again": Bug(
        with_store(RewritingStore), ("I1", "P3"), ("kill", "kill planned", "power loss"), ("queue",)
    ),
    "debounce that nobody waits for": Bug(with_store(HastyQueueStore), ("queue",), only=("queue",)),
    "an interrupt that waits its turn": Bug(with_store(PoliteStore), ("queue",), only=("queue",)),
    "what was said until an interrupt is thrown away": Bug(
        lambda parts: replace(parts, make_runner=ForgetfulRunner), ("queue",), ("stop",), ("queue",)
    ),
    "messages dropped in silence": Bug(with_store(SilentlyDroppingStore), ("P3",), only=("queue",)),
    "giving way for good": Bug(with_store(ImpatientStore), ("P2",), only=("machines",)),
    "a summary of what is not there": Bug(with_store(ForgettingStore), ("I8",), only=("compaction",)),
    "timers that fire in each process": Bug(
        lambda parts: replace(parts, make_timers=TwiceTimers), ("timers",), only=("timers",)
    ),
    "/stop forgets what waits": Bug(
        lambda parts: replace(parts, make_commands=NarrowCommands), ("P2",), only=("commands",)
    ),
    "/new goes on in the old conversation": Bug(
        lambda parts: replace(parts, make_commands=ContinuingCommands), ("I1",), only=("commands",)
    ),
    "recovery that ends work": Bug(
        lambda parts: replace(parts, make_watchdog=RashWatchdog), ("P9",), only=("watchdog",)
    ),
    "a kept answer that settles unasked": Bug(slowly(with_store(PushyStore)), ("P2", "P3", "I1"), ("stop",)),
}
