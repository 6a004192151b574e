"""`[prompt_caching]`: what providers are asked to keep of requests (`docs/context.md`)."""

from __future__ import annotations

from pydantic import Field

from holdfast.config.section import Section
from holdfast.model.caching import CacheSettings, Retention, Ttl


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

    def settings(self) -> CacheSettings:
        """The same, as requests take it."""
        return CacheSettings(
            self.enabled, self.ttl, self.openai_retention, frozenset(self.key_providers), frozenset(self.without)
        )
