"""The loop that fires timers: cron jobs and heartbeats, among any number of processes of one state.

Firing has two steps. First the run's input is accepted, through the one door, under a key made of timer and scheduled
time; then the timer moves on, by compare-and-set. Whoever dies between the two leaves an input that the next process
meets as a duplicate, so a time fires once. The end of a run is read off its input by whoever looks first; what it leads
to (an announcement, an alert) is an input with a key of its own, accepted before the run is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from holdfast.clock import epoch_ms
from holdfast.errors import DrainingError, HoldfastError, TurnLimitError, UnknownInputError
from holdfast.ids import new_id
from holdfast.inbound import announcement, beating, cron, heartbeat, schedule
from holdfast.inbound.beating import HeartbeatSettings, ReadFile
from holdfast.inbound.cron import Ended, JobDefinition
from holdfast.inbound.event import InboundEvent, Route
from holdfast.inbound.heartbeat import Pending
from holdfast.inbound.heartbeat_file import due_tasks, read_instructions
from holdfast.inbound.orders import accept_once
from holdfast.inbound.timer import CRON, HEARTBEAT, Timer, TimerRun, Wake, run_id
from holdfast.kernel import Holdfast
from holdfast.model.failure import classify
from holdfast.outbox.message import SILENT, is_silent
from holdfast.store.views import InputView
from holdfast.turn.silence import SILENT_TOO_LONG

LOOK_S = 1.0
"""Everyone looks once a second."""
SKIP_NOTED_S = 30.0
"""A skip that goes on for the same reason is noted again after this."""
OPEN_RUNS_MAX = 1000
TIMED_OUT = "the limit of its timer"
log = logging.getLogger("holdfast.timers")


def no_file(path: str) -> str | None:  # noqa: ARG001  # the shape of a reader
    """There is no HEARTBEAT.md."""
    return None


class Timers:
    """Fires the timers of a state: `run` until `stop`. Any number of processes may, each with one.

    Args:
        jobs, heartbeats: those of the configuration; the ledger's are made to agree with them when it starts. None:
            they are left as they are.
        read_file: reads a HEARTBEAT.md.
    """

    def __init__(
        self,
        hf: Holdfast,
        *,
        jobs: Sequence[JobDefinition] | None = None,
        heartbeats: Sequence[HeartbeatSettings] | None = None,
        read_file: ReadFile = no_file,
    ) -> None:
        self._hf = hf
        self._jobs = jobs
        self._heartbeats = heartbeats
        self._read_file = read_file
        self._pending: dict[str, Pending] = {}  # of heartbeats, by timer
        self._heard: set[str] = set()  # wakes that `_pending` knows of
        self._noted: dict[str, tuple[str, float]] = {}  # the last skip of a timer and when it was noted
        self._cancelled: set[str] = set()
        self._offset_ms: float | None = None
        self._stopping = asyncio.Event()
        self._is_changed = False

    @property
    def _seed(self) -> str:
        return self._hf.store.store_id

    def _now_ms(self) -> int:
        return epoch_ms(self._hf.clock.now())

    async def run(self) -> None:
        """Look whenever something is due, once a second otherwise, until `stop`.

        Raises:
            StoreStoppedError: the ledger failed; this process must end.
        """
        await self._guarded(self.begin)
        while not self._stopping.is_set():
            pause_s, began_mono = LOOK_S, self._hf.clock.mono()
            try:
                if self._is_changed:
                    self._is_changed = False
                    await self._guarded(self._agree)
                pause_s = await self.look()
            except DrainingError:
                return
            except HoldfastError as exc:
                log.error("cannot look at the timers: %s", exc)
                if self._hf.store.stopped:
                    raise
            await self._pause(max(0.0, began_mono + pause_s - self._hf.clock.mono()))  # a look may have taken long

    def exchange(self, jobs: Sequence[JobDefinition], heartbeats: Sequence[HeartbeatSettings]) -> None:
        """Other ones from now on: the ledger's are made to agree with them before the next look."""
        self._jobs, self._heartbeats, self._is_changed = jobs, heartbeats, True

    def stop(self) -> None:
        """Fire nothing more. What has been fired goes on."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        pause = asyncio.ensure_future(self._hf.clock.sleep(seconds))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({pause, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            stop.cancel()

    async def _guarded(self, work: Callable[[], object]) -> None:
        """Run one piece of work; what goes wrong with it is told and keeps nothing else from running."""
        try:
            await work()  # type: ignore[misc]  # every piece of work is a coroutine function
        except DrainingError:
            raise
        except HoldfastError as exc:
            if self._hf.store.stopped:
                raise
            log.error("timers: %s", exc)

    # ── beginning ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """Bring the ledger in line with the configuration, and see what was missed while nobody was there."""
        await self._agree()
        await self._make_up_for_missed(self._now_ms())

    async def _agree(self) -> None:
        """Bring the ledger in line with the configuration."""
        now_ms = self._now_ms()
        known = {timer.id: timer for timer in await self._hf.store.timers()}
        wanted: set[str] = set()
        for job in self._jobs or ():
            seen = known.get(f"{CRON}:{job.name}")
            wanted.add(f"{CRON}:{job.name}")
            if seen is not None and seen.source != "config":
                log.error("cron job %s is in the configuration and was added by a command, too; the latter counts "
                          "(`holdfast cron remove %s`)", job.name, job.name)  # fmt: skip
            else:
                await self._define(seen, cron.new_timer(job, "config", now_ms) if seen is None else
                                   cron.redefined(seen, job, now_ms))  # fmt: skip
        for one in self._heartbeats or ():
            seen = known.get(f"{HEARTBEAT}:{one.agent}")
            wanted.add(f"{HEARTBEAT}:{one.agent}")
            await self._define(seen, beating.new_timer(one, self._seed, now_ms) if seen is None else
                               beating.redefined(seen, one, self._seed, now_ms))  # fmt: skip
        managed = {CRON: self._jobs is not None, HEARTBEAT: self._heartbeats is not None}
        for timer in known.values():
            if timer.source == "config" and managed[timer.kind] and timer.id not in wanted:
                await self._hf.store.change_timer(timer, None, durable=True)
        at_work = await self._hf.store.timers()
        log.info("timers at work: %d cron jobs, %d heartbeats", *(sum(one.kind == kind for one in at_work)
                                                                  for kind in (CRON, HEARTBEAT)))  # fmt: skip

    async def _define(self, seen: Timer | None, to: Timer | None) -> None:
        if to is not None:
            await self._hf.store.change_timer(seen, to, durable=True)

    async def _make_up_for_missed(self, now_ms: int) -> None:
        jobs = {timer.id: timer for timer in await self._hf.store.timers(kind=CRON) if timer.state == "active"}
        due = [(one.id, max(one.next_at_ms, one.not_before_ms), cron.is_once(one)) for one in jobs.values()
               if one.next_at_ms is not None]  # fmt: skip
        plan = schedule.plan_missed(due, now_ms)
        for timer_id, not_before_ms in plan.made_up:
            await self._hf.store.change_timer(jobs[timer_id], replace(jobs[timer_id], not_before_ms=not_before_ms))
        for timer_id in plan.left_out:
            await self._skip(jobs[timer_id], cron.moved_on(jobs[timer_id], now_ms), "missed", now_ms)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> float:
        """One look at everything. Returns the seconds until the next one."""
        await self._hear_of_clock_steps()
        # Timers first: one that is older than a run that is open still has not counted that run's end yet.
        timers = {timer.id: timer for timer in await self._hf.store.timers()}
        running = await self._hf.store.timer_runs(running=True, limit=OPEN_RUNS_MAX)
        if any(run.timer not in timers for run in running):
            known = {timer.id for timer in await self._hf.store.timers()}
            running = [run for run in running if run.timer in timers or run.timer not in known]  # else it is newer
        for run in running:
            await self._guarded(lambda run=run: self._see_to_run(run, timers.get(run.timer)))
        if running:
            timers = {timer.id: timer for timer in await self._hf.store.timers()}
            running = await self._hf.store.timer_runs(running=True, limit=OPEN_RUNS_MAX)
        busy = {run.timer for run in running}
        wakes = await self._hf.store.wakes() if any(one.kind == HEARTBEAT for one in timers.values()) else []
        self._heard &= {wake.id for wake in wakes}
        for timer in timers.values():
            if timer.state == "active" and timer.kind == CRON:
                await self._guarded(lambda one=timer: self._fire_job_if_due(one, one.id in busy))
            elif timer.kind == HEARTBEAT:
                ours = [wake for wake in wakes if wake.timer == timer.id]
                await self._guarded(lambda one=timer, ours=ours: self._beat_if_due(one, ours))
        return await self._until_next()

    async def _until_next(self) -> float:
        now_ms = self._now_ms()
        due = [max(one.next_at_ms, one.not_before_ms) for one in await self._hf.store.timers()
               if one.state == "active" and one.next_at_ms is not None]  # fmt: skip
        due += [pending.at_ms for pending in self._pending.values()]
        return max(0.01, min([LOOK_S, *((at_ms - now_ms) / 1000 for at_ms in due if at_ms > now_ms)]))

    async def _hear_of_clock_steps(self) -> None:
        """A wall clock that was set back must not silence a timer: its next time is chosen again. Times that have fired
        already are met as duplicates.
        """
        offset_ms = self._now_ms() - self._hf.clock.mono() * 1000
        if self._offset_ms is not None and self._offset_ms - offset_ms < 2000:
            self._offset_ms = offset_ms
            return
        now_ms, all_heard = self._now_ms(), True
        for timer in await self._hf.store.timers():
            if timer.next_at_ms is None or timer.next_at_ms <= now_ms:
                continue
            if timer.kind == HEARTBEAT:
                sooner = beating.moved_on(
                    replace(timer, next_at_ms=None), beating.settings_of(timer), self._seed, now_ms
                )
            elif cron.is_once(timer):
                continue
            else:
                sooner = cron.moved_on(replace(timer, next_at_ms=None), now_ms)
            if sooner.next_at_ms is not None and sooner.next_at_ms < timer.next_at_ms:
                not_before_ms = min(timer.not_before_ms, now_ms + schedule.RECURRING_BACKOFF_S[-1] * 1000)
                changed = await self._hf.store.change_timer(timer, replace(sooner, not_before_ms=not_before_ms))
                all_heard &= changed is not None
        if all_heard:  # otherwise somebody changed a timer meanwhile: the next look chooses again
            self._offset_ms = offset_ms

    # ── cron ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fire_job_if_due(self, timer: Timer, is_running: bool) -> None:
        now_ms = self._now_ms()
        if timer.next_at_ms is None or now_ms < max(timer.next_at_ms, timer.not_before_ms):
            return
        if is_running and timer.attempt == 1:
            await self._skip(timer, cron.moved_on(timer, now_ms), "still-running", now_ms)
            return
        at_ms, attempt, job = timer.next_at_ms, timer.attempt, cron.job_of(timer)
        run = TimerRun(run_id(timer.id, at_ms, attempt), timer.id, at_ms, attempt, "schedule", "running", now_ms)
        on = cron.moved_on(timer, now_ms)
        if job.wake == "next-heartbeat":
            wake = Wake(run.id, f"{HEARTBEAT}:{job.agent}", timer.id, f"Cron: {job.message}", "next", now_ms)
            await self._hf.store.add_wake(wake)
            handed = replace(run, state="ok", ended_at_ms=now_ms, detail="handed to the next heartbeat")
            await self._hf.store.change_timer(timer, on, began=handed)
            return
        input_id = await self._accept(cron.event_of(timer, at_ms, attempt))
        if input_id is None:
            await self._skip(timer, replace(timer, not_before_ms=now_ms + 1000), "lane-full", now_ms)
            return
        if await self._hf.store.change_timer(timer, on, began=replace(run, input_id=input_id)) is not None:
            log.info("timer %s fired for %d: input %s", timer.id, at_ms, input_id)

    async def _see_to_run(self, run: TimerRun, timer: Timer | None) -> None:
        """Close a run whose input has ended; end one that has passed its limit."""
        try:
            view = await self._hf.input(run.input_id or "")
        except UnknownInputError:
            await self._close(timer, timer, replace(run, state="failed", ended_at_ms=self._now_ms(),
                                                    detail="its input is gone"))  # fmt: skip
            return
        if not view.settled:
            await self._end_if_too_long(run, timer, view)
            return
        last = await self._hf.store.last_word(view.id)
        if last is None:
            return  # sub-agents that it has spawned are at work: its answer so far may be only that it is on it
        view = view if last == view.id else await self._hf.input(last)
        if timer is None:
            await self._close(None, None, replace(run, state="cancelled", ended_at_ms=self._now_ms(),
                                                  detail="its timer was removed"))  # fmt: skip
        elif timer.kind == HEARTBEAT:
            await self._after_heartbeat(timer, run, view)
        else:
            await self._after_job(timer, run, view)

    async def _end_if_too_long(self, run: TimerRun, timer: Timer | None, view: InputView) -> None:
        if timer is None or view.state != "running" or view.id in self._cancelled:
            return
        is_job = timer.kind == CRON
        limit_s = cron.job_of(timer).timeout_s if is_job else beating.settings_of(timer).timeout_s
        turns = await self._hf.store.turns_of(view.id)
        began_ms = max((one.started_at_ms for one in turns), default=run.began_at_ms)
        if self._now_ms() - began_ms > limit_s * 1000:
            self._cancelled.add(view.id)
            log.warning("timer %s: its run timed out after %g s (input %s)", timer.id, limit_s, view.id)
            await self._hf.cancel(view.id, by=f"{TIMED_OUT} ({limit_s:g} s)")

    async def _after_job(self, timer: Timer, run: TimerRun, view: InputView) -> None:
        job = cron.job_of(timer)
        after = cron.after_run(timer, run, _ended(view), self._now_ms())
        closed = after.run
        own = cron.session_of(job)
        if after.result is not None:
            announced = await self._announce_result(job, timer, run, own, after.result)
            if announced is None:
                return  # there is no room for it now; the run stays open
            closed = replace(closed, announce_id=announced)
        if after.alert is not None:
            log.warning("%s", after.alert)
            main = cron.main_session(job.agent)
            route = await self._route(job.failure_to or job.to, main)
            where = (await self._hf.store.conversation_at(route) if route is not None else None) or main
            if await self._accept(announcement.event_of(f"{run.id}:alert", view.id, after.alert, where, route,
                                                        line=True)) is None:  # fmt: skip
                return
        await self._close(timer, after.timer, closed)

    async def _announce_result(
        self, job: JobDefinition, timer: Timer, run: TimerRun, own: str, text: str
    ) -> str | None:
        """Accept the announcement; its input, or None: not now."""
        main = cron.main_session(job.agent)
        if job.deliver == "webhook":
            where, route = own, Route(announcement.WEBHOOK, timer.id)
        else:
            route = await self._route(job.to, main)
            where = main if job.to == "last" or route is None else await self._hf.store.conversation_at(route) or main
        line = where != own and job.deliver != "webhook"
        return await self._accept(announcement.event_of(run.id, run.input_id, text, where, route, line=line))

    async def _route(self, to: str, main: str) -> Route | None:
        return await self._hf.store.last_route(main) if to == "last" else Route.parse(to)

    # ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _beat_if_due(self, timer: Timer, wakes: list[Wake]) -> None:
        now_ms = self._now_ms()
        if timer.state != "active":
            self._pending.pop(timer.id, None)
            return
        pending = self._pending.get(timer.id)
        for wake in wakes:
            if wake.mode == "now" and wake.id not in self._heard:
                self._heard.add(wake.id)
                pending = heartbeat.asked(pending, wake.reason, min(wake.at_ms, now_ms) + heartbeat.COALESCE_MS)
        is_due = timer.next_at_ms is not None and now_ms >= timer.next_at_ms
        if is_due and not (pending is not None and pending.waits_busy):
            pending = heartbeat.asked(pending, "interval", now_ms)
        if pending is None:
            return
        self._pending[timer.id] = pending
        if now_ms >= pending.at_ms:
            await self._try_to_beat(timer, pending, wakes, is_due, now_ms)

    async def _try_to_beat(self, timer: Timer, pending: Pending, wakes: list[Wake], is_due: bool, now_ms: int) -> None:
        settings = beating.settings_of(timer)
        starts: list[int] = timer.memo.get("starts", [])
        intent = heartbeat.intent_of(pending.reason)
        if intent == "event" and any(wake.mode == "now" for wake in wakes):
            intent = "immediate"  # somebody has asked for it; events of the runtime itself would be held
        deferred = heartbeat.gate(intent, now_ms, next_due_ms=timer.next_at_ms or 0,
                                  last_start_ms=max(starts, default=None), starts=starts)  # fmt: skip
        if deferred is not None:
            self._pending[timer.id] = replace(pending, at_ms=deferred.retry_at_ms)
            await self._note_skip(timer, timer, deferred.reason, now_ms)
            return
        instructions = read_instructions(self._read_file(settings.file) if settings.file else None)
        due = due_tasks(instructions.tasks, timer.memo.get("tasks", {}), now_ms)
        around = await beating.look_around(self._hf, settings, instructions, due, wakes, now_ms)
        why = heartbeat.skip_reason(around, pending.reason)
        if why is None:
            firing = beating.plan_firing(timer, settings, self._seed, pending, wakes, instructions, due, now_ms)
            input_id = await self._accept(firing.event)
            if input_id is not None:
                run = replace(firing.run, input_id=input_id)
                self._pending.pop(timer.id, None)
                if await self._hf.store.change_timer(timer, firing.timer, began=run, used=firing.used) is not None:
                    log.info("timer %s fired (%s): input %s", timer.id, pending.reason, input_id)
                return
            why = "requests-in-flight"
        again = heartbeat.after_skip(pending, why, now_ms)
        if again is not None:
            self._pending[timer.id] = again
            await self._note_skip(timer, timer, why, now_ms)
        else:
            self._pending.pop(timer.id, None)
            on = beating.moved_on(timer, settings, self._seed, now_ms) if is_due else timer
            await self._skip(timer, on, why, now_ms)

    async def _after_heartbeat(self, timer: Timer, run: TimerRun, view: InputView) -> None:
        settings = beating.settings_of(timer)
        after = beating.after_run(timer, run, settings, view, self._now_ms())
        closed = after.run
        if after.text is not None:
            route = await beating.route_of(self._hf, settings)
            if settings.isolated or route is not None:
                is_news = settings.isolated and after.text != heartbeat.ACK_TOKEN
                event = announcement.event_of(run.id, view.id, after.text, settings.session, route, line=is_news)
                announced = await self._accept(event)
                if announced is None:
                    return
                closed = replace(closed, announce_id=announced)
        await self._close(timer, after.timer, closed)

    # ── steps they share ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _accept(self, event: InboundEvent) -> str | None:
        return await accept_once(self._hf, event)

    async def _close(self, seen: Timer | None, to: Timer | None, ended: TimerRun) -> None:
        self._cancelled.discard(ended.input_id or "")
        done = await self._hf.store.change_timer(seen, to, ended=ended)
        if done is not None or seen is None:
            log.info("timer %s: run %s ended %s%s", ended.timer, ended.id, ended.state,
                     f" ({ended.detail})" if ended.detail and ended.state == "skipped" else "")  # fmt: skip

    async def _skip(self, seen: Timer, to: Timer, why: str, now_ms: int) -> None:
        """Record that it did not run, and why."""
        at_ms = seen.next_at_ms or now_ms
        skipped = TimerRun(
            new_id("run"), seen.id, at_ms, seen.attempt, "schedule", "skipped", now_ms, now_ms, detail=why
        )
        await self._hf.store.change_timer(seen, to, began=skipped)
        log.info("timer %s skipped: %s", seen.id, why)

    async def _note_skip(self, seen: Timer, to: Timer, why: str, now_ms: int) -> None:
        """The same for one that will be tried again in a moment: when it begins, and now and then while it lasts."""
        noted = self._noted.get(seen.id)
        mono = self._hf.clock.mono()
        if noted is not None and noted[0] == why and mono - noted[1] < SKIP_NOTED_S:
            return
        self._noted[seen.id] = (why, mono)
        log.info("heartbeat deferred: %s (%s)", seen.name, why)
        await self._skip(seen, to, why, now_ms)


def _ended(view: InputView) -> Ended:
    """How the input of a job's run has ended, in the words of `cron.py`."""
    if view.state == "cancelled" and TIMED_OUT in (view.detail or ""):
        return Ended("failed", detail=f"timed out: {view.detail}", reason="timeout", timed_out=True)
    if view.error == TurnLimitError.__name__ and (view.detail or "").startswith(SILENT_TOO_LONG):
        return Ended("failed", detail=view.detail, reason="timeout", timed_out=True)
    if view.state == "failed":
        detail = f"{view.error}: {view.detail}" if view.error else view.detail
        return Ended("failed", detail=detail, reason=classify(view.detail or "").reason)
    if view.state in ("cancelled", "skipped"):
        return Ended(view.state, detail=view.detail)
    return Ended("ok", view.answer, detail=SILENT if is_silent(view.answer) else None)
