"""Limits on what models may cost: which of them a call falls under, and what they say. Pure.

A limit is checked before each call, in the ledger's transaction that writes the call down: what was spent, what calls
under way are taken to cost, and what this one is. So whatever processes there are, a limit is passed by no more than
the calls under way cost above what was guessed of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo

from holdfast.clock import epoch_ms
from holdfast.model.usage import ModelCall, money
from holdfast.text import on_one_line

FOREVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Caps:
    """Micro-dollars for each day and each month; None: no limit."""

    day: int | None = None
    month: int | None = None


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """All limits.

    Args:
        all: for everything. session: for each session by itself. turn: for each turn, in micro-dollars.
        agents, lanes, sessions: by name; a session's own wins over `session`.
        users_share: the part of each limit that turns of machines (heartbeats, jobs, hooks) leave for people.
        warn_at: the part of a limit from which the log warns.
        zone: whose days and months they are.
    """

    all: Caps = Caps()
    session: Caps = Caps()
    turn: int | None = None
    agents: Mapping[str, Caps] = field(default_factory=dict)
    lanes: Mapping[str, Caps] = field(default_factory=dict)
    sessions: Mapping[str, Caps] = field(default_factory=dict)
    users_share: float = 0.0
    warn_at: float = 0.8
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Guard:
    """One limit as it applies to one call.

    Args:
        scope: "all", "agent:NAME", "lane:NAME", "session:KEY" or "turn:ID".
        limit: micro-dollars, less the users' share for a machine. whole: the limit itself.
    """

    scope: str
    period: str
    from_ms: int
    until_ms: int
    limit: int
    whole: int
    warn: int

    @property
    def name(self) -> str:
        kind, _, name = self.scope.partition(":")
        return {"all": "all", "turn": "this turn"}.get(kind, f"{kind} {on_one_line(name)}")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the ledger said to a call. `held`: the limit that forbids it, and what counts against it."""

    held: Guard | None = None
    spent: int = 0
    warned: tuple[tuple[Guard, int], ...] = ()


def guards_for(limits: SpendingLimits, call: ModelCall, *, is_machine: bool) -> tuple[Guard, ...]:
    """The limits that a call falls under; none as a rule."""
    scopes = [("all", limits.all), (f"agent:{call.agent}", limits.agents.get(call.agent)),
              (f"lane:{call.lane}", limits.lanes.get(call.lane)),
              (f"session:{call.session}", limits.sessions.get(call.session, limits.session))]  # fmt: skip
    found: list[Guard] = []
    for scope, caps in scopes:
        if caps is None:
            continue
        for period, whole in (("day", caps.day), ("month", caps.month)):
            if whole is not None:
                span = span_of(period, call.began_at_ms, limits.zone)
                found.append(_guard(limits, scope, period, span, whole, is_machine=is_machine))
    if limits.turn is not None:
        span = (0, FOREVER_MS)
        found.append(_guard(limits, f"turn:{call.turn}", "turn", span, limits.turn, is_machine=False))
    return tuple(found)


def _guard(
    limits: SpendingLimits, scope: str, period: str, span: tuple[int, int], whole: int, *, is_machine: bool
) -> Guard:
    limit = int(whole * (1 - limits.users_share)) if is_machine else whole
    return Guard(scope, period, *span, limit, whole, int(whole * limits.warn_at))


def span_of(period: str, at_ms: int, zone: tzinfo) -> tuple[int, int]:
    """The day or month around a moment: its first millisecond, and that of the next one."""
    today = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone).date()
    first = today if period == "day" else today.replace(day=1)
    following = first + timedelta(days=1) if period == "day" else (first + timedelta(days=32)).replace(day=1)
    return _midnight_ms(first, zone), _midnight_ms(following, zone)


def _midnight_ms(day: date, zone: tzinfo) -> int:
    return epoch_ms(datetime(day.year, day.month, day.day, tzinfo=zone))


def scopes_of(call: ModelCall) -> tuple[str, ...]:
    """Against which sums a call counts."""
    return ("all", f"agent:{call.agent}", f"lane:{call.lane}", f"session:{call.session}")


def judge(guards: tuple[Guard, ...], spent: Mapping[Guard, int], cost: int | None) -> Allowance:
    """Whether a call of that cost, as guessed, may be made. One that costs nothing may; so may one of unknown price
    (None), which no limit in money can hold.
    """
    if not cost:
        return Allowance()
    for guard in guards:
        if spent[guard] + cost > guard.limit:
            return Allowance(guard, spent[guard])
    warned = tuple((guard, spent[guard] + cost) for guard in guards if spent[guard] + cost >= guard.warn)
    return Allowance(None, 0, warned)


def in_words(allowance: Allowance, zone: tzinfo) -> str:
    """What the sender is told: which limit, what was spent, when it opens again."""
    guard = allowance.held
    assert guard is not None
    share = "" if guard.limit == guard.whole else f" ({money(guard.whole - guard.limit)} of it are kept for people)"
    if guard.period == "turn":
        return f"the spending limit of one turn, {money(guard.limit)}, is reached; ask for less at once, or raise it"
    opens = datetime.fromtimestamp(guard.until_ms / 1000, UTC).astimezone(zone)
    return (
        f"the spending limit for {guard.name} per {guard.period}, {money(guard.whole)}{share}, is reached: "
        f"{money(allowance.spent)} are spent or under way. It opens again on {opens:%Y-%m-%d at %H:%M %Z}; "
        "`holdfast usage` tells what was spent, and [spending] in the configuration sets it"
    )
