"""Real providers, through pydantic-ai's model classes (not its agent): one request, one stream, no retries inside.

The only witness that a stream ended as its provider meant it to is the provider's own finish reason. Over OpenAI's
interface pydantic-ai makes one up when it is missing, so `response.provider_details` is looked at, not `finish_reason`.
Nothing is imported from pydantic-ai or an SDK before the first request; then in a thread, for it takes seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from holdfast.errors import HoldfastError, InputError, ProviderError
from holdfast.model import catalog
from holdfast.model.bundles import Bundles
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import Heard, ModelAnswer, ModelRequest, StreamItem, TextDelta
from holdfast.model.credentials import id_of
from holdfast.model.errors import cause_of, translate
from holdfast.model.google_cache import CachedRequest

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import StreamedResponse

    from holdfast.model.pydantic_builders import Adapter

log = logging.getLogger(__name__)

# The SDK of an interface, and the extra of ours that brings it and pydantic-ai.
NEEDS: dict[str, tuple[str, str]] = {
    catalog.OPENAI: ("openai", "gateway"),
    catalog.ANTHROPIC: ("anthropic", "gateway"),
    catalog.BEDROCK: ("boto3", "bedrock"),
    catalog.GOOGLE: ("google.genai", "google"),
}

# The provider's word for how it ended, in lower case, as the transcript's `stopReason`.
STOP_REASONS: dict[str, str] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "toolUse",
    "tool_use": "toolUse",
    "function_call": "toolUse",
}
# Words for an answer that was withheld.
WITHHELD = frozenset(
    {
        "content_filter",
        "content_filtered",
        "refusal",
        "safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "image_safety",
        "guardrail_intervened",
    }
)


@dataclass(slots=True)
class _Exchange:
    """One request under way; `response`: once it is over."""

    adapter: Adapter
    response: ModelResponse | None = None


class PydanticAIModel:
    """A `ModelClient` for one target. Must be used from one event loop; requests may overlap."""

    def __init__(self, target: ModelTarget) -> None:
        self.target = target
        # By the longest silence, where the client knows no limit per request (Bedrock); elsewhere there is one.
        self._adapters: dict[float | None, Adapter] = {}
        self._building = asyncio.Lock()

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        """Ask once; see `ModelClient.stream`.

        Silence is measured on the connection: a provider that sends keep-alives is alive. `timeout_s`, else the
        target's `idle_timeout_s`, bounds the wait for its first and for each further byte; connecting has its own,
        shorter limit.

        Raises:
            ProviderError, InputError (a missing extra, a request that cannot be put in this provider's form),
            ResourceError (this machine is out of handles).

        Cancelled: the connection is closed, so that the provider stops generating. Over Bedrock, whose client blocks in
        a thread, that can take up to `timeout_s` if the server had announced that it will close the connection.
        """
        timeout_s = self.target.idle_timeout_s if request.timeout_s is None else request.timeout_s
        said: list[str] = []
        exchange = _Exchange(await self._ready(timeout_s))
        async with self._open(exchange, request, timeout_s, lambda: "".join(said)) as events:
            delta_of = exchange.adapter.delta
            async for event in events:
                delta = delta_of(event)
                if isinstance(delta, TextDelta):
                    said.append(delta.text)
                yield delta
        yield self._answer(exchange, "".join(said))

    async def feed(self, request: ModelRequest, heard: Heard, /) -> ModelAnswer | None:
        """The same, handed on in bundles where it comes fast; see `holdfast.model.client.feed`.

        It is read in a task of its own: each piece wakes what waits for it through all that awaits it, which in a turn
        is a dozen of calls. Cancelling whoever waits here cancels that task, and is over when it has closed.
        """
        reading = asyncio.create_task(self._read(request, heard), name=f"reads {self.target.ref}")
        try:
            return await reading
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if heard.stopped_by is None or (here is not None and here.cancelling()):
                raise
            return None

    async def _read(self, request: ModelRequest, heard: Heard) -> ModelAnswer | None:
        """Cancelled: what was read has been handed on.

        A cached content that has gone is no failure of the model: it is asked once more, without.
        """
        cached = self._cached(request)
        if cached is None:
            return await self._read_once(request, heard)
        await self._ready(self.target.idle_timeout_s if request.timeout_s is None else request.timeout_s)
        from holdfast.model.pydantic_google import cached_request

        cached_request.set(cached)
        try:
            answer = await self._read_once(request, heard)
        except ProviderError as failed:
            if cached.used is None or heard.chars or "cachedcontent" not in str(failed).lower():
                raise
            await cached.kept.note(replace(cached.used, dropped=True))
            cached.without = True
            answer = await self._read_once(request, heard)
        return None if answer is None else replace(answer, written=cached.written)

    def _cached(self, request: ModelRequest) -> CachedRequest | None:
        """What a request to Google may do with cached contents; None: nothing."""
        wish = request.cache
        if self.target.api != catalog.GOOGLE or wish is None or wish.kept is None or wish.settings.google is None:
            return None
        if self.target.provider in wish.settings.without or not self.target.api_key:
            return None
        since_ms = wish.kept.now_ms() - wish.settings.google.ttl_s * 1000
        answers = (one.get("timestamp") for one in request.messages if one["role"] == "assistant")
        goes_on = any(isinstance(at, int | float) and at >= since_ms for at in answers)
        return CachedRequest(wish.kept, wish.settings.google, id_of(self.target.api_key), goes_on)

    async def _read_once(self, request: ModelRequest, heard: Heard) -> ModelAnswer | None:
        timeout_s = self.target.idle_timeout_s if request.timeout_s is None else request.timeout_s
        exchange = _Exchange(await self._ready(timeout_s))
        async with self._open(exchange, request, timeout_s, lambda: heard.text) as events:
            reading = asyncio.current_task()
            assert reading is not None
            bundles = Bundles(heard, exchange.adapter.delta, reading.cancel)
            keep, look = bundles.events.append, bundles.look
            try:
                async for event in events:
                    keep(event)
                    if not bundles.is_waiting:
                        look()
            finally:
                bundles.flush()
        return self._answer(exchange, heard.text)

    @asynccontextmanager
    async def _open(
        self, exchange: _Exchange, request: ModelRequest, timeout_s: float, said: Callable[[], str]
    ) -> AsyncIterator[StreamedResponse]:
        """Send a request, and have what goes wrong told as ours. In `exchange` stands afterwards what was answered."""
        adapter, streamed = exchange.adapter, None
        try:
            async with adapter.open(adapter.encode(request, timeout_s)) as streamed:
                yield streamed
            exchange.response = streamed.get()
        except HoldfastError:
            raise
        except Exception as error:  # noqa: BLE001 the seam: whatever an SDK raises is raised again as ours
            exchange.response = streamed.get() if streamed is not None else None
            if exchange.response is None or finish_word(exchange.response) is None:
                ours = self._translated(error, said())
                raise ours from cause_of(ours, error)
            # The provider had said how it ended; what broke off afterwards was bookkeeping (usage, the closing event).
            log.warning("%s: the connection failed after the answer was complete: %r", self.target.ref, type(error))

    @property
    def idle_limit_s(self) -> float:
        """After so many seconds of silence a stream is ended (`catalog.idle_timeout_s`)."""
        return self.target.idle_timeout_s

    async def aclose(self) -> None:
        """Close the connections. Requests that still run fail."""
        adapters, self._adapters = list(self._adapters.values()), {}
        for adapter in adapters:
            await adapter.aclose()

    async def _ready(self, timeout_s: float) -> Adapter:
        key = timeout_s if self.target.api == catalog.BEDROCK else None
        async with self._building:
            if key not in self._adapters:
                try:
                    self._adapters[key] = await asyncio.to_thread(_build, self.target, timeout_s)
                except HoldfastError:
                    raise
                except Exception as error:  # noqa: BLE001 as in `stream`
                    ours = self._translated(error, "")
                    raise ours from cause_of(ours, error)
            return self._adapters[key]

    def _translated(self, error: Exception, partial: str) -> HoldfastError:
        target = self.target
        password = urlsplit(target.base_url or "").password
        secrets = [one for one in (target.api_key, password) if one]
        return translate(error, provider=target.provider, model=target.model, partial=partial, secrets=secrets)

    def _answer(self, exchange: _Exchange, said: str) -> ModelAnswer:
        adapter, response = exchange.adapter, exchange.response
        assert response is not None
        word = finish_word(response)
        stop_reason = STOP_REASONS.get(word or "")
        if word is None:
            raise self._refused("no_finish_reason", "the stream ended without the provider's finish reason", said)
        if word in WITHHELD:
            raise self._refused("content_filter", f"the answer was withheld (finish_reason: {word})", said)
        if stop_reason is None:
            raise self._refused(f"finish_reason_{word}", f"Provider finish_reason: {word}", said)
        content = adapter.content(response.parts, cut=stop_reason == "length")
        calls = any(part["type"] == "toolCall" for part in content)
        if not content:
            raise self._refused("empty_response", f"an empty answer (finish_reason: {word})", said)
        if stop_reason == "stop" and calls:
            stop_reason = "toolUse"  # Google's word for both, and that of some compatible servers
        return ModelAnswer(
            content=content,
            stop_reason=stop_reason,
            provider=self.target.provider,
            model=self.target.model,
            api=self.target.api,
            usage=adapter.usage(response.usage),
            response_id=response.provider_response_id,
        )

    def _refused(self, code: str, text: str, said: str) -> ProviderError:
        target = self.target
        return ProviderError(
            f"{text} ({target.ref})", code=code, provider=target.provider, model=target.model, partial=said
        )


def finish_word(response: ModelResponse) -> str | None:
    """The provider's own word for how the answer ended, in lower case; None if it never said."""
    word = (response.provider_details or {}).get("finish_reason")
    if word:
        return str(word).lower()
    # A refusal or a blocked prompt is told in a field of its own, which pydantic-ai reads as this.
    return "content_filter" if response.finish_reason == "content_filter" else None


def require(target: ModelTarget, module: str, extra: str) -> None:
    """Import a package that a target needs.

    Raises:
        InputError: it is not installed; says what to install.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise InputError(f'{target.ref} needs the package {module!r}: pip install "holdfast[{extra}]"') from error


def _build(target: ModelTarget, timeout_s: float) -> Adapter:
    sdk, extra = NEEDS[target.api]
    for module in ("pydantic_ai", sdk):
        require(target, module, extra)
    from holdfast.model.pydantic_builders import build

    return build(target, timeout_s)
