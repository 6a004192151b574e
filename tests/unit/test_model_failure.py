"""Classification: type, status, code, text; causes and cycles; a provider's evidence against a coordination error."""

from __future__ import annotations

import re
from typing import Any

import pytest
from httpx2 import ReadTimeout

from holdfast import errors
from holdfast.errors import (
    AllModelsFailedError,
    CoordinationError,
    ProviderError,
    SessionBusyError,
    SessionWriteLockTimeoutError,
)
from holdfast.model import failure_rules
from holdfast.model.facts import DEPTH_MAX, NODES_MAX, walk
from holdfast.model.failure import classify
from holdfast.model.failure_codes import PROVIDER_CODES, TRANSPORT_CODES
from holdfast.model.failure_texts import TEXTS


def lock_timeout() -> SessionWriteLockTimeoutError:
    return SessionWriteLockTimeoutError("sessions/main.jsonl", 60_000, "pid 7")


class SdkError(Exception):
    """An error of some SDK: fields, and errors inside it."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (401, "nope", "auth"),
        (402, "payment required", "billing"),
        (402, "Monthly spend limit reached.", "rate_limit"),
        (403, "Forbidden", "auth"),
        (403, "api key revoked", "auth_permanent"),
        (404, "no such thing", "model_not_found"),
        (404, "session not found", "session_expired"),
        (408, "", "timeout"),
        (413, "", "context_overflow"),
        (422, "missing required property", "format"),
        (429, "slow down", "rate_limit"),
        (429, "Insufficient account balance", "billing"),
        (500, "boom", "server_error"),
        (503, "The model is overloaded", "overloaded"),
        (504, "", "timeout"),
        (529, "", "overloaded"),
        (418, "teapot", None),
    ],
)
def test_a_status_gives_the_class_unless_the_text_is_more_exact(status: int, message: str, reason: str | None) -> None:
    assert classify(SdkError(message, status_code=status)).reason == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("insufficient_quota", "billing"),
        ("ThrottlingException", "rate_limit"),
        ("THROTTLING_EXCEPTION", "rate_limit"),
        ("overloaded_error", "overloaded"),
        ("context_length_exceeded", "context_overflow"),
        ("ECONNREFUSED", "timeout"),
        ("something_new", None),
    ],
)
def test_a_code_gives_the_class_however_it_is_spelled(code: str, reason: str | None) -> None:
    assert classify({"code": code}).reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("402 items found in the database", None),
        ("402 Payment Required", "billing"),
        ("Fixed issue CHE-402", None),
        ("HTTP 429: try later", "rate_limit"),
        ("Invalid user message={'text': 'payload429snippet'}", None),
        ('{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "overloaded"),
        ("prompt is too long: 208423 tokens > 200000 maximum", "context_overflow"),
        ("request reached organization TPD rate limit, current: 1506556", "rate_limit"),
        ("The weather is nice", None),
        ("", None),
    ],
)
def test_a_bare_text_is_read_with_care(text: str, reason: str | None) -> None:
    assert classify(text).reason == reason


def test_a_plain_timeout_is_a_timeout_whosever_it_is() -> None:
    assert classify(TimeoutError()).reason == "timeout"
    assert classify(ReadTimeout("")).reason == "timeout"


def test_an_empty_body_beside_400_stays_without_a_class_so_that_nothing_loops_on_it() -> None:
    assert classify(SdkError("400 status code (no body)", status=400)).reason is None
    assert classify(SdkError("bad", status=422, error={"message": "HTTP 422: No response body"})).reason is None


def test_a_rule_of_one_provider_does_not_speak_for_others() -> None:
    assert classify("Key limit exceeded", provider="openrouter").reason == "billing"
    assert classify("Key limit exceeded", provider="openai").reason is None
    assert classify({"message": "Key limit exceeded", "provider": "openrouter"}).reason == "billing"


def test_the_class_a_raiser_already_knew_is_believed() -> None:
    assert classify(ProviderError("odd", status=500, reason="billing")).reason == "billing"


def test_a_body_is_evidence_even_where_the_message_says_nothing() -> None:
    body = {"error": {"type": "insufficient_quota", "message": "add credits"}}
    assert classify(ProviderError("failed", body=body)).reason == "billing"
    assert classify(ProviderError("failed", body='{"error":{"code":"model_not_found"}}')).reason == "model_not_found"


# ── what is inside ───────────────────────────────────────────────────────────────────────────────────────────────────


def chained(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize("attribute", ["error", "cause", "reason", "detail"])
def test_an_error_is_found_under_each_attribute(attribute: str) -> None:
    assert classify(SdkError("wrapper", **{attribute: SdkError("x", status=429)})).reason == "rate_limit"
    assert classify({"message": "wrapper", attribute: {"code": "insufficient_quota"}}).reason == "billing"


def test_an_error_is_found_as_a_cause_a_context_and_in_a_group() -> None:
    busy = SdkError("busy", status=529)
    assert classify(chained(RuntimeError("wrapper"), busy)).reason == "overloaded"
    assert classify(ExceptionGroup("several", [ValueError("x"), busy])).reason == "overloaded"
    while_handling = RuntimeError("while handling")
    while_handling.__context__ = busy
    assert classify(while_handling).reason == "overloaded"


def test_a_context_that_was_cut_off_on_purpose_does_not_count() -> None:
    error = RuntimeError("something else")
    error.__context__ = SdkError("busy", status=529)
    assert classify(error).reason == "overloaded"
    error.__suppress_context__ = True  # what `raise … from None` does
    assert classify(error).reason is None


def test_a_ring_of_causes_ends() -> None:
    first, second = SdkError("a"), SdkError("b", status=429)
    first.__cause__, second.__cause__ = second, first
    assert classify(first).reason == "rate_limit"
    loop: dict[str, Any] = {"message": "x"}
    loop["cause"] = loop
    assert classify(loop).reason is None


def test_depth_and_number_are_bounded() -> None:
    deep: dict[str, Any] = {"status": 429}
    for _ in range(DEPTH_MAX + 1):
        deep = {"message": "wrapper", "cause": deep}
    assert classify(deep).reason is None
    assert len(walk(ExceptionGroup("many", [ValueError(str(n)) for n in range(500)]))) == NODES_MAX


def test_an_error_whose_properties_raise_is_still_classified() -> None:
    class HostileError(Exception):
        status_code = 429

        @property
        def code(self) -> str:
            raise RuntimeError("not now")

        def __str__(self) -> str:
            raise RuntimeError("not this either")

    assert classify(HostileError()).reason == "rate_limit"


# ── coordination ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        lock_timeout(),
        SessionBusyError("agent:main:main", 30.0, "turn t1"),
        chained(TimeoutError("operation timed out"), lock_timeout()),
        ExceptionGroup("turn", [ValueError("x"), lock_timeout()]),
        RuntimeError("session file changed while embedded prompt lock was released: x.jsonl: superseded"),
    ],
    ids=["lock timeout", "busy", "wrapped in a timeout", "in a group", "class lost, text kept"],
)
def test_a_coordination_error_anywhere_is_one_of_coordination(error: BaseException) -> None:
    found = classify(error)
    assert (found.reason, found.coordination) == (None, True)


@pytest.mark.parametrize(
    "error",
    [
        chained(SdkError("quota pressure", status=429), lock_timeout()),
        chained(lock_timeout(), SdkError("x", code="RESOURCE_EXHAUSTED")),
        chained(ProviderError("Rate limit reached"), lock_timeout()),
    ],
    ids=["a 429 caused by it", "caused by a quota code", "our own provider error"],
)
def test_explicit_evidence_of_the_provider_wins_over_a_coordination_error(error: BaseException) -> None:
    found = classify(error)
    assert (found.reason, found.coordination) == ("rate_limit", False)


def test_a_transport_code_is_no_evidence_against_a_coordination_error() -> None:
    assert classify(chained(SdkError("x", code="ETIMEDOUT"), lock_timeout())).coordination


def test_the_older_systems_names_are_known() -> None:
    stale = {"name": "SessionWriteLockStaleError", "message": "session file lock stale"}
    assert classify(stale).coordination
    assert classify({"name": "Error", "message": "wrapper", "cause": stale}).coordination
    assert classify({"code": "OPENCLAW_SESSION_WRITE_LOCK_TIMEOUT"}).coordination


def test_a_summary_of_failures_has_the_class_they_share() -> None:
    limited = ProviderError("a", status=429, reason="rate_limit", retry_after_s=7)
    also = ProviderError("b", status=429, reason="rate_limit", retry_after_s=3)
    summary = AllModelsFailedError([("x/a", limited), ("x/b", also)])
    assert classify(summary).reason == "rate_limit"
    assert summary.retry_after_s == 3


# ── the tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


EVERY_RULE = [
    *(rule for rules in (*PROVIDER_CODES.values(), *TRANSPORT_CODES.values()) for rule in rules),
    *failure_rules.STATUSES.values(),
    *failure_rules.NAMES.values(),
    *(rule for rule, _ in TEXTS),
]


def test_every_rule_names_a_class_of_the_vocabulary_and_a_source_that_is_told() -> None:
    assert {rule.reason for rule in EVERY_RULE} <= set(failure_rules.REASONS)
    assert {reason for rule in EVERY_RULE for reason in rule.unless} <= set(failure_rules.REASONS)
    assert {rule.source for rule in EVERY_RULE} == set(failure_rules.SOURCES)


def test_no_rule_stands_there_twice() -> None:
    assert len(set(EVERY_RULE)) == len(EVERY_RULE)


def test_wordings_are_written_in_the_lower_case_in_which_they_are_searched() -> None:
    for rule, _ in TEXTS:
        words = re.sub(r"\\.", "", rule.pattern)
        assert words == words.lower()


def test_codes_of_coordination_are_kept_in_the_form_they_are_compared_in() -> None:
    assert all(code == failure_rules.code_key(code) for code in failure_rules.COORDINATION_CODES)


def test_every_coordination_error_of_ours_is_known_by_name() -> None:
    ours = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CoordinationError)
    }
    assert ours <= failure_rules.COORDINATION_NAMES


def test_the_rule_that_decided_is_told_with_its_source() -> None:
    found = classify({"status": 402, "message": "Monthly spend limit reached."})
    assert found.rule is not None
    assert (found.rule.status, found.rule.source) == (402, "openclaw")
    assert found.evidence == "status 402, text 'monthly spend limit reached'"


def test_a_relays_copy_of_what_the_provider_said_counts() -> None:
    body = {
        "error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": "prompt is too long: 9 > 8"}}
    }
    assert classify(ProviderError("HTTP 400: Provider returned error", status=400, body=body)).reason == (
        "context_overflow"
    )


def test_what_a_form_is_refused_for_is_read_field_by_field() -> None:
    body = {"detail": [{"loc": ["body", "messages"], "msg": "maximum context length is 32768 tokens"}]}
    assert classify({"status": 400, "message": "Bad Request", "body": body}).reason == "context_overflow"


def test_a_body_that_is_only_text_is_read() -> None:
    assert classify({"message": "failed", "body": "upstream connect error: connection refused"}).reason == "timeout"
