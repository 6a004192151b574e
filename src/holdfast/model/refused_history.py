"""Telling a history that a provider will never take from a model that failed.

Asking another model with the same history, or the same one again, is no use; without its thinking blocks, and with
calls and results paired anew, it is taken. The class of such an error stays `format`.
"""

from __future__ import annotations

import re

from holdfast.errors import ProviderError
from holdfast.model.facts import walk

WORDINGS: tuple[tuple[str, str, str], ...] = (
    # provider, pattern, source
    ("anthropic", r"invalid [`'\"]?signature[`'\"]? in [`'\"]?thinking", "API errors of extended thinking"),
    ("anthropic", r"expected [`'\"]?(?:redacted_)?thinking[`'\"]?.{0,60}but found", "extended thinking with tool use"),
    (
        "anthropic",
        r"thinking[`'\"]? (?:or [`'\"]?redacted_thinking[`'\"]? )?blocks?.{0,80}cannot be modified",
        "as above",
    ),
    ("anthropic", r"unexpected [`'\"]?tool_use_id", "API errors of tool use"),
    ("anthropic", r"tool_use[`'\"]? ids? (?:were )?found without [`'\"]?tool_result", "API errors of tool use"),
    ("openai", r"role '?tool'? must be a response to a prece+ding message", "chat completions errors"),
    ("openai", r"tool_calls'? must be followed by tool messages", "chat completions errors"),
    ("openai", r"no tool (?:call|output) found for function call", "responses errors"),
    ("openai", r"item of type 'reasoning' was provided without its required following item", "responses errors"),
    ("google", r"number of function response parts", "function calling errors"),
    ("google", r"(?:corrupted|missing a) thought[_ ]signature", "thought signatures"),
    ("bedrock", r"toolresult blocks at messages", "Converse validation errors"),
)
_ANY = re.compile("|".join(f"(?:{pattern})" for _, pattern, _ in WORDINGS), re.IGNORECASE | re.DOTALL)
STATUSES = (None, 400, 422)
"""Such errors are told with one of these; another status speaks of something else."""


def refuses_history(error: ProviderError) -> bool:
    """Whether the provider says that the conversation's history is malformed, and not what was asked of it."""
    return error.status in STATUSES and any(_ANY.search(facts.message) for facts in walk(error))
