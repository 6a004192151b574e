"""Shortening the conversation of a turn: cut, have a summary written, check it, append it as one entry.

The write lock is free while the summary streams; the entry is appended like any other of the turn, under the fence. As
long as it is not there the session is as it was: whoever is cancelled, gives way, dies or loses the session before has
changed nothing. What people said stays in the transcript in any case; only what the model is shown shrinks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from holdfast.clock import Clock
from holdfast.context import summary
from holdfast.context.budget import Budget, count_tokens
from holdfast.context.compaction import Cut, choose_cut
from holdfast.context.plan import is_compaction, plan
from holdfast.context.settings import CompactionSettings
from holdfast.errors import ProviderError
from holdfast.model.client import ModelAnswer, ModelRequest
from holdfast.session.lines import Line
from holdfast.text import on_one_line
from holdfast.turn.turn import Turn

T = TypeVar("T")
LOOK_S = 1.0
"""How often a compaction between turns looks whether somebody waits for the session."""
HALVINGS_MAX = 3
"""Parts of a conversation are made smaller so often when even one is refused as too long."""
OUTPUT_FACTOR = 8
"""A summary that is longer than it may be by more than this is stopped while it streams."""
log = logging.getLogger("holdfast.compaction")

Why = Literal["threshold", "room", "overflow", "hand"]
"""Past the threshold between two turns; no room for a request; a request was refused as too long; somebody asked."""
AskModel = Callable[[ModelRequest, int], Awaitable[ModelAnswer]]
"""Asks along the session's models; the number is the characters after which `SummaryTooLongError` is raised."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """It is done. `how`: "model", or "extract" where no usable summary could be had; tokens are estimates."""

    entry: str
    tokens_before: int
    tokens_after: int
    how: Literal["model", "extract"]


@dataclass(frozen=True, slots=True)
class NotCompacted:
    """The session is as it was. `reason` in words; `gave_way`: somebody waits for the session."""

    reason: str
    gave_way: bool = False


class SummaryTooLongError(Exception):
    """What a model writes as a summary is far too long; it is not read on."""


