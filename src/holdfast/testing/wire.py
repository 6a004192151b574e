"""Streams of model providers as bytes on the wire, one piece a list entry, so that a test can leave some out.

In all of them `finish=None` means that the provider never says how the answer ended.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

Calls = Sequence[tuple[str, str, str]]  # id, name, arguments as JSON text


def openai(
    text: str = "", *, finish: str | None = "stop", calls: Calls = (), reasoning: str = "", done: bool = True,
    cached: int = 0,
) -> list[bytes]:  # fmt: skip
    """A chat-completions stream; `done`: whether `data: [DONE]` ends it; `cached`: tokens read from its cache."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": word} for word in _words(reasoning)]
    deltas += [{"content": word} for word in _words(text)]
    for index, (call_id, name, arguments) in enumerate(calls):
        first, second = arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]
        opening = {"id": call_id, "type": "function", "function": {"name": name, "arguments": first}}
        deltas.append({"tool_calls": [{"index": index, **opening}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": second}}]})
    events = [_openai_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    if finish is not None:
        events.append(_openai_chunk([{"index": 0, "delta": {}, "finish_reason": finish}]))
        usage: dict[str, Any] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        if cached:
            usage["prompt_tokens"] += cached
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        events.append(_openai_chunk([], usage))
    if done:
        events.append(b"data: [DONE]\n\n")
    return events


def anthropic(
    text: str = "",
    *,
    finish: str | None = "end_turn",
    calls: Calls = (),
    thinking: tuple[str, str] | None = None,
    done: bool = True,
) -> list[bytes]:
    """A messages stream; `thinking`: text and signature of a block before the text; `done`: as `message_stop`."""
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stub", "content": [], "usage": usage}
    opened: dict[str, Any] = {"message": {**message, "stop_reason": None, "stop_sequence": None}}
    events: list[tuple[str, dict[str, Any]]] = [("message_start", opened)]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if thinking is not None:
        said, signature = thinking
        deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": word} for word in _words(said)]
        deltas.append({"type": "signature_delta", "signature": signature})
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
    if text:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in _words(text)]))
    for call_id, name, arguments in calls:
        delta = {"type": "input_json_delta", "partial_json": arguments}
        blocks.append(({"type": "tool_use", "id": call_id, "name": name, "input": {}}, [delta]))
    for index, (block, deltas) in enumerate(blocks):
        events.append(("content_block_start", {"index": index, "content_block": block}))
        events += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        events.append(("content_block_stop", {"index": index}))
    if finish is not None:
        ended: dict[str, Any] = {"delta": {"stop_reason": finish, "stop_sequence": None}, "usage": {"output_tokens": 9}}
        events.append(("message_delta", ended))
        if done:
            events.append(("message_stop", {}))
    return [sse({"type": kind, **data}, event=kind) for kind, data in events]


def google(
    text: str = "", *, finish: str | None = "STOP", call: tuple[str, dict[str, Any], str] | None = None,
    cached: int = 0,
) -> list[bytes]:  # fmt: skip
    """A generateContent stream; `call`: name, arguments and thought signature (base64) of a function call; `cached`:
    tokens read from its cache.
    """
    parts: list[dict[str, Any]] = [{"text": word} for word in _words(text)]
    if call is not None:
        name, arguments, signature = call
        parts.append({"functionCall": {"name": name, "args": arguments}, "thoughtSignature": signature})
    chunks: list[dict[str, Any]] = [{"content": {"role": "model", "parts": [part]}, "index": 0} for part in parts]
    if finish is not None:
        chunks[-1]["finishReason"] = finish
    usage = {"promptTokenCount": 12 + cached, "candidatesTokenCount": 4, "totalTokenCount": 16 + cached}
    usage |= {"cachedContentTokenCount": cached} if cached else {}
    head = {"modelVersion": "stub", "responseId": "resp_1", "usageMetadata": usage}
    return [sse({"candidates": [chunk], **head}) for chunk in chunks]


def bedrock(
    text: str = "", *, finish: str | None = "end_turn", calls: Calls = (), cached: int = 0, written: int = 0
) -> list[bytes]:
    """A ConverseStream answer in AWS event-stream framing; content type `application/vnd.amazon.eventstream`.

    Args:
        cached, written: tokens read from its cache and into it.
    """
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    events += [("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in _words(text)]
    events.append(("contentBlockStop", {"contentBlockIndex": 0}))
    for index, (call_id, name, arguments) in enumerate(calls, 1):
        start = {"toolUse": {"toolUseId": call_id, "name": name}}
        events.append(("contentBlockStart", {"contentBlockIndex": index, "start": start}))
        events.append(("contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": arguments}}}))
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    if finish is not None:
        usage = {"inputTokens": 8, "outputTokens": 3, "totalTokens": 11 + cached + written}
        usage |= {"cacheReadInputTokens": cached, "cacheWriteInputTokens": written} if cached or written else {}
        events.append(("messageStop", {"stopReason": finish}))
        events.append(("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}))
    return [aws_event(kind, payload) for kind, payload in events]


def sse(data: Any, *, event: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def aws_event(kind: str, payload: dict[str, Any], *, message_type: str = "event") -> bytes:
    """One AWS event-stream message: lengths, their checksum, headers, payload, checksum of all (big-endian, CRC-32).

    Args:
        message_type: "event", or "exception" for an error inside the stream.
    """
    names = {":event-type": kind} if message_type == "event" else {":exception-type": kind}
    names |= {":content-type": "application/json", ":message-type": message_type}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in names.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def _openai_chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    chunk: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
    chunk["choices"] = choices
    if usage is not None:
        chunk["usage"] = usage
    return sse(chunk)


def _words(text: str) -> list[str]:
    """Pieces of about a word that join to `text` again."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + ([words[-1]] if words[-1] else [])
