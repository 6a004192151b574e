"""What tools there are in a run that has them: what each call has to pass, messages, programs in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.clock import Clock
from holdfast.kernel import Holdfast
from holdfast.model.client import ToolSpec
from holdfast.testing.simulation.ways import ASKED_S, CHANNEL
from holdfast.tool.background import Background
from holdfast.tool.gate import Gate, GateSettings
from holdfast.tool.message import message_tool
from holdfast.tool.policy import Policy, Rules
from holdfast.tool.process import How, Order, Ran
from holdfast.tool.redact import Redactor
from holdfast.turn.tools import Tool, ToolCall

PROGRAM = "program"
SETTINGS = GateSettings(Policy(Rules(allow=(PROGRAM,))), timeout_s=ASKED_S)
"""A program runs unasked, so that there are enough of them; what changes something or goes to others is asked about."""


class SimRunning:
    """A program that takes its time, says a word and ends; with its process at the latest."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._stopped = asyncio.Event()
        self._how: How = "ended"

    def stop(self, how: How = "lost") -> None:
        self._how = how
        self._stopped.set()

    async def run(self) -> Ran:
        waits = [asyncio.ensure_future(one) for one in (self._clock.sleep(self._seconds), self._stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return Ran(self._how, 0, self._seconds, "done")


def background_of(hf: Holdfast, seconds: Callable[[], float]) -> Background:
    """Programs of a process. `seconds`: how long the next one takes."""

    async def start(_: Order, clock: Clock) -> SimRunning:
        return SimRunning(clock, seconds())

    return Background(hf, start=start)


def gate_of(hf: Holdfast) -> Gate:
    return Gate(hf, SETTINGS, Redactor([]))


def tools_of(hf: Holdfast, background: Background) -> list[Tool]:
    """Those that a gateway has besides the ones of the model's own run."""

    async def program(call: ToolCall) -> str:
        return await background.begin(call, Order((PROGRAM, str(call.arguments["number"])), "/", {}, 60.0))

    spec = ToolSpec(PROGRAM, "Runs in the background.", {"type": "object", "properties": {}})
    return [message_tool(hf, channels={CHANNEL}), Tool(spec, program, effect="run")]
