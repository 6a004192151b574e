"""Builds pydantic-ai's model for a target and puts requests into its form. Imports SDKs; loaded with the first request.

SDK retries are off everywhere: a retry inside one request would be invisible to failover and to the turn's limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelResponsePart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, create_async_httpx2_client
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from holdfast.errors import InputError
from holdfast.model import caching, catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ModelRequest
from holdfast.model.pydantic_messages import to_content, to_delta, to_model_messages, to_usage

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0  # of the client; each request sets its own, shorter one
BEDROCK_CONNECTIONS_MAX = 50

# Settings of a chat request that go through under the same name; others are ignored.
PLAIN_SETTINGS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "parallel_tool_calls",
)


Call = tuple[list[ModelMessage], ModelSettings, ModelRequestParameters]

# The responses of the request that this task is sending. Set and read within one step of the task: from the call of the
# model's `request_stream` until the response's head is there.
_opened: ContextVar[list[httpx2.Response] | None] = ContextVar("_opened", default=None)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A model that is ready to be asked."""

    target: ModelTarget
    model: Model[Any]
    aclose: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[StreamedResponse]:
        """Send a request; leaving closes its connection, whatever state the SDK left it in.

        Google's SDK leaves it to the garbage collector when its stream is abandoned between two events; until then the
        provider goes on generating.
        """
        opened: list[httpx2.Response] = []
        _opened.set(opened)
        try:
            async with self.model.request_stream(*call) as streamed:
                yield streamed
        finally:
            for response in opened:
                await response.aclose()

    def encode(self, request: ModelRequest, timeout_s: float) -> Call:
        """The arguments of `request_stream`, with the longest silence of the provider.

        Raises:
            InputError: something in it that no provider takes (an unknown role, a tool choice that is not offered).
        """
        parameters = ModelRequestParameters(
            function_tools=[
                ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=tool.parameters)
                for tool in request.tools
            ],
            instruction_parts=[InstructionPart(content=request.system)] if request.system else None,
        )
        messages = to_model_messages(request.messages, self.target, self.model.system, request.kept)
        return (
            self.model.prepare_messages(messages, parameters),
            settings_of(request, self.target, timeout_s),
            parameters,
        )

    def content(self, parts: Iterable[ModelResponsePart], *, cut: bool) -> list[dict[str, Any]]:
        """An answer's parts as transcript content; see `to_content`."""
        return to_content(parts, self.target, cut=cut)

    delta = staticmethod(to_delta)
    usage = staticmethod(to_usage)


def build(target: ModelTarget, timeout_s: float) -> Adapter:
    """The adapter for a target. Blocking (imports, files of the AWS configuration): call it in a thread.

    Args:
        timeout_s: longest silence of the provider, for a client that takes it once (Bedrock); the others take it with
            each request.

    Raises:
        InputError: something about the target is missing (a region).
    """
    if target.api == catalog.BEDROCK:
        return _bedrock(target, timeout_s)
    return _BUILDERS[target.api](target)


def settings_of(request: ModelRequest, target: ModelTarget, timeout_s: float) -> ModelSettings:
    """A chat request's settings by pydantic-ai's names."""
    given = {name: value for name, value in request.settings.items() if value is not None}
    settings: dict[str, Any] = {name: given[name] for name in PLAIN_SETTINGS if name in given}
    if "max_completion_tokens" in given:
        settings["max_tokens"] = given["max_completion_tokens"]
    if "stop" in given:
        settings["stop_sequences"] = [given["stop"]] if isinstance(given["stop"], str) else list(given["stop"])
    if "reasoning_effort" in given:
        settings["thinking"] = False if given["reasoning_effort"] == "none" else given["reasoning_effort"]
    if not request.tools:
        settings.pop("parallel_tool_calls", None)
    elif "tool_choice" in given:
        settings["tool_choice"] = _tool_choice(given["tool_choice"], request)
    if target.api != catalog.BEDROCK:
        settings["timeout"] = timeout_s
    settings |= caching.settings_of(request.cache, target.provider, target.api)
    return ModelSettings(**settings)


