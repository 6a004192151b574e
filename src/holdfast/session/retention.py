"""What may go: which conversations are put into the archive, which archives are deleted, and in which order. Pure.

Rules, in this order; each says why in the step it makes:

- `expired`: an archive older than its limit is deleted.
- `size`: a transcript of a job or heartbeat, of which each run is shown only its own part, is archived past its size.
- `age`: a conversation that nobody has used for so long is archived.
- `count`: past so many conversations, those that were unused the longest are archived.
- `disk`: past the budget archives are deleted, the oldest first; then what the rules above archive, and other
  conversations, the longest unused first, is archived and deleted, until what is left is under the low mark.

Never one with an open input, a running turn or an undelivered answer; `count` and `disk` leave alone what was used
within the last day. What cannot be freed for that is told (`Plan.short_bytes`, `Plan.surplus`). A stamp that lies in
the future counts as now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Why = Literal["expired", "size", "age", "count", "disk"]
SPARED_MS = 86_400_000
"""Used within a day: nobody's conversation disappears overnight because others are many or large."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A session as this looks at it.

    Args:
        id: of its transcript. used_at_ms: when it was last used, by people where it is theirs.
        busy: why it must be left alone, in words; empty: it need not.
        is_machine: of a job or heartbeat.
        is_empty: there is nothing to archive (it was just archived).
    """

    id: str
    used_at_ms: int
    bytes: int
    busy: str = ""
    is_machine: bool = False
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive. of: the id of the transcript it was."""

    id: str
    of: str
    at_ms: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """0 means no limit, in each of them.

    Args:
        machine_bytes_max: of one transcript of a job or heartbeat.
        bytes_max, bytes_low: the budget of transcripts and archives together, and to where it is brought down.
    """

    archive_after_ms: int = 0
    sessions_max: int = 0
    delete_after_ms: int = 0
    machine_bytes_max: int = 0
    bytes_max: int = 0
    bytes_low: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Args:
        what: "archive" a transcript; "delete" an archive; "discard": archive a transcript, then delete that archive.
    """

    what: Literal["archive", "delete", "discard"]
    id: str
    why: Why
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in this order.

    Args:
        short_bytes: bytes over the budget that nothing may be taken from; surplus: conversations over their number.
        total_bytes: of transcripts and archives, before.
    """

    steps: tuple[Step, ...] = ()
    short_bytes: int = 0
    surplus: int = 0
    total_bytes: int = 0


def plan(conversations: Iterable[Conversation], archives: Iterable[Kept], limits: Limits, now_ms: int) -> Plan:
    """What the limits ask for. Carried out, a second plan at the same moment is empty."""
    live = sorted(conversations, key=lambda one: (min(one.used_at_ms, now_ms), one.id))
    kept = sorted(archives, key=lambda one: (min(one.at_ms, now_ms), one.id))
    total = sum(one.bytes for one in live) + sum(one.bytes for one in kept)
    steps: list[Step] = []

    expired = {one.id for one in kept if limits.delete_after_ms and now_ms - one.at_ms >= limits.delete_after_ms}
    steps += [Step("delete", one.id, "expired", one.bytes) for one in kept if one.id in expired]
    remaining = [one for one in kept if one.id not in expired]

    why: dict[str, Why] = {}
    for one in live:
        if one.busy or one.is_empty:
            continue
        if one.is_machine and limits.machine_bytes_max and one.bytes > limits.machine_bytes_max:
            why[one.id] = "size"
        elif limits.archive_after_ms and now_ms - one.used_at_ms >= limits.archive_after_ms:
            why[one.id] = "age"
    counted = [one for one in live if not one.is_empty and one.id not in why]
    over = len(counted) - limits.sessions_max if limits.sessions_max else 0
    for one in counted:
        if over > 0 and _may_go(one, now_ms):
            why[one.id] = "count"
            over -= 1

    left = total - sum(step.bytes for step in steps)
    freed: list[Step] = []
    discarded: set[str] = set()
    if limits.bytes_max and left > limits.bytes_max:
        low = min(limits.bytes_low or limits.bytes_max, limits.bytes_max)
        for old in remaining:
            if left > low:
                freed.append(Step("delete", old.id, "disk", old.bytes))
                left -= old.bytes
        goes = [one for one in live if one.id in why or (_may_go(one, now_ms) and not one.is_empty)]
        for one in sorted(goes, key=lambda one: one.id not in why):
            if left > low and one.bytes:
                discarded.add(one.id)
                freed.append(Step("discard", one.id, "disk", one.bytes))
                left -= one.bytes
    steps += freed
    steps += [Step("archive", one.id, why[one.id], one.bytes) for one in live if one.id in why.keys() - discarded]
    short = max(0, left - limits.bytes_max) if limits.bytes_max else 0
    stay = sum(1 for one in counted if one.id not in why and one.id not in discarded)
    surplus = max(0, stay - limits.sessions_max) if limits.sessions_max else 0
    return Plan(tuple(steps), short, surplus, total)


def _may_go(one: Conversation, now_ms: int) -> bool:
    return not one.busy and now_ms - one.used_at_ms >= SPARED_MS
