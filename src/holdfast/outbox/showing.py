"""What people see while a turn runs: that somebody is writing, and the answer as far as it has come.

It follows the events of this process alone, and nothing depends on it: whatever goes wrong here, the courier delivers
the answer, in place of what was shown if there is something (`preview.py`). A turn has one task, which sends one
request at a time; the courier waits for it (`ended`), since a late edit would put the beginning in place of the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast.channel.channel import ChannelTraits, SendRequest
from holdfast.channel.listening import Adapter, Typing
from holdfast.errors import ChannelError, ChannelRefusedError, HoldfastError, OwnershipLostError, SendUnknownError
from holdfast.inbound.event import Route
from holdfast.kernel import Holdfast
from holdfast.outbox.message import delivery_id
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE, may_repeat
from holdfast.outbox.preview import Mode, Preview, may_finish, preview_text
from holdfast.turn.events import TurnEvent

FIRST_AFTER_S = 0.5
"""A short answer is there as a whole by then, and needs no preview."""
LOOK_S = 30.0
"""How often a turn that is silent is looked for in the ledger, in case its end was not heard of; and how often what is
left of answers that never came is taken away."""
TYPING_SHARE = 0.8
"""Of the time for which a platform shows it, after which it is shown again."""
log = logging.getLogger("holdfast.outbox")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Surface:
    """A channel, and what of it is used. mode: needs `adapter.editor`, else it counts as "off"."""

    adapter: Adapter
    mode: Mode = "off"
    typing: bool = True

    @property
    def shows(self) -> bool:
        return self.mode != "off" and self.adapter.editor is not None

    @property
    def typer(self) -> Typing | None:
        return self.adapter.typing if self.typing else None


@dataclass(slots=True)
class _Turn:
    """A turn that runs here. `text`: of its newest request to a model. over: it has ended, or is not ours to show."""

    input_id: str
    text: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    key: str = ""
    reference: str | None = None
    is_shown: bool = False
    shown: str = ""
    gave_up: bool = False
    sends: int = 0
    quiet_from_mono: float = 0.0


class Showing:
    """Shows: `run` until `stop`."""

    def __init__(self, hf: Holdfast, surfaces: Iterable[Surface]) -> None:
        self._hf = hf
        self._surfaces = {one.adapter.channel.name: one for one in surfaces if one.shows or one.typer is not None}
        self._turns: dict[str, _Turn] = {}
        self._seen: dict[str, float] = {}
        self._doubted: dict[str, float] = {}  # when a send was begun of which nobody knows what became
        self._stopping = asyncio.Event()

    def __contains__(self, channel: str) -> bool:
        """Whether answers of a channel may have been begun."""
        surface = self._surfaces.get(channel)
        return surface is not None and surface.shows

    async def run(self) -> None:
        """Until `stop`. Cancelled: as `stop`."""
        if not self._surfaces:
            return
        sweeping = asyncio.create_task(self._sweep(), name="previews without an answer")
        try:
            with self._hf.events.subscribe() as events:
                stopping = asyncio.ensure_future(self._stopping.wait())
                stopping.add_done_callback(lambda _: events.close())
                try:
                    async for event in events:
                        self._take(event)
                finally:
                    stopping.cancel()
        finally:
            sweeping.cancel()
            tasks = [one.task for one in self._turns.values() if one.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(sweeping, *tasks, return_exceptions=True)

    def stop(self) -> None:
        self._stopping.set()

    # ── for the courier ──────────────────────────────────────────────────────────────────────────────────────────────

    async def ended(self, input_id: str) -> None:
        """Return when nothing more of ours is shown of an answer, and what was has arrived or is lost. That goes for
        earlier turns of the input, too: its newest waits for them.
        """
        one = self._turns.get(input_id)
        if one is not None:
            one.over.set()
            if one.task is not None:
                await asyncio.wait({one.task})

    def may_finish(self, preview: Preview, longest_request_s: float) -> bool:
        """As `preview.may_finish`, from when this process first knew of it."""
        now = self._hf.clock.mono()
        since = self._seen.setdefault(preview.id, now)
        is_ours = preview.process == self._hf.process_id
        return may_finish(preview, is_ours=is_ours, watched_s=now - since, longest_request_s=longest_request_s)

    def may_repeat(self, preview: Preview, traits: ChannelTraits) -> bool:
        """Whether the platform still keeps the key under which this process has sent it."""
        begun = self._doubted.get(preview.id)
        return begun is not None and may_repeat(
            self._hf.clock.mono() - begun, traits.longest_request_s, traits.keeps_keys_s
        )

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)
        self._doubted.pop(key, None)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, event: TurnEvent) -> None:
        if event.kind == "dropped":  # of whom is not known
            for one in self._turns.values():
                one.text.clear()
            return
        if event.input_id is None:
            return
        one = self._turns.get(event.input_id)
        if event.kind == "turn.started":
            if one is not None:
                one.over.set()
            new = _Turn(event.input_id)
            self._turns[event.input_id] = new
            new.task = asyncio.create_task(self._show(new, one), name=f"show {event.input_id}")
            new.task.add_done_callback(lambda _: self._forget_turn(new))
        elif one is None:
            return
        elif event.kind == "turn.delta":
            one.text.append(event.data["text"])
            one.changed.set()
        elif event.kind in ("turn.model", "turn.discarded"):
            one.text.clear()
        elif event.kind == "turn.settled":
            one.over.set()

    def _forget_turn(self, one: _Turn) -> None:
        if self._turns.get(one.input_id) is one:
            del self._turns[one.input_id]

    # ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _show(self, one: _Turn, before: _Turn | None) -> None:
        """Its errors end it and nothing else."""
        try:
            if before is not None and before.task is not None:
                await asyncio.wait({before.task})
            view = await self._hf.input(one.input_id)
            channel, _, target = (view.route or "").partition(":")
            surface = self._surfaces.get(channel)
            if surface is None:
                return
            one.key = delivery_id(one.input_id, Route(channel, target), 0)
            typing = asyncio.create_task(self._type(one, surface, target), name=f"typing {one.input_id}")
            try:
                await self._follow(one, surface, target)
            finally:
                typing.cancel()
                await asyncio.gather(typing, return_exceptions=True)
            wait_s = one.quiet_from_mono - self._hf.clock.mono()
            if wait_s > 0:  # the fate of the last request is not known: it may still arrive
                await self._hf.clock.sleep(wait_s)
            if one.is_shown and await self._came_to_nothing(one):
                await self._remove(one.key, surface)
        except OwnershipLostError as lost:
            log.info("an answer is not shown while it is written: %s", lost)
        except HoldfastError as exc:
            log.warning("an answer to %s cannot be shown while it is written: %s", one.input_id, exc)
        except Exception:  # the edge of the delivery: nothing depends on it
            log.exception("showing the answer to %s failed", one.input_id)

    async def _type(self, one: _Turn, surface: Surface, target: str) -> None:
        if surface.typer is None:
            return
        while not one.over.is_set():
            try:
                await surface.typer.show_typing(target)
            except ChannelRefusedError as refused:
                if refused.permanent:
                    log.debug("typing is not shown: %s", refused)
                    return
            except ChannelError as exc:
                log.debug("typing is not shown: %s", exc)
            await self._wait(one.over, surface.typer.typing_lasts_s * TYPING_SHARE)

    async def _follow(self, one: _Turn, surface: Surface, target: str) -> None:
        pause_s = FIRST_AFTER_S
        while not one.over.is_set():
            await self._wait(one.over, pause_s)
            if one.over.is_set() or one.gave_up or not surface.shows:
                await self._wait(one.over, LOOK_S)
                pause_s = 0.0
                if not one.over.is_set() and (await self._hf.input(one.input_id)).settled:
                    return
                continue
            written = "".join(one.text)
            text = preview_text(written, surface.mode, surface.adapter.channel.traits.room_of(written) - _LABEL_CHARS)
            if text and text != one.shown:
                pause_s = await self._put(one, surface, SendRequest(one.key, target, text, preview=True))
                continue
            one.changed.clear()
            changed = asyncio.ensure_future(one.changed.wait())
            over = asyncio.ensure_future(one.over.wait())
            alarm = asyncio.ensure_future(self._hf.clock.sleep(LOOK_S))
            try:
                await asyncio.wait({changed, over, alarm}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in (changed, over, alarm):
                    waiting.cancel()
            pause_s = FIRST_AFTER_S if not one.is_shown else 0.0

    async def _put(self, one: _Turn, surface: Surface, request: SendRequest) -> float:
        """Send or edit it. Returns: how long to leave the platform alone, in seconds."""
        editor, channel = surface.adapter.editor, surface.adapter.channel
        assert editor is not None
        longest_s = channel.traits.longest_request_s
        began = self._hf.clock.mono()
        try:
            if one.reference is None and not await self._begin(one, channel.name, request):
                return 0.0
            if one.reference is None:
                one.sends += 1
                sent = await self._within(longest_s, channel.send(request))
                one.reference = sent.reference or ""
                await self._hf.store.name_preview(one.key, one.reference)
                self._doubted.pop(one.key, None)
            else:
                await self._within(longest_s, editor.edit(one.reference, request))
            one.shown, one.is_shown = request.text, True
        except ChannelRefusedError as refused:
            is_in_doubt = one.key in self._doubted
            if one.reference is None and not is_in_doubt:  # it is certainly not there
                await self._hf.store.end_preview(one.key)
            one.gave_up = refused.permanent or is_in_doubt
            return max(editor.edit_every_s, refused.retry_after_s or 0.0)
        except (SendUnknownError, ChannelError) as exc:
            one.quiet_from_mono = began + longest_s
            if one.reference is None:
                self._doubted.setdefault(one.key, began)
            one.gave_up = one.reference is None and (one.sends > 1 or not channel.traits.keeps_keys_s)
            log.info("delivery %s: what is shown of it is uncertain: %s", one.key, exc)
        return editor.edit_every_s

    async def _begin(self, one: _Turn, channel: str, request: SendRequest) -> bool:
        """Whether it may be sent or edited. What an earlier attempt of ours shows is gone on with; another process's is
        left to the courier.
        """
        known = await self._hf.store.begin_preview(one.key, one.input_id, channel, request.target)
        if known is None:
            return True
        is_sent_again = one.sends > 0  # under a key that the platform keeps: what came of the first is found
        if known.process == self._hf.process_id and (known.reference is not None or is_sent_again):
            one.reference = known.reference
            return True
        self._seen.setdefault(known.id, self._hf.clock.mono())
        one.gave_up = True
        return False

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Until it is set, or so long."""
        waiting = asyncio.ensure_future(event.wait())
        alarm = asyncio.ensure_future(self._hf.clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            alarm.cancel()

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

    # ── what is left ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sweep(self) -> None:
        """Take away the beginnings of answers that never came: the agent had nothing to say after all."""
        channels = [name for name, surface in self._surfaces.items() if surface.shows]
        while channels:
            try:
                for preview in await self._hf.store.previews_without_answer(channels):
                    surface = self._surfaces[preview.channel]
                    if self.may_finish(preview, surface.adapter.channel.traits.longest_request_s):
                        await self.ended(preview.input_id)
                        await self._remove(preview.id, surface)
            except HoldfastError as exc:
                log.info("what is left of an answer could not be taken away: %s", exc)
            await self._hf.clock.sleep(LOOK_S)

    async def _came_to_nothing(self, one: _Turn) -> bool:
        """Whether its input has ended, and nothing goes out."""
        return (await self._hf.input(one.input_id)).settled and await self._hf.store.delivery(one.key) is None

    async def _remove(self, key: str, surface: Surface) -> None:
        preview, channel, editor = await self._hf.store.preview(key), surface.adapter.channel, surface.adapter.editor
        if preview is None or editor is None:
            return
        reference = preview.reference
        if reference is None and channel.traits.reconciles:
            found = await channel.find(key, preview.target)
            reference = found.reference if found is not None else None
        if reference is not None:
            try:
                await self._within(channel.traits.longest_request_s, editor.remove(reference, preview.target))
            except ChannelRefusedError as refused:
                if not refused.permanent:
                    raise
        await self._hf.store.end_preview(key)
        self.forget(key)


_LABEL_CHARS = len(POSSIBLE_DUPLICATE) + 1
