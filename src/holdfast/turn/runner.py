"""What happens in a turn: the input's lines, then steps (one model call and its tool calls) until a final answer.

`Runner.run` is the function through which every turn of a gateway passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.clock import epoch_ms
from holdfast.context.plan import fit, own_lines, plan
from holdfast.errors import ProviderError, TurnLimitError
from holdfast.inbound.chat import new_messages, offered_tools
from holdfast.kernel import Holdfast
from holdfast.model import failover
from holdfast.model.client import ModelAnswer, ModelClient, ModelRequest, TextDelta, ThinkingDelta, ToolSpec
from holdfast.session import entries as made
from holdfast.session.entries import MessageEntry
from holdfast.store.views import InputView
from holdfast.turn.commands import Commands
from holdfast.turn.tools import Toolbox, ToolCall
from holdfast.turn.turn import Turn

OUTPUT_TOKENS_RESERVED = 16_384
"""Kept free in the window for the answer (semantics.md 2.8: reserveTokens)."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Passing one ends the turn with that name as its outcome's detail."""

    steps_max: int = 32
    tool_seconds_max: float = 600.0
    output_bytes_max: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How one agent answers. `strict`: the model chosen or none."""

    model: str = "demo/demo"
    fallbacks: tuple[str, ...] = ()
    system: str | None = None
    strict: bool = False


@dataclass(slots=True)
class _Work:
    """What one run needs at hand."""

    view: InputView
    agent: AgentSettings
    chain: list[str]
    client_tools: dict[str, ToolSpec]
    settings: dict[str, Any]
    system: str | None
    output_bytes: int = 0


class Runner:
    """Runs accepted inputs.

    Args:
        client_for: the model client of a reference such as "demo/demo".
        agent_for: settings of the agent behind a session key.
        context_window: tokens a model takes.
        commands: carries out slash commands; None: they are messages.
    """

    def __init__(
        self, hf: Holdfast, *, client_for: Callable[[str], ModelClient], agent_for: Callable[[str], AgentSettings],
        toolbox: Toolbox, limits: TurnLimits | None = None, context_window: Callable[[str], int] = lambda _: 128_000,
        commands: Commands | None = None,
    ) -> None:  # fmt: skip
        self._hf = hf
        self._client_for = client_for
        self._agent_for = agent_for
        self._toolbox = toolbox
        self._limits = limits or TurnLimits()
        self._context_window = context_window
        self._commands = commands

    async def run(self, turn: Turn, view: InputView) -> None:
        """From an owned session to its final line. Settling is the turn's own business.

        Raises:
            SessionTakeoverError, OwnershipLostError: the session was lost; a finished answer has been kept.
            ProviderError: no model answered. TurnLimitError, TurnCancelledError, ResourceError: as they say.
        """
        await turn.raise_if_cancelled()
        if self._commands is not None and await self._commands.in_turn(turn, view):
            return
        work = self._plan_work(view)
        await self._begin(turn, work)
        for step in range(1, self._limits.steps_max + 1):
            await turn.raise_if_cancelled()
            answer = await self._ask(turn, work, step)
            entry = MessageEntry(message=answer.message(epoch_ms(self._hf.clock.now())))
            calls = answer.tool_calls
            if not calls or any(call["name"] in work.client_tools for call in calls):
                await turn.append(entry, final=True)
                return
            await turn.append(entry)  # synced: the calls are on disk before a tool starts
            for call in calls:
                await self._run_tool(turn, call)
            if await turn.gives_way():
                return
            await turn.take_in("steer")
        raise TurnLimitError("steps", f"stopped after {self._limits.steps_max} steps without a final answer")

    def _plan_work(self, view: InputView) -> _Work:
        agent = self._agent_for(view.session)
        requested = view.model or agent.model
        chain = failover.build_chain(requested, agent.fallbacks, agent.model, strict=agent.strict)
        system = "\n\n".join(text for text in (agent.system, view.payload.get("system")) if text) or None
        tools = {tool.name: tool for tool in offered_tools(view.payload)}
        return _Work(view, agent, chain, tools, dict(view.payload.get("settings") or {}), system)

    async def _begin(self, turn: Turn, work: _Work) -> None:
        """The input's own lines, or what an earlier attempt has left of them and of its tool calls."""
        sends_history = "messages" in work.view.payload
        alignment = new_messages(work.view.payload, await turn.branch_before_input() if sends_history else [])
        tell = turn.publish if alignment.divergence is None else turn.note  # only a divergence belongs to the story
        tell("turn.history", history=alignment.history)
        turn.result_facts["history"] = alignment.history
        await turn.append_dropped(work.view)
        await turn.append_input(alignment.append)
        if work.view.queue in ("collect", "interrupt"):
            await turn.take_in("merge")
        for pending in await turn.pending_calls():
            tool = self._toolbox.find(pending.call["name"])
            is_ours = tool is not None and pending.call["name"] not in work.client_tools
            if pending.may_have_started and not (tool is not None and tool.restart_safe):
                await turn.append_interrupted(pending.call)
            elif is_ours:  # also one that stood beside a client's call, when the answer was handed over
                await self._run_tool(turn, pending.call)

    async def _ask(self, turn: Turn, work: _Work, step: int) -> ModelAnswer:
        """One model call, in a prompt window, with failover around it."""
        request = await self._request(turn, work)
        turn.note("turn.model", model=work.chain[0], step=step)
        streamed: list[str] = []

        async def on_item(item: TextDelta | ThinkingDelta) -> None:
            work.output_bytes += len(item.text.encode("utf-8", "replace"))
            if isinstance(item, TextDelta):
                streamed.append(item.text)
            if work.output_bytes > self._limits.output_bytes_max:
                raise TurnLimitError(
                    "output_bytes", f"stopped: more than {self._limits.output_bytes_max} bytes of answer"
                )
            turn.publish("turn.delta" if isinstance(item, TextDelta) else "turn.thinking", text=item.text)

        def on_decision(decision: failover.Decision) -> None:
            turn.note("turn.fallback", **asdict(decision))

        async with turn.prompt_window() as window:
            try:
                answer = await failover.ask(
                    work.chain, request, client_for=self._client_for, on_item=on_item, on_decision=on_decision
                )
            except asyncio.CancelledError:
                await self._keep_partial(turn, "".join(streamed), "interrupted")
                raise
            except ProviderError as failed:
                await self._keep_partial(turn, failed.partial or "".join(streamed), failed.reason or "unclassified")
                if failed.reason == "context_overflow":
                    raise TurnLimitError("context_overflow", _overflow_text(work.chain[0])) from failed
                raise
            if not answer.tool_calls:
                window.finished(answer.message(epoch_ms(self._hf.clock.now())))
        turn.note("turn.answer", model=f"{answer.provider}/{answer.model}", finish=answer.stop_reason)
        return answer

    async def _request(self, turn: Turn, work: _Work) -> ModelRequest:
        lines = await turn.branch()
        if work.view.payload.get("context") == "fresh":  # a timer's run begins without what was said before it
            lines = own_lines(lines, inputs=turn.answers, turn=turn.id)
        planned = plan(lines, inputs=turn.answers, turn=turn.id)
        room = max(1, self._context_window(work.chain[0]) - OUTPUT_TOKENS_RESERVED)
        fitted = fit(planned, room)
        if fitted.outcome == "trimmed":
            turn.note("turn.trimmed", dropped=fitted.dropped, tokens=fitted.tokens)
        tools = [*work.client_tools.values(), *(t for t in self._toolbox.specs() if t.name not in work.client_tools)]
        return ModelRequest(work.chain[0], fitted.messages, work.system, tools, work.settings)

    async def _run_tool(self, turn: Turn, call: Mapping[str, Any]) -> None:
        """Look at the epoch again, run, write the result. The write lock is free while the tool runs."""
        await turn.check()
        arguments = call.get("arguments") or {}
        turn.note("turn.tool_call", id=call["id"], name=call["name"])
        turn.publish("turn.tool_arguments", id=call["id"], name=call["name"], arguments=arguments)
        asked = ToolCall(call["id"], call["name"], arguments, turn.session, turn.id, turn.epoch)
        result = await self._toolbox.run(asked, seconds_max=self._limits.tool_seconds_max)
        await turn.append(
            made.tool_result(call["id"], call["name"], result.text or "(nothing)", is_error=result.is_error)
        )
        turn.note("turn.tool_result", id=call["id"], name=call["name"], is_error=result.is_error)

    async def _keep_partial(self, turn: Turn, text: str, why: str) -> None:
        """What was streamed before the end is kept for people; it is not the answer."""
        if text:
            await turn.append(made.custom("holdfast:partial", {"text": text, "why": why}))
            turn.note("turn.discarded", reason=why)


def _overflow_text(model: str) -> str:
    return (
        f"the conversation no longer fits the context window of {model}; start a new session, or choose a model with a "
        "larger window"
    )
