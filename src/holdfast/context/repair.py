"""Tool calls and their results, paired: what providers insist on, whatever a transcript looks like.

After this every call is answered exactly once, directly behind the message that made it, and every result has its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

FAILED_STOPS = ("error", "aborted")
_NONE: dict[str, Message] = {}
INTERRUPTED = "interrupted: no result was recorded; the tool may or may not have run"


def pair_calls(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with calls and results paired by id.

    - A result belongs to the latest call before it with its id that has none yet: some models count their calls anew in
      every message. A result without a call is left out.
    - Results follow their message at once, in the order of the calls; what stood between comes after.
    - A call without a result gets one that says `interrupted`, unless its message failed or was aborted: then the call
      was never finished, and is taken out. The text beside it stays.
    - Of two calls with one id in one message the first counts.

    Messages are not changed; those that lose a call are copied.
    """
    calls = [_calls(message) if message["role"] == "assistant" else _NONE for message in messages]
    results = _results_by_call(messages, calls)
    paired: list[Message] = []
    for index, message in enumerate(messages):
        if message["role"] == "toolResult":
            continue
        if message["role"] != "assistant":
            paired.append(message)
            continue
        kept = calls[index]
        if not kept:  # most answers: nothing is called in them
            if message["content"]:
                paired.append(message)
            continue
        if message.get("stopReason") in FAILED_STOPS:
            kept = {id: part for id, part in kept.items() if (index, id) in results}
        message = _with_calls(message, kept)
        if not message["content"]:
            continue
        paired.append(message)
        paired.extend(results.get((index, id)) or interrupted_result(part) for id, part in kept.items())
    return paired


def interrupted_result(call: Message) -> Message:
    """The result of a `toolCall` part whose own result will never come."""
    return {
        "role": "toolResult",
        "toolCallId": call["id"],
        "toolName": call["name"],
        "content": [{"type": "text", "text": INTERRUPTED}],
        "isError": True,
    }


def _calls(message: Message) -> dict[str, Message]:
    """An answer's calls by id, in order."""
    calls: dict[str, Message] = {}
    for part in message["content"]:
        if part["type"] == "toolCall":
            calls.setdefault(part["id"], part)
    return calls


def _results_by_call(
    messages: Sequence[Message], calls: Sequence[dict[str, Message]]
) -> dict[tuple[int, str], Message]:
    """Results by the position of the message that called and the call's id."""
    open_calls: dict[str, int] = {}
    results: dict[tuple[int, str], Message] = {}
    for index, message in enumerate(messages):
        if calls[index]:
            open_calls.update(dict.fromkeys(calls[index], index))
        if message["role"] == "toolResult":
            caller = open_calls.pop(message["toolCallId"], None)
            if caller is not None:
                results[caller, message["toolCallId"]] = message
    return results


def _with_calls(message: Message, kept: dict[str, Message]) -> Message:
    """The message with these calls only, each once."""
    content = [part for part in message["content"] if part["type"] != "toolCall" or kept.get(part["id"]) is part]
    return message if len(content) == len(message["content"]) else {**message, "content": content}
