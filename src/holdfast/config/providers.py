"""`[models]`: which models answer, how their providers are reached, what follows a failure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
)

from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.model import catalog
from holdfast.model.walk import RETRY_TOTAL_S

MIB, DAY_MS = 1 << 20, 86_400_000

Failover = Literal["turn_local", "sticky_until_probe", "strict"]


APIS = {
    "openai": catalog.OPENAI,
    "anthropic": catalog.ANTHROPIC,
    "bedrock": catalog.BEDROCK,
    "google": catalog.GOOGLE,
}
"""The short names of holdfast.toml and the names that transcripts and the catalog use."""


def _model_ref(ref: str) -> str:
    provider, slash, model = ref.partition("/")
    if not (provider and slash and model):
        raise ValueError('must be "provider/model", such as "openai/gpt-5" or "demo/demo"')
    return ref


def _route(text: str) -> str:
    channel, colon, target = text.partition(":")
    if not (channel and colon and target):
        raise ValueError('must be "channel:target", such as "console:me"')
    return text


ModelRef = Annotated[str, AfterValidator(_model_ref)]


class ProviderConfig(Section):
    """How one model provider is reached. Known ones (openai, anthropic, ollama, …) need no table."""

    api: Literal["openai", "anthropic", "bedrock", "google"] | None = Field(
        default=None,
        description="What it speaks. Unset: as the known provider of this name does, else OpenAI chat completions.",
    )
    base_url: str | None = Field(
        default=None, description="Where it is. Unset: as known. An unknown provider needs one."
    )
    api_key_env: str | None = Field(
        default=None,
        description="Environment variable that holds the key; the same name with `_2` to `_9` holds more, used in turn "
        "when one is refused or limited. Unset: the usual one of the known provider.",
    )
    api_keys_file: str | None = Field(
        default=None,
        description="File with more keys, one a line, that only its owner can read (mode 0600). Unset: none.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key itself. Better keep it out of files and use `api_key_env`; shown as `***`."
    )
    region: str | None = Field(
        default=None, description="AWS region, for Bedrock. Unset: AWS_REGION or AWS_DEFAULT_REGION."
    )
    idle_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that a stream may say nothing before the model counts as failed. Unset: 120, or 300 where "
        "the provider is on this machine or network.",
    )
    context_windows: FrozenMap[Positive] = Field(
        default_factory=dict, validate_default=True, description="Tokens that a model can read, by model id."
    )
    idle_timeouts: FrozenMap[Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, validate_default=True, description="The same by model id, over `idle_timeout_s`."
    )

    def settings(self) -> catalog.ProviderSettings:
        """The same, as the model catalog takes it."""
        return catalog.ProviderSettings(
            api=APIS[self.api] if self.api else None,
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            api_key_env=self.api_key_env,
            api_keys_file=self.api_keys_file,
            region=self.region,
            context_windows=self.context_windows,
            idle_timeout_s=self.idle_timeout_s,
            idle_timeouts=self.idle_timeouts,
        )


class ModelsConfig(Section):
    """Which model answers, and where it is."""

    default: ModelRef = Field(
        default="demo/demo", description="Model of every agent that names none. `demo/demo` works offline."
    )
    fallbacks: tuple[ModelRef, ...] = Field(
        default=(),
        strict=False,
        description="Models tried in this order when the first one fails. In a variable: with commas.",
    )
    failover: Failover = Field(
        default="turn_local",
        description="What a failure changes: `turn_local` this turn alone; `sticky_until_probe` the session, until its "
        "own model, asked every 5 minutes, answers again; `strict` nothing: no other model is asked.",
    )
    retry_s: float = Field(
        default=RETRY_TOTAL_S,
        ge=0,
        le=3600,
        description="Seconds after a first failure in which models are asked again when no other can answer. 0: none.",
    )
    notices: Literal["owner", "everywhere", "off"] = Field(
        default="owner",
        description="Who is told, once, that another model answers: `owner` (never in groups and channels), "
        "`everywhere` (where the message came from), `off`.",
    )
    notice_route: Annotated[str, AfterValidator(_route)] | None = Field(
        default=None,
        description="The owner's own `channel:target` for notices of all sessions. Unset: where the message came from.",
    )
    providers: FrozenMap[ProviderConfig] = Field(default_factory=dict, validate_default=True)

    def settings(self) -> dict[str, catalog.ProviderSettings]:
        """The configured providers as the model catalog takes them."""
        return {name: provider.settings() for name, provider in self.providers.items()}
