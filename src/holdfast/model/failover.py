"""Asking a chain of models until one answers, with a receipt for every decision.

Only a `ProviderError` is a failure of a model. Whatever else is raised (who may write, this machine, the caller,
cancellation) leaves at once and uses up no candidate: the rest of the loop takes a `ProviderFailure`, which cannot hold
anything else. What is tried next is `walk.py`; what the loop needs of the world is `Surroundings`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from holdfast.errors import AllModelsFailedError, CoordinationError, ProviderError
from holdfast.model.client import (
    FeedingClient,
    Heard,
    ModelAnswer,
    ModelClient,
    ModelRequest,
    Piece,
    StreamSign,
    TextDelta,
    ThinkingDelta,
    feed,
)
from holdfast.model.cooldown import Cooldown, ModelFailure
from holdfast.model.failure import FailureClass, classify
from holdfast.model.policy import build_chain as build_chain
from holdfast.model.walk import (
    Ask,
    Exhausted,
    Skip,
    Try,
    Wait,
    Walk,
    begin,
    failed,
    following,
    left_to_others,
    next_step,
    skipped,
    waited,
)
from holdfast.text import on_one_line

log = logging.getLogger(__name__)

UNCLASSIFIED = "unclassified"
DETAIL_CHARS_MAX = 300
CAUSES_MAX = 16

# Model names come from users: no terminal sequence or line break of theirs reaches the log.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of the loop, as it is recorded and logged.

    Args:
        decision: "candidate_failed", "candidate_succeeded", "candidate_skipped" (it is in a cool-down),
            "probe_cooldown_candidate" (asked in spite of one), "candidate_waits" (asked again after a pause),
            "history_mended" (asked again with another request) or "exhausted".
        requested: the model the turn asked for.
        candidate: the model this decision is about.
        reason: failure class, "unclassified" if none is known; None for a success.
        next: the model that is asked next, or None.
        detail: the error in words.
        key: name of the key that was used, where a provider has several.
    """

    decision: str
    requested: str
    candidate: str
    reason: str | None = None
    next: str | None = None
    detail: str = ""
    key: str = ""

    def line(self) -> str:
        """The log line that operators search for."""
        head = f"[model-fallback/decision] decision={self.decision}"
        key = f" key={self.key}" if self.key else ""
        if self.decision == "candidate_succeeded":
            line = f"{head} candidate={self.candidate}{key}"
        else:
            line = (
                f"{head} requested={self.requested} candidate={self.candidate}{key} reason={self.reason} "
                f"next={self.next or 'none'} detail={self.detail}"
            )
        return _UNPRINTABLE.sub("", line)


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """A candidate's failure, and the only thing that moves the loop on. Who may write is never one.

    Args:
        said: text that had reached the user; after that no other model is asked.
    """

    error: ProviderError
    found: FailureClass
    said: str

    def __post_init__(self) -> None:
        if self.found.coordination or not isinstance(self.error, ProviderError):
            raise TypeError("who may write is no failure of a model")

    @property
    def reason(self) -> str:
        return self.found.reason or UNCLASSIFIED


class Surroundings(Protocol):
    """What the loop needs of the world; `turn/asking.py` is the real one."""

    def client_for(self, candidate: Try) -> ModelClient | FeedingClient:
        """May raise a ProviderError (a missing key), which counts as the candidate's failure."""
        ...

    def now_ms(self) -> int: ...

    def mono(self) -> float: ...

    def roll(self) -> float:
        """A random number from 0 to 1."""
        ...

    async def pause(self, seconds: float) -> None: ...

    async def before(self, step: Ask, walk: Walk, /) -> bool:
        """Make ready to ask; raises CoordinationError if the turn is over. False: another turn probes it."""
        ...

    async def after_failure(self, step: Ask, failure: ModelFailure, /) -> Cooldown | None:
        """Take note; the cool-down it starts."""
        ...

    def after_success(self, step: Ask, walk: Walk, /) -> None: ...

    def can_mend(self, error: ProviderError, /) -> bool:
        """Whether the request itself will be made anew, so that no other model is to be asked with this one."""
        ...

    def on_item(self, item: Piece) -> None:
        """Gets every delta, and does not wait. Once it was given text, no other model is asked: the user has seen this
        one's words. What it raises ends the answer and leaves `ask_along` unchanged.
        """
        ...

    def on_decision(self, decision: Decision) -> None:
        """Gets every decision after it was logged. A first model that simply answers is no decision."""
        ...


