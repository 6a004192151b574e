"""Chains of models: who is asked, in which order, and what is recorded of it.

A candidate throws what a model client throws: a `ProviderError` made at the seam, with the foreign error as its cause,
or an error of our own. Receipts are the decisions of the loop and the attempts of the error at its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.errors import (
    AllModelsFailedError,
    HoldfastError,
    ProviderError,
    SessionTakeoverError,
    SessionWriteLockTimeoutError,
)
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, zero_usage
from holdfast.model.failover import Decision, ask, build_chain
from holdfast.session.fence import Verdict
from tests.cases.given import LEFT_OUT, WAITING, Case, SetAside, check_set_aside, check_words, each

FILE = "fallback_chain.json"

AREAS_WAITING = dict.fromkeys(
    ("cooldown", "probe_decision", "probe_state", "policy", "backoff"), "cool-downs and probes are not there yet"
)
AREAS_LEFT_OUT = {
    "live_switch": "a model is changed between turns, never by an error out of one",
    "classify_result": "an answer is judged by the model client, which raises; the loop sees answers and errors only",
    "image": "there is no separate chain for images",
}
SET_ASIDE = {
    "fb-019": SetAside(WAITING, AREAS_WAITING["cooldown"]),
    "fb-044": SetAside(LEFT_OUT, "there are no agent harnesses to choose from"),
    "fb-045": SetAside(LEFT_OUT, "there are no agent harnesses to choose from"),
}
COMPARED = frozenset(
    [
        "attempts",
        "calls",
        "calls_count",
        "candidates",
        "on_error",
        "on_error_calls",
        "result",
        "throws",
        "warning_excludes",
        "winner",
    ]
)
NOT_COMPARED = {
    "warning_contains": "the words of a log line; ours is `[model-fallback/decision]` with the same facts",
}
"""Of `on_error` the error is compared by its words, the number of the attempt by its place; of `throws` the session and
lane are not: they stand in the story of the input."""


def set_aside(case: Case) -> SetAside | None:
    area = case.data["area"]
    if case.id in SET_ASIDE:
        return SET_ASIDE[case.id]
    if area in AREAS_WAITING or "cooldown" in case.setup:
        return SetAside(WAITING, AREAS_WAITING["cooldown"])
    return SetAside(LEFT_OUT, AREAS_LEFT_OUT[area]) if area in AREAS_LEFT_OUT else None


# ── what a candidate does ────────────────────────────────────────────────────────────────────────────────────────────


class ForeignError(Exception):
    """An error as some library raises it: whatever fields the case gives it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields.get("message", ""))
        for name, value in fields.items():
            if name not in ("message", "cause"):
                setattr(self, name, value)
        if "cause" in fields:
            self.__cause__ = ForeignError(fields["cause"])


def error_of(fields: dict[str, Any]) -> HoldfastError:
    """What a model client makes of it."""
    match fields.get("name"):
        case "EmbeddedAttemptSessionTakeoverError":
            lost = SessionTakeoverError(Verdict("foreign_turn", fields["message"]), "session.jsonl")
            lost.__cause__ = error_of(fields["cause"]) if "cause" in fields else None
            return lost
        case "SessionWriteLockTimeoutError":
            return SessionWriteLockTimeoutError("session.jsonl", 10_000, "pid=37121")
        case _:
            error = ProviderError(
                fields.get("message", ""),
                status=fields.get("status"),
                code=fields.get("code"),
                provider=fields.get("provider"),
                reason=fields.get("reason"),
            )
            error.__cause__ = ForeignError(fields)
            return error


