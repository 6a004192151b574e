"""The one seam where errors of other libraries become ours, by a table of class names (`error_table.py`).

Cancellation is no `Exception` and never comes here; our own errors pass unchanged, so a coordination error stays one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from holdfast.errors import CoordinationError, HoldfastError, InputError, ProviderError, ResourceError
from holdfast.model.error_table import UNKNOWN, Row, row_of
from holdfast.model.facts import Facts, body_error, walk
from holdfast.model.failure import classify
from holdfast.model.retry_after import RETRY_AFTER_MAX_S, retry_after_s

BODY_BYTES_MAX = 4096
MESSAGE_CHARS_MAX = 1000
UNINFORMATIVE_CHARS = 30
"""As long as "Connection error." and the like."""


# Errors of this machine that surface as connection errors.
_RESOURCE_CODES = frozenset({"EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EROFS", "ENOMEM", "ENOBUFS"})

_ADDRESS = re.compile(r"\s*\('[^)]*\)|\[?\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?\]?")
"""Where a server is: it may be told in a group whose people do not know it."""
_SECRET = re.compile(
    r"\b(?:(?:sk|pk|gsk|xai|ghp|hf|r8)[-_]|AIza|AKIA)[A-Za-z0-9_-]{12,}|(?i:bearer)\s+(?=\S*\d)[A-Za-z0-9._~+/-]{12,}=*"
)


def translate(
    error: Exception, *, provider: str, model: str, partial: str = "", secrets: Iterable[str] = ()
) -> HoldfastError:
    """Our error for `error`; raise it `from cause_of(ours, error)`.

    Args:
        partial: the text that had been streamed.
        secrets: values that must not appear in message or body, such as the API key.

    Returns:
        the same object for an error of ours; the coordination error inside one that is not a provider's;
        ResourceError when this machine failed (out of handles, disk full);
        InputError for a mistake in the call; ProviderError for all else.
    """
    if isinstance(error, HoldfastError):
        return error
    if classify(error, provider=provider).coordination:
        inside = (node for node in _causes(error) if isinstance(node, CoordinationError))
        return next(inside, None) or CoordinationError(redact(str(error), secrets))
    chain = walk(error)
    row = row_of(error) or UNKNOWN
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
    ours = ProviderError(
        _message(error, chain[0], status, code, body, f"{provider}/{model}", secrets),
        status=status,
        code=code,
        provider=provider,
        model=model,
        body=_cut_body(body, secrets),
        reason=row.reason,
        retry_after_s=_wait_asked_for(error),
        sent=_sent(error),
        partial=partial,
    )
    otherwise = next((below.otherwise for below in _rows(error) if below.otherwise), None)
    if otherwise is not None and classify(ours, provider=provider).reason is None:
        ours.reason = otherwise
    return ours


def cause_of(ours: HoldfastError, error: Exception) -> BaseException | None:
    """What to name as the cause of our error: what it was made of, unless it was inside that all along (a ring)."""
    return ours.__cause__ if isinstance(ours, CoordinationError) else error


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
    text += _root_of(error, text) if status is None and not words else ""
    head = " ".join(part for part in (f"HTTP {status}" if status else "", code or "") if part)
    text = redact(" ".join(text.split()), secrets)[:MESSAGE_CHARS_MAX]
    return f"{head}: {text} ({ref})" if head else f"{text} ({ref})"


def _root_of(error: BaseException, text: str) -> str:
    """What the system said, which SDKs put away as a cause: no such host, connection refused, a certificate."""
    below = [facts.message for facts in walk(error)[1:] if facts.message and facts.message not in text]
    return f" {_ADDRESS.sub('', below[-1]).strip()}" if below and len(text) <= UNINFORMATIVE_CHARS else ""


def _body(error: BaseException) -> object:
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


def _wait_asked_for(error: BaseException) -> float | None:
    """What the outermost error that says so asks to wait, in seconds."""
    for node in _causes(error):
        wait = retry_after_s(_headers(node), _body(node))
        if wait is None and isinstance(own := getattr(node, "retry_after", None), int | float):
            wait = min(max(float(own), 0.0), RETRY_AFTER_MAX_S)
        if wait is not None:
            return wait
    return None


def _headers(error: BaseException) -> Mapping[str, str] | None:
    """The response's headers, where an SDK keeps them."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        response = cast("Mapping[str, Any]", response).get("ResponseMetadata")
        found = response.get("HTTPHeaders") if isinstance(response, Mapping) else None
    else:
        found = getattr(error, "headers", None) or getattr(response, "headers", None)
    return cast("Mapping[str, str]", found) if isinstance(found, Mapping) else None


def _sent(error: BaseException) -> bool:
    """Whether the request may have reached the provider: no error on the way down says that it was never sent."""
    return all(row.sent for row in _rows(error))


def _rows(error: BaseException) -> Iterator[Row]:
    """The rows of the error and of what caused it, outermost first."""
    for node in _causes(error):
        row = row_of(node) or (UNKNOWN if node is error else None)
        if row is not None:
            # pydantic-ai names the phase of a request in which its transport failed.
            never_sent = getattr(node, "phase", None) in ("pool", "connect")
            yield replace(row, sent=False) if never_sent else row


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first; a ring is cut."""
    seen: set[int] = set()
    node: BaseException | None = error
    while node is not None and id(node) not in seen:
        seen.add(id(node))
        yield node
        node = node.__cause__ or node.__context__
