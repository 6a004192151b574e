"""One client per model target, made when first asked for and kept until closed."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.clock import Clock, SystemClock
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget, ProviderSettings
from holdfast.model.client import ModelClient
from holdfast.model.credentials import Credential
from holdfast.model.demo import DemoModel

REMEMBERED_MAX = 256
"""References and providers whose clients and keys are at hand; callers may name any."""


class ModelClients:
    """The clients of a process. Must be used from one event loop.

    Args:
        providers: configuration by provider name.
        env: environment for API keys; None: the process's own.
        instead: clients by provider name that stand in for the real ones (tests, custom adapters).
    """

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        instead: Mapping[str, ModelClient] | None = None,
    ) -> None:
        self._providers = dict(providers or {})
        self._env = env
        self._instead = dict(instead or {})
        self._demo = DemoModel(clock or SystemClock())
        self._clients: dict[ModelTarget, ModelClient] = {}
        self._by_ref: dict[tuple[str, str], ModelClient] = {}
        self._keys: dict[str, tuple[Credential, ...]] = {}

    def client_for(self, ref: str, credential: str = "") -> ModelClient:
        """The client that reaches `ref`. No SDK is imported and nothing is sent before its first request.

        Args:
            credential: id of the key to use; empty: the first there is.

        Raises:
            InputError: `ref` names nothing that is known or configured.
            ProviderError: (reason "auth") its key is missing.
        """
        provider, _ = catalog.split_ref(ref)
        if provider in self._instead:
            return self._instead[provider]
        client = self._by_ref.get((ref, credential))
        if client is None:
            if len(self._by_ref) >= REMEMBERED_MAX:
                self._by_ref.clear()
            client = self._by_ref[ref, credential] = self._make(ref, credential)
        return client

    def _make(self, ref: str, credential: str) -> ModelClient:
        key = next((one.secret for one in self.credentials(ref) if one.id == credential), None)
        target = catalog.resolve(ref, self._providers, self._env, api_key=key)
        if target.api == catalog.DEMO:
            return self._demo
        client = self._clients.get(target)
        if client is None:
            from holdfast.model.pydantic_ai import PydanticAIModel

            client = self._clients[target] = PydanticAIModel(target)
        return client

    def credentials(self, ref: str) -> tuple[Credential, ...]:
        """The keys of the provider that `ref` names; read once. None for a provider that stands in for a real one.

        Raises:
            InputError: `ref` is no reference, or its file of keys is refused.
        """
        provider, _ = catalog.split_ref(ref)
        found = self._keys.get(provider)
        if found is None:
            if len(self._keys) >= REMEMBERED_MAX:
                self._keys.clear()
            instead = provider in self._instead
            found = self._keys[provider] = () if instead else catalog.credentials_of(ref, self._providers, self._env)
        return found

    def api_of(self, ref: str) -> str:
        """The interface over which `ref` is asked."""
        return catalog.api_of(ref, self._providers)

    def context_window(self, ref: str) -> int:
        """Tokens that `ref` can read."""
        return catalog.context_window(ref, self._providers)

    async def aclose(self) -> None:
        """Close every connection. Streams that still run break off with a ProviderError. May be called twice."""
        clients, self._clients, self._by_ref = list(self._clients.values()), {}, {}
        for client in clients:
            aclose = getattr(client, "aclose", None)
            if aclose is not None:
                await aclose()
