"""What runs in the processes of a storm until it is killed: users of the library, workers that answer and deliver, and
callers of `holdfast send`. Each writes down what it does and what it is told (`notes.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holdfast
from holdfast.channel.channel import ChannelTraits
from holdfast.cli.main import run as run_command
from holdfast.errors import CoordinationError, OwnershipLostError, ResourceError, SessionTakeoverError
from holdfast.ids import nonce
from holdfast.inbound.event import InboundEvent, LaneFull, Route
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ToolSpec, zero_usage
from holdfast.outbox.delivery import Courier
from holdfast.session.entries import Entry, text_of
from holdfast.testing.channel import FakeChannel
from holdfast.testing.storm.notes import Notebook, read_notes
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.tools import Tool, Toolbox, ToolCall
from holdfast.turn.turn import Turn

BEAT_S = 0.1
BEAT_TERM_S = 1.0
"""Short, so that a process that stands still for a while loses its turn within the storm."""
LONGEST_REQUEST_S = 0.3
MODEL = "demo/fast"
IN_A_WINDOW = "window"
"""The note of a user who waits for its model: one to be stopped for so long that others take its turn."""
PATIENCE_S = 5.0
TARGETS = 6
CALLS_A_TOOL = "#tool"
"""A message with this makes the model call a tool before it answers."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a storm happens. `clean` sessions are touched by nobody but us, `edited` ones by outsiders that add to
    them, `replaced` ones by outsiders that rename copies over them."""

    root: Path
    seed: int
    clean: tuple[str, ...] = tuple(f"agent:storm:clean-{number}" for number in range(6))
    edited: tuple[str, ...] = tuple(f"agent:storm:edited-{number}" for number in range(3))
    replaced: tuple[str, ...] = ("agent:storm:replaced",)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @property
    def sessions(self) -> tuple[str, ...]:
        return (*self.clean, *self.edited, *self.replaced)

    def platform(self, channel: str) -> Path:
        """What has arrived at a channel's receiving side, one line each."""
        return self.root / f"platform-{channel}.jsonl"

    def channels(self) -> list[FakeChannel]:
        """Two platforms: one that can be asked what has arrived, one that cannot."""
        return [
            FakeChannel(name, traits=traits, platform=self.platform(name))
            for name, traits in {
                "asked": ChannelTraits(reconciles=True, longest_request_s=LONGEST_REQUEST_S, text_max=100_000),
                "silent": ChannelTraits(reconciles=False, longest_request_s=LONGEST_REQUEST_S, text_max=100_000),
            }.items()
        ]

    def open(self, kind: str) -> contextlib.AbstractAsyncContextManager[Holdfast]:
        return holdfast.open(self.state, beat_s=BEAT_S, beat_term_s=BEAT_TERM_S, kind=kind)


def live(role: str, scene: Scene, slot: str, life: int) -> None:
    """Be one of the storm's processes until killed."""
    rng = random.Random(f"{scene.seed} {slot} {life}")
    book = Notebook(scene.notes, f"{slot}.{life}")
    before = scene.notes / f"{slot}.{life - 1}.jsonl"
    if role == "sender":
        send(scene, book, rng)
    elif role == "worker":
        asyncio.run(work(scene, book, rng))
    else:
        asyncio.run(User(scene, book, rng).live(before))


# ── users of the library ─────────────────────────────────────────────────────────────────────────────────────────────


