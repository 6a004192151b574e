"""Signs beside messages, by the names that people know from other platforms. Pure."""

from __future__ import annotations

SIGNS = {
    "+1": "👍", "-1": "👎", "hourglass": "⏳", "ok_hand": "👌", "robot": "🤖", "speech_balloon": "💬", "thumbsup": "👍",
    "wave": "👋", "white_check_mark": "✅", "writing_hand": "✍️", "x": "❌", "zap": "⚡", "brain": "🧠", "eyes": "👀",
}  # fmt: skip
"""Names that people use for signs, as other platforms have them; anything else is taken as it is (`👀`, `name:123`)."""


def sign_of(name: str) -> str:
    """A sign as platforms take it whose signs are emoji."""
    return SIGNS.get(name.strip(":"), name)
