"""What to do about a model that did not answer, for whoever typed the message."""

from __future__ import annotations

import re

FAILURES_OF_MODELS = ("ProviderError", "AllModelsFailedError")
_REF = re.compile(r"\((?P<provider>[^/\s()]+)/(?P<model>[^\s()]+)\)\s*$|^(?P<provider2>[^/\s]+)/(?P<model2>[^\s:]+):")
_WAYS = {
    "auth": "the key was refused: set {variable} to one that is in force (`holdfast model status` tells which rest)",
    "auth_permanent": "the account or key is closed: set {variable} to another one",
    "billing": "pay, set {variable} to another key, or let another model answer: models.fallbacks",
    "rate_limit": "wait a while, give more keys ({variable}_2, ...), or let another model answer: models.fallbacks",
    "overloaded": "send it again later, or let another model answer: models.fallbacks",
    "server_error": "send it again later, or let another model answer: models.fallbacks",
    "model_not_found": "check the model's name with {provider}: set models.default (HOLDFAST_MODELS_DEFAULT), or try "
    "one with `holdfast send --model {provider}/NAME`",
    "timeout": "check the network, a proxy (HTTPS_PROXY), and models.providers.{provider}.base_url; `holdfast doctor "
    "--online` asks each model once",
}


def advice_on(detail: str) -> str | None:
    """The way out of a failure, as far as its words tell which it was; None if they say it already."""
    if "set the environment variable" in detail:
        return None
    from holdfast.errors import ProviderError
    from holdfast.model import catalog
    from holdfast.model.failure import classify

    found = _REF.search(detail)
    provider = (found["provider"] or found["provider2"]) if found else "NAME"
    way = _WAYS.get(classify(ProviderError(detail)).reason or "")
    known = catalog.PROVIDERS.get(catalog.ALIASES.get(provider, provider))
    variable = known.key_env[0] if known is not None and known.key_env else f"{provider.upper()}_API_KEY"
    return None if way is None else way.format(provider=provider, variable=variable)
