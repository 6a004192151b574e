"""Writing a transcript anew: an older format is lifted, what cannot be read is set aside. Never in place.

The claimer of a turn does it, between the ledger's commit and the first use of the turn, in the same holding of the
write lock: the new file is written and synced beside the old one, locked, and put in its place by a rename. The old one
stays as `NAME.original-…`. Killed before the rename: a draft is left that nobody reads; after it: the next claimer
finds another file between turns, reads it and goes on. What is done is recorded in the file's last line.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from holdfast import ids
from holdfast.clock import Clock, iso
from holdfast.session.entries import CustomEntry, Origin, custom, encode_line, stamped
from holdfast.session.fence import Record
from holdfast.session.mending import REPAIR_TYPE, Mender
from holdfast.store.embedded import durable
from holdfast.store.embedded.baseline import CHAIN_AT_ONCE_BYTES
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.transcript_bytes import fence_link, iter_lines

WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pen:
    """In whose name the new lines are written, and when."""

    origin: Origin
    clock: Clock

    def stamp(self, entry: CustomEntry, entry_id: str, parent: str | None) -> bytes:
        at = iso(self.clock.now())
        return encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=at, origin=self.origin))


def mend(file: TranscriptFile, record: Record, pen: Pen) -> tuple[Record, list[str]]:
    """Write the transcript anew and put it in its place. Write lock held; the claim is granted.

    Returns:
        the record of the new file (of the same epoch as `record`), and what was done, in words.

    Raises:
        OSError: the disk refused; the old file is where it was.
    """
    path, mark = file.path, ids.nonce()[:12]
    original = path.with_name(f"{path.name}.original-{mark}")
    draft = path.with_name(f".{path.name}.draft-{mark}")
    remove_drafts(path)
    mender = Mender(pen.stamp)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = here().open(draft, flags, 0o600)
    try:
        written = _Written(fd)
        for raw in iter_lines(file.fd):
            written.add(mender.take(raw.removesuffix(b"\n")))
        told = mender.told()
        repair = custom(REPAIR_TYPE, {"found": told, "original": original.name})
        last_id = ids.derived_id("repair", mark)
        written.add(pen.stamp(repair, last_id, mender.leaf))
        written.flush()
        durable.sync_data(fd)
        here().try_lock(fd)
        file.confirm_held()
        keep_original(path, original)
        os.rename(draft, path)
        durable.sync_folder(path.parent)
    except BaseException:
        here().close(fd)
        draft.unlink(missing_ok=True)
        raise
    file.turn_to(fd)
    now = file.fingerprint()
    is_large = now.size > CHAIN_AT_ONCE_BYTES  # anchored at its end, as a large file that is new to us
    link, anchor, digest = (b"", now.size, written.digest.digest()) if is_large else (written.link, 0, b"")
    record = replace(
        record, fingerprint=now, end=now.size, leaf=last_id, unjudged=-1, unjudged_off=(), adopted=None,
        link=link, anchor=anchor, anchor_digest=digest, synced=now.size, synced_link=link, writer=file.process,
    )  # fmt: skip
    return record, [f"the transcript was mended ({what}); the original is kept as {original.name}" for what in told]


def remove_drafts(path: Path) -> None:
    """What a killed mender of this transcript has left. The write lock of the transcript is held."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}.draft-*"):
        draft.unlink(missing_ok=True)


class _Written:
    """What goes into the new file, in large pieces, with the chain digest over its lines."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()
        self.link = b""
        self.digest = hashlib.sha256()

    def add(self, line: bytes) -> None:
        if line:
            self.link = fence_link(self.link, line)
            self.digest.update(line)
            self._waiting += line
            if len(self._waiting) >= WRITE_BYTES:
                self.flush()

    def flush(self) -> None:
        durable.write_all(self._fd, bytes(self._waiting))
        self._waiting.clear()


def keep_original(path: Path, original: Path) -> None:
    """A second name for the old file, so that it is there at every instant; a copy where links are not to be had."""
    try:
        os.link(path, original)
    except OSError:
        shutil.copyfile(path, original)
        os.chmod(original, 0o600)
        fd = os.open(original, os.O_RDONLY | os.O_CLOEXEC)
        try:
            durable.sync_data(fd)
        finally:
            os.close(fd)
