"""OpenAI's chat completions as data: what a request asks for, what chunks and bodies look like. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import InputError
from holdfast.inbound.openai_messages import (
    FINISH_REASONS,
    read_messages,
    read_tools,
    to_text,
    to_tool_calls,
    to_usage,
)
from holdfast.outbox.message import MOVED_ON_NOTE
from holdfast.session.key import DEFAULT_AGENT, validate_key
from holdfast.store.views import InputView

OWN_MODEL = "holdfast"
"""The model name that leaves the choice to the configuration; "holdfast/<agent>" also names the agent."""

_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SETTINGS = (
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
)
_NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks for.

    model: "provider/model", or None for the configured one; `model_asked` is the client's own word for it.
    payload: of the input: messages, system, tools, settings.
    """

    agent: str
    model: str | None
    model_asked: str
    payload: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    user: str | None = None
    offered: tuple[str, ...] = field(default=())

    def session(self) -> str | None:
        """The session of a request without a session header: `agent:<agent>:user:<user>`, None for a fresh one.

        Raises:
            InputError: the user's name cannot be part of a key.
        """
        return validate_key(f"agent:{self.agent}:user:{self.user}") if self.user else None


def read_chat(body: dict[str, Any]) -> ChatRequest:
    """A request for a chat completion.

    Raises:
        InputError: malformed, or it asks for what a session cannot give; names the key. Unknown keys are let be.
    """
    model = body.get("model", OWN_MODEL)
    if not isinstance(model, str) or not model:
        raise InputError('model: must be a string such as "holdfast" or "demo/demo"')
    _refuse_unsupported(body)
    conversation = read_messages(body.get("messages"))
    tools = read_tools(body.get("tools"))
    options = body.get("stream_options") or {}
    user = body.get("user")
    if not isinstance(options, dict):
        raise InputError("stream_options: must be an object")
    if user is not None and not isinstance(user, str):
        raise InputError("user: must be a string")
    payload: dict[str, Any] = {"messages": conversation.messages}
    settings = _read_settings(body)
    payload |= {"system": conversation.system} if conversation.system else {}
    payload |= {"tools": tools} if tools else {}
    payload |= {"settings": settings} if settings else {}
    own, _, agent = model.partition("/")
    is_own = own == OWN_MODEL
    if is_own and agent and not _AGENT.fullmatch(agent):
        raise InputError(f"model: {agent!r} is not the name of an agent")
    return ChatRequest(
        agent=agent if is_own and agent else DEFAULT_AGENT,
        model=None if is_own else model,
        model_asked=model,
        payload=payload,
        stream=_flag(body, "stream"),
        include_usage=_flag(options, "include_usage"),
        user=user,
        offered=tuple(tool["name"] for tool in tools),
    )


def _refuse_unsupported(body: dict[str, Any]) -> None:
    """One session has one answer: what cannot be honoured is refused rather than ignored."""
    if body.get("n") not in (None, 1):
        raise InputError("n: a session has one answer; only 1 is supported")
    for key in ("functions", "function_call"):
        if body.get(key) is not None:
            raise InputError(f"{key}: is not supported; use tools and tool_choice")
    if body.get("logprobs"):
        raise InputError("logprobs: is not supported")
    if body.get("audio") is not None or body.get("modalities") not in (None, ["text"]):
        raise InputError("modalities: only text is supported")


def _read_settings(body: dict[str, Any]) -> dict[str, Any]:
    settings = {key: body[key] for key in _SETTINGS if body.get(key) is not None}
    tokens = body.get("max_completion_tokens", body.get("max_tokens"))
    if tokens is not None:
        settings["max_tokens"] = tokens
    for key in ("max_tokens", "seed"):
        value = settings.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError(f"{key}: must be a whole number")
    if settings.get("max_tokens", 1) < 1:
        raise InputError("max_tokens: must be at least 1")
    for key in _NUMBERS:
        value = settings.get(key, 0)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise InputError(f"{key}: must be a number")
    return settings


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{key}: must be true or false")
    return bool(value)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Completion:
    """The wire form of one input's answer. Ids and times follow from the input, so a replay looks the same."""

    input_id: str
    model: str
    created_s: int
    include_usage: bool = False

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.include_usage else {}
        return self._head("chat.completion.chunk") | {"choices": [choice]} | usage

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        return self._head("chat.completion.chunk") | {"choices": [], "usage": usage}

    def body(self, ending: Ending) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ending.text, "refusal": None}
        if ending.tool_calls:
            message |= {"content": ending.text or None, "tool_calls": ending.tool_calls}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ending.finish}
        return self._head("chat.completion") | {"choices": [choice], "usage": ending.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.input_id}", "object": kind, "created": self.created_s, "model": self.model}


@dataclass(frozen=True, slots=True)
class Ending:
    """What the settled input says. `finish` is "stop", "length" or "tool_calls", the model's own reason translated."""

    text: str
    finish: str
    tool_calls: list[dict[str, Any]]
    usage: dict[str, Any]
    model: str | None

    def tool_call_deltas(self) -> list[dict[str, Any]]:
        return [{"index": index, **call} for index, call in enumerate(self.tool_calls)]


def ending_of(view: InputView, offered: tuple[str, ...]) -> Ending | None:
    """The answer of a settled input; None if it has none.

    A superseded one was finished by its model but is not part of the conversation: it comes with a note that says so.
    """
    result: dict[str, Any] = view.result or {}
    message: dict[str, Any] = result.get("message") or {"content": view.answer, "stopReason": "stop"}
    if message["content"] is None:
        return None
    text = to_text(message) if view.answer is None else view.answer
    reason = str(result.get("finish") or message.get("stopReason"))
    provider, name = message.get("provider"), message.get("model")
    return Ending(
        text=f"{text}\n\n{MOVED_ON_NOTE}" if view.state == "superseded" else text,
        finish=FINISH_REASONS.get(reason, reason),
        tool_calls=to_tool_calls(message, offered),
        usage=to_usage(result.get("usage") or message.get("usage")),
        model=f"{provider}/{name}" if provider and name else None,
    )
