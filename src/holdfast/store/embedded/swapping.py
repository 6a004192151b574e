"""Putting a transcript away and a new one in its place, or an archived one back. Whole files, by rename.

The owner of a turn does it, within one holding of the write lock. Putting away: a new file with a header and one line
that names the archive is written and synced beside the old one and locked, the old one gets a second name among the
archives, then the new one takes its place by a rename. Putting back: the archive gets a second name beside the
transcript and takes its place by a rename. At every instant the path names a whole transcript. What is true after a
crash is read off the disk (`is_put_away`, `is_put_back`); which of the two was going on, the ledger says.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from msgspec.structs import replace

from holdfast import ids
from holdfast.errors import TranscriptFormatError, TranscriptUnsettledError
from holdfast.session.branch import leaf_after
from holdfast.session.entries import ARCHIVED_TYPE, custom
from holdfast.session.fence import Record
from holdfast.session.lines import read_line
from holdfast.store.embedded import durable
from holdfast.store.embedded.baseline import CHAIN_AT_ONCE_BYTES, new_header
from holdfast.store.embedded.holding import TranscriptFile
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.mending import Pen, keep_original, remove_drafts
from holdfast.store.embedded.transcript_bytes import fence_link, iter_lines, open_transcript

FRESH_BYTES_MAX = 8192


def put_away(file: TranscriptFile, record: Record, kept_as: Path, about: dict[str, str], pen: Pen) -> Record:
    """Move the transcript to `kept_as` and begin a new one. Write lock held; the turn is ours; the old file is synced.

    Returns: the record of the new file, of the same epoch as `record`.

    Raises:
        OSError: the disk refused. The transcript is where it was, or `is_put_away` tells that it is not.
    """
    path, mark = file.path, ids.nonce()[:12]
    draft = path.with_name(f".{path.name}.draft-{mark}")
    remove_drafts(path)
    header = new_header(file, pen.clock)
    entry_id = ids.derived_id("archived", about["archive"])
    line = pen.stamp(custom(ARCHIVED_TYPE, about), entry_id, None)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = here().open(draft, flags, 0o600)
    try:
        durable.write_all(fd, header + line)
        durable.sync_data(fd)
        here().try_lock(fd)
        make_folder(kept_as.parent)
        file.confirm_held()
        kept_as.unlink(missing_ok=True)  # half a copy of a process that died, where names cannot be doubled
        keep_original(path, kept_as)
        durable.sync_folder(kept_as.parent)
        os.rename(draft, path)
        durable.sync_folder(path.parent)
    except BaseException:
        here().close(fd)  # and with it the lock: who follows the path to this file must get it
        draft.unlink(missing_ok=True)
        raise
    file.turn_to(fd)
    now = file.fingerprint()
    link = fence_link(fence_link(b"", header), line)
    return replace(
        record, fingerprint=now, end=now.size, leaf=entry_id, unjudged=-1, unjudged_off=(), adopted=None,
        link=link, anchor=0, anchor_digest=b"", synced=now.size, synced_link=link, writer=file.process,
    )  # fmt: skip


def put_back(file: TranscriptFile, record: Record, kept_as: Path) -> Record:
    """Put an archived transcript in the place of the one that is there, which is gone then. Write lock held; ours.

    Raises:
        TranscriptFormatError: the archive is no whole transcript any more; nothing was changed.
        OSError: the disk refused; `is_put_back` tells how far it got.
    """
    fd = _open_kept(kept_as)
    try:
        if not here().try_lock(fd):
            raise TranscriptUnsettledError(f"{kept_as}: another process holds it at this moment; try again")
        link, leaf, digest = _read_through(fd, kept_as)
        file.confirm_held()
        _take_place(kept_as, file.path)
    except BaseException:
        here().close(fd)
        raise
    file.turn_to(fd)
    now = file.fingerprint()
    is_large = now.size > CHAIN_AT_ONCE_BYTES  # anchored at its end, as a large file that is new to us
    link, anchor, whole = (b"", now.size, digest) if is_large else (link, 0, b"")
    return replace(
        record, fingerprint=now, end=now.size, leaf=leaf, unjudged=-1, unjudged_off=(), adopted=None,
        link=link, anchor=anchor, anchor_digest=whole, synced=now.size, synced_link=link, writer=file.process,
    )  # fmt: skip


def _take_place(kept_as: Path, path: Path) -> None:
    """By a second name, so that a power loss between the two folders cannot take both; where names cannot be doubled a
    rename has to do.
    """
    draft = path.with_name(f".{path.name}.draft-{ids.nonce()[:12]}")
    remove_drafts(path)
    try:
        os.link(kept_as, draft)
    except OSError:
        os.rename(kept_as, path)
        durable.sync_folder(path.parent)
    else:
        durable.sync_folder(path.parent)
        os.rename(draft, path)
        durable.sync_folder(path.parent)
        kept_as.unlink()
    durable.sync_folder(kept_as.parent)


def check(kept_as: Path) -> None:
    """Raises TranscriptFormatError: an archive that is no whole transcript any more."""
    fd = _open_kept(kept_as)
    try:
        _read_through(fd, kept_as)
    finally:
        here().close(fd)


def _open_kept(kept_as: Path) -> int:
    if not kept_as.exists():
        raise TranscriptFormatError(f"{kept_as} is not there any more; nothing was restored")
    return open_transcript(kept_as)


def _read_through(fd: int, kept_as: Path) -> tuple[bytes, str | None, bytes]:
    """Chain digest, leaf, and digest of all bytes."""
    link, leaf, digest, is_whole = b"", None, hashlib.sha256(), False
    for number, raw in enumerate(iter_lines(fd)):
        line = read_line(raw.removesuffix(b"\n"))
        is_whole = raw.endswith(b"\n") and (number > 0 or line.kind == "header")
        if not is_whole:
            break
        link, leaf = fence_link(link, raw), leaf_after(leaf, line)
        digest.update(raw)
    if not is_whole:
        raise TranscriptFormatError(f"{kept_as} is not a whole transcript any more; nothing was restored")
    return link, leaf, digest.digest()


def is_put_away(path: Path, kept_as: Path) -> bool:
    """Whether the archive stands for itself. An extra name of the transcript that is still in use is taken away. In
    doubt the archive is kept: nothing that was said is thrown away for a guess.
    """
    try:
        kept = os.lstat(kept_as)
    except FileNotFoundError:
        return False
    try:
        used = os.lstat(path)
    except FileNotFoundError:
        return True
    if not os.path.samestat(kept, used):
        return True
    kept_as.unlink()
    durable.sync_folder(kept_as.parent)
    return False


def fresh_bytes(path: Path, archive: str) -> int:
    """The length of the transcript if it is still as it began where this archive was put away, else 0."""
    data = path.read_bytes() if path.exists() and path.stat().st_size <= FRESH_BYTES_MAX else b""
    lines = [read_line(raw) for raw in data.splitlines()]
    is_fresh = len(lines) == 2 and lines[1].type == "custom" and archive.encode() in lines[1].raw
    return len(data) if is_fresh else 0


def is_put_back(path: Path, kept_as: Path) -> bool:
    """Whether the archive has taken its place again. A name that it still has among the archives is taken away."""
    if kept_as.exists():
        if not (path.exists() and os.path.samestat(os.lstat(path), os.lstat(kept_as))):
            remove_drafts(path)
            return False
        kept_as.unlink()
    durable.sync_folder(kept_as.parent)
    return True


def make_folder(folder: Path) -> None:
    """A folder among the archives, durable, mode 0700."""
    for one in (folder.parent, folder):
        if not one.exists():
            one.mkdir(mode=0o700, exist_ok=True)
            durable.sync_folder(one.parent)
