"""What a model's tokens cost: as configured, else as published (the table of the package `genai-prices`).

A model that nobody has a price for has the price None. So has a known provider that is reached at an address of one's
own: whoever stands there may ask for something else. What runs on this machine and network costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from holdfast.errors import InputError
from holdfast.model import catalog
from holdfast.model.catalog import PROVIDERS, ProviderSettings, is_local, provider_of, split_ref
from holdfast.model.usage import MILLION, Price, Tokens
from holdfast.text import on_one_line

log = logging.getLogger("holdfast.usage")

PUBLISHED_AS: dict[str, str] = {"amazon-bedrock": "aws", "xai": "x-ai", "moonshot": "moonshotai"}
"""The names of providers in the published table, where they are not ours."""
PROXY = "litellm"
"""It runs on this machine, and asks providers that want money."""
FREE = Price(0, 0, 0, 0)


class Prices:
    """Prices of one process.

    Args:
        configured: by reference, over everything else.
        providers: configuration by provider name.
    """

    def __init__(
        self, configured: Mapping[str, Price] | None = None, providers: Mapping[str, ProviderSettings] | None = None
    ) -> None:
        self._configured = dict(configured or {})
        self._providers = dict(providers or {})
        self._calc: Any = None
        self._is_loaded = False
        self._said: set[str] = set()

    async def ready(self, ref: str) -> None:
        """Load the published table if `ref` needs it: once, in a thread, about a second."""
        if not self._is_loaded and self._fixed(ref) is None and self._published_as(ref) is not None:
            self._calc = await asyncio.to_thread(_load)
            self._is_loaded = True

    def cost(self, ref: str, tokens: Tokens, at: datetime) -> int | None:
        """Micro-dollars, rounded up; None: no price is known (said once per model in the log)."""
        fixed = self._fixed(ref)
        found = fixed.of(tokens) if fixed is not None else self._published(ref, tokens, at)
        if found is None and ref not in self._said:
            self._said.add(ref)
            log.warning('no price is known for %s: its calls are counted without money; set prices."%s" to count them',
                        on_one_line(ref), on_one_line(ref))  # fmt: skip
        return found

    def _fixed(self, ref: str) -> Price | None:
        provider, settings = provider_of(ref), self._settings(ref)
        known = PROVIDERS.get(provider)
        if ref in self._configured:
            return self._configured[ref]
        address = settings.base_url or (known.base_url if known is not None else None)
        if known is None or provider == PROXY:
            return None
        return FREE if known.api == catalog.DEMO or (known.keyless and is_local(address)) else None

    def _published_as(self, ref: str) -> str | None:
        provider = provider_of(ref)
        if provider not in PROVIDERS or provider == PROXY or self._settings(ref).base_url is not None:
            return None
        return PUBLISHED_AS.get(provider, provider)

    def _settings(self, ref: str) -> ProviderSettings:
        name = ref.partition("/")[0].lower()
        return self._providers.get(name) or self._providers.get(provider_of(ref)) or ProviderSettings()

    def _published(self, ref: str, tokens: Tokens, at: datetime) -> int | None:
        name = self._published_as(ref)
        if name is None or self._calc is None:
            return None
        try:
            return self._calc(name, split_ref(ref)[1], tokens, at)
        except (LookupError, InputError, ValueError):  # no such model in the table, or no such way to count
            return None


def _load() -> Any:
    """A function from the published table to micro-dollars; None where the package is not installed."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None

    def calc(provider: str, model: str, tokens: Tokens, at: datetime) -> int:
        usage = Usage(
            input_tokens=tokens.read,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
        )
        priced = calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)
        return int((Decimal(priced.total_price) * MILLION).to_integral_value(ROUND_CEILING))

    return calc
