"""The embedded store: transcripts as files, the ledger as one SQLite file, any number of processes on one machine.

Read `claim`, `append` and `settle` first. Waiting for a transcript is in `waiting.py`, the fence in `holding.py`, what a new
owner starts from in `baseline.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from holdfast import ids
from holdfast.clock import Clock, epoch_ms
from holdfast.errors import (
    CoordinationError,
    OwnershipLostError,
    ResourceError,
    SessionMovedError,
    SessionTakeoverError,
    TranscriptUnsettledError,
)
from holdfast.inbound.event import Admission, InboundEvent
from holdfast.lane.policy import LaneLimits, Waiting
from holdfast.outbox.message import Outcome
from holdfast.session.fence import Epoch, Fingerprint, Verdict
from holdfast.session.entries import FORMAT_VERSION
from holdfast.session.key import validate_key
from holdfast.session.lines import Line, read_line
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.embedded import baseline, claims, durable, inbox, waiting
from holdfast.store.embedded.baseline import LedgerFacts
from holdfast.store.embedded.beats import Beater, BeatWatch
from holdfast.store.embedded.claims import Granted, OwnedTurn, Predecessor
from holdfast.store.embedded.faults import Faults, no_faults
from holdfast.store.embedded.holding import Claim, NeedsProof, Position, Synced, TranscriptFile, iter_lines
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.embedded.reads import Reads, view_of_input
from holdfast.store.embedded.sentinel import Sentinel, describe
from holdfast.store.embedded.state_dir import StateDir, open_state_dir
from holdfast.store.embedded.writer import Job, LedgerWriter
from holdfast.store.views import DeliveryView, InputView, SessionView, TurnView

log = logging.getLogger("holdfast.store")
T = TypeVar("T")
Build = Callable[[str | None], bytes]
PROOFS_MAX = 6
"""How often a prefix is hashed outside the lock before it is hashed inside it, because somebody keeps touching the file."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Numbers of the embedded store (DESIGN §3; the write lock's from semantics.md 2.1).

    Args:
        acquire_timeout_ms: longest wait for the write lock.
        max_hold_ms: a holder of the write lock past this is reported, never robbed.
        beat_s, beat_term_s: how often a turn shows life; how long its beat is watched standing still before it lapses.
        turn_max_s: no turn is renewed for longer.
        faults: called at named points; for tests (`faults.py`).
    """

    limits: LaneLimits = field(default_factory=LaneLimits)
    acquire_timeout_ms: int = 60_000
    max_hold_ms: int = 300_000
    beat_s: float = 15.0
    beat_term_s: float = 90.0
    turn_max_s: float = 172_800.0
    kind: str = "library"
    faults: Faults = no_faults


CONTEXT_BYTES_MAX = 8 * 1024 * 1024
"""How far back a turn reads its conversation: more than any model's window holds, little enough to read at once (20 ms)."""


class _Contended(Exception):
    """The write lock was not free at once (internal: the caller waits for it on a thread)."""


