"""What a new owner starts from. Between turns anything may have happened: whatever parses becomes the baseline, what
nobody recorded is reported and not refused, and nothing that is there is damaged.

Runs with the write lock held, inside the claim's transaction.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from holdfast import ids
from holdfast.clock import Clock, iso
from holdfast.errors import ResourceError, TranscriptFormatError, TranscriptUnsettledError
from holdfast.session import fence
from holdfast.session.branch import leaf_after
from holdfast.session.entries import FORMAT_VERSION, SessionHeader, encode_line
from holdfast.session.fence import Epoch, Fingerprint, Intent, Record
from holdfast.session.lines import Line, read_line
from holdfast.session.mending import find_faults
from holdfast.store.embedded import durable
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.embedded.transcript_bytes import fence_link, iter_lines, lines_of, open_transcript

CHAIN_AT_ONCE_BYTES = 1024 * 1024
"""A file up to this size is chained from its start while claiming (about 2 ms); a larger one in the background."""
TAIL_BYTES = 64 * 1024
EPOCH_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """What the ledger knows to be durable of a transcript."""

    boot: str
    synced_end: int
    synced_link: bytes
    anchor: int
    anchor_digest: bytes | None
    fingerprint: Fingerprint | None
    epoch_number: int
    known_inode: int


@dataclass(slots=True)
class Baseline:
    """The record to start from (its epoch is still the old one), and what was noticed, in words for people.

    `faults`: why the file has to be written anew before anything is appended to it (`mending.py`), which is for whoever
    claims a turn to do. `version`: of its format.
    """

    record: Record
    findings: list[str] = field(default_factory=list)
    epoch_numbers: tuple[int, ...] = ()
    needs_background_chain: bool = False
    faults: list[str] = field(default_factory=list)
    version: int = FORMAT_VERSION

    def left_unjudged(self) -> Record:
        """The record for somebody who may not judge what was found: the next claimer will look at it again."""
        rec = self.record
        return replace(rec, unjudged=rec.end, unjudged_off=rec.hangs_off()) if self.faults else rec


def take_baseline(file: TranscriptFile, ledger: LedgerFacts, clock: Clock, *, thorough: bool = False) -> Baseline:
    """Look at the file as a new owner must. Fast when record and file agree: no byte of the transcript is read.

    Args:
        thorough: read all of it for what has to be mended, whatever its size and whoever wrote last (1 s per 200 MB).

    Raises:
        TranscriptFormatError: there is content, but no valid header before it. Nothing was touched.
        ResourceError: the disk, or a limit of this process, stands in the way.
    """
    try:
        baseline = _take(file, ledger, clock, thorough=thorough)
    except OSError as exc:
        raise ResourceError(f"{file.path}: {exc.strerror or exc}; nothing was claimed") from exc
    highest = max(baseline.epoch_numbers)
    if baseline.record.epoch.number < highest:  # whoever reads this record next may not have seen the file's lines
        baseline.record = replace(baseline.record, epoch=Epoch(highest, ""))
    return baseline


def _take(file: TranscriptFile, ledger: LedgerFacts, clock: Clock, *, thorough: bool) -> Baseline:
    rec = file.look()
    old = file.record.read() if rec is None else rec
    numbers = (old.epoch.number if old is not None else 0,)
    now = file.seen
    if now is None:
        return _begin_anew(file, clock, numbers, existed=ledger.known_inode != 0)
    if rec is not None and now == rec.fingerprint and rec.unjudged < 0:
        restored = file.restore_unsynced(as_settled(rec, ledger))
        if restored is not None:
            left = Baseline(restored, epoch_numbers=numbers)
            return _with_faults(file, left, thorough=True) if thorough else left
        return _with_faults(file, _damaged(file, rec, now, numbers), thorough=thorough)
    findings: list[str] = []
    if rec is None and ledger.boot and ledger.boot != boot_id():
        now = _set_aside_from_first_bad_line(file, now, ledger.synced_end, findings)
    now = _cut_torn_header(file, now)
    if now.size == 0:
        lost = rec is not None and rec.end > 0
        baseline = _write_header(file, clock, numbers)
        if lost and rec is not None:
            findings.append(f"the transcript was emptied between turns ({rec.end} bytes before)")
        baseline.findings = findings
        return baseline
    _require_header(file)
    if rec is not None:
        return _with_faults(file, _after_outsiders(file, rec, now, numbers), thorough=thorough)
    return _with_faults(file, _without_record(file, ledger, now, numbers, findings), thorough=thorough)


def _with_faults(file: TranscriptFile, baseline: Baseline, *, thorough: bool) -> Baseline:
    """Look for what has to be mended: throughout a small file, or if asked; else in the header and the last lines."""
    size = baseline.record.end
    header = next(iter_lines(file.fd, 0, size))
    baseline.version = read_line(header.removesuffix(b"\n")).version or FORMAT_VERSION
    if thorough or size <= CHAIN_AT_ONCE_BYTES:
        baseline.faults = find_faults(iter_lines(file.fd, 0, size))
    elif baseline.version < FORMAT_VERSION:
        baseline.faults = [f"session format {baseline.version}"]
    else:
        bad = [line for line in read_tail(file.fd, size) if line.kind == "blank" or line.id is None]
        baseline.faults = ["a line that cannot be read"] if bad else []
    return baseline


def as_settled(rec: Record, ledger: LedgerFacts) -> Record:
    """The record with what the ledger knows better: a settlement is committed after the sync of its transcript, and
    carries the end and the chain digest there. The record is not told each time; equal digests are equal bytes.
    """
    is_told = rec.boot == ledger.boot and rec.end == ledger.synced_end and rec.link == ledger.synced_link != b""
    return replace(rec, synced=rec.end, synced_link=rec.link) if is_told and rec.synced < rec.end else rec


def take_plain_baseline(file: TranscriptFile, ledger: LedgerFacts) -> Baseline | None:
    """The baseline where nobody has written since the record, and nothing of the transcript has to be read or synced:
    nearly always. None: not plain; nothing was done. Write lock held.
    """
    rec = file.look()
    if rec is None or rec.unjudged >= 0 or file.seen != rec.fingerprint:
        return None
    rec = as_settled(rec, ledger)
    if rec.synced < rec.end and rec.writer != file.process:
        return None
    return Baseline(rec, epoch_numbers=(rec.epoch.number,))


def _begin_anew(file: TranscriptFile, clock: Clock, numbers: tuple[int, ...], *, existed: bool) -> Baseline:
    file.path.parent.mkdir(mode=0o700, exist_ok=True)
    if not file.turn_to(open_transcript(file.path)):
        raise TranscriptUnsettledError(f"{file.path}: somebody else is making it at this moment; try again")
    baseline = _write_header(file, clock, numbers)
    if existed:
        baseline.findings.append("the transcript was deleted between turns; a new one was begun")
    return baseline


def new_header(file: TranscriptFile, clock: Clock) -> bytes:
    """The first line of a transcript that begins."""
    return encode_line(
        SessionHeader(
            version=FORMAT_VERSION,
            id=ids.derived_id("session", file.id, ids.nonce()),
            timestamp=iso(clock.now()),
            cwd=here().working_folder(),
        )
    )


def _write_header(file: TranscriptFile, clock: Clock, numbers: tuple[int, ...]) -> Baseline:
    raw = new_header(file, clock)
    file.confirm_held()
    file.record.note_intent(Intent(0, len(raw), zlib.crc32(raw), raw[:64]))
    try:
        durable.write_all(file.fd, raw)
    except OSError:
        file.machine.truncate(file.fd, 0)  # it was empty; half a header would make it no transcript for good
        raise
    try:
        file.machine.sync_data(file.fd)
    except OSError as exc:  # final, as in `file.sync`: what now shows may never be on the disk, so nobody builds on it
        file.failed = exc
        file.machine.truncate(file.fd, 0)
        raise
    _sync_name(file)
    now = file.fingerprint()
    link = fence_link(b"", raw)
    record = Record(
        boot_id(), Epoch(0, ""), "", file.process, now, now.size, link, None,
        synced=now.size, synced_link=link, writer=file.process, anchor_digest=b"",
    )  # fmt: skip
    return Baseline(record, epoch_numbers=numbers)


def _sync_name(file: TranscriptFile) -> None:
    """Make the file's name durable, and its folder's: whoever made them may have died before it did so."""
    durable.sync_folder(file.path.parent)
    durable.sync_folder(file.path.parent.parent)


def _cut_torn_header(file: TranscriptFile, now: Fingerprint) -> Fingerprint:
    """Whoever began the file died within its first line. Only what that writer's intent explains is cut."""
    intent = file.record.read_intent()
    if intent is None or intent.offset != 0 or not 0 < now.size < intent.length:
        return now
    if not intent.head.startswith(os.pread(file.fd, 64, 0)):
        return now
    file.confirm_held()
    file.machine.truncate(file.fd, 0)
    return file.fingerprint()


