"""Random chains of errors: causes, contexts, fields and groups, rings among them. What may be said of each is known
from what was put in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import (
    CoordinationError,
    OwnershipLostError,
    ProviderError,
    SessionBusyError,
    SessionWriteLockTimeoutError,
)
from holdfast.model.errors import translate
from holdfast.model.failure import classify
from holdfast.model.failure_rules import REASONS


class SdkError(Exception):
    """An error of a library that keeps others in fields of its own."""


def coordination(kind: int) -> BaseException:
    return (
        SessionBusyError("agent:main:main", 1.0, "turn t1"),
        SessionWriteLockTimeoutError("a.jsonl", 60_000, "pid 7"),
        OwnershipLostError("another turn owns the session"),
        SdkError("session file changed while embedded prompt lock was released: a.jsonl"),
        with_fields(SdkError("request failed"), code="OPENCLAW_SESSION_WRITE_LOCK_TIMEOUT"),
    )[kind]


def of_a_provider(kind: int) -> BaseException:
    return (
        with_fields(SdkError("slow down"), status_code=429),
        with_fields(SdkError("no"), status=401),
        with_fields(SdkError("failed"), code="insufficient_quota"),
        with_fields(SdkError("failed"), body={"error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ProviderError("asked for too much", reason="context_overflow"),
    )[kind]


def neutral(kind: int) -> BaseException:
    return (
        ValueError("odd"),
        TimeoutError("timed out"),
        ConnectionResetError(104, "reset"),
        SdkError("rate limit reached, says the log"),
        SdkError("fetch failed"),
    )[kind]


def with_fields(error: BaseException, **fields: Any) -> BaseException:
    error.__dict__.update(fields)
    return error


MAKERS = {"coordination": coordination, "provider": of_a_provider, "neutral": neutral}
LINKS = ("__cause__", "__context__", "cause", "error", "reason", "detail", "group")


@dataclass(frozen=True)
class Link:
    """One more error around what is there: which, and how it holds it."""

    family: str
    kind: int
    link: str
    ring: bool = False

    def around(self, inner: BaseException | None) -> BaseException:
        error = MAKERS[self.family](self.kind)
        if inner is None:
            return error
        link = "cause" if isinstance(error, ProviderError) and self.link == "reason" else self.link
        if link == "group":
            return BaseExceptionGroup("several", [error, inner])
        setattr(error, link, inner)
        if self.ring:  # not as `__cause__`, which hides the context beside it
            inner.__dict__.setdefault("cause", error)
        return error


chains = st.lists(
    st.builds(Link, st.sampled_from(sorted(MAKERS)), st.integers(0, 4), st.sampled_from(LINKS), st.booleans()),
    min_size=1,
    max_size=8,
)


def error_of(links: list[Link]) -> BaseException:
    error: BaseException | None = None
    for link in links:
        error = link.around(error)
    assert error is not None
    return error


@settings(max_examples=500, deadline=None)
@given(chains)
@pytest.mark.promise("P7")
def test_who_may_write_is_never_a_models_failure_unless_a_provider_says_so(links: list[Link]) -> None:
    families = {link.family for link in links}
    found = classify(error_of(links))
    assert found.reason is None or found.reason in REASONS
    if "coordination" not in families:
        assert not found.coordination
    elif "provider" in families:
        assert (found.coordination, found.reason is None) == (False, False)
    else:
        assert (found.coordination, found.reason) == (True, None)
    if "provider" in families:
        assert found.reason is not None


FIELDS = (
    "id", "name", "message", "Message", "status", "statusCode", "code", "error_code", "type", "provider", "body",
    "error", "Error", "errors", "cause", "reason", "detail", "details", "metadata", "raw", "response",
    "ResponseMetadata", "HTTPStatusCode", "errno", "@type", "retryDelay", "msg",
)  # fmt: skip
ODD_TEXTS = ("", "429", "{", '{"error":', '{"error":{"code":429}}', "HTTP 999: x", "\ud800", "0x1ad", "x" * 9000)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(ODD_TEXTS) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=8))
def test_whatever_stands_in_a_line_it_gets_a_class_or_none(line: dict[str, Any]) -> None:
    """Any JSON object is an error to `holdfast classify`, and any body one to the seam."""
    found = classify(line)
    assert found.reason is None or found.reason in REASONS
    assert found.evidence
    ours = translate(with_fields(SdkError("failed"), body=line), provider="p", model="m")  # pyright: ignore[reportArgumentType]
    assert isinstance(ours, ProviderError)


@settings(max_examples=300, deadline=None)
@given(chains)
def test_the_seam_changes_nothing_about_that(links: list[Link]) -> None:
    """What a client raises is translated first; our own error then stands around the library's."""
    error = error_of(links)
    if not isinstance(error, Exception):
        return
    before = classify(error)
    ours = translate(error, provider="p", model="m")
    assert isinstance(ours, CoordinationError) == (before.coordination or isinstance(error, CoordinationError))
    if isinstance(ours, ProviderError) and ours is not error:
        ours.__cause__ = error
    after = classify(ours)
    assert after.coordination == before.coordination
    assert before.reason is None or after.reason is not None


@settings(max_examples=200, deadline=None)
@given(chains, st.integers(1, 4))
def test_a_wrapper_that_says_nothing_takes_nothing_away(links: list[Link], times: int) -> None:
    error = error_of(links)
    plain = classify(error)
    for _ in range(times):
        wrapper = SdkError("while answering")
        wrapper.__cause__ = error
        error = wrapper
    found = classify(error)
    assert (found.reason, found.coordination) == (plain.reason, plain.coordination)