def _tool_choice(choice: Any, request: ModelRequest) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    name = choice.get("function", choice).get("name") if isinstance(choice, dict) else None
    if name not in {tool.name for tool in request.tools}:
        raise InputError(f"tool_choice {choice!r} names no tool of this request")
    return [name]


# ── one builder per interface ────────────────────────────────────────────────────────────────────────────────────────


def _http_client() -> httpx2.AsyncClient:
    client = create_async_httpx2_client(timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
    client.event_hooks = {**client.event_hooks, "response": [_remember]}
    return client


async def _remember(response: httpx2.Response) -> None:
    opened = _opened.get()
    if opened is not None:
        opened.append(response)


def _openai(target: ModelTarget) -> Adapter:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles import ModelProfile, merge_profile
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    def profile(model: str) -> ModelProfile | None:
        """A model's quirks by its vendor (`mistral/…` wants short call ids); `max_tokens` is what all servers know."""
        quirks = OpenAICompatibleProvider.model_profile(model if "/" in model else f"{target.provider}/{model}")
        return merge_profile(quirks, OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False))

    client = AsyncOpenAI(
        api_key=target.api_key or "none",  # the SDK insists on one; servers that need none ignore it
        base_url=target.base_url,
        max_retries=0,
        http_client=_http_client(),
    )
    if target.provider == "openai":
        provider = OpenAIProvider(openai_client=client)
    else:
        provider = OpenAICompatibleProvider(target.provider, openai_client=client, profile=profile)
    return Adapter(target, OpenAIChatModel(target.model, provider=provider), client.close)


def _anthropic(target: ModelTarget) -> Adapter:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(
        api_key=target.api_key or "none", base_url=target.base_url, max_retries=0, http_client=_http_client()
    )
    model = AnthropicModel(target.model, provider=AnthropicProvider(anthropic_client=client))
    return Adapter(target, model, client.close)


def _google(target: ModelTarget) -> Adapter:
    from google.genai.types import HttpRetryOptions
    from pydantic_ai.providers.google import GoogleProvider

    from holdfast.model.pydantic_google import CachingGoogleModel

    http_client = _http_client()
    provider = GoogleProvider(
        api_key=target.api_key or "none",
        base_url=target.base_url,
        http_client=http_client,
        retry_options=HttpRetryOptions(attempts=1),
    )
    return Adapter(target, CachingGoogleModel(target.model, provider=provider), http_client.aclose)


def _bedrock(target: ModelTarget, timeout_s: float) -> Adapter:
    import boto3
    from botocore.config import Config
    from botocore.session import Session
    from botocore.tokens import FrozenAuthToken
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    class TokenSession(Session):
        """An AWS session whose only credential is a Bedrock API key."""

        def get_auth_token(self, **_: Any) -> FrozenAuthToken:
            return FrozenAuthToken(target.api_key or "")

    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": timeout_s,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": BEDROCK_CONNECTIONS_MAX,
    }
    if target.api_key:
        config["signature_version"] = "bearer"
    session = boto3.Session(
        botocore_session=TokenSession() if target.api_key else None, region_name=target.region or None
    )
    if session.region_name is None:
        raise InputError(f"{target.ref} needs a region: set AWS_REGION or models.providers.{target.provider}.region")
    client: Any = session.client("bedrock-runtime", config=Config(**config), endpoint_url=target.base_url)
    model = BedrockConverseModel(target.model, provider=BedrockProvider(bedrock_client=client))

    async def aclose() -> None:
        await asyncio.to_thread(client.close)

    return Adapter(target, model, aclose)


_BUILDERS: dict[str, Callable[[ModelTarget], Adapter]] = {
    catalog.OPENAI: _openai,
    catalog.ANTHROPIC: _anthropic,
    catalog.GOOGLE: _google,
}
