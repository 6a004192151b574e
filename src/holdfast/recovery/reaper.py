"""Plan, act on one captured epoch, verify: what `holdfast recover` does, and what it found."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from holdfast.clock import Clock
from holdfast.errors import CoordinationError, ResourceError
from holdfast.recovery.classify import Action, LeftAlone, Outcome, Owner, Plan, judge, plan_recovery
from holdfast.recovery.watching import SETTLE_S, Mark
from holdfast.store.protocol import LaneStore
from holdfast.store.views import Hold

LOOK_S = 1.0
ASK_LOOK_S = 0.25
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


async def owners_of(store: LaneStore, session: str | None) -> list[Owner]:
    return [owner for owner in await store.owners() if session is None or session in owner.sessions]


async def watch(
    store: LaneStore, clock: Clock, *, session: str | None, beat_term_s: float, wait_s: float, ask: str | None = None
) -> Plan:
    """Watch the beats of those who live, or of whom nobody can tell, for up to `wait_s`; then plan.

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
            return plan_recovery(owners, beat_term_s=beat_term_s, ask=ask)
        await clock.sleep(LOOK_S)


async def act(store: LaneStore, plan: Plan, clock: Clock) -> Report:
    """Carry a plan out, one action after the other. Interrupted, it may be begun again at any time."""
    done = [await _act_and_verify(store, action, clock) for action in plan.actions]
    return Report(tuple(done), plan.left_alone)


async def _act_and_verify(store: LaneStore, action: Action, clock: Clock) -> Done:
    owner = action.owner
    where = ",".join(owner.sessions) or owner.transcript
    log.info("session.recovery.requested session=%s turn=%s epoch=%d reason=%s",
             where, owner.turn, owner.epoch.number, action.kind)  # fmt: skip
    detail = ""
    try:
        if action.kind == "ask_to_end":
            closed = await _ask_to_end(store, action, clock)
        else:
            closed = await store.close_turn_of(owner, lapsed=action.kind == "close_lapsed")
    except (ResourceError, CoordinationError) as exc:
        closed, detail = False, str(exc)
    outcome = judge(action, closed=closed, owners_now=await store.owners())
    if not detail:
        detail = await _detail(store, action, outcome)
    log.info("session.recovery.completed outcome=%s session=%s turn=%s epoch=%d detail=%s",
             outcome, where, owner.turn, owner.epoch.number, detail)  # fmt: skip
    return Done(action, outcome, detail)


async def _ask_to_end(store: LaneStore, action: Action, clock: Clock) -> bool:
    """Ask, by the owner's mark, and give it some seconds. Its process sees that within one."""
    owner = action.owner
    seen = next((mark for mark in await store.marks() if (mark.turn, mark.epoch) == (owner.turn, owner.epoch)), None)
    if seen is None or seen.asked is None:
        fresh = Mark(owner.turn, owner.transcript, owner.where, owner.epoch, "session.long_running", "asked", -1, 0)
        to = replace(seen or fresh, asked=action.reason)
        if not await store.change_mark(seen, to):
            return False
    until_mono = clock.mono() + SETTLE_S
    while clock.mono() < until_mono:
        if all(one.epoch != owner.epoch for one in await store.owners()):
            break
        await clock.sleep(ASK_LOOK_S)
    still_owns = any(one.epoch == owner.epoch for one in await store.owners())
    mark = next((one for one in await store.marks() if one.turn == owner.turn and one.outcome is None), None)
    if mark is not None:  # else somebody who watches has said what came of it
        await store.change_mark(mark, replace(mark, outcome="ineffective" if still_owns else "effective"))
    return not still_owns


async def _detail(store: LaneStore, action: Action, outcome: Outcome) -> str:
    owner = action.owner
    if outcome == "ineffective" and action.kind == "ask_to_end":
        pid = f" {owner.pid}" if owner.pid is not None else ""
        return f"it does not hear; a live owner is never forced: end its process{pid} to let the next one begin"
    if outcome == "ineffective":
        return "somebody holds the transcript's write lock; try again"
    if outcome == "not_needed":
        return "somebody else has closed it meanwhile"
    if owner.input_id is None:
        return "it answered no input"
    return f"input {owner.input_id} is {await store.state_of_input(owner.input_id)}"
