"""Errors that speak of the history, in the words of each provider, and nothing else."""

from __future__ import annotations

import pytest

from holdfast.errors import ProviderError
from holdfast.model.refused_history import refuses_history

REFUSED = [
    "messages.1.content.5: Invalid `signature` in `thinking` block",
    "messages.1.content.5: Invalid signature in thinking block",
    "messages.3.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`.",
    "messages.2.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_01.",
    "messages.4: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_02.",
    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.",
    "No tool call found for function call output with call_id call_1.",
    "Please ensure that the number of function response parts is equal to the number of function call parts",
    "The number of toolResult blocks at messages.2.content exceeds the number of toolUse blocks of previous turn.",
    "Function call is missing a thought_signature in functionCall parts.",
]
OTHERS = [
    "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "temperature may only be set to 1 when thinking is enabled",
    "tools.0.input_schema: JSON schema is invalid",
    "invalid x-api-key",
    "",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_refused_history_is_told_from_its_words(text: str) -> None:
    assert refuses_history(ProviderError(text, status=400))
    wrapped = ProviderError("the provider refused the request", status=400)
    wrapped.__cause__ = ProviderError(text)
    assert refuses_history(wrapped)


@pytest.mark.parametrize("text", OTHERS)
def test_other_malformed_requests_are_not_the_historys(text: str) -> None:
    assert not refuses_history(ProviderError(text, status=400))


@pytest.mark.parametrize("status", [401, 429, 500, 529])
def test_with_another_status_the_words_mean_something_else(status: int) -> None:
    assert not refuses_history(ProviderError(REFUSED[0], status=status))
