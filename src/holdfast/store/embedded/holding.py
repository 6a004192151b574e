"""One transcript file and everything that happens to it in one holding of its write lock.

Read `append_owned` first: every line of conversation passes through it. The methods that need the lock say so; they run
on one thread from first to last and never wait. What is decided from what is found stands in `session/fence.py`.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from holdfast.errors import (
    OwnershipLostError,
    ResourceError,
    SessionTakeoverError,
    TranscriptUnsettledError,
)
from holdfast.session import fence
from holdfast.session.branch import leaf_after
from holdfast.session.fence import Epoch, Fingerprint, Intent, Proof, Record, Verdict
from holdfast.session.lines import read_line, split_lines
from holdfast.store.embedded import durable
from holdfast.store.embedded.locked_file import LockedFile, Reached
from holdfast.store.embedded.machine import Mutex, here
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.embedded.transcript_bytes import fence_link, iter_blocks, iter_lines, lines_of

FOREIGN_BYTES_MAX = 256 * 1024 * 1024
"""More than this appended by others in one go is not read line by line: it counts as tampering."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a line landed: offset and length in bytes, and the chain digest after it."""

    offset: int
    length: int
    link: bytes


_NOTHING_SYNCED = Reached(0, b"")
_UNCHANGED, _ADVANCED = Verdict("unchanged"), Verdict("advanced")


class NeedsProofError(Exception):
    """The prefix has to be hashed outside the lock before a verdict can be given (internal; never leaves the store)."""


@dataclass(slots=True)
class Claim:
    """What the owner of a turn remembers. `record` is the baseline: the record as of its last look."""

    turn: str
    epoch: Epoch
    record: Record
    fence_mode: str = "strict"
    lost: Verdict | None = None
    landed: dict[str, Position] = field(default_factory=dict)
    landings: int = 0  # holdings in which lines of this turn have landed
    landings_synced: int = 0  # as many of them as some sync has covered
    synced: Reached = _NOTHING_SYNCED  # what that made durable; the record is told at the next append
    ended: bool = False
    writing: Mutex = field(default_factory=lambda: here().mutex())  # held by the append that is under way

    @property
    def is_dirty(self) -> bool:
        """Whether something of this turn is in the file that no sync of this process has covered."""
        return self.landings > self.landings_synced

    def has_landed(self, positions: dict[str, Position]) -> None:
        """The lines are in the file, whatever becomes of the record. Write lock held."""
        self.landed.update(positions)
        self.landings += 1

    def end(self) -> None:
        """Nothing more is appended under this claim. Blocks while an append is under way."""
        with self.writing:
            self.ended = True

    def raise_if_lost(self, path: Path) -> None:
        """A lost turn stays lost: the first use raises the takeover, later ones that it is gone. So does one that has
        ended, whatever still waits for the lock on its behalf.
        """
        if self.ended:
            raise OwnershipLostError(f"turn {self.turn} has ended and writes nothing more; start a new turn")
        if self.lost is not None:
            raise OwnershipLostError(
                f"turn {self.turn} lost session file {path} ({self.lost.kind}: {self.lost.detail}); start a new turn"
            )


