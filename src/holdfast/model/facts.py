"""What an error says about itself: status, code, text, and the errors inside it. Pure; no SDK is imported.

`walk` turns an exception (of any library) or a mapping in the form of `holdfast classify` into a flat list of `Facts`,
outermost first, following `.error`, `.cause`, `__cause__`, `.reason`, `.detail`, exception groups and `__context__`.
Cycles are cut; depth and number are bounded.
"""

from __future__ import annotations

import errno
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from holdfast.errors import CoordinationError, ProviderError

DEPTH_MAX = 16
NODES_MAX = 64
TEXT_MAX = 8192  # characters of a message that are looked at; what matters stands at the beginning


@dataclass(frozen=True, slots=True)
class Facts:
    """One error, reduced to what classification looks at.

    Args:
        name: class name, "" when unknown.
        message: the text, cut to `TEXT_MAX`.
        said: what the error's body says in words, where the text does not repeat it.
        status: HTTP status, from a numeric attribute or the body (never parsed out of the text).
        text_status: HTTP status that the text opens with or that its JSON carries ("HTTP 402 …", "529 API is busy").
        codes: the provider's codes and types, verbatim, most specific first; also those of its body.
        text_codes: the same, out of JSON inside the text.
        provider: provider name as far as the error knows it.
        reason: a failure class that the raiser had already found.
        coordination: our own CoordinationError.
        from_provider: our own ProviderError.
        depth: 0 for the error itself.
        via: the attribute it was found under ("" for the error itself).
    """

    name: str = ""
    message: str = ""
    said: tuple[str, ...] = ()
    status: int | None = None
    text_status: int | None = None
    codes: tuple[str, ...] = ()
    text_codes: tuple[str, ...] = ()
    provider: str | None = None
    reason: str | None = None
    coordination: bool = False
    from_provider: bool = False
    depth: int = 0
    via: str = ""


def walk(root: object) -> list[Facts]:
    """The error and all errors inside it, breadth first: `[0]` is the error itself."""
    found: list[Facts] = []
    seen: set[int] = set()
    waiting: deque[tuple[object, int, str]] = deque([(root, 0, "")])
    while waiting and len(found) < NODES_MAX:
        node, depth, via = waiting.popleft()
        if id(node) in seen or depth > DEPTH_MAX:
            continue
        seen.add(id(node))
        found.append(facts_of(node, depth, via))
        waiting.extend((child, depth + 1, name) for name, child in _inside(node))
    return found


def facts_of(node: object, depth: int = 0, via: str = "") -> Facts:
    """The facts of one exception, mapping or text, without what is inside it."""
    if isinstance(node, str):
        text = node[:TEXT_MAX]
        codes = tuple(_codes_in_text(text))
        said = tuple(_words_beside(text, text))
        return Facts(message=text, said=said, text_status=status_in_text(text), text_codes=codes, depth=depth, via=via)
    message = _message(node)[:TEXT_MAX]
    body = _get(node, "body")
    codes = [*_codes_of(node), *_codes_in_body(body)]
    return Facts(
        name=_name(node),
        message=message,
        said=tuple(_words_beside(message, body)),
        status=status_of(node) or _status_in_body(body),
        text_status=status_in_text(message),
        codes=tuple(dict.fromkeys(codes)),
        text_codes=tuple(_codes_in_text(message)),
        provider=_text(_get(node, "provider")),
        reason=node.reason if isinstance(node, ProviderError) else None,
        coordination=isinstance(node, CoordinationError),
        from_provider=isinstance(node, ProviderError),
        depth=depth,
        via=via,
    )


def status_of(node: object) -> int | None:
    """The HTTP status an error carries as a number; None when it carries none. "0x1ad" is not one."""
    for name in ("status", "status_code", "statusCode", "http_status", "code"):
        status = _as_status(_get(node, name))
        if status is not None:
            return status
    response = _get(node, "response")
    if response is None:
        return None
    if isinstance(response, Mapping):  # botocore keeps the parsed response
        metadata = cast(Mapping[str, Any], response).get("ResponseMetadata")
        return _as_status(metadata.get("HTTPStatusCode")) if isinstance(metadata, Mapping) else None
    return _as_status(_get(response, "status_code"))


