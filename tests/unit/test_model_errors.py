"""The seam for foreign errors, with the SDKs' real classes."""

from __future__ import annotations

import asyncio
import errno
import json
from datetime import UTC, datetime

import anthropic
import botocore.exceptions
import google.auth.exceptions
import google.genai.errors
import httpx
import httpx2
import openai
import pytest
from pydantic_ai import exceptions as pai

from holdfast.errors import CoordinationError, InputError, ProviderError, ResourceError, SessionBusyError
from holdfast.model.error_table import TABLE, row_of
from holdfast.model.errors import BODY_BYTES_MAX, redact, translate
from holdfast.model.failure import classify
from holdfast.model.retry_after import RETRY_AFTER_MAX_S, retry_after_s

REQUEST = httpx2.Request("POST", "https://api.example.test/v1")


def translated(error: Exception, *, partial: str = "", secrets: tuple[str, ...] = ()) -> ProviderError:
    out = translate(error, provider="openai", model="gpt-5", partial=partial, secrets=secrets)
    assert isinstance(out, ProviderError)
    return out


def response(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, request=REQUEST)


def throttled(code: str = "ThrottlingException", status: int = 429) -> botocore.exceptions.ClientError:
    answer = {"Error": {"Code": code, "Message": "slow"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "ConverseStream")


@pytest.mark.parametrize(
    ("error", "status", "code", "reason"),
    [
        (
            openai.RateLimitError(
                "Rate limit", response=response(429), body={"code": "rate_limit_exceeded", "message": "Rate limit"}
            ),
            429,
            "rate_limit_exceeded",
            "rate_limit",
        ),
        (openai.APITimeoutError(REQUEST), None, "timeout", "timeout"),
        (openai.APIConnectionError(request=REQUEST), None, "connection_error", "timeout"),
        (anthropic.APITimeoutError(REQUEST), None, "timeout", "timeout"),
        (
            anthropic.InternalServerError(
                "Overloaded",
                response=response(529),
                body={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ),
            529,
            "overloaded_error",
            "overloaded",
        ),
        (httpx.ReadTimeout("slow"), None, "timeout", "timeout"),
        (httpx2.RemoteProtocolError("peer closed connection"), None, "connection_error", "timeout"),
        (throttled(), 429, "ThrottlingException", "rate_limit"),
        (throttled("AccessDeniedException", 403), 403, "AccessDeniedException", "auth"),
        (botocore.exceptions.NoCredentialsError(), None, "no_credentials", "auth"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://x"), None, "timeout", "timeout"),
        (
            google.genai.errors.ClientError(
                429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota"}}
            ),
            429,
            "RESOURCE_EXHAUSTED",
            "rate_limit",
        ),
        (google.auth.exceptions.DefaultCredentialsError("none"), None, "no_credentials", "auth"),
        (pai.ModelTimeoutError("gpt-5", "timed out", phase="read"), None, "timeout", "timeout"),
        (pai.ModelContextWindowExceededError("gpt-5", "too long"), None, "context_length_exceeded", "context_overflow"),
        (pai.UnexpectedModelBehavior("ended without content"), None, "unexpected_response", "timeout"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), None, "unexpected_response", "timeout"),
        (TimeoutError(), None, "timeout", "timeout"),
        (RuntimeError("an adapter's own trouble"), None, "adapter_error", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_sdks_errors_become_ours_with_status_code_and_class(
    error: Exception, status: int | None, code: str, reason: str | None
) -> None:
    ours = translated(error, partial="so far")
    assert (ours.status, ours.code, classify(ours).reason) == (status, code, reason)
    assert (ours.provider, ours.model, ours.partial) == ("openai", "gpt-5", "so far")
    assert "(openai/gpt-5)" in str(ours)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx2.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx2.PoolTimeout("full"), False),
        (httpx2.ReadTimeout("slow"), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="https://x"), False),
        (pai.ModelConnectionError("m", "refused", phase="connect"), False),
        (pai.ModelConnectionError("m", "cut", phase="read"), True),
        (ConnectionRefusedError(), False),
        (throttled(), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_whether_the_request_may_have_been_sent_is_kept(error: Exception, sent: bool) -> None:
    assert translated(error).sent is sent


def test_a_refused_connection_under_an_sdks_own_error_was_not_sent() -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx2.ConnectError("refused")
    assert translated(error).sent is False


RETRY_INFO = {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]}}


def test_the_wait_a_provider_asks_for_is_kept_wherever_its_sdk_puts_it() -> None:
    limited = openai.RateLimitError("x", response=response(429, **{"retry-after": "7"}), body=None)
    assert translated(limited).retry_after_s == 7
    assert translated(pai.ModelRateLimitError("m", "x", retry_after=2.5)).retry_after_s == 2.5
    assert translated(pai.ModelRateLimitError("m", "x", retry_after=1e9)).retry_after_s == RETRY_AFTER_MAX_S
    wrapped = pai.ModelAPIError("m", "x")
    wrapped.__cause__ = limited
    assert translated(wrapped).retry_after_s == 7
    assert translated(google.genai.errors.ClientError(429, RETRY_INFO)).retry_after_s == 34.07
    aws = throttled()
    aws.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "3"}
    assert translated(aws).retry_after_s == 3
    assert translated(throttled()).retry_after_s is None


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"Retry-After": "7"}, None, 7.0),
        ({"retry-after": " 2.5 "}, None, 2.5),
        ({"retry-after": "0"}, None, 0.0),
        ({"retry-after": "-3"}, None, 0.0),
        ({"retry-after": "1000000"}, None, RETRY_AFTER_MAX_S),
        ({"retry-after": "nan"}, None, None),
        ({"retry-after": "inf"}, None, None),
        ({"retry-after": "soon"}, None, None),
        ({"retry-after": ""}, None, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, None, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, None, 9.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, None, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, None, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT", "date": "Thu, 01 Jan 2026 00:00:10 GMT"}, None, 20.0),
        ({}, RETRY_INFO, 34.07),
        ({"retry-after": "5"}, RETRY_INFO, 5.0),
        (None, [RETRY_INFO], 34.07),
        (None, json.dumps(RETRY_INFO), 34.07),
        (None, {"error": {"details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "later"}]}}, None),
        (None, {"error": {"details": "none"}}, None),
        (None, None, None),
    ],
)
def test_a_wait_is_read_in_each_of_its_forms(headers: dict[str, str] | None, body: object, wait: float | None) -> None:
    assert retry_after_s(headers, body, now=NOW) == wait


def test_our_own_errors_pass_unchanged() -> None:
    for own in (SessionBusyError("s", 1.0, "t"), ProviderError("x"), InputError("y")):
        assert translate(own, provider="p", model="m") is own


def test_a_coordination_error_inside_an_sdks_own_stays_one() -> None:
    busy = SessionBusyError("s", 1.0, "t")
    wrapper = openai.APIConnectionError(message="rate limit reached, says the hook", request=REQUEST)
    wrapper.__cause__ = busy
    assert translate(wrapper, provider="p", model="m") is busy
    limited = openai.RateLimitError("slow down", response=response(429), body=None)
    limited.__cause__ = busy
    assert isinstance(translate(limited, provider="p", model="m"), ProviderError)
    told = translate(RuntimeError("session file locked (timeout 5ms): pid 7"), provider="p", model="m")
    assert isinstance(told, CoordinationError)


def test_cancellation_is_nothing_the_seam_could_take() -> None:
    assert not isinstance(asyncio.CancelledError(), Exception)


def test_a_mistake_of_the_caller_is_no_failure_of_a_provider() -> None:
    error = translate(pai.UserError("tool_choice names no tool"), provider="openai", model="gpt-5")
    assert isinstance(error, InputError)
    region = translate(botocore.exceptions.NoRegionError(), provider="bedrock", model="x")
    assert isinstance(region, InputError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
def test_a_machine_out_of_handles_or_disk_is_no_failure_of_a_provider(number: int) -> None:
    error = httpx2.ConnectError("All connection attempts failed")
    error.__cause__ = OSError(number, "none left")
    assert isinstance(translate(error, provider="openai", model="gpt-5"), ResourceError)


def test_secrets_reach_neither_message_nor_body() -> None:
    key = "my+odd/key=="
    body = {
        "message": f"Incorrect API key provided: {key}",
        "seen": "Bearer abcdef0123456789",
        "other": "sk-proj-0123456789ab",
    }
    error = openai.AuthenticationError("no", response=response(401), body=body)
    ours = translated(error, secrets=(key,))
    told = f"{ours} {json.dumps(ours.body)} {ours!r}"
    for secret in (key, "abcdef0123456789", "sk-proj-0123456789ab"):
        assert secret not in told
    assert "[secret]" in str(ours)
    assert ours.status == 401


def test_ordinary_words_are_not_taken_for_secrets() -> None:
    text = "Bearer authentication is required; skipping the pkg-resources task"
    assert redact(text) == text


def test_a_large_body_is_cut() -> None:
    ours = translated(openai.APIStatusError("x", response=response(500), body={"page": "é" * 9000}))
    assert isinstance(ours.body, str)
    assert len(ours.body.encode()) <= BODY_BYTES_MAX
    assert len(str(ours)) < 1200


def test_the_nearest_class_with_a_row_decides() -> None:
    assert row_of(httpx2.ConnectTimeout("x")) is TABLE["httpx.ConnectTimeout"]
    assert row_of(httpx2.WriteTimeout("x")) is TABLE["httpx.TimeoutException"]
    assert row_of(KeyError("x")) is None
