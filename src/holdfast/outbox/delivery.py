"""The courier: takes what the outbox holds to its channels, in order per target, and records what became of it.

`started` is durable, with this process's name, before the first byte goes to a channel; whoever finds it later asks
whether that process lives. A send whose fate is unknown is looked for on the platform where that can be done, else sent
again with a label or reported, by the channel's policy; never before the longest request time has passed. What to do
when is decided in `outbox.py`; every move of a row is a compare-and-set in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from holdfast.channel.channel import Channel, SendRequest
from holdfast.channel.listening import Editor
from holdfast.clock import epoch_ms
from holdfast.errors import (
    ChannelError,
    ChannelRefusedError,
    CoordinationError,
    ResourceError,
    SendUnknownError,
)
from holdfast.kernel import Holdfast
from holdfast.outbox.finishing import Finishing, Put
from holdfast.outbox.outbox import (
    NO_CHANGE,
    POSSIBLE_DUPLICATE,
    STALE_S,
    STALLED_S,
    Change,
    OpenDelivery,
    Step,
    next_step,
    piece_chars_of,
    retry_in_s,
)
from holdfast.outbox.showing import Showing
from holdfast.turn.events import TurnEvent

LOOK_S = 1.0
"""Everyone looks once a second; wake-ups are hints."""
WATCH_GAP_MAX_S = 10.0
"""Looks are a second apart; two that are further apart prove nothing about the time between them."""
RECORD_RETRY_S = 2.0
DETAIL_CHARS_MAX = 500
T = TypeVar("T")
log = logging.getLogger("holdfast.outbox")


@dataclass(slots=True)
class _Watch:
    """A row that somebody else is sending, or of unknown fate, as we have watched it. `failures`: how often the
    platform could not be asked.
    """

    state: str
    attempts: int
    since_mono: float
    failures: int = 0
    ask_again_mono: float = 0.0


class Courier:
    """Delivers for some channels: `run` until `stop`. A stopped courier stays stopped; stopping twice does no harm.

    Any number of processes may serve the same channels of one state, each with one courier for its handle.
    """

    def __init__(
        self,
        hf: Holdfast,
        channels: Iterable[Channel],
        *,
        stale_s: float = STALE_S,
        editors: Mapping[str, Editor] = MappingProxyType({}),
        showing: Showing | None = None,
    ) -> None:
        self._hf = hf
        self._finishing = None if showing is None else Finishing(hf, showing, editors)
        self._stale_s = stale_s
        self._channels = {channel.name: channel for channel in channels}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}  # by channel and target: one message at a time
        self._watched: dict[str, _Watch] = {}
        self._warned: set[tuple[str, int]] = set()
        self._looked_mono: float | None = None
        self._stopping = False

    async def run(self) -> None:
        """Deliver whatever may go out, whenever something may have changed, until `stop`.

        Raises:
            StoreStoppedError: the ledger failed; this process must end.

        Cancelled: as `stop` without a budget.
        """
        try:
            while not self._stopping:
                self._hf.answers_arrived.clear()
                try:
                    await self._look()
                    self._hf.store.raise_if_stopped()
                except ResourceError as exc:
                    log.error("cannot look at the outbox: %s", exc)
                    if self._hf.store.stopped:
                        raise
                await self._pause()
        finally:
            if not self._stopping:
                await self.stop(0.0)

    async def stop(self, budget_s: float = 5.0) -> None:
        """Begin no more sends; give those under way `budget_s`, then cut them off, their fate recorded as unknown."""
        self._stopping = True
        self._hf.answers_arrived.set()
        tasks = list(self._tasks.values())
        if tasks and budget_s > 0:
            alarm = asyncio.ensure_future(self._hf.clock.sleep(budget_s))
            ended = asyncio.gather(*tasks, return_exceptions=True)
            try:
                await asyncio.wait({alarm, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                alarm.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def catch_up(self, budget_s: float) -> None:
        """Return when `run` has sent all that may go out now, or after `budget_s`."""
        end_mono = self._hf.clock.mono() + budget_s
        while not self._stopping and self._hf.clock.mono() < end_mono:
            rows = await self._hf.store.open_deliveries(list(self._channels))
            if not self._tasks and all(self._next_step(row) == "wait" for row in rows):
                return
            await self._pause()

    @property
    def sending(self) -> int:
        """How many targets are being served at this moment."""
        return len(self._tasks)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        rows = await self._hf.store.open_deliveries(list(self._channels))
        self._watch([row for row in rows if row.state in ("started", "unknown")])
        self._warn_of_unknown_senders(rows)
        for row in rows:
            if (row.channel, row.target) not in self._tasks and not self._stopping:
                step = self._next_step(row)
                if step != "wait":
                    self._begin(row, step)

    def _warn_of_unknown_senders(self, rows: list[OpenDelivery]) -> None:
        """Once each: it is waited for as for a sender that stands still, and so does everything behind it."""
        for row in rows:
            if row.state == "started" and row.sender == "unknown" and (row.id, row.attempts) not in self._warned:
                self._warned.add((row.id, row.attempts))
                log.error(
                    "delivery %s to %s:%s was begun by process %s, whose sentinel has been removed: nobody can tell "
                    "whether it lives, so nothing more goes to this target for %g s",
                    row.id, row.channel, row.target, row.process, self._stalled_after_s(row),
                )  # fmt: skip

    def _stalled_after_s(self, row: OpenDelivery) -> float:
        return self._channels[row.channel].traits.longest_request_s + STALLED_S

    def _watch(self, rows: list[OpenDelivery]) -> None:
        """Time is counted from when this process first saw it so, on its own clock: a set wall clock cannot shorten it.
        Of somebody who lives a watch with a gap (we stood still ourselves, or could not read) proves nothing: it begins
        anew.
        """
        now = self._hf.clock.mono()
        gap = self._looked_mono is not None and now - self._looked_mono > WATCH_GAP_MAX_S
        known, self._watched, self._looked_mono = self._watched, {}, now
        for row in rows:
            seen = known.get(row.id)
            if (
                seen is None
                or (gap and row.state == "started")
                or (seen.state, seen.attempts) != (row.state, row.attempts)
            ):
                seen = _Watch(row.state, row.attempts, now)
            self._watched[row.id] = seen

    def _next_step(self, row: OpenDelivery) -> Step:
        traits = self._channels[row.channel].traits
        watch = self._watched.get(row.id)
        failures = watch.failures if watch is not None else 0
        step = next_step(
            row,
            is_ours=row.process == self._hf.process_id,
            reconciles=traits.reconciles and retry_in_s(failures + 1) is not None,
            on_unknown=traits.on_unknown,
            longest_request_s=traits.longest_request_s,
            keeps_keys_s=traits.keeps_keys_s,
            watched_s=self._hf.clock.mono() - watch.since_mono if watch is not None else 0.0,
            stale_s=self._stale_s,
        )
        if step == "reconcile" and watch is not None and self._hf.clock.mono() < watch.ask_again_mono:
            return "wait"
        return step

    def _begin(self, row: OpenDelivery, step: Step) -> None:
        place = (row.channel, row.target)
        task = asyncio.create_task(self._take(row, step), name=f"{step} {row.id}")
        self._tasks[place] = task
        task.add_done_callback(lambda _: self._ended(place))

    def _ended(self, place: tuple[str, str]) -> None:
        self._tasks.pop(place, None)
        self._hf.answers_arrived.set()

    async def _pause(self) -> None:
        pause = asyncio.ensure_future(self._hf.clock.sleep(LOOK_S))
        hint = asyncio.ensure_future(self._hf.answers_arrived.wait())
        try:
            await asyncio.wait({pause, hint}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            hint.cancel()

    # ── one row ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, row: OpenDelivery, step: Step) -> None:
        """One step; its errors end it and not the courier. The target is left alone for a moment after one."""
        try:
            await self._do(row, step)
        except Exception as exc:  # the edge of the delivery
            is_expected = isinstance(exc, ResourceError | CoordinationError)
            log.error("delivery %s to %s:%s: %s failed: %s", row.id, row.channel, row.target, step, exc,
                      exc_info=not is_expected)  # fmt: skip
            await self._hf.clock.sleep(RECORD_RETRY_S)

    async def _do(self, row: OpenDelivery, step: Step) -> None:
        channel = self._channels[row.channel]
        if step in ("repeat", "resend_labelled", "report") and await self._repeat(channel, row, step):
            return
        if step == "send":
            chars = row.piece_chars or piece_chars_of(
                row.body, row.sent_chars, channel.traits.room_of(row.body, row.sent_chars)
            )
            change, put, is_repeated = Change(piece_chars=chars), channel.send, False
            if self._finishing is not None and row.sent_chars == 0:
                how = await self._finishing.how(channel, row)
                if how is None:
                    return  # what is shown of it may not be touched yet
                change, put = Change(piece_chars=chars, label=how.label), how.put or channel.send
                is_repeated = how.is_repeated
            await self._start_and_send(channel, row, "start", change, put, is_repeated=is_repeated)
        elif step == "resend_labelled":
            log.warning("delivery %s to %s:%s: a labelled copy is sent (input %s), since nobody can tell whether the "
                        "first has arrived: %s", row.id, row.channel, row.target, row.input_id, row.detail)  # fmt: skip
            await self._start_and_send(channel, row, "resend_labelled", Change(label=POSSIBLE_DUPLICATE))
        elif step == "resend_past_stalled":
            log.error("delivery %s to %s:%s: a labelled copy is sent (input %s), since process %s stands still in the "
                      "middle of it", row.id, row.channel, row.target, row.input_id, row.process)  # fmt: skip
            await self._start_and_send(channel, row, step, Change(label=POSSIBLE_DUPLICATE))
        elif step == "report_stalled":
            why = f"process {row.process} stands still in the middle of it: nobody can tell whether it has arrived"
            log.error("delivery %s to %s:%s: %s", row.id, row.channel, row.target, why)
            await self._move(row, step, Change(why, label=POSSIBLE_DUPLICATE))
        elif step == "note_death":
            why = f"process {row.process} ended while it was sending this"
            await self._move(row, "sender_died", Change(why, label=self._label_of_age(row)))
        elif step == "note_loss":
            why = "cut off while it was being sent"
            await self._move(row, "lose_track", Change(why, label=self._label_of_age(row)))
        elif step == "reconcile":
            await self._reconcile(channel, row)
        elif step == "report":
            why = f"nobody can tell whether it has arrived, so it is not sent again: {row.detail}"
            log.error("delivery %s to %s:%s: %s", row.id, row.channel, row.target, why)
            await self._move(row, "report", Change(why[:DETAIL_CHARS_MAX], label=POSSIBLE_DUPLICATE))
        elif step == "expire":
            why = f"it could not be sent for {row.idle_s / 3600:.0f} h; `holdfast outbox retry {row.id}` sends it"
            log.error("delivery %s to %s:%s: %s", row.id, row.channel, row.target, why)
            await self._move(row, "expire", Change(why))

    async def _repeat(self, channel: Channel, row: OpenDelivery, step: Step) -> bool:
        """Send it again in a way that makes no second message, if there is one. Whatever comes after it is labelled."""
        put = self._finishing and row.sent_chars == 0 and await self._finishing.edit_again(channel, row)
        if not put and step != "repeat":
            return False
        log.warning("delivery %s to %s:%s: it is sent again in a way that makes no second message (input %s): %s",
                    row.id, row.channel, row.target, row.input_id, row.detail)  # fmt: skip
        change = Change(label=POSSIBLE_DUPLICATE)
        await self._start_and_send(channel, row, "repeat", change, put or channel.send, is_repeated=True)
        return True

    def _label_of_age(self, row: OpenDelivery) -> str | None:
        """Its send was begun so long ago that the platform may have forgotten its key."""
        traits = self._channels[row.channel].traits
        return POSSIBLE_DUPLICATE if traits.keeps_keys_s and row.idle_s > 2 * traits.longest_request_s else None

    async def _start_and_send(
        self,
        channel: Channel,
        row: OpenDelivery,
        event: str,
        change: Change,
        put: Put | None = None,
        *,
        is_repeated: bool = False,
    ) -> None:
        starting = asyncio.ensure_future(self._move(row, event, change))
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            taken = await starting
            if taken is not None:  # nothing has gone out: it goes back to its place
                await self._record(taken, "refuse", Change("the courier was stopped before it was sent"))
            raise
        if started is not None:  # else another process has it
            label = None if is_repeated else started.label
            await self._send(channel, started, put or channel.send, label)

    async def _send(self, channel: Channel, row: OpenDelivery, put: Put, label: str | None) -> None:
        """The row is `started` in our name: send its next piece, then record what became of it."""
        request = SendRequest(row.key, row.target, row.piece, label)
        try:
            sent = await self._within(channel.traits.longest_request_s, put(request))
        except ChannelRefusedError as refused:
            await self._record_refusal(row, refused)
        except asyncio.CancelledError:
            await asyncio.shield(self._record(row, "lose_track", Change("cut off while it was being sent")))
            raise
        except Exception as exc:  # the edge of the channel: whatever it raises, the message may have gone out
            log.warning("delivery %s to %s:%s: fate unknown: %s", row.id, row.channel, row.target, exc,
                        exc_info=not isinstance(exc, ChannelError))  # fmt: skip
            await self._record(row, "lose_track", Change(self._words(exc)))
        else:
            done = Change(sent.reference, label=label or "")  # what has been shown
            await self._record(row, "confirm" if row.is_last_piece else "confirm_piece", done)

    async def _record_refusal(self, row: OpenDelivery, refused: ChannelRefusedError) -> None:
        pause_s = None if refused.permanent else retry_in_s(row.attempts, refused.retry_after_s)
        if pause_s is None:
            tries = "will not take it" if refused.permanent else f"refused it {row.attempts} times"
            log.error("delivery %s: %s:%s %s: %s", row.id, row.channel, row.target, tries, refused)
            await self._record(
                row, "give_up", Change(f"{row.channel} {tries}: {self._words(refused)}"[:DETAIL_CHARS_MAX])
            )
        else:
            log.warning("delivery %s: %s:%s refused it, next try in %g s: %s", row.id, row.channel, row.target,
                        pause_s, refused)  # fmt: skip
            await self._record(row, "refuse", Change(self._words(refused), pause_s))

    async def _reconcile(self, channel: Channel, row: OpenDelivery) -> None:
        """Its sender is gone and its time is up: ask the platform."""
        try:
            found = await self._within(channel.traits.longest_request_s, channel.find(row.key, row.target))
        except Exception as exc:  # noqa: BLE001  # the edge of the channel: one that cannot be asked has not answered
            watch = self._watched.get(row.id)
            if watch is not None:
                watch.failures += 1
                watch.ask_again_mono = self._hf.clock.mono() + (retry_in_s(watch.failures) or 0.0)
            log.warning("delivery %s: cannot ask %s whether it arrived: %s", row.id, row.channel, exc)
            return
        if found is None or found.preview:  # or only its beginning, which is edited next
            await self._record(row, "not_found", NO_CHANGE)
        else:
            await self._record(row, "found" if row.is_last_piece else "found_piece", Change(found.reference))

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        """The result of `work`, or SendUnknownError once it has taken too long; it has ended then, too."""
        task = asyncio.ensure_future(work)
        alarm = asyncio.ensure_future(self._hf.clock.sleep(seconds))
        try:
            await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            alarm.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        raise SendUnknownError(f"no answer within {seconds:g} s")

    async def _record(self, row: OpenDelivery, event: str, change: Change) -> None:
        """Move a row that is ours to move; if the disk refuses, again until it is done or we stop.

        While it is not done the row stays `started` in our name, and its target waits: nothing is sent twice.
        """
        while True:
            try:
                await self._move(row, event, change)
                return
            except ResourceError as exc:
                log.error("delivery %s: %r could not be recorded yet: %s", row.id, event, exc)
                if self._stopping or self._hf.store.stopped:
                    return
            if event == "lose_track":  # by the time that it is recorded a key may be forgotten
                change = replace(change, label=POSSIBLE_DUPLICATE)
            await self._hf.clock.sleep(RECORD_RETRY_S)

    async def _move(self, row: OpenDelivery, event: str, change: Change = NO_CHANGE) -> OpenDelivery | None:
        moved = await self._hf.store.move_delivery(row, event, change)
        if moved is None:
            return None
        data = {
            "id": moved.id, "event": event, "state": moved.state, "channel": moved.channel, "target": moved.target,
            "part": moved.part, "attempts": moved.attempts, "label": moved.label, "detail": moved.detail,
        }  # fmt: skip
        at_ms = epoch_ms(self._hf.clock.now())
        self._hf.events.publish(TurnEvent("delivery", moved.session, at_ms, moved.input_id, data=data))
        return moved

    def _words(self, exc: Exception) -> str:
        """What is written down of it; platforms may repeat the key they were asked with."""
        text = str(exc) if isinstance(exc, ChannelError) else f"{type(exc).__name__}: {exc}"
        return self._hf.redact(text)[:DETAIL_CHARS_MAX]
