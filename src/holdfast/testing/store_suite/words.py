"""The words that the tests of stores are written in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pytest

from holdfast import ids
from holdfast.clock import Clock, SystemClock, iso
from holdfast.errors import SessionTakeoverError
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.lane.policy import LaneLimits
from holdfast.outbox.message import Outcome
from holdfast.session import entries as made
from holdfast.session.entries import Entry, Origin, encode_line, stamped
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.protocol import Build, Store
from holdfast.testing.clock import VirtualClock

SESSION = "agent:main:main"
OTHER = "agent:main:other"
ROUTE = Route("test", "user")
WAIT_S = 60.0
T = TypeVar("T")


class Backend(Protocol):
    """One state, empty at first, on which several stores may be opened as several processes would."""

    @property
    def location(self) -> str:
        """What `holdfast.open` takes, for processes of their own."""
        ...

    def open(self, *, clock: Clock, limits: LaneLimits, beat_term_s: float) -> Store: ...


Opens = Callable[..., Store]


KEPT = Outcome("superseded", answer="kept", detail="the conversation had moved on")


@dataclass(slots=True)
class Held:
    """An owned turn, and what its owner may do. `owned` is what the store handed out."""

    store: Store
    turn: str
    owned: Any

    @property
    def epoch(self) -> Epoch:
        return self.owned.epoch

    async def append(self, entry: Entry) -> Verdict:
        verdict, _ = await self.store.append(self.owned, [self.line(entry)], sync=False)
        return verdict

    async def inspect(self) -> Verdict:
        return await self.store.inspect(self.owned)

    async def answer(self, text: str = "hi", *, joined: tuple[str, ...] = ()) -> str | None:
        """Write the final line of the turn's input (and of those it took in) and settle; the state its input is in."""
        line, outcome = self._answered(text, joined)
        await self.store.append(self.owned, [line], sync=False)
        return await self.store.settle(self.owned, outcome, "answered", None, [], joined=joined)

    async def answer_last(self, text: str = "hi") -> str | None:
        """The same at once, where lines may wait for the end of their turn."""
        line, outcome = self._answered(text, ())
        return await self.store.settle(self.owned, outcome, "answered", None, [], last=[line])

    def _answered(self, text: str, joined: tuple[str, ...]) -> tuple[tuple[str, Build], Outcome]:
        view = self.store.view_of(self.owned)
        assert view is not None
        entry = made.assistant(text, model="demo/demo")
        line = self.line(entry, inputs=(view.id, *joined), final=True)
        result = {"message": entry.message, "finish": "stop", "usage": None, "entry_id": line[0]}
        return line, Outcome("answered", answer=text, result=result)

    async def done(self) -> None:
        """End a turn that answers nothing."""
        await self.store.settle(self.owned, None, "done", None, [])

    def line(self, entry: Entry, *, inputs: tuple[str, ...] = (), final: bool = False) -> tuple[str, Build]:
        """A line of the owner's and its id."""
        return build_line(
            entry, Origin(self.store.store_id, self.turn, self.epoch.number, "main", "turn", inputs, final)
        )


def event(text: str, *, session: str = SESSION, **facts: Any) -> InboundEvent:
    return InboundEvent(session, {"content": text}, **facts)


async def accept(store: Store, text: str, **facts: Any) -> str:
    admission = await store.accept(event(text, **facts))
    assert isinstance(admission, Accepted), admission
    return admission.input_id


async def ask_for(
    store: Store,
    *,
    session: str = SESSION,
    lane: str = "main",
    input_id: str | None = None,
    parent: str | None = None,
    wait_s: float = WAIT_S,
) -> Held | Busy:
    """Claim a session, or an input of it; raises as the store does."""
    transcript = await store.transcript_of(session)
    turn = ids.new_id("turn")
    request = ClaimRequest(turn, session, transcript, store.process, lane, ids.nonce(), input_id, parent)
    owned = await store.claim(request, wait_s=wait_s, fence_mode="strict")
    return owned if isinstance(owned, Busy) else Held(store, turn, owned)


async def claim(store: Store, **how: Any) -> Held:
    held = await ask_for(store, **how)
    assert isinstance(held, Held), held
    return held


async def claim_input(store: Store, input_id: str, *, wait_s: float = WAIT_S) -> Held:
    view = await store.input(input_id)
    return await claim(store, session=view.session, lane=view.lane, input_id=input_id, wait_s=wait_s)


async def refused_input(store: Store, input_id: str) -> Busy:
    """Ask for an input that cannot be had now."""
    view = await store.input(input_id)
    refused = await ask_for(store, session=view.session, lane=view.lane, input_id=input_id, wait_s=0.0)
    assert isinstance(refused, Busy)
    return refused


@asynccontextmanager
async def owning(store: Store, **how: Any) -> AsyncIterator[Held]:
    held = await claim(store, **how)
    yield held
    await held.done()


async def answered(store: Store, text: str, route: Route) -> str:
    """An input that came and was answered with "re: " and its text."""
    input_id = await accept(store, text, route=route)
    await (await claim_input(store, input_id)).answer(f"re: {text}")
    return input_id


def build_line(entry: Entry, origin: Origin) -> tuple[str, Build]:
    entry_id = ids.derived_id("suite", ids.nonce())
    now = iso(SystemClock().now())
    return entry_id, lambda parent: encode_line(
        stamped(entry, id=entry_id, parent=parent, timestamp=now, origin=origin)
    )


async def append_metadata(store: Store, entry: Entry) -> str:
    entry_id, build = build_line(entry, Origin(store.store_id, "", 0, "", "metadata"))
    await store.append_metadata(await store.transcript_of(SESSION), entry_id, build, sync=False)
    return entry_id


async def lines_of(store: Store) -> list[Line]:
    return await store.read_lines(await store.transcript_of(SESSION))


async def said(store: Store) -> list[str]:
    """The texts of all messages, oldest first."""
    return [made.text_of(line.value()["message"]) for line in await lines_of(store) if line.type == "message"]


async def while_time_passes(clock: VirtualClock, task: asyncio.Task[T]) -> T:
    """The task's result; a virtual second passes whenever it has had a moment to look around."""
    async with asyncio.timeout(WAIT_S):
        while not task.done():
            await clock.advance(1)
            await asyncio.wait({task}, timeout=0.02)
    return task.result()


async def recovered(store: Store) -> None:
    """Close the turn of a process that has just died, once: a server hears of that when it next looks at the connection
    of the dead.
    """
    async with asyncio.timeout(WAIT_S):
        while not (closed := await store.recover_dead()):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    assert closed == 1


async def superseded(opens: Opens, *, input_id: str | None = None) -> tuple[Held, Held]:
    """A turn (of `input_id`) that stood still, and the one that has taken its session."""
    clock = VirtualClock()
    old = await claim(opens(), input_id=input_id)
    new = await while_time_passes(clock, asyncio.create_task(claim(opens(clock=clock, beat_term_s=3.0), wait_s=60.0)))
    with pytest.raises(SessionTakeoverError):
        await old.inspect()
    return old, new