def _require_header(file: TranscriptFile) -> None:
    first = os.pread(file.fd, TAIL_BYTES, 0)
    line = read_line(first.split(b"\n", 1)[0])
    if line.kind != "header":
        raise TranscriptFormatError(
            f"{file.path} does not begin with a session header ({line.reason or line.kind}); it is left as it is: "
            "move it away, or repair its first line"
        )
    if line.version is not None and line.version > FORMAT_VERSION:
        raise TranscriptFormatError(
            f"{file.path} has session format {line.version}, newer than {FORMAT_VERSION}; upgrade"
        )


def _damaged(file: TranscriptFile, rec: Record, now: Fingerprint, numbers: tuple[int, ...]) -> Baseline:
    """What stands behind the synced end is not what was written there. None of it was ever acknowledged."""
    findings = [f"damage: bytes {rec.synced} to {rec.end} are not what was written there"]
    now = _close_torn_tail(file, now, findings)
    fresh = _synced(file, _chained(file, now, last_leaf(file.fd, now.size), rec), rec.synced)
    return Baseline(fresh, findings, numbers, needs_background_chain=not fresh.has_chain())


def _after_outsiders(file: TranscriptFile, rec: Record, now: Fingerprint, numbers: tuple[int, ...]) -> Baseline:
    """The record is of this boot, and somebody changed the file since."""
    findings: list[str] = []
    changed = fence.describe_identity_change(rec.fingerprint, now)
    leaf: str | None = None
    adopted: str | None = None
    keep_leaf = False
    if changed is not None:
        findings.append(f"the transcript was {changed.detail} between turns")
    else:
        start = rec.end if rec.unjudged < 0 else min(rec.unjudged, rec.end)
        tail = [read_line(raw) for raw in lines_of(os.pread(file.fd, now.size - start, start))]
        found = fence.classify_lines(tail, leaves=rec.hangs_off(), on_branch=lambda _: True)
        keep_leaf = found.kind == "adopted"
        adopted = (fence.newest_id(tail) or rec.adopted) if keep_leaf else None
        if tail or found.kind != "adopted":
            findings.append(f"between turns: {found.detail}")
    now = _close_torn_tail(file, now, findings)
    leaf = rec.leaf if keep_leaf else last_leaf(file.fd, now.size)
    synced_before = rec.synced if now.same_file(rec.fingerprint) else now.size
    if not now.same_file(rec.fingerprint):
        _sync_name(file)
    fresh = replace(_synced(file, _chained(file, now, leaf, rec), synced_before), adopted=adopted)
    return Baseline(fresh, findings, numbers, needs_background_chain=not fresh.has_chain())


