"""Who listens to which channel: each listener runs in one process of all that serve a state.

The ledger says who has taken a channel (a row with the process's name, whose death is seen at its sentinel). What that
process does with it is told there, with a beat; a process that stands still for `STALLED_S` is replaced, too. Two that
listen at once do no harm: what is heard twice is told apart by its id. A listener that ends is started again, after
pauses that grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from holdfast.channel.listening import Hear, Heard, Listener, Receipt, Resumable
from holdfast.errors import ChannelError, ChannelRefusedError, ResourceError
from holdfast.inbound.pairing import ListenerView
from holdfast.kernel import Holdfast
from holdfast.text import on_one_line

LOOK_S = 1.0
BEAT_S = 15.0
STALLED_S = 90.0
"""As for turns (specification, "Who is alive")."""
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
REFUSED_S = 300.0
"""Pause after a platform has said that people have to do something first, such as to renew a token."""
POSITION_S = 5.0
"""How often it is told how far a listener has come. What was heard since then is heard again, and told apart."""
POSITION_CHARS_MAX = 2000
STEADY_S = 60.0
"""Who has listened for so long begins with the shortest pause again."""
DETAIL_CHARS_MAX = 300
log = logging.getLogger("holdfast.channels")


@dataclass(slots=True)
class _Ours:
    """A channel that this process listens to."""

    task: asyncio.Task[None]
    state: str = "connecting"
    detail: str | None = None
    told: tuple[str, str | None] = ("", None)
    told_mono: float = 0.0
    position: str | None = None
    position_mono: float = 0.0


@dataclass(slots=True)
class _Watch:
    """Another process's beat, as we have seen it stand."""

    process: str
    beat: int
    since_mono: float