class User:
    """Sends messages and answers its own; what was left open by the life before is sent again under the same key."""

    def __init__(self, scene: Scene, book: Notebook, rng: random.Random) -> None:
        self._scene = scene
        self._book = book
        self._rng = rng
        self._messages = 0

    async def live(self, before: Path) -> None:
        async with self._scene.open("library") as hf:
            self._hf = hf
            for key, session in unfinished(before):
                await self.message(key, session)
            acts = [self.new_message, self.post, self.library_turn, self.metadata, self.read, self.cancel]
            while True:
                act = self._rng.choices(acts, weights=[8, 5, 3, 2, 2, 1])[0]
                await act()

    def _session(self) -> str:
        return self._rng.choice(self._scene.sessions)

    def _key(self) -> str:
        self._messages += 1
        return f"{self._book.client}-{self._messages}"

    async def new_message(self) -> None:
        await self.message(self._key(), self._session())

    async def message(self, key: str, session: str) -> None:
        """Say it and see to its answer, whoever gives it."""
        input_id = await self.accept(key, session)
        if input_id is None:
            await asyncio.sleep(0.05)
            return
        until = time.monotonic() + PATIENCE_S
        view = await self._hf.input(input_id)
        while not view.settled and time.monotonic() < until:
            await self.try_to_answer(session, input_id, text_of_payload(view.payload))
            view = await self._hf.wait_input(input_id, timeout_s=0.2)
        if view.settled:
            self._book.event("answered", key=key, id=input_id, state=view.state, answer=view.answer)

    async def post(self) -> None:
        """Say it and leave the answer to others."""
        await self.accept(self._key(), self._session())

    async def accept(self, key: str, session: str) -> str | None:
        rng = random.Random(key)  # the same message when it is sent again
        text = f"message {key}. {CALLS_A_TOOL if rng.random() < 0.2 else ''}".strip()
        channel = rng.choice(["asked", "silent", ""])
        route = Route(channel, f"user-{rng.randrange(TARGETS)}") if channel else None
        number = self._book.call("accept", key=key, session=session, text=text)
        admission = await self._hf.accept(
            InboundEvent(session, {"content": text}, source="storm", key=key, route=route)
        )
        input_id = None if isinstance(admission, LaneFull) else admission.input_id
        self._book.result(number, "accept", id=input_id)
        return input_id

    async def try_to_answer(self, session: str, input_id: str, text: str) -> None:
        turn = await self.take(session, input_id)
        if turn is None:
            return
        await self.run_turn(turn, text)

    async def library_turn(self) -> None:
        turn = await self.take(self._session(), None)
        if turn is not None:
            await self.run_turn(turn, f"aside {nonce()[:8]}")

    async def run_turn(self, turn: Turn, text: str) -> None:
        """As an application would: the question, a model call in a window, the answer. Every call is written down."""
        failure: BaseException | None = None
        try:
            if turn.input_id is not None:
                await turn.append_input([{"role": "user", "content": text}])
            else:
                await self.append(turn, holdfast.user(text))
            if self._rng.random() < 0.1:
                await turn.context()
            async with turn.prompt_window() as window:
                self._book.event(IN_A_WINDOW, session=turn.session)
                await asyncio.sleep(self._rng.random() ** 3 * (1.0 if self._rng.random() < 0.15 else 0.1))
                window.finished(f"echo: {text}")
            await self.append(turn, holdfast.assistant(f"echo: {text}", model=MODEL))
        except OwnershipLostError as lost:
            failure = lost
            verdict = lost.verdict if isinstance(lost, SessionTakeoverError) else turn.lost
            self._book.event(
                "lost", session=turn.session, epoch=turn.epoch.number, verdict=verdict.kind if verdict else "",
                detail=verdict.detail if verdict else str(lost),
            )  # fmt: skip
        await self._hf.close_turn(turn, failure)

    async def take(self, session: str, input_id: str | None) -> Turn | None:
        number = self._book.call("take", session=session)
        try:
            turn = await self._hf.claim(session, wait_s=1.0, input_id=input_id)
        except CoordinationError as busy:
            self._book.result(number, "take", session=session, epoch=None, why=type(busy).__name__)
            return None
        if not isinstance(turn, Turn):
            self._book.result(number, "take", session=session, epoch=None, why=turn.why)
            return None
        self._book.result(number, "take", session=session, epoch=turn.epoch.number)
        return turn

    async def append(self, turn: Turn, entry: Entry) -> None:
        facts: dict[str, Any] = {"session": turn.session, "epoch": turn.epoch.number}
        number = self._book.call("append", **facts)
        try:
            line = await turn.append(entry)
        except OwnershipLostError:
            self._book.result(number, "append", **facts, line=None, verdict=turn.lost.kind if turn.lost else "")
            raise
        self._book.result(number, "append", **facts, line=line)

    async def metadata(self) -> None:
        session = self._session()
        number = self._book.call("metadata", session=session)
        try:
            line = await self._hf.session(session).append_metadata(
                holdfast.session_info(f"title {nonce()[:6]}"), durable=self._rng.random() < 0.5
            )
        except CoordinationError as unsettled:
            self._book.result(number, "metadata", session=session, line=None, why=type(unsettled).__name__)
        else:
            self._book.result(number, "metadata", session=session, line=line)

    async def read(self) -> None:
        session = self._session()
        number = self._book.call("read", session=session)
        try:
            lines = await self._hf.session(session).lines()
        except (holdfast.UnknownSessionError, FileNotFoundError, ResourceError):
            return  # nobody has written there yet
        self._book.result(number, "read", session=session, length=sum(line.kind == "entry" for line in lines))

    async def cancel(self) -> None:
        """Send a message and want it back."""
        key = self._key()
        input_id = await self.accept(key, self._session())
        if input_id is not None:
            number = self._book.call("cancel", id=input_id)
            self._book.result(number, "cancel", id=input_id, said=await self._hf.cancel(input_id, by="its sender"))


