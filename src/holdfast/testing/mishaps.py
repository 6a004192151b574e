"""What can go wrong with a model's answer, as scenes of a `ProviderStub`, for each interface in its own words.

    stub.play(mishaps.scene(catalog.BEDROCK, "rate_limit"))

What the failover is to make of each is in `reason_of`. Bodies and wordings: see `holdfast.model.failure_rules.SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.model import catalog
from holdfast.testing import wire
from holdfast.testing.provider import Scene, json_scene

TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
CHUNKS_BEFORE_A_CUT = 10
RETRY_AFTER_S = 7.0

# The classes of what a provider refuses, and of how a stream breaks off.
REFUSALS = {
    "rate_limit": "rate_limit",
    "overloaded": "overloaded",
    "server_error": "server_error",
    "billing": "billing",
    "auth": "auth",
    "overflow": "context_overflow",
}
BROKEN_STREAMS = dict.fromkeys(("html", "cut", "stall", "no_finish"), "timeout")
MISHAPS = (*REFUSALS, *BROKEN_STREAMS, "error_event")

# What the error inside a good response says, by interface.
ERROR_EVENTS = {
    catalog.OPENAI: "server_error",
    catalog.ANTHROPIC: "overloaded",
    catalog.GOOGLE: "overloaded",
    catalog.BEDROCK: "rate_limit",
}


def reason_of(api: str, mishap: str) -> str:
    """The class of failure that a mishap is."""
    return {**REFUSALS, **BROKEN_STREAMS, "error_event": ERROR_EVENTS[api]}[mishap]


def scene(api: str, mishap: str) -> Scene:
    """One answer that goes wrong.

    Args:
        api: one of `catalog.APIS` but the demo's.
        mishap: one of `MISHAPS`: a refusal; a page of HTML with status 200; a stream cut after `CHUNKS_BEFORE_A_CUT`
            chunks, one that stalls there, one that ends without its finish reason, one with an error in it.
    """
    if mishap in REFUSALS:
        return _REFUSED[api](mishap)
    if mishap == "html":
        page = b"<!DOCTYPE html><html><body>Please log in to the hotel network.</body></html>"
        return Scene([page], content_type="text/html")
    begun = answer(api, finish=False).chunks
    if mishap == "no_finish":
        return Scene(begun, content_type=CONTENT_TYPES[api])
    begun = begun[:CHUNKS_BEFORE_A_CUT]
    if mishap == "error_event":
        return Scene([*begun[:3], _ERROR_EVENT[api]], content_type=CONTENT_TYPES[api])
    # Kept alive, as the real ones are: of a connection announced to close, the AWS client lets go of the socket.
    return Scene(begun, content_type=CONTENT_TYPES[api], end=mishap, headers={"Connection": "keep-alive"})


def answer(api: str, text: str = TEXT, *, finish: bool = True, paced: bool = False) -> Scene:
    """A good answer, or one that its provider never finishes; word by word."""
    chunks = _STREAMS[api](text) if finish else _STREAMS[api](text, finish=None)
    return Scene(chunks, content_type=CONTENT_TYPES[api], paced=paced)


CONTENT_TYPES = {
    catalog.OPENAI: "text/event-stream",
    catalog.ANTHROPIC: "text/event-stream",
    catalog.GOOGLE: "text/event-stream",
    catalog.BEDROCK: "application/vnd.amazon.eventstream",
}
_STREAMS: dict[str, Callable[..., list[bytes]]] = {
    catalog.OPENAI: wire.openai,
    catalog.ANTHROPIC: wire.anthropic,
    catalog.GOOGLE: wire.google,
    catalog.BEDROCK: wire.bedrock,
}
_STATUSES = {"rate_limit": 429, "overloaded": 529, "server_error": 500, "billing": 402, "auth": 401, "overflow": 400}
_WORDS = {
    "rate_limit": "Too many requests, please wait before trying again.",
    "overloaded": "Overloaded",
    "server_error": "Something went wrong on our side.",
    "billing": "Insufficient Balance",
    "auth": "The key that was sent is not known here.",
}


def _openai(mishap: str) -> Scene:
    kinds = {
        "rate_limit": ("requests", "rate_limit_exceeded"),
        "overloaded": ("server_error", None),
        "server_error": ("server_error", None),
        "billing": ("unknown_error", "invalid_request_error"),
        "auth": ("invalid_request_error", "invalid_api_key"),
        "overflow": ("invalid_request_error", "context_length_exceeded"),
    }
    words = {
        "overflow": "This model's maximum context length is 128000 tokens. Please reduce the length of the messages."
    }
    kind, code = kinds[mishap]
    error = {"message": {**_WORDS, **words}[mishap], "type": kind, "param": None, "code": code}
    return json_scene({"error": error}, _STATUSES[mishap], **_wait(mishap))


def _anthropic(mishap: str) -> Scene:
    kinds = {
        "rate_limit": "rate_limit_error",
        "overloaded": "overloaded_error",
        "server_error": "api_error",
        "billing": "billing_error",
        "auth": "authentication_error",
        "overflow": "invalid_request_error",
    }
    words = {"overflow": "prompt is too long: 208423 tokens > 200000 maximum"}
    error = {"type": kinds[mishap], "message": {**_WORDS, **words}[mishap]}
    return json_scene({"type": "error", "error": error}, _STATUSES[mishap], **_wait(mishap))


def _google(mishap: str) -> Scene:
    kinds = {
        "rate_limit": "RESOURCE_EXHAUSTED",
        "overloaded": "UNAVAILABLE",
        "server_error": "INTERNAL",
        "billing": "FAILED_PRECONDITION",
        "auth": "UNAUTHENTICATED",
        "overflow": "INVALID_ARGUMENT",
    }
    words = {"overflow": "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."}
    error: dict[str, Any] = {
        "code": _STATUSES[mishap],
        "message": {**_WORDS, **words}[mishap],
        "status": kinds[mishap],
    }
    if mishap == "rate_limit":  # it asks in the body, not in a header
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{RETRY_AFTER_S:g}s"}
        error["details"] = [info]
    return json_scene({"error": error}, _STATUSES[mishap])


def _bedrock(mishap: str) -> Scene:
    kinds = {
        "rate_limit": "ThrottlingException",
        "overloaded": "ServiceUnavailableException",
        "server_error": "InternalServerException",
        "billing": "ServiceException",
        "auth": "UnrecognizedClientException",
        "overflow": "ValidationException",
    }
    words = {"overflow": "Input is too long for requested model."}
    body = {"message": {**_WORDS, **words}[mishap]}
    return json_scene(body, _STATUSES[mishap], **{"x-amzn-errortype": kinds[mishap]}, **_wait(mishap))


def _wait(mishap: str) -> dict[str, str]:
    return {"retry-after": f"{RETRY_AFTER_S:g}"} if mishap == "rate_limit" else {}


_REFUSED: dict[str, Callable[[str], Scene]] = {
    catalog.OPENAI: _openai,
    catalog.ANTHROPIC: _anthropic,
    catalog.GOOGLE: _google,
    catalog.BEDROCK: _bedrock,
}
_ERROR_EVENT = {
    catalog.OPENAI: wire.sse({"error": {"type": "server_error", "code": "server_error", "message": "boom"}}),
    catalog.ANTHROPIC: wire.sse(
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, event="error"
    ),
    catalog.GOOGLE: wire.sse({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
    catalog.BEDROCK: wire.aws_event("throttlingException", {"message": "slow down"}, message_type="exception"),
}
