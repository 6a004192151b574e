"""Prompt caching: what a request tells its provider of the part that later requests begin with. Plain values and rules.

| interface | what is sent | where |
|---|---|---|
| Anthropic | `cache_control`, three of four | end of the tools, of the system prompt, of the conversation |
| Bedrock | `cachePoint`, at most four | the same; and where the last request ended, if it looks back no further |
| OpenAI | `prompt_cache_key`, `prompt_cache_retention` | the request |
| Google | `cachedContent` | see `google_cache.py` |

The end of the conversation is the end of what the next request begins with (`docs/context.md`), so the mark moves with
it. Marks are no part of what a provider compares. Summaries get none: nothing follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.ids import derived_id
from holdfast.model import catalog
from holdfast.model.google_cache import GoogleCaching, KeptContents

Ttl = Literal["5m", "1h"]
Retention = Literal["in_memory", "24h"]
TTL_S: dict[str, float] = {"5m": 300.0, "1h": 3600.0, "in_memory": 300.0, "24h": 86_400.0}
"""How long the beginning of a conversation is kept after it was last read: published by the providers."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What providers are asked to keep.

    Args:
        enabled: False: no request says anything of caches.
        ttl: of the marks of Anthropic and Bedrock; writing for an hour costs twice the input, for 5 minutes 1.25 times.
        retention: of OpenAI; None: nothing is said, which is theirs to choose.
        key_providers: those that are sent `prompt_cache_key`; others may refuse what they do not know.
        without: providers whose requests say nothing of caches.
        google: how cached contents are made; None: none is, Google keeps beginnings by itself.
    """

    enabled: bool = True
    ttl: Ttl = "5m"
    retention: Retention | None = None
    key_providers: frozenset[str] = frozenset({"openai"})
    without: frozenset[str] = frozenset()
    google: GoogleCaching | None = None

    def warm_s(self, api: str) -> float:
        """For how long a provider of this interface keeps a beginning that nobody reads; where nobody has said, the
        shortest that the large ones do.
        """
        if api in (catalog.ANTHROPIC, catalog.BEDROCK) and self.enabled:
            return TTL_S[self.ttl]
        if api == catalog.OPENAI and self.enabled:
            return TTL_S[self.retention or "in_memory"]
        if api == catalog.GOOGLE and self.enabled and self.google is not None:
            return float(self.google.ttl_s)
        return TTL_S["5m"]


@dataclass(frozen=True, slots=True)
class CacheWish:
    """What one request wants of caches.

    Args:
        key: names the conversation, the same for all its requests.
        kept: what the session has at Google.
    """

    settings: CacheSettings
    key: str
    kept: KeptContents | None = None


@dataclass(frozen=True, slots=True)
class Caching:
    """What the turns of a process need to know.

    Args:
        api_of: the interface of a model, by its reference.
    """

    settings: CacheSettings
    api_of: Callable[[str], str]

    def warm_s(self, ref: str) -> float:
        """For how long the provider of this model keeps what nobody reads."""
        return self.settings.warm_s(self.api_of(ref))


def wish_for(
    settings: CacheSettings, *, store_id: str, session: str, kept: KeptContents | None = None
) -> CacheWish | None:
    """What the requests of a session want; None: nothing. The key tells nobody what the session is called."""
    return CacheWish(settings, derived_id("cache", store_id, session), kept) if settings.enabled else None


def settings_of(wish: CacheWish | None, provider: str, api: str) -> Mapping[str, Any]:
    """pydantic-ai's model settings for it. It keeps to four marks, of which those on tools and system go first."""
    if wish is None or provider in wish.settings.without:
        return {}
    ttl = wish.settings.ttl
    if api == catalog.ANTHROPIC:
        # Marks on blocks in place of its automatic one: servers that speak this interface know them, too.
        return {
            "anthropic_cache_tool_definitions": ttl, "anthropic_cache_instructions": ttl,
            "anthropic_cache_messages": ttl,
        }  # fmt: skip
    if api == catalog.BEDROCK:
        mark = True if ttl == "5m" else ttl  # five minutes are meant where nothing is said; older models know no word
        return {
            "bedrock_cache_tool_definitions": mark, "bedrock_cache_instructions": mark, "bedrock_cache_messages": mark,
        }  # fmt: skip
    if api == catalog.OPENAI and provider in wish.settings.key_providers:
        said: dict[str, Any] = {"openai_prompt_cache_key": wish.key}
        if wish.settings.retention is not None:
            said["openai_prompt_cache_retention"] = wish.settings.retention
        return said
    return {}
