"""What to do with an undelivered row: pure rules from what the store shows to the next step.

A row is a part of an answer. Parts of one target go out in order: only the first unfinished row of each target is
looked at, so a row that waits keeps its place and those behind it. A part that is too long for one message of its
channel goes out in pieces, one after another, each with a key, a confirmation and retries of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.outbox.chunks import cut, shown

RETRY_AFTER_S = (5.0, 25.0, 120.0, 600.0, 600.0)
"""Pauses before the second to sixth send of a refused piece; after that it has failed. Source: semantics.md 2.11."""

RETRY_AFTER_MAX_S = 3600.0
"""The longest pause a platform may ask for."""

STALLED_S = 90.0
"""A sender that lives (or of whom nobody can tell) and has recorded nothing for this long after the end of its longest
request stands still: as for turns (specification, "Who is alive")."""

STALE_S = 24 * 3600.0
"""What has stood still for so long (every gateway was down) is not sent unasked. Source: semantics.md 2.11, peers."""

POSSIBLE_DUPLICATE = "(may be a duplicate)"
"""Stands before a copy of which an earlier one may have arrived."""

Sender = Literal["nobody", "alive", "dead", "unknown"]
Step = Literal[
    "wait", "send", "note_death", "note_loss", "reconcile", "repeat", "resend_labelled", "report",
    "resend_past_stalled", "report_stalled", "expire",
]  # fmt: skip
OnUnknown = Literal["resend_labelled", "report"]


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A row as the store saw it. Handed back, it is what a compare-and-set compares.

    Args:
        state: "pending", "started" or "unknown" ("sent", "failed" once it has been moved there).
        attempts: sends begun for the piece that is next.
        process: whoever began the last send, or None.
        sender: whether that process lives; "nobody" while no send is under way.
        sent_chars, piece_chars: how much of `body` is confirmed; how much after that the next piece takes (0: not cut).
        due_in_s: 0 if it may be sent now.
        idle_s: for how long nothing has happened with it, by the wall clock.
    """

    id: str
    input_id: str
    session: str
    channel: str
    target: str
    part: int
    body: str
    sent_chars: int
    piece_chars: int
    label: str | None
    state: str
    attempts: int
    process: str | None
    sender: Sender
    due_in_s: float
    detail: str | None = None
    idle_s: float = 0.0

    @property
    def key(self) -> str:
        """The idempotency key of the next piece. It always names the same text: over retries, restarts, processes."""
        return self.id if self.sent_chars == 0 else f"{self.id}.{self.sent_chars}"

    @property
    def piece(self) -> str:
        """As its message shows it: a code block that was cut is closed, and opened again."""
        return shown(self.body, self.sent_chars, self.piece_chars)

    @property
    def is_last_piece(self) -> bool:
        return self.sent_chars + self.piece_chars >= len(self.body)


@dataclass(frozen=True, slots=True)
class Change:
    """What a move changes besides the state. None leaves a field as it is; an empty label takes it away."""

    detail: str | None = None
    retry_in_s: float = 0.0
    label: str | None = None
    piece_chars: int | None = None


NO_CHANGE = Change()


def next_step(
    row: OpenDelivery,
    *,
    is_ours: bool,
    reconciles: bool,
    on_unknown: OnUnknown,
    longest_request_s: float,
    watched_s: float,
    keeps_keys_s: float = 0.0,
    stale_s: float = STALE_S,
) -> Step:
    """What to do with a row that this process is not sending at the moment.

    Args:
        is_ours: whether this process began its last send.
        reconciles: whether the platform can be asked (and has not failed to answer too often).
        watched_s: for how long we have seen it as it is, on our own clock. A request of its dead sender may still
            be on its way for `longest_request_s`; before that nothing is asked, resent or given up.
        keeps_keys_s: for how long the platform makes no second message of the same key.
        stale_s: what has waited for longer is given up, for people to decide.

    A sender that stands still may go on at any time and send its unlabelled copy, so the platform's "not here" means
    nothing: only a labelled copy or a report may follow.
    """
    labelled = on_unknown == "resend_labelled" and row.attempts <= len(RETRY_AFTER_S)
    if row.state == "pending" and row.idle_s > stale_s:
        return "expire"
    if row.state == "pending":
        return "send" if row.due_in_s <= 0 else "wait"
    if row.state == "started":
        if is_ours or row.sender == "dead":
            return "note_loss" if is_ours else "note_death"
        if watched_s < longest_request_s + STALLED_S:
            return "wait"
        return "resend_past_stalled" if labelled else "report_stalled"
    if watched_s < longest_request_s:
        return "wait"
    if reconciles:
        return "reconcile"
    unknown_for_s = max(row.idle_s, watched_s)
    if row.attempts == 1 and row.label is None and may_repeat(unknown_for_s, longest_request_s, keeps_keys_s):
        return "repeat"
    return "resend_labelled" if labelled else "report"


def may_repeat(unknown_for_s: float, longest_request_s: float, keeps_keys_s: float) -> bool:
    """Whether a platform still keeps the key of a first send when a second one arrives. The first had begun at most
    twice the longest request before its fate was noted as unknown (else the note says that it is too late, by a label);
    the second takes at most one.
    """
    return unknown_for_s + 3 * longest_request_s < keeps_keys_s


def retry_in_s(attempts: int, asked_s: float | None = None) -> float | None:
    """The pause after the `attempts`th refusal, at least what the platform asked for; None: no further send."""
    if attempts > len(RETRY_AFTER_S):
        return None
    return max(RETRY_AFTER_S[attempts - 1], min(asked_s or 0.0, RETRY_AFTER_MAX_S))


def piece_chars_of(body: str, sent_chars: int, message_chars_max: int) -> int:
    """How much of `body` after what was sent goes into one message, with room for the label (`chunks.cut`)."""
    return cut(body, sent_chars, max(1, message_chars_max - len(POSSIBLE_DUPLICATE) - 1))