class TranscriptFile(LockedFile):
    """What may happen to a transcript in one holding of its write lock."""

    # ── with the lock held ───────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Record | None:
        """The record of this boot with any dead writer's intent settled; None if it is missing, unreadable or older."""
        rec = self.record.read()
        if rec is None or rec.boot != boot_id():
            return None
        if self.seen is None or self.seen.size == rec.end:
            return rec
        intent = self.record.read_intent()
        if intent is None or intent.offset != rec.end:
            return rec
        settled = self._settle_intent(rec, intent, self.seen)
        self.record.write(settled)
        self.seen = self.fingerprint()
        return settled

    def _settle_intent(self, rec: Record, intent: Intent, now: Fingerprint) -> Record:
        """A writer died between noting and recording. All there: ours. A prefix of it: cut. Anything else: foreign.

        The times stay those of the record, so that the prefix is proven once more: somebody may have changed it
        meanwhile.
        """
        if not now.same_file(rec.fingerprint) or now.size <= rec.end:
            return rec
        data = os.pread(self.fd, intent.length, rec.end)
        if len(data) == intent.length and zlib.crc32(data) == intent.crc32:
            link, leaf = rec.link, rec.leaf
            for raw in lines_of(data):
                link = fence_link(link, raw)
                leaf = leaf_after(leaf, read_line(raw))
            end = rec.end + intent.length
            at_end = replace(rec.fingerprint if rec.has_chain() else now, size=end)
            return replace(rec, end=end, link=link, leaf=leaf, fingerprint=at_end, writer="*")
        if now.size < rec.end + intent.length and intent.head.startswith(data[:64]):
            self.confirm_held()
            self.machine.truncate(self.fd, rec.end)
            return rec if rec.has_chain() else replace(rec, fingerprint=self.fingerprint())
        return rec

    def inspect(self, claim: Claim, proof: Proof | None = None) -> Verdict:
        """The fence: what happened since the owner last looked. Updates the claim's baseline, or marks it lost.

        Raises:
            NeedsProofError: let the lock go, call `prove`, and ask again with the result.
        """
        claim.raise_if_lost(self.path)
        rec = self.look()
        if rec is None or not rec.epoch.nonce:  # gone, or taken out of force by somebody who was taking over
            if self.ledger_epoch() != claim.epoch:
                return self._lose(claim, Verdict("superseded", self._what_file_says(claim), by="unknown"))
            rec = self._remembered(claim) if rec is None else replace(rec, epoch=claim.epoch)
            self.record.write(rec)
            lost = self._check_noted(claim, rec)
            if lost is not None:
                return self._lose(claim, self._remember_foreign(rec, lost))
        if rec.epoch != claim.epoch:
            by = f"turn {rec.turn} of process {rec.process}"
            return self._lose(claim, Verdict("superseded", self._what_file_says(claim), by=by))
        found = self._compare(claim, rec, proof)
        if found.is_takeover(claim.fence_mode):
            return self._lose(claim, found)
        return found

    def _remembered(self, claim: Claim) -> Record:
        """The record has vanished: the newest of this epoch that this process has seen or written."""
        newest = self.record.newest
        is_newer = newest is not None and newest.epoch == claim.epoch and newest.end >= claim.record.end
        return newest if is_newer and newest is not None and newest.boot == boot_id() else claim.record

    def _check_noted(self, claim: Claim, rec: Record) -> Verdict | None:
        """Other processes note in the ledger how far their metadata reached: it must still be there, as it was."""
        noted = self.ledger_noted(claim.turn)
        if noted is None or noted.end <= rec.end or self.seen is None or not self.seen.same_file(rec.fingerprint):
            return None
        if self.seen.size < noted.end:
            return Verdict("tampered", f"truncated from {noted.end} to {self.seen.size} bytes")
        link = rec.link
        for raw in iter_lines(self.fd, rec.end, noted.end):
            link = fence_link(link, raw)
        return None if link == noted.link else Verdict("tampered", f"bytes before offset {noted.end} were changed")

    def _compare(self, claim: Claim, rec: Record, proof: Proof | None) -> Verdict:
        now = self.seen
        if now == rec.fingerprint and rec.unjudged < 0:  # as it was recorded: nearly always
            grown = rec.end > claim.record.end
            claim.record = rec
            if rec.foreign:
                return Verdict(rec.foreign, rec.foreign_detail)  # type: ignore[arg-type]  # a word of Kind
            return _ADVANCED if grown else _UNCHANGED
        if now is None:
            return self._remember_foreign(rec, Verdict("tampered", self.gone))
        changed = fence.describe_identity_change(rec.fingerprint, now)
        if changed is not None:
            return self._remember_foreign(rec, changed)
        if now.size - rec.end > FOREIGN_BYTES_MAX:
            return self._remember_foreign(rec, Verdict("tampered", f"{now.size - rec.end} bytes appended by others"))
        if not rec.has_chain():
            return self._remember_foreign(rec, Verdict("foreign_turn", "changed before its prefix had been read once"))
        if proof is None or proof.fingerprint != now or proof.end != rec.end:
            raise NeedsProofError
        if proof.link != rec.link or proof.anchor_digest != rec.anchor_digest:
            return self._remember_foreign(rec, Verdict("tampered", f"bytes before offset {rec.end} were changed"))
        return self._judge_tail(claim, rec, now)

    def _judge_tail(self, claim: Claim, rec: Record, now: Fingerprint) -> Verdict:
        """The prefix is proven; judge what stands behind it (and what metadata writers had left unjudged)."""
        start = rec.end if rec.unjudged < 0 else rec.unjudged
        data = os.pread(self.fd, now.size - start, start)
        raws, torn = split_lines(data)
        if torn:
            return self._remember_foreign(rec, Verdict("tampered", f"unfinished line at offset {now.size - len(torn)}"))
        tail = [read_line(raw) for raw in raws]
        found = fence.classify_lines(
            tail,
            leaves=(*rec.hangs_off(), *claim.record.hangs_off()),
            on_branch=self._is_on_branch(rec.leaf),
        )
        leaf = rec.leaf
        if found.kind == "foreign_turn":
            if claim.fence_mode != "warn":
                return self._remember_foreign(rec, found)
            for line in tail:
                leaf = leaf_after(leaf, line)
        elif found.kind == "tampered":
            return self._remember_foreign(rec, found)
        link = rec.link
        for raw in lines_of(data[rec.end - start :]):
            link = fence_link(link, raw)
        adopted = fence.newest_id(tail) if found.kind == "adopted" else None
        settled = replace(
            rec, end=now.size, link=link, leaf=leaf, fingerprint=now, unjudged=-1, adopted=adopted or rec.adopted
        )
        self.record.write(settled)
        claim.record = settled
        return found

    def _is_on_branch(self, leaf: str | None) -> Callable[[str], bool]:
        """Reads the file only if a mirror hangs off something else than the leaf."""
        ancestors: set[str] = set()

        def ask(entry: str) -> bool:
            if not ancestors:
                parents: dict[str, str | None] = {}
                for raw in iter_lines(self.fd):
                    line = read_line(raw)
                    if line.id:
                        parents[line.id] = line.parent
                at = leaf
                while at is not None and at not in ancestors:
                    ancestors.add(at)
                    at = parents.get(at)
            return entry in ancestors

        return ask

    def _remember_foreign(self, rec: Record, found: Verdict) -> Verdict:
        """Nobody can launder it: whoever looks later in this epoch finds it in the record."""
        if found.kind in ("foreign_turn", "tampered"):
            known = fence.STRENGTH[rec.foreign] if rec.foreign else 0
            if fence.STRENGTH[found.kind] > known:
                self.record.write(replace(rec, foreign=found.kind, foreign_detail=found.detail))
        return found

    def _lose(self, claim: Claim, verdict: Verdict) -> Verdict:
        claim.lost = verdict
        return verdict

    def _what_file_says(self, claim: Claim) -> str:
        now = self.seen
        if now is None:
            return self.gone
        changed = fence.describe_identity_change(claim.record.fingerprint, now)
        if changed is not None:
            return changed.detail
        grown = now.size - claim.record.end
        return f"{grown} bytes longer than when we last looked" if grown else "the file itself is as we left it"

    def append_owned(
        self, claim: Claim, lines: Sequence[tuple[str, Callable[[str | None], bytes]]], proof: Proof | None = None
    ) -> tuple[Verdict, list[Position]]:
        """Append the owner's lines, each built for the parent it gets. Write lock held.

        A line whose id has landed before is not written again. `leaf` moves to the last line written.

        Raises:
            SessionTakeoverError, OwnershipLostError: nothing was written (or, for "slipped in", it is named).
            NeedsProofError, ResourceError (nothing of it is left in the file).
        """
        with claim.writing:
            return self._append_owned(claim, lines, proof)

    def _append_owned(
        self, claim: Claim, lines: Sequence[tuple[str, Callable[[str | None], bytes]]], proof: Proof | None
    ) -> tuple[Verdict, list[Position]]:
        verdict = self.inspect(claim, proof)
        if claim.lost is not None:
            raise SessionTakeoverError(verdict, str(self.path))
        rec = claim.record
        if rec.synced < claim.synced.end <= rec.end:
            rec = replace(rec, synced=claim.synced.end, synced_link=claim.synced.link)
        positions, data, leaf, link = [], bytearray(), rec.leaf, rec.link
        for entry_id, build in lines:
            known = claim.landed.get(entry_id)
            if known is None:
                raw = build(leaf)
                link = fence_link(link, raw)
                known = Position(rec.end + len(data), len(raw), link)
                data += raw
                leaf = entry_id
            positions.append(known)
        landed = {entry_id: position for (entry_id, _), position in zip(lines, positions, strict=True)}
        if data:
            claim.record = self._write(claim, rec, bytes(data), link, leaf, on_landing=lambda: claim.has_landed(landed))
        return verdict, positions

    def append_unowned(self, entry_id: str, build: Callable[[str | None], bytes]) -> Position:
        """Append one line that is not conversation: the write lock is enough. The leaf moves to it; nothing is judged.

        Raises:
            TranscriptUnsettledError: the end of the file is torn, replaced or cut; a turn has to judge it first.
        """
        rec, now = self.look(), self.seen
        if rec is None or now is None:
            raise TranscriptUnsettledError(f"{self.path}: no current record; the next turn will make one")
        if fence.describe_identity_change(rec.fingerprint, now) is not None:
            raise TranscriptUnsettledError(f"{self.path}: was replaced or cut; the next turn will judge it")
        if now != rec.fingerprint:
            rec = self._step_over_unjudged(rec, now)
        raw = build(rec.leaf)
        link = fence_link(rec.link, raw)
        position = Position(rec.end, len(raw), link)
        self._write(None, rec, raw, link, entry_id)
        return position

    def _step_over_unjudged(self, rec: Record, now: Fingerprint) -> Record:
        data = os.pread(self.fd, now.size - rec.end, rec.end) if now.size - rec.end <= FOREIGN_BYTES_MAX else b"?"
        if data and not data.endswith(b"\n"):
            raise TranscriptUnsettledError(f"{self.path}: ends in an unfinished line; the next turn will judge it")
        link = rec.link
        for raw in lines_of(data):
            link = fence_link(link, raw)
        unjudged = rec.end if rec.unjudged < 0 else rec.unjudged
        off = rec.hangs_off()
        return replace(rec, end=now.size, link=link, fingerprint=now, unjudged=unjudged, unjudged_off=off)

    def _write(
        self,
        claim: Claim | None,
        rec: Record,
        data: bytes,
        link: bytes,
        leaf: str | None,
        on_landing: Callable[[], object] = lambda: None,
    ) -> Record:
        """Intent, write, landed where planned?, record. A write that fails leaves the file as it was; a record that
        cannot be written is made from the intent at the next look, so the bytes have landed all the same.
        """
        self.confirm_held()
        self.record.note_intent(Intent(rec.end, len(data), zlib.crc32(data), data[:64]))
        try:
            self.faults("append.after_intent")
            durable.write_all(self.fd, data)
        except OSError as exc:
            self._take_back(rec, data)
            raise ResourceError(f"{self.path}: could not append {len(data)} bytes: {exc}") from exc
        self.faults("append.after_write")
        landed_at = os.lseek(self.fd, 0, os.SEEK_CUR) - len(data)
        if landed_at != rec.end:
            slipped = Verdict("foreign_turn", f"somebody wrote at {rec.end} while our line went to {landed_at}")
            self.record.write(replace(rec, foreign=slipped.kind, foreign_detail=slipped.detail))
            if claim is not None:
                self._lose(claim, slipped)
            raise SessionTakeoverError(slipped, str(self.path))
        on_landing()
        if self.coarse_clock:
            durable.stamp_unique_mtime(self.fd)
        writer = self.process if rec.synced >= rec.end or rec.writer == self.process else "*"
        at_end = self.fingerprint()
        after = replace(
            rec, end=rec.end + len(data), link=link, leaf=leaf, fingerprint=at_end, writer=writer, adopted=None
        )
        self.record.write(after)
        self.faults("append.after_record")
        return after

    def _take_back(self, rec: Record, data: bytes) -> None:
        """A short write: cut our own torn tail, unless somebody else's bytes stand there too, and forget the intent."""
        tail = os.pread(self.fd, len(data), rec.end)
        if tail and os.fstat(self.fd).st_size == rec.end + len(tail) and data.startswith(tail):
            self.machine.truncate(self.fd, rec.end)
            rec = replace(rec, fingerprint=self.fingerprint())
        self.record.write(rec)

    # ── without the lock ─────────────────────────────────────────────────────────────────────────────────────────────

    def sync_of(self, claim: Claim) -> None:
        """Make durable what a turn has appended so far, unless it is. Any thread; at most one at a time for a turn.

        Raises: as `sync`.
        """
        landings, upto = claim.landings, Reached(claim.record.end, claim.record.link)  # what is there before it begins
        if landings > claim.landings_synced:
            self.sync()
            claim.landings_synced, claim.synced = landings, upto

    def sync(self) -> None:
        """fdatasync. Any thread. A failed sync is final for this process.

        Source: PostgreSQL 2018: after a failed sync the kernel may have dropped the pages; trying again proves nothing.
        """
        if self.failed is not None:
            raise ResourceError(f"{self.path}: an earlier sync failed ({self.failed}); restart this process")
        try:
            self.faults("transcript.before_sync")
            durable.sync_data(self.fd)
        except OSError as exc:
            self.failed = exc
            raise ResourceError(f"{self.path}: sync failed: {exc}; unknown what of it is durable") from exc
        self.faults("transcript.after_sync")

    def restore_unsynced(self, rec: Record) -> Record | None:
        """Another process left bytes behind the synced end: verify them, write them again, sync them. Write lock held.

        After a failed sync the kernel may show pages that will never reach the disk; writing them again makes them
        dirty. Returns None, with nothing done, if they are not what the chain says.
        """
        if rec.synced >= rec.end or rec.writer == self.process:
            return rec
        data = os.pread(self.fd, rec.end - rec.synced, rec.synced)
        link = rec.synced_link
        for raw in lines_of(data):
            link = fence_link(link, raw)
        if link != rec.link:
            return None
        self.write_again(rec.synced, rec.end)
        self.sync()
        fingerprint = self.fingerprint()
        return replace(rec, synced=rec.end, synced_link=rec.link, writer=self.process, fingerprint=fingerprint)

    def write_again(self, start: int, end: int) -> None:
        """Make what stands there dirty, so that the next sync writes it whatever became of earlier ones. Lock held."""
        if start >= end:
            return
        self.confirm_held()
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # without O_APPEND
        try:
            for block in iter_blocks(self.fd, start, end):
                self.machine.pwrite(fd, block, start)
                start += len(block)
        finally:
            os.close(fd)

    def prove(self, rec: Record) -> Proof:
        """Hash the prefix, outside the lock: one sweep to the anchor, then link by link. 0.7 to 2.2 s per GB.

        A file that is gone by now proves nothing; the next look says what became of it.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return Proof(Fingerprint(0, 0, 0, 0, 0), b"", b"", -1)
        try:
            at = os.fstat(fd)
            now = Fingerprint(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
            sweep = hashlib.sha256()
            for block in iter_blocks(fd, 0, rec.anchor):
                sweep.update(block)
            link = b""
            for raw in iter_lines(fd, rec.anchor, rec.end):
                link = fence_link(link, raw)
            return Proof(now, sweep.digest() if rec.anchor else b"", link, rec.end)
        finally:
            os.close(fd)
