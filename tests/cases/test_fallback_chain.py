"""Chains of models: who is asked, in which order, and what is recorded of it.

A candidate throws what a model client throws: a `ProviderError` made at the seam, with the foreign error as its cause,
or an error of our own. Receipts are the decisions of the loop and the attempts of the error at its end. Nobody is asked
again after a pause (the cases know of no such thing): the retries of a turn are tried in `test_model_walk.py`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from holdfast.errors import (
    AllModelsFailedError,
    HoldfastError,
    ProviderError,
    SessionTakeoverError,
    SessionWriteLockTimeoutError,
)
from holdfast.model.client import (
    ModelAnswer,
    ModelClient,
    ModelRequest,
    StreamItem,
    TextDelta,
    ThinkingDelta,
    zero_usage,
)
from holdfast.model.cooldown import (
    OF_THE_KEY,
    PROBE_EVERY_S,
    Cooldown,
    ModelFailure,
    after_failure,
    is_due,
    is_forgotten,
    keeps_probe_slot,
    left_s,
    may_be_probed,
    uses_probe_slot,
)
from holdfast.model.failover import Decision, OnItsOwn, ask_along
from holdfast.model.policy import build_chain
from holdfast.model.walk import Ask, Skip, Walk, begin, next_step, skipped
from holdfast.session.fence import Verdict
from tests.cases.given import LEFT_OUT, Case, SetAside, check_set_aside, check_words, each

FILE = "fallback_chain.json"

AREAS_LEFT_OUT = {
    "live_switch": "a model is changed between steps, never by an error out of one",
    "classify_result": "an answer is judged by the model client, which raises; the loop sees answers and errors only",
    "image": "there is no separate chain for images",
}
STEPS = "cool-downs are 30 s, 1 min, 5 min"
SET_ASIDE = {
    "fb-044": SetAside(LEFT_OUT, "there are no agent harnesses to choose from"),
    "fb-045": SetAside(LEFT_OUT, "there are no agent harnesses to choose from"),
    "fb-071": SetAside(LEFT_OUT, "no store of keys is loaded for a run: cool-downs are read with the claim"),
    "fb-089": SetAside(LEFT_OUT, "all agents of a state share its cool-downs: one probe at a time, whoever asks"),
    "fb-114": SetAside(LEFT_OUT, "sessions are not suspended: a message waits, or is answered with an explanation"),
    "fb-115": SetAside(LEFT_OUT, "sessions are not suspended: a message waits, or is answered with an explanation"),
    "fb-116": SetAside(LEFT_OUT, STEPS),
    "fb-119": SetAside(LEFT_OUT, STEPS),
    "fb-120": SetAside(LEFT_OUT, STEPS),
    "fb-124": SetAside(LEFT_OUT, "a count ends with a success, or after a day; waiting alone proves nothing"),
}
COMPARED = frozenset(
    [
        "allow_cooldown_probe",
        "attempts",
        "calls",
        "calls_count",
        "candidates",
        "decisions",
        "disabled_ms_range",
        "error_count",
        "fallback_steps",
        "left",
        "mark_probe",
        "on_error",
        "on_error_calls",
        "open",
        "preserves_transient_probe_slot",
        "probes",
        "result",
        "throws",
        "type",
        "uses_transient_probe_slot",
        "warning_excludes",
        "winner",
    ]
)
NOT_COMPARED = {
    "warning_contains": "the words of a log line; ours is `[model-fallback/decision]` with the same facts",
}
PROBES_NOT_COMPARED = {"fb-072": "a timeout is one model's here: another of the same provider is simply asked"}
"""Of `on_error` the error is compared by its words, the number of the attempt by its place; of `throws` the session and
lane are not: they stand in the story of the input."""


def set_aside(case: Case) -> SetAside | None:
    area = case.data["area"]
    if case.id in SET_ASIDE:
        return SET_ASIDE[case.id]
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
        self.probes: list[bool] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        number = len(self.calls)
        self.calls.append(request.model)
        outcome = self._outcomes[request.model] if isinstance(self._outcomes, dict) else self._outcomes[number]
        if "throw" in outcome:
            fields = outcome["throw"] if outcome["throw"] != "same" else self._outcomes[0]["throw"]  # pyright: ignore[reportArgumentType]  # "same" only in lists
            self.thrown.append(error_of(fields))
            raise self.thrown[-1]
        yield ModelAnswer([{"type": "text", "text": str(outcome["return"])}], "stop", "x", "y", "case", zero_usage())

    async def run(self, chain: list[str], rows: Sequence[Cooldown] = ()) -> ModelAnswer:
        def on_item(_: TextDelta | ThinkingDelta) -> None: ...

        request = ModelRequest(chain[0], [{"role": "user", "content": "hi"}])
        around = Remembering(lambda _: self, on_item, self.decisions.append, self.probes, rows)
        return await ask_along(begin(chain, rows, retry_total_s=0), request, around)

    @property
    def failures(self) -> list[Decision]:
        """Those that were asked and failed, and those that were passed over."""
        told = ("candidate_failed", "candidate_skipped")
        return [decision for decision in self.decisions if decision.decision in told]


class Remembering(OnItsOwn):
    """Surroundings whose cool-downs are those of the case and what its failures add, and where time stands still."""

    def __init__(
        self,
        client_for: Callable[[str], ModelClient],
        on_item: Callable[[TextDelta | ThinkingDelta], None],
        on_decision: Callable[[Decision], None],
        probes: list[bool],
        rows: Sequence[Cooldown],
    ) -> None:
        super().__init__(client_for, on_item, on_decision)
        self._probes = probes
        self._rows = {row.key: row for row in rows}

    def now_ms(self) -> int:
        return NOW_MS

    async def before(self, step: Ask, _walk: Walk, /) -> bool:
        self._probes.append(step.probe is not None)
        return True

    async def after_failure(self, _step: Ask, failure: ModelFailure, /) -> Cooldown | None:
        row = after_failure(self._rows.get(failure.key), failure)
        if row is not None:
            self._rows[row.key] = row
        return row


NOW_MS = 1_800_000_000_000
UNITS_MS = {"s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}


def at_ms(text: str) -> int:
    """`+5m`, `-60s`, `T+120s`, `Infinity` as a time."""
    if text == "Infinity":
        return NOW_MS * 2
    number, unit = re.fullmatch(r"T?([+-]\d+) ?(\w+)", text).groups()
    return NOW_MS + int(number) * UNITS_MS[unit]


def cooldown_row(ref: str, reason: str, until_ms: int, *, errors: int = 1, failed_at_ms: int = 0) -> Cooldown:
    """A cool-down from before, of a model that nobody has asked since anybody can remember."""
    provider, _, model = ref.partition("/")
    model = "" if reason in OF_THE_KEY else model
    return Cooldown(provider, "", model, reason, errors, failed_at_ms, until_ms, asked_at_ms=failed_at_ms)


def rows_of(setup: dict[str, Any], chain: list[str]) -> list[Cooldown]:
    """The cool-downs of a case, each at the first model of its provider that the chain names; `*` at every model."""
    rows: list[Cooldown] = []
    for provider, told in setup.get("cooldown", {}).items():
        models = chain if provider == "*" else [ref for ref in chain if ref.partition("/")[0] == provider][:1]
        if isinstance(told, str):
            reason, after, unit = re.fullmatch(r"(\w+), expires in (\d+) (\w+)", told).groups()
            until_ms = at_ms(f"+{after}{unit}")
        else:
            counts = told.get("failureCounts", {})
            reason = told.get("disabledReason") or next(iter(counts), "unclassified")
            until_ms = max(at_ms(told[name]) for name in ("disabledUntil", "cooldownUntil") if name in told)
        rows += [cooldown_row(ref, reason, until_ms) for ref in models]
    return rows


def chain_of(setup: dict[str, Any]) -> list[str]:
    """The chain that the settings of a case lead to. An empty list of overrides means: this model or none."""
    config, override = setup["config"], setup.get("fallbacks_override")
    fallbacks = config.get("fallbacks", []) if override is None else override
    return build_chain(setup["request"], fallbacks, config.get("primary"), strict=override == [])


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def probe_decision(setup: dict[str, Any], expected: dict[str, Any]) -> None:
    """Whether the walk asks the candidate, in spite of its cool-down, before anybody else is asked."""
    row = cooldown_row(setup["candidate"], setup["reason"], at_ms(setup["soonest"]))
    others = ["other/model"] if setup["has_fallback_candidates"] else []
    walk = begin([setup["candidate"], *others], [row], retry_total_s=0)
    step = next_step(walk, now_ms=NOW_MS, mono=0.0, roll=1.0)
    while isinstance(step, Skip):
        walk = skipped(walk, step)
        step = next_step(walk, now_ms=NOW_MS, mono=0.0, roll=1.0)
    assert isinstance(step, Ask)
    assert expected["type"] == "attempt"
    assert step.candidate.model == setup["candidate"]
    is_over = left_s(row, NOW_MS) == 0
    assert (step.probe is not None) == (expected["mark_probe"] and not is_over)


def probe_state(setup: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = {"stale": NOW_MS - 25 * 3_600_000, "fresh": NOW_MS - 5_000}
    assert set(setup["entries"]) == set(asked)
    rows = {name: Cooldown("x", "", name, "rate_limit", 1, at, at + 1000, at) for name, at in asked.items()}
    assert [name for name, row in rows.items() if not is_forgotten(row, NOW_MS)] == expected["left"]
    for name, is_open in expected["open"].items():
        assert is_due(rows[name], NOW_MS, every_s=PROBE_EVERY_S) == is_open


def policy(setup: dict[str, Any], expected: dict[str, Any]) -> None:
    reason = "unclassified" if setup["reason"] == "unknown" else setup["reason"]
    assert may_be_probed(reason) == expected["allow_cooldown_probe"]
    assert uses_probe_slot(reason) == expected["uses_transient_probe_slot"]
    assert keeps_probe_slot(reason) == expected["preserves_transient_probe_slot"]


def backoff(setup: dict[str, Any], expected: dict[str, Any]) -> None:
    usage, reason = setup.get("usage", {}), setup["reason"]
    before = None
    if usage:
        failed_at_ms = at_ms(usage["lastFailureAt"])
        before = cooldown_row("x/m", reason, failed_at_ms, errors=usage["errorCount"], failed_at_ms=failed_at_ms)
    row = after_failure(before, ModelFailure("x", "", "m", reason, NOW_MS))
    assert row is not None
    assert row.errors == expected.get("error_count", row.errors)
    shortest_ms, longest_ms = expected.get("disabled_ms_range", (0, row.until_ms))
    assert shortest_ms <= row.until_ms - NOW_MS <= longest_ms


RULES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "probe_decision": probe_decision,
    "probe_state": probe_state,
    "policy": policy,
    "backoff": backoff,
}


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case) -> None:
    by_rule = RULES.get(case.data["area"])
    if by_rule is not None:
        by_rule(case.setup, case.expected)
        return
    expected, chain = case.expected, chain_of(case.setup)
    if "candidates" in expected:
        wanted = expected["candidates"]
        assert chain[: len(wanted) - 1] == wanted[:-1] if wanted[-1] == "..." else chain == wanted
        return
    candidates = Candidates(case.setup["outcomes"])
    answer: ModelAnswer | None = None
    raised: HoldfastError | None = None
    try:
        answer = await candidates.run(chain, rows_of(case.setup, chain))
    except HoldfastError as error:
        raised = error
    must_have_asked(candidates, expected)
    must_have_receipts(candidates, expected)
    if "probes" in expected and case.id not in PROBES_NOT_COMPARED:
        assert candidates.probes == expected["probes"]
    if "throws" in expected:
        must_have_thrown(candidates, expected["throws"], raised)
    else:
        assert raised is None
        assert answer is not None
        assert answer.text == expected.get("result", answer.text)
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
        assert {"unknown": "unclassified"}.get(wanted.get("reason"), wanted.get("reason")) in (None, decision.reason)
        assert wanted.get("skipped", False) == (decision.decision == "candidate_skipped")
        assert wanted.get("error", decision.detail) == decision.detail
    assert len(candidates.failures) >= len(expected.get("attempts", []))
    if "on_error" in expected:
        receipts = [f"{wanted['provider']}/{wanted['model']}" for wanted in expected["on_error"]]
        assert receipts == [decision.candidate for decision in candidates.failures]
        assert [str(error) for error in candidates.thrown] == [decision.detail for decision in candidates.failures]
    if "decisions" in expected:
        assert [told.split()[0] for told in expected["decisions"]] == [one.decision for one in candidates.decisions]
    for wanted in expected.get("fallback_steps", []):
        if wanted["final_outcome"] == "next_fallback":
            step = candidates.failures[wanted["chain_position"] - 1]
            assert (step.candidate, step.next, step.reason) == (
                wanted["from"], wanted["to"], wanted["from_failure_reason"]
            )  # fmt: skip
        else:
            done = candidates.decisions[-1]
            assert (done.decision, done.requested, done.candidate) == (
                "candidate_succeeded", wanted["from"], wanted["to"]
            )  # fmt: skip
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
        assert raised.__cause__ is (candidates.thrown[-1] if candidates.thrown else None)
        assert [model for model, _ in raised.attempts] == candidates.calls
        if "soonest_cooldown_expiry" in wanted:  # what the failures of this very run have started counts
            assert raised.soonest_s is not None
            assert 0 < raised.soonest_s <= (at_ms(wanted["soonest_cooldown_expiry"]) - NOW_MS) / 1000


# ── the tables are complete ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside, SET_ASIDE, PROBES_NOT_COMPARED)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, NOT_COMPARED)