class Candidates:
    """Every model of a chain, doing what the case says; remembers who was asked and what was thrown."""

    def __init__(self, outcomes: list[Any] | dict[str, Any]) -> None:
        self._outcomes = outcomes
        self.calls: list[str] = []
        self.thrown: list[HoldfastError] = []
        self.decisions: list[Decision] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        number = len(self.calls)
        self.calls.append(request.model)
        outcome = self._outcomes[request.model] if isinstance(self._outcomes, dict) else self._outcomes[number]
        if "throw" in outcome:
            fields = outcome["throw"] if outcome["throw"] != "same" else self._outcomes[0]["throw"]  # pyright: ignore[reportArgumentType]  # "same" only in lists
            self.thrown.append(error_of(fields))
            raise self.thrown[-1]
        yield ModelAnswer([{"type": "text", "text": str(outcome["return"])}], "stop", "x", "y", "case", zero_usage())

    async def run(self, chain: list[str]) -> ModelAnswer:
        async def on_item(_: TextDelta | ThinkingDelta) -> None: ...

        request = ModelRequest(chain[0], [{"role": "user", "content": "hi"}])
        return await ask(chain, request, client_for=lambda _: self, on_item=on_item, on_decision=self.decisions.append)

    @property
    def failures(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.decision == "candidate_failed"]


def chain_of(setup: dict[str, Any]) -> list[str]:
    """The chain that the settings of a case lead to. An empty list of overrides means: this model or none."""
    config, override = setup["config"], setup.get("fallbacks_override")
    fallbacks = config.get("fallbacks", []) if override is None else override
    return build_chain(setup["request"], fallbacks, config.get("primary"), strict=override == [])


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    expected, chain = case.expected, chain_of(case.setup)
    if "candidates" in expected:
        wanted = expected["candidates"]
        assert chain[: len(wanted) - 1] == wanted[:-1] if wanted[-1] == "..." else chain == wanted
        return
    candidates = Candidates(case.setup["outcomes"])
    answer: ModelAnswer | None = None
    raised: HoldfastError | None = None
    try:
        answer = await candidates.run(chain)
    except HoldfastError as error:
        raised = error
    must_have_asked(candidates, expected)
    must_have_receipts(candidates, expected)
    if "throws" in expected:
        must_have_thrown(candidates, expected["throws"], raised)
    else:
        assert raised is None
        assert answer is not None
        assert answer.text == expected["result"]
    for text in expected.get("warning_excludes", []):
        assert all(text not in decision.line() for decision in candidates.decisions)


def must_have_asked(candidates: Candidates, expected: dict[str, Any]) -> None:
    if "calls" in expected:
        assert candidates.calls == expected["calls"]
    if "calls_count" in expected:
        assert len(candidates.calls) == expected["calls_count"]
    if "winner" in expected:
        assert candidates.calls[-1] == expected["winner"]
        assert candidates.decisions[-1].decision == "candidate_succeeded"


def must_have_receipts(candidates: Candidates, expected: dict[str, Any]) -> None:
    for wanted, decision in zip(expected.get("attempts", []), candidates.failures, strict=False):
        provider, _, model = decision.candidate.partition("/")
        assert wanted.get("provider", provider) == provider
        assert wanted.get("model", model) == model
        assert wanted.get("reason", decision.reason) == decision.reason
        assert wanted.get("error", decision.detail) == decision.detail
    assert len(candidates.failures) >= len(expected.get("attempts", []))
    if "on_error" in expected:
        receipts = [f"{wanted['provider']}/{wanted['model']}" for wanted in expected["on_error"]]
        assert receipts == [decision.candidate for decision in candidates.failures]
        assert [str(error) for error in candidates.thrown] == [decision.detail for decision in candidates.failures]
    if "on_error_calls" in expected:
        assert len(candidates.failures) == expected["on_error_calls"]


def must_have_thrown(candidates: Candidates, wanted: dict[str, Any], raised: HoldfastError | None) -> None:
    assert raised is not None
    if wanted.get("same_object"):
        assert raised is candidates.thrown[0]
        assert candidates.decisions == []  # no candidate was used up
    if "message_contains" in wanted:
        assert wanted["message_contains"] in str(raised)
    if wanted.get("name") == "FallbackSummaryError":
        assert isinstance(raised, AllModelsFailedError)
        assert raised.__cause__ is candidates.thrown[-1]
        assert [model for model, _ in raised.attempts] == candidates.calls


# ── the tables are complete ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside, SET_ASIDE, AREAS_WAITING)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, NOT_COMPARED)
