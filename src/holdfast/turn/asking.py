"""Asking models in a turn: what the chain is now, what of it is remembered, what is told afterwards.

One `Asking` serves all the model calls of a turn; it is the failover loop's `Surroundings`. What is known of models
came with the turn's claim; what its calls find out goes to the ledger: a failure at once (nobody waits for it), the
rest with the settlement. If the turn ends without an answer, a pin that it wrote is taken back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from holdfast import ids
from holdfast.clock import Clock, epoch_ms
from holdfast.context.system_prompt import FILES
from holdfast.errors import CoordinationError, ProviderError
from holdfast.inbound.event import Route
from holdfast.model import policy
from holdfast.model.catalog import provider_of
from holdfast.model.client import ModelClient, Piece, StreamSign, TextDelta, ThinkingDelta
from holdfast.model.cooldown import (
    LAST_RESORT_EVERY_S,
    PROBE_EVERY_S,
    Cooldown,
    ModelFailure,
    after_failure,
)
from holdfast.model.credentials import Credential, in_order_for
from holdfast.model.failover import DETAIL_CHARS_MAX, Decision
from holdfast.model.policy import ModelsAfter, Pin, Plan
from holdfast.model.prices import Prices
from holdfast.model.refused_history import refuses_history
from holdfast.model.usage import Purpose
from holdfast.model.walk import RETRY_TOTAL_S, Ask, Try, Walk, begin
from holdfast.store.protocol import ModelStore
from holdfast.text import on_one_line
from holdfast.turn.metering import MeteredClient, Metering
from holdfast.turn.turn import Turn
from holdfast.turn.warm_keys import warm_first

log = logging.getLogger("holdfast.model")

OnItem = Callable[[TextDelta | ThinkingDelta], None]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How one agent answers.

    Args:
        policy: one of `policy.POLICIES`.
        retry_s: how long after a first failure models are asked again when nobody else can answer; 0: not at all.
        notices: "owner", "everywhere" or "off": who is told that another model answers.
        notice_route: the owner's own "channel:target"; None: where the message came from, unless that is a group.
        tools: those it may use, by name; None: all.
        workspace: the folder its tools work in; empty: none was named.
        silence_s: how long a model may say nothing before the turn ends; None: as `turn.silence_s` says.
        prompt_files: of that folder, those that stand before its conversations.
    """

    model: str = "demo/demo"
    fallbacks: tuple[str, ...] = ()
    system: str | None = None
    policy: str = policy.TURN_LOCAL
    retry_s: float = RETRY_TOTAL_S
    notices: str = "owner"
    notice_route: str | None = None
    tools: tuple[str, ...] | None = None
    workspace: str = ""
    prompt_files: tuple[str, ...] = FILES
    silence_s: float | None = None


class Models(Protocol):
    """The clients of a process (`model/clients.py`)."""

    def client_for(self, ref: str, credential: str = "", /) -> ModelClient: ...

    def credentials(self, ref: str, /) -> tuple[Credential, ...]: ...


class KeylessModels:
    """Clients that need no keys of ours: tests, and programs that bring their own."""

    def __init__(self, client_for: Callable[[str], ModelClient]) -> None:
        self._client_for = client_for

    def client_for(self, ref: str, credential: str = "", /) -> ModelClient:
        assert not credential
        return self._client_for(ref)

    def credentials(self, _ref: str, /) -> tuple[Credential, ...]:
        return ()