async def ask(
    chain: Sequence[str],
    request: ModelRequest,
    *,
    client_for: Callable[[str], ModelClient],
    on_item: Callable[[TextDelta | ThinkingDelta], None],
    on_decision: Callable[[Decision], None],
) -> ModelAnswer:
    """Ask the models of `chain` in turn until one answers, each once and without any memory. See `ask_along`."""
    around = OnItsOwn(client_for, on_item, on_decision)
    return await ask_along(begin(chain, retry_total_s=0), request, around)


async def ask_along(walk: Walk, request: ModelRequest, around: Surroundings) -> ModelAnswer:
    """Ask the models of a walk until one answers.

    Args:
        request: its `model` is replaced by each candidate.

    Raises:
        AllModelsFailedError: several candidates failed or were passed over; carries a receipt of each.
        ProviderError: the only candidate's own error; or of the one that had begun to answer (`.partial` holds what
            was delivered); or a context overflow (`.reason == "context_overflow"`), which is for compaction: no other
            model is asked, and no decision is recorded. The same of an error that the surroundings can mend.
        Anything else that a client or the surroundings raised, unchanged.

    Cancelled: the stream (or pause) of the moment ends; no decision is recorded.
    """
    receipts = _Receipts(walk.requested, around)
    while True:
        step = next_step(walk, now_ms=around.now_ms(), mono=around.mono(), roll=around.roll())
        match step:
            case Skip():
                walk = skipped(walk, step)
                receipts.skip(step, walk)
            case Wait():
                receipts.wait(step)
                await around.pause(step.seconds)
                walk = waited(walk, step)
            case Exhausted():
                raise receipts.exhausted(step)
            case Ask():
                if not await around.before(step, walk):
                    walk = left_to_others(walk, step)
                    continue
                receipts.probe(step)
                outcome = await _try(step.candidate, request, around)
                if isinstance(outcome, ModelAnswer):
                    receipts.success(step)
                    around.after_success(step, walk)
                    return outcome
                walk = await _move_on(walk, step, outcome, around)
                receipts.failure(step, outcome, walk)
                if outcome.said:
                    raise outcome.error


async def _try(candidate: Try, request: ModelRequest, around: Surroundings) -> ModelAnswer | ProviderFailure:
    """Ask one candidate once. A failure of its provider is a value; everything else is raised."""
    heard = Heard(around.on_item)
    try:
        client = around.client_for(candidate)
        answer = await feed(client, replace(request, model=candidate.model), heard)
        if heard.stopped_by is not None:
            raise heard.stopped_by
        if answer is None:
            raise ProviderError("the stream ended without an answer", code="no_finish_reason", partial=heard.text)
        return answer
    except ProviderError as error:
        found = classify(error, provider=candidate.provider)
        if found.coordination:
            raise _coordination_in(error) from error
        error.partial = error.partial or heard.text
        error.reason = error.reason or found.reason
        if not heard.text and (found.reason == "context_overflow" or around.can_mend(error)):
            raise
        return ProviderFailure(error, found, heard.text)


async def _move_on(walk: Walk, step: Ask, failure: ProviderFailure, around: Surroundings) -> Walk:
    candidate, error = step.candidate, failure.error
    facts = ModelFailure(
        candidate.provider, candidate.credential, candidate.model_id, failure.reason, around.now_ms(),
        error.retry_after_s, candidate.label,
    )  # fmt: skip
    row = await around.after_failure(step, facts)
    return failed(walk, step, failure.reason, retry_after_s=error.retry_after_s, mono=around.mono(), row=row)


def _coordination_in(error: ProviderError) -> CoordinationError:
    """The coordination error inside what a client raised; one in its words if only they speak of it."""
    at: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if at is None or isinstance(at, CoordinationError):
            break
        at = at.__cause__ or at.__context__
    if isinstance(at, CoordinationError):
        return at
    told = CoordinationError(str(error))
    told.__cause__ = error
    return told


