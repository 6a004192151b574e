"""OpenClaw's lock file beside a transcript: what it says, and what that means. Only when `lock_protocol = "openclaw"`.

Bytes, facts about the process they name, and ages come in; a `Finding` goes out: free, ours, held, stale (with
reasons), damaged and young, damaged and old. The rules are OpenClaw's (2026.5.22 and 2026.5.28), so that both programs
judge one file alike. Facts are gathered, and files taken and removed, in `store/embedded/openclaw_lock.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

STALE_MS = 1_800_000
"""OpenClaw's `session.writeLock.staleMs`: a lock created longer ago is stale whoever holds it."""
DAMAGED_GRACE_MS = 5_000
"""A file that names no process, or no time, may be one that is just being filled: it is left alone for so long."""
MAX_HOLD_MS_MAX = 2_147_483_647
"""The longest that a timer of OpenClaw's runtime can wait; what is written into a lock file is capped to it."""
TEXT_BYTES_MAX = 65_536
"""A lock file is about 110 bytes. Of a longer one the beginning is looked at, which then says nothing."""

Kind = Literal["free", "ours", "held", "stale", "damaged_young", "damaged_old"]
Reason = Literal[
    "missing-pid",
    "dead-pid",
    "recycled-pid",
    "invalid-createdAt",
    "too-old",
    "hold-exceeded",
    "non-openclaw-owner",
    "orphan-self-pid",
]
_DAMAGE = frozenset[Reason](["missing-pid", "invalid-createdAt"])
_OF_THE_DEAD = frozenset[Reason](["dead-pid", "recycled-pid", "non-openclaw-owner", "orphan-self-pid"])


@dataclass(frozen=True, slots=True)
class LockText:
    """What a lock file says. None: not there, or not of its type; a `starttime` that makes no sense is not compared."""

    pid: int | None = None
    created_ms: int | None = None
    max_hold_ms: int | None = None
    starttime: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What this machine knows of a process id. `starttime`: clock ticks since boot, so it differs between two processes
    of one boot and, but for an accident, between boots. None: cannot be known here, and speaks against nobody.
    """

    alive: bool
    starttime: int | None = None
    arguments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who judges: our own process id, and whether this process holds this very lock file at the moment."""

    pid: int
    holds_it: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a lock file means. `reasons` are OpenClaw's words, in its order."""

    kind: Kind
    reasons: tuple[Reason, ...] = ()
    text: LockText = LockText()

    @property
    def may_be_taken_over(self) -> bool:
        """By whoever waits for the lock."""
        return self.kind in ("stale", "damaged_old")

    @property
    def may_be_swept(self) -> bool:
        """By whoever tidies and waits for nothing: a live owner that is merely late keeps its lock file."""
        return self.kind == "damaged_old" or (self.kind == "stale" and not _OF_THE_DEAD.isdisjoint(self.reasons))

    @property
    def owner(self) -> str:
        """`pid=123`, or `unknown`."""
        return "unknown" if self.text.pid is None else f"pid={self.text.pid}"


FREE = Finding("free")


def read_lock(raw: bytes) -> LockText:
    """Whatever of a lock file makes sense; never raises."""
    try:
        value: Any = msgspec.json.decode(raw[:TEXT_BYTES_MAX])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return LockText()
    if not isinstance(value, dict):
        return LockText()
    pid = _whole(value.get("pid"))
    max_hold = _whole(value.get("maxHoldMs"))
    starttime = _whole(value.get("starttime"))
    return LockText(
        pid if pid is not None and pid > 0 else None,
        _epoch_ms(value.get("createdAt")),
        max_hold if max_hold is not None and max_hold > 0 else None,
        starttime if starttime is not None and starttime >= 0 else None,
    )


def write_lock(pid: int, created_ms: int, max_hold_ms: int, starttime: int | None, *, length: int = 0) -> bytes:
    """A lock file as OpenClaw writes it. `length`: at least so long, with spaces before the last newline, so that it
    covers an older text when it is written over it in one call.
    """
    at = datetime.fromtimestamp(created_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = {"pid": pid, "createdAt": at, "maxHoldMs": min(max_hold_ms, MAX_HOLD_MS_MAX)}
    if starttime is not None:
        fields["starttime"] = starttime
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).ljust(length - 1) + b"\n"


