"""Tools a model may call, and running one: with the turn held, the write lock free, and the epoch looked at just
before.

A tool gets a `ToolCall` with the epoch as fencing token, so that what it touches can refuse a turn that lost its
session.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.clock import Clock, iso
from holdfast.errors import TurnLimitError
from holdfast.ids import derived_id
from holdfast.inbound.event import Route
from holdfast.model.client import ToolSpec
from holdfast.session.fence import Epoch
from holdfast.tool.policy import Effect

log = logging.getLogger("holdfast.turn")
DEAF_S = 30.0
"""So long a tool that was stopped at its limit may take to end."""
STOP_S = 5.0
"""The same where the turn itself is to stop; less than whoever asked for that waits for it (`watching.SETTLE_S`)."""
_left_behind: set[asyncio.Future[Any]] = set()
"""Tools that go on although they were stopped; kept, so that they are not collected in the middle."""
RESULT_BYTES_MAX = 256 * 1024
"""A result longer than this is cut, and says so."""


def _say_nothing(_: str) -> None:
    return


async def _as_ever() -> None:
    return


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: who asks for what, under which right.

    Args:
        rights: the lane whose rights count: the turn's own, and for a sub-agent that of the conversation above it.
        say: tells whoever watches what the tool has to say meanwhile, and that it goes on.
        workspace: the folder of the agent, made by whoever first writes to it; empty: none was named.
        wait_for_person: says that from now on the tool waits for a person, who may take as long as they like.
        input_id: the input that the turn answers, if it is one. route: where the answer to it goes.
        fresh: the turn is shown nothing of the session but its own input.
        check: raises if the session is no longer the turn's; for tools that take long.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    session: str
    turn: str
    epoch: Epoch
    rights: str = "main"
    say: Callable[[str], None] = _say_nothing
    wait_for_person: Callable[[str], None] = _say_nothing
    workspace: str = ""
    input_id: str | None = None
    route: Route | None = None
    fresh: bool = False
    check: Callable[[], Awaitable[None]] = _as_ever

    @property
    def digest(self) -> str:
        """Names tool and arguments exactly: what an approval is bound to, what makes two calls the same."""
        return derived_id("arguments", self.name, json.dumps(self.arguments, sort_keys=True, default=str))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool.

    Args:
        run: gets the call, returns text or something JSON-able. May be cancelled.
        restart_safe: repeating it does no harm; after a crash it is run again instead of reported as interrupted.
        seconds_max: longest run; None: the turn's own limit.
        offered: whether models are shown it in a session and lane; None: in all.
        effect: what a call does to the world (`tool/policy.py`), or a function that tells it from a call. What nothing
            is known of may change something.
        covers: what a consent that was given for a whole session covers: calls for which this is the same text. None:
            those with the very same arguments.
    """

    spec: ToolSpec
    run: Callable[[ToolCall], Awaitable[Any]]
    restart_safe: bool = False
    seconds_max: float | None = None
    offered: Callable[[str, str], bool] | None = None
    effect: Effect | Callable[[ToolCall], Effect] = "change"
    covers: Callable[[ToolCall], str] | None = None

    def effect_of(self, call: ToolCall) -> Effect:
        return self.effect(call) if callable(self.effect) else self.effect

    def subject_of(self, call: ToolCall) -> str:
        """What a consent for the session, given for this call, covers."""
        return call.digest if self.covers is None else self.covers(call)


@dataclass(frozen=True, slots=True)
class ToolResult:
    text: str
    is_error: bool = False


