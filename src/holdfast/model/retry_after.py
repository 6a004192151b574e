"""How long a provider asks to wait before the next try: headers in their several forms, or the error's body. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from holdfast.model.facts import body_error

RETRY_AFTER_MAX_S = 24 * 3600.0
"""A longer demand counts as this: as long as the longest cool-down (semantics.md 2.4: billing, cap 24 h)."""

_RETRY_INFO = "google.rpc.RetryInfo"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def retry_after_s(
    headers: Mapping[str, str] | None, body: object = None, *, now: datetime | None = None
) -> float | None:
    """Seconds, at least 0 and at most `RETRY_AFTER_MAX_S`; None when nothing readable is asked for.

    Args:
        headers: of the response, names in any case: `retry-after-ms` (Azure, OpenAI), then `retry-after` (RFC 9110:
            seconds or a date). A date is compared with the response's own `date`, else with `now`.
        body: parsed or as text: Google's RetryInfo in `error.details`.
        now: None: the wall clock.
    """
    named = {name.lower(): str(value).strip() for name, value in (headers or {}).items()}
    waits = (
        _number(named.get("retry-after-ms"), unit_s=0.001),
        _number(named.get("retry-after")),
        _until(named.get("retry-after"), named.get("date"), now),
        _in_body(body),
    )
    asked = next((wait for wait in waits if wait is not None), None)
    return None if asked is None else min(max(asked, 0.0), RETRY_AFTER_MAX_S)


def _number(text: str | None, unit_s: float = 1.0) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value * unit_s if math.isfinite(value) else None


def _until(text: str | None, sent: str | None, now: datetime | None) -> float | None:
    """Seconds until a date, by the sender's own clock if it told it."""
    at = _date(text)
    if at is None:
        return None
    return (at - (_date(sent) or now or datetime.now(UTC))).total_seconds()


def _date(text: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _in_body(body: object) -> float | None:
    error = body_error(body)
    details: Any = error.get("details") if error is not None else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and str(detail.get("@type", "")).endswith(_RETRY_INFO):
            match = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
            if match:
                return float(match[1])
    return None
