"""Which models a turn may ask, and what of a session's past decides it: the chain, pins, notices. Pure.

A pin makes a session's turns begin with another model than the configured one. A user's is exact: that model or none,
until the user takes it away. An automatic one (policy `sticky_until_probe`) stands in for a model that failed, says
why, since when and until when, and is only good while the model it stands in for is still the configured one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.model.cooldown import Cooldown
from holdfast.session.key import parse_key

TURN_LOCAL, STICKY, STRICT = "turn_local", "sticky_until_probe", "strict"
POLICIES = (TURN_LOCAL, STICKY, STRICT)
PROBE_ORIGIN_EVERY_S = 300
"""How often a session with an automatic pin asks the model it would rather have (semantics.md 2.4)."""
AUTO_PIN_S = 24 * 3600
"""An automatic pin ends after a day even if nobody wrote in the session meanwhile."""
MACHINE_LANES = frozenset({"compaction", "cron", "cron-nested", "heartbeat", "hook", "subagent"})
MACHINE_KEYS = frozenset({"cron", "hook", "subagent"})


@dataclass(frozen=True, slots=True)
class Pin:
    """A session's model, by a user's choice or in place of one that failed.

    Args:
        id: of this very pin; a rollback names it, so that it never removes another one.
        source: "user" or "auto".
        reason: why; for an automatic one the class of the failure.
        expires_at_ms: None: never (a user's only).
        origin: the model that an automatic pin stands in for.
        by: who or which turn set it.
        checked_at_ms: when the origin was asked last.
        credential: label of the key to use, a user's choice only; empty: any.
        holds: False while the attempt for which it was written has not succeeded; void once its turn is over.
    """

    id: str
    session: str
    model: str
    source: str
    reason: str
    set_at_ms: int
    expires_at_ms: int | None = None
    origin: str | None = None
    by: str = ""
    checked_at_ms: int = 0
    credential: str = ""
    holds: bool = True

    def __post_init__(self) -> None:
        if not self.reason or self.source not in ("user", "auto"):
            raise ValueError("a pin says who set it and why")
        if self.source == "auto" and (self.expires_at_ms is None or not self.origin):
            raise ValueError("an automatic pin has an origin and ends by itself")


@dataclass(frozen=True, slots=True)
class Fallback:
    """What a session's people were told last: `active` answers in place of `selected`. No row: nothing to tell."""

    session: str
    selected: str
    active: str
    reason: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a turn knows of models when it begins; read with its claim."""

    cooldowns: tuple[Cooldown, ...] = ()
    pin: Pin | None = None
    fallback: Fallback | None = None


NOTHING_KNOWN = ModelFacts()


@dataclass(frozen=True, slots=True)
class ModelsAfter:
    """What a turn that answered has found out of models; kept with its settlement.

    Args:
        well: keys of cool-downs that have proved over.
        pin_holds, pin_ended: ids of the pin that its attempt has made good, and of one that is removed; each only if it
            is still that very pin.
        checked: id of the pin whose origin was asked in vain.
        fallback: what people know from now on; None: nothing to know.
        notice: (channel, target, text) of what to tell.
    """

    well: tuple[tuple[str, str, str], ...] = ()
    pin_holds: str | None = None
    pin_ended: str | None = None
    checked: str | None = None
    fallback_before: Fallback | None = None
    fallback: Fallback | None = None
    notice: tuple[str, str, str] | None = None

    @property
    def is_nothing(self) -> bool:
        return self == ModelsAfter(fallback_before=self.fallback, fallback=self.fallback)


@dataclass(frozen=True, slots=True)
class ModelsNow:
    """Everything that is known, for people: cool-downs (also those that have ended), pins, fallbacks."""

    cooldowns: list[Cooldown]
    pins: list[Pin]
    fallbacks: list[Fallback]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn may ask.

    Args:
        requested: the model that was meant to answer; a notice and a pin speak of it.
        chain: in order, each once.
        strict: one model or none.
        pin: the pin that is in force.
        void: a pin of the session that is not any more; it is removed.
        checks_origin: this turn asks the origin of its automatic pin first.
    """

    requested: str
    chain: tuple[str, ...]
    strict: bool = False
    pin: Pin | None = None
    void: Pin | None = None
    checks_origin: bool = False


def build_chain(
    requested: str, fallbacks: Sequence[str] = (), primary: str | None = None, strict: bool = False
) -> list[str]:
    """The models to ask, in order: the requested one, the fallbacks, the configured primary last; each once.

    Args:
        strict: the requested model or none (a user's own choice).
    """
    if strict:
        return [requested]
    return list(dict.fromkeys([requested, *fallbacks, *([primary] if primary else [])]))


def plan_models(
    *, asked: str | None, primary: str, fallbacks: Sequence[str], policy: str, pin: Pin | None, now_ms: int
) -> Plan:
    """What a turn may ask.

    Args:
        asked: the model that this very input names; it wins over pins and leaves them as they are.
        primary, fallbacks, policy: as configured today.
        pin: of the session, as the ledger has it.
    """
    usual = tuple(build_chain(primary, fallbacks))
    if policy == STRICT:
        usual = (primary,)
    if asked is not None:
        chain = build_chain(asked, fallbacks, primary, strict=policy == STRICT)
        return Plan(asked, tuple(chain), strict=policy == STRICT)
    if pin is None:
        return Plan(primary, usual, strict=policy == STRICT)
    if is_void(pin, primary=primary, usual=usual, policy=policy, now_ms=now_ms):
        return Plan(primary, usual, strict=policy == STRICT, void=pin)
    if pin.source == "user":
        return Plan(pin.model, (pin.model,), strict=True, pin=pin)
    if is_check_due(pin, now_ms):
        chain = build_chain(primary, (pin.model, *fallbacks))
        return Plan(primary, tuple(chain), pin=pin, checks_origin=True)
    return Plan(primary, tuple(build_chain(pin.model, usual)), pin=pin)


def is_void(pin: Pin, *, primary: str, usual: Sequence[str], policy: str, now_ms: int) -> bool:
    """Whether a pin counts no more: it has ended; or, for an automatic one, pins are off now, its origin is not the
    configured model any more, its own model is not a fallback any more, or the attempt it was written for came to
    nothing.
    """
    if pin.expires_at_ms is not None and pin.expires_at_ms <= now_ms:
        return True
    if pin.source == "user":
        return False
    set_in_future = pin.set_at_ms > now_ms + AUTO_PIN_S * 1000
    return policy != STICKY or pin.origin != primary or pin.model not in usual or not pin.holds or set_in_future


def is_check_due(pin: Pin, now_ms: int) -> bool:
    """Whether it is time to ask an automatic pin's origin again."""
    return not 0 <= now_ms - max(pin.checked_at_ms, pin.set_at_ms) < PROBE_ORIGIN_EVERY_S * 1000


def is_machine(session: str, lane: str) -> bool:
    """Whether a turn is not a person's: it leaves neither pin nor notice on a chat."""
    key = parse_key(session)
    return lane in MACHINE_LANES or key.kind in MACHINE_KEYS or key.heartbeat


def auto_pin(
    plan: Plan, *, pin_id: str, session: str, lane: str, turn: str, model: str, reason: str, policy: str, now_ms: int
) -> Pin | None:
    """The pin to write before `model` is asked in place of the configured one; None: this turn writes none.

    A user's choice, an input's own model and a machine's turn are never followed by one, nor is a model that is pinned
    already.
    """
    if policy != STICKY or plan.strict or model == plan.requested or is_machine(session, lane):
        return None
    if plan.pin is not None and (plan.pin.source == "user" or plan.pin.model == model):
        return None
    return Pin(
        pin_id, session, model, "auto", reason, now_ms, now_ms + AUTO_PIN_S * 1000, plan.requested, turn, now_ms,
        holds=False,
    )  # fmt: skip


# ── what people are told ─────────────────────────────────────────────────────────────────────────────────────────────


def fallback_after(
    before: Fallback | None, *, session: str, selected: str, active: str, reason: str, now_ms: int
) -> Fallback | None:
    """The state after `active` has answered in place of `selected` (or is it). The same object if nothing changed."""
    if selected == active:
        return None
    if before is not None and (before.selected, before.active) == (selected, active):
        return before
    return Fallback(session, selected, active, reason, now_ms)


def notice_of(before: Fallback | None, after: Fallback | None, selected: str) -> str | None:
    """What to tell about a change of state, once; None if there was none, or if `selected` is what somebody has chosen
    meanwhile.
    """
    if after is not None:
        if before is not None and after.active == before.active:
            return None
        return f"↪️ Model Fallback: {after.active} (selected {after.selected}; {after.reason.replace('_', ' ')})"
    if before is None or before.selected != selected:
        return None
    return f"↪️ Model Fallback cleared: {before.selected} (was {before.active})"


def notice_route(session: str, own: str | None, *, notices: str, configured: str | None) -> str | None:
    """Where notices of a session go as "channel:target"; None: nowhere.

    Args:
        own: the route of the input that was answered.
        notices: "owner" (never into a group or channel), "everywhere" or "off".
        configured: the owner's own route, for all sessions.
    """
    if notices == "off":
        return None
    if configured is not None and notices == "owner":
        return configured
    is_public = parse_key(session).chat in ("group", "channel")
    return None if is_public and notices == "owner" else own