def unfinished(before: Path) -> list[tuple[str, str]]:
    """(key, session) of messages that the life before had begun and not seen the end of; at most the last two."""
    if not before.exists():
        return []
    begun: dict[str, str] = {}
    for note in read_notes(before):
        if note.kind == "call" and note.what == "accept":
            begun[note.facts["key"]] = note.facts["session"]
        elif note.what == "answered":
            begun.pop(note.facts["key"], None)
    return list(begun.items())[-2:]


def text_of_payload(payload: dict[str, Any]) -> str:
    content = payload["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class InstantModel:
    """Answers within some milliseconds: "re: " and the newest message; asks for the tool first where that says so."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        await asyncio.sleep(self._rng.random() ** 3 * 0.05)
        newest = request.messages[-1] if request.messages else {"role": "user", "content": ""}
        said = next((one for one in reversed(request.messages) if one["role"] == "user"), newest)
        text = text_of(said)
        if newest["role"] == "user" and CALLS_A_TOOL in text:
            call = {"type": "toolCall", "id": f"call-{nonce()}", "name": "work", "arguments": {}}
            yield ModelAnswer([call], "toolUse", "demo", "fast", "instant", zero_usage())
            return
        answer = f"re: {text}"
        yield TextDelta(answer)
        yield ModelAnswer([{"type": "text", "text": answer}], "stop", "demo", "fast", "instant", zero_usage())


async def work(scene: Scene, book: Notebook, rng: random.Random) -> None:
    """Answer and deliver, as a gateway without its socket does."""
    async with scene.open("worker") as hf, serving(hf, scene, book, rng):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def serving(hf: Holdfast, scene: Scene, book: Notebook, rng: random.Random) -> AsyncIterator[None]:
    """A worker and a courier run; leaving stops both in order. If one of them fails, so does what runs in here."""

    async def do_work(call: ToolCall) -> str:
        book.event("tool", call=call.id, session=call.session, epoch=call.epoch.number)
        return "done"

    nothing = {"type": "object", "properties": {}}
    model, limits = InstantModel(rng), LaneLimits()
    runner = Runner(
        hf,
        client_for=lambda _: model,
        agent_for=lambda _: AgentSettings(model=MODEL),
        toolbox=Toolbox([Tool(ToolSpec("work", "Does something that must not be done twice.", nothing), do_work)]),
    )
    worker, courier = Worker(hf, runner.run, limits=limits), Courier(hf, scene.channels())
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(worker.run()), group.create_task(courier.run())]
        try:
            yield
        finally:
            await worker.stop(1.0)
            await courier.stop(1.0)
            for loop in loops:
                loop.cancel()


# ── callers of the command ───────────────────────────────────────────────────────────────────────────────────────────


def send(scene: Scene, book: Notebook, rng: random.Random) -> None:
    """`holdfast send`, again and again: through a gateway if one runs, else in this process."""
    for message in range(1, 1_000_000):
        key, session = f"{book.client}-{message}", rng.choice(scene.sessions)
        text = f"message {key}."
        number = book.call("send", key=key, session=session, text=text)
        asked = ["--state", str(scene.state), "send", session, text, "--key", key, "--model", MODEL, "--json"]
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            code = run_command([*asked, "--timeout", f"{PATIENCE_S}"])
        found = json.loads(shown.getvalue()) if shown.getvalue() else {}
        facts = {name: found.get(name) for name in ("id", "state", "answer")}
        book.result(number, "send", code=code, key=key, **facts)
