"""What kind of failure an error is: one class, from type, status, code and text. Pure; the tables are data.

The order of belief:

1. A coordination error anywhere makes the whole one of coordination, unless some error in the chain carries explicit
   evidence of the provider's (a status, one of its codes, a class the raiser already knew).
2. Explicit evidence, outermost error first.
3. Text, outermost first; then the name of the class.

A plain timeout is a timeout. The tables: `failure_rules` (forms, statuses, names), `failure_codes`, `failure_texts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.model import failure_rules as rules
from holdfast.model.facts import Facts, walk
from holdfast.model.failure_codes import PROVIDER_CODES, TRANSPORT_CODES
from holdfast.model.failure_rules import Rule, code_key
from holdfast.model.failure_texts import TEXTS


@dataclass(frozen=True, slots=True)
class FailureClass:
    """The class of a failure.

    Args:
        reason: one of `failure_rules.REASONS`, or None when nothing is known.
        coordination: who may write was in question; no model failed, and no candidate may be used up.
        evidence: what the class was read from, for people: "status 429", "code insufficient_quota", "text …".
        rule: the row that decided; None where no row did (a coordination error, a reason already found, nothing known).
    """

    reason: str | None
    coordination: bool
    evidence: str
    rule: Rule | None = field(default=None, compare=False, repr=False)


def classify(error: BaseException | Mapping[str, Any] | str, *, provider: str | None = None) -> FailureClass:
    """The class of an exception, of a mapping in the form of `holdfast classify`, or of a bare message.

    Args:
        provider: the provider that was asked, if the error itself does not say.
    """
    chain = walk(error)
    asked = next((facts.provider for facts in chain if facts.provider), provider)
    asked = rules.PROVIDER_ALIASES.get(asked or "", asked)
    coordination = next((found for facts in chain if (found := _coordination(facts))), None)
    if coordination is not None:
        for facts in chain:
            if not _coordination(facts) and (found := _provider_evidence(facts, asked)):
                return found
        return FailureClass(None, True, coordination)
    for finder in (_explicit, _weak, _by_name):
        for index, facts in enumerate(chain):
            found = finder(facts, chain[index + 1 :], asked)
            if found is not None:
                return found
    return FailureClass(None, False, "nothing known")


# ── one error ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _coordination(facts: Facts) -> str | None:
    if facts.coordination or facts.name in rules.COORDINATION_NAMES:
        return f"type {facts.name}"
    for code in (*facts.codes, *facts.text_codes):
        if code_key(code) in rules.COORDINATION_CODES:
            return f"code {code}"
    if not facts.from_provider and rules.COORDINATION_TEXT.search(facts.message):
        return f"text {_cut(facts.message)!r}"
    return None


def _provider_evidence(facts: Facts, provider: str | None) -> FailureClass | None:
    """Evidence strong enough to stand beside a coordination error: what only a provider says."""
    found = _explicit(facts, (), provider, transport=False)
    if found is None and facts.from_provider:
        found = next((found for found in _texts(facts, provider) if found.reason != "timeout"), None)
    return found if found is not None and found.reason is not None else None


def _explicit(
    facts: Facts, inside: Sequence[Facts], provider: str | None, *, transport: bool = True
) -> FailureClass | None:
    """The class by what is written in fields: a reason already found, status, code."""
    if facts.reason in rules.REASONS and facts.reason != "unclassified":
        return FailureClass(facts.reason, False, "the raiser's own reason")
    if facts.status is not None and facts.status in rules.STATUSES:
        return _by_status(facts.status, facts, inside, provider)
    return _by_code(facts.codes, facts, provider, transport)


def _by_code(codes: tuple[str, ...], facts: Facts, provider: str | None, transport: bool = True) -> FailureClass | None:
    for code in codes:
        found = _coded(code, PROVIDER_CODES, provider)
        if found is not None:
            return _more_exact(found, facts, provider)
        found = _coded(code, TRANSPORT_CODES, provider) if transport else None
        if found is not None:
            return found
    return None


def _by_status(status: int, facts: Facts, inside: Sequence[Facts], provider: str | None) -> FailureClass:
    rule = rules.STATUSES[status]
    if rule.reason == "format" and _says_nothing(facts, inside):
        return FailureClass(None, False, f"status {status} without a body")
    by_itself = FailureClass(rule.reason, False, f"status {status}", rule)
    confirmed: FailureClass | None = None
    for near in (facts, *(near for near in inside if near.depth == facts.depth + 1)):
        # Codes first: a provider that names the exact case in one tells people something vaguer.
        others = [reason for reason in rule.unless if reason != rule.reason]
        codes = [found for found in _all_coded(near, provider) if found.reason in others]
        for found in (*codes, *_texts(near, provider, status)):
            if found.reason in others:
                return replace(found, evidence=f"status {status}, {found.evidence}")
            if found.reason == rule.reason:
                confirmed = confirmed or replace(found, evidence=f"status {status}, {found.evidence}")
                break
    return confirmed or by_itself


def _says_nothing(facts: Facts, inside: Sequence[Facts]) -> bool:
    """Whether the body is empty, as said by what is inside (`.error` stands before `.cause`), else by the text."""
    said = next((near.message for near in inside if near.message and near.depth == facts.depth + 1), facts.message)
    return bool(rules.NO_BODY.search(said))


def _more_exact(found: FailureClass, facts: Facts, provider: str | None) -> FailureClass:
    """What the words make of a code that is coarser than they are."""
    others = rules.MORE_EXACT.get(found.reason or "", ())
    for text in _texts(facts, provider) if others else ():
        if text.reason in others:
            return replace(text, evidence=f"{found.evidence}, {text.evidence}")
        if text.reason == found.reason:
            break
    return found


def _weak(facts: Facts, inside: Sequence[Facts], provider: str | None) -> FailureClass | None:
    """The class by the text: a status it opens with, then codes in its JSON, then its words."""
    status = facts.text_status
    if status is not None and status in rules.STATUSES:
        return _by_status(status, facts, inside, provider)
    return _by_code(facts.text_codes, facts, provider) or next(_texts(facts, provider), None)


def _by_name(facts: Facts, _inside: Sequence[Facts], _provider: str | None) -> FailureClass | None:
    rule = rules.NAMES.get(facts.name)
    return FailureClass(rule.reason, False, f"type {facts.name}", rule) if rule else None


def _texts(facts: Facts, provider: str | None, status: int | None = None) -> Iterator[FailureClass]:
    """Every class the words of this error speak of, most telling first, with the words."""
    texts = [text.lower() for text in (facts.message, *facts.said) if text]
    for rule, expression in TEXTS:
        if not _is_about(rule, provider):
            continue
        if rule.status is not None and rule.status != status:
            continue
        for text in texts:
            match = expression.search(text)
            if match:
                yield FailureClass(rule.reason, False, f"text {_cut(match[0])!r}", rule)
                break


def _all_coded(facts: Facts, provider: str | None) -> Iterator[FailureClass]:
    for code in (*facts.codes, *facts.text_codes):
        found = _coded(code, PROVIDER_CODES, provider)
        if found is not None:
            yield found


def _coded(code: str, table: Mapping[str, tuple[Rule, ...]], provider: str | None) -> FailureClass | None:
    for rule in table.get(code_key(code), ()):
        if _is_about(rule, provider):
            return FailureClass(rule.reason, False, f"code {code}", rule)
    return None


def _is_about(rule: Rule, provider: str | None) -> bool:
    return rule.provider is None or (
        provider is not None and (provider == rule.provider or provider.startswith(f"{rule.provider}-"))
    )


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
