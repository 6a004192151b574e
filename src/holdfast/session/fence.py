"""The fence, as plain functions: what is remembered about a transcript, and what a change to it means.

Nothing here reads or writes. The holding (`store/embedded/holding.py`) gathers facts under the write lock and asks.
DESIGN §3, "The prompt window", is the table; its rows are the six kinds of `Verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from holdfast.session.lines import Line, is_conversation, is_metadata, is_mirror

Kind = Literal["superseded", "unchanged", "advanced", "adopted", "foreign_turn", "tampered"]

ADOPTED_CHARS_MAX = 64
STRENGTH: dict[str, int] = {"unchanged": 0, "advanced": 1, "adopted": 2, "foreign_turn": 3, "tampered": 4}
"""Of several findings the strongest wins; `superseded` stands apart, since the epoch is compared before anything
else.
"""

DETAIL_BYTES_MAX = 200
"""A record, with its ids of up to 512 bytes, has to fit its slot."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found when the write lock was taken again.

    Args:
        kind: one of the six words.
        detail: how, in words ("truncated from 4096 to 1024 bytes"); empty when there is nothing to say.
        by: who superseded us (turn and process), else None.
        entries: ids of the lines met, oldest first, at most 64 of them.
    """

    kind: Kind
    detail: str = ""
    by: str | None = None
    entries: tuple[str, ...] = ()

    def is_takeover(self, fence_mode: str = "strict") -> bool:
        """Whether the turn has to stop. `fence_mode="warn"` lets a cleanly appended foreign turn pass."""
        return self.kind in ("superseded", "tampered") or (self.kind == "foreign_turn" and fence_mode != "warn")


class Epoch(NamedTuple):
    """A fencing token: a number that only grows and a random id; compared for equality as a whole."""

    number: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.number}:{self.nonce}"


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """Identity and times of a file, as `fstat` tells them. Times in nanoseconds."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: Fingerprint) -> bool:
        return self.dev == other.dev and self.ino == other.ino


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """What is about to be written, noted before it is: a torn tail is ours only if this explains it."""

    offset: int
    length: int
    crc32: int
    head: bytes  # the first 64 bytes


class Record(msgspec.Struct, frozen=True, array_like=True):
    """The fence record: what Holdfast itself last made of the transcript. Needs no sync and may vanish.

    `link` is the chain digest over the lines of [anchor, end): sha256(previous link + line). A file that was there
    before Holdfast is anchored at its end; `anchor_digest` is sha256 of [0, anchor) once that has been read (None
    until then). `synced` is the durable end and `synced_link` the digest there; `writer` is the process that wrote all
    that stands behind it ("*": several did).
    `unjudged` is the first offset that a metadata writer met and did not judge, -1 if there is none; `unjudged_off` are
    the ids that the line there may hang off.
    `adopted` is the last line that was adopted since our own last one (others take it for the leaf).
    `foreign` is the strongest foreign finding since the epoch was raised ("" if none).
    """

    boot: str
    epoch: Epoch
    turn: str
    process: str
    fingerprint: Fingerprint
    end: int
    link: bytes
    leaf: str | None
    anchor: int = 0
    anchor_digest: bytes | None = b""
    synced: int = 0
    synced_link: bytes = b""
    writer: str = ""
    unjudged: int = -1
    foreign: str = ""
    foreign_detail: str = ""
    unjudged_off: tuple[str | None, ...] = ()
    adopted: str | None = None

    def hangs_off(self) -> tuple[str | None, ...]:
        """What the first line that nobody has judged may name as its parent."""
        if self.unjudged >= 0:
            return self.unjudged_off
        return (self.leaf,) if self.adopted is None else (self.leaf, self.adopted)

    def has_chain(self) -> bool:
        """Whether the whole prefix can be proven."""
        return self.anchor_digest is not None


@dataclass(frozen=True, slots=True)
class Proof:
    """A prefix that was read outside the lock: what it hashed to, and the file as it was then."""

    fingerprint: Fingerprint
    anchor_digest: bytes
    link: bytes
    end: int


def classify_lines(lines: Iterable[Line], *, leaves: Iterable[str | None], on_branch: Callable[[str], bool]) -> Verdict:
    """What unrecorded whole lines, cleanly appended after a proven prefix, amount to.

    Args:
        leaves: ids that pass for the active leaf before them (None: the file has no entry).
        on_branch: whether an id lies on the active branch; asked for mirrors only.

    Returns:
        `adopted`, `foreign_turn` or `tampered`, with the ids met.
    """
    found: Kind = "adopted"
    detail = ""
    ids: list[str] = []
    accepted = set(leaves)
    known = frozenset(accepted)

    def stronger(kind: Kind, how: str) -> None:
        nonlocal found, detail
        if STRENGTH[kind] > STRENGTH[found]:
            found, detail = kind, how

    for line in lines:
        if line.id:
            if line.id in ids or line.id in known:
                stronger("tampered", f"entry id {line.id} used twice")
            ids.append(line.id)
        if line.kind == "header":
            stronger("tampered", "a second session header")
        elif line.kind in ("malformed", "blank"):
            stronger("tampered", f"malformed line: {line.reason or 'blank'}")
        elif line.kind == "unknown":
            stronger("tampered", f"unknown entry type {line.type!r}")
        elif is_mirror(line):
            if line.parent is not None and line.parent not in accepted and not on_branch(line.parent):
                stronger("foreign_turn", f"mirror {line.id} hangs off {line.parent}, not on the active branch")
            accepted.add(line.id)
        elif is_conversation(line):
            role = f" ({line.message_role})" if line.message_role else ""
            stronger("foreign_turn", f"{line.type}{role} {line.id or ''} appended by somebody else".replace("  ", " "))
        elif not is_metadata(line):
            stronger("tampered", f"unknown entry type {line.type!r}")
        elif not line.has_parent or line.parent not in accepted:
            stronger("foreign_turn", f"{line.type} {line.id or ''} hangs off {line.parent}, not off the active leaf")
        else:
            accepted.add(line.id)
    if not detail:
        detail = f"{len(ids)} line(s) that are not conversation" if ids else "only times, mode or link count changed"
    return Verdict(found, _cut(detail), entries=tuple(ids[:64]))


def newest_id(lines: Sequence[Line]) -> str | None:
    """The id that others now take for the leaf; None if there is none, or if it is longer than a record can keep."""
    ids = [line.id for line in lines if line.id]
    return ids[-1] if ids and len(ids[-1]) <= ADOPTED_CHARS_MAX else None


def _cut(detail: str) -> str:
    """Others' ids stand in it: half an emoji is written as an escape."""
    return detail.encode("utf-8", "backslashreplace")[:DETAIL_BYTES_MAX].decode("utf-8", "ignore")


def strongest(*verdicts: Verdict) -> Verdict:
    """Of several findings the one lowest in the table."""
    return max(verdicts, key=lambda v: STRENGTH[v.kind])


def describe_identity_change(before: Fingerprint, now: Fingerprint | None) -> Verdict | None:
    """`tampered` if the file is gone, another one, or shorter than what is recorded; None if it may have only grown."""
    if now is None:
        return Verdict("tampered", "deleted")
    if not before.same_file(now):
        return Verdict("tampered", "replaced by another file")
    if now.size < before.size:
        return Verdict("tampered", f"truncated from {before.size} to {now.size} bytes")
    return None


def next_epoch_number(*known: int) -> int:
    """New epochs exceed those of ledger, record and transcript."""
    return max(known, default=0) + 1
