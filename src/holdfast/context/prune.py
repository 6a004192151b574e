"""Long results of tools, shortened in what a model is shown; the transcript keeps them whole. Pure.

Only what stands before a pause is shortened, one so long that no provider still has the beginning of the conversation
in its cache: nobody pays for what was cached. Where that is follows from the messages' own times, so that later
requests begin with the same words until the next pause. A pause is one before somebody speaks: a tool that takes long
is none, for its turn goes on with what it was shown before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from holdfast.context.repair import Message

CACHE_TTL_S = 300.0
"""How long providers keep the beginning of a conversation (semantics.md 2.8: `cache-ttl`, 5 m)."""
RESULT_CHARS_MAX, END_CHARS = 4_000, 1_500
"""Results that are longer keep so much of their beginning and of their end."""


def prune(messages: Sequence[Message], *, own: int, ttl_s: float = CACHE_TTL_S) -> list[Message]:
    """The same messages, with long tool results from before the newest pause shortened.

    Args:
        own: the last messages, which belong to the turn that runs, and stay as they are.
        ttl_s: seconds that make a pause; 0: nothing is shortened.
    """
    end = min(_newest_pause(messages, ttl_s), len(messages) - own) if ttl_s > 0 else 0
    return [_shortened(one) if at < end and one["role"] == "toolResult" else one for at, one in enumerate(messages)]


def _newest_pause(messages: Sequence[Message], ttl_s: float) -> int:
    """Where the first message after the newest pause stands; 0: there is none. Clocks that were set back make none."""
    times = [(at, one["timestamp"]) for at, one in enumerate(messages) if isinstance(one.get("timestamp"), int | float)]
    pauses = (
        at
        for (_, before), (at, after) in pairwise(times)
        if after - before >= ttl_s * 1000 and messages[at]["role"] == "user"
    )
    return max(pauses, default=0)


def _shortened(message: Message) -> Message:
    parts = [_short_part(part) for part in message["content"]]
    return message if parts == message["content"] else {**message, "content": parts}


def _short_part(part: dict[str, Any]) -> dict[str, Any]:
    text = part.get("text")
    if part["type"] != "text" or not isinstance(text, str) or len(text) <= RESULT_CHARS_MAX:
        return part
    left_out = len(text) - 2 * END_CHARS
    return {**part, "text": f"{text[:END_CHARS]}\n[… {left_out} characters left out …]\n{text[-END_CHARS:]}"}
