"""What people read when no model could answer."""

from __future__ import annotations

from holdfast.errors import AllModelsFailedError, ProviderError
from holdfast.model.words import explain_failure, in_time


def test_a_summary_says_what_was_tried_why_each_failed_and_when_to_try_again() -> None:
    limited = ProviderError("HTTP 429 {...}", reason="rate_limit")
    error = AllModelsFailedError([("a/1", limited), ("b/2", ProviderError("?"))], [("c/3", "billing", 7200.0)], 23.4)
    assert explain_failure(error) == (
        "This message could not be answered: no model could answer. a/1 has reached its rate limit; b/2 failed; c/3 is "
        "left alone for 2 hours more, since it has no credit left, or its billing is not in order. It makes sense to "
        "try again in 24 seconds. It is kept; send it again to try once more."
    )


def test_several_keys_of_a_model_are_told_as_one() -> None:
    twice = [("a/1", ProviderError("x", reason="billing")), ("a/1", ProviderError("y", reason="auth"))]
    told = explain_failure(AllModelsFailedError(twice))
    assert told.count("a/1") == 1
    assert "refused the key" in told


def test_a_single_failure_keeps_what_the_provider_said_on_one_line() -> None:
    error = ProviderError("HTTP 401:\n bad key", reason="auth", provider="lab", model="m")
    assert explain_failure(error).startswith(
        "This message could not be answered: lab/m refused the key, or has none (HTTP 401: bad key). It is kept"
    )


def test_times_are_rounded_up() -> None:
    assert [in_time(s) for s in (0.2, 1.2, 61, 150, 7201)] == [
        "1 second",
        "2 seconds",
        "61 seconds",
        "3 minutes",
        "3 hours",
    ]
