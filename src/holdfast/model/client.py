"""The seam to model providers: what a request is, what a stream yields, what an answer is.

Messages and answers have the transcript's own shapes (formats.md §2), so nothing is lost between file and provider.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holdfast.context.conversions import Conversions
    from holdfast.model.caching import CacheWish


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it. `parameters` is a JSON schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request.

    Args:
        model: "provider/model"; the provider is the text before the first slash.
        messages: v3 messages (`{"role": "user" | "assistant" | "toolResult", …}`), oldest first, the turn's input last.
        tokens: of its messages, as counted; 0: nobody has.
        timeout_s: longest silence of the provider in seconds; None: the model's own (`catalog.idle_timeout_s`).
        settings: temperature, max_tokens, top_p, stop, seed, tool_choice, …; unknown ones are ignored by name.
        kept: what was made of the session's messages for earlier requests; no part of what is asked.
        cache: what the provider is to keep of it for later requests; None: nothing is said of that.
    """

    model: str
    messages: list[dict[str, Any]]
    system: str | None = None
    tools: list[ToolSpec] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    kept: Conversions | None = field(default=None, compare=False, repr=False)
    tokens: int = 0
    cache: CacheWish | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A finished answer: the last item of every good stream.

    `content` holds v3 parts (`text`, `thinking`, `toolCall`); `stop_reason` is "stop", "length" or "toolUse", always
    the provider's own word translated, never made up; `usage` is the v3 usage object.
    """

    content: list[dict[str, Any]]
    stop_reason: str
    provider: str
    model: str
    api: str
    usage: dict[str, Any]
    response_id: str | None = None

    @property
    def text(self) -> str:
        return "".join(p["text"] for p in self.content if p.get("type") == "text")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return [p for p in self.content if p.get("type") == "toolCall"]

    def message(self, timestamp_ms: int) -> dict[str, Any]:
        """The answer as the `message` of a transcript entry."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.content,
            "api": self.api,
            "provider": self.provider,
            "model": self.model,
            "usage": self.usage,
            "stopReason": self.stop_reason,
            "timestamp": timestamp_ms,
        }
        if self.response_id is not None:
            message["responseId"] = self.response_id
        return message


@dataclass(frozen=True, slots=True)
class StreamSign:
    """Something came that is nothing to show: a piece of a tool call's arguments, a provider's sign of life."""


StreamItem = TextDelta | ThinkingDelta | StreamSign | ModelAnswer


class ModelClient(Protocol):
    """One provider connection, or many behind one face. One that ends a silent stream by itself may say after how many
    seconds, in an attribute `idle_limit_s`: until then recovery takes silence for no standstill.
    """

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        """Ask once; no retries inside.

        Yields deltas (or signs of something else) as they come and, last, one `ModelAnswer`. A stream that ends without
        the provider's finish reason raises ProviderError(reason="no_finish_reason"-like evidence) with `.partial`, and
        yields no answer.

        Raises:
            ProviderError: and nothing else, except cancellation and errors of our own. Translated at one seam.
        """
        ...


def zero_usage() -> dict[str, Any]:
    """The v3 usage object with nothing in it."""
    cost = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "total": 0}
    return {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 0, "cost": cost}
