"""Seeing to conversations as a whole: what somebody left half done, and what retention asks for. One process does it
for all.

Each step takes the session as a turn does, and is left for the next time where somebody is using it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.errors import CoordinationError, HoldfastError, ResourceError, UnknownInputError
from holdfast.session.handle import UPKEEP_LANE
from holdfast.session.retention import Limits, Plan, Step, plan
from holdfast.store.views import ArchiveView

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

LOOK_EVERY_S = 60.0
FIRST_LOOK_S = 5.0
PRUNE_EVERY_S = 3600.0
WARN_EVERY_S = 86_400.0
STEPS_MAX = 1000
"""In one round; the rest is done in the next."""
log = logging.getLogger("holdfast.upkeep")


@dataclass(frozen=True, slots=True)
class Done:
    """One step of a plan and what came of it. left: why it was not done; empty: it was. session: a key of it."""

    step: Step
    session: str
    left: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention asked for, and what was done of it (nothing in a dry run)."""

    plan: Plan
    done: tuple[Done, ...]

    @property
    def freed_bytes(self) -> int:
        return sum(one.step.bytes for one in self.done if not one.left and one.step.what != "archive")


async def finish(hf: Holdfast) -> int:
    """End what dead processes began with archives; returns how much of it. What is in use is left for the next time."""
    ended = await hf.store.finish_deletions()
    for view in await hf.store.unfinished_archives():
        try:
            async with hf.turn(view.session, lane=UPKEEP_LANE, wait_s=0) as turn:
                ended += await hf.store.finish_archives(turn.owned)
        except CoordinationError as busy:
            log.info("archive %s stays unfinished for now: %s", view.id, busy)
    return ended


async def look(hf: Holdfast, limits: Limits) -> tuple[Plan, dict[str, str]]:
    """What the limits ask for now, and a key of each transcript. Changes nothing."""
    conversations, archives, keys = await hf.store.retained()
    return plan(conversations, archives, limits, hf.store.now_ms()), keys


async def prune(hf: Holdfast, limits: Limits, *, by: str, dry_run: bool) -> Pruned:
    """Carry out what the limits ask for.

    Each step asks again whether it may: what has come into use meanwhile is left. Killed half-way, what is done is
    done; `finish` ends a step that was under way.

    Raises: ResourceError: the ledger cannot be read or written. A disk that refuses one step leaves that step.
    """
    asked, keys = await look(hf, limits)
    archived = {one.id: one.transcript for one in await hf.archives(limit=-1)} if asked.steps else {}
    done: list[Done] = []
    for step in asked.steps[:STEPS_MAX]:
        session = keys.get(step.id) or keys.get(archived.get(step.id, ""), "")
        left = "" if dry_run else await carry_out(hf, step, session, by=by)
        done.append(Done(step, session, left))
        if left:
            log.info("retention: %s of %s is left: %s", step.what, step.id, left)
    return Pruned(asked, tuple(done))


async def carry_out(hf: Holdfast, step: Step, session: str, *, by: str) -> str:
    """Do one step. Returns why it was left, or an empty text."""
    try:
        if step.what == "delete":
            await hf.delete_archive(step.id)
            return ""
        made = await hf.session(session).archive(by=by, why=step.why)
        if not isinstance(made, ArchiveView):
            return made.why
        if step.what == "discard":
            await hf.delete_archive(made.id)
    except UnknownInputError:
        return ""  # somebody else was faster
    except HoldfastError as refused:
        if hf.store.stopped:
            raise
        return str(refused)
    return ""


class Upkeep:
    """The loop of a gateway. Of all processes of a state one does each round.

    Args:
        mode: "enforce": carry the plan out, each hour; "warn": say in the log what it would be, each day; "off".
    """

    def __init__(self, hf: Holdfast, limits: Limits, mode: Literal["warn", "enforce", "off"]) -> None:
        self._hf = hf
        self._limits = limits
        self._mode = mode
        self._stopping = False

    async def run(self) -> None:
        """Until cancelled, or `stop`. Errors are told and tried again; a store that has stopped ends it."""
        pause_s = FIRST_LOOK_S
        while not self._stopping:
            await self._hf.clock.sleep(pause_s)
            pause_s = LOOK_EVERY_S
            try:
                await self.look_once()
            except (ResourceError, CoordinationError) as exc:
                self._hf.store.raise_if_stopped()
                log.error("upkeep of conversations: %s", exc)

    def exchange(self, limits: Limits, mode: Literal["warn", "enforce", "off"]) -> None:
        """From the next round on."""
        self._limits, self._mode = limits, mode

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True

    async def look_once(self) -> None:
        """One round: what is left half done, and the plan if it is time and ours to do."""
        await finish(self._hf)
        if self._mode == "off" or self._stopping:
            return
        every_s = PRUNE_EVERY_S if self._mode == "enforce" else WARN_EVERY_S
        if await self._hf.store.begin_chore("retention", every_s):
            tell(await prune(self._hf, self._limits, by="retention", dry_run=self._mode == "warn"), self._mode)


def tell(found: Pruned, mode: str) -> None:
    """One line in the log, if there is anything to say."""
    archive = sum(1 for one in found.done if one.step.what != "delete" and not one.left)
    delete = sum(1 for one in found.done if one.step.what != "archive" and not one.left)
    left = sum(1 for one in found.done if one.left)
    short = found.plan.short_bytes
    if not found.done and not short and not found.plan.surplus:
        return
    archived, deleted = ("would archive", "delete") if mode == "warn" else ("archived", "deleted")
    log.warning(
        "retention %s %d conversation(s) and %s %d archive(s); left in use: %d, bytes over the budget: %d,"
        " conversations over their number: %d%s",
        archived, archive, deleted, delete, left, short, found.plan.surplus,
        "; set retention.mode to enforce, or off" if mode == "warn" else "",
    )  # fmt: skip
