"""Named points at which a test may kill, stop or hinder this process. Nothing happens at them otherwise.

A fault is a callable that is handed in through `holdfast.open(..., faults=…)` and called with the name of each point
as it is passed, on whatever thread passes it. It may end or stop the process, block, or raise what the disk could raise
there: `OSError` at the points of a transcript, `sqlite3.OperationalError` at `ledger.before_commit`.
`testing/faults.py` has the usual ones. A point with the default costs one call (40 ns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

Point = Literal[
    "accept.before_commit",  # the input's row is written, its transaction is open
    "accept.after_commit",  # durable, not acknowledged yet
    "claim.after_commit",  # the ledger has granted the turn, the fence record does not know
    "claim.after_record",  # the record knows too; the turn has not begun
    "append.after_intent",  # the record names what will be written; the transcript is untouched
    "append.after_write",  # the lines are in the file, the record still has the intent
    "append.after_record",  # the record has them; still under the write lock
    "lock_file.after_create",  # OpenClaw's lock file is there and empty (only with `lock_protocol = "openclaw"`)
    "lock_file.after_fill",  # it says that it is ours
    "lock_file.after_take_over",  # a stale one now says so; it does not count yet
    "lock_file.before_release",  # about to be removed; the kernel lock is still held
    "transcript.before_sync",  # before any sync of a transcript
    "transcript.after_sync",
    "settle.before_sync",  # the final line is written and not synced
    "settle.after_sync",  # the final line is durable, the ledger does not know
    "settle.after_commit",  # input, outbox and claim are settled; nobody has been told
    "delivery.after_started",  # `started` is durable, nothing has gone to the channel
    "delivery.after_send",  # the channel has taken it, the ledger does not know
    "preview.after_begin",  # the ledger knows that the beginning of an answer is about to be shown
    "preview.after_send",  # the channel has taken it, the ledger does not know what it is called
    "timer.before_commit",  # a timer has moved on, its transaction is open; the run's input is durable
    "timer.after_commit",  # the timer has moved on, nobody has been told
    "child.before_commit",  # a child is spawned or closed, its transaction is open
    "child.after_commit",  # it is spawned or closed, nobody has been told
    "approval.before_commit",  # a question is put, answered or used, its transaction is open
    "approval.after_commit",  # it is, and nobody has been told
    "background.before_commit",  # a program is about to be started in the background, has ended or is announced
    "background.after_commit",  # the ledger knows, nobody has been told
    "message.before_commit",  # a tool's message is queued and made known, its transaction is open
    "message.after_commit",  # it is, the call has no result
    "pairing.before_commit",  # an unknown sender was given a code, or was let in; its transaction is open
    "pairing.after_commit",  # they are, and nobody has been told
    "ledger.before_commit",  # before any commit of the ledger, inside its transaction
    "ledger.after_commit",  # after any commit, before anybody hears of it
]

POINTS: tuple[Point, ...] = get_args(Point)

Faults = Callable[[Point], None]


def no_faults(point: Point) -> None:  # the shape of every fault
    """The default: nothing happens."""
