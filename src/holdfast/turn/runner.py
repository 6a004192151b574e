"""What happens in a turn: the input's lines, then steps (one model call and its tool calls) until a final answer.

`Runner.run` is the function through which every turn of a gateway passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holdfast.clock import epoch_ms
from holdfast.context.budget import Budget, count_tokens, counted_by_provider, estimate_tokens
from holdfast.context.conversions import AllConversions
from holdfast.context.memory import unfit_session
from holdfast.context.plan import HISTORY_TYPE, Plan, fit, own_lines, plan
from holdfast.context.prune import CACHE_TTL_S, prune
from holdfast.context.settings import CompactionSettings
from holdfast.context.system_prompt import Found, build
from holdfast.errors import CoordinationError, HoldfastError, ProviderError, TurnLimitError
from holdfast.inbound.chat import new_messages, offered_tools
from holdfast.inbound.upkeep import ask_for_compaction, compaction_in
from holdfast.kernel import Holdfast
from holdfast.model.caching import Caching, wish_for
from holdfast.model.client import (
    ModelAnswer,
    ModelClient,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    ToolSpec,
)
from holdfast.model.failover import ask_along
from holdfast.model.policy import STRICT
from holdfast.model.prices import Prices
from holdfast.model.walk import Walk
from holdfast.outbox.message import Outcome
from holdfast.session import entries as made
from holdfast.session.entries import MessageEntry
from holdfast.session.visibility import PARTIAL_TYPE
from holdfast.store.views import InputView
from holdfast.text import on_one_line
from holdfast.tool.memory import memory_tools
from holdfast.turn.asking import AgentSettings, Asking, KeylessModels, Models
from holdfast.turn.calling import Calling
from holdfast.turn.commands import Commands, told
from holdfast.turn.compacting import Compacted, Compactor, NotCompacted, SummaryTooLongError, Why
from holdfast.turn.flushing import Flusher
from holdfast.turn.kept_contents import SessionContents
from holdfast.turn.metering import Metering
from holdfast.turn.silence import choose_silence
from holdfast.turn.tools import Tool, Toolbox
from holdfast.turn.turn import Turn
from holdfast.turn.warm_keys import warm_keys

if TYPE_CHECKING:
    from holdfast.tool.gate import Gate

MoreTools = Callable[[str, str], Awaitable[Iterable[Tool]]]
ReadPromptFiles = Callable[[str, Sequence[str]], Awaitable[list[Found]]]
"""Files of a workspace, by its path and their names (`tool/prompt_files.py`)."""
WHY_CHARS_MAX = 300
log = logging.getLogger("holdfast.turn")


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Passing one ends the turn with that name as its outcome's detail."""

    steps_max: int = 32
    tool_seconds_max: float = 600.0
    output_bytes_max: int = 8 * 1024 * 1024
    silence_s: float | None = None  # of a model; None: nobody has said (`silence.py`)


@dataclass(slots=True)
class _Work:
    """What one run needs at hand."""

    view: InputView
    asking: Asking
    calling: Calling
    client_tools: dict[str, ToolSpec]
    settings: dict[str, Any]
    system: str | None = None
    output_bytes: int = 0
    streamed: list[str] = field(default_factory=list)
    is_fresh: bool = False  # a timer's run begins without what was said before it
    tokens: int = 0  # of the newest request
    room: int | None = None  # tokens, once a request was refused as too long
    contents: SessionContents | None = None  # of the session at Google


