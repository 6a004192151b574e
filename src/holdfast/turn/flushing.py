"""A memory flush: before a conversation is shortened its agent may note what should be known later.

It is part of the turn that shortens, so that session, fence and stop are that turn's. Nobody hears of it: what is asked
and done stands in the transcript for audit. It is done at most once for each compaction: its first line, durable before
a tool starts, is the mark. Whoever speaks meanwhile ends it; if no tool had started, the next one begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from holdfast.clock import Clock, epoch_ms
from holdfast.context.budget import count_tokens
from holdfast.context.memory import FLUSH_TYPE, instruction, note_path, was_flushed
from holdfast.context.plan import plan
from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest
from holdfast.session import entries as made
from holdfast.text import on_one_line
from holdfast.turn.compacting import Compactor, NotCompacted, SummaryTooLongError
from holdfast.turn.tools import Toolbox, ToolCall

STEPS_MAX = 6
CHARS_MAX = 8_000
"""Of an answer, which nobody reads; the notes are in the calls."""
TOOL_SECONDS_MAX = 30.0
log = logging.getLogger("holdfast.compaction")


@dataclass(frozen=True, slots=True)
class Flushed:
    """What came of it. `left`: why it was skipped or ended early, empty: it came to its end; `gave_way`: to somebody
    who waits for the session, and the compaction has to as well.
    """

    calls: int = 0
    left: str = ""
    gave_way: bool = False


@dataclass(slots=True)
class Flusher:
    """One flush.

    Args:
        compactor: whose turn, model, limits and ways to give up it shares.
        tools: those that notes may be written with; or why there are none.
        system: what stands before the conversation.
        redact: takes secrets out of what is written down.
    """

    compactor: Compactor
    clock: Clock
    tools: Toolbox | str
    workspace: str
    system: Callable[[], Awaitable[str | None]]
    redact: Callable[[Any], Any]

    async def run(self) -> Flushed:
        """Raises: as `Turn.append`. Cancelled: notes that were written stay, and are not written again."""
        lines = await self.compactor.turn.branch()
        if isinstance(self.tools, str):
            return self._left(self.tools)
        if was_flushed(lines):
            return self._left("it was done before, since the last compaction")
        at = self.clock.now()
        asked = {"role": "user", "content": [{"type": "text", "text": instruction(note_path(at))}]}
        messages = [*plan(lines).messages, asked]
        if count_tokens(messages) > self.compactor.budget.room:
            return self._left("there is no room for it")
        return await self._steps(self.tools, messages)

    async def _steps(self, tools: Toolbox, messages: list[dict[str, Any]]) -> Flushed:
        turn, done = self.compactor.turn, 0
        turn.note("turn.memory_flush", phase="began")
        turn.flush_story()
        system = await self.system()
        for step in range(STEPS_MAX):
            request = ModelRequest(self.compactor.model, messages, system, tools.specs(turn.session, turn.lane))
            answer = await self._ask(request)
            if isinstance(answer, NotCompacted):
                return self._left(answer.reason, calls=done, gave_way=answer.gave_way)
            await self._write_down({"step": step, "calls": [self.redact(call) for call in answer.tool_calls]})
            if not answer.tool_calls:
                turn.note("turn.memory_flush", phase="done", calls=done)
                return Flushed(done)
            messages = [*messages, answer.message(epoch_ms(self.clock.now()))]
            for call in answer.tool_calls:
                messages.append(await self._call(tools, call))
                done += 1
        return self._left(f"it was stopped after {STEPS_MAX} steps", calls=done)

    async def _ask(self, request: ModelRequest) -> ModelAnswer | NotCompacted:
        try:
            async with self.compactor.turn.prompt_window():
                return await self.compactor.raced(self.compactor.ask_model(request, CHARS_MAX))
        except ProviderError as failed:
            return NotCompacted(f"no model answered: {failed}")
        except SummaryTooLongError:
            return NotCompacted("its answer was far too long")

    async def _call(self, tools: Toolbox, call: dict[str, Any]) -> dict[str, Any]:
        """Run one call and write down its result; the result for the model."""
        turn = self.compactor.turn
        await turn.check()
        asked = ToolCall(
            call["id"], call["name"], call.get("arguments") or {}, turn.session, turn.id, turn.epoch,
            rights=turn.rights, workspace=self.workspace, check=turn.check,
        )  # fmt: skip
        result = await tools.run(asked, seconds_max=TOOL_SECONDS_MAX)
        text = self.redact(result.text)
        await self._write_down({"call": call["id"], "result": text, "is_error": result.is_error})
        turn.note("turn.memory_note", id=call["id"], name=call["name"], is_error=result.is_error)
        return made.tool_result(call["id"], call["name"], text or "(nothing)", is_error=result.is_error).message

    async def _write_down(self, data: dict[str, Any]) -> None:
        entry = made.custom(FLUSH_TYPE, data, visibility="audit")
        await self.compactor.turn.append(entry, durable=True, final=False)

    def _left(self, reason: str, *, calls: int = 0, gave_way: bool = False) -> Flushed:
        turn = self.compactor.turn
        log.info("memory flush of session %s in turn %s: %s", on_one_line(turn.session), turn.id, on_one_line(reason))
        turn.note("turn.memory_flush", phase="left", reason=reason, calls=calls)
        turn.flush_story()  # a turn that gives way tells nothing at its end
        return Flushed(calls, reason, gave_way)