@dataclass(slots=True)
class Compactor:
    """Shortens the conversation of one turn.

    Args:
        running: whether the turn has inputs in the transcript that are still to be answered; they stay in sight.
        gives_way: whether it ends early when somebody waits for the session.
        before: done once there is something to shorten; what it returns ends the compaction before it has begun.
    """

    turn: Turn
    clock: Clock
    ask_model: AskModel
    model: str
    budget: Budget
    settings: CompactionSettings
    running: bool = True
    gives_way: bool = False
    before: Callable[[], Awaitable[NotCompacted | None]] | None = None

    async def run(self, why: Why, *, focus: str = "", keep: int | None = None) -> Compacted | NotCompacted:
        """Shorten it, if there is anything to shorten.

        Args:
            focus: what the summary should keep above all.
            keep: see `choose_cut`.

        Raises:
            SessionTakeoverError, OwnershipLostError: the session was lost; nothing was written. ResourceError.

        Cancelled: nothing was written.
        """
        turn = self.turn
        lines = await turn.branch()
        done = self._done_before(lines)
        if done is not None:
            return done
        inputs, own = (turn.answers, turn.id) if self.running else ([], None)
        cut = choose_cut(lines, self.budget, inputs=inputs, turn=own, by_hand=why == "hand", keep=keep)
        if cut is None:
            return NotCompacted("there is nothing to shorten")
        ended = await self.before() if self.before is not None else None
        if ended is not None:
            return ended
        before = count_tokens(plan(lines, inputs=inputs, turn=own).messages)
        turn.note("turn.compaction", phase="began", why=why, tokens=before)
        turn.flush_story()
        try:
            written = await self._written(cut, focus)
            if isinstance(written, NotCompacted):
                return self._left(written.reason, written)
            text, how = written
            details = {"why": why, "by": how, "model": self.model if how == "model" else None, "focus": focus or None}
            entry = await turn.append_compaction(text, cut.first_kept, tokens_before=before, details=details)
        except BaseException as ended:
            self._left(f"{type(ended).__name__}: {ended}" if str(ended) else type(ended).__name__)
            raise
        after = count_tokens(plan(await turn.branch(), inputs=inputs, turn=own).messages)
        turn.note("turn.compaction", phase="done", why=why, how=how, before=before, after=after)
        log.info("compaction of session %s done in turn %s: %s, %d tokens before, %d after (%s)",
                 on_one_line(turn.session), turn.id, why, before, after, how)  # fmt: skip
        return Compacted(entry, before, after, how)

    def _done_before(self, lines: Sequence[Line]) -> Compacted | None:
        """What an earlier attempt at the very input that asks for a compaction has done before it died."""
        if self.running:
            return None
        for line in reversed(lines):
            if is_compaction(line) and line.origin is not None and self.turn.input_id in line.origin.inputs:
                value, after = line.value(), count_tokens(plan(lines).messages)
                how = "extract" if (value.get("details") or {}).get("by") == "extract" else "model"
                return Compacted(str(line.id), int(value.get("tokensBefore") or 0), after, how)
        return None

    def _left(self, reason: str, result: NotCompacted | None = None) -> NotCompacted:
        log.info("compaction of session %s in turn %s came to nothing, no summary was written: %s",
                 on_one_line(self.turn.session), self.turn.id, on_one_line(reason))  # fmt: skip
        self.turn.note("turn.compaction", phase="left", reason=reason)
        return result or NotCompacted(reason)

    # ── the summary ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _written(self, cut: Cut, focus: str) -> tuple[str, Literal["model", "extract"]] | NotCompacted:
        """A usable summary, and where it comes from; nothing if no model answers, or not in time."""
        names = summary.names_in(cut.before, cut.previous)
        try:
            async with self.turn.prompt_window():
                text = await self.raced(self._from_model(cut, focus, names))
        except ProviderError as failed:
            return NotCompacted(f"no model wrote a summary: {failed}")
        if isinstance(text, NotCompacted):
            return text
        if text is not None:
            return text, "model"
        extract = summary.mechanical(cut.before, cut.previous, names=names, tokens_max=self.budget.summary_max)
        return extract, "extract"

    async def _from_model(self, cut: Cut, focus: str, names: list[str]) -> str | None:
        """The summary, part by part; None: the model's are of no use."""
        size = self.budget.chunk
        for _ in range(HALVINGS_MAX):
            try:
                return await self._of_parts(summary.chunks(cut.before, size), cut.previous, focus, names)
            except ProviderError as failed:
                if failed.reason != "context_overflow":
                    raise
                size //= 2
        return None

    async def _of_parts(self, parts: list[str], previous: str | None, focus: str, names: list[str]) -> str | None:
        """Each part is summarised with the summary of those before it."""
        for number, part in enumerate(parts, 1):
            wanted = names if number == len(parts) else [name for name in names if name in part]
            found = await self._one(part, previous, focus, wanted)
            if found is None:
                return None
            previous = found
        return previous

    async def _one(self, part: str, previous: str | None, focus: str, names: list[str]) -> str | None:
        """One summary, asked for once more if it is of no use."""
        fault, tokens_max = "", self.budget.summary_max
        text = ""
        for attempt in (1, 2):
            asked = summary.ask(
                part, previous=previous, focus=focus, names=names, tokens_max=tokens_max, fault=fault
            )  # fmt: skip
            request = ModelRequest(
                self.model, [{"role": "user", "content": [{"type": "text", "text": asked}]}], summary.SYSTEM
            )
            try:
                answer = await self.ask_model(request, tokens_max * OUTPUT_FACTOR)
            except SummaryTooLongError:
                found = summary.Check("it was far too long")
            else:
                text = answer.text.strip()
                found = summary.check(text, stop_reason=answer.stop_reason, names=names, tokens_max=tokens_max)
            if found.is_good or (attempt == 2 and not found.fault):
                return summary.with_missing(text, found.missing)
            fault = found.in_words
            self.turn.note("turn.compaction", phase="refused", reason=fault)
        return None

    async def raced(self, work: Awaitable[T]) -> T | NotCompacted:
        """The result of `work`, unless it takes too long or somebody waits for the session."""
        task = asyncio.ensure_future(work)
        ends = self.clock.mono() + self.settings.timeout_s
        try:
            while True:
                pause = asyncio.ensure_future(self.clock.sleep(min(LOOK_S, max(0.0, ends - self.clock.mono()))))
                try:
                    await asyncio.wait({task, pause}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    pause.cancel()
                if task.done():
                    return task.result()
                if self.clock.mono() >= ends:
                    return NotCompacted(f"no summary within {self.settings.timeout_s:g} s")
                if self.gives_way and await self.turn.gives_way():
                    return NotCompacted(f"gave way to {self.turn.gave_way_to}", gave_way=True)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
