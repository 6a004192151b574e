"""What to do with an undelivered row: pure rules from what the store shows to the next step.

A row is a part of an answer. Parts of one target go out in order: only the first unfinished row of each target is looked
at, so a row that waits keeps its place and those behind it. Retries and their limit: semantics.md 2.11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RETRY_AFTER_S = (5.0, 25.0, 120.0, 600.0, 600.0)
"""Pauses before the second to sixth send of a refused piece; after the sixth it has failed."""

RETRY_AFTER_MAX_S = 3600.0
"""The longest pause a platform may ask for."""

POSSIBLE_DUPLICATE = "(may be a duplicate)"
"""Stands before a copy of which an earlier one may have arrived."""

Sender = Literal["nobody", "alive", "dead", "unknown"]
Step = Literal["wait", "send", "note_death", "reconcile", "resend_labelled", "report"]
OnUnknown = Literal["resend_labelled", "report"]


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """The first unfinished row of a target, as the store saw it. Handed back, it is what a compare-and-set compares.

    Args:
        state: "pending", "started" or "unknown" ("sent", "failed" once it has been moved there).
        attempts: sends begun for the piece that is next.
        process: whoever began the last send, or None.
        sender: whether that process lives; "nobody" while no send is under way.
        sent_chars: how much of `body` has been confirmed, in pieces.
        due_in_s: 0 if it may be sent now.
    """

    id: str
    input_id: str
    session: str
    channel: str
    target: str
    part: int
    body: str
    label: str | None
    state: str
    attempts: int
    process: str | None
    sender: Sender
    sent_chars: int
    due_in_s: float

    @property
    def key(self) -> str:
        """The idempotency key of the piece that is next: stable over retries, restarts and processes."""
        return self.id if self.sent_chars == 0 else f"{self.id}.{self.sent_chars}"

    @property
    def rest(self) -> str:
        return self.body[self.sent_chars :]


def next_step(
    row: OpenDelivery, *, reconciles: bool, on_unknown: OnUnknown, longest_request_s: float, watched_s: float
) -> Step:
    """What to do with a row now.

    Args:
        watched_s: for how long we have seen it as "unknown", on our own clock. A request of its dead sender may still be
            on its way for `longest_request_s`; before that nothing is asked, resent or given up.
    """
    if row.state == "pending":
        return "send" if row.due_in_s <= 0 else "wait"
    if row.state == "started":
        return "note_death" if row.sender == "dead" else "wait"
    if watched_s < longest_request_s:
        return "wait"
    if reconciles:
        return "reconcile"
    if on_unknown == "resend_labelled" and row.attempts <= len(RETRY_AFTER_S):
        return "resend_labelled"
    return "report"


def retry_in_s(attempts: int, asked_s: float | None) -> float | None:
    """The pause after the `attempts`th refusal, at least what the platform asked for; None: no further send."""
    if attempts > len(RETRY_AFTER_S):
        return None
    return max(RETRY_AFTER_S[attempts - 1], min(asked_s or 0.0, RETRY_AFTER_MAX_S))


def cut_piece(text: str, chars_max: int) -> str:
    """The beginning of `text` that fits into one message: up to a paragraph's, line's or word's end in its second half."""
    if len(text) <= chars_max:
        return text
    for end in ("\n\n", "\n", " "):
        at = text.rfind(end, chars_max // 2, chars_max)
        if at >= 0:
            return text[: at + len(end)] if at + len(end) <= chars_max else text[: at + 1]
    return text[:chars_max]
