"""`[prompt_caching]`: what providers are asked to keep of requests (`docs/context.md`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.config.section import Positive, Section
from holdfast.model.caching import CacheSettings, Retention, Ttl
from holdfast.model.google_cache import GoogleCaching


class CachingConfig(Section):
    """What providers are asked to keep of a request, so that the next one, which begins with the same words, costs less
    and is answered sooner.
    """

    enabled: bool = Field(default=True, description="False: no request says anything of caches.")
    ttl: Ttl = Field(
        default="5m",
        description="How long Anthropic and Bedrock keep it after it was last read. `1h` costs twice the input to "
        "write, `5m` 1.25 times.",
    )
    openai_retention: Retention | None = Field(
        default=None, description="The same of OpenAI: `in_memory` or `24h`. Unset: as OpenAI chooses for the model."
    )
    key_providers: tuple[str, ...] = Field(
        default=("openai",),
        strict=False,
        description="Providers that are sent `prompt_cache_key`, which is the same for all requests of a session.",
    )
    without: tuple[str, ...] = Field(
        default=(), strict=False, description="Providers whose requests say nothing of caches: servers that refuse it."
    )

    google: bool = Field(
        default=False,
        description="Whether cached contents are made at Google, which are paid for by the hour. Without them Google "
        "keeps beginnings by itself, and promises nothing.",
    )
    google_ttl_s: Annotated[int, Field(ge=60, le=86_400)] = Field(
        default=GoogleCaching().ttl_s,
        description="Seconds that one is kept; renewed while the conversation goes on.",
    )
    google_tokens_min: Positive = Field(
        default=GoogleCaching().tokens_min, description="A conversation that is shorter has none."
    )

    def settings(self) -> CacheSettings:
        """The same, as requests take it."""
        return CacheSettings(
            self.enabled, self.ttl, self.openai_retention, frozenset(self.key_providers), frozenset(self.without),
            GoogleCaching(self.google_ttl_s, self.google_tokens_min) if self.google else None,
        )  # fmt: skip
