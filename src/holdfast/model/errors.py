"""The one seam where errors of other libraries become ours, by a table of dotted class names. No SDK is imported.

Cancellation is no `Exception` and never comes here; our own errors pass unchanged, so a coordination error stays one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from holdfast.errors import HoldfastError, InputError, ProviderError, ResourceError
from holdfast.model.facts import Facts, body_error, walk

BODY_BYTES_MAX = 4096
MESSAGE_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """What a class of another library means.

    Args:
        code: our code, where the provider gave none of its own.
        reason: the failure class, where the class alone says it.
        sent: False: the request never left this machine.
        fault: "provider", or "caller" for a mistake in the call or the configuration.
    """

    code: str | None = None
    reason: str | None = None
    sent: bool = True
    fault: str = "provider"


_TIMEOUT = Row("timeout")
_NOT_SENT = Row("connection_error", sent=False)
_NOT_SENT_IN_TIME = Row("timeout", sent=False)
_BROKEN = Row("connection_error")
_ODD = Row("unexpected_response")
_NO_CREDENTIALS = Row("no_credentials", reason="auth", sent=False)
_CALLER = Row(fault="caller", sent=False)

# Looked up for each class of an error's method resolution order, nearest first.
TABLE: dict[str, Row] = {
    "pydantic_ai.exceptions.ModelRequestTimeout": _TIMEOUT,
    "pydantic_ai.exceptions.ModelTimeoutError": _TIMEOUT,
    "pydantic_ai.exceptions.ModelConnectionError": _BROKEN,
    "pydantic_ai.exceptions.ModelContextWindowExceededError": Row("context_length_exceeded", reason="context_overflow"),
    "pydantic_ai.exceptions.ModelOverloadedError": Row("overloaded", reason="overloaded"),
    "pydantic_ai.exceptions.ContentFilterError": Row("content_filter"),
    "pydantic_ai.exceptions.UnexpectedModelBehavior": _ODD,
    "pydantic_ai.exceptions.ModelAPIError": Row(),
    "pydantic_ai.exceptions.UserError": _CALLER,
    "openai.APITimeoutError": _TIMEOUT,
    "openai.APIConnectionError": _BROKEN,
    "openai.OpenAIError": Row(),
    "anthropic.APITimeoutError": _TIMEOUT,
    "anthropic.APIConnectionError": _BROKEN,
    "anthropic.AnthropicError": Row(),
    "httpx.InvalidURL": _CALLER,
    "httpx.UnsupportedProtocol": _CALLER,
    "httpx.ConnectTimeout": _NOT_SENT_IN_TIME,
    "httpx.PoolTimeout": _NOT_SENT_IN_TIME,
    "httpx.ConnectError": _NOT_SENT,
    "httpx.ProxyError": _NOT_SENT,
    "httpx.TimeoutException": _TIMEOUT,
    "httpx.HTTPError": _BROKEN,
    "httpx.StreamError": _BROKEN,
    "botocore.exceptions.ConnectTimeoutError": _NOT_SENT_IN_TIME,
    "botocore.exceptions.ReadTimeoutError": _TIMEOUT,
    "botocore.exceptions.ConnectionError": _NOT_SENT,
    "botocore.exceptions.HTTPClientError": _BROKEN,
    "botocore.exceptions.NoCredentialsError": _NO_CREDENTIALS,
    "botocore.exceptions.PartialCredentialsError": _NO_CREDENTIALS,
    "botocore.exceptions.CredentialRetrievalError": _NO_CREDENTIALS,
    "botocore.exceptions.TokenRetrievalError": _NO_CREDENTIALS,
    "botocore.exceptions.SSOError": _NO_CREDENTIALS,
    "botocore.exceptions.NoAuthTokenError": _NO_CREDENTIALS,
    "botocore.exceptions.NoRegionError": _CALLER,
    "botocore.exceptions.ProfileNotFound": _CALLER,
    "botocore.exceptions.InvalidEndpointConfigurationError": _CALLER,
    "botocore.exceptions.ParamValidationError": Row("invalid_parameters", reason="format", sent=False),
    "botocore.exceptions.ClientError": Row(),
    "botocore.exceptions.BotoCoreError": Row("sdk_error"),
    "botocore.eventstream.ParserError": _ODD,
    "urllib3.exceptions.TimeoutError": _TIMEOUT,
    "urllib3.exceptions.HTTPError": _BROKEN,
    "google.genai.errors.UnknownApiResponseError": _ODD,
    "google.genai.errors.APIError": Row(),
    "google.auth.exceptions.TransportError": _NOT_SENT,
    "google.auth.exceptions.GoogleAuthError": _NO_CREDENTIALS,
    "json.decoder.JSONDecodeError": _ODD,
    "socket.gaierror": _NOT_SENT,
    "builtins.UnicodeDecodeError": _ODD,
    "builtins.AssertionError": _ODD,  # what one SDK raises for a page of HTML
    "builtins.ConnectionRefusedError": _NOT_SENT,
    "builtins.ConnectionError": _BROKEN,
    "builtins.TimeoutError": _TIMEOUT,
}
_UNKNOWN = Row("adapter_error")

# Errors of this machine that surface as connection errors.
_RESOURCE_CODES = frozenset({"EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EROFS", "ENOMEM", "ENOBUFS"})

_SECRET = re.compile(
    r"\b(?:(?:sk|pk|gsk|xai|ghp|hf|r8)[-_]|AIza|AKIA)[A-Za-z0-9_-]{12,}|(?i:bearer)\s+(?=\S*\d)[A-Za-z0-9._~+/-]{12,}=*"
)


def row_of(error: BaseException) -> Row | None:
    """The table's row for an error, by the nearest class of its that has one."""
    for cls in type(error).__mro__:
        # httpx2 is httpx under another name, class for class.
        row = TABLE.get(f"{cls.__module__}.{cls.__qualname__}".replace("httpx2.", "httpx.", 1))
        if row is not None:
            return row
    return None


