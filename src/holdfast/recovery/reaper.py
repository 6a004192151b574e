"""Plan, act on one captured epoch, verify: what `holdfast recover` does, and what it found."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from holdfast.clock import Clock
from holdfast.errors import CoordinationError, ResourceError
from holdfast.recovery.classify import Action, LeftAlone, Outcome, Owner, Plan, judge, plan_recovery
from holdfast.store.protocol import LaneStore
from holdfast.store.views import Hold

LOOK_S = 1.0
log = logging.getLogger("holdfast.recovery")


@dataclass(frozen=True, slots=True)
class Done:
    """An action and what came of it. `detail`: what the session's input is in now, or what stood in the way."""

    action: Action
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What recovery did. `outcome`: "ineffective" if any action was, "effective" if any was, else "not_needed".
    `hold`: why work is held back, if it is.
    """

    done: tuple[Done, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    hold: Hold | None = None

    @property
    def outcome(self) -> Outcome:
        outcomes = {one.outcome for one in self.done}
        if "ineffective" in outcomes:
            return "ineffective"
        return "effective" if "effective" in outcomes else "not_needed"


async def look(store: LaneStore, *, session: str | None, beat_term_s: float) -> Plan:
    """What there would be to do. Changes nothing.

    Args:
        session: only its transcript; None: all.
    """
    return plan_recovery(await owners_of(store, session), beat_term_s=beat_term_s)


async def owners_of(store: LaneStore, session: str | None) -> list[Owner]:
    return [owner for owner in await store.owners() if session is None or session in owner.sessions]


async def watch(store: LaneStore, clock: Clock, *, session: str | None, beat_term_s: float, wait_s: float) -> Plan:
    """Watch the beats of those who live, or of whom nobody can tell, for up to `wait_s`; then as `look`.

    It ends early once everybody has either shown life or stood still for the whole term.
    """
    until_mono = clock.mono() + wait_s
    first: dict[tuple[str, object], bytes] = {}
    beating: set[tuple[str, object]] = set()
    while True:
        owners: list[Owner] = []
        waiting = False
        for owner in await owners_of(store, session):
            still = 0.0
            if owner.life != "dead" and not owner.is_ours:
                name = (owner.transcript, owner.epoch)
                beat, still = await store.watch_owner(owner)
                beating |= {name} if first.setdefault(name, beat) != beat else set()
                waiting = waiting or (name not in beating and still < beat_term_s)
            owners.append(replace(owner, still_s=still))
        if not waiting or clock.mono() >= until_mono:
            return plan_recovery(owners, beat_term_s=beat_term_s)
        await clock.sleep(LOOK_S)


async def act(store: LaneStore, plan: Plan) -> Report:
    """Carry a plan out, one action after the other. Interrupted, it may be begun again at any time."""
    done = [await _act_and_verify(store, action) for action in plan.actions]
    return Report(tuple(done), plan.left_alone)


async def _act_and_verify(store: LaneStore, action: Action) -> Done:
    owner = action.owner
    where = ",".join(owner.sessions) or owner.transcript
    log.info("session.recovery.requested session=%s turn=%s epoch=%d reason=%s",
             where, owner.turn, owner.epoch.number, action.kind)  # fmt: skip
    detail = ""
    try:
        closed = await store.close_turn_of(owner, lapsed=action.kind == "close_lapsed")
    except (ResourceError, CoordinationError) as exc:
        closed, detail = False, str(exc)
    outcome = judge(action, closed=closed, owners_now=await store.owners())
    if not detail:
        detail = await _detail(store, owner, outcome)
    log.info("session.recovery.completed outcome=%s session=%s turn=%s epoch=%d detail=%s",
             outcome, where, owner.turn, owner.epoch.number, detail)  # fmt: skip
    return Done(action, outcome, detail)


async def _detail(store: LaneStore, owner: Owner, outcome: Outcome) -> str:
    if outcome == "ineffective":
        return "somebody holds the transcript's write lock; try again"
    if outcome == "not_needed":
        return "somebody else has closed it meanwhile"
    if owner.input_id is None:
        return "it answered no input"
    return f"input {owner.input_id} is {await store.state_of_input(owner.input_id)}"
