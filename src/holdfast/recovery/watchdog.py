"""The watchdog of a process: looks at every owner of the state, tells of those that stand still, asks and closes those
it may, and says what came of it; once a minute it has lock files of the dead removed. Rules are in `watching.py`,
closing is `reaper.py`'s.

Any number of processes may watch one state: a mark in the ledger decides who tells and who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.clock import epoch_ms, from_epoch_ms, iso
from holdfast.errors import CoordinationError, ResourceError
from holdfast.recovery import reaper, watching
from holdfast.recovery.classify import Owner, plan_recovery
from holdfast.recovery.watching import SETTLE_S, Finding, Mark
from holdfast.session.fence import Epoch
from holdfast.text import on_one_line
from holdfast.turn.events import TurnEvent

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

LOOK_S = 5.0
"""Between two looks; a beat that is to be seen standing still must be looked at more often than every 10 s."""
LOOK_SOON_S = 1.0
"""While somebody has been asked to end."""
LOCK_FILES_EVERY_S = 60.0
"""Between two looks for lock files of the dead, beside a live OpenClaw: its own watchdog's period (formats.md §3)."""
log = logging.getLogger("holdfast.recovery")


class Watchdog:
    """One per process. `run` until cancelled, or `look` whenever it suits."""

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf
        self._settings = hf.watch
        self._first: dict[tuple[str, Epoch], float] = {}  # since when we have watched each claim, monotonic
        self._asked: dict[str, float] = {}  # since when we have seen each turn asked to end
        self._swept_mono: float | None = None  # when we last looked for lock files of the dead

    async def run(self) -> None:
        """Look again and again. What the disk refuses is said, and tried at the next look."""
        while not self._hf.store.stopped:
            try:
                await self.look()
            except (ResourceError, CoordinationError) as exc:
                log.error("cannot look after turns that stand still: %s", exc)
            await self._hf.clock.sleep(LOOK_SOON_S if self._asked else LOOK_S)

    async def look(self) -> list[Finding]:
        """Once: find, tell, ask, close, judge. Interrupted, it may be begun again at any time."""
        await self._sweep()
        marks = {mark.turn: mark for mark in await self._hf.store.marks()}
        owners = await self._watched()
        found = [self._examined(owner) for owner in owners]
        for finding in found:
            mark = marks.get(finding.owner.turn)
            if mark is not None and mark.epoch != finding.owner.epoch:
                mark = None
            mark = await self._tell(finding, mark)
            await self._ask(finding, mark)
        await self._close(found)
        await self._judge(marks, owners)
        return found

    async def _watched(self) -> list[Owner]:
        """All owners, with how long the beats of others have been watched standing still."""
        watched: list[Owner] = []
        for owner in await self._hf.owners():
            still_s = 0.0
            if owner.life != "dead" and not owner.is_ours:
                _, still_s = await self._hf.store.watch_owner(owner)
            watched.append(replace(owner, still_s=still_s))
        mono = self._hf.clock.mono()
        self._first = {name: self._first.get(name, mono) for name in ((one.transcript, one.epoch) for one in watched)}
        return watched

    def _examined(self, owner: Owner) -> Finding:
        watched_s = self._hf.clock.mono() - self._first[owner.transcript, owner.epoch]
        term_s = self._hf.beat_term_s
        return watching.examine(owner, watched_s=watched_s, beat_term_s=term_s, settings=self._settings)

    async def _sweep(self) -> None:
        """Lock files of the dead keep the other program from a transcript that nobody writes to here."""
        mono = self._hf.clock.mono()
        if self._swept_mono is None or mono - self._swept_mono >= LOCK_FILES_EVERY_S:
            self._swept_mono = mono
            await self._hf.store.sweep_lock_files()

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _tell(self, finding: Finding, mark: Mark | None) -> Mark | None:
        """Tell of an owner, if there is something new and nobody else is faster. Returns the mark as it is now."""
        if not watching.is_due(finding, mark, self._settings):
            return mark
        to = watching.marked(finding, mark, self._settings)
        facts = watching.facts_of(finding, self._settings)
        if not await self._change(mark, to, finding.owner, to.event, facts):
            return mark
        said = " ".join(f"{name}={_shown(name, value)}" for name, value in facts.items() if value is not None)
        level = logging.INFO if to.event == "session.long_running" else logging.WARNING
        log.log(level, "%s session=%s %s", to.event, on_one_line(finding.owner.where), said)
        return replace(to, revision=to.revision + 1)

    async def _change(self, mark: Mark | None, to: Mark, owner: Owner, kind: str, data: Mapping[str, object]) -> bool:
        """Change a mark together with the line of the story that says so, and tell those who watch here."""
        at_ms, told = epoch_ms(self._hf.clock.now()), {**data, "by": self._hf.process_id}
        session = owner.sessions[0] if owner.sessions else owner.transcript
        if not await self._hf.store.change_mark(mark, to, [(at_ms, session, owner.input_id, owner.turn, kind, told)]):
            return False
        self._hf.events.publish(TurnEvent(kind, session, at_ms, owner.input_id, owner.turn, dict(told)))
        return True

    # ── acting ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, finding: Finding, mark: Mark | None) -> None:
        """Ask an owner to end its turn, if that is allowed and due. It hears of it within a second, wherever it is."""
        why = watching.may_ask(finding, mark, self._settings)
        if why is None or mark is None:
            return
        owner = finding.owner
        facts = {"epoch": owner.epoch.number, "action": "ask_to_end", "reason": why}
        if await self._change(mark, replace(mark, asked=why), owner, "session.recovery.requested", facts):
            self._asked[owner.turn] = self._hf.clock.mono()
            log.warning("session.recovery.requested session=%s turn=%s epoch=%d reason=ask_to_end detail=%s",
                        on_one_line(owner.where), owner.turn, owner.epoch.number, on_one_line(why))  # fmt: skip
            for turn in self._hf.live_turns():
                if turn.id == owner.turn:
                    turn.end_as_stalled(why)

    async def _close(self, found: list[Finding]) -> None:
        """Close those of which nothing lives, unless somebody outside sees to them. The dead are closed by whoever
        looks at the queue, as a rule before this.
        """
        owners = [one.owner for one in found if one.lapsed and not self._settings.is_left(one.owner.sessions)]
        if not owners:
            return
        plan = plan_recovery(owners, beat_term_s=self._hf.beat_term_s)
        report = await reaper.act(self._hf.store, plan, self._hf.clock)
        if report.done:
            self._hand_on()

    async def _judge(self, marks: Mapping[str, Mark], owners: list[Owner]) -> None:
        """Say what came of asking, by what the ledger shows, once; and take away marks of turns that are over."""
        owning = {(one.turn, one.epoch) for one in owners}
        mono = self._hf.clock.mono()
        self._asked = {turn: since for turn, since in self._asked.items() if turn in {one.turn for one in owners}}
        for mark in await self._hf.store.marks() if marks or self._asked else ():
            still_owns = (mark.turn, mark.epoch) in owning
            if mark.asked is None or mark.outcome is not None:
                if not still_owns and mark.turn in marks:
                    await self._hf.store.change_mark(mark, None)
                continue
            since = self._asked.setdefault(mark.turn, mono)
            if not still_owns and mark.turn in marks:
                await self._report(mark, "effective", "its turn has ended")
                self._hand_on()
            elif still_owns and mono - since > SETTLE_S:
                owner = next(one for one in owners if one.turn == mark.turn)
                pid = f" {owner.pid}" if owner.pid is not None else ""
                await self._report(mark, "ineffective", "it does not hear; a live owner is never forced: end its "
                                   f"process{pid} to let the next one begin")  # fmt: skip
                del self._asked[mark.turn]

    async def _report(self, mark: Mark, outcome: str, detail: str) -> None:
        at_ms = epoch_ms(self._hf.clock.now())
        told = {"epoch": mark.epoch.number, "action": "ask_to_end", "outcome": outcome, "detail": detail,
                "turn": mark.turn, "by": self._hf.process_id}  # fmt: skip
        view = await self._hf.store.turn(mark.turn)
        session, input_id = (view.session, view.input_id) if view is not None else (mark.session, None)
        story = (at_ms, session, input_id, mark.turn, "session.recovery.completed", told)
        if not await self._hf.store.change_mark(mark, replace(mark, outcome=outcome), [story]):
            return
        self._hf.events.publish(TurnEvent(story[4], session, at_ms, input_id, mark.turn, told))
        level = logging.INFO if outcome == "effective" else logging.ERROR
        log.log(level, "session.recovery.completed outcome=%s session=%s turn=%s epoch=%d detail=%s", outcome,
                on_one_line(mark.session), mark.turn, mark.epoch.number, detail)  # fmt: skip

    def _hand_on(self) -> None:
        """The queue goes on."""
        self._hf.work_arrived.set()
        self._hf.answers_arrived.set()


def _shown(name: str, value: Any) -> str:
    if name == "since_ms":
        return iso(from_epoch_ms(value))
    text = on_one_line(str(value))
    return f'"{text}"' if " " in text else text
