"""The contract of a channel: what a platform's adapter has to do, and what it may be relied on for.

An adapter sends one message per call and says truthfully what became of it:

- `Sent`: the platform has confirmed it.
- `ChannelRefusedError`: it has certainly not arrived and will not. `permanent` if trying again cannot help (no such
  chat, bot blocked, message not allowed); a rate limit is not permanent and may carry `retry_after_s`.
- `SendUnknownError`: it may or may not have arrived (connection lost after the request went out, no answer, an answer
  that makes no sense). Whenever in doubt, this one. Any other exception counts as this one too.

`request.delivery_id` is the idempotency key: stable over retries, restarts and processes. An adapter hands it to the
platform if the platform keeps keys, or puts it where `find` can see it again.

When a call ends, in whatever way, nothing more of it goes out: no retries in the background, and cancelling closes the
connection. Calls for different targets run at the same time; for one target they come one after another. An adapter
keeps no state that a restart would lose; what it was told by the platform and needs later it asks for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from holdfast.outbox.outbox import OnUnknown


@dataclass(frozen=True, slots=True)
class ChannelTraits:
    """What a channel can do; asked for, never guessed.

    Args:
        reconciles: `find` gives a trustworthy answer once `longest_request_s` has passed.
        longest_request_s: no request is cut off later than this, by us or by the platform. A send that takes longer is
            cancelled and its fate is unknown.
        text_max: code points in one message, label included; at least 100. Longer texts go out in pieces, each with a
            key of its own (`outbox/chunks.py`).
        counts_utf16: `text_max` is in units of UTF-16, of which an emoji takes two.
        keeps_keys_s: for how long the platform keeps keys, at least: a request with the same one and the same target
            makes no second message within that time, but confirms the first, which then shows its text. 0: not at all.
        on_unknown: what to do where `find` cannot tell: "resend_labelled" (say it again, marked as a possible
            duplicate) or "report" (do not; show it as failed, with the reason).
    """

    reconciles: bool = False
    longest_request_s: float = 30.0
    text_max: int = 4000
    keeps_keys_s: float = 0.0
    on_unknown: OnUnknown = "resend_labelled"
    counts_utf16: bool = False

    def room_of(self, text: str, start: int = 0) -> int:
        """How many code points one message holds, of `text` from `start` on: fewer, where some of them count twice."""
        piece = text[start : start + self.text_max] if self.counts_utf16 else ""
        if piece.isascii():
            return self.text_max
        wide = 0
        for chars, character in enumerate(piece):
            if chars + wide >= self.text_max:
                break
            wide += character > "\uffff"
        return self.text_max - wide


@dataclass(frozen=True, slots=True)
class SendRequest:
    """One message. `label` marks a copy of which an earlier one may have arrived; None as a rule. `preview`: it is
    shown while the answer is being written; an edit with the same key makes it the answer (`listening.Editor`).
    """

    delivery_id: str
    target: str
    text: str
    label: str | None = None
    preview: bool = False

    @property
    def labelled_text(self) -> str:
        """The text as the user should see it."""
        if self.label is None:
            return self.text
        return f"{self.label}\n{self.text}" if self.text.startswith(("```", "~~~")) else f"{self.label} {self.text}"


@dataclass(frozen=True, slots=True)
class Sent:
    """The platform has it.

    Args:
        reference: the platform's own name for the message; where messages can be edited, what `edit` takes.
        preview: said by `find`: it is the beginning of an answer that was shown, not yet the answer.
    """

    reference: str | None = None
    preview: bool = False


class Channel(Protocol):
    """One platform's adapter. The contract in words is at the top of this file."""

    @property
    def name(self) -> str:
        """What routes call it, e.g. "console"."""
        ...

    @property
    def traits(self) -> ChannelTraits: ...

    async def send(self, request: SendRequest) -> Sent:
        """Send one message.

        Raises:
            ChannelRefusedError: it has not arrived and will not.
            SendUnknownError: nobody knows.

        Cancelled: nothing more goes out; whether it arrived is unknown.
        """
        ...

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        """Whether a message with this key has arrived; asked only if `traits.reconciles`.

        Returns: what arrived, or None: it has certainly not. What was sent as a preview and has not become the answer
            since is told by `Sent.preview`.

        Raises:
            SendUnknownError, ChannelRefusedError: the platform cannot be asked now; it is asked again later.
        """
        ...