class Runner:
    """Runs accepted inputs.

    Args:
        client_for: the model client of a reference such as "demo/demo"; or `Models`, who know keys as well.
        agent_for: settings of the agent behind a session key.
        context_window: tokens a model takes.
        commands: carries out slash commands; None: they are messages.
        compaction: how conversations that become too long are shortened.
        gate: what each call of a tool has to pass; None: whatever a model asks for is run.
        metering: counts what models use; None: with published prices.
        caching: what providers are asked to keep of requests; None: nothing is said of that.
        more_tools: those that are only known once a turn begins, by session and lane (servers).
        prompt_files: reads what stands before a conversation; None: only the agent's own text does.
    """

    def __init__(
        self,
        hf: Holdfast,
        *,
        client_for: Callable[[str], ModelClient] | Models,
        agent_for: Callable[[str], AgentSettings],
        toolbox: Toolbox,
        limits: TurnLimits | None = None,
        context_window: Callable[[str], int] = lambda _: 128_000,
        commands: Commands | None = None,
        compaction: CompactionSettings | None = None,
        gate: Gate | None = None,
        more_tools: MoreTools | None = None,
        prompt_files: ReadPromptFiles | None = None,
        metering: Metering | None = None,
        caching: Caching | None = None,
    ) -> None:
        self._hf = hf
        self._compaction = compaction or CompactionSettings()
        self._models = KeylessModels(client_for) if callable(client_for) else client_for
        self._agent_for = agent_for
        self._toolbox = toolbox
        self._limits = limits or TurnLimits()
        self._context_window = context_window
        self._commands = commands
        self._gate = gate
        self._more_tools = more_tools
        self._prompt_files = prompt_files
        self._conversions = AllConversions()
        self._metering = metering or Metering(Prices())
        self._caching = caching

    async def run(self, turn: Turn, view: InputView) -> None:
        """From an owned session to its final line. Settling is the turn's own business.

        Raises:
            SessionTakeoverError, OwnershipLostError: the session was lost; a finished answer has been kept.
            ProviderError: no model answered. TurnLimitError, TurnCancelledError, ResourceError: as they say.
        """
        await turn.raise_if_cancelled()
        asked = compaction_in(view)
        if asked is not None:
            await self._compact_between(turn, view, str(asked["why"]), str(asked["focus"]))
            return
        if self._commands is not None and await self._commands.in_turn(turn, view, self._compact_by_hand):
            return
        work = self._plan_work(turn, view)
        answered = False
        try:
            await self._begin(turn, work)
            await self._run_steps(turn, work)
            answered = True
        finally:
            work.asking.close(answered=answered)
            if turn.lost is not None:
                self._conversions.forget(turn.transcript.path)

    async def _run_steps(self, turn: Turn, work: _Work) -> None:
        for step in range(1, self._limits.steps_max + 1):
            await turn.raise_if_cancelled()
            answer = await self._ask(turn, work, step)
            entry = MessageEntry(message=work.calling.clean(answer.message(epoch_ms(self._hf.clock.now()))))
            calls = answer.tool_calls
            if not calls or any(call["name"] in work.client_tools for call in calls):
                await turn.append_last(entry)
                await self._ask_for_compaction_if_due(turn, work, entry.message)
                return
            await turn.append(entry)  # synced: the calls are on disk before a tool starts
            await work.calling.run_all(calls)
            if await turn.gives_way():
                return
            await turn.take_in("steer")
        raise TurnLimitError("steps", f"stopped after {self._limits.steps_max} steps without a final answer")

    def _plan_work(self, turn: Turn, view: InputView) -> _Work:
        agent = self._agent_for(view.session)
        turn.silence = choose_silence(view.payload.get("silence_s"), agent.silence_s, self._limits.silence_s)

        def on_item(item: TextDelta | ThinkingDelta) -> None:
            self._hand_on(turn, work, item)

        asking = Asking(turn, self._hf.store, self._hf.clock, self._models, agent, view.model, on_item, self._metering)
        tools = {tool.name: tool for tool in offered_tools(view.payload)}
        is_fresh = view.payload.get("context") == "fresh"
        redactor = self._gate.redactor if self._gate is not None else None
        calling = Calling(
            turn, view, self._toolbox.only(agent.tools), agent.workspace, self._limits.tool_seconds_max, is_fresh,
            redactor=redactor, sleep=self._hf.clock.sleep,
        )  # fmt: skip
        work = _Work(
            view, asking, calling, tools, dict(view.payload.get("settings") or {}), is_fresh=is_fresh,
            contents=None if is_fresh else SessionContents(self._hf, turn),
        )  # fmt: skip
        return work

    async def _system_prompt(self, session: str, agent: AgentSettings, more: str | None) -> str | None:
        """Read once in a turn: its steps all begin with the same words."""
        found = await self._prompt_files(agent.workspace, agent.prompt_files) if self._prompt_files is not None else []
        return build(session, found, before=agent.system, after=more).text

    def _hand_on(self, turn: Turn, work: _Work, item: TextDelta | ThinkingDelta) -> None:
        """Tell whoever watches what the model says; stop one that says too much."""
        text = item.text
        work.output_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if isinstance(item, TextDelta):
            work.streamed.append(item.text)
        if work.output_bytes > self._limits.output_bytes_max:
            raise TurnLimitError("output_bytes", f"stopped: more than {self._limits.output_bytes_max} bytes of answer")
        turn.publish("turn.delta" if isinstance(item, TextDelta) else "turn.thinking", text=item.text)

    async def _begin(self, turn: Turn, work: _Work) -> None:
        """The input's own lines, or what an earlier attempt has left of them and of its tool calls."""
        calling = work.calling
        work.system = await self._system_prompt(turn.session, work.asking.agent, work.view.payload.get("system"))
        if self._more_tools is not None:
            more = Toolbox(await self._more_tools(turn.session, turn.lane)).only(work.asking.agent.tools)
            calling.toolbox = calling.toolbox.with_more(more)
        if self._gate is not None:
            calling.passage = await self._gate.passage(turn)
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
            is_clients = pending.call["name"] in work.client_tools
            await work.calling.resume(pending.call, may_have_started=pending.may_have_started, is_clients=is_clients)

    async def _ask(self, turn: Turn, work: _Work, step: int) -> ModelAnswer:
        """One model call. A context that its provider refuses as too long is shortened, and the same model asked once
        more.
        """
        try:
            return await self._ask_once(turn, work, step)
        except ProviderError as failed:
            if failed.reason != "context_overflow" or not self._compaction.enabled:
                raise _as_limit(failed) from failed
            refused = failed
        turn.note("turn.too_long", tokens=work.tokens, detail=on_one_line(str(refused))[:WHY_CHARS_MAX])
        work.room = max(1, work.tokens // 2)  # the window is smaller than we thought: by how much nobody says
        await turn.check()
        done = await self._compact(turn, work, "overflow", keep=work.tokens // 4) if self._may_compact(work) else None
        if not isinstance(done, Compacted) and not fit(await self._planned(turn, work), work.room).dropped:
            raise _as_limit(refused) from refused  # there is nothing that could be left out
        try:
            return await self._ask_once(turn, work, step)
        except ProviderError as failed:
            raise _as_limit(failed) from failed

    async def _ask_once(self, turn: Turn, work: _Work, step: int) -> ModelAnswer:
        """One request, in a prompt window, with failover around it."""
        if work.asking.warm is None and work.asking.has_several_keys:
            work.asking.warm = await warm_keys(self._hf, turn, self._warm_s, epoch_ms(self._hf.clock.now()))
        walk, work.asking.step = work.asking.begin(), step
        model = walk.requested
        request = await self._request(turn, work, model)
        turn.note("turn.model", model=model, step=step)
        work.streamed.clear()
        async with turn.prompt_window() as window:
            try:
                answer = await self._ask_along(turn, work, walk, request)
            except asyncio.CancelledError:
                await self._keep_partial(turn, "".join(work.streamed), "interrupted")
                raise
            except ProviderError as failed:
                await self._keep_partial(
                    turn, failed.partial or "".join(work.streamed), failed.reason or "unclassified"
                )
                raise
            if not answer.tool_calls:
                window.finished(answer.message(epoch_ms(self._hf.clock.now())))
        turn.note("turn.answer", model=f"{answer.provider}/{answer.model}", finish=answer.stop_reason)
        return answer

    async def _ask_along(self, turn: Turn, work: _Work, walk: Walk, request: ModelRequest) -> ModelAnswer:
        """A provider that does not take the history gets it once more without what it refuses; so do later turns."""
        try:
            return await ask_along(walk, request, work.asking)
        except ProviderError as refused:
            if not work.asking.can_mend(refused):
                raise
            work.asking.mend(refused, walk)
            await turn.append(made.custom(HISTORY_TYPE, {"why": str(refused)[:WHY_CHARS_MAX]}))
            again = await self._request(turn, work, walk.requested, may_compact=False)
            return await ask_along(work.asking.begin(), again, work.asking)

    async def _request(self, turn: Turn, work: _Work, model: str, *, may_compact: bool = True) -> ModelRequest:
        """What the model is asked now. A conversation for which there is no room is shortened first; where that cannot
        be, the oldest exchanges are left out of this request alone.
        """
        room = self._budget(model).room
        room = room if work.room is None else min(room, work.room)
        planned = await self._planned(turn, work)
        tokens = count_tokens(planned.messages)
        if tokens > room and may_compact and self._may_compact(work) and work.room is None:
            await self._compact(turn, work, "room")
            planned = await self._planned(turn, work)
            tokens = count_tokens(planned.messages)
        messages = planned.messages
        if tokens > room:
            estimate = sum(map(estimate_tokens, messages))
            fitted = fit(planned, max(1, room * estimate // tokens))
            messages, tokens = fitted.messages, fitted.tokens * tokens // max(1, estimate)
            if fitted.outcome == "trimmed":
                turn.note("turn.trimmed", dropped=fitted.dropped, tokens=tokens)
        work.tokens = tokens
        ours = work.calling.specs()
        tools = [*work.client_tools.values(), *(tool for tool in ours if tool.name not in work.client_tools)]
        timeout_s = turn.silence.request_timeout_s if turn.silence is not None else None
        kept = self._conversions.of(turn.transcript.path)
        wish = None
        if self._caching is not None:
            wish = wish_for(
                self._caching.settings, store_id=self._hf.store.store_id, session=turn.session, kept=work.contents
            )  # fmt: skip
        return ModelRequest(model, messages, work.system, tools, work.settings, timeout_s, kept, tokens, wish)

    async def _planned(self, turn: Turn, work: _Work) -> Plan:
        lines = await turn.branch()
        if work.is_fresh:
            follows = work.view.payload.get("follows") or ()  # a child's end, in such a run
            lines = own_lines(lines, inputs=[*follows, *turn.answers], turn=turn.id)
        planned = plan(lines, inputs=turn.answers, turn=turn.id, kept=self._conversions.of(turn.transcript.path))
        pause_s = self._pause_s(work.asking.plan.requested)
        return replace(planned, messages=prune(planned.messages, own=planned.own, ttl_s=pause_s))

    def _pause_s(self, model: str) -> float:
        """After how long a pause old results are shortened: never while the provider may still have them whole."""
        pause_s = self._compaction.prune_after_s
        return max(pause_s, self._warm_s(model)) if pause_s and self._caching is not None else pause_s

    def _warm_s(self, model: str) -> float:
        """For how long its provider keeps what nobody reads."""
        return self._caching.warm_s(model) if self._caching is not None else CACHE_TTL_S

    # ── shortening ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _budget(self, model: str) -> Budget:
        return self._compaction.budget(self._context_window(model))

    def _may_compact(self, work: _Work) -> bool:
        """A run that is shown only its own part of a transcript must not summarise the rest away."""
        return self._compaction.enabled and not work.is_fresh

    async def _compact(
        self, turn: Turn, work: _Work, why: Why, *, keep: int | None = None
    ) -> Compacted | NotCompacted:  # fmt: skip
        return await self._compactor(turn, work.asking).run(why, keep=keep)

    def _compactor(self, turn: Turn, asking: Asking) -> Compactor:
        """Asks the models that answer the turn, or the one configured for it; they leave no pin and no notice."""
        settings, agent = self._compaction, asking.agent
        asking.begin()
        model = settings.model or asking.plan.requested
        if asking.plan.strict:
            agent = replace(agent, policy=STRICT)

        async def ask_model(request: ModelRequest, chars_max: int) -> ModelAnswer:
            said = 0

            def on_item(item: TextDelta | ThinkingDelta) -> None:
                nonlocal said
                said += len(item.text) if isinstance(item, TextDelta) else 0
                if said > chars_max:
                    raise SummaryTooLongError

            aside = Asking(
                turn, self._hf.store, self._hf.clock, self._models, agent, model, on_item, self._metering, "summary",
                asking.step,
            )  # fmt: skip
            return await ask_along(aside.begin(), request, aside)

        return Compactor(turn, self._hf.clock, ask_model, model, self._budget(model), settings)

    async def _compact_between(self, turn: Turn, view: InputView, why: str, focus: str) -> None:
        """The whole turn of an input that asks for a compaction."""
        asking = self._plan_work(turn, view).asking
        compactor = self._compactor(turn, asking)
        compactor.running = False
        tokens = count_tokens(plan(await turn.branch()).messages)
        if why == "threshold" and tokens <= compactor.budget.threshold:
            turn.outcome = Outcome("skipped", detail="there is room again")
            return
        # The next turn could not go on without it: then it is no use to stop for that turn.
        compactor.gives_way = tokens <= compactor.budget.room
        compactor.before = lambda: self._flush_memory(turn, asking.agent, compactor)
        done = await compactor.run("hand" if why == "hand" else "threshold", focus=focus)
        if isinstance(done, Compacted):
            turn.outcome = told(_compacted_text(done), detail="a compaction")
        elif not done.gave_way:
            turn.outcome = Outcome("skipped", detail=done.reason)

    async def _flush_memory(self, turn: Turn, agent: AgentSettings, compactor: Compactor) -> NotCompacted | None:
        """Let the agent note what should be known later. Whoever waits for the session ends the compaction as well."""

        async def system() -> str | None:
            return await self._system_prompt(turn.session, agent, None)

        redactor = self._gate.redactor if self._gate is not None else None
        flushed = await Flusher(
            compactor, self._hf.clock, await self._memory_tools(turn, agent), agent.workspace, system,
            (lambda value: value) if redactor is None else redactor.value,
        ).run()  # fmt: skip
        return NotCompacted(flushed.left, gave_way=True) if flushed.gave_way else None

    async def _memory_tools(self, turn: Turn, agent: AgentSettings) -> Toolbox | str:
        """Those that notes may be written with, or why there are none."""
        if not self._compaction.memory_flush:
            return "it is turned off (compaction.memory_flush)"
        unfit = unfit_session(turn.session) or ("" if agent.workspace else "the agent has no workspace")
        if unfit:
            return unfit
        passage = await self._gate.passage(turn) if self._gate is not None else None
        held_back = passage.held_back_for_notes if passage is not None else lambda _name, _effect: ""
        return memory_tools(self._toolbox.only(agent.tools), held_back)

    async def _compact_by_hand(self, turn: Turn, view: InputView, focus: str) -> str:
        """`/compact` in a chat; what the user is told."""
        compactor = self._compactor(turn, self._plan_work(turn, view).asking)
        compactor.running = False
        done = await compactor.run("hand", focus=focus)
        return _compacted_text(done) if isinstance(done, Compacted) else f"Nothing was shortened: {done.reason}."

    async def _ask_for_compaction_if_due(self, turn: Turn, work: _Work, answer: dict[str, Any]) -> None:
        """After an answer: when little room is left, have the conversation shortened before the next message comes.

        The answer is in the transcript; nothing that goes wrong here is worth losing it. The next turn shortens the
        conversation itself if it has to.
        """
        tokens = counted_by_provider(answer) or work.tokens + estimate_tokens(answer)
        if not self._may_compact(work) or tokens <= self._budget(work.asking.plan.requested).threshold:
            return
        try:
            await ask_for_compaction(
                self._hf, turn.session, by=turn.id, why="threshold", key=f"after {turn.id}"
            )  # fmt: skip
        except CoordinationError:
            raise
        except HoldfastError as refused:
            log.info("turn %s asked for no compaction: %s", turn.id, on_one_line(str(refused)))

    async def _keep_partial(self, turn: Turn, text: str, why: str) -> None:
        """What was streamed before the end is kept for people; it is not the answer."""
        if text:
            await turn.append(made.custom(PARTIAL_TYPE, {"text": text, "why": why}, visibility="user"))
            turn.note("turn.discarded", reason=why)


def _as_limit(failed: ProviderError) -> Exception:
    """A context that is too long even so is a limit of the turn, not its model's failure."""
    if failed.reason != "context_overflow":
        return failed
    return TurnLimitError(
        "context_overflow",
        f"the conversation does not fit the context window of {failed.model or 'the model'}; start a new one with "
        "/new, or choose a model with a larger window",
    )


def _compacted_text(done: Compacted) -> str:
    how = "" if done.how == "model" else " (the model's summaries were of no use: an extract stands in their place)"
    return f"Shortened: about {done.tokens_before} tokens before, {done.tokens_after} after{how}."
