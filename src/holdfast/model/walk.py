"""What is tried next in one model call, as a value that moves on: a `Walk`. Pure; `failover.py` does what it says.

First one round through the chain: each model with its keys, those in a cool-down passed over. A failed model is not
asked again while another can answer, so that a chain moves on at once. When the round is over, whoever may be back
soonest is asked again after a pause, until the time for that is used up: with one model that is the usual retrying.

Numbers: semantics.md 2.4 (rotations; retries of version 9.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from holdfast.model import cooldown
from holdfast.model.catalog import provider_of
from holdfast.model.cooldown import Cooldown

ROTATIONS_MAX = {"rate_limit": 1, "overloaded": 1}
"""Other keys of the provider that are tried for this reason before the next model."""
KEYS_MAX = 8
"""The same where the key itself was refused: every other one may be good."""
RATE_LIMIT_ATTEMPTS_MAX = 10
RETRIES_MAX = 8
RETRY_TOTAL_S = 90.0
WAIT_MAX_S, DEMANDED_WAIT_MAX_S = 30.0, 60.0
BACKOFF_S = 0.5


@dataclass(frozen=True, slots=True)
class Try:
    """One model with one key. `credential`: its id, empty for a provider without keys; `label`: its name."""

    model: str
    credential: str = ""
    label: str = field(default="", compare=False)

    @property
    def provider(self) -> str:
        return provider_of(self.model)

    @property
    def model_id(self) -> str:
        """The model's name at its provider."""
        return self.model.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Failed:
    """How a candidate fared the last time. `count`: how often it has failed in this call; `at_mono`: when."""

    candidate: Try
    reason: str
    at_mono: float
    retry_after_s: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a model call stands. Made by `begin`, moved on by `skipped`, `failed`, `waited`, `left_to_others`.

    Args:
        tries: models with their keys, in order.
        cooldowns: as known when the call began.
        learnt: those that its own failures have started. They bind later calls; in this one a model that may be used
            with a key although another may not (403) still gets its chance.
        retry_total_s: how long after the first failure somebody may be asked again; 0: nobody is.
        at: the next place in the first round.
        due: the candidate whose pause is over, in the second.
        slots: providers whose one probe of this call is used up.
        elsewhere: cool-downs that another turn probes now.
    """

    tries: tuple[Try, ...]
    cooldowns: tuple[Cooldown, ...] = ()
    retry_total_s: float = 0.0
    at: int = 0
    due: Try | None = None
    failures: tuple[Failed, ...] = ()
    skips: tuple[tuple[Try, Cooldown], ...] = ()
    learnt: tuple[Cooldown, ...] = ()
    slots: frozenset[str] = frozenset()
    elsewhere: frozenset[tuple[str, str, str]] = frozenset()
    began_mono: float | None = None

    @property
    def requested(self) -> str:
        return self.tries[0].model


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this candidate. `probe`: the cool-down it is asked in spite of; one turn at a time may."""

    candidate: Try
    probe: Cooldown | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """Pass over this candidate."""

    candidate: Try
    row: Cooldown
    left_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Pause, then ask this candidate."""

    candidate: Try
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nobody is left. `soonest_s`: when the first cool-down or demanded pause of them ends, if any does."""

    soonest_s: float | None


Step = Ask | Skip | Wait | Exhausted


def begin(
    chain: Sequence[str | Try], cooldowns: Sequence[Cooldown] = (), *, retry_total_s: float = RETRY_TOTAL_S
) -> Walk:
    """A walk through models (a reference alone: without a key of ours) in this order."""
    tries = tuple(one if isinstance(one, Try) else Try(one) for one in chain)
    return Walk(tries, tuple(cooldowns), retry_total_s)


def next_step(walk: Walk, *, now_ms: int, mono: float, roll: float) -> Step:
    """What to do now.

    Args:
        roll: a random number from 0 to 1, for the jitter of a pause.
    """
    if walk.due is not None:
        return Ask(walk.due)
    if walk.at == len(walk.tries):
        return _again(walk, now_ms, mono, roll)
    candidate = walk.tries[walk.at]
    row = _blocking(walk, candidate, now_ms)
    if row is None:
        return Ask(candidate)
    has_slot = candidate.provider not in walk.slots and row.key not in walk.elsewhere
    if has_slot and len(walk.tries) > 1 and cooldown.is_worth_a_probe(row, now_ms):
        return Ask(candidate, row)
    return Skip(candidate, row, cooldown.left_s(row, now_ms))


# ── moving on ────────────────────────────────────────────────────────────────────────────────────────────────────────


def skipped(walk: Walk, step: Skip) -> Walk:
    return replace(walk, at=walk.at + 1, skips=(*walk.skips, (step.candidate, step.row)))


def left_to_others(walk: Walk, step: Ask) -> Walk:
    """Another turn, here or elsewhere, probes what this one wanted to probe."""
    assert step.probe is not None
    return replace(walk, elsewhere=walk.elsewhere | {step.probe.key})


def waited(walk: Walk, step: Wait) -> Walk:
    return replace(walk, due=step.candidate)


