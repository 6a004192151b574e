"""What the gateway answers when it cannot do what was asked: one table from errors to HTTP, one form of error body.

The body is OpenAI's on every path, so that one client can read all of them:
`{"error": {"message", "type", "param": null, "code", …}}`.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response, StreamingResponse

from holdfast import errors
from holdfast.store.views import InputView

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

RETRY_AFTER_S = 5
"""Said with 429 and 503: about one turn of a fast model, and no more than official clients wait."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An answer that is not the wished one. Raised by handlers, made into a response at one place.

    `kind` is OpenAI's `type`; `details` are further keys of the error object.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": None, "code": self.code, **self.details}}

    def response(self) -> Response:
        return json_response(self.body(), self.status, self.headers)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; frozen dataclasses of the store are objects with the same names."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


class EventStream(StreamingResponse):
    """Server-sent events. `on_end` is called when the connection has ended, also if the stream never began."""

    def __init__(
        self, pieces: AsyncIterator[bytes], on_end: Callable[[], None], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(pieces, headers=headers, media_type="text/event-stream")
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


_TABLE: list[tuple[type[BaseException], int, str, str]] = [
    # error, status, type, code; the first row that fits counts
    (errors.InputConflictError, 409, "invalid_request_error", "idempotency_key_reused"),
    (errors.InputTooLargeError, 413, "invalid_request_error", "too_large"),
    (errors.UnknownSessionError, 404, "invalid_request_error", "unknown_session"),
    (errors.UnknownInputError, 404, "invalid_request_error", "unknown_input"),
    (errors.InputError, 400, "invalid_request_error", "invalid_input"),
    (errors.DrainingError, 503, "server_error", "draining"),
    (errors.SessionBusyError, 409, "conflict_error", "session_busy"),
    (errors.CoordinationError, 503, "server_error", "coordination"),
    (errors.ResourceError, 503, "server_error", "resource"),
    (errors.StateVersionError, 503, "server_error", "state_version"),
    (errors.ProviderError, 502, "server_error", "provider_error"),
]
_PASSING = (409, 429, 503)  # trying again later may help
_FULL = (errno.ENOSPC, errno.EDQUOT)


def refusal_of(error: BaseException) -> Refusal | None:
    """The answer to an error of ours; None for anything else, which is a fault of the program and stays one."""
    for family, status, kind, code in _TABLE:
        if isinstance(error, family):
            if isinstance(error, errors.ResourceError) and _is_full(error):
                status, code = 507, "disk_full"
            return Refusal(status, str(error), kind, code, _headers(error, status))
    return None


def _headers(error: BaseException, status: int) -> dict[str, str]:
    if isinstance(error, errors.HoldfastError) and not error.again:
        return {"x-should-retry": "false"}  # official clients would repeat a 409 or a 5xx twice
    if status not in _PASSING:
        return {}
    return {"retry-after": str(getattr(error, "retry_after_s", RETRY_AFTER_S))}


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


def refusal_of_input(view: InputView) -> Refusal:
    """The answer to a caller whose input ended without one: what happened, and the id it is kept under.

    It says that repeating the request is no use: a turn has done its own retries, and its end is final.
    """
    status, kind, code = _END_OF_INPUT.get(view.state, (500, "server_error", view.state))
    if view.state == "failed":
        status, kind, code = _FAILURES.get(view.error or "", (500, "server_error", "turn_failed"))
    message = view.detail or f"the turn ended as {view.state}"
    return Refusal(
        status,
        message,
        kind,
        code,
        {"x-should-retry": "false"},
        {"input_id": view.id, "state": view.state, "error_class": view.error},
    )


_END_OF_INPUT = {
    "cancelled": (409, "conflict_error", "cancelled"),
    "skipped": (409, "conflict_error", "skipped"),
    "superseded": (409, "conflict_error", "superseded"),
}
_FAILURES = {
    "ProviderError": (502, "server_error", "provider_error"),
    "TurnLimitError": (422, "invalid_request_error", "turn_limit"),
    "ResourceError": (503, "server_error", "resource"),
    "InputError": (400, "invalid_request_error", "invalid_input"),
    "InputTooLargeError": (413, "invalid_request_error", "too_large"),
}
