"""The seam to model providers: what a request is, what a stream yields, what an answer is.

Messages and answers have the transcript's own shapes (formats.md §2), so nothing is lost between file and provider.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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
    the provider's own word translated, never made up; `usage` is the v3 usage object; `written`: tokens that a request
    of its own has put into a cache for it.
    """

    content: list[dict[str, Any]]
    stop_reason: str
    provider: str
    model: str
    api: str
    usage: dict[str, Any]
    response_id: str | None = None
    written: int = 0

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


SIGN = StreamSign()
Piece = TextDelta | ThinkingDelta | StreamSign
StreamItem = Piece | ModelAnswer


class Heard:
    """What has come of an answer, handed on piece by piece as it comes.

    A streamed answer passes here once for each of its pieces, so this and what it calls do no more than they must.
    """

    __slots__ = ("_hand_on", "_pieces", "stopped_by")

    def __init__(self, hand_on: Callable[[Piece], None]) -> None:
        self._hand_on = hand_on
        self._pieces: list[TextDelta | ThinkingDelta] = []
        self.stopped_by: Exception | None = None

    def take(self, piece: Piece) -> bool:
        """Hand a piece on. True: nothing more is wanted of this answer, for the reason in `stopped_by`."""
        if not isinstance(piece, StreamSign):
            self._pieces.append(piece)
        try:
            self._hand_on(piece)
        except Exception as stopped:  # noqa: BLE001  # whatever it is, no client takes it for an error of its own
            self.stopped_by = stopped
            return True
        return False

    @property
    def text(self) -> str:
        """What can have been seen of the answer."""
        return "".join(piece.text for piece in self._pieces if type(piece) is TextDelta)

    @property
    def chars(self) -> int:
        """Of everything that came, thinking included."""
        return sum(len(piece.text) for piece in self._pieces)


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


@runtime_checkable
class FeedingClient(Protocol):
    """A client that hands pieces on itself: two generators less for each piece to pass through."""

    async def feed(self, request: ModelRequest, heard: Heard, /) -> ModelAnswer | None:
        """As `feed`, below."""
        ...


async def feed(client: ModelClient | FeedingClient, request: ModelRequest, heard: Heard) -> ModelAnswer | None:
    """Ask once, as `ModelClient.stream` does, and hand on what comes.

    Returns: the answer; None: the stream ended without one, or `heard` wanted no more. It is closed in any case.

    Raises: as `ModelClient.stream`.
    """
    if isinstance(client, FeedingClient):
        return await client.feed(request, heard)
    answer: ModelAnswer | None = None
    async with _closing(client.stream(request)) as stream:
        async for item in stream:
            if isinstance(item, ModelAnswer):
                answer = item
            elif heard.take(item):
                return None
    return answer


@asynccontextmanager
async def _closing(stream: AsyncIterator[StreamItem]) -> AsyncIterator[AsyncIterator[StreamItem]]:
    """Close an async generator that is left in the middle; other iterators have nothing to close."""
    try:
        yield stream
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            await aclose()


def zero_usage() -> dict[str, Any]:
    """The v3 usage object with nothing in it."""
    cost = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "total": 0}
    return {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 0, "cost": cost}
