"""Chat messages as OpenAI's API writes them, to v3 messages and back. Pure.

Every fault is an `InputError` that names the place: `messages[2].content[0]: …`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.model.client import zero_usage

Message = dict[str, Any]

IMPORTED = {"api": "chat", "provider": "holdfast", "model": "client-history"}
"""What an answer is signed with that only the client remembers: no model of ours said it."""

FINISH_REASONS = {"stop": "stop", "length": "length", "toolUse": "tool_calls", "tool_calls": "tool_calls"}
_DATA_URL = re.compile(r"data:(image/[a-zA-Z0-9.+-]+);base64,([A-Za-z0-9+/=\s]+)")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A client's messages: system and developer prompts joined in `system`, the rest in order."""

    system: str | None
    messages: list[Message]


# ── from the client ──────────────────────────────────────────────────────────────────────────────────────────────────


def read_messages(messages: Any) -> Conversation:
    """v3 messages, without times, of a request's `messages`.

    Raises:
        InputError: not a conversation that can be answered: nothing in it, an unknown role or part, an image that is
            not a data URL (nothing is fetched for a client), or a last message neither from the user nor a tool.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError("messages: must be a list with at least one message")
    system: list[str] = []
    spoken: list[Message] = []
    tool_names: dict[str, str] = {}
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise InputError(f"{where}: must be an object with role and content")
        role = message.get("role")
        if role in ("system", "developer"):
            system.append(_text(message.get("content"), where))
        else:
            spoken.append(read_message(message, tool_names, where))
    if not spoken or spoken[-1]["role"] == "assistant":
        raise InputError("messages: the last message must be from the user or a tool")
    return Conversation("\n\n".join(text for text in system if text.strip()) or None, spoken)


def read_message(message: dict[str, Any], tool_names: dict[str, str], where: str) -> Message:
    """One message of a user, the assistant or a tool. `tool_names`: of the calls so far, by id; those of an answer are
    added.

    Raises:
        InputError: another role, or what a message of its role cannot be.
    """
    role = message.get("role")
    if role == "user":
        return read_user(message.get("content"), where)
    if role == "assistant":
        answer = _read_assistant(message, where)
        tool_names.update((part["id"], part["name"]) for part in answer["content"] if part["type"] == "toolCall")
        return answer
    if role == "tool":
        return _read_result(message, tool_names, where)
    raise InputError(f"{where}.role: {role!r} is not one of system, developer, user, assistant, tool")


def read_user(content: Any, where: str) -> Message:
    """A user's message from text or parts.

    Raises:
        InputError: empty or blank, or a part that cannot be kept.
    """
    parts: str | list[dict[str, Any]] = content if isinstance(content, str) else _read_parts(content, where)
    if not (parts.strip() if isinstance(parts, str) else parts):
        raise InputError(f"{where}: the message is empty")
    return {"role": "user", "content": parts}


def _read_parts(content: Any, where: str) -> list[dict[str, Any]]:
    """Text and image parts; blank text is left out."""
    if not isinstance(content, list):
        raise InputError(f"{where}.content: must be text or a list of parts")
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(content):
        at = f"{where}.content[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url":
            parts.append(_read_image(part.get("image_url"), at))
        elif kind == "text":
            text = _string(part.get("text"), f"{at}.text")
            parts += [{"type": "text", "text": text}] if text.strip() else []
        else:
            raise InputError(f"{at}: a part of type {kind!r} is not supported; use text or image_url")
    return parts


def _read_image(image: Any, where: str) -> dict[str, Any]:
    url = image.get("url") if isinstance(image, dict) else image
    match = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise InputError(f"{where}.image_url: only data:image/…;base64 URLs are supported; nothing is fetched")
    return {"type": "image", "data": "".join(match[2].split()), "mimeType": match[1].lower()}


def _read_assistant(message: dict[str, Any], where: str) -> Message:
    content = message.get("content")
    text = "" if content is None else _text(content, where)
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InputError(f"{where}.tool_calls: must be a list")
    parts += [_read_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)]
    stop_reason = "toolUse" if calls else "stop"
    return {"role": "assistant", "content": parts, **IMPORTED, "usage": zero_usage(), "stopReason": stop_reason}


def _read_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise InputError(f"{where}: must be an object with id and function")
    text = function.get("arguments") or "{}"
    try:
        arguments = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InputError(f"{where}.function.arguments: must be a JSON object in a string")
    return {
        "type": "toolCall",
        "id": _string(call.get("id"), f"{where}.id"),
        "name": _string(function.get("name"), f"{where}.function.name"),
        "arguments": arguments,
    }


def _read_result(message: dict[str, Any], tool_names: dict[str, str], where: str) -> Message:
    call_id = _string(message.get("tool_call_id"), f"{where}.tool_call_id")
    if not call_id:
        raise InputError(f"{where}.tool_call_id: must name the call that this is the result of")
    text = _text(message.get("content"), where)
    return {
        "role": "toolResult",
        "toolCallId": call_id,
        "toolName": tool_names.get(call_id, ""),
        "content": [{"type": "text", "text": text}] if text else [],
        "isError": False,
    }


def _text(content: Any, where: str) -> str:
    """Text, or text parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(f"{where}.content: must be text or a list of text parts")
    texts: list[str] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise InputError(f"{where}.content[{index}]: a part of type {kind!r} is not supported here; use text")
        texts.append(_string(part.get(kind), f"{where}.content[{index}].{kind}"))
    return "".join(texts)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: must be a string")
    return value


def read_tools(tools: Any) -> list[dict[str, Any]]:
    """`{"name", "description", "parameters"}` of each offered function.

    Raises:
        InputError: not a list of functions, or two of one name.
    """
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InputError("tools: must be a list")
    read: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type", "function") != "function":
            raise InputError(f"{where}: must be an object of type function")
        name = _string(function.get("name"), f"{where}.function.name")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise InputError(f"{where}.function.name: must be 1 to 64 letters, digits, dots, dashes or underscores")
        if any(other["name"] == name for other in read):
            raise InputError(f"{where}.function.name: {name!r} is offered twice")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, dict):
            raise InputError(f"{where}.function.parameters: must be a JSON schema object")
        description = _string(function.get("description") or "", f"{where}.function.description")
        read.append({"name": name, "description": description, "parameters": parameters})
    return read


# ── to the client ────────────────────────────────────────────────────────────────────────────────────────────────────


def to_text(message: Message) -> str:
    """The text of a v3 message; thinking is not part of it."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content if p.get("type") == "text")


def to_tool_calls(message: Message, offered: Sequence[str]) -> list[dict[str, Any]]:
    """The calls of a v3 answer that are the client's to run, in OpenAI's form."""
    content = message["content"]
    return [
        {
            "id": part["id"],
            "type": "function",
            "function": {"name": part["name"], "arguments": json.dumps(part["arguments"], ensure_ascii=False)},
        }
        for part in ([] if isinstance(content, str) else content)
        if part.get("type") == "toolCall" and part["name"] in offered
    ]


def to_usage(usage: dict[str, Any] | None) -> dict[str, Any]:
    """v3 usage in OpenAI's words: cached tokens are part of the prompt's."""
    usage = usage or zero_usage()
    cached = usage.get("cacheRead", 0)
    prompt = usage.get("input", 0) + cached + usage.get("cacheWrite", 0)
    completion = usage.get("output", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