# ── receipts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Receipts:
    """The records of one model call, each a log line and a decision handed on; at the end, what to raise."""

    requested: str
    around: Surroundings
    errors: dict[Try, ProviderError] = field(default_factory=dict)
    skips: dict[Try, Skip] = field(default_factory=dict)
    last: Decision | None = None

    def skip(self, step: Skip, walk: Walk) -> None:
        self.skips[step.candidate] = step
        left = f"left alone for {step.left_s:.0f} s more"
        self._record("candidate_skipped", step.candidate, step.row.reason, self._next(walk), left)

    def probe(self, step: Ask) -> None:
        if step.probe is not None:
            detail = "asked although it is in a cool-down"
            self._record("probe_cooldown_candidate", step.candidate, step.probe.reason, step.candidate.model, detail)

    def wait(self, step: Wait) -> None:
        detail = f"asked again in {step.seconds:.1f} s"
        self._record("candidate_waits", step.candidate, step.reason, step.candidate.model, detail)

    def success(self, step: Ask) -> None:
        if self.last is not None:
            self._record("candidate_succeeded", step.candidate, level=logging.INFO)

    def failure(self, step: Ask, failure: ProviderFailure, walk: Walk) -> None:
        self.errors.pop(step.candidate, None)
        self.errors[step.candidate] = failure.error
        self.skips.pop(step.candidate, None)
        then = None if failure.said else self._next(walk)
        detail = " ".join(str(failure.error).split())[:DETAIL_CHARS_MAX]
        self._record("candidate_failed", step.candidate, failure.reason, then, detail)

    def exhausted(self, step: Exhausted) -> ProviderError:
        assert self.last is not None
        of = len(self.errors) + len(self.skips)
        detail = f"{len(self.errors)} of {of} failed" + (f", {len(self.skips)} left alone" if self.skips else "")
        self._hand_on(replace(self.last, decision="exhausted", next=None, detail=detail), logging.WARNING)
        attempts = [(one.model, error) for one, error in self.errors.items()]
        passed_over = [(one.model, skip.row.reason, skip.left_s) for one, skip in self.skips.items()]
        summary = AllModelsFailedError(attempts, passed_over, step.soonest_s)
        log.error("Embedded agent failed before reply: %s", on_one_line(str(summary)))
        last = attempts[-1][1] if attempts else None
        if last is not None and of == 1:
            return last
        summary.__cause__ = last
        return summary

    def _next(self, walk: Walk) -> str | None:
        """Who comes next as things stand."""
        now_ms, mono = self.around.now_ms(), self.around.mono()
        candidate = following(walk, now_ms)
        if candidate is None:
            step = next_step(replace(walk, at=len(walk.tries)), now_ms=now_ms, mono=mono, roll=0.5)
            candidate = step.candidate if isinstance(step, Ask | Wait) else None
        return candidate.model if candidate is not None else None

    def _record(
        self, decision: str, candidate: Try, reason: str | None = None, then: str | None = None, detail: str = "",
        level: int = logging.WARNING,
    ) -> None:  # fmt: skip
        one = Decision(decision, self.requested, candidate.model, reason, then, detail, candidate.label)
        self._hand_on(one, level)
        self.last = one

    def _hand_on(self, decision: Decision, level: int) -> None:
        log.log(level, "%s", decision.line(), extra={"decision": decision})
        self.around.on_decision(decision)


class OnItsOwn:
    """Surroundings without a turn: no memory, no pauses, real clocks."""

    def __init__(
        self,
        client_for: Callable[[str], ModelClient],
        on_item: Callable[[TextDelta | ThinkingDelta], None],
        on_decision: Callable[[Decision], None],
    ) -> None:
        self._client_for = client_for
        self._on_item = on_item
        self._on_decision = on_decision

    def on_item(self, item: Piece) -> None:
        if not isinstance(item, StreamSign):
            self._on_item(item)

    def on_decision(self, decision: Decision) -> None:
        self._on_decision(decision)

    def client_for(self, candidate: Try) -> ModelClient:
        return self._client_for(candidate.model)

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def mono(self) -> float:
        return time.monotonic()

    def roll(self) -> float:
        return 1.0

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def before(self, _step: Ask, _walk: Walk, /) -> bool:
        return True

    async def after_failure(self, _step: Ask, _failure: ModelFailure, /) -> Cooldown | None:
        return None

    def after_success(self, _step: Ask, _walk: Walk, /) -> None:
        return None

    def can_mend(self, _error: ProviderError, /) -> bool:
        return False
