"""Random histories of operations by two processes, each step compared with a reference model: the contract of stores as
one machine. The same seed gives the same history on every backend.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from holdfast.errors import OwnershipLostError
from holdfast.inbound.event import Accepted, Duplicate
from holdfast.session import entries as made
from holdfast.session.ownership import Busy
from holdfast.store.protocol import Store
from holdfast.testing.store_suite.words import OTHER, ROUTE, SESSION, Held, Opens, append_metadata, ask_for, event

SEEDS = range(4)
STEPS = 40
SESSIONS = (SESSION, OTHER)


@dataclass(slots=True)
class Reference:
    """What a store has to know, as plain values: who owns what, in which state each input is, what was said."""

    owners: dict[str, Held | None] = field(default_factory=lambda: dict.fromkeys(SESSIONS))
    states: dict[str, str] = field(default_factory=dict[str, str])
    sessions: dict[str, str] = field(default_factory=dict[str, str])
    said: dict[str, list[str]] = field(default_factory=lambda: {one: list[str]() for one in SESSIONS})
    keys: dict[str, str] = field(default_factory=dict[str, str])
    runs: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(SESSIONS))
    epochs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SESSIONS, 0))
    ended: list[tuple[str, Held]] = field(default_factory=list[tuple[str, Held]])

    def queued(self, session: str) -> list[str]:
        return [one for one, state in self.states.items() if state == "queued" and self.sessions[one] == session]

    def end(self, session: str, state: str | None) -> None:
        held, run = self.owners[session], self.runs[session]
        assert held is not None
        self.ended.append((session, held))
        if run is not None and state is not None:
            self.states[run] = state
        self.owners[session] = self.runs[session] = None


class Machine:
    """One history."""

    def __init__(self, seed: int, stores: tuple[Store, ...]) -> None:
        self._random = random.Random(seed)  # a seed, no secret
        self._stores = stores
        self._count = 0
        self.known = Reference()

    async def step(self) -> None:
        session, store = self._random.choice(SESSIONS), self._random.choice(self._stores)
        held = self.known.owners[session]
        free = (self.accept, self.claim, self.claim, self.label)
        owning = (self.accept, self.claim, self.say, self.say, self.answer, self.put_back, self.leave, self.label)
        await self._random.choice(owning if held is not None else free)(session, store)
        if self.known.ended and self._random.random() < 0.2:
            await self.late(*self._random.choice(self.known.ended))

    async def accept(self, session: str, store: Store) -> None:
        self._count += 1
        key = f"key {self._random.randrange(12)}"
        admission = await store.accept(event(key, session=session, key=f"{session} {key}", route=ROUTE))
        before = self.known.keys.get(f"{session} {key}")
        if before is not None:
            assert isinstance(admission, Duplicate)
            assert admission.input_id == before
            return
        assert isinstance(admission, Accepted)
        self.known.keys[f"{session} {key}"] = admission.input_id
        self.known.states[admission.input_id], self.known.sessions[admission.input_id] = "queued", session

    async def claim(self, session: str, store: Store) -> None:
        """By whoever asks: the session's first input, or the session alone. An owner is in the way, whosever it is."""
        waiting = self.known.queued(session)
        wanted = waiting[0] if waiting and self._random.random() < 0.8 else None
        owner = self.known.owners[session]
        if owner is not None and wanted is None:
            return  # without an input one would stand in line
        got = await ask_for(store, session=session, input_id=wanted, wait_s=0.0 if wanted is not None else 30.0)
        if owner is not None:
            assert isinstance(got, Busy), "two owners"
            return
        assert isinstance(got, Held), got
        assert got.epoch.number > self.known.epochs[session], "an epoch went down"
        self.known.epochs[session] = got.epoch.number
        self.known.owners[session], self.known.runs[session] = got, wanted
        if wanted is not None:
            self.known.states[wanted] = "running"

    async def say(self, session: str, store: Store) -> None:  # noqa: ARG002  # its owner's store
        self._count += 1
        held = self.known.owners[session]
        assert held is not None
        await held.append(made.user(f"line {self._count}"))
        self.known.said[session].append(f"line {self._count}")

    async def answer(self, session: str, store: Store) -> None:
        held = self.known.owners[session]
        assert held is not None
        if self.known.runs[session] is None:
            await self.leave(session, store)
            return
        self._count += 1
        at_once = self._random.random() < 0.5 and held.store.lines_may_wait
        how = held.answer_last if at_once else held.answer
        assert await how(f"answer {self._count}") == "answered"
        self.known.said[session].append(f"answer {self._count}")
        self.known.end(session, "answered")

    async def put_back(self, session: str, store: Store) -> None:  # noqa: ARG002
        held = self.known.owners[session]
        assert held is not None
        await held.store.requeue(held.owned, "somebody asked for it", charge=False)
        self.known.end(session, "queued")

    async def leave(self, session: str, store: Store) -> None:
        """End the turn; an input that it has goes back to its place."""
        held = self.known.owners[session]
        assert held is not None
        if self.known.runs[session] is not None:
            await self.put_back(session, store)
            return
        await held.done()
        self.known.end(session, None)

    async def label(self, session: str, store: Store) -> None:
        """A line by anybody that is not conversation, which no owner takes for an intruder (P5)."""
        if session == SESSION:
            await append_metadata(store, made.session_info("a name"))
        for held in self.known.owners.values():
            if held is not None:
                assert (await held.inspect()).kind in ("unchanged", "advanced")

    async def late(self, session: str, held: Held) -> None:
        """Who has had the session before somebody else writes nothing more (P1)."""
        if held.epoch.number == self.known.epochs[session]:
            return  # nobody has taken it since
        with pytest.raises(OwnershipLostError):
            await held.append(made.user("too late"))

    async def compare(self) -> None:
        """What every process sees is what the reference has."""
        for store in self._stores:
            states = {one.id: one.state for one in await store.inputs(session=None, state=None, limit=1000)}
            assert states == self.known.states
            for session in (one for one in SESSIONS if self.known.epochs[one]):  # others have no transcript yet
                lines = await store.read_lines(await store.transcript_of(session))
                texts = [made.text_of(line.value()["message"]) for line in lines if line.type == "message"]
                assert texts == self.known.said[session]
                assert len({line.id for line in lines}) == len(lines)
            answered = sum(state == "answered" for state in states.values())
            assert len(await store.deliveries(state=None, limit=1000)) == answered


class HistoriesSuite:
    """Part of `StoreSuite`."""

    @pytest.mark.parametrize("seed", SEEDS)
    async def test_a_history_of_two_processes_goes_as_the_reference_says(self, opens: Opens, seed: int) -> None:
        await run_history(seed, (opens(), opens()), STEPS)


async def run_history(seed: int, stores: tuple[Store, ...], steps: int) -> None:
    machine = Machine(seed, stores)
    for number in range(steps):
        await machine.step()
        if number % 10 == 9:
            await machine.compare()
    for session in SESSIONS:
        if machine.known.owners[session] is not None:
            await machine.leave(session, stores[0])
    await machine.compare()
