"""The seam is complete: every exception class of every SDK becomes one of ours, with a class of failure.

The classes are those that exist once the SDKs are loaded as the adapters load them. An instance is made without its
constructor, so that nothing but its type speaks: no status, no code, no words.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import pytest

from holdfast.errors import HoldfastError, InputError, ProviderError
from holdfast.model.errors import translate
from holdfast.model.failure import classify

LOADED = (
    "pydantic_ai.models.openai",
    "pydantic_ai.models.anthropic",
    "pydantic_ai.models.bedrock",
    "pydantic_ai.models.google",
    "pydantic_ai.exceptions",
    "openai",
    "anthropic",
    "boto3.exceptions",
    "botocore.credentials",
    "botocore.eventstream",
    "botocore.exceptions",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.tokens",
    "google.auth.exceptions",
    "google.genai.errors",
    "httpx",
    "httpx2",
    "urllib3.exceptions",
    "pydantic_ai.models.test",
)
PACKAGES = (
    "anthropic",
    "boto3",
    "botocore",
    "google.auth",
    "google.genai",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "openai",
    "pydantic_ai",
    "urllib3",
)
AT_LEAST = {
    "anthropic": 60, "botocore": 90, "google.auth": 15, "google.genai": 6, "httpx": 25, "httpx2": 25, "openai": 20,
    "pydantic_ai": 40, "urllib3": 20,
}  # fmt: skip
"""How many classes there were at least when this was written: fewer means that the walk no longer finds them."""

A_BASE = "a base of others: raised with a status, a code or words, which then say the class"
WITHHELD = "an answer that was withheld; no class of the vocabulary says so, and the next model may answer"
THE_AGENTS = "of pydantic-ai's agent and its tools; only its model classes are used"
NOT_CALLED = "of a part of the SDK that is not called"
WITHOUT_CLASS = {
    A_BASE: r"openai\.(?:OpenAIError|APIError|APIStatusError)"
    r"|anthropic\.(?:AnthropicError|APIError|APIStatusError)"
    r"|botocore\.exceptions\.(?:ClientError|EventStreamError)"
    r"|google\.genai\.errors\.APIError"
    r"|pydantic_ai\.exceptions\.(?:ModelAPIError|ModelHTTPError|_CategorizedHTTPError|AgentRunError"
    r"|FallbackExceptionGroup)",
    WITHHELD: r"pydantic_ai\.exceptions\.ContentFilterError",
    THE_AGENTS: r"pydantic_ai\.exceptions\.(?:ApprovalRequired|CallDeferred|ConcurrencyLimitExceeded|ModelRetry"
    r"|RetryModelRequest|RunCancelled|Skip\w+|SuspendedResponseExpired|Tool\w+|UsageLimitExceeded)"
    r"|pydantic_ai\.(?!exceptions\.|models\.|providers\.).+|pydantic_ai\.models\.test\..+",
    NOT_CALLED: r"openai\.(?:ContentFilterFinishReasonError|LengthFinishReasonError|InvalidWebhookSignatureError"
    r"|WebSocketQueueFullError|lib\._old_api\..+|_response\..+|_legacy_response\..+)"
    r"|anthropic\.(?:APIWebhookValidationError|RetryableError|lib\.(?:tools|credentials)\..+|_response\..+|types\..+)"
    r"|botocore\.(?:exceptions\.(?:UndefinedModelAttributeError|MissingServiceIdError)|model\..+"
    r"|utils\.(?:InvalidArnException|_RetriesExceededError)|vendored\..+)"
    r"|google\.genai\.errors\.(?:FunctionInvocationError|UnknownFunctionCallArgumentError|UnsupportedFunctionError)"
    r"|google\.auth\.transport\._mtls_helper\..+"
    r"|urllib3\.(?:exceptions\.ProxySchemeUnsupported|util\.ssl_match_hostname\.CertificateError)"
    r"|pydantic_ai\.models\._batch_codec\..+",
}
"""Classes that by themselves say nothing about a model's failure: the reason, and their names."""


def descendants(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for below in cls.__subclasses__():
        yield below
        yield from descendants(below)


def package_of(cls: type[BaseException]) -> str | None:
    return next((name for name in PACKAGES if cls.__module__ == name or cls.__module__.startswith(f"{name}.")), None)


@pytest.fixture(scope="module")
def classes() -> list[type[Exception]]:
    """Every class of those packages that a request could raise; warnings are none."""
    for module in LOADED:
        importlib.import_module(module)
    found = {cls for cls in descendants(Exception) if package_of(cls) and not issubclass(cls, Warning)}
    return sorted((cls for cls in found if issubclass(cls, Exception)), key=dotted)


def dotted(cls: type[BaseException]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def bare(cls: type[Exception]) -> Exception:
    """An instance that nothing but its type speaks for."""
    if issubclass(cls, BaseExceptionGroup):
        return cls.__new__(cls, "", [Exception()])
    return OSError.__new__(cls) if issubclass(cls, OSError) else cls.__new__(cls)


def why_without(name: str) -> str | None:
    return next((why for why, names in WITHOUT_CLASS.items() if re.fullmatch(names, name)), None)


def test_the_walk_finds_the_trees(classes: list[type[Exception]]) -> None:
    counts = {name: sum(package_of(cls) == name for cls in classes) for name in AT_LEAST}
    assert {name: count for name, count in counts.items() if count < AT_LEAST[name]} == {}


def test_every_class_of_every_sdk_becomes_one_of_ours_with_a_class_of_failure(classes: list[type[Exception]]) -> None:
    without: list[str] = []
    for cls in classes:
        ours = translate(bare(cls), provider="p", model="m")
        assert isinstance(ours, HoldfastError)
        assert isinstance(ours, ProviderError | InputError), dotted(cls)
        if isinstance(ours, ProviderError) and classify(ours).reason is None and why_without(dotted(cls)) is None:
            without.append(dotted(cls))
    assert without == []


def test_what_is_listed_as_without_a_class_is_there_and_has_none(classes: list[type[Exception]]) -> None:
    """So that the list cannot hide a class that would have one, or outlive it. (Whole modules may hold both.)"""
    one_by_one = [cls for cls in classes if why_without(dotted(cls)) in (A_BASE, WITHHELD)]
    assert len(one_by_one) >= 15
    for cls in one_by_one:
        ours = translate(bare(cls), provider="p", model="m")
        assert isinstance(ours, ProviderError)
        assert classify(ours).reason is None, dotted(cls)


@pytest.mark.parametrize("why", WITHOUT_CLASS)
def test_each_reason_to_be_without_a_class_is_needed(why: str, classes: list[type[Exception]]) -> None:
    assert any(why_without(dotted(cls)) == why for cls in classes)