def translate(
    error: Exception, *, provider: str, model: str, partial: str = "", secrets: Iterable[str] = ()
) -> HoldfastError:
    """Our error for `error`; raise it `from error`.

    Args:
        partial: the text that had been streamed.
        secrets: values that must not appear in message or body, such as the API key.

    Returns:
        the same object for an error of ours; ResourceError when this machine failed (out of handles, disk full);
        InputError for a mistake in the call; ProviderError for all else.
    """
    if isinstance(error, HoldfastError):
        return error
    chain = walk(error)
    row = row_of(error) or _UNKNOWN
    secrets = [secret for secret in secrets if secret]
    lacking = next((code for facts in chain for code in facts.codes if code in _RESOURCE_CODES), None)
    if lacking is not None:
        return ResourceError(f"{provider}/{model} could not be asked: {lacking}: {redact(str(error), secrets)}")
    if row.fault == "caller":
        return InputError(f"{provider}/{model}: {redact(str(error), secrets)}")
    status = next((facts.status for facts in chain if facts.status is not None), None)
    status = status if status is not None and status >= 400 else None
    code = next(iter(chain[0].codes), None) or next((below.code for below in _rows(error) if below.code), None)
    body = _body(error)
    return ProviderError(
        _message(error, chain[0], status, code, body, f"{provider}/{model}", secrets),
        status=status,
        code=code,
        provider=provider,
        model=model,
        body=_cut_body(body, secrets),
        reason=row.reason,
        retry_after_s=_retry_after_s(error),
        sent=_sent(error),
        partial=partial,
    )


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets and without anything that looks like a key."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return _SECRET.sub("[secret]", text)


def _message(
    error: Exception, facts: Facts, status: int | None, code: str | None, body: object, ref: str, secrets: list[str]
) -> str:
    said = body_error(body)
    words = (said.get("message") or said.get("Message") or said.get("detail")) if said is not None else None
    text = words if isinstance(words, str) and words else facts.message or type(error).__name__
    head = " ".join(part for part in (f"HTTP {status}" if status else "", code or "") if part)
    text = redact(" ".join(text.split()), secrets)[:MESSAGE_CHARS_MAX]
    return f"{head}: {text} ({ref})" if head else f"{text} ({ref})"


def _body(error: Exception) -> object:
    for name in ("body", "details"):
        value = getattr(error, name, None)
        if isinstance(value, Mapping | str | list) and value:
            return cast(object, value)
    response = getattr(error, "response", None)
    return cast(object, response) if isinstance(response, Mapping) else None


def _cut_body(body: object, secrets: list[str]) -> Any:
    """The body with secrets removed; as parsed while it is small, else the beginning of its text."""
    if body is None:
        return None
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    clean = redact(text, secrets)
    if len(clean.encode("utf-8", "replace")) > BODY_BYTES_MAX:
        return clean.encode("utf-8", "replace")[:BODY_BYTES_MAX].decode("utf-8", "ignore")
    return clean if isinstance(body, str) else json.loads(clean)


def _retry_after_s(error: Exception) -> float | None:
    own = getattr(error, "retry_after", None)
    if isinstance(own, int | float):
        return float(own)
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = cast("Mapping[str, str]", headers).get("retry-after") if isinstance(headers, Mapping) else None
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value) else None


def _sent(error: BaseException) -> bool:
    """Whether the request may have reached the provider: no error on the way down says that it was never sent."""
    return all(row.sent for row in _rows(error))


def _rows(error: BaseException) -> Iterator[Row]:
    """The rows of the error and of what caused it, outermost first."""
    seen: set[int] = set()
    node: BaseException | None = error
    while node is not None and id(node) not in seen:
        seen.add(id(node))
        row = row_of(node) or (_UNKNOWN if node is error else None)
        if row is not None:
            # pydantic-ai names the phase of a request in which its transport failed.
            never_sent = getattr(node, "phase", None) in ("pool", "connect")
            yield replace(row, sent=False) if never_sent else row
        node = node.__cause__ or node.__context__
