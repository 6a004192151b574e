"""Which provider a model reference names, how that provider is reached, and how much its models can read.

A reference is `provider/model`; the provider is the text before the first slash, everything after it is the model's id
(`openrouter/deepseek/deepseek-chat` is model `deepseek/deepseek-chat` of provider `openrouter`). The tables are data.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from holdfast.errors import InputError, ProviderError
from holdfast.model.credentials import Credential, from_environment, gather, read_keys_file

# The names of the interfaces are those that transcripts carry in `api` (formats of session files, version 3).
OPENAI = "openai-completions"
ANTHROPIC = "anthropic-messages"
BEDROCK = "bedrock-converse-stream"
GOOGLE = "google-generative-ai"
DEMO = "demo"
APIS = (OPENAI, ANTHROPIC, BEDROCK, GOOGLE, DEMO)


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that needs no configuration but its key.

    Args:
        api: one of `APIS`.
        base_url: None: the SDK's own.
        key_env: environment variables that may hold the key, first one set wins.
        keyless: works without a key (local servers; AWS, whose own credential chain is used).
    """

    api: str
    base_url: str | None = None
    key_env: tuple[str, ...] = ()
    keyless: bool = False


PROVIDERS: dict[str, Provider] = {
    "demo": Provider(DEMO, keyless=True),
    "openai": Provider(OPENAI, "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "anthropic": Provider(ANTHROPIC, None, ("ANTHROPIC_API_KEY",)),
    "amazon-bedrock": Provider(BEDROCK, None, ("AWS_BEARER_TOKEN_BEDROCK",), keyless=True),
    "google": Provider(GOOGLE, None, ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "openrouter": Provider(OPENAI, "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "groq": Provider(OPENAI, "https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "mistral": Provider(OPENAI, "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
    "deepseek": Provider(OPENAI, "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",)),
    "xai": Provider(OPENAI, "https://api.x.ai/v1", ("XAI_API_KEY",)),
    "together": Provider(OPENAI, "https://api.together.xyz/v1", ("TOGETHER_API_KEY",)),
    "fireworks": Provider(OPENAI, "https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",)),
    "cerebras": Provider(OPENAI, "https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",)),
    "moonshot": Provider(OPENAI, "https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",)),
    "zai": Provider(OPENAI, "https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",)),
    "nvidia": Provider(OPENAI, "https://integrate.api.nvidia.com/v1", ("NVIDIA_API_KEY",)),
    "huggingface": Provider(OPENAI, "https://router.huggingface.co/v1", ("HF_TOKEN",)),
    "ollama": Provider(OPENAI, "http://127.0.0.1:11434/v1", ("OLLAMA_API_KEY",), keyless=True),
    "vllm": Provider(OPENAI, "http://127.0.0.1:8000/v1", ("VLLM_API_KEY",), keyless=True),
    "lmstudio": Provider(OPENAI, "http://127.0.0.1:1234/v1", ("LMSTUDIO_API_KEY",), keyless=True),
    "litellm": Provider(OPENAI, "http://127.0.0.1:4000/v1", ("LITELLM_API_KEY",), keyless=True),
}
ALIASES = {"bedrock": "amazon-bedrock", "gemini": "google", "x-ai": "xai", "lm-studio": "lmstudio", "z-ai": "zai"}

# What an unknown name is treated as once its `api` is configured.
_BY_API = {ANTHROPIC: PROVIDERS["anthropic"], BEDROCK: PROVIDERS["amazon-bedrock"], GOOGLE: PROVIDERS["google"]}

# Tokens a model can read, by the beginning of its id; the longest match wins. Published figures; a configured one wins.
CONTEXT_WINDOWS: dict[str, int] = {
    "claude": 200_000,
    "gpt-4o": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-5": 272_000,  # of 400,000, the rest is kept for output
    "gpt-oss": 131_072,
    "o1": 200_000,
    "o3": 200_000,
    "o4": 200_000,
    "gemini": 1_048_576,
    "deepseek": 131_072,
    "grok": 256_000,
    "kimi": 262_144,
    "glm": 200_000,
    "llama-3": 131_072,
    "llama3": 131_072,
    "mistral-large": 131_072,
    "qwen3": 131_072,
    "amazon.nova": 300_000,
}
CONTEXT_WINDOW_DEFAULT = 128_000

