"""What is wrong with a pin, and what it is in words: for `doctor`, `why` and whoever shows pins. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast.doctor.facts import PinFact
from holdfast.model.policy import AUTO_PIN_S


def pin_fault(pin: PinFact) -> str:
    """What speaks against a pin; empty: it says who set it and why, and ends by itself unless a user set it."""
    if pin.source not in ("user", "auto"):
        return f"its source is {pin.source!r}, which nothing here writes"
    if not pin.by:
        return "it does not say who set it"
    if not pin.reason:
        return "it has no reason"
    if pin.source == "user":
        return ""
    if not pin.origin:
        return "it does not say which model it stands in for"
    if not pin.is_by_turn:
        return "it was set by no turn that is known, although only turns set such pins"
    if pin.expires_at_ms is None:
        return "it never ends"
    if pin.expires_at_ms - pin.set_at_ms > AUTO_PIN_S * 1000:
        return f"it ends more than {AUTO_PIN_S // 3600} hours after it was set"
    return ""


def pin_in_words(pin: PinFact) -> str:
    """Which model, in place of which, by whom, why, until when, and what is wrong with it."""
    stands_in = f" in place of {pin.origin}" if pin.origin else ""
    until = (
        f", until {_moment(pin.expires_at_ms)}" if pin.expires_at_ms is not None else ", until somebody takes it away"
    )
    fault = pin_fault(pin)
    wrong = f"; {fault}: `holdfast doctor --fix` takes it away" if fault else ""
    by, reason = pin.by or "nobody", pin.reason or "no reason given"
    return f"pinned to {pin.model}{stands_in} ({pin.source}) by {by}: {reason}{until}{wrong}"


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
