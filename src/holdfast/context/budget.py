"""How many tokens a context costs, and how many there is room for. Pure.

Before a provider has counted, a token is three bytes of text, which errs on the safe side. The newest answer says what
its provider counted; from there on only what came after it is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.context.repair import FAILED_STOPS, Message

BYTES_PER_TOKEN = 3  # UTF-8; English has about 4 and Chinese 3, so the estimate errs on the safe side
IMAGE_TOKENS = 1_600  # the most that the large providers count for an image of the usual size
MESSAGE_TOKENS = 4  # role and separators
UNBELIEVABLE = 6  # our estimates are at most so many times too high: 18 bytes a token

OUTPUT_TOKENS_RESERVED = 16_384
"""Kept free in the window for the answer (semantics.md 2.8: reserveTokens)."""
HEADROOM_TOKENS = 20_000
"""Kept free when a conversation is shortened ahead of need (semantics.md 2.8: reserveTokensFloor)."""
KEEP_RECENT_TOKENS = 20_000
"""Of the newest messages kept word for word (semantics.md 2.8: keepRecentTokens)."""
SUMMARY_TOKENS_MAX = 6_000
"""A longer summary costs every later request more than it helps."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one model's window is spent on, in tokens. In a small window nothing takes more than its share.

    Args:
        window: tokens that the model reads and writes in one request.
        reserve, headroom, keep: as configured, for large windows.
    """

    window: int
    reserve: int = OUTPUT_TOKENS_RESERVED
    headroom: int = HEADROOM_TOKENS
    keep: int = KEEP_RECENT_TOKENS

    @property
    def room(self) -> int:
        """What a request may hold; past it a turn shortens the conversation before it asks."""
        return max(1, self.window - min(self.reserve, self.window // 4))

    @property
    def threshold(self) -> int:
        """Past it a conversation is shortened between turns."""
        return max(1, self.window - min(max(self.reserve, self.headroom), self.window // 3))

    @property
    def keep_recent(self) -> int:
        """What is kept word for word, as far as whole exchanges go."""
        return min(self.keep, self.room // 3)

    @property
    def summary_max(self) -> int:
        """The longest summary that is accepted."""
        return max(64, min(SUMMARY_TOKENS_MAX, self.room // 6))

    @property
    def chunk(self) -> int:
        """What is summarised in one request: beside it an older summary and the instructions have to fit."""
        return max(256, self.room // 2)


def estimate_tokens(message: Message) -> int:
    """About how many tokens a message costs, from its length alone; meant to be a little too high."""
    return MESSAGE_TOKENS + sum(_part_tokens(part) for part in message["content"])


def text_tokens(text: str) -> int:
    """The same of a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def count_tokens(messages: Sequence[Message]) -> int:
    """What a context costs, by its providers' own count where there is one.

    Of answers from before a compaction the plan shows no count: they were given with another context. A count so low
    that no text has so few tokens (some servers count only what was new to them) is not believed.
    """
    estimates = [estimate_tokens(message) for message in messages]
    at = next((at for at in reversed(range(len(messages))) if counted_by_provider(messages[at])), None)
    if at is None:
        return sum(estimates)
    counted, estimated = counted_by_provider(messages[at]), sum(estimates[: at + 1])
    return (counted if counted >= estimated // UNBELIEVABLE else estimated) + sum(estimates[at + 1 :])


def counted_by_provider(message: Message) -> int:
    """Tokens of everything up to and with this answer, as its provider has counted them; 0: it has not."""
    usage: Any = message.get("usage")
    if message["role"] != "assistant" or message.get("stopReason") in FAILED_STOPS or not isinstance(usage, dict):
        return 0
    read = sum(_number(usage.get(name)) for name in ("input", "cacheRead", "cacheWrite"))
    return read + _number(usage.get("output")) if read else 0


def _number(value: Any) -> int:
    """A count in a transcript may be anything; others write them, too."""
    return int(value) if isinstance(value, int | float) and 0 < value < 1e12 else 0


def _part_tokens(part: dict[str, Any]) -> int:
    if part["type"] == "image":
        return IMAGE_TOKENS
    if part["type"] == "toolCall":
        return text_tokens(part["name"]) + text_tokens(str(part["arguments"]))
    return text_tokens(part.get("text") or part.get("thinking") or "")
