"""What every call of a turn passes before it runs: loops, the policy, and a person where the policy says so.

The gate decides outside the model, by what the ledger knows of the turn and never by what the model says. What it
does not let through has a result like any other call, for the model to read, and is a line of the turn's story.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from holdfast.errors import TurnLimitError
from holdfast.inbound.event import Route
from holdfast.lane.queue import USER_LANE
from holdfast.session.key import parse_key
from holdfast.text import on_one_line
from holdfast.tool import consent
from holdfast.tool.approval import TIMEOUT_S, ApprovalOrder, NotAsked, result_text, shown_arguments
from holdfast.tool.loops import Calls, LoopLimits
from holdfast.tool.origin import top_of
from holdfast.tool.policy import Caller, Effect, Policy, Ruling, held_back, is_trusted, rule
from holdfast.tool.redact import Redactor
from holdfast.turn.tools import Tool, Toolbox, ToolCall, ToolResult

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

log = logging.getLogger("holdfast.tools")


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How calls are let through.

    Args:
        timeout_s: how long a person has to answer.
        notice_route: where questions are put that nobody may be asked where the message came from; None: nowhere, they
            are only in lists.
    """

    policy: Policy = field(default_factory=Policy)
    loops: LoopLimits = field(default_factory=LoopLimits)
    timeout_s: float = TIMEOUT_S
    notice_route: Route | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A call that does not run. `ends`: what the turn ends with once the result is written."""

    result: ToolResult
    ends: TurnLimitError | None = None


class Gate:
    """One for all turns of a gateway.

    Args:
        redactor: takes secrets out of what is shown and kept.
    """

    def __init__(self, hf: Holdfast, settings: GateSettings, redactor: Redactor) -> None:
        self.hf = hf
        self.settings = settings
        self.redactor = redactor

    async def passage(self, turn: Turn) -> Passage:
        """The way of one turn's calls. Which conversation is above a sub-agent's is asked once."""
        view = turn.view
        top, above = await top_of(self.hf, turn.session)
        route = view.route if view is not None and view.route is not None else above
        channel = route.partition(":")[0] if route else parse_key(top).channel or ""
        caller = Caller(parse_key(turn.session).agent, turn.rights, channel, top)
        return Passage(self, turn, caller, Calls(self.settings.loops), route)


@dataclass(slots=True)
class Passage:
    """The way of the calls of one turn. `route`: of its answer, or of whoever is above it."""

    gate: Gate
    turn: Turn
    caller: Caller
    calls: Calls
    route: str | None

    def offered(self, toolbox: Toolbox) -> frozenset[str]:
        """The tools that a model is shown: all but those that would be denied whatever it asks for."""
        return frozenset(tool.spec.name for tool in toolbox if self._rule(tool.spec.name, _mildest(tool)).say != "deny")

    def held_back_for_notes(self, name: str, effect: Effect) -> str:
        """Why a tool may not be used for notes, in words; empty: it may. The conversation's own rights count, not those
        of the lane in which it is shortened.
        """
        return held_back(self.gate.settings.policy, replace(self.caller, lane=USER_LANE), name, effect)

    async def was_only_asked(self, call: ToolCall) -> bool:
        """Whether a call of an attempt that has died has certainly not run: its question was not answered, or the
        answer not used. That question is void now.
        """
        if call.input_id is None:
            return False
        return await self.gate.hf.store.take_over_question(call.input_id, call.id, call.digest)

    async def admit(self, tool: Tool, call: ToolCall) -> Held | None:
        """Whether a call may run now (None), or what its result is. May wait for a person.

        Raises:
            SessionTakeoverError, OwnershipLostError: the session was lost meanwhile.
        """
        circles = self.calls.next(call.name, call.digest)
        if circles is not None:
            self.turn.note("tool.loop", id=call.id, name=call.name, loop=circles.loop)
            ends = TurnLimitError(circles.loop, f"stopped: {circles.text}") if circles.is_last else None
            more = "" if circles.is_last else ". Do something else, or answer with what there is"
            return Held(ToolResult(f"not run ({circles.loop}): {circles.text}{more}", is_error=True), ends)
        ruling = self._rule(call.name, tool.effect_of(call))
        if ruling.say == "allow":
            return None
        if ruling.say == "deny":
            self.turn.note("tool.denied", id=call.id, name=call.name, why=ruling.why)
            log.warning("turn %s: %s was denied: %s", self.turn.id, on_one_line(call.name), on_one_line(ruling.why))
            return Held(ToolResult(f"denied: {call.name} was not run: {ruling.why}", is_error=True))
        return await self._ask(tool, call, ruling)

    def _rule(self, name: str, effect: Effect) -> Ruling:
        return rule(self.gate.settings.policy, self.caller, name, effect)

    # ── a person ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, tool: Tool, call: ToolCall, ruling: Ruling) -> Held | None:
        store, subject = self.gate.hf.store, tool.subject_of(call)
        grant = await store.granted(call.session, call.name, subject)
        if grant is not None:
            self.turn.note("tool.granted", id=call.id, name=call.name, by=grant.by)
            return None
        settings = self.gate.settings
        order = ApprovalOrder(
            call.session, call.input_id, call.turn, call.epoch.nonce, call.id, call.name, call.digest, subject,
            shown_arguments(self.gate.redactor.value(call.arguments)), ruling.why, self._notices(), settings.timeout_s,
        )  # fmt: skip
        call.wait_for_person(f"{call.name} ({order.id})")
        answer = await consent.ask(self.gate.hf, self.turn, order)
        if isinstance(answer, NotAsked):
            return Held(ToolResult(f"not run: {answer.text}", is_error=True))
        if answer.state == "used":
            return None
        return Held(ToolResult(result_text(answer, settings.timeout_s), is_error=True))

    def _notices(self) -> tuple[Route, ...]:
        """Where the question is put: to whoever asked, if they may answer it; else to the operator."""
        settings = self.gate.settings
        is_theirs = self.route is not None and is_trusted(settings.policy, self.caller)
        own = Route.parse(self.route) if is_theirs and self.route is not None else settings.notice_route
        return () if own is None else (own,)


def _mildest(tool: Tool) -> Effect:
    """Of a tool whose effect depends on the call."""
    return "none" if callable(tool.effect) else tool.effect