class Toolbox:
    """The tools of an agent, by name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}

    def only(self, names: Collection[str] | None) -> Toolbox:
        """Those of an agent that may use these alone; None: all. A name without a tool is no fault."""
        if names is None:
            return self
        return Toolbox(tool for name, tool in self._tools.items() if name in names)

    def specs(self, session: str, lane: str) -> list[ToolSpec]:
        """What a model is shown in a turn of this session and lane."""
        return [one.spec for one in self._tools.values() if one.offered is None or one.offered(session, lane)]

    def find(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def with_more(self, tools: Iterable[Tool]) -> Toolbox:
        """The same with others; of two with one name the one that was there stays."""
        return Toolbox([*(tool for tool in tools if tool.spec.name not in self._tools), *self._tools.values()])

    def limit_s(self, name: str, seconds_max: float) -> float:
        """How long a call of this tool may take, of at most `seconds_max`."""
        tool = self._tools.get(name)
        return seconds_max if tool is None else min(seconds_max, tool.seconds_max or seconds_max)

    async def run(
        self, call: ToolCall, *, seconds_max: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> ToolResult:
        """Run one call. What goes wrong in a tool is its result, for the model to read.

        Args:
            sleep: by which clock a tool that was stopped gets its time to end.

        Raises:
            TurnLimitError: stopped at its limit it did not end. It is left behind, and nobody can say what it may still
                do: the turn must not go on beside it.

        Cancelled: the tool is stopped, too, and left behind if it does not hear of that: whoever stops a turn is heard.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolResult(
                f"there is no tool {call.name!r}; there are: {', '.join(self._tools) or 'none'}", is_error=True
            )
        limit = self.limit_s(call.name, seconds_max)
        work = asyncio.ensure_future(_result_of(tool, call))
        try:
            await asyncio.wait({work}, timeout=limit)
        except asyncio.CancelledError:
            await _stop(work, call, STOP_S, sleep)
            raise
        if work.done():
            return _outcome(work, f"tool {call.name} was cancelled from within")
        stopped = f"tool {call.name} was stopped after {limit:g} s"
        if not await _stop(work, call, DEAF_S, sleep):
            raise TurnLimitError("tool_seconds", f"{stopped} and did not end; what it may still do is not known")
        late = _outcome(work, stopped)
        return ToolResult(stopped, is_error=True) if late.is_error else late


async def _result_of(tool: Tool, call: ToolCall) -> ToolResult:
    try:
        value = await tool.run(call)
        return ToolResult(cut(value if isinstance(value, str) else json.dumps(value, default=str)))
    except (Exception, SystemExit) as exc:  # noqa: BLE001  # the edge of the tool: its errors are answers
        return ToolResult(f"{type(exc).__name__}: {exc}", is_error=True)


def _outcome(work: asyncio.Future[ToolResult], if_cancelled: str) -> ToolResult:
    return ToolResult(if_cancelled, is_error=True) if work.cancelled() else work.result()


async def _stop(
    work: asyncio.Future[ToolResult], call: ToolCall, grace_s: float, sleep: Callable[[float], Awaitable[None]]
) -> bool:
    """Stop a tool; whether it ended within `grace_s`. One that does not is left behind: it is a program that swallows
    cancellation, and cannot be ended without its process.
    """
    work.cancel()
    alarm = asyncio.ensure_future(sleep(grace_s))
    try:
        await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        alarm.cancel()
        if not work.done():
            _left_behind.add(work)
            work.add_done_callback(_left_behind.discard)
            log.error("tool %s of turn %s was stopped and does not end: it is left behind", call.name, call.turn)
    return work.done()


def cut(text: str) -> str:
    """At most `RESULT_BYTES_MAX` bytes, with a note if something was left out."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= RESULT_BYTES_MAX:
        return text
    return raw[:RESULT_BYTES_MAX].decode("utf-8", "ignore") + f"\n… ({len(raw) - RESULT_BYTES_MAX} bytes left out)"


def built_in_tools(clock: Clock) -> list[Tool]:
    """Harmless tools that every gateway has: the time, and an echo to try things with."""

    async def now(_: ToolCall) -> str:
        return iso(clock.now())

    async def echo(call: ToolCall) -> str:
        return str(call.arguments.get("text", ""))

    nothing = {"type": "object", "properties": {}}
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return [
        Tool(ToolSpec("now", "The time now, UTC.", nothing), now, restart_safe=True, effect="none"),
        Tool(ToolSpec("echo", "Gives the text back.", text), echo, restart_safe=True, effect="none"),
    ]