def judge(
    raw: bytes | None,
    facts: ProcessFacts | None,
    asker: Asker,
    *,
    now_ms: int,
    mtime_ms: int,
    stale_ms: int = STALE_MS,
    respect_max_hold: bool | None = None,
) -> Finding:
    """What the lock file means for who asks.

    Args:
        raw: its bytes; None: there is none.
        facts: of the process that it names (`read_lock(raw).pid`); None where it names none.
        now_ms, mtime_ms: by the wall clock, which is all that two programs share.
        respect_max_hold: whether a hold past the file's own `maxHoldMs` counts; None: except for our own process.
    """
    if raw is None:
        return FREE
    text = read_lock(raw)
    if text.pid == asker.pid and asker.holds_it:
        return Finding("ours", (), text)
    if respect_max_hold is None:
        respect_max_hold = text.pid != asker.pid
    reasons = (
        *_of_pid(text, facts),
        *_of_time(text, now_ms, stale_ms, respect_max_hold),
        *_of_owner(text, facts, asker),
    )
    if not reasons:
        return Finding("held", (), text)
    if _DAMAGE.issuperset(reasons):
        is_old = now_ms - mtime_ms > min(stale_ms, DAMAGED_GRACE_MS)
        return Finding("damaged_old" if is_old else "damaged_young", reasons, text)
    return Finding("stale", reasons, text)


def looks_like_openclaw(arguments: Sequence[str]) -> bool:
    """Whether OpenClaw takes a command line for one of its own. A process that holds the lock file has to, else its
    lock is stolen at once.
    """
    words = [argument.lower().replace("\\", "/") for argument in arguments]
    if not words:
        return False
    program = words[0]
    for ending in (".exe", ".cmd", ".bat"):
        program = program.removesuffix(ending)
    if program == "openclaw" or program.endswith(("/openclaw", "/openclaw-gateway")):
        return True
    if any(word in ("openclaw", "openclaw.mjs") or word.endswith(("/openclaw", "/openclaw.mjs")) for word in words):
        return True
    scripts = ("dist/index.js", "dist/entry.js", "scripts/run-node.mjs", "src/entry.ts", "src/index.ts")
    return any(word.endswith(scripts) for word in words) and not {"gateway", "agent"}.isdisjoint(words)


# ── the rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_pid(text: LockText, facts: ProcessFacts | None) -> tuple[Reason, ...]:
    if text.pid is None:
        return ("missing-pid",)
    if facts is None or not facts.alive:
        return ("dead-pid",)
    if text.starttime is not None and facts.starttime is not None and text.starttime != facts.starttime:
        return ("recycled-pid",)
    return ()


def _of_time(text: LockText, now_ms: int, stale_ms: int, respect_max_hold: bool) -> tuple[Reason, ...]:
    if text.created_ms is None:
        return ("invalid-createdAt",)
    reasons: list[Reason] = []
    age_ms = now_ms - text.created_ms
    if age_ms > stale_ms:
        reasons.append("too-old")
    if respect_max_hold and text.max_hold_ms is not None and age_ms > text.max_hold_ms:
        reasons.append("hold-exceeded")
    return tuple(reasons)


def _of_owner(text: LockText, facts: ProcessFacts | None, asker: Asker) -> tuple[Reason, ...]:
    """A live process that cannot be the owner: another program's, or our own, which knows what it holds."""
    if text.pid is None or facts is None or not facts.alive:
        return ()
    reasons: list[Reason] = []
    if facts.arguments and not looks_like_openclaw(facts.arguments):
        reasons.append("non-openclaw-owner")
    if text.pid == asker.pid and text.starttime is not None and text.starttime == facts.starttime:
        reasons.append("orphan-self-pid")
    return tuple(reasons)


def _whole(value: object) -> int | None:
    """A whole number, in whichever way JSON wrote it (`12`, `12.0`, `1.2e1`)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _epoch_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