def _without_record(
    file: TranscriptFile, ledger: LedgerFacts, now: Fingerprint, numbers: tuple[int, ...], findings: list[str]
) -> Baseline:
    """No record of this boot: a file never seen, a cleaned folder, or a restart of the machine."""
    now = _close_torn_tail(file, now, findings)
    in_file = _newest_epoch(file.fd, now.size)
    leaf = last_leaf(file.fd, now.size)
    blank = Record(boot_id(), Epoch(0, ""), "", file.process, now, now.size, b"", leaf, writer="*", anchor_digest=None)
    if ledger.fingerprint == now and ledger.synced_end == now.size:
        record = replace(
            blank, link=ledger.synced_link, anchor=ledger.anchor, anchor_digest=ledger.anchor_digest,
            synced=now.size, synced_link=ledger.synced_link,
        )  # fmt: skip
    else:
        _sync_name(file)  # no turn has been settled in this very file, whose maker is not known
        record = _chained(file, now, leaf, blank)
        findings += _differences_from_ledger(file, ledger, now)
    is_ours = ledger.synced_end > 0 or now.size <= CHAIN_AT_ONCE_BYTES  # a large file that is new to us is not written
    record = _synced(file, record, max(record.synced, ledger.synced_end) if is_ours else now.size)
    return Baseline(record, findings, (*numbers, in_file), needs_background_chain=not record.has_chain())


def _newest_epoch(fd: int, size: int) -> int:
    """The epoch of the last line that names one, looked for in the last `EPOCH_BYTES_MAX`; 0 if there is none."""
    tail_bytes = TAIL_BYTES
    while True:
        epochs = [line.origin.epoch for line in read_tail(fd, size, tail_bytes) if line.origin is not None]
        if any(epochs) or tail_bytes >= min(size, EPOCH_BYTES_MAX):
            return max(epochs, default=0)
        tail_bytes *= 8


def _differences_from_ledger(file: TranscriptFile, ledger: LedgerFacts, now: Fingerprint) -> list[str]:
    """What the last settlement said of the file, against what there is."""
    if not ledger.synced_end or not ledger.boot:
        return []
    if now.size < ledger.synced_end:
        return [f"damage: {ledger.synced_end - now.size} bytes are missing that were durable when a turn was settled"]
    if ledger.anchor == 0 and ledger.synced_end <= CHAIN_AT_ONCE_BYTES:
        link = b""
        for raw in iter_lines(file.fd, 0, ledger.synced_end):
            link = fence_link(link, raw)
        if link != ledger.synced_link:
            return [f"damage: bytes before offset {ledger.synced_end} are not what they were when a turn was settled"]
    return [f"no fence record for this file; {now.size - ledger.synced_end} bytes since the last settlement"]