class Listening:
    """Runs the listeners that fall to this process: `run` until `stop`.

    Args:
        listeners: by channel. hears: what each hands its messages to. resumables: those that can go on where another
            process has come to.
    """

    def __init__(
        self,
        hf: Holdfast,
        listeners: Mapping[str, Listener],
        hears: Mapping[str, Hear],
        resumables: Mapping[str, Resumable] = MappingProxyType({}),
    ) -> None:
        self._hf = hf
        self._listeners = listeners
        self._hears = hears
        self._resumables = resumables
        self._ours: dict[str, _Ours] = {}
        self._watched: dict[str, _Watch] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Listen to whatever nobody listens to, until `stop`.

        Raises:
            StoreStoppedError: the ledger failed; this process must end.

        Cancelled: as `stop`.
        """
        try:
            while not self._stopping.is_set() and self._listeners:
                try:
                    await self._look()
                    self._hf.store.raise_if_stopped()
                except ResourceError as exc:
                    log.error("cannot look at who listens: %s", exc)
                    if self._hf.store.stopped:
                        raise
                await self._pause()
        finally:
            await self._leave()

    def stop(self) -> None:
        """Listen to nothing more; other processes take over at once. `run` ends once all is closed."""
        self._stopping.set()

    # ── who listens ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        rows = {row.channel: row for row in await self._hf.store.listeners()}
        for channel in self._listeners:
            row, ours = rows.get(channel), self._ours.get(channel)
            is_ours = row is not None and row.process == self._hf.process_id
            if ours is not None and not is_ours and not self._may_take(row):
                log.warning("channel %s: another process has taken over listening", channel)
                await self._end(channel)
            elif ours is not None and is_ours:
                self._tell(channel, ours)
            elif (is_ours or self._may_take(row)) and await self._hf.store.take_listening(channel, row):
                await self._end(channel)
                await self._begin(channel)

    def _may_take(self, row: ListenerView | None) -> bool:
        """Whether nobody listens, as far as can be told. A process that cannot be told of counts as gone: listening
        twice does no harm, listening never does.
        """
        if row is None or row.life != "alive":
            return True
        now, watch = self._hf.clock.mono(), self._watched.get(row.channel)
        if watch is None or (watch.process, watch.beat) != (row.process, row.beat):
            self._watched[row.channel] = _Watch(row.process, row.beat, now)
            return False
        return now - watch.since_mono >= STALLED_S

    def _tell(self, channel: str, ours: _Ours) -> None:
        if ours.state in ("connecting", "listening"):
            ours.state = "listening" if self._listeners[channel].connected else "connecting"
            ours.detail = None if ours.state == "listening" else ours.detail
        now, what = self._hf.clock.mono(), (ours.state, ours.detail)
        if what != ours.told or now - ours.told_mono >= BEAT_S:
            self._hf.store.note_listening(channel, *what)
            ours.told, ours.told_mono = what, now
        if now - ours.position_mono >= POSITION_S:
            self._tell_position(channel, ours)

    def _tell_position(self, channel: str, ours: _Ours) -> None:
        resumable = self._resumables.get(channel)
        position = resumable.position if resumable is not None else None
        if position is not None and position != ours.position and len(position) <= POSITION_CHARS_MAX:
            self._hf.store.note_position(channel, position)
            ours.position, ours.position_mono = position, self._hf.clock.mono()

    async def _pause(self) -> None:
        pause = asyncio.ensure_future(self._hf.clock.sleep(LOOK_S))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({pause, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            stop.cancel()

    async def _leave(self) -> None:
        for channel in list(self._ours):
            await self._end(channel)
            with suppress(ResourceError):  # then it is seen that we are gone
                await self._hf.store.leave_listening(channel)

    # ── listening ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self, channel: str) -> None:
        resumable = self._resumables.get(channel)
        position = await self._hf.store.position(channel) if resumable is not None else None
        if resumable is not None and position is not None:
            resumable.resume_from(position)
        task = asyncio.create_task(self._listen(channel), name=f"listen to {channel}")
        self._ours[channel] = _Ours(task)

    async def _end(self, channel: str) -> None:
        ours = self._ours.pop(channel, None)
        if ours is not None:
            ours.task.cancel()
            await asyncio.gather(ours.task, return_exceptions=True)
            self._tell_position(channel, ours)

    async def _listen(self, channel: str) -> None:
        """Until cancelled. Its errors are told and end nothing: the next try may go better."""
        failures = 0
        while True:
            began = self._hf.clock.mono()
            self._set(channel, "connecting", None)
            is_final = False
            try:
                await self._listeners[channel].listen(self._hears[channel])
                why = "the platform ended the connection"
            except ChannelRefusedError as refused:
                is_final, why = refused.permanent, _words(refused, self._hf.redact)
            except Exception as exc:  # noqa: BLE001  # the edge of the channel: whatever its library raises
                why = _words(exc, self._hf.redact)
            failures = 0 if self._hf.clock.mono() - began >= STEADY_S else failures
            pause_s = REFUSED_S if is_final else PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            failures += 1
            self._set(channel, "refused" if is_final else "waiting", why)
            log.log(
                logging.ERROR if is_final else logging.WARNING,
                "channel %s: not listening, next try in %g s: %s", channel, pause_s, on_one_line(why),
            )  # fmt: skip
            await self._hf.clock.sleep(pause_s)

    def _set(self, channel: str, state: str, detail: str | None) -> None:
        ours = self._ours.get(channel)
        if ours is not None and ours.task is asyncio.current_task():
            ours.state, ours.detail = state, detail or ours.detail
            self._tell(channel, ours)


def hear_once_stored(hear: Hear, channel: str) -> Hear:
    """`hear`, with what could not be stored told in the log: its sender sees nothing of it until the platform tells
    again.
    """

    async def wrapped(heard: Heard) -> Receipt:
        try:
            return await hear(heard)
        except ResourceError as exc:
            log.error("channel %s: a message could not be stored and was not acknowledged: %s", channel, exc)
            raise

    return wrapped


def _words(exc: Exception, redact: Callable[[str], str]) -> str:
    text = str(exc) if isinstance(exc, ChannelError) else f"{type(exc).__name__}: {exc}"
    return redact(text)[:DETAIL_CHARS_MAX]  # half a secret would not be known for one
