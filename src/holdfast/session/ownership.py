"""Asking for a session and holding it: what every backend understands by a claim.

The right to extend a conversation is one claim per transcript, named by an epoch. Who asks says so in a
`ClaimRequest`; the answer is an owned turn, opaque to all but its backend, or `Busy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from holdfast.session.fence import Epoch, Verdict


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Who wants to own what.

    Args:
        nonce: 128 random bits as hex; the second half of the epoch to be.
        input_id: the accepted input to run, or None for a turn of the library without one.
        parent: the turn inside which this one was started, or None.
        lapsed: the epoch whose beat the asking process has watched stand still for the whole term, or None.
        thorough: read the transcript through although nobody has written since its owner left it, and whatever its
            size, and write it anew where other readers would stumble.
    """

    turn: str
    session: str
    transcript: str
    process: str
    lane: str
    nonce: str
    input_id: str | None = None
    parent: str | None = None
    lapsed: Epoch | None = None
    thorough: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """Not now.

    Args:
        why: "owned", "lane" (no free slot), "not next" (another input is before it), "not quiet" (more may follow it),
            "solo" (another input that is re-run alone is running) or "gone" (the input is not open any more).
        holder: who is in the way, in words.
        epoch: of the owner, when there is one.
        raised: the epoch that stands now, if a predecessor was closed on the way.
    """

    why: str
    holder: str
    epoch: Epoch | None = None
    raised: Epoch | None = None

    @property
    def is_final(self) -> bool:
        """Whether waiting for this very claim is pointless."""
        return self.why in ("gone", "not next", "not quiet", "solo")


class Owned(Protocol):
    """A granted claim, as the turn sees it."""

    @property
    def epoch(self) -> Epoch: ...

    @property
    def attempt(self) -> int:
        """1 for the first run of an input (or a turn without one)."""
        ...

    @property
    def lost(self) -> Verdict | None:
        """Why the turn is lost, or None while it is ours as far as is known."""
        ...

    @property
    def path(self) -> str:
        """The transcript's file, or what stands for it."""
        ...

    @property
    def findings(self) -> list[str]:
        """What was noticed about the transcript when it was claimed, in words for people."""
        ...

    @property
    def took_over(self) -> bool:
        """Whether a predecessor that had not ended in order was closed."""
        ...

    def has_landed(self, entry_id: str) -> bool:
        """Whether a line of this id was written before, by this turn or an earlier attempt at its input."""
        ...
