"""The lives of inputs, turns, deliveries, children, approvals, pairings, background programs and archives, as tables.

`docs/states.md` is drawn from them.

An illegal move raises and changes nothing. Terminal states are never reopened (promise P2).
"""

from __future__ import annotations

from holdfast.errors import HoldfastError

TERMINAL = frozenset({"answered", "steered", "merged", "superseded", "skipped", "cancelled", "failed"})

INPUT: dict[tuple[str, str], str] = {
    ("queued", "claim"): "running",
    ("queued", "cancel"): "cancelled",
    ("queued", "skip"): "skipped",
    ("queued", "merge"): "merged",
    ("queued", "steer"): "steered",
    ("queued", "fail"): "failed",
    ("queued", "supersede"): "superseded",  # salvage of a former owner while nobody has claimed it again
    ("queued", "answer"): "answered",  # its final line was found in the transcript
    ("running", "requeue"): "queued",  # its turn died, or yielded to a user
    ("running", "answer"): "answered",
    ("running", "cancel"): "cancelled",
    ("running", "skip"): "skipped",
    ("running", "fail"): "failed",
    ("running", "supersede"): "superseded",
}

TURN: dict[tuple[str, str], str] = {
    ("running", "settle"): "settled",
    ("running", "lose"): "settled",
    ("running", "die"): "settled",
}

DELIVERY: dict[tuple[str, str], str] = {
    ("pending", "start"): "started",
    ("started", "confirm"): "sent",
    ("started", "confirm_piece"): "pending",  # a long text goes out in pieces, each confirmed by itself
    ("started", "refuse"): "pending",
    ("started", "give_up"): "failed",
    ("started", "sender_died"): "unknown",
    ("started", "lose_track"): "unknown",  # its sender lives, but the channel could not say what became of it
    ("started", "resend_past_stalled"): "started",  # its sender stands still: somebody else sends a labelled copy
    ("started", "report_stalled"): "failed",
    ("unknown", "found"): "sent",
    ("unknown", "found_piece"): "pending",
    ("unknown", "not_found"): "pending",  # the platform says that it never arrived
    ("unknown", "resend_labelled"): "started",
    ("unknown", "repeat"): "started",  # in a way that makes no second message: under a key that is kept, or by an edit
    ("unknown", "report"): "failed",
    ("pending", "give_up"): "failed",
    ("pending", "expire"): "failed",  # nobody could send it for so long that it would surprise people now
    ("failed", "retry"): "pending",  # an operator's wish, and only that
    ("failed", "drop"): "dropped",
    ("pending", "drop"): "dropped",
    ("unknown", "drop"): "dropped",
}

CHILD: dict[tuple[str, str], str] = {
    ("queued", "claim"): "running",
    ("running", "requeue"): "queued",  # its turn died, or its process went away
    ("queued", "end"): "ended",  # it was stopped before it began, or no turn could be had
    ("running", "end"): "ended",
    ("ended", "announce"): "announced",  # its end is an input of its parent
    ("ended", "hush"): "stopped",  # together with its parent: nobody is told anew
}

APPROVAL: dict[tuple[str, str], str] = {
    ("pending", "approve"): "approved",
    ("pending", "deny"): "denied",
    ("pending", "expire"): "expired",  # nobody has answered in time
    ("approved", "use"): "used",  # the call runs, once
    ("pending", "void"): "void",  # its turn has ended, or was asked to
    ("approved", "void"): "void",
}

PAIRING: dict[tuple[str, str], str] = {
    ("unknown", "ask"): "pending",
    ("pending", "approve"): "approved",
    ("pending", "expire"): "expired",  # nobody has approved the code within the hour
    ("pending", "revoke"): "revoked",
    ("approved", "revoke"): "revoked",
    ("expired", "ask"): "pending",
    ("revoked", "ask"): "pending",
}

BACKGROUND: dict[tuple[str, str], str] = {
    ("running", "end"): "ended",  # by itself, by its limit, stopped, or lost with the process that ran it
    ("ended", "announce"): "announced",  # its end is an input of its session
    ("ended", "hush"): "stopped",  # together with the work of its session: nobody is told anew
}

ARCHIVE: dict[tuple[str, str], str] = {
    ("begun", "put_away"): "kept",  # the file is among the archives, a new one in its place
    ("begun", "drop"): "gone",  # it never got there
    ("kept", "restore"): "restoring",
    ("restoring", "put_back"): "gone",
    ("restoring", "drop"): "kept",  # it is still among the archives
    ("kept", "delete"): "deleting",
    ("deleting", "remove"): "gone",
}

TRANSITIONS: dict[str, dict[tuple[str, str], str]] = {
    "input": INPUT,
    "turn": TURN,
    "delivery": DELIVERY,
    "child": CHILD,
    "approval": APPROVAL,
    "pairing": PAIRING,
    "background": BACKGROUND,
    "archive": ARCHIVE,
}

OUTCOME_EVENT = {
    "answered": "answer",
    "superseded": "supersede",
    "skipped": "skip",
    "cancelled": "cancel",
    "failed": "fail",
    "steered": "steer",
    "merged": "merge",
}
"""Which event leads to which terminal state of an input."""


def states_of(machine: str) -> list[str]:
    """Every state of a table, by name."""
    moves = TRANSITIONS[machine]
    return sorted({before for before, _ in moves} | set(moves.values()))


class IllegalMoveError(HoldfastError):
    """A state machine was asked for a move its table does not have. Nothing was changed."""


def move(machine: str, state: str, event: str) -> str:
    """The state after `event`.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    try:
        return TRANSITIONS[machine][state, event]
    except KeyError:
        raise IllegalMoveError(f"{machine}: no move {event!r} from state {state!r}") from None
