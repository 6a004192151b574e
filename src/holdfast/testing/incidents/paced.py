"""A model and a platform that go on only when a scenario says so; what passes over them is written down at once.

Unlike `ScriptedModel` and `FakeChannel`, which follow a plan made beforehand, these are told step by step, turn by
turn, and both can be set free: then the model answers by itself and the platform takes everything.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.clock import Clock, epoch_ms
from holdfast.context import summary
from holdfast.errors import ChannelRefusedError, ProviderError, SendUnknownError
from holdfast.inbound.heartbeat import ACK_TOKEN
from holdfast.model.catalog import split_ref
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, zero_usage
from holdfast.session.entries import text_of
from holdfast.turn.tools import ToolCall
from holdfast.turn.turn import current_turn


class Journal:
    """A file of one JSON object per line, shared by all processes of a world: what was seen, and when."""

    def __init__(self, path: Path, process: str, clock: Clock) -> None:
        self._path = path
        self._process = process
        self._clock = clock

    def write(self, **row: Any) -> None:
        """One row in one write, so that a process killed afterwards has said it whole."""
        stamp = {
            "process": self._process, "at_ms": epoch_ms(self._clock.now()), "real_s": time.monotonic(),
            "cpu_s": time.process_time(),
        }  # fmt: skip
        fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps({**stamp, **row}, default=str).encode() + b"\n")
        finally:
            os.close(fd)


@dataclass(slots=True)
class Ask:
    """One request at the provider, and what it will stream. `calls`: tool calls that were announced."""

    turn: str | None
    request: ModelRequest
    orders: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)
    calls: list[str] = field(default_factory=list)
    thinking: list[dict[str, Any]] = field(default_factory=list)


class PacedModel:
    """A `ModelClient` whose answers come piece by piece, as told. Any model reference will do."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.open: list[Ask] = []
        self.broken: dict[str, dict[str, Any]] = {}  # providers that fail at once, and how
        self.free = False

    def set_free(self, free: bool) -> None:
        """Free: every open request, and every later one, is answered at once with "re: " and the newest message; a
        heartbeat with its acknowledgement.
        """
        self.free = free
        if free:
            for ask in self.open:
                ask.orders.put_nowait(("end", None))

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        ask = Ask(current_turn.get(), request)
        self.open.append(ask)
        self._journal.write(what="ask", turn=ask.turn, model=request.model, messages=request.messages, number=id(ask))
        provider, _ = split_ref(request.model)
        if provider in self.broken:
            ask.orders.put_nowait(("fail", self.broken[provider]))
        elif self.free:
            ask.orders.put_nowait(("end", None))
        try:
            while True:
                order, value = await ask.orders.get()
                if order == "end":
                    yield _answer(ask, value)
                    return
                for item in self._piece(ask, order, value):
                    yield item
        finally:
            self.open.remove(ask)
            self._journal.write(what="asked", turn=ask.turn, number=id(ask))

    @staticmethod
    def _piece(ask: Ask, order: str, value: Any) -> list[StreamItem]:
        if order == "fail":
            raise ProviderError(value["body"] or "no answer", status=value["status"] or None, provider=split_ref(
                ask.request.model)[0])  # fmt: skip
        if order == "call":
            ask.calls.append(value)
            return []
        if order == "thinking":
            ask.thinking.append({"type": "thinking", "thinking": "hm", **value})
            return [ThinkingDelta("hm")]
        if order == "partial_call":  # the provider announces a call and has not sent its arguments yet
            return []
        return [TextDelta(value)]


def _answer(ask: Ask, text: str | None) -> ModelAnswer:
    provider, model = split_ref(ask.request.model)
    calls = [{"type": "toolCall", "id": one, "name": "work", "arguments": {}} for one in ask.calls]
    if text is None and ask.request.system == summary.SYSTEM:
        text = "what was said before, in short"
    elif text is None and not calls:
        said = text_of(ask.request.messages[-1])
        text = ACK_TOKEN if said.startswith("Heartbeat at") else f"re: {said}"
    content: list[dict[str, Any]] = [*ask.thinking, *([{"type": "text", "text": text}] if text else []), *calls]
    return ModelAnswer(content, "toolUse" if calls else "stop", provider, model, "paced", zero_usage())