class EmbeddedStore:
    """One process's handle on a state directory. All methods may be used from any task of one event loop."""

    def __init__(self, state: StateDir, clock: Clock, options: StoreOptions) -> None:
        self.state = state
        self.clock = clock
        self.options = options
        self.sentinel = Sentinel(state.processes)
        self.writer = LedgerWriter(state.path, state.store_id, options.faults)
        self.reads = Reads(state.path)
        self.beater = Beater(clock, options.beat_s)
        self.watch = BeatWatch(clock, options.beat_term_s)
        self.findings = list(state.findings)
        self.slot_freed = asyncio.Event()
        self._coarse = durable.has_coarse_clock(state.fence)
        self._files: dict[str, TranscriptFile] = {}
        self._known: dict[str, str] = {}  # session key to transcript; a claim asks the ledger again
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="holdfast-store")
        self._register()

    @classmethod
    def open(cls, path: Path, clock: Clock, options: StoreOptions) -> EmbeddedStore:
        """Open (or make) the state directory. Blocks for some milliseconds; see `open_state_dir` for what it refuses."""
        state = open_state_dir(path)
        return cls(state, clock, options)

    @property
    def store_id(self) -> str:
        return self.state.store_id

    @property
    def process(self) -> str:
        return self.sentinel.name

    @property
    def location(self) -> str:
        return str(self.state.path)

    @property
    def stopped(self) -> bool:
        return self.writer.stopped

    def now_ms(self) -> int:
        return epoch_ms(self.clock.now())

    def _register(self) -> None:
        """Note this process; the first one to open makes what it sees durable before acting on it."""
        alone = self.state.living() == [self.sentinel.name]
        row = (self.process, self.sentinel.pid, self.options.kind, self.now_ms(), boot_id())

        def run(conn: sqlite3.Connection) -> None:
            conn.execute("insert into processes(name, pid, kind, started_at_ms, boot) values(?,?,?,?,?)", row)

        self.writer.submit_blocking(Job(run, durable=alone))
        if alone:
            self._tidy_dead_sentinels()

    def _tidy_dead_sentinels(self) -> None:
        """Remove sentinels of dead processes that own nothing; those that do are needed to prove them dead."""

        def run(conn: sqlite3.Connection) -> set[str]:
            return {
                row[0] for row in conn.execute("select owner_process from transcripts where owner_turn is not null")
            }

        needed = self.writer.submit_blocking(Job(run))
        for name in os.listdir(self.state.processes):
            if name != self.process and name not in needed and self.sentinel.life_of(name) == "dead":
                (self.state.processes / name).unlink(missing_ok=True)

    async def close(self) -> None:
        """Finish the ledger's work and let go of everything. Turns still open in this process are lost."""
        self.beater.close()
        await asyncio.to_thread(self.writer.close)
        self.reads.close()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._pool.shutdown(wait=False)
        self.sentinel.close()

    # ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def accept(self, event: InboundEvent) -> Admission:
        """Store an input durably (one sync), or say why not. True when it returns, however the process ends."""
        validate_key(event.session)
        digest = inbox.body_digest(event)
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> Admission:
            transcript = self._transcript_of(conn, event.session, now_ms)
            admission = inbox.accept(conn, event, transcript, self.options.limits, now_ms, digest)
            self.options.faults("accept.before_commit")
            return admission

        admission = await self.writer.submit(Job(run, durable=True))
        self.options.faults("accept.after_commit")
        return admission

    async def transcript_of(self, key: str) -> str:
        """The transcript id behind a session key; registers the key if it is new."""
        known = self._known.get(key)
        if known is not None:
            return known
        validate_key(key)
        now_ms = self.now_ms()
        transcript = await self.writer.submit(Job(lambda conn: self._transcript_of(conn, key, now_ms)))
        self._known[key] = transcript
        return transcript

    def _transcript_of(self, conn: sqlite3.Connection, key: str, now_ms: int) -> str:
        row = conn.execute("select transcript from sessions where key=?", (key,)).fetchone()
        if row is not None:
            return row[0]
        path = self.state.canonical(self.state.transcript_path(key))
        transcript = self._find_by_file(conn, path)
        if transcript is None:
            transcript = ids.new_id("t")
            conn.execute(
                "insert into transcripts(id, path, boot) values(?,?,?)",
                (
                    transcript,
                    str(path.relative_to(os.path.realpath(self.state.path))),
                    "" if path.exists() else boot_id(),
                ),
            )
        conn.execute(
            "insert into sessions(key, transcript, created_at_ms, updated_at_ms) values(?,?,?,?)",
            (key, transcript, now_ms, now_ms),
        )
        return transcript

    def _find_by_file(self, conn: sqlite3.Connection, path: Path) -> str | None:
        """A path whose device and inode are already registered names the same transcript (links, second keys)."""
        relative = str(path.relative_to(os.path.realpath(self.state.path)))
        row = conn.execute("select id from transcripts where path=?", (relative,)).fetchone()
        if row is not None or not path.exists():
            return row[0] if row else None
        here = os.stat(path)
        for other in conn.execute("select id, path from transcripts"):
            try:
                there = os.stat(self.state.path / other["path"])
            except OSError:
                continue
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                return other["id"]
        return None

    async def file_of(self, transcript: str) -> TranscriptFile:
        """The open file of a transcript; opened once per process."""
        file = self._files.get(transcript)
        if file is None:
            relative = await self.reads.transcript_path(transcript)
            file = self._files.get(transcript) or self._open_file(transcript, self.state.path / relative)
        return file

    def _open_file(self, transcript: str, path: Path) -> TranscriptFile:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.sync_folder(path.parent.parent)
        file = TranscriptFile(transcript, path, self.state.fence, self.process)
        file.coarse_clock = self._coarse
        file.faults = self.options.faults
        file.ledger_epoch = lambda: self.writer.submit_blocking(Job(lambda conn: claims.owner_of(conn, transcript)))
        self._files[transcript] = file
        return file

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_lines(self, transcript: str) -> list[Line]:
        """All lines of the file as they are. Takes no lock; a line that is being written at this moment is left out."""
        path = self.state.path / await self.reads.transcript_path(transcript)
        return await self._in_thread(_read_lines, path, None)

    async def read_tail(self, owned: OwnedTurn) -> list[Line]:
        """The newest lines, up to `CONTEXT_BYTES_MAX` bytes back."""
        return await self._in_thread(_read_lines, owned.file.path, CONTEXT_BYTES_MAX)

    def view_of(self, owned: OwnedTurn) -> InputView | None:
        """The input that a claimed turn answers, as it was claimed."""
        return None if owned.input_row is None else view_of_input(owned.input_row)

    async def input(self, input_id: str) -> InputView:
        return await self.reads.input(input_id)

    async def turn(self, turn_id: str) -> TurnView | None:
        return await self.reads.turn(turn_id)

    async def turns_of(self, input_id: str) -> list[TurnView]:
        return await self.reads.turns_of(input_id)

    async def inputs(self, *, session: str | None, state: str | None, limit: int) -> list[InputView]:
        return await self.reads.inputs(session=session, state=state, limit=limit)

    async def turns(self, *, session: str | None, limit: int) -> list[TurnView]:
        return await self.reads.turns(session=session, limit=limit)

    async def sessions(self, *, prefix: str, limit: int) -> list[SessionView]:
        return await self.reads.sessions(prefix=prefix, limit=limit, state_path=self.state.path)

    async def deliveries(self, *, state: str | None, limit: int) -> list[DeliveryView]:
        return await self.reads.deliveries(state=state, limit=limit)

    async def events(self, *, input_id: str | None = None, turn: str | None = None) -> list[dict[str, Any]]:
        return await self.reads.events(input_id=input_id, turn=turn)

    async def find_transcript(self, key: str) -> str | None:
        return await self.reads.find_transcript(key)

    async def find_join(self, session: str, join: str, since_ms: int) -> str | None:
        return await self.reads.find_join(session, join, since_ms)

    async def queue(self) -> tuple[list[Waiting], dict[str, int], bool]:
        return await self.reads.queue(self.now_ms())

    # ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def claim(self, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> OwnedTurn | Busy:
        """Own a transcript, waiting up to `wait_s` seconds for it; see `waiting.wait_and_claim`."""
        self._refuse_if_forked()
        return await waiting.wait_and_claim(self, request, wait_s=wait_s, fence_mode=fence_mode)

    async def claim_once(self, file: TranscriptFile, request: ClaimRequest, fence_mode: str) -> OwnedTurn | Busy:
        """Try to take the transcript, once. Cancelled: if it was granted meanwhile, it is given back.

        Raises:
            TranscriptFormatError, ResourceError, SessionWriteLockTimeoutError: nothing was claimed.
        """
        task = asyncio.ensure_future(self._claim_holding_lock(file, request, fence_mode))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    def _give_back(self, task: asyncio.Future[OwnedTurn | Busy]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        granted = task.result()
        if isinstance(granted, OwnedTurn):
            turn = granted.claim.turn
            self.beater.stop(turn)
            now_ms = self.now_ms()
            self.writer.post(lambda conn: self._abandon(conn, granted, turn, now_ms))

    def _abandon(self, conn: sqlite3.Connection, granted: OwnedTurn, turn: str, now_ms: int) -> None:
        """A claim whose waiter had gone: the input goes back to its place, nothing is charged."""
        row = inbox.by_id(conn, granted.input_row["id"]) if granted.input_row is not None else None
        if row is not None and row["epoch_nonce"] == granted.epoch.nonce and row["state"] == "running":
            inbox.requeue(conn, row, charge=False, solo=bool(row["solo"]), why="its claimer left", now_ms=now_ms)
        claims.end_turn(conn, turn, "abandoned", "its claimer left", now_ms)
        claims.release(conn, granted.transcript, granted.epoch)

    async def _claim_holding_lock(
        self, file: TranscriptFile, request: ClaimRequest, fence_mode: str
    ) -> OwnedTurn | Busy:
        try:
            return await self.writer.submit(self._claim_job(file, request, fence_mode, lock_held=False))
        except _Contended:
            return await self._submit_holding(file, self._claim_job(file, request, fence_mode, lock_held=True))

    async def _submit_holding(self, file: TranscriptFile, job: Job) -> Any:
        """Take the write lock on a thread, then submit a job whose `finish` lets it go. Cancelled: the job still runs."""

        async def act() -> Any:
            await self._in_thread(file.hold_blocking, self.options.acquire_timeout_ms)
            return await self.writer.submit(job)

        return await asyncio.shield(asyncio.ensure_future(act()))

    def _claim_job(self, file: TranscriptFile, request: ClaimRequest, fence_mode: str, *, lock_held: bool) -> Job:
        """One holding of the write lock: one ledger transaction, then the record."""
        now_ms = self.now_ms()

        def prepare() -> None:
            if not lock_held and not file.try_hold():
                raise _Contended

        def run(conn: sqlite3.Connection) -> tuple[Granted | Busy, baseline.Baseline]:
            row = conn.execute("select * from transcripts where id=?", (request.transcript,)).fetchone()
            bound = conn.execute("select transcript from sessions where key=?", (request.session,)).fetchone()
            if bound is None or bound[0] != request.transcript:
                self._known.pop(request.session, None)
                raise SessionMovedError(
                    f"session {request.session!r} was bound to another transcript meanwhile; try again"
                )
            base = baseline.take_baseline(file, _facts(row), self.clock)
            self._close_if_answered_before(conn, file, request, row, base, now_ms)
            granted = claims.claim(
                conn,
                request,
                row,
                limits=self.options.limits,
                now_ms=now_ms,
                life_of=self.sentinel.life_of,
                known_numbers=base.epoch_numbers,
                end=base.record.end,
                close=lambda c, predecessor: self._close_predecessor(c, file, request.transcript, predecessor, now_ms),
            )
            return granted, base

        def finish(committed: bool, result: Any) -> OwnedTurn | Busy | None:
            try:
                if not committed:
                    return None
                granted, base = result
                self.options.faults("claim.after_commit")
                if isinstance(granted, Granted):
                    return self._enter(file, request, granted, base, fence_mode)
                if granted.raised is not None:
                    file.record.write(replace(base.record, epoch=granted.raised, turn="", process=self.process))
                return granted
            finally:
                file.release()

        return Job(run, prepare=prepare, finish=finish)

    def _enter(
        self, file: TranscriptFile, request: ClaimRequest, granted: Granted, base: baseline.Baseline, fence_mode: str
    ) -> OwnedTurn:
        """The ledger has granted: now the record (which decides from here on), then the first beat."""
        if not file.record.exists():
            file.record.reopen()
        record = replace(
            base.record, epoch=granted.epoch, turn=request.turn, process=self.process, foreign="", foreign_detail="",
            unjudged=-1, intent=None,
        )  # fmt: skip
        file.record.write(record)
        if base.needs_background_chain:
            self._pool.submit(self._chain_prefix, file)
        for finding in base.findings:
            log.warning("session %s: %s (%s)", request.session, finding, file.path)
        claim = Claim(request.turn, granted.epoch, record, fence_mode)
        if granted.attempt > 1 and granted.input_row is not None:
            claim.landed = find_lines_of(file.fd, granted.input_row["first_offset"] or 0, granted.input_row["id"])
        file.record.beat(granted.epoch.nonce, 0)
        self.options.faults("claim.after_record")
        return OwnedTurn(
            file,
            claim,
            request.transcript,
            granted.attempt,
            granted.input_row,
            bool(granted.closed),
            list(base.findings),
        )

    def _chain_prefix(self, file: TranscriptFile) -> None:
        """In the background: hash a large file's prefix, and note it if nobody else touched the file meanwhile."""
        before = file.record.read()
        if before is None or before.has_chain():
            return
        seen, digest = baseline.hash_prefix(file.path, before.anchor)
        file.hold_blocking(self.options.acquire_timeout_ms)
        try:
            rec, now = file.look(), file.fingerprint()
            if rec is None or now is None or rec.anchor != before.anchor or not now.same_file(seen):
                return
            if now == rec.fingerprint and rec.unjudged < 0 and not rec.foreign:
                file.record.write(replace(rec, anchor_digest=digest))
        finally:
            file.release()

    def _close_if_answered_before(
        self, conn: sqlite3.Connection, file: TranscriptFile, request: ClaimRequest, row: sqlite3.Row,
        base: baseline.Baseline, now_ms: int,
    ) -> None:  # fmt: skip
        """A final line in the file wins over a ledger that does not know of it: looked for whenever the input may have run
        before (an earlier attempt, or an older ledger was put back)."""
        wanted = inbox.by_id(conn, request.input_id) if request.input_id is not None else None
        if wanted is None or wanted["state"] != "queued":
            return
        ledger_is_older = max(base.epoch_numbers, default=0) > row["epoch_number"]
        if not wanted["attempts"] and not ledger_is_older:
            return
        start = 0 if ledger_is_older else wanted["first_offset"] or 0
        final = find_final(file.fd, start, self.store_id, wanted["id"])
        if final is not None:
            file.sync()
            inbox.settle(conn, wanted, answered_from(final), now_ms)

    def _close_predecessor(
        self, conn: sqlite3.Connection, file: TranscriptFile, transcript: str, predecessor: Predecessor, now_ms: int
    ) -> None:
        """Whoever takes over first closes the one before: final lines are synced and settled, the rest is queued again."""
        detail = f"process {describe(self.state.processes, predecessor.process)} ended or lapsed"
        if predecessor.input_id is not None:
            row = inbox.by_id(conn, predecessor.input_id)
            assert row is not None
            final = find_final(file.fd, predecessor.first_offset or 0, self.store_id, predecessor.input_id)
            if final is not None:
                file.sync()
                inbox.settle(conn, row, answered_from(final), now_ms, predecessor.turn)
            elif row["cancel_by"]:
                done = Outcome(
                    "cancelled", detail=f"cancelled by {row['cancel_by']}; its process died before it could stop"
                )
                inbox.settle(conn, row, done, now_ms, predecessor.turn)
            else:
                alone = _turns_lost_with(conn, predecessor.process) == 1
                charge = alone or bool(row["solo"])
                state = inbox.requeue(conn, row, charge=charge, solo=not alone, why=detail, now_ms=now_ms)
                log.warning("input %s of %s: its turn died (%s); now %s", row["id"], row["session"], detail, state)
            died = (now_ms, row["session"], row["id"], predecessor.turn, "turn.died", {"detail": detail})
            inbox.note_events(conn, [died])
        claims.end_turn(conn, predecessor.turn, "died", detail, now_ms)
        claims.release(conn, transcript, predecessor.epoch)

    async def recover_dead(self) -> int:
        """Close the turns of processes that are dead; returns how many. Touches no live owner, and is safe to run twice."""
        closed = 0
        for transcript, process in await self.reads.owned_transcripts():
            if self.sentinel.life_of(process) != "dead":
                continue
            file = await self.file_of(transcript)
            closed += await self._submit_holding(file, self._recovery_job(file, transcript))
        if closed:
            self.slot_freed.set()
        return closed

    def _recovery_job(self, file: TranscriptFile, transcript: str) -> Job:
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> int:
            row = conn.execute(
                "select * from transcripts where id=? and owner_turn is not null", (transcript,)
            ).fetchone()
            if row is None or self.sentinel.life_of(row["owner_process"]) != "dead":
                return 0
            file.look()
            self._close_predecessor(conn, file, transcript, claims.predecessor_of(conn, row), now_ms)
            return 1

        def finish(committed: bool, result: Any) -> Any:
            file.release()
            return result if committed else 0

        return Job(run, durable=True, prepare=lambda: None, finish=finish)

    def start_beating(self, owned: OwnedTurn, *, still_runs: Callable[[], bool]) -> None:
        """Renew the turn from a thread, as long as `still_runs` and not past the turn's maximum."""
        claim = owned.claim
        self.beater.start(claim.turn, owned.file.record, claim.epoch.nonce, self.options.turn_max_s, still_runs)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def inspect(self, owned: OwnedTurn) -> Verdict:
        """The fence, without writing. Raises SessionTakeoverError or OwnershipLostError when the turn is lost."""
        verdict = await self._with_lock(owned.file, lambda proof: owned.file.inspect(owned.claim, proof), owned)
        if owned.claim.lost is not None:
            raise SessionTakeoverError(verdict, str(owned.file.path))
        return verdict

    async def append(
        self, owned: OwnedTurn, lines: Sequence[tuple[str, Build]], *, sync: bool
    ) -> tuple[Verdict, list[Position]]:
        """Append the owner's lines in one holding; `sync`: durable before it returns.

        Cancelled: the lines are there whole or not at all; appending the same ids again writes nothing twice.
        """
        owned.dirty = True
        done = await self._with_lock(
            owned.file, lambda proof: owned.file.append_owned(owned.claim, lines, proof), owned
        )
        if sync:
            await self.sync(owned)
        return done

    async def sync(self, owned: OwnedTurn) -> None:
        """Make what the turn has appended durable."""
        upto = Synced(owned.claim.record.end, owned.claim.record.link)
        await self._in_thread(owned.file.sync)
        self._note_synced(owned.file, upto)
        owned.dirty = owned.claim.record.end > upto.end

    @staticmethod
    def _note_synced(file: TranscriptFile, upto: Synced) -> None:
        """Best effort: if somebody holds the lock, the next claim syncs once more than needed."""
        if file.try_hold():
            try:
                file.note_synced(upto)
            finally:
                file.release()

    async def append_metadata(self, transcript: str, entry_id: str, build: Build, *, sync: bool) -> Position:
        """Append one line that is not conversation. Needs the write lock and no turn."""
        file = await self.file_of(transcript)
        try:
            position = await self._with_lock(file, lambda _: file.append_unowned(entry_id, build), None)
        except TranscriptUnsettledError:
            if await self.reads.owner(transcript) is not None:
                raise
            await self._make_ready(file, transcript)
            position = await self._with_lock(file, lambda _: file.append_unowned(entry_id, build), None)
        if sync:
            await self._in_thread(file.sync)
        return position

    async def _make_ready(self, file: TranscriptFile, transcript: str) -> None:
        """Nobody owns the transcript: a metadata writer may take the baseline that the next owner would take."""

        def run(conn: sqlite3.Connection) -> None:
            row = conn.execute("select * from transcripts where id=?", (transcript,)).fetchone()
            if row["owner_turn"] is not None:
                return
            base = baseline.take_baseline(file, _facts(row), self.clock)
            if not file.record.exists():
                file.record.reopen()
            file.record.write(base.record)

        def finish(committed: bool, result: Any) -> None:
            file.release()

        await self._submit_holding(file, Job(run, prepare=lambda: None, finish=finish))

    async def _with_lock(self, file: TranscriptFile, act: Callable[[Any], T], owned: OwnedTurn | None) -> T:
        """Run `act` holding the write lock: at once on this loop if it is free, else on a thread that waits."""
        self._refuse_if_forked()
        if file.try_hold():
            try:
                return act(None)
            except NeedsProof:
                pass
            finally:
                file.release()
        return await self._in_thread(self._with_lock_blocking, file, act, owned)

    def _with_lock_blocking(self, file: TranscriptFile, act: Callable[[Any], T], owned: OwnedTurn | None) -> T:
        proof = None
        for attempt in range(PROOFS_MAX):
            with file.held(self.options.acquire_timeout_ms):
                try:
                    if attempt == PROOFS_MAX - 1 and owned is not None:
                        proof = file.prove(owned.claim.record)
                    return act(proof)
                except NeedsProof:
                    rec = file.look()
            proof = file.prove(rec) if rec is not None else None
        raise CoordinationError(f"{file.path} changed {PROOFS_MAX} times while it was being read; try again")

    def _refuse_if_forked(self) -> None:
        if not self.sentinel.is_ours():
            raise OwnershipLostError("this process was forked from the one that owns the turn; it owns nothing")

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(
        self,
        owned: OwnedTurn,
        outcome: Outcome | None,
        turn_outcome: str,
        detail: str | None,
        events: list[inbox.StoryLine],
    ) -> str | None:
        """End the turn: transcript synced, then one ledger commit for input, outbox, turn and claim. Idempotent.

        Returns: the state its input is in now (None for a turn without one). It may differ from `outcome`: if the turn had
        been taken over, whoever took over has settled the input.
        """
        claim, now_ms = owned.claim, self.now_ms()
        upto = Synced(claim.record.end, claim.record.link)
        row = owned.input_row

        def run(conn: sqlite3.Connection) -> str | None:
            state = None
            if row is not None and outcome is not None:
                current = inbox.by_id(conn, row["id"])
                assert current is not None
                state = current["state"]
                if current["epoch_nonce"] == claim.epoch.nonce and state == "running":
                    inbox.settle(conn, current, outcome, now_ms, claim.turn)
                    state = outcome.state
            if events:
                inbox.note_events(conn, events)
            claims.end_turn(conn, claim.turn, turn_outcome, detail, now_ms)
            claims.release(conn, owned.transcript, claim.epoch, claim.record if claim.lost is None else None)
            return state

        def sync_first() -> None:
            self.options.faults("settle.before_sync")
            owned.file.sync()
            self.options.faults("settle.after_sync")

        def finish(committed: bool, result: Any) -> Any:
            if committed:
                self.options.faults("settle.after_commit")
            if owned.dirty and committed and claim.lost is None:
                self._note_synced(owned.file, upto)
            self._leave_line(owned)
            return result

        sync = sync_first if owned.dirty and claim.lost is None else None
        job = Job(run, durable=row is not None, essential=True, sync=sync, prepare=lambda: None, finish=finish)
        try:
            return await asyncio.shield(asyncio.ensure_future(self.writer.submit(job)))
        finally:
            self.beater.stop(claim.turn)
            self._leave_line(owned)
            self.slot_freed.set()

    def _leave_line(self, owned: OwnedTurn) -> None:
        if owned.has_line:
            owned.has_line = False
            owned.file.line.release()

    async def requeue(self, owned: OwnedTurn, why: str, *, charge: bool) -> None:
        """Put the turn's input back in its place (the process goes away, or the turn yields) and end the turn."""
        claim, now_ms = owned.claim, self.now_ms()

        def run(conn: sqlite3.Connection) -> None:
            row = inbox.by_id(conn, owned.input_row["id"]) if owned.input_row is not None else None
            if row is not None and row["epoch_nonce"] == claim.epoch.nonce and row["state"] == "running":
                inbox.requeue(conn, row, charge=charge, solo=bool(row["solo"]), why=why, now_ms=now_ms)
            claims.end_turn(conn, claim.turn, "requeued", why, now_ms)
            claims.release(conn, owned.transcript, claim.epoch)

        try:
            await asyncio.shield(asyncio.ensure_future(self.writer.submit(Job(run, durable=True, essential=True))))
        finally:
            self.beater.stop(claim.turn)
            self._leave_line(owned)
            self.slot_freed.set()

    async def salvage_line(self, owned: OwnedTurn, entry_id: str, build: Build) -> str:
        """Keep a finished answer as one line for people, or, where the file is not ours to touch, beside it.

        Returns: where it is kept, in words.
        """
        lost = owned.claim.lost
        if lost is not None and lost.kind == "superseded":
            try:
                await self._with_lock(owned.file, lambda _: owned.file.append_unowned(entry_id, build), None)
                await self._in_thread(owned.file.sync)
                return f"{owned.file.path} (line {entry_id})"
            except (CoordinationError, ResourceError) as exc:
                log.warning("salvage of %s goes beside the transcript: %s", entry_id, exc)
        return await self._in_thread(self._salvage_beside, owned.file.path, entry_id, build(None))

    @staticmethod
    def _salvage_beside(path: Path, entry_id: str, raw: bytes) -> str:
        beside = path.with_name(f"{path.name}.kept-{entry_id[:16]}.jsonl")
        fd = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            durable.write_all(fd, raw)
            durable.sync_data(fd)
        finally:
            os.close(fd)
        durable.sync_folder(path.parent)
        return str(beside)

    async def settle_salvaged(self, input_id: str, epoch: Epoch, outcome: Outcome) -> str:
        """One transaction asks whether the input is still open and not claimed by another; only then does it settle.

        Returns: the state the input is in afterwards.
        """
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> str:
            row = inbox.by_id(conn, input_id)
            assert row is not None
            ours = row["state"] == "running" and row["epoch_nonce"] == epoch.nonce
            if row["state"] == "queued" or ours:
                inbox.settle(conn, row, outcome, now_ms)
                return outcome.state
            return row["state"]

        return await self.writer.submit(Job(run, durable=True, essential=True))

    async def request_cancel(self, input_id: str, by: str) -> str:
        now_ms = self.now_ms()
        return await self.writer.submit(
            Job(lambda conn: inbox.request_cancel(conn, input_id, by, now_ms), durable=True)
        )

    def note_events(self, events: list[inbox.StoryLine]) -> None:
        """Story lines for `why`; nobody waits for them."""
        self.writer.post(lambda conn: inbox.note_events(conn, events))

    async def _in_thread(self, act: Callable[..., T], *args: Any) -> T:
        """On a pool thread; if the caller is cancelled the work still ends as if it had not been."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._pool, act, *args))


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _facts(row: sqlite3.Row) -> LedgerFacts:
    raw = row["fingerprint"]
    fingerprint = msgspec.msgpack.decode(raw, type=Fingerprint) if raw else None
    return LedgerFacts(
        row["boot"], row["synced_end"], row["synced_link"], row["anchor"], row["anchor_digest"], fingerprint,
        row["epoch_number"], row["ino"],
    )  # fmt: skip


def _turns_lost_with(conn: sqlite3.Connection, process: str) -> int:
    """How many turns a process took with it: those still open in its name and those closed as died."""
    return conn.execute(
        "select count(*) from turns where process=? and input is not null and (state='running' or outcome='died')",
        (process,),
    ).fetchone()[0]


def _read_lines(path: Path, bytes_max: int | None) -> list[Line]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        if bytes_max is not None and size > bytes_max:
            return baseline.read_tail(fd, size, bytes_max)
        raws = list(iter_lines(fd, 0, size))
    finally:
        os.close(fd)
    if not raws:
        return []
    version = read_line(raws[0]).version or FORMAT_VERSION
    return [read_line(raw.removesuffix(b"\n"), version=version) for raw in raws if raw.endswith(b"\n")]


def find_final(fd: int, start: int, store_id: str, input_id: str) -> Line | None:
    """The line that answers an input for good, if the transcript has it at or after `start`."""
    needle = input_id.encode()
    for raw in iter_lines(fd, start):
        if needle not in raw or not raw.endswith(b"\n"):
            continue
        line = read_line(raw)
        origin = line.origin
        if line.kind == "entry" and origin is not None and origin.final and origin.store == store_id:
            if input_id in origin.inputs:
                return line
    return None


def find_lines_of(fd: int, start: int, input_id: str) -> dict[str, Position]:
    """What earlier attempts at an input have written: id to position."""
    needle = input_id.encode()
    found: dict[str, Position] = {}
    at = start
    for raw in iter_lines(fd, start):
        if needle in raw:
            line = read_line(raw)
            if line.id and line.origin is not None and input_id in line.origin.inputs:
                found[line.id] = Position(at, len(raw), b"")
        at += len(raw)
    return found


def answered_from(line: Line) -> Outcome:
    """The outcome that a final line stands for."""
    message = msgspec.json.decode(line.raw)["message"]
    content = message.get("content")
    text = (
        content if isinstance(content, str) else "".join(p.get("text", "") for p in content if p.get("type") == "text")
    )
    finish = {"toolUse": "tool_calls", "length": "length"}.get(message.get("stopReason", "stop"), "stop")
    result = {"message": message, "finish": finish, "usage": message.get("usage"), "entry_id": line.id}
    return Outcome("answered", answer=text, result=result, detail="settled from its final line")
