"""Everybody around the processes: those who send messages and wait for answers, the model, the platform.

What they have seen is what the promises are checked against: acknowledgements, answers told, messages arrived. They
are no part of any process and survive everything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from holdfast.context import summary
from holdfast.errors import InputError, ProviderError
from holdfast.inbound.event import Duplicate, InboundEvent, LaneFull, Route
from holdfast.kernel import Holdfast
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ToolSpec, zero_usage
from holdfast.session.entries import custom, text_of
from holdfast.testing.simulation.process import SimProcess
from holdfast.testing.simulation.scheduler import Scheduler
from holdfast.testing.simulation.ways import CHANNEL, SILENCE_S, Ways
from holdfast.turn.tools import Tool, ToolCall
from holdfast.turn.turn import current_turn

LONGEST_REQUEST_S = 1.0


@dataclass(slots=True)
class Arrived:
    """A message on the platform, as it reads now. `preview`: it is the beginning of an answer. `gone`: taken away."""

    key: str
    target: str
    text: str
    label: str | None
    preview: bool = False
    gone: bool = False
    was_preview: bool = False


@dataclass(slots=True)
class Seen:
    """What the outside world knows for certain."""

    acknowledged: dict[str, str] = field(default_factory=dict[str, str])  # the sender's key to the input's id
    told: dict[str, tuple[str, str | None]] = field(default_factory=dict[str, tuple[str, str | None]])
    arrived: list[Arrived] = field(default_factory=list[Arrived])
    tool_runs: dict[str, int] = field(default_factory=dict[str, int])  # of the tool that is not to be repeated
    acted: list[ToolCall] = field(default_factory=list[ToolCall])  # each of its runs
    said_yes: set[str] = field(default_factory=set[str])  # questions, by id
    cancelled: set[str] = field(default_factory=set[str])  # inputs that their senders have asked to be taken back
    silent: set[str] = field(default_factory=set[str])  # turns whose models have fallen silent
    cut_off: dict[str, str] = field(default_factory=dict[str, str])  # by turn: what its model had said until then
    answers: int = 0
    on_duplicate: Callable[[], object] = lambda: None  # somebody was told that he has said it before
    is_durable: Callable[[str], bool] = lambda _: True  # whether a power loss now would leave this text in a transcript
    broken: list[str] = field(default_factory=list[str])  # promises, in the order in which it was noticed

    def acknowledge(self, key: str, input_id: str) -> None:
        known = self.acknowledged.setdefault(key, input_id)
        if known != input_id:
            self.broken.append(f"P3: key {key} was acknowledged as {known} and again as {input_id}")

    def arrive(self, message: Arrived) -> None:
        self.arrived.append(message)
        if not message.preview:
            self._must_last(message.text, "arrived")

    def edit(self, message: Arrived, text: str, label: str | None, *, preview: bool) -> None:
        """Its text becomes another one. A beginning never takes the place of an answer."""
        if preview and not message.preview:
            self.broken.append(f"P4: {message.text!r} was there, and became {text!r} again")
        message.text, message.label, message.preview = text, label, preview
        if not preview:
            self._must_last(text, "arrived")

    def tell(self, input_id: str, state: str, answer: str | None) -> None:
        if state in ("answered", "steered", "merged") and answer is not None:
            self._must_last(answer, "was told")
        known = self.told.setdefault(input_id, (state, answer))
        if known != (state, answer):
            self.broken.append(f"P2: {input_id} had ended as {known}, now as {(state, answer)}")

    def _must_last(self, text: str, how: str) -> None:
        """I7, at the very moment: what the world gets as an answer of the model is durable."""
        if re.fullmatch(r"answer \d+ to .*", text) and not self.is_durable(text):
            self.broken.append(f"I7: {text!r} {how}, and a power loss at that moment would have left no trace of it")


class SimModel:
    """Answers after a while, in words that never repeat; sometimes it fails, is slow, or calls a tool first.

    ways: where there are sub-agents it also gives them tasks, where there are machines or a queue it calls more tools,
        between which turns give way and take in; where there is a watchdog it falls silent; where there are tools it
        calls those that a person is asked about; where there are previews it speaks in more pieces.
    """

    def __init__(self, scheduler: Scheduler, seen: Seen, ways: Ways, *, is_tame: bool) -> None:
        self._scheduler = scheduler
        self._seen = seen
        self._is_tame = is_tame
        self._ways = ways

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        random = self._scheduler.random
        fate, pause_s = random.random(), random.choice((0.0, 0.01, 0.2, 0.5, 1.5))
        turn = current_turn.get() or ""
        if "watchdog" in self._ways and random.random() < 0.2:
            self._seen.silent.add(turn)
            pause_s = SILENCE_S
        await asyncio.sleep(pause_s)
        self._seen.answers += 1
        number = self._seen.answers
        calls = self._calls(request, fate, number)
        if calls:
            yield ModelAnswer(calls, "toolUse", "simulated", "model", "simulated", zero_usage())
            return
        asked = next((text_of(one) for one in reversed(request.messages) if one["role"] == "user"), "nothing")
        text = f"answer {number} to {asked}" if request.system != summary.SYSTEM else f"summary {number}"
        said = ""
        for end in self._ends_of_pieces(text):
            yield TextDelta(text[len(said) : end])
            said = text[:end]
            try:
                await asyncio.sleep(min(pause_s, 1.5) / 2)
            except asyncio.CancelledError:
                self._seen.cut_off[turn] = said
                raise
        if fate > 0.93 and not self._is_tame:
            raise ProviderError("the provider is down", status=500, provider="simulated", model="model")
        yield TextDelta(text[len(said) :])
        yield ModelAnswer([{"type": "text", "text": text}], "stop", "simulated", "model", "simulated", zero_usage())

    def _ends_of_pieces(self, text: str) -> list[int]:
        """Up to where it has said its text each time it pauses."""
        begun = len(text.split(" to ")[0])
        return [begun, (begun + len(text)) // 2] if "previews" in self._ways else [begun]

    def _calls(self, request: ModelRequest, fate: float, number: int) -> list[dict[str, Any]]:
        """Tools that it wants to have called before it answers."""
        is_busy = any(one in self._ways for one in ("machines", "queue", "tools"))
        share = 0.6 if is_busy else 0.2
        if fate >= share or request.messages[-1]["role"] != "user" or self._is_tame or not request.tools:
            return []
        tool = "look" if fate < share / 2 else "act"
        arguments: dict[str, Any] = {}
        if fate > share / 4 and any(one.name == "spawn" for one in request.tools):
            tool, arguments = "spawn", {"task": f"task {number}"}
        if "tools" in self._ways and fate > share / 3:
            tool, arguments = asked_for(self._scheduler.random, number)
        return [{"type": "toolCall", "id": f"call_{number}", "name": tool, "arguments": arguments}]


def asked_for(random: Random, number: int) -> tuple[str, dict[str, Any]]:
    """A call that a person is asked about, a message to somebody, or a program in the background."""
    kind = random.random()
    if kind < 0.4:
        return "act", {"number": number}
    if kind < 0.7:
        to = {} if kind < 0.5 else {"to": f"{CHANNEL}:user{int(random.random() * 3)}"}
        return "message", {"text": f"note {number}", **to}
    return "program", {"number": number}


def tools(scheduler: Scheduler, seen: Seen) -> tuple[Tool, ...]:
    """One that may be repeated after a crash and one that must not."""

    async def look(_: ToolCall) -> str:
        await asyncio.sleep(scheduler.random.choice((0.0, 0.1)))
        return "seen"

    async def act(call: ToolCall) -> str:
        seen.tool_runs[call.id] = seen.tool_runs.get(call.id, 0) + 1
        seen.acted.append(call)
        await asyncio.sleep(scheduler.random.choice((0.0, 0.1)))
        return "done"

    nothing: dict[str, Any] = {"type": "object", "properties": {}}
    return (
        Tool(ToolSpec("look", "Looks.", nothing), look, restart_safe=True, effect="read"),
        Tool(ToolSpec("act", "Acts.", nothing), act),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender says, where, and what he wants done with the answer.

    Args:
        target: where the answer goes; None: nowhere.
        redeliveries: how often he says it once more, whatever he was told.
    """

    session: str
    content: str
    target: str | None = None
    lane: str = "main"
    redeliveries: int = 0
    late_s: float = 0.0  # so much later than the others he begins