class PacedTool:
    """The work a tool does: as long as the scenario says.

    Args:
        limit_s: what a call may take on the world's clock, as the toolbox sees to on the real one; None: any time.
        deaf: hears neither of that nor that it is stopped; it ends when it is set free.
    """

    def __init__(self, journal: Journal, clock: Clock, limit_s: float | None = None, *, deaf: bool = False) -> None:
        self._journal = journal
        self._clock = clock
        self._limit_s = None if deaf else limit_s
        self._deaf = deaf
        self.calls: dict[str, ToolCall] = {}
        self.running: dict[str, asyncio.Future[bool]] = {}
        self.free = False

    def set_free(self, free: bool) -> None:
        self.free = free
        if free:
            for ended in self.running.values():
                if not ended.done():
                    ended.set_result(True)

    async def run(self, call: ToolCall) -> str:
        self._journal.write(what="tool", turn=call.turn, call=call.id)
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.running[call.id] = ended
        self.calls[call.id] = call
        alarm = None if self._limit_s is None else asyncio.create_task(self._expire(ended, self._limit_s))
        if self.free:
            ended.set_result(True)
        try:
            while self._deaf and not ended.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({ended})
            if not await ended:
                raise RuntimeError(f"the work of {call.id} failed")
        finally:
            if alarm is not None:
                alarm.cancel()
            self.running.pop(call.id, None)
            self.calls.pop(call.id, None)
            self._journal.write(what="tool_ended", turn=call.turn, call=call.id)
        return f"result of {call.id}"

    async def _expire(self, ended: asyncio.Future[bool], limit_s: float) -> None:
        await self._clock.sleep(limit_s)
        if not ended.done():
            ended.set_exception(TimeoutError(f"stopped after {limit_s:g} s"))


class PacedChannel:
    """A platform that takes messages in its own time. Sends for inputs in `paced` wait for an order each."""

    def __init__(self, journal: Journal, input_of: Callable[[str], Awaitable[str | None]], text_max: int) -> None:
        self._journal = journal
        self._input_of = input_of
        self._orders: dict[str, asyncio.Queue[str]] = {}
        self.traits = ChannelTraits(reconciles=False, longest_request_s=30.0, text_max=text_max)
        self.paced: set[str] = set()
        self.begun: set[str] = set()
        self.hanging: list[asyncio.Future[None]] = []
        self.free = False

    @property
    def name(self) -> str:
        return "test"

    def order(self, input_id: str, what: str) -> None:
        """What becomes of the next send for an input: "ok", "fail" or "unknown"."""
        self._orders.setdefault(input_id, asyncio.Queue()).put_nowait(what)

    def set_free(self, free: bool) -> None:
        """Free: everything that waits, and everything later, is taken."""
        self.free = free
        if free:
            for input_id in self.begun:
                self.order(input_id, "ok")

    def drop_links(self) -> None:
        """Connections that hang after the message has arrived break now."""
        for link in self.hanging:
            if not link.done():
                link.set_result(None)
        self.hanging.clear()

    async def send(self, request: SendRequest) -> Sent:
        input_id = await self._input_of(request.delivery_id) or ""
        order = "ok"
        if input_id in self.paced and not self.free:
            self.begun.add(input_id)
            try:
                order = await self._orders.setdefault(input_id, asyncio.Queue()).get()
            finally:
                self.begun.discard(input_id)
        if order == "fail":
            raise ChannelRefusedError("the platform does not take it now")
        self._journal.write(
            what="message", delivery=request.delivery_id, target=request.target, text=request.text, label=request.label
        )
        if order == "unknown":
            link: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.hanging.append(link)
            await link
            raise SendUnknownError("connection lost before the answer")
        return Sent()

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        raise SendUnknownError(f"this platform cannot be asked about {delivery_id} to {target}")
