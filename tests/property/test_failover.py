"""Failover over random chains, failures and interleavings: what must hold whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import (
    CoordinationError,
    OwnershipLostError,
    ProviderError,
    SessionBusyError,
    SessionWriteLockTimeoutError,
)
from holdfast.model import policy
from holdfast.model.client import (
    ModelAnswer,
    ModelRequest,
    StreamItem,
    StreamSign,
    TextDelta,
    ThinkingDelta,
    zero_usage,
)
from holdfast.model.cooldown import STEPS_S, Cooldown, ModelFailure, after_failure, cooldown_s, left_s
from holdfast.model.failover import Decision, ask_along
from holdfast.model.failure_rules import REASONS
from holdfast.model.policy import POLICIES, Pin, plan_models
from holdfast.model.walk import RATE_LIMIT_ATTEMPTS_MAX, Ask, Try, Walk, begin

SESSION = "agent:main:slack:direct:u1"
MODELS = ["a/1", "a/2", "b/1", "c/1"]
START_MS = 1_800_000_000_000

Outcome = str | tuple[str, float | None] | CoordinationError
reasons = st.sampled_from(sorted(set(REASONS) - {"context_overflow"}))
failures = st.tuples(reasons, st.none() | st.floats(0, 100))
coordination = st.sampled_from(
    [SessionBusyError("s", 1.0, "x"), SessionWriteLockTimeoutError("f", 1, "x"), OwnershipLostError("gone")]
)
outcomes = st.lists(st.just("answer") | failures | failures | coordination, max_size=12)


@dataclass
class World:
    """A ledger in memory, a clock that pauses move, and models that do what a list says, then answer."""

    script: list[Outcome]
    policy: str
    lane: str = "main"
    now_ms_: int = START_MS
    rows: dict[tuple[str, str, str], Cooldown] = field(default_factory=dict)
    pin: Pin | None = None
    notes: list[ModelFailure] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    raised_at: tuple[int, int, int, int] | None = None  # notes, pins, decisions, requests when coordination came up
    plan: policy.Plan | None = None
    written: Pin | None = None

    # ── the model's side ──

    def client_for(self, candidate: Try) -> World:
        assert candidate.model in {*MODELS, "u/own"}
        return self

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        self.asked.append(request.model)
        outcome = self.script.pop(0) if self.script else "answer"
        if isinstance(outcome, CoordinationError):
            self.raised_at = len(self.notes), len(self.pins), len(self.decisions), len(self.asked)
            raise outcome
        if not isinstance(outcome, str):
            reason, retry_after_s = outcome
            raise ProviderError("failed", reason=reason, retry_after_s=retry_after_s)
        yield ModelAnswer([{"type": "text", "text": "hi"}], "stop", "x", "y", "z", zero_usage())

    # ── the turn's side ──

    def now_ms(self) -> int:
        return self.now_ms_

    def mono(self) -> float:
        return self.now_ms_ / 1000

    def roll(self) -> float:
        return 0.5

    async def pause(self, seconds: float) -> None:
        self.now_ms_ += int(seconds * 1000) + 1

    async def before(self, step: Ask, walk: Walk, /) -> bool:
        assert self.plan is not None
        if step.candidate.model != self.plan.requested:
            reason = walk.failures[-1].reason if walk.failures else walk.skips[-1][1].reason if walk.skips else "x"
            pin = policy.auto_pin(
                self.plan, pin_id=f"p{len(self.pins)}", session=SESSION, lane=self.lane, turn="t",
                model=step.candidate.model, reason=reason, policy=self.policy, now_ms=self.now_ms_,
            )  # fmt: skip
            if pin is not None and (self.pin is None or self.pin.source == "auto"):
                self.pins.append(pin)
                self.written = self.pin = pin
        return True

    async def after_failure(self, step: Ask, failure: ModelFailure, /) -> Cooldown | None:
        self.notes.append(failure)
        if self.written is not None and self.written.model == step.candidate.model:
            self.pin = self.written = None
        row = after_failure(self.rows.get(failure.key), failure)
        if row is not None:
            self.rows[row.key] = row
        return row

    def after_success(self, _step: Ask, _walk: Walk, /) -> None:
        if self.written is not None:
            self.pin = replace(self.written, holds=True)

    def on_item(self, item: TextDelta | ThinkingDelta | StreamSign) -> None: ...

    def can_mend(self, _error: ProviderError, /) -> bool:
        return False

    def on_decision(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def turn(self, primary: str, fallbacks: list[str], keys: int) -> str:
        """One model call of one turn; how it ended."""
        self.written = None
        self.plan = plan_models(
            asked=None, primary=primary, fallbacks=fallbacks, policy=self.policy, pin=self.pin, now_ms=self.now_ms_
        )
        tries = [Try(ref, f"k{n}") for ref in self.plan.chain for n in range(keys)]
        walk = begin(tries, tuple(self.rows.values()))
        try:
            asyncio.run(ask_along(walk, ModelRequest(primary, [{"role": "user", "content": "hi"}]), self))
        except CoordinationError:
            return "coordination"
        except ProviderError:
            return "failed"
        return "answered"


@settings(max_examples=300, deadline=None)
@given(
    outcomes,
    st.sampled_from(POLICIES),
    st.permutations(MODELS),
    st.integers(0, 3),
    st.integers(1, 2),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_whatever_happens(
    script: list[Outcome], how: str, order: list[str], length: int, keys: int, gaps: list[int]
) -> None:
    world = World(list(script), how)
    primary, fallbacks = order[0], order[1 : 1 + length]
    for gap in [0, *gaps]:
        world.raised_at = None
        asked = len(world.asked)
        ended = world.turn(primary, fallbacks, keys)
        tries = (1 + length) * keys
        assert len(world.asked) - asked <= tries * RATE_LIMIT_ATTEMPTS_MAX
        if ended == "coordination":  # it consumed no candidate, wrote no pin and no cool-down, and left at once
            now = len(world.notes), len(world.pins), len(world.decisions), len(world.asked)
            assert now == world.raised_at
        if how != policy.STICKY:
            assert world.pins == []
        for pin in world.pins:
            assert pin.reason
            assert pin.expires_at_ms is not None
            assert pin.origin == primary
        for row in world.rows.values():
            assert row.reason
            longest_s = max(cooldown_s(row.reason, row.errors), 3600 if row.demanded else STEPS_S[0])
            assert 0 <= left_s(row, world.now_ms_) <= longest_s
        world.now_ms_ += gap * 1000
    for decision in world.decisions:
        assert decision.reason != "unknown"
        if decision.decision == "candidate_failed":
            assert decision.reason in REASONS


@settings(max_examples=150, deadline=None)
@given(outcomes, st.permutations(MODELS), st.integers(0, 3), st.integers(1, 2))
def test_a_users_pin_is_never_touched_and_nobody_else_is_asked(
    script: list[Outcome], order: list[str], length: int, keys: int
) -> None:
    chosen = Pin("mine", SESSION, "u/own", "user", "chosen", START_MS)
    world = World(list(script), policy.STICKY, pin=chosen)
    for _ in range(3):
        world.turn(order[0], order[1 : 1 + length], keys)
        assert world.pin == chosen
    assert set(world.asked) <= {"u/own"}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(MODELS),
    st.sampled_from(MODELS),
    st.permutations(MODELS),
    st.integers(0, 3),
    st.integers(0, 2 * 24 * 3600),
)
def test_an_automatic_pin_never_lasts_beyond_its_origin_and_never_leaves_a_chain_of_one(
    origin: str, pinned: str, primary: str, order: list[str], length: int, age_s: int
) -> None:
    pin = Pin("p", SESSION, pinned, "auto", "timeout", START_MS, START_MS + 86_400_000, origin, "t", START_MS)
    fallbacks = [ref for ref in order[:length] if ref != primary]
    now_ms = START_MS + age_s * 1000
    plan = plan_models(asked=None, primary=primary, fallbacks=fallbacks, policy=policy.STICKY, pin=pin, now_ms=now_ms)
    assert set(plan.chain) == {primary, *fallbacks}
    assert plan.requested == primary
    if origin != primary or age_s >= 86_400:
        assert plan.void == pin
    if plan.pin is not None and age_s >= policy.PROBE_ORIGIN_EVERY_S:
        assert plan.chain[0] == primary


def test_a_machines_turn_writes_no_pin() -> None:
    world = World([("timeout", None)], policy.STICKY, lane="heartbeat")
    assert world.turn("a/1", ["b/1"], 1) == "answered"
    assert (world.asked, world.pins) == (["a/1", "b/1"], [])
