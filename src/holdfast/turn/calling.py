"""The tool calls of a turn: each passes the gate, is run, and has its result written behind it, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import TurnCancelledError, TurnLimitError, TurnStalledError
from holdfast.inbound.event import Route
from holdfast.model.client import ToolSpec
from holdfast.session import entries as made
from holdfast.store.views import InputView
from holdfast.turn.tools import Toolbox, ToolCall, ToolResult, cut
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from holdfast.tool.gate import Passage
    from holdfast.tool.redact import Redactor


@dataclass(slots=True)
class Calling:
    """What the calls of one turn need at hand.

    Args:
        toolbox: of its agent. workspace: the folder its tools work in.
        seconds_max: longest run of one call.
        is_fresh: the turn is shown nothing of its session but its own input.
        passage: what each call has to pass; None: whatever a model asks for is run.
        sleep: by which clock a tool that was stopped gets its time to end.
        redactor: takes secrets out of what is shown and written down.
    """

    turn: Turn
    view: InputView
    toolbox: Toolbox
    workspace: str
    seconds_max: float
    is_fresh: bool = False
    passage: Passage | None = None
    redactor: Redactor | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def clean(self, message: dict[str, Any]) -> dict[str, Any]:
        """An answer without secrets in the arguments of its calls, as it is written down."""
        return message if self.redactor is None else self.redactor.message(message)

    def specs(self) -> list[ToolSpec]:
        """What a model is shown: what it may use, or ask for."""
        found = self.toolbox.specs(self.turn.session, self.turn.lane)
        if self.passage is None:
            return found
        offered = self.passage.offered(self.toolbox)
        return [one for one in found if one.name in offered]

    async def run_all(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """The calls of one answer, in order. If a limit ends the turn, those that are left have a result as well."""
        for at, call in enumerate(calls):
            try:
                await self.run(call)
            except TurnLimitError:
                for rest in calls[at + 1 :]:
                    text = "not run: the turn was stopped before"
                    await self.turn.append(made.tool_result(rest["id"], rest["name"], text, is_error=True))
                raise

    async def run(self, call: Mapping[str, Any]) -> None:
        """Look at the epoch again, pass the gate, run, write the result. The write lock is free while the tool runs.

        Raises:
            TurnLimitError: the calls go in circles, or a tool does not end. As `Turn.append`.
        """
        turn = self.turn
        await turn.check()
        asked = self.made_of(call)
        name = asked.name
        turn.note("turn.tool_call", id=asked.id, name=name)
        shown = asked.arguments if self.redactor is None else self.redactor.value(asked.arguments)
        turn.publish("turn.tool_arguments", id=asked.id, name=name, arguments=shown)
        limit_s = self.toolbox.limit_s(name, self.seconds_max)
        turn.begins("tool", name, limit_s=limit_s)
        tool, held = self.toolbox.find(name), None
        try:
            if tool is not None and self.passage is not None:
                held = await self.passage.admit(tool, asked)
                turn.begins("tool", name, limit_s=limit_s)
            result = held.result if held is not None else await self._within_limit(asked)
        except (asyncio.CancelledError, TurnCancelledError, TurnStalledError):
            if turn.is_to_stop:  # else its process ends, and the next attempt sees to the call
                await turn.append(made.tool_result(asked.id, name, _stopped_text(turn), is_error=True))
            raise
        turn.begins("model")
        text = result.text if self.redactor is None else self.redactor.text(result.text)
        await turn.append(made.tool_result(asked.id, name, text or "(nothing)", is_error=result.is_error))
        turn.note("turn.tool_result", id=asked.id, name=name, is_error=result.is_error)
        if held is not None and held.ends is not None:
            raise held.ends

    async def _within_limit(self, asked: ToolCall) -> ToolResult:
        """Run a tool. One that does not end when it is stopped has a result that says so, and ends the turn."""
        try:
            return await self.toolbox.run(asked, seconds_max=self.seconds_max, sleep=self.sleep)
        except TurnLimitError as deaf:
            await self.turn.append(made.tool_result(asked.id, asked.name, str(deaf), is_error=True))
            raise

    async def resume(self, call: Mapping[str, Any], *, may_have_started: bool, is_clients: bool) -> None:
        """See to a call of an earlier attempt that has no result. It is run again only where that does no harm, or
        where it is certain that it has not run: nobody had answered whether it may.
        """
        tool = self.toolbox.find(call["name"])
        is_ours = tool is not None and not is_clients
        is_safe = not may_have_started or (tool is not None and tool.restart_safe)
        if not is_safe and is_ours and self.passage is not None:
            is_safe = await self.passage.was_only_asked(self.made_of(call))
        if not is_safe:
            await self.turn.append_interrupted(dict(call))
        elif is_ours:  # also one that stood beside a client's call, when the answer was handed over
            await self.run(call)

    def made_of(self, call: Mapping[str, Any]) -> ToolCall:
        """A call as its tool gets it."""
        turn, redact = self.turn, self.redactor.text if self.redactor is not None else str

        def say(text: str) -> None:
            turn.heard()
            if text:
                turn.publish("turn.tool_output", id=call["id"], name=call["name"], text=cut(redact(text)))

        def wait_for_person(what: str) -> None:
            turn.begins("question", what or call["name"])

        return ToolCall(
            call["id"], call["name"], call.get("arguments") or {}, turn.session, turn.id, turn.epoch, turn.rights, say,
            wait_for_person, self.workspace, turn.input_id,
            None if self.view.route is None else Route.parse(self.view.route), self.is_fresh, turn.check,
        )  # fmt: skip


def _stopped_text(turn: Turn) -> str:
    """The result of a call that was cut off: what is known of it."""
    who = turn.stopped_for or turn.timed_out or f"by {turn.cancelled_by}"
    return f"stopped {who}: no result, whatever it was to do is denied or left half done"
