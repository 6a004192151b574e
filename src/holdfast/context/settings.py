"""How conversations are shortened, as configured."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.context.budget import HEADROOM_TOKENS, KEEP_RECENT_TOKENS, OUTPUT_TOKENS_RESERVED, Budget
from holdfast.context.prune import CACHE_TTL_S


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """How conversations are shortened.

    Args:
        enabled: whether they are by themselves; by hand it is possible in any case.
        model: "provider/model" that writes summaries; None: the one that answers.
        timeout_s: seconds for one summary with all its parts.
        memory_flush: whether agents may note what should be known later before a conversation is shortened.
        prune_after_s: see `prune`; 0: long results are shown whole.
        reserve_tokens, headroom_tokens, keep_recent_tokens: see `Budget`.
    """

    enabled: bool = True
    model: str | None = None
    timeout_s: float = 180.0
    memory_flush: bool = True
    prune_after_s: float = CACHE_TTL_S
    reserve_tokens: int = OUTPUT_TOKENS_RESERVED
    headroom_tokens: int = HEADROOM_TOKENS
    keep_recent_tokens: int = KEEP_RECENT_TOKENS

    def budget(self, window: int) -> Budget:
        """What a window of so many tokens is spent on."""
        return Budget(window, self.reserve_tokens, self.headroom_tokens, self.keep_recent_tokens)
