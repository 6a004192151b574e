"""What old lines were turned into for a model, kept from one request to the next.

A line never changes once it is written, so its message need not be made again: it is found by the line's own bytes, and
by what the plan takes away from it. What a provider's library makes of a message is found by the message itself, as
long as that is the same object, and by the provider it was made for. A wrong hit cannot be: whoever writes another line
in the place of an old one has written other bytes.

Only what the newest plan and the newest requests have used is kept, so that what a compaction, another branch or a new
conversation has put out of sight is forgotten with the next request. A session that was lost to somebody else is
forgotten at once. Messages that are kept are shared: nobody may change them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.context.repair import Message
from holdfast.session.lines import Line

LINE_BYTES_MAX = 64 * 1024
"""Longer lines (images) are made anew each time: few, and each would push out a conversation."""
SESSION_BYTES_MAX = 4 * 1024 * 1024
"""Of lines, for one session: what fits the largest windows. In memory it is about four times as much."""
BYTES_MAX = 32 * 1024 * 1024
"""Of lines, for all sessions."""
PROVIDERS_MAX = 3
"""Forms of one conversation that are kept: the model that answers, and those it falls back on."""


@dataclass(slots=True)
class Conversions:
    """Of one session."""

    bytes: int = 0
    _shown: dict[tuple[bytes, bool, bool], Message] = field(default_factory=dict)
    _converted: OrderedDict[Hashable, dict[int, tuple[Message, Any]]] = field(default_factory=OrderedDict)
    made: int = 0  # how many messages were made since the beginning; for those who measure

    def messages(
        self, lines: Sequence[tuple[Line, bool, bool]], make: Callable[[Line, bool, bool], Message | None]
    ) -> list[Message | None]:
        """What is shown of each of these lines, None: nothing. Forgets all others.

        Args:
            lines: each with what is taken away from it: thinking, its provider's count.
            make: makes a message of a line and these two.
        """
        known, used, size = self._shown, dict[tuple[bytes, bool, bool], Message](), 0
        messages: list[Message | None] = []
        for line, no_thinking, no_usage in lines:
            raw = line.raw
            key = (raw, no_thinking, no_usage)
            message = known.get(key)
            if message is None:
                message = make(line, no_thinking, no_usage)
                self.made += message is not None
            messages.append(message)
            if message is not None and len(raw) <= LINE_BYTES_MAX and size + len(raw) <= SESSION_BYTES_MAX:
                size += len(raw)
                used[key] = message
        self._shown, self.bytes = used, size
        return messages

    def converted(
        self, messages: Sequence[Message], provider: Hashable, make: Callable[[int, Message], Any]
    ) -> list[Any]:
        """Each message in the form of a provider's library. Forgets all others of this provider.

        Args:
            provider: whatever the form depends on besides the message.
            make: gets the number of the message, from 1, and the message.
        """
        known = self._converted.pop(provider, {})
        kept = {id(message) for message in self._shown.values()}
        used: dict[int, tuple[Message, Any]] = {}
        out: list[Any] = []
        for number, message in enumerate(messages, 1):
            found = known.get(id(message))  # it holds the message, so that its id is nobody else's
            made = (message, make(number, message)) if found is None else found
            if found is not None or id(message) in kept:
                used[id(message)] = made
            out.append(made[1])
        self._converted[provider] = used
        while len(self._converted) > PROVIDERS_MAX:
            self._converted.popitem(last=False)
        return out

    @property
    def providers(self) -> list[Hashable]:
        """Those whose forms are kept, the last one asked at the end."""
        return list(self._converted)


class AllConversions:
    """Of all sessions of a process, within a bound; the session that was used longest ago is forgotten first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._of: OrderedDict[str, Conversions] = OrderedDict()

    def of(self, transcript: str) -> Conversions:
        """Those of a transcript; nothing is in them the first time."""
        found = self._of.pop(transcript, None) or Conversions()
        self._of[transcript] = found
        total = sum(one.bytes for one in self._of.values())
        while total > self._bytes_max and len(self._of) > 1:
            _, oldest = self._of.popitem(last=False)
            total -= oldest.bytes
        return found

    def forget(self, transcript: str) -> None:
        """The session is not what it was."""
        self._of.pop(transcript, None)

    def __len__(self) -> int:
        return len(self._of)