class Sender:
    """Somebody who sends one message until it is acknowledged, then waits for what becomes of it."""

    def __init__(self, scheduler: Scheduler, seen: Seen, number: int, says: Said) -> None:
        self._scheduler = scheduler
        self._seen = seen
        self._number = number
        self._says = says
        self._key = f"key{number}"
        self.is_done = False
        self.living: list[SimProcess] = []  # the run keeps it up to date

    def run(self) -> None:
        random = self._scheduler.random
        self._scheduler.sleep(self._says.late_s)
        self._scheduler.sleep(random.random() * random.choice((0.0, 0.3, 2.0)))
        while self._key not in self._seen.acknowledged:
            self._send()
        self.is_done = True
        habit = random.random()
        if self._says.redeliveries:
            self._deliver_again()
        elif habit < 0.12:
            self._scheduler.sleep(random.random() * 0.5)
            self._cancel()
        elif habit < 0.3:
            self._send()  # once more, though it was acknowledged
        elif habit < 0.45:
            self._write_metadata()
        if random.random() < 0.4:
            self._wait_for_answer()

    def _deliver_again(self) -> None:
        """As whoever delivers webhooks does: the same once more, to whichever process is there by then; each time it is
        the input that it was, with the end that it had.
        """
        for _ in range(self._says.redeliveries):
            self._scheduler.sleep(self._scheduler.random.random() * self._scheduler.random.choice((0.02, 0.5, 3.0)))
            self._send()
            if self._scheduler.random.random() < 0.5:
                self._wait_for_answer()

    def _process(self) -> SimProcess | None:
        ready = [one for one in self.living if one.hf is not None]
        if not ready:
            self._scheduler.sleep(0.1)
            return None
        return ready[int(self._scheduler.random.random() * len(ready))]

    def _send(self) -> None:
        says = self._says
        event = InboundEvent(
            says.session, {"content": says.content}, source="simulation", key=self._key, lane=says.lane,
            route=None if says.target is None else Route(CHANNEL, says.target),
        )  # fmt: skip

        async def accept(hf: Holdfast) -> bool:
            admission = await hf.accept(event)
            if isinstance(admission, LaneFull):
                self._scheduler.note(f"no room for {self._key}")
                return False
            self._seen.acknowledge(self._key, admission.input_id)
            self._scheduler.note(f"acknowledged {self._key}: {type(admission).__name__}")
            if isinstance(admission, Duplicate):
                self._seen.on_duplicate()
            return True

        process = self._process()
        if process is not None:
            reply = process.ask(accept, 5.0)
            if reply.error is not None:
                self._scheduler.note(f"refused: {type(reply.error).__name__}")
            if not reply.value:
                self._scheduler.sleep(0.05 + self._scheduler.random.random() * 0.3)

    def _cancel(self) -> None:
        process = self._process()
        if process is not None:
            input_id = self._seen.acknowledged[self._key]
            self._seen.cancelled.add(input_id)
            reply = process.ask(lambda hf: hf.cancel(input_id, by="sender"), 5.0)
            self._scheduler.note(f"cancel {self._key}: {reply.value or reply.error or 'lost'}")

    def _write_metadata(self) -> None:
        async def write(hf: Holdfast) -> str:
            return await hf.session(self._says.session).append_metadata(custom("note", {"of": self._number}))

        process = self._process()
        if process is not None:
            process.ask(write, 5.0)

    def _wait_for_answer(self) -> None:
        input_id = self._seen.acknowledged[self._key]

        async def wait(hf: Holdfast) -> None:
            view = await hf.wait_input(input_id, 1.5)
            if view.settled:
                self._seen.tell(input_id, view.state, view.answer)
                self._scheduler.note(f"told {self._key}: {view.state}")

        for _ in range(4):
            process = self._process()
            if process is not None:
                reply = process.ask(wait, 5.0)
                if isinstance(reply.error, InputError):
                    self._seen.broken.append(f"P3: {input_id} was acknowledged and is not known: {reply.error}")
            if input_id in self._seen.told:
                return


