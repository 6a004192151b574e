"""Request bodies: bounded in bytes, time and depth, decoded once. A bad one is refused and harms nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from holdfast.gateway.replies import Refusal
from holdfast.session.entries import LINE_BYTES_MAX, deeper_than

if TYPE_CHECKING:
    from starlette.requests import Request

BODY_BYTES_MAX = LINE_BYTES_MAX + 64 * 1024  # a message as large as a line may be, and what is around it
BODY_S_MAX = 60.0  # a slow phone sends 16 MiB in that time; a socket kept open on purpose does not matter after it
BODY_DEPTH_MAX = 100  # below what a transcript line may nest, as a body becomes part of one
_THREAD_BYTES = 256 * 1024  # decoding more than this takes about a millisecond: not on the event loop


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        Refusal: 413 too large, 415 compressed or not JSON by its type, 408 too slow, 400 not JSON, not UTF-8, nested
            deeper than `BODY_DEPTH_MAX`, numbers that are none, or not an object.
        starlette.requests.ClientDisconnect: the caller has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(415, f"the body must be application/json, not {kind or 'untyped'}", code="content_type")
    raw = await read_raw(request)
    value = await asyncio.to_thread(decode, raw) if len(raw) > _THREAD_BYTES else decode(raw)
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object", code="invalid_json")
    return value


async def read_raw(request: Request, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The body as it was sent: what a signature is over.

    Raises: Refusal (413, 415 compressed, 408), ClientDisconnect.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "compressed bodies are not accepted; send it without Content-Encoding", code="encoding")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError:
        raise Refusal(408, f"the body took longer than {BODY_S_MAX:.0f} s", code="timeout") from None
    return bytes(body)


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(413, f"the body is over the limit of {bytes_max} bytes", code="too_large")


def decode(raw: bytes) -> Any:
    """JSON as plain values that any later encoder accepts: half an emoji, which JavaScript writes, becomes "?".

    Raises:
        Refusal: 400.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = _decode_awkward(raw)
    except RecursionError:
        raise _too_deep() from None
    if raw.count(b"[") + raw.count(b"{") > BODY_DEPTH_MAX and deeper_than(value, BODY_DEPTH_MAX):
        raise _too_deep()
    return value


def _decode_awkward(raw: bytes) -> Any:
    """What the fast decoder refuses and JSON.stringify may have written: lone surrogates."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        return msgspec.json.decode(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except RecursionError:
        raise _too_deep() from None
    except ValueError as exc:
        raise Refusal(400, f"the body is not valid JSON in UTF-8: {exc}", code="invalid_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> Refusal:
    return Refusal(400, f"the body is nested deeper than {BODY_DEPTH_MAX} levels", code="invalid_json")
