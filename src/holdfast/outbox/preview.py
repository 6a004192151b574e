"""What of an answer is shown while it is being written. Pure.

A preview is the message that will become the answer: it carries the key of the delivery and ends in an ellipsis, so
that nobody takes it for one. It is in the ledger before it is sent; whoever delivers the answer edits it, and only then
is it forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.outbox.chunks import cut, fence_at, shown
from holdfast.outbox.outbox import STALLED_S, Sender

Mode = Literal["off", "partial", "block"]
CHARS_MIN = 24
"""Less than that is not worth a message; and more than the word by which an agent says nothing (`NO_REPLY`)."""
GOES_ON = "…"


@dataclass(frozen=True, slots=True)
class Preview:
    """A row as the store saw it.

    Args:
        id: of the delivery that it becomes. input_id: what is being answered.
        process: whoever shows it. life: whether that lives.
        reference: the platform's name for it; None: nobody has heard of it yet.
    """

    id: str
    input_id: str
    channel: str
    target: str
    process: str
    reference: str | None = None
    life: Sender = "alive"


def preview_text(text: str, mode: Mode, message_chars_max: int) -> str:
    """What is shown of an answer that has come so far; empty: nothing yet.

    Args:
        mode: "partial": whatever has come; "block": paragraphs that are done, a block of code counting as one.
    """
    if mode == "off":
        return ""
    text = text.rstrip() if mode == "partial" else text[: _end_of_paragraphs(text)].rstrip()
    if len(text) < CHARS_MIN:
        return ""
    piece = shown(text, 0, cut(text, 0, message_chars_max - 16))
    fence = fence_at(piece, len(piece)) or (fence_at(f"{piece}\n", len(piece) + 1))
    if fence is not None:
        return f"{piece}\n{fence.marker}\n{GOES_ON}"
    return f"{piece}\n{GOES_ON}" if piece.endswith(("```", "~~~")) else f"{piece} {GOES_ON}"


def _end_of_paragraphs(text: str) -> int:
    at = text.rfind("\n\n")
    while at > 0 and fence_at(text, at + 2) is not None:
        at = text.rfind("\n\n", 0, at)
    return max(at, 0)


def may_finish(preview: Preview, *, is_ours: bool, watched_s: float, longest_request_s: float) -> bool:
    """Whether somebody may make the answer of it now.

    Args:
        is_ours: this process shows it, and nothing of that is under way any more.
        watched_s: for how long this process knows of it.

    A request of a dead process may still be on its way, and would put the beginning in place of the answer. One that
    lives makes the answer of it itself, unless it stands still.
    """
    if is_ours:
        return True
    return watched_s >= longest_request_s + (0.0 if preview.life == "dead" else STALLED_S)