def _chained(file: TranscriptFile, now: Fingerprint, leaf: str | None, rec: Record) -> Record:
    """A new chain: from the start for a small file; anchored at the end, its prefix unread, for a large one."""
    link, anchor = b"", 0
    anchor_digest: bytes | None = b""
    if now.size <= CHAIN_AT_ONCE_BYTES:
        for raw in iter_lines(file.fd, 0, now.size):
            link = fence_link(link, raw)
    else:
        anchor, anchor_digest = now.size, None
    return replace(
        rec, fingerprint=now, end=now.size, link=link, leaf=leaf, anchor=anchor, anchor_digest=anchor_digest,
        unjudged=-1, adopted=None, foreign="", foreign_detail="", synced_link=b"", synced=0, writer="*",
    )  # fmt: skip


def _synced(file: TranscriptFile, rec: Record, synced_before: int) -> Record:
    """Nothing that others have written is built upon before it is durable. What stands past the end that was durable
    before is written again: if somebody's sync of it has failed, the system shows it and will never write it.
    """
    file.write_again(synced_before, rec.end)
    file.sync()
    now = file.fingerprint()
    return replace(rec, fingerprint=now, synced=rec.end, synced_link=rec.link, writer=file.process)


def _close_torn_tail(file: TranscriptFile, now: Fingerprint, findings: list[str]) -> Fingerprint:
    """A tail that our own intent does not explain is never cut: it is closed with a newline and reported."""
    if now.size == 0 or os.pread(file.fd, 1, now.size - 1) == b"\n":
        return now
    file.confirm_held()
    durable.write_all(file.fd, b"\n")
    findings.append(f"torn tail: an unfinished line before offset {now.size} was closed with a newline")
    return file.fingerprint()


def _set_aside_from_first_bad_line(
    file: TranscriptFile, now: Fingerprint, synced_end: int, findings: list[str]
) -> Fingerprint:
    """After a power loss: every line past the last synced offset is checked; from the first bad one on it is set
    aside.
    """
    at = min(synced_end, now.size)
    for raw in iter_lines(file.fd, at, now.size):
        if not raw.endswith(b"\n") or read_line(raw).kind in ("malformed", "blank"):
            break
        at += len(raw)
    if at >= now.size:
        return now
    aside = file.path.with_name(f"{file.path.name}.aside-{ids.nonce()[:12]}")
    fd = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        durable.write_all(fd, os.pread(file.fd, now.size - at, at))
        durable.sync_data(fd)
    finally:
        os.close(fd)
    durable.sync_folder(file.path.parent)
    file.confirm_held()
    file.machine.truncate(file.fd, at)
    try:
        file.machine.sync_data(file.fd)
    except OSError as exc:
        file.failed = exc
        raise
    findings.append(
        f"after a restart of the machine {now.size - at} bytes from offset {at} were set aside as {aside.name}"
    )
    return file.fingerprint()


def read_tail(fd: int, size: int, tail_bytes: int = TAIL_BYTES) -> list[Line]:
    """The last whole lines, as many as stand in the last `tail_bytes` (at least one, however long it is)."""
    while True:
        start = max(0, size - tail_bytes)
        raws = lines_of(os.pread(fd, size - start, start))
        if start > 0:
            raws = raws[1:]
        if raws or start == 0:
            return [read_line(raw) for raw in raws]
        tail_bytes *= 8


def last_leaf(fd: int, size: int) -> str | None:
    """The id of the last line that has one (formats.md §2)."""
    tail_bytes = TAIL_BYTES
    while True:
        leaf: str | None = None
        for line in read_tail(fd, size, tail_bytes):
            leaf = leaf_after(leaf, line)
        if leaf is not None or tail_bytes >= size:
            return leaf
        tail_bytes *= 8


def hash_prefix(path: Path, anchor: int) -> tuple[Fingerprint, bytes]:
    """sha256 of [0, anchor) and the file as it was when that began. For the background; reads without any lock."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        at = os.fstat(fd)
        digest = hashlib.sha256()
        offset = 0
        while offset < anchor:
            block = os.pread(fd, min(1 << 20, anchor - offset), offset)
            if not block:
                break
            digest.update(block)
            offset += len(block)
        return Fingerprint(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns), digest.digest()
    finally:
        os.close(fd)