# A number that opens the text counts as a status unless a plain word follows it: "402 items found" is no bill.
_OPENING_STATUS = re.compile(
    r"\s*(?:error:?\s+)?(?:(?P<http>http)(?:/[\d.]+)?[\s:]+)?(?P<status>[45]\d\d)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


def status_in_text(text: str) -> int | None:
    """The HTTP status a text opens with or whose JSON body carries as `code`, or None."""
    match = _OPENING_STATUS.match(text)
    if match:
        rest = match["rest"]
        if match["http"] or not rest.strip() or re.match(r"[:,.]?\s+[^a-z\s]|[:,.]\s*\S|\s*[{<(]", rest):
            return int(match["status"]) if not re.match(r"\d", rest) else None
    error = body_error(text) if "{" in text else None
    return _as_status(error.get("code")) if error is not None else None


def body_error(body: object) -> Mapping[str, Any] | None:
    """The object in an error body that reports the failure: `body["error"]`, `body["Error"]` or the body itself."""
    if body is None:
        return None
    if isinstance(body, str | bytes):
        body = parse_json(body if isinstance(body, str) else body.decode("utf-8", "replace"))
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error", body.get("Error"))
    return inner if isinstance(inner, Mapping) else cast(Mapping[str, Any], body)


def body_words(body: object) -> Iterator[str]:
    """What an error body says to people: its message, wherever it keeps it; a body that is only text, whole."""
    if body is None:
        return
    error = body_error(body)
    if error is None:
        if isinstance(body, str) and body:
            yield body
        return
    for name in ("message", "Message", "msg", "detail", "error", "error_msg", "reason"):
        value = error.get(name)
        if isinstance(value, str) and value:
            yield value
    for each in (error.get("detail"), error.get("errors")):  # FastAPI's own form: a list with a `msg` for each field
        for one in each if isinstance(each, list) else ():
            words = one.get("msg", one.get("message")) if isinstance(one, Mapping) else one
            if isinstance(words, str):
                yield words
    metadata = error.get("metadata")  # a relay's copy of what the provider behind it said
    raw = cast(Mapping[str, Any], metadata).get("raw") if isinstance(metadata, Mapping) else None
    if isinstance(raw, str | Mapping) and raw:
        yield raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)


def parse_json(text: str) -> object:
    """The first JSON object in `text` (providers' errors are often `HTTP 429: {…}`), or None."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def _inside(node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, str):
        return
    for name in ("error", "cause", "__cause__", "reason", "detail"):
        child = _get(node, name)
        if child is None:
            continue
        if isinstance(child, BaseException | Mapping) or (
            isinstance(child, str) and child and _is_text_slot(node, name)
        ):
            yield name, cast(object, child)
    if isinstance(node, BaseExceptionGroup):
        for child in cast("BaseExceptionGroup[BaseException]", node).exceptions:
            yield "exceptions", child
    if isinstance(node, BaseException) and node.__context__ is not None and not node.__suppress_context__:
        yield "__context__", node.__context__


def _is_text_slot(node: object, name: str) -> bool:
    """A text under `reason` is something said, except in our own ProviderError, where it is a class already found."""
    return name in ("reason", "detail", "error") and not isinstance(node, ProviderError)


def _get(node: object, name: str) -> object:
    # An exception is told first: asking an abstract class is the dearest question here.
    if not isinstance(node, BaseException) and isinstance(node, Mapping):
        return cast(Mapping[str, object], node).get(name)
    try:
        value = getattr(node, name, None)
    except Exception:  # noqa: BLE001 a property of a foreign error may raise anything; then it says nothing
        return None
    return None if callable(value) else value


def _name(node: object) -> str:
    if isinstance(node, Mapping):
        return _text(cast(Mapping[str, object], node).get("name")) or ""
    return type(node).__name__


def _message(node: object) -> str:
    if isinstance(node, Mapping):
        return _text(cast(Mapping[str, object], node).get("message")) or ""
    try:
        said = str(node)
    except Exception:  # noqa: BLE001 a foreign __str__ may raise anything
        return ""
    own = _text(_get(node, "message")) or ""
    return own if own and own not in said else said


def _codes_of(node: object) -> Iterator[str]:
    for name in ("provider_error_code", "code", "provider_error_type", "type", "status"):
        value = _text(_get(node, name))
        if value and _as_status(value) is None:
            yield value
    response = _get(node, "response")
    if isinstance(response, Mapping):  # botocore: {"Error": {"Code": …}}
        yield from _codes_in_body(response)
    number = _get(node, "errno")
    if isinstance(number, int) and not isinstance(number, bool):
        yield _errno_name(number)


def _codes_in_body(body: object) -> Iterator[str]:
    error = body_error(body)
    if error is None:
        return
    for name in ("code", "Code", "error_code", "type", "status", "__type", "reason"):
        value = error.get(name)
        if isinstance(value, str) and value and _as_status(value) is None:
            yield value
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():  # Google names the exact reason here
        if isinstance(detail, Mapping) and isinstance(reason := detail.get("reason"), str):
            yield reason
    if isinstance(body, Mapping) and isinstance(text := body.get("error"), str) and re.fullmatch(r"\w+", text):
        yield text


def _words_beside(message: str, body: object) -> Iterator[str]:
    for words in body_words(body):
        if words not in message:
            yield words[:TEXT_MAX]


def _status_in_body(body: object) -> int | None:
    error = body_error(body)
    return _as_status(error.get("code")) if error is not None else None


def _codes_in_text(text: str) -> Iterator[str]:
    if "{" in text:
        yield from _codes_in_body(parse_json(text))


def _as_status(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"[1-5]\d\d", value):
        value = int(value)
    return int(value) if isinstance(value, int) and 100 <= value <= 599 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, "")