IDLE_TIMEOUT_S = 120.0
"""How long a stream may say nothing before it counts as a timeout (semantics.md 2.4)."""
IDLE_TIMEOUT_LOCAL_S = 300.0
"""The same for a server of one's own, which may have to load the model first (semantics.md 2.4, release 9.6)."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What a user configured for one provider; all of it optional for the known ones.

    Args:
        api: one of `APIS`; default: the known provider's, else OpenAI-compatible chat completions.
        base_url: where it is reached; needed for an unknown provider.
        api_key: the key itself (better: name the variable that holds it).
        api_key_env: environment variable that holds the key; others of the same name with `_2` to `_9` hold more.
        api_keys_file: file of keys that only its owner can read, one a line.
        region: AWS region, for Bedrock.
        context_windows: tokens by model id, over the table's.
        idle_timeout_s: longest silence of a stream in seconds; None: by where the provider is (`idle_timeout_s`).
        idle_timeouts: the same by model id, over the provider's.
    """

    api: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    api_keys_file: str | None = None
    region: str | None = None
    context_windows: Mapping[str, int] = field(default_factory=dict)
    idle_timeout_s: float | None = None
    idle_timeouts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """Where one model is: everything a client needs. The key is never shown in its repr.

    Args:
        idle_timeout_s: longest silence of the provider, in seconds.
    """

    provider: str
    model: str
    api: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    region: str | None = None
    idle_timeout_s: float = IDLE_TIMEOUT_S

    @property
    def ref(self) -> str:
        return f"{self.provider}/{self.model}"


def split_ref(ref: str) -> tuple[str, str]:
    """`provider/model` as (provider, model).

    Raises:
        InputError: no provider or no model in it.
    """
    provider, slash, model = ref.strip().partition("/")
    if not slash or not provider or not model:
        raise InputError(f"model reference {ref!r} must be provider/model, such as openai/gpt-5 or demo/demo")
    return provider.lower(), model


def provider_of(ref: str) -> str:
    """The provider that a reference names, an alias as what it stands for; the text itself if it is no reference."""
    name = ref.strip().partition("/")[0].lower()
    return ALIASES.get(name, name)