class Person:
    """Somebody who is asked whether calls may run: says yes, or no, or nothing until it is too late."""

    def __init__(self, scheduler: Scheduler, seen: Seen) -> None:
        self._scheduler = scheduler
        self._seen = seen
        self._thought_of: set[str] = set()
        self.living: list[SimProcess] = []  # the run keeps it up to date

    def run(self) -> None:
        random = self._scheduler.random
        while True:
            self._scheduler.sleep(0.1 + random.random() * 0.6)
            ready = [one for one in self.living if one.hf is not None]
            if not ready:
                continue
            asked = ready[int(random.random() * len(ready))].ask(lambda hf: hf.approvals(pending=True), 5.0).value or ()
            for one in asked:
                if one.id not in self._thought_of:
                    self._thought_of.add(one.id)
                    self._answer(one.id, random.random())

    def _answer(self, approval: str, habit: float) -> None:
        """Through whichever process is there. Only a yes that reached somebody counts, and one may have reached him."""
        if habit > 0.8:
            return
        yes = habit < 0.65
        if yes:
            self._seen.said_yes.add(approval)
        ready = [one for one in self.living if one.hf is not None]
        if ready:
            process = ready[int(self._scheduler.random.random() * len(ready))]
            reply = process.ask(lambda hf: hf.answer_approval(approval, yes=yes, by="person"), 5.0)
            self._scheduler.note(f"{'yes' if yes else 'no'} to {approval}: {type(reply.error or reply.value).__name__}")
