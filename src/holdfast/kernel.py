"""The library's handle: `async with holdfast.open(state) as hf`. A small session kernel that any agent framework can
use.

Read `Holdfast.turn` first. Everything that touches disk is behind `hf.store` (see `store/protocol.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import ids
from holdfast.clock import Clock, SystemClock, epoch_ms
from holdfast.errors import (
    DrainingError,
    InputError,
    OwnershipLostError,
    ResourceError,
    SessionBusyError,
    UnknownInputError,
)
from holdfast.inbound.child import END, SPAWN, Child, SpawnLimits
from holdfast.inbound.event import Accepted, Admission, Duplicate, InboundEvent
from holdfast.lane.policy import LANE_CHARS_MAX, LaneLimits, validate_lane
from holdfast.lane.queue import INTERRUPTED_BY, PLAIN, RESET_BY, QueueSettings
from holdfast.model import catalog
from holdfast.model.policy import ModelsNow, Pin
from holdfast.observe.why import build_report
from holdfast.observe.work import work_of
from holdfast.recovery import reaper
from holdfast.recovery.classify import Owner, Plan, plan_recovery
from holdfast.recovery.reaper import Report
from holdfast.recovery.watching import Finding, WatchSettings, examine, in_words, with_mark
from holdfast.session.entries import MessageEntry, Origin, encode_line, stamped
from holdfast.session.handle import Session
from holdfast.session.key import validate_key
from holdfast.session.ownership import Busy, ClaimRequest, Owned
from holdfast.store.protocol import Store
from holdfast.store.views import ArchiveView, DeliveryView, Hold, InputView, SessionView, TurnView, WhyLine, WhyReport
from holdfast.text import on_one_line
from holdfast.tool.approval import GRANT_S, Approval, NotAsked, Scope
from holdfast.turn.elsewhere import Elsewhere
from holdfast.turn.events import EventBus, TurnEvent
from holdfast.turn.owned import Calls, SessionOf
from holdfast.turn.turn import Turn, current_turn

if TYPE_CHECKING:
    from holdfast.turn.commands import Commands

R = TypeVar("R")
HOUSEKEEPING_S = 0.5
TIDY_FIRST_S, TIDY_EVERY_S = 60.0, 3600.0
SURELY_FITS_CHARS = 1_000_000
"""Text up to this fits into a line however it is escaped (12 bytes a character at most); longer text is tried."""
SETTLE_RETRY_S = 2.0
LATER = frozenset({"not next", "not quiet", "solo"})
"""Why an input may not run yet; `Holdfast.turn` waits until it may."""
NEXT_LOOK_S = 0.25
"""How often it looks; ends of turns in this process wake it at once."""
log = logging.getLogger("holdfast")


class Holdfast:
    """One process's handle on a state. Use it from one event loop; close it by leaving its context."""

    def __init__(
        self, store: Store, *, clock: Clock | None = None, fence_mode: str = "strict",
        watch: WatchSettings | None = None, beat_term_s: float = 90.0,
    ) -> None:  # fmt: skip
        self.store = store
        self.clock: Clock = clock or SystemClock()
        self.fence_mode = fence_mode
        self.watch = watch or WatchSettings()
        self.beat_term_s = beat_term_s
        self.events = EventBus()
        self._elsewhere = Elsewhere(store, self.events)
        self.work_arrived = asyncio.Event()
        self.answers_arrived = asyncio.Event()
        self.children_changed = asyncio.Event()
        self.approvals_changed = asyncio.Event()
        self.spawn_limits = SpawnLimits()
        self.draining = False
        self.redact: Callable[[str], str] = str  # of a gateway: takes its secrets out of what errors say
        self.commands: Commands | None = None  # of a gateway: slash commands are carried out at the door
        self.queue_for: Callable[[InboundEvent], QueueSettings] = lambda _: PLAIN
        self._live: dict[str, Turn] = {}
        self._hear_of_ends: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def process_id(self) -> str:
        return self.store.process

    @property
    def state(self) -> str:
        """The state directory or URL."""
        return self.store.location

    async def start(self) -> None:
        """Begin the housekeeping: stories of live turns for `why`, cancel requests from other processes, old rows."""
        self._spawn(self._keep_house())
        self._spawn(self._keep_tidy())

    async def close(self) -> None:
        """Stop housekeeping and close the store. Turns still running in this process are lost to it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    def drain(self) -> None:
        """Take no new input from now on; turns that run may end."""
        self.draining = True

    # ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def accept(self, event: InboundEvent) -> Admission:
        """The one door. When this returns `Accepted` or `Duplicate`, the input survives SIGKILL and power loss.

        Raises:
            DrainingError: the process is going away. InputConflictError: same key, other body. InputError: a bad
            session key or payload. ResourceError: it could not be stored; nothing was acknowledged.
        """
        if self.draining:
            raise DrainingError()
        check_event(event)
        command = self.commands.find(event.session, event.lane, event.payload) if self.commands is not None else None
        if command is not None:
            event = replace(event, queue="interrupt" if command.stops_others else None)
        try:
            admission = await self.store.accept(event, self.queue_for(event), is_command=command is not None)
        except ResourceError as exc:
            log.error("an input from %s for session %s could not be stored and was not acknowledged: %s", event.source,
                      on_one_line(event.session), exc)  # fmt: skip
            raise
        if isinstance(admission, Accepted):
            if admission.interrupts is not None:  # a turn of another process hears of it from the ledger
                self._cancel_live(admission.interrupts, RESET_BY if command is not None else INTERRUPTED_BY)
            if self.commands is not None and command is not None and command.acts_at_once:
                await self.commands.at_door(admission.input_id, event.session, command)
            if self.events.wants("input.accepted"):
                at_ms = epoch_ms(self.clock.now())
                data = {"source": event.source, "lane": event.lane}
                self.events.publish(TurnEvent("input.accepted", event.session, at_ms, admission.input_id, data=data))
            self._elsewhere.note_accepted(admission.input_id)
            self.work_arrived.set()
        elif isinstance(admission, Duplicate):
            log.info(
                "input %s: handed over again by %s, ignored (%s)", admission.input_id, event.source, admission.state
            )
        return admission

    def _cancel_live(self, input_id: str, by: str) -> None:
        for turn in self.live_turns():
            if turn.input_id == input_id:
                turn.cancel(by)

    async def queue_settings(self, session: str) -> QueueSettings:
        """How the queue of a session behaves for what people say there: its own settings over the configured ones."""
        return await self.store.queue_settings(session, self.queue_for(InboundEvent(session, {})))

    async def change_queue(self, session: str, change: dict[str, Any] | None) -> QueueSettings:
        """Change the settings of a session's queue (`lane.queue.read_change`); None: back to the configured ones.

        Durable when it returns; holds for what arrives from now on. Returns: the settings as they are now.
        """
        await self.store.change_queue(validate_key(session), change)
        return await self.queue_settings(session)

    async def input(self, input_id: str) -> InputView:
        """Raises UnknownInputError."""
        return await self.store.input(input_id)

    async def wait_input(self, input_id: str, timeout_s: float | None = None) -> InputView:
        """The input once it is settled, or as it is after `timeout_s`. Settled elsewhere: seen within a second."""
        deadline = None if timeout_s is None else self.clock.mono() + timeout_s
        with self.events.subscribe(input_id=input_id) as events:
            while True:
                view = await self.store.input(input_id)
                left = None if deadline is None else deadline - self.clock.mono()
                if view.settled or (left is not None and left <= 0):
                    return view
                look_again_at = self.clock.mono() + (1.0 if left is None else min(1.0, left))
                while (pause := look_again_at - self.clock.mono()) > 0:
                    event = await events.next(timeout_s=pause)
                    if event is None or event.kind == "turn.settled":
                        break

    async def find_join(self, event: InboundEvent, *, within_s: float = 3600.0) -> str | None:
        """The newest input of the session that was accepted with the same `origin["join"]`, within the last hour."""
        join = event.origin.get("join")
        if not join:
            return None
        return await self.store.find_join(event.session, str(join), epoch_ms(self.clock.now()) - int(within_s * 1000))

    async def cancel(self, target: str, *, by: str) -> str:
        """Ask for the end of an input or a turn. Only the owner (or its recovery) settles; a final line wins.

        Children that an input has spawned are stopped with it; a child (child_…) can also be stopped by itself, and its
        parent hears of that.

        Returns: "cancelled", "requested" or "already <state>".
        """
        if target.startswith("child_"):
            await self.child(target)
            state = await self.store.cancel_child(target, by)
            await self._hear_of_cancels()
            return state
        turn = self._live.get(target) or next((t for t in self._live.values() if t.input_id == target), None)
        input_id: str | None = target
        if target.startswith("turn_"):
            view = await self.store.turn(target)
            if view is None:
                raise UnknownInputError(f"no turn {target!r}; `holdfast turns` lists them")
            input_id = view.input_id
            if view.state == "settled":
                return f"already {view.outcome or 'settled'}"
        if input_id is not None:
            await self.store.input(input_id)
            state = await self.store.request_cancel(input_id, by)
        elif turn is not None:
            state = "requested"
        else:
            raise InputError(f"turn {target} runs in another process and answers no input; stop it there")
        if turn is not None and state == "requested":
            turn.cancel(by)
        await self._hear_of_cancels()
        return state

    async def _hear_of_cancels(self) -> None:
        """Stop those turns of this process whose ends somebody has asked for."""
        self.children_changed.set()
        live = self.live_turns()
        requests = await self.store.cancel_requests() if live else {}
        for turn in live:
            if turn.input_id in requests:
                turn.cancel(requests[turn.input_id])

    # ── sub-agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def children(
        self, *, session: str | None = None, parent_input: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Child]:
        """Sub-agents, newest first: of all sessions, or those that a session or an input has spawned. `only_open`: of
        whose ends their parents have still to hear.
        """
        return await self.store.children(session=session, parent_input=parent_input, only_open=only_open, limit=limit)

    async def child(self, child_id: str) -> Child:
        """Raises UnknownInputError."""
        child = await self.store.child(child_id)
        if child is None:
            raise UnknownInputError(f"no sub-agent {child_id!r}; `holdfast children` lists them")
        return child

    async def wait_child(self, child_id: str, timeout_s: float | None = None) -> tuple[Child, InputView]:
        """A sub-agent once its work is over, or as it is after `timeout_s`, and the input whose end is its own.

        A turn that waits for its child keeps its session and lends its lane slot meanwhile.

        Raises:
            UnknownInputError: no such sub-agent. WaitRingError: it waits, by others, for this very turn.
        """
        turn = current_turn.get()
        if turn is None:
            return await self._watch_child(child_id, timeout_s)
        wait = await self.store.begin_waiting((await self.child(child_id)).session, turn)
        self.work_arrived.set()  # its slot is free
        try:
            return await self._watch_child(child_id, timeout_s)
        finally:
            self.store.end_waiting(wait, turn)

    async def _watch_child(self, child_id: str, timeout_s: float | None) -> tuple[Child, InputView]:
        deadline = None if timeout_s is None else self.clock.mono() + timeout_s
        while True:
            child = await self.child(child_id)
            left = None if deadline is None else deadline - self.clock.mono()
            view = await self.store.input(child.last_input)
            if child.state not in ("queued", "running") or (left is not None and left <= 0):
                return child, view
            await self.wait_input(view.id, 1.0 if left is None else min(1.0, left))
            if view.settled:  # what goes on is with children of its own
                await self.clock.sleep(0.2)

    async def stop_children(self, session: str, *, by: str) -> list[str]:
        """Stop the sub-agents of a session, and theirs, without telling it anew. Returns their ids; durable."""
        stopped = await self.store.stop_children(session, by)
        await self._hear_of_cancels()
        return stopped

    # ── approvals ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def approvals(self, *, session: str | None = None, pending: bool = False, limit: int = 100) -> list[Approval]:
        """Questions whether a tool call may run, newest first; `pending`: those that wait for an answer."""
        return await self.store.approvals(session=session, pending=pending, limit=limit)

    async def answer_approval(self, approval_id: str, *, yes: bool, by: str, scope: Scope = "once") -> Approval:
        """Answer such a question. Whether `by` may is the caller's to know. Durable; the call runs, or is told no.

        Args:
            scope: "session": alike calls of this conversation are not asked for again, for half a day.

        Raises:
            UnknownInputError: there is none. InputError: it is answered, too old, or its turn has ended.
        """
        if await self.store.approval(approval_id) is None:
            raise UnknownInputError(f"no question {approval_id!r}; `holdfast approvals list` lists those that wait")
        answered = await self.store.decide_approval(approval_id, yes=yes, by=by, scope=scope, grant_s=GRANT_S)
        self.approvals_changed.set()
        if isinstance(answered, NotAsked):
            raise InputError(answered.text)
        log.info("approval %s: %s by %s", answered.id, answered.state, on_one_line(by))
        return answered

    # ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def turn(
        self,
        session: str,
        *,
        lane: str = "main",
        wait_s: float = 30.0,
        input_id: str | None = None,
        fence_mode: str | None = None,
        thorough: bool = False,
    ) -> AsyncIterator[Turn]:
        """Own a session for one turn. Leaving settles it; an exception settles it as failed, with its class.

        Args:
            wait_s: how long to wait for somebody else's turn, and for the inputs that came before this one.
            input_id: an accepted input that this turn answers.
            fence_mode: "strict" or "warn"; None: the handle's own.
            thorough: read the transcript through, and write it anew where other readers would stumble.

        Raises:
            SessionBusyError: not ours within `wait_s`, or the input is not open any more; nothing was written.
            SessionTakeoverError, OwnershipLostError: out of the body, when the session was lost. See `Turn.append`.
        """
        how = {"lane": lane, "input_id": input_id, "fence_mode": fence_mode, "thorough": thorough}
        turn = await self._claim_in_time(session, wait_s, how)
        token = current_turn.set(turn.id)
        try:
            yield turn
        except BaseException as exc:
            await self.close_turn(turn, exc)
            raise
        else:
            await self.close_turn(turn, None)
        finally:
            current_turn.reset(token)

    def owned(
        self, session: SessionOf, *, lane: str = "main", wait_s: float = 30.0, fence_mode: str | None = None
    ) -> Callable[[Callable[..., Awaitable[R]]], Callable[..., Coroutine[Any, Any, R]]]:
        """Make each call of an async function a turn: `@hf.owned("agent:main:{user}")`. A function that has an argument
        `turn` gets it as that.

        Args:
            session: a key; one with names of arguments in it (a value's colons are encoded, so that nobody can name
                another's conversation); or a function of the same arguments that gives the key.
            lane, wait_s, fence_mode: as in `turn`.

        Raises: InputError: the function is a generator, or lacks an argument that is named. A call: as `turn`.
        """

        def decorate(function: Callable[..., Awaitable[R]]) -> Callable[..., Coroutine[Any, Any, R]]:
            calls = Calls(function, session)

            async def call(*args: Any, **kwargs: Any) -> R:
                key = calls.session(args, kwargs)
                async with self.turn(key, lane=lane, wait_s=wait_s, fence_mode=fence_mode) as turn:
                    return await function(*args, **kwargs, **({"turn": turn} if calls.takes_turn else {}))

            return calls.dressed(function, call)  # pyright: ignore[reportReturnType]  # a coroutine function, as `call`

        return decorate

    async def _claim_in_time(self, session: str, wait_s: float, how: dict[str, Any]) -> Turn:
        """The turn, as soon as those before it have had theirs. A worker looks at the queue again instead."""
        began, ended = self.clock.mono(), asyncio.Event()
        self._hear_of_ends.add(ended)
        try:
            while True:
                ended.clear()
                left_s = max(0.0, wait_s - (self.clock.mono() - began))
                turn = await self.claim(session, wait_s=left_s, **how)
                if not isinstance(turn, Busy):
                    return turn
                if turn.why not in LATER or left_s == 0:
                    raise SessionBusyError(session, self.clock.mono() - began, f"{turn.holder} ({turn.why})")
                await self._first_of(ended, min(left_s, NEXT_LOOK_S))
        finally:
            self._hear_of_ends.discard(ended)

    async def _first_of(self, event: asyncio.Event, seconds: float) -> None:
        """Until the event, or for so long."""
        both = {asyncio.create_task(event.wait()), asyncio.create_task(self.clock.sleep(seconds))}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()

    async def claim(
        self,
        session: str,
        *,
        lane: str = "main",
        wait_s: float = 30.0,
        input_id: str | None = None,
        fence_mode: str | None = None,
        thorough: bool = False,
    ) -> Turn | Busy:
        """The claim alone; whoever gets a turn must pass it to `close_turn`. `turn` does both.

        Raises: as `turn`; InputError: `lane` is no name.
        """
        validate_lane(lane)
        transcript = await self.store.transcript_of(session)
        turn_id = ids.new_id("turn")
        request = ClaimRequest(
            turn_id, session, transcript, self.store.process, lane, ids.nonce(), input_id, parent=current_turn.get(),
            thorough=thorough,
        )  # fmt: skip
        owned = await self.store.claim(request, wait_s=wait_s, fence_mode=fence_mode or self.fence_mode)
        if isinstance(owned, Busy):
            self.answers_arrived.set()  # a dead predecessor may have been settled on the way
            return owned
        turn = Turn(self, owned, turn_id=turn_id, session=session, lane=lane, view=self.store.view_of(owned))
        self._live[turn_id] = turn
        self._start_beating(turn, owned)
        return turn

    def _start_beating(self, turn: Turn, owned: Owned) -> None:
        task = asyncio.current_task()
        self.store.start_beating(
            owned,
            still_runs=lambda: turn.id in self._live and not (task is not None and task.done()),
            report=lambda: turn.progress.report(self.clock.mono()),
        )

    async def close_turn(self, turn: Turn, exc: BaseException | None) -> str | None:
        """End a turn. If the disk refuses the settlement, it is tried again in the background until it is recorded."""
        try:
            return await turn.close(exc)
        except ResourceError as failed:
            log.error("turn %s could not be settled yet: %s", turn.id, failed)
            self._spawn(self._settle_later(turn, exc))
            return None
        finally:
            self._live.pop(turn.id, None)
            self.work_arrived.set()
            for ended in self._hear_of_ends:
                ended.set()
            self.answers_arrived.set()
            if turn.view is not None and turn.view.source in (SPAWN, END):
                self.children_changed.set()

    async def _settle_later(self, turn: Turn, exc: BaseException | None) -> None:
        while not self.store.stopped:
            await self.clock.sleep(SETTLE_RETRY_S)
            try:
                await turn.close(exc)
                return
            except ResourceError as failed:
                log.error("turn %s still cannot be settled: %s", turn.id, failed)
            except OwnershipLostError as lost:
                log.warning("turn %s was lost before it could be settled; its answer is kept: %s", turn.id, lost)
                return

    async def work(
        self, run: Callable[[Turn, InputView], Awaitable[None]], *, limits: LaneLimits | None = None
    ) -> None:
        """Run accepted inputs as turns until cancelled: for programs that bring no gateway. Each is run in its place,
        a transcript's one at a time, lanes by their widths; what a dead process has left is taken up.

        `run` answers an input by a final line (`holdfast.assistant`), or by setting `turn.outcome`. An exception of its
        ends the input as failed; what is asked to stop is cancelled. Any number of processes may work on one state.

        Args:
            limits: widths of lanes; None: the usual ones. All processes of a state should use those it is opened with.

        Cancelled: turns that run are interrupted, and their inputs go back to their place.

        Raises: ResourceError: the store has stopped.
        """
        from holdfast.lane.worker import Worker

        worker = Worker(self, run, limits=limits or LaneLimits())
        try:
            await worker.run()
        finally:
            await worker.stop(0.0)

    # ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def plan_recovery(
        self, session: str | None = None, *, beat_term_s: float = 90.0, ask: str | None = None
    ) -> Plan:
        """What `recover` would do, of one session or of all. Changes nothing."""
        await self.store.watch_lives()
        return plan_recovery(await self.owners(session), beat_term_s=beat_term_s, ask=ask)

    async def recover(
        self, session: str | None = None, *, wait_s: float = 0.0, beat_term_s: float = 90.0, ask: str | None = None
    ) -> Report:
        """Close the turns of dead processes, as the next owner would: what was answered is settled, the rest is queued
        again. Each action is on one epoch, captured before, and verified afterwards. A live owner is never forced.

        Args:
            wait_s: watch those that live for so long; a turn whose beat stands still for the whole term is closed, too.
            ask: who gives leave to ask living owners to end their turns, which they get 15 s for; None: nobody.
        """
        plan = await self.plan_recovery(session, beat_term_s=beat_term_s, ask=ask)
        if wait_s > 0:
            plan = await reaper.watch(
                self.store, self.clock, session=session, beat_term_s=beat_term_s, wait_s=wait_s, ask=ask
            )
        report = replace(await reaper.act(self.store, plan, self.clock), hold=await self.store.held())
        if report.done:
            self.work_arrived.set()
            self.answers_arrived.set()
        return report

    async def owners(self, session: str | None = None) -> list[Owner]:
        """Who owns which transcript now, and what their turns were last heard of: of one session, or of all."""
        mono = self.clock.mono()
        return [
            replace(one, report=self._live[one.turn].progress.report(mono)) if one.turn in self._live else one
            for one in await reaper.owners_of(self.store, session)
        ]

    async def findings(self, session: str | None = None) -> list[Finding]:
        """What each owner amounts to at this moment: at work, standing still, dead. Reads only, and looks once: whether
        a beat stands still is seen by who watches (`recovery/watchdog.py`).
        """
        marks = {mark.turn: mark for mark in await self.store.marks()}
        found = [
            examine(one, watched_s=0.0, beat_term_s=self.beat_term_s, settings=self.watch)
            for one in await self.owners(session)
        ]
        return [with_mark(one, marks.get(one.owner.turn)) for one in found]

    async def held(self) -> Hold | None:
        """Whether work is held back after a crash loop of gateways, and why. Inputs are still accepted."""
        return await self.store.held()

    async def release(self) -> Hold | None:
        """Let held work go on; the hold that was there, or None."""
        hold = await self.store.release_hold()
        self.work_arrived.set()
        return hold

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def session(self, key: str) -> Session:
        """A reader, and a writer of metadata. Costs nothing until used."""
        return Session(self, key)

    async def sessions(self, *, limit: int = 1000, prefix: str = "", archived: bool = False) -> list[SessionView]:
        """Most recently used first. `archived`: those of sub-agents that were put away, too."""
        return await self.store.sessions(prefix=prefix, limit=limit, archived=archived)

    async def archives(self, *, session: str | None = None, limit: int = 1000) -> list[ArchiveView]:
        """Conversations that were put away, newest first; `session(key).archive` and `.restore` make and undo them."""
        return await self.store.archives(session, limit)

    async def delete_archive(self, archive: str) -> int:
        """Throw an archive away for good; returns its bytes.

        Raises: UnknownInputError: there is none. InputError: it is being restored. ResourceError: the disk refused.
        """
        return await self.store.delete_archive(archive)

    async def inputs(
        self, *, session: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[InputView]:
        return await self.store.inputs(session=session, state=state, limit=limit)

    async def turns(self, *, session: str | None = None, limit: int = 100) -> list[TurnView]:
        """Newest first; those that run say what they do."""
        views = await self.store.turns(session=session, limit=limit)
        if all(view.state != "running" for view in views):
            return views
        works = {one.owner.turn: work_of(one) for one in await self.findings()}
        return [replace(view, work=works.get(view.id)) for view in views]

    async def deliveries(self, *, state: str | None = None, limit: int = 100) -> list[DeliveryView]:
        return await self.store.deliveries(state=state, limit=limit)

    async def models(self) -> ModelsNow:
        """What is known of models: cool-downs, pins, sessions that another model than theirs answers."""
        return await self.store.models()

    async def pin_model(
        self, session: str, model: str, *, by: str, expires_in_s: float | None = None, credential: str = ""
    ) -> Pin | None:
        """A user's choice: the session's turns ask this model or none, from the next model call on. Durable.

        Args:
            by: who chose, for people.
            expires_in_s: None: until it is taken away.
            credential: name of the key to use and no other (`holdfast model status` tells names); empty: any.

        Returns: the pin that was there before, or None.
        """
        validate_key(session)
        catalog.split_ref(model)
        now_ms = epoch_ms(self.clock.now())
        ends_ms = None if expires_in_s is None else now_ms + int(expires_in_s * 1000)
        pin = Pin(ids.new_id("pin"), session, model, "user", "chosen", now_ms, ends_ms, by=by, credential=credential)
        return await self._choose_pin(session, pin)

    async def unpin_model(self, session: str) -> Pin | None:
        """Take a session's pin away, whoever set it. Returns it, or None if there was none."""
        validate_key(session)
        return await self._choose_pin(session, None)

    async def _choose_pin(self, session: str, pin: Pin | None) -> Pin | None:
        before = await self.store.choose_pin(session, pin)
        for turn in self.live_turns():
            if turn.session == session:
                turn.pin = pin
        return before

    async def why(self, target: str) -> WhyReport:
        """The chain from input to outcome, for an input, a turn, a sub-agent, or the newest input of a session.

        Raises:
            UnknownInputError: nothing of that name.
        """
        now_ms = epoch_ms(self.clock.now())
        working = {
            one.owner.turn: WhyLine(
                now_ms,
                f"{'nobody is at work' if one.lapsed else 'at work'}: {in_words(one)}",
                f"fence:{one.owner.transcript}",
            )
            for one in await self.findings()
        }
        return await build_report(self.store, target, working)

    async def hear_of_others(self) -> None:
        """From here on nothing of other processes is missed by a watcher that asked for it (`events.subscribe`)."""
        try:
            await self._elsewhere.look()
        except ResourceError as exc:
            log.error("cannot look for what others have done: %s", exc)

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────────────

    def live_turns(self) -> list[Turn]:
        """Turns of this process that have not ended."""
        return list(self._live.values())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_house(self) -> None:
        while True:
            await self.clock.sleep(HOUSEKEEPING_S)
            live = self.live_turns()
            for turn in live:
                turn.flush_story()
            try:
                requests = await self.store.cancel_requests() if live else {}
                pins = await self.store.pins({turn.session for turn in live}) if live else {}
                stalled = await self.store.asked_to_end() if live else {}
                await self._elsewhere.look()
            except ResourceError as exc:
                log.error("cannot look for what others have asked or done: %s", exc)
                continue
            for turn in live:
                turn.pin = pins.get(turn.session)
                if turn.input_id in requests:
                    turn.cancel(requests[turn.input_id])
                if turn.id in stalled:
                    turn.end_as_stalled(stalled[turn.id])

    async def _keep_tidy(self) -> None:
        """Throw old rows away now and then; not in the first minute, which is all that most commands live."""
        pause_s = TIDY_FIRST_S
        while not self.store.stopped:
            await self.clock.sleep(pause_s)
            pause_s = TIDY_EVERY_S
            try:
                gone = await self.store.tidy()
            except ResourceError as exc:
                log.error("old rows of the ledger could not be thrown away: %s", exc)
            else:
                if gone:
                    log.info("threw away %d old rows of the ledger", gone)


def check_event(event: InboundEvent) -> None:
    """Raises InputError for a payload that no turn could use, InputTooLargeError for one that no line could hold."""
    payload = event.payload
    if not isinstance(payload, dict) or not ("content" in payload or "messages" in payload):
        raise InputError('a payload is {"content": …} or {"messages": […]}')
    validate_lane(event.lane)
    content = payload.get("content")
    if "content" in payload and not (isinstance(content, str | list) and content):
        raise InputError("an empty message: give it some text or an image")
    for name, value in (
        ("source", event.source),
        ("account", event.account),
        ("key", event.key or ""),
    ):
        if len(value) > 512 or (not value.isascii() and len(value.encode("utf-8", "surrogatepass")) > 512):
            raise InputError(f"{name} is longer than 512 bytes")
    if "messages" not in payload and isinstance(content, str) and len(content) <= SURELY_FITS_CHARS:
        return
    for message in payload.get("messages", [{"role": "user", "content": content}]):
        if not isinstance(message, dict):
            raise InputError("a message is an object with a role and a content")
        _check_line(message)


def _check_line(message: dict[str, Any]) -> None:
    """Refuse at the door what no transcript line can hold, rather than in the turn. Raises InputTooLargeError."""
    id, lane = "0" * 48, "0" * LANE_CHARS_MAX  # as long as the real ones, or longer
    origin = Origin(store=id, turn=id, epoch=2**63, lane=lane, writer="turn", inputs=(id,))
    encode_line(
        stamped(MessageEntry(message=message), id=id, parent=id, timestamp="2026-01-01T00:00:00.000Z", origin=origin)
    )