def credentials_of(
    ref: str, providers: Mapping[str, ProviderSettings] | None = None, env: Mapping[str, str] | None = None
) -> tuple[Credential, ...]:
    """The keys of the provider that `ref` names, in the order in which they were found; none if it has none.

    Reads the file of keys, so whoever asks often keeps the answer.

    Raises:
        InputError: not a reference, or the file of keys is refused.
    """
    name, _ = split_ref(ref)
    settings = _settings(name, providers or {})
    known = PROVIDERS.get(ALIASES.get(name, name)) or _BY_API.get(settings.api or "")
    named = [("api_key", settings.api_key)] if settings.api_key else []
    if not named:
        variables = (settings.api_key_env,) if settings.api_key_env else (known.key_env if known else ())
        named += from_environment(variables, os.environ if env is None else env)
    if settings.api_keys_file:
        named += read_keys_file(settings.api_keys_file)
    return gather(named)


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), [*PROVIDERS, *ALIASES], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def resolve(
    ref: str,
    providers: Mapping[str, ProviderSettings] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    api_key: str | None = None,
) -> ModelTarget:
    """Where the model `ref` is reached, from the configuration, the environment and the table of known providers.

    Args:
        providers: configuration by provider name.
        env: environment; None: the process's own.
        api_key: the one of its keys to use; None: the first that is found.

    Raises:
        InputError: not a reference, an unknown provider without a base URL, an unknown api. Configure it.
        ProviderError: (reason "auth", nothing was sent) the provider needs a key and none was found.
    """
    name, model = split_ref(ref)
    settings = _settings(name, providers or {})
    env = os.environ if env is None else env
    known = PROVIDERS.get(ALIASES.get(name, name)) or _BY_API.get(settings.api or "")
    if known is None and settings.base_url is None and settings.api in (None, OPENAI):
        raise InputError(
            f"unknown model provider {name!r} in {ref!r}{_meant(name)}: set models.providers.{name}.base_url to its "
            f"OpenAI-compatible URL, or use one of {', '.join(sorted(PROVIDERS))}"
        )
    api = settings.api or (known.api if known else OPENAI)
    if api not in APIS:
        raise InputError(f"models.providers.{name}.api is {api!r}; it must be one of {', '.join(APIS)}")
    base_url = settings.base_url or (known.base_url if known else None)
    return ModelTarget(
        provider=name,
        model=model,
        api=api,
        base_url=base_url,
        api_key=api_key or _key(ref, providers or {}, known, env),
        region=(settings.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")) if api == BEDROCK else None,
        idle_timeout_s=idle_timeout_s(model, settings, base_url),
    )


def api_of(ref: str, providers: Mapping[str, ProviderSettings] | None = None) -> str:
    """The interface over which a model is asked, one of `APIS`; for an unknown provider that of most.

    Raises:
        InputError: `ref` is no reference.
    """
    name, _ = split_ref(ref)
    known = PROVIDERS.get(ALIASES.get(name, name))
    return _settings(name, providers or {}).api or (known.api if known else OPENAI)


def idle_timeout_s(model: str, settings: ProviderSettings, base_url: str | None) -> float:
    """The longest silence of a model's stream: configured for it, for its provider, else by where that is."""
    configured = settings.idle_timeouts.get(model, settings.idle_timeout_s)
    if configured is not None:
        return configured
    return IDLE_TIMEOUT_LOCAL_S if is_local(base_url) else IDLE_TIMEOUT_S


def is_local(url: str | None) -> bool:
    """Whether a URL leads to this machine or this network: loopback, private and link-local addresses, `localhost`,
    `*.local` (multicast DNS), and names without a dot, as in a network of containers. Nothing is resolved.
    """
    try:
        host = urlsplit(url or "").hostname
    except ValueError:  # half of an IPv6 address
        return False
    if not host:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith((".local", ".localhost"))
    return address.is_loopback or address.is_private or address.is_link_local


def context_window(ref: str, providers: Mapping[str, ProviderSettings] | None = None) -> int:
    """Tokens the model can read: configured, else by the longest matching beginning of its id, else 128,000."""
    name, model = split_ref(ref)
    configured = _settings(name, providers or {}).context_windows
    if model in configured:
        return configured[model]
    # "anthropic/claude-…" behind a router and "us.anthropic.claude-…" on Bedrock are read by their last part.
    candidates = (model, model.rpartition("/")[2], model.rpartition("anthropic.")[2])
    matches = [prefix for prefix in CONTEXT_WINDOWS if any(name.startswith(prefix) for name in candidates)]
    return CONTEXT_WINDOWS[max(matches, key=len)] if matches else CONTEXT_WINDOW_DEFAULT


def _settings(name: str, providers: Mapping[str, ProviderSettings]) -> ProviderSettings:
    """What is configured under this name or under the name it is an alias of."""
    return providers.get(name) or providers.get(ALIASES.get(name, name)) or ProviderSettings()


def _key(
    ref: str, providers: Mapping[str, ProviderSettings], known: Provider | None, env: Mapping[str, str]
) -> str | None:
    found = credentials_of(ref, providers, env)
    if found:
        return found[0].secret
    name, model = split_ref(ref)
    settings = _settings(name, providers)
    names = (settings.api_key_env,) if settings.api_key_env else (known.key_env if known else ())
    # A server of one's own is asked without a key unless one was named for it.
    named = bool(settings.api_key_env or settings.api_keys_file)
    if named or (known is not None and not known.keyless and settings.base_url is None):
        variables = " or ".join(names) or "that models.providers.NAME.api_key_env names"
        raise ProviderError(
            f"No API key found for provider {name!r}: set the environment variable {variables}, "
            f"or models.providers.{name}.api_key in the configuration",
            code="no_api_key",
            provider=name,
            model=model,
            reason="auth",
            sent=False,
        )
    return None