@dataclass(slots=True)
class Asking:
    """The models of one turn.

    Args:
        asked: the model that the input itself names.
        on_item: gets every delta of a call.
        metering: counts the calls. purpose: what they are for. step: of the turn, the calls of which come next.
        warm: names of the keys that hold the session's beginning, by provider (`warm_keys.py`); None: not looked up.
    """

    turn: Turn
    store: ModelStore
    clock: Clock
    models: Models
    agent: AgentSettings
    asked: str | None
    on_item_of: OnItem
    metering: Metering = field(default_factory=lambda: Metering(Prices()))
    purpose: Purpose = "answer"
    step: int = 0
    warm: dict[str, str] | None = None
    plan: Plan = field(init=False)
    _known: dict[tuple[str, str, str], Cooldown] = field(init=False)
    _counted: set[tuple[str, str, str]] = field(default_factory=set)
    _well: set[tuple[str, str, str]] = field(default_factory=set)
    _written: Pin | None = None  # by this turn, and what it stands in place of
    _written_over: Pin | None = None
    _checked: str | None = None
    _calls: int = 0
    mended: bool = False  # this turn has told of a history that was refused

    def __post_init__(self) -> None:
        self._known = {row.key: row for row in self.turn.models.cooldowns}
        self.plan = self._plan()

    def begin(self) -> Walk:
        """The walk of the next model call, by what is known and chosen now: a user's choice counts from here on."""
        self.plan = self._plan()
        self._calls = 0
        tries = [one for ref in self.plan.chain for one in self._tries(ref)]
        return begin(tries, tuple(self._known.values()), retry_total_s=self.agent.retry_s)

    def _plan(self) -> Plan:
        pin = self.turn.pin
        if pin is not None and self._written is not None and pin.id == self._written.id:
            pin = replace(pin, holds=True)  # our own, for as long as this turn lasts
        return policy.plan_models(
            asked=self.asked, primary=self.agent.model, fallbacks=self.agent.fallbacks, policy=self.agent.policy,
            pin=pin, now_ms=self.now_ms(),
        )  # fmt: skip

    def _tries(self, ref: str) -> list[Try]:
        keys = in_order_for(self.turn.session, self.models.credentials(ref))
        keys = warm_first(keys, (self.warm or {}).get(provider_of(ref)))
        wanted = self.plan.pin.credential if self.plan.pin is not None else ""
        chosen = [one for one in keys if one.label == wanted]
        several = len(keys) > 1
        return [Try(ref, one.id, one.label if several else "") for one in chosen or keys] or [Try(ref)]

    @property
    def has_several_keys(self) -> bool:
        """Whether any of the models may be asked with one key or another."""
        return any(len(self.models.credentials(ref)) > 1 for ref in self.plan.chain)

    # ── for the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def client_for(self, candidate: Try) -> MeteredClient:
        client = self.models.client_for(candidate.model, candidate.credential)
        limit_s: float | None = getattr(client, "idle_limit_s", None)
        if self.turn.silence is not None:
            limit_s = self.turn.silence.of_model(limit_s)
        self.turn.begins("model", candidate.model, limit_s=limit_s)
        return MeteredClient(
            client, self.metering, self.turn, self.clock, candidate, step=self.step, purpose=self.purpose
        )

    def now_ms(self) -> int:
        return epoch_ms(self.clock.now())

    def mono(self) -> float:
        return self.clock.mono()

    def roll(self) -> float:
        return random.random()  # noqa: S311  # the jitter of a pause, no secret

    async def pause(self, seconds: float) -> None:
        self.turn.begins("retry", limit_s=seconds)
        await self.clock.sleep(seconds)

    def on_item(self, item: Piece) -> None:
        self.turn.heard()
        if not isinstance(item, StreamSign):
            self.on_item_of(item)

    def on_decision(self, decision: Decision) -> None:
        self.turn.note("turn.fallback", **asdict(decision))

    async def before(self, step: Ask, walk: Walk, /) -> bool:
        """Look at the epoch before anything but the first request; claim a probe; write the pin of a fallback.

        Raises:
            SessionTakeoverError, OwnershipLostError, TurnCancelledError: nobody is asked any more.
        """
        self._calls += 1
        if self._calls > 1:
            await self._check(walk)
        if step.probe is not None and not await self._may_probe(step.probe, is_last_resort=walk.at == len(walk.tries)):
            return False
        if step.candidate.model != self.plan.requested and self.asked is None:
            await self._write_pin(step.candidate.model, _why(walk, self.plan))
        return True

    async def _check(self, walk: Walk) -> None:
        """Whether the turn is still ours and wanted. What else has happened in the session is no reason for what the
        model did, and is told beside it: whoever looks for a cause sees both.
        """
        try:
            seen = await self.turn.happened_meanwhile()
        except CoordinationError as lost:
            self._tell_meanwhile(walk, str(lost))
            raise
        if seen:
            self._tell_meanwhile(walk, seen)
        await self.turn.raise_if_cancelled()

    def _tell_meanwhile(self, walk: Walk, seen: str) -> None:
        for failure in walk.failures[-1:]:
            log.info("[model-fallback/coordination] turn=%s candidate=%s reason=%s meanwhile=%s", self.turn.id,
                     on_one_line(failure.candidate.model), failure.reason, on_one_line(seen))  # fmt: skip

    async def _may_probe(self, row: Cooldown, *, is_last_resort: bool) -> bool:
        if is_last_resort and row.reason != "rate_limit":
            return True
        every_s = LAST_RESORT_EVERY_S if is_last_resort else PROBE_EVERY_S
        return await self.store.begin_probe(row, self.turn.id, every_s=every_s)

    async def after_failure(self, step: Ask, failure: ModelFailure, /) -> Cooldown | None:
        """Count it once per turn: a model that is asked again after a pause has not failed anew for others."""
        if self._written is not None and self._written.model == step.candidate.model:
            self.forget_pin()
        before = self._known.get(failure.key)
        if failure.key in self._counted and before is not None:
            return before
        after = after_failure(before, failure)
        if after is not None and after is not before:
            self._counted.add(failure.key)
            self._known[after.key] = after
            self._well.discard(after.key)
            self.store.note_model_failure(failure)
        return after

    def after_success(self, step: Ask, walk: Walk, /) -> None:
        one, plan = step.candidate, self.plan
        if one.label:
            self.warm = {**(self.warm or {}), one.provider: one.label}
        for key in ((one.provider, one.credential, ""), (one.provider, one.credential, one.model_id)):
            row = self._known.pop(key, None)
            if row is not None:
                self._well.add(key)
                if step.probe is not None:
                    self.store.note_model_well(row)
        if plan.checks_origin and one.model != plan.requested and plan.pin is not None:
            self._checked = plan.pin.id
        if self.asked is None:
            is_usual = one.model == plan.requested and self.turn.models.fallback is None
            is_plain = is_usual and not self._well and plan.pin is plan.void is self._written is None
            self.turn.models_after = None if is_plain else self._after(one.model, _why(walk, plan))

    def can_mend(self, error: ProviderError, /) -> bool:
        """Once in a turn: a provider that does not take the history is asked again without what it refuses."""
        return not self.mended and refuses_history(error)

    def mend(self, error: ProviderError, walk: Walk) -> None:
        """The request is made anew: say so, in the log and in the turn's story."""
        self.mended = True
        one = walk.requested
        detail = " ".join(str(error).split())[:DETAIL_CHARS_MAX]
        decision = Decision("history_mended", one, f"{error.provider}/{error.model}" if error.model else one, "format",
                            one, detail)  # fmt: skip
        log.warning("%s", decision.line(), extra={"decision": decision})
        self.on_decision(decision)

    # ── pins and what is told ────────────────────────────────────────────────────────────────────────────────────────

    async def _write_pin(self, model: str, reason: str) -> None:
        pin = policy.auto_pin(
            self.plan, pin_id=ids.new_id("pin"), session=self.turn.session, lane=self.turn.lane, turn=self.turn.id,
            model=model, reason=reason, policy=self.agent.policy, now_ms=self.now_ms(),
        )  # fmt: skip
        if pin is None or (self._written is not None and self._written.model == model):
            return
        before = self.turn.pin
        if await self.store.replace_pin(self.turn.session, seen=before.id if before else None, pin=pin):
            self._written, self._written_over = pin, before
            self.turn.pin = pin

    def forget_pin(self) -> None:
        """Take back a pin whose attempt came to nothing, if it still is that one."""
        written, before = self._written, self._written_over
        if written is None:
            return
        self._written = self._written_over = None
        self.store.undo_pin(self.turn.session, written=written.id, before=before)
        if self.turn.pin is not None and self.turn.pin.id == written.id:
            self.turn.pin = before

    def _after(self, active: str, reason: str) -> ModelsAfter:
        """What the settlement keeps if this was the last call of the turn."""
        plan, session, before = self.plan, self.turn.session, self.turn.models.fallback
        ended = plan.void or (plan.pin if active == plan.requested and not plan.strict else None)
        after = before
        notice: tuple[str, str, str] | None = None
        if not policy.is_machine(session, self.turn.lane):
            after = policy.fallback_after(
                before, session=session, selected=plan.requested, active=active, reason=reason, now_ms=self.now_ms()
            )
            text = policy.notice_of(before, after, plan.requested)
            notice = self._notice(text) if text is not None else None
        return ModelsAfter(
            well=tuple(sorted(self._well)), pin_holds=self._written.id if self._written is not None else None,
            pin_ended=ended.id if ended is not None else None, checked=self._checked, fallback_before=before,
            fallback=after, notice=notice,
        )  # fmt: skip

    def _notice(self, text: str) -> tuple[str, str, str] | None:
        view = self.turn.view
        own = view.route if view is not None else None
        to = policy.notice_route(self.turn.session, own, notices=self.agent.notices, configured=self.agent.notice_route)
        if to is None:
            return None
        route = Route.parse(to)
        return route.channel, route.target, text

    def close(self, *, answered: bool) -> None:
        """The turn ends. Unless it has answered, its pin is taken back."""
        if not answered:
            self.turn.models_after = None
            self.forget_pin()


def _why(walk: Walk, plan: Plan) -> str:
    """Why the requested model does not answer: how it fared in this call, else what its pin says."""
    for one in walk.failures:
        if one.candidate.model == plan.requested:
            return one.reason
    for candidate, row in walk.skips:
        if candidate.model == plan.requested:
            return row.reason
    return plan.pin.reason if plan.pin is not None else "unclassified"