def failed(
    walk: Walk, step: Ask, reason: str, *, retry_after_s: float | None, mono: float, row: Cooldown | None
) -> Walk:
    """After the model's failure.

    Args:
        row: the cool-down that it started, or None.
    """
    before = next((one for one in walk.failures if one.candidate == step.candidate), None)
    count = before.count + 1 if before else 1
    this = Failed(step.candidate, reason, mono, retry_after_s, count)
    others = tuple(one for one in walk.failures if one.candidate != step.candidate)
    learnt = walk.learnt if row is None else (*(one for one in walk.learnt if one.key != row.key), row)
    uses_slot = step.probe is not None and cooldown.uses_probe_slot(step.probe.reason)
    slots = (
        walk.slots | {step.candidate.provider} if uses_slot and not cooldown.keeps_probe_slot(reason) else walk.slots
    )
    in_first_round = walk.due is None and walk.at < len(walk.tries)
    return replace(
        walk, at=_place_after(walk, this) if in_first_round else walk.at, due=None, failures=(*others, this),
        learnt=learnt, slots=slots, began_mono=mono if walk.began_mono is None else walk.began_mono,
    )  # fmt: skip


def following(walk: Walk, now_ms: int) -> Try | None:
    """Who is asked next in the first round as things stand, for the record of a failure."""
    for candidate in walk.tries[walk.at :]:
        row = _blocking(walk, candidate, now_ms)
        if row is None or cooldown.is_worth_a_probe(row, now_ms):
            return candidate
    return None


def _place_after(walk: Walk, this: Failed) -> int:
    """The same model with another key where that may help, else the next model."""
    at = walk.at + 1
    model = this.candidate.model
    rotations = sum(one.candidate.model == model for one in walk.failures)
    most = KEYS_MAX if this.reason in cooldown.OF_THE_KEY else ROTATIONS_MAX.get(this.reason, 0)
    if rotations < most:
        return at
    while at < len(walk.tries) and walk.tries[at].model == model:
        at += 1
    return at


def _blocking(walk: Walk, candidate: Try, now_ms: int) -> Cooldown | None:
    return cooldown.blocking(walk.cooldowns, candidate.provider, candidate.credential, candidate.model_id, now_ms)


# ── the second round ─────────────────────────────────────────────────────────────────────────────────────────────────


def _again(walk: Walk, now_ms: int, mono: float, roll: float) -> Step:
    """The first round is over: who was passed over and may have recovered, then who may be back soonest."""
    tried = {one.candidate for one in walk.failures}
    passed_over = [(one, row) for one, row in walk.skips if one not in tried]
    for candidate, row in passed_over:
        if row.key not in walk.elsewhere and cooldown.is_a_last_resort(row, now_ms):
            return Ask(candidate, row)
    waits = [Wait(one, left, row.reason) for one, row in passed_over if (left := _bearable(row, now_ms)) is not None]
    waits += [wait for one in walk.failures if (wait := _retry(one, mono, roll)) is not None]
    elapsed_s = 0.0 if walk.began_mono is None else mono - walk.began_mono
    waits = [wait for wait in waits if elapsed_s + wait.seconds < walk.retry_total_s]
    return min(waits, key=lambda wait: wait.seconds) if waits else Exhausted(soonest_s(walk, now_ms, mono))


def _bearable(row: Cooldown, now_ms: int) -> float | None:
    """Seconds to the end of a cool-down, if waiting for it is better than giving up."""
    seconds = cooldown.left_s(row, now_ms)
    if row.reason not in cooldown.TRANSIENT:
        return None
    return seconds if seconds <= (DEMANDED_WAIT_MAX_S if row.demanded else WAIT_MAX_S) else None


def _retry(this: Failed, mono: float, roll: float) -> Wait | None:
    """The pause before a failed candidate is asked again; None: it is not."""
    attempts_max = RATE_LIMIT_ATTEMPTS_MAX if this.reason == "rate_limit" else 1 + RETRIES_MAX
    if this.reason not in cooldown.WORTH_A_RETRY or this.count >= attempts_max:
        return None
    seconds = pause_s(this.count, roll)
    if this.retry_after_s is not None:
        if this.retry_after_s > DEMANDED_WAIT_MAX_S:
            return None
        seconds = max(seconds, this.retry_after_s)
    return Wait(this.candidate, max(0.0, this.at_mono + seconds - mono), this.reason)


def pause_s(count: int, roll: float) -> float:
    """Seconds to leave a model alone after its `count`th failure in a call: doubling, between half and all of it."""
    return min(BACKOFF_S * 2 ** (count - 1), WAIT_MAX_S) * (0.5 + roll / 2)


def soonest_s(walk: Walk, now_ms: int, mono: float) -> float | None:
    """Seconds until the first of the chain may be asked again."""
    rows = (*(row for _, row in walk.skips), *walk.learnt)
    ends = [cooldown.left_s(row, now_ms) for row in rows]
    ends += [one.at_mono + one.retry_after_s - mono for one in walk.failures if one.retry_after_s is not None]
    return min((end for end in ends if end > 0), default=None)
