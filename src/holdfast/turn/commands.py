"""Slash commands, carried out: at the door if they act at once, in a turn if they change the conversation.

A command that acts at once is stored, then carried out, then ended. Whoever dies between the two leaves it queued, and
the turn that then runs it does the same again: all of them may be carried out twice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from holdfast.clock import epoch_ms
from holdfast.context.system_prompt import SystemPrompt
from holdfast.errors import HoldfastError, InputError, ResourceError, UnknownInputError
from holdfast.inbound.child import Child
from holdfast.inbound.commands import Command, explain_unknown, read_command
from holdfast.lane import queue
from holdfast.model import catalog
from holdfast.model.usage import in_words as usage_in_words
from holdfast.model.usage import total
from holdfast.outbox.message import Outcome
from holdfast.recovery.watching import in_words
from holdfast.session import entries as made
from holdfast.tool.approval import Approval, Scope
from holdfast.tool.origin import Approvers, top_of
from holdfast.turn.events import TurnEvent
from holdfast.turn.resets import begin_anew

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.store.views import InputView
    from holdfast.turn.turn import Turn

CompactByHand = Callable[["Turn", "InputView", str], Awaitable[str]]
log = logging.getLogger("holdfast.commands")
WHY_LINES_MAX = 40
STOP_MAX = 1000
SHOWN_MAX = 20
DAY_MS = 86_400_000
DEFAULT_WORDS = ("default", "reset")


class Commands:
    """What a gateway does with slash commands.

    Args:
        model_of: the model that answers in a session as configured; the demo model has commands of its own, so what we
            do not know is left to it.
        check_model: raises an InputError or ProviderError for a reference that leads to no model.
        approvers: who may answer questions whether a tool may run.
        system_prompt_of: what stands before the conversation of a session; None: not known here.
    """

    def __init__(
        self, hf: Holdfast, *, model_of: Callable[[str], str], check_model: Callable[[str], object] = catalog.split_ref,
        approvers: Approvers | None = None,
        system_prompt_of: Callable[[str], Awaitable[SystemPrompt]] | None = None,
    ) -> None:  # fmt: skip
        self._hf = hf
        self._approvers = approvers or Approvers()
        self._model_of = model_of
        self._check_model = check_model
        self._system_prompt_of = system_prompt_of

    def find(self, session: str, lane: str, payload: dict[str, object]) -> Command | None:
        """The command that an input is for us to carry out; None: it is for the model."""
        command = read_command(lane, payload)
        is_demos = self._model_of(session).partition("/")[0] == catalog.DEMO
        return None if command is None or (is_demos and not command.is_known) else command

    async def at_door(self, input_id: str, session: str, command: Command) -> None:
        """Carry out a command that has been stored, and end its input with what there is to say.

        If the disk refuses meanwhile, the input is left to the turn that will run it.
        """
        hf = self._hf
        try:
            outcome = told(await self._say(session, command, input_id))
            state = await hf.store.settle_unclaimed(input_id, outcome)
        except ResourceError as exc:
            log.error("command /%s of %s is left to a turn: %s", command.name, input_id, exc)
            return
        data = {"state": state, "detail": outcome.detail, "answer": outcome.answer, "result": outcome.result}
        hf.events.publish(TurnEvent("turn.settled", session, epoch_ms(hf.clock.now()), input_id, data=data))
        hf.answers_arrived.set()

    async def in_turn(self, turn: Turn, view: InputView, compact: CompactByHand) -> bool:
        """Carry out a command in the turn that runs it. False: the input is none.

        Args:
            compact: shortens the turn's conversation and says what came of it.
        """
        command = self.find(view.session, view.lane, view.payload)
        if command is None:
            return False
        if command.name == "compact":
            turn.outcome = told(await compact(turn, view, " ".join(command.words)))
        elif not command.acts_at_once:
            await begin_anew(self._hf, turn, by=f"/{command.name}")
            turn.outcome = told("A new conversation begins here. What was said before stays in the transcript.")
        else:
            turn.outcome = told(await self._say(view.session, command, view.id))
        return True

    async def _say(self, session: str, command: Command, input_id: str) -> str:
        act = {
            "status": self._status,
            "queue": self._queue,
            "stop": self._stop,
            "why": self._why,
            "model": self._model,
            "approve": self._approve,
            "deny": self._deny,
        }.get(command.name)
        if act is None:
            return explain_unknown(command.name)
        try:
            return await act(session, command.words, input_id)
        except HoldfastError as exc:
            if exc.fault not in ("caller", "provider"):
                raise
            return str(exc)

    async def _inputs(self, session: str, state: str | None, limit: int = STOP_MAX) -> list[InputView]:
        """Of the conversation, under whichever of its keys: they share its one owner and its one line."""
        found: list[InputView] = []
        for key in await self._hf.store.keys_with(session):
            found += await self._hf.inputs(session=key, state=state, limit=limit)
        return found

    # ── each of them ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _status(self, session: str, _words: tuple[str, ...], input_id: str) -> str:
        hf = self._hf
        running = [one for one in await self._inputs(session, "running") if one.id != input_id]
        waiting = [one for one in await self._inputs(session, "queued") if one.id != input_id]
        settings = await hf.queue_settings(session)
        doing = "nothing at the moment"
        if running:
            seconds = (epoch_ms(hf.clock.now()) - running[0].accepted_at_ms) // 1000
            doing = f"answering {running[0].id}, which came {seconds} s ago"
            for one in await hf.findings(session):
                doing += f"\nat work: {in_words(one)}" if one.owner.input_id == running[0].id else ""
        keys = await hf.store.keys_with(session)
        children = [one for key in keys for one in await hf.children(session=key, only_open=True, limit=SHOWN_MAX)]
        return "\n".join(
            [
                f"session {session}",
                f"doing: {doing}",
                f"waiting: {len(waiting)}",
                *([f"sub-agents: {', '.join(self._child(one) for one in children)}"] if children else []),
                f"model: {await self._model_now(session)}",
                f"used in the last 24 hours: {await self._used(keys)}",
                f"queue: {queue.in_words(settings)}",
                *await self._prompt_files(session),
            ]
        )

    async def _prompt_files(self, session: str) -> list[str]:
        """Of the files that stand before the conversation those that are there, with their sizes; a line, or none."""
        if self._system_prompt_of is None:
            return []
        there = [one.in_words for one in (await self._system_prompt_of(session)).files if one.state != "missing"]
        return [f"prompt files: {', '.join(there)}"] if there else []

    async def _used(self, keys: list[str]) -> str:
        now_ms = epoch_ms(self._hf.clock.now())
        spans = [await self._hf.store.usage(since_ms=now_ms - DAY_MS, until_ms=now_ms + 1, session=key) for key in keys]
        return usage_in_words(total(row.used for rows in spans for row in rows))

    def _child(self, child: Child) -> str:
        seconds = (epoch_ms(self._hf.clock.now()) - child.spawned_at_ms) // 1000
        return f"{child.label} ({child.id}: {child.state}, for {seconds} s)"

    async def _queue(self, session: str, words: tuple[str, ...], _input_id: str) -> str:
        if not words:
            return f"queue: {queue.in_words(await self._hf.queue_settings(session))}"
        change = None if words in {(word,) for word in DEFAULT_WORDS} else queue.read_change(words)
        return f"queue: {queue.in_words(await self._hf.change_queue(session, change))}"

    async def _stop(self, session: str, _words: tuple[str, ...], input_id: str) -> str:
        waiting = await self._inputs(session, "queued")
        running = await self._inputs(session, "running")
        children = programs = 0
        for key in await self._hf.store.keys_with(session):
            children += len(await self._hf.stop_children(key, by=f"/stop ({input_id})"))
            programs += await self._hf.store.stop_background(key, f"/stop ({input_id})")
        stopped = taken_back = 0
        for view in (*waiting, *running):  # what runs comes last: its end lets the worker go on, to this very input
            if view.id != input_id:
                result = await self._hf.cancel(view.id, by="/stop")
                stopped += result == "requested"
                taken_back += result == "cancelled"
        told: list[str] = []
        if stopped or taken_back:
            told.append(
                f"Stopping {stopped}, and {taken_back} that waited {'is' if taken_back == 1 else 'are'} taken back."
            )
        if children:
            told.append(f"Stopping {children} sub-agent{'' if children == 1 else 's'}.")
        if programs:
            told.append(f"Stopping {programs} program{'' if programs == 1 else 's'} in the background.")
        return " ".join(told) or "There is nothing to stop."

    async def _why(self, session: str, words: tuple[str, ...], input_id: str) -> str:
        if words:
            target = words[0]
            report = await self._hf.why(target)
            if report.session not in await self._hf.store.keys_with(session):
                raise UnknownInputError(f"{target!r} is not of this session")
        else:
            others = [one for one in await self._inputs(session, None, limit=2) if one.id != input_id]
            if not others:
                raise InputError("nothing was said here before")
            report = await self._hf.why(max(others, key=lambda one: one.accepted_at_ms).id)
        lines = [f"{report.id}: {report.state}", *(line.text for line in report.lines[-WHY_LINES_MAX:])]
        return "\n".join(lines)

    async def _model_now(self, session: str) -> str:
        pin = (await self._hf.store.pins([session])).get(session)
        return self._model_of(session) if pin is None else f"{pin.model} ({pin.source}: {pin.reason})"

    async def _model(self, session: str, words: tuple[str, ...], input_id: str) -> str:
        if not words:
            return f"model: {await self._model_now(session)}"
        wanted, *more = words
        if more:
            raise InputError("/model takes one model, such as openai/gpt-5, or `default`")
        if wanted in DEFAULT_WORDS:
            await self._hf.unpin_model(session)
        else:
            self._check_model(wanted)
            await self._hf.pin_model(session, wanted, by=f"/model ({input_id})")
        return f"model: {await self._model_now(session)}"

    async def _approve(self, session: str, words: tuple[str, ...], input_id: str) -> str:
        scope: Scope = "session" if words[1:] == ("session",) else "once"
        if not words or words[1:] not in ((), ("session",)):
            raise InputError("/approve takes the id of a question, and `session` if alike calls may run, too")
        answered = await self._answer(session, words[0], input_id, yes=True, scope=scope)
        more = "" if scope == "once" else ", and calls like it in this conversation"
        return f"{answered.id}: {answered.tool} may run{more}."

    async def _deny(self, session: str, words: tuple[str, ...], input_id: str) -> str:
        if len(words) != 1:
            raise InputError("/deny takes the id of a question")
        answered = await self._answer(session, words[0], input_id, yes=False, scope="once")
        return f"{answered.id}: {answered.tool} does not run."

    async def _answer(self, session: str, approval: str, input_id: str, *, yes: bool, scope: Scope) -> Approval:
        found = await self._hf.store.approval(approval)
        top = None if found is None else (await top_of(self._hf, found.session))[0]
        keys = await self._hf.store.keys_with(session)
        if found is None or top is None or not self._approvers.may_answer(session, keys, top):
            raise UnknownInputError(f"no question {approval!r} that may be answered from here")
        command = "approve" if yes else "deny"
        return await self._hf.answer_approval(approval, yes=yes, by=f"/{command} ({input_id})", scope=scope)


def told(text: str, detail: str = "a command") -> Outcome:
    """The outcome of an input that no model has answered."""
    message = made.assistant(text, model="holdfast/commands").message
    return Outcome("answered", answer=text, result={"message": message, "finish": "stop", "usage": None}, detail=detail)
