"""How long a model is left alone after it failed, and when it may be asked all the same. Pure.

A cool-down belongs to a provider and one of its keys; to one model where only that model is in question (a rate limit,
an overload, a timeout), to all of the key's models where the key is (billing, authentication). It ends by itself: a
success removes it at once, and a day without failure forgets the count.

Sources: semantics.md 2.4 (numbers), failover policy of the re-imagined system (which reasons may be probed).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

STEPS_S = (30, 60, 300)
BILLING_S, BILLING_MAX_S = 5 * 3600, 24 * 3600
AUTH_PERMANENT_S, AUTH_PERMANENT_MAX_S = 600, 3600
FORGET_S = 24 * 3600
"""A count of failures is forgotten after so long without one."""
DEMANDED_MAX_S = 3600
"""A provider that asks to be left alone for longer is asked again after an hour."""
PROBE_EVERY_S, LAST_RESORT_EVERY_S = 300, 30
"""Pauses between two probes of one cool-down, over all processes: while others can answer; of a rate limit, when nobody
else can.
"""
CLOCK_SKEW_MS = 5_000
ROUTERS = frozenset({"openrouter"})
"""They move between upstreams by themselves: what one upstream said is not true of the next request."""

TRANSIENT = frozenset(
    ("rate_limit", "overloaded", "timeout", "server_error", "empty_response", "no_error_details", "unclassified")
)
"""What passes by itself. Each concerns the model that was asked; other models of the provider may be well."""
WORTH_A_RETRY = frozenset(("rate_limit", "overloaded", "timeout", "server_error", "empty_response"))
"""What is asked again in the same turn after a pause. An error nobody knows is not: it may be a mistake."""
OF_THE_KEY = frozenset(("auth", "auth_permanent", "billing"))
OF_THE_REQUEST = frozenset(("format", "model_not_found", "context_overflow", "session_expired"))
"""What another request may not meet: the chain moves on (or ends), nobody is left alone for it."""
QUICK = frozenset(("rate_limit", "overloaded"))
"""What a provider refuses at once: a probe costs the user a moment. One of a model that timed out costs the timeout."""


@dataclass(frozen=True, slots=True)
class Cooldown:
    """One row of what is known.

    Args:
        credential: id of the key (`credentials.py`); empty for a provider without keys.
        model: empty: every model of the provider with this key.
        label: the key's name for people, such as the variable that holds it.
        errors: failures since the last success.
        asked_at_ms: when it was asked last: the failure itself, or a probe since.
        demanded: the provider said how long; it is not probed before.
        probing: the turn that probes it now, or empty.
    """

    provider: str
    credential: str
    model: str
    reason: str
    errors: int
    failed_at_ms: int
    until_ms: int
    asked_at_ms: int
    demanded: bool = False
    label: str = ""
    probing: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.provider, self.credential, self.model


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """What one candidate's failure says for those who come later. `at_ms`: wall clock."""

    provider: str
    credential: str
    model: str
    reason: str
    at_ms: int
    retry_after_s: float | None = None
    label: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Of the cool-down that it starts or prolongs."""
        return self.provider, self.credential, "" if self.reason in OF_THE_KEY else self.model


def starts_cooldown(reason: str) -> bool:
    return reason in TRANSIENT or reason in OF_THE_KEY


def after_failure(before: Cooldown | None, failure: ModelFailure) -> Cooldown | None:
    """The row as it is after a failure; None if failures of this kind leave nobody alone.

    Args:
        before: the row of `failure.key` as it was, or None.
    """
    if not starts_cooldown(failure.reason) or failure.provider in ROUTERS:
        return before
    at_ms = failure.at_ms
    counts_on = before is not None and 0 <= at_ms - before.failed_at_ms < FORGET_S * 1000
    errors = before.errors + 1 if before is not None and counts_on else 1
    length_s = cooldown_s(failure.reason, errors)
    demanded_s = None if failure.retry_after_s is None else min(max(failure.retry_after_s, 0.0), DEMANDED_MAX_S)
    if demanded_s is not None and failure.reason in TRANSIENT:
        length_s = demanded_s if errors == 1 else max(length_s, demanded_s)
    return Cooldown(
        failure.provider, failure.credential, failure.key[2], failure.reason, errors, at_ms,
        at_ms + round(length_s * 1000), at_ms, demanded=demanded_s is not None and demanded_s >= length_s,
        label=failure.label,
    )  # fmt: skip


def cooldown_s(reason: str, errors: int) -> float:
    """Seconds after the `errors`th failure in a row."""
    if reason == "billing":
        return min(BILLING_S * 2 ** (errors - 1), BILLING_MAX_S)
    if reason == "auth_permanent":
        return min(AUTH_PERMANENT_S * 2 ** (errors - 1), AUTH_PERMANENT_MAX_S)
    return STEPS_S[min(errors, len(STEPS_S)) - 1]


def left_s(row: Cooldown, now_ms: int) -> float:
    """Seconds until it ends; 0 if it has. One from the future (the clock was set back since) counts as ended."""
    if now_ms < row.failed_at_ms - CLOCK_SKEW_MS:
        return 0.0
    return max(0.0, (row.until_ms - now_ms) / 1000)


def is_forgotten(row: Cooldown, now_ms: int) -> bool:
    """Whether the row says nothing any more: ended, and nobody failed or was asked for a day."""
    last_ms = max(row.failed_at_ms, row.asked_at_ms)
    return left_s(row, now_ms) == 0 and not 0 <= now_ms - last_ms < FORGET_S * 1000


def blocking(rows: Iterable[Cooldown], provider: str, credential: str, model: str, now_ms: int) -> Cooldown | None:
    """The row that keeps this model with this key from being asked, or None: of the key before of the model, since it
    lasts; of several the one that ends last.
    """
    if provider in ROUTERS:
        return None
    mine = [
        row
        for row in rows
        if (row.provider, row.credential) == (provider, credential)
        and row.model in ("", model)
        and left_s(row, now_ms) > 0
    ]
    return max(mine, key=lambda row: (row.reason in OF_THE_KEY, row.until_ms)) if mine else None


def may_be_probed(reason: str | None) -> bool:
    """Whether a cool-down of this reason may be probed at all. A refused key is not: it waits, or somebody mends it."""
    return reason in TRANSIENT or reason == "billing"


def uses_probe_slot(reason: str | None) -> bool:
    """Whether such a probe is the one that a provider gets per model call."""
    return reason in TRANSIENT


def keeps_probe_slot(reason: str | None) -> bool:
    """Whether a probe that failed for this leaves the slot free: it has told nothing of how the provider is."""
    return reason in OF_THE_REQUEST or reason in ("auth", "auth_permanent")


def is_due(row: Cooldown, now_ms: int, *, every_s: float) -> bool:
    """Whether the last request is long enough ago for another before the cool-down has ended."""
    since_ms = now_ms - row.asked_at_ms
    return not 0 <= since_ms < every_s * 1000


def is_worth_a_probe(row: Cooldown, now_ms: int) -> bool:
    """Whether to ask in passing although others can answer: it is refused at once if it is refused."""
    return row.reason in QUICK and not row.demanded and is_due(row, now_ms, every_s=PROBE_EVERY_S)


def is_a_last_resort(row: Cooldown, now_ms: int) -> bool:
    """Whether to ask now because nobody else can answer: at worst it fails again, and what was wrong may be mended. A
    rate limit ends when it ends: a short one is waited for, a long one probed now and then.
    """
    if row.demanded:
        return False
    if row.reason != "rate_limit":
        return True
    return left_s(row, now_ms) > STEPS_S[0] and is_due(row, now_ms, every_s=LAST_RESORT_EVERY_S)


def probed(row: Cooldown, turn: str, now_ms: int) -> Cooldown:
    """The row while `turn` probes it."""
    return replace(row, asked_at_ms=now_ms, probing=turn)
