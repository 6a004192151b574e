"""Every model call of a turn is written down: when it begins, and once more when it has ended, however that was.

It stands around the client of a candidate, so that no call goes past it: not those that fail, not those of a summary,
not the second one with a mended history. What a call that gave no count has used is guessed and marked as guessed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from holdfast.clock import Clock, epoch_ms
from holdfast.context.budget import estimate_tokens, text_tokens
from holdfast.errors import ProviderError, SpendingLimitError
from holdfast.model import policy
from holdfast.model.catalog import provider_of
from holdfast.model.client import FeedingClient, Heard, ModelAnswer, ModelClient, ModelRequest, feed
from holdfast.model.failure import classify
from holdfast.model.prices import Prices
from holdfast.model.spending import Guard, SpendingLimits, guards_for, in_words
from holdfast.model.usage import OUTPUT_TOKENS_GUESSED, ModelCall, Purpose, Tokens, call_id, ended, money, of_answer
from holdfast.model.walk import Try
from holdfast.session.key import parse_key
from holdfast.turn.turn import Turn

log = logging.getLogger("holdfast.usage")
TOOL_TOKENS = 60
"""What a tool's schema costs besides its description, about."""
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Metering:
    """What counting needs, for all turns of a process."""

    prices: Prices
    limits: SpendingLimits = field(default_factory=SpendingLimits)
    _warned: set[tuple[str, str, int]] = field(default_factory=set)

    async def begin(
        self, turn: Turn, clock: Clock, candidate: Try, request: ModelRequest, *, step: int, purpose: Purpose
    ) -> ModelCall:
        """A call that is about to be made, written down with what it will take as we guess.

        Raises:
            SpendingLimitError: a limit forbids it; nothing was asked. ResourceError: it could not be written down.
        """
        ref = candidate.model
        await self.prices.ready(ref)
        now = clock.now()
        guess = Tokens(input=tokens_of(request), output=_output_guess(request))
        call = ModelCall(
            call_id(turn.id, turn.next_call()), turn.id, turn.session, parse_key(turn.session).agent, turn.lane,
            turn.input_id, ref, candidate.label, step, purpose, "begun", epoch_ms(now), tokens=guess,
            cost=self.prices.cost(ref, guess, now), is_estimate=True,
        )  # fmt: skip
        is_machine = policy.is_machine(turn.session, turn.lane)
        allowance = await turn.begin_call(call, guards_for(self.limits, call, is_machine=is_machine))
        for guard, spent in allowance.warned:
            self._warn(turn, guard, spent)
        if allowance.held is not None:
            text = in_words(allowance, self.limits.zone)
            turn.note("turn.spending", held=text)
            raise SpendingLimitError(text, allowance.held.scope, allowance.held.until_ms)
        return call

    def _warn(self, turn: Turn, guard: Guard, spent: int) -> None:
        """Once for each limit and span, of each process."""
        key = (guard.scope, guard.period, guard.from_ms)
        if key not in self._warned:
            self._warned.add(key)
            log.warning("spending for %s per %s is at %s of %s", guard.name, guard.period, money(spent),
                        money(guard.whole))  # fmt: skip
            turn.note("turn.spending", near=f"{guard.name} per {guard.period}: {money(spent)} of {money(guard.whole)}")

    def end(
        self, turn: Turn, clock: Clock, call: ModelCall, result: ModelAnswer | BaseException | None, chars: int
    ) -> None:
        """The same call, ended: answered, failed, or (anything else) cut off.

        Args:
            chars: of text that had come.
        """
        now = clock.now()
        counted = of_answer(result.usage) if isinstance(result, ModelAnswer) else None
        if counted is not None and isinstance(result, ModelAnswer):
            counted += Tokens(cache_write=result.written)
        if counted is None and isinstance(result, ProviderError) and _was_refused(result, chars):
            counted = Tokens()
        guess = Tokens(input=call.tokens.input, output=-(-chars // CHARS_PER_TOKEN))
        tokens = guess if counted is None else counted
        state, reason = ("done", "") if isinstance(result, ModelAnswer) else ("cut", type(result).__name__)
        if isinstance(result, ProviderError):
            found = result.reason or classify(result, provider=provider_of(call.model)).reason
            state, reason = "failed", found or "unclassified"
        turn.end_call(
            ended(
                call, state, epoch_ms(now), tokens=tokens, cost=self.prices.cost(call.model, tokens, now),
                reason=reason, is_estimate=counted is None,
            ),
            result.stop_reason if isinstance(result, ModelAnswer) else None,
        )  # fmt: skip


class MeteredClient:
    """A client whose calls are counted. It stands beside the stream and not in it: pieces pass it by."""

    def __init__(
        self, client: ModelClient | FeedingClient, metering: Metering, turn: Turn, clock: Clock, candidate: Try, *,
        step: int, purpose: Purpose,
    ) -> None:  # fmt: skip
        self._client = client
        self._metering = metering
        self._turn = turn
        self._clock = clock
        self._candidate = candidate
        self._step = step
        self._purpose: Purpose = purpose

    async def feed(self, request: ModelRequest, heard: Heard, /) -> ModelAnswer | None:
        """As the client's own."""
        call = await self._metering.begin(
            self._turn, self._clock, self._candidate, request, step=self._step, purpose=self._purpose
        )  # fmt: skip
        result: ModelAnswer | BaseException | None = None
        try:
            answer = await feed(self._client, request, heard)
            result = heard.stopped_by or answer
        except BaseException as failed:
            result = failed
            raise
        finally:
            self._metering.end(self._turn, self._clock, call, result, heard.chars)
        return answer


def tokens_of(request: ModelRequest) -> int:
    """About how many tokens a request has."""
    messages = request.tokens or sum(map(estimate_tokens, request.messages))
    tools = sum(TOOL_TOKENS + text_tokens(tool.description) for tool in request.tools)
    return messages + tools + text_tokens(request.system or "")


def _output_guess(request: ModelRequest) -> int:
    asked = request.settings.get("max_completion_tokens") or request.settings.get("max_tokens")
    return min(asked, OUTPUT_TOKENS_GUESSED) if isinstance(asked, int) and asked > 0 else OUTPUT_TOKENS_GUESSED


def _was_refused(failed: ProviderError, chars: int) -> bool:
    """Whether the provider has done nothing for it: it was never asked, or said no with a status of its own."""
    return not chars and not failed.partial and (not failed.sent or failed.status is not None)
