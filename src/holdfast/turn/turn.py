"""One turn: from an input (or a caller of the library) to its outcome. Everything that extends a conversation goes
through `Turn.append`; everything that ends one through `Turn.close`.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast import ids
from holdfast.clock import epoch_ms, iso
from holdfast.context.plan import plan
from holdfast.context.repair import interrupted_result
from holdfast.errors import (
    HoldfastError,
    InputError,
    OwnershipLostError,
    ResourceError,
    TurnCancelledError,
    TurnLimitError,
    TurnStalledError,
)
from holdfast.inbound.child import Child, Refused, rights_of
from holdfast.inbound.event import Route
from holdfast.lane.queue import How
from holdfast.model.policy import ModelsAfter
from holdfast.model.spending import Allowance, Guard
from holdfast.model.usage import ModelCall
from holdfast.outbox.message import MOVED_ON_NOTE, NOT_WRITTEN_NOTE, Outcome, answered_by
from holdfast.recovery.progress import Doing, Progress
from holdfast.session import entries as made
from holdfast.session.branch import active_branch
from holdfast.session.entries import Entry, MessageEntry, Origin, encode_line, stamped
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line, read_line
from holdfast.session.ownership import Owned
from holdfast.session.prompt_window import PromptWindow
from holdfast.store.protocol import Build
from holdfast.store.views import InputView
from holdfast.turn import outcomes
from holdfast.turn.events import TurnEvent
from holdfast.turn.silence import Silence, why_over
from holdfast.turn.spawning import parent_of, spawn

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.tool.approval import Approval

log = logging.getLogger("holdfast.turn")
WAITING_TOLD_MAX = 20
DROPPED_TYPE, RESET_TYPE = "holdfast:dropped", "holdfast:reset"
current_turn: ContextVar[str | None] = ContextVar("holdfast_turn", default=None)
"""The id of the turn inside which code runs: a turn started there is its child (rings of waits are refused)."""


@dataclass(frozen=True, slots=True)
class Where:
    """`turn.transcript.path`: the file (embedded), or the name of what stands for it."""

    path: str


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A `toolCall` part without a result. `may_have_started`: a dead attempt may have run it; else nobody has."""

    call: dict[str, Any]
    may_have_started: bool


class Turn:
    """The right to extend one conversation, while it lasts. Made by `Holdfast.turn`.

    Attributes:
        id, session, lane: names.
        epoch: the fencing token; tools receive it.
        input_id: the accepted input it answers, or None.
        attempt: 1, or more if an earlier run of the input died.
        rights: the lane whose rights it has: its own, and for a sub-agent's that of the conversation above it.
        transcript: where the conversation is kept.
    """

    def __init__(
        self, hf: Holdfast, owned: Owned, *, turn_id: str, session: str, lane: str, view: InputView | None
    ) -> None:
        self._hf = hf
        self._owned = owned
        self.id = turn_id
        self.session = session
        self.lane = lane
        self.view = view
        self.input_id = view.id if view is not None else None
        self.rights = rights_of(view) if view is not None else lane
        self.transcript = Where(owned.path)
        self._sequence = 0
        self._entry_ids: dict[int, tuple[Entry, str]] = {}
        self._lines: list[Line] | None = None
        self.windows: set[PromptWindow] = set()  # those that are open
        self._story: list[tuple[int, str, str | None, str | None, str, dict[str, Any]]] = []
        self._finals: list[tuple[MessageEntry, str]] = []  # those that were to be written; see `_final`
        self._last: tuple[MessageEntry, str, Build] | None = None  # the answer that is written with the turn's end
        self.on_cancel: Callable[[], object] | None = None
        self._salvaged_state: str | None = None
        self._salvaged: Outcome | None = None
        self.joined: dict[str, InputView] = {}  # inputs that were taken in besides its own
        self._merged = 0  # how many of them before its first step
        self.outcome: Outcome | None = None
        self.models = hf.store.models_of(owned)
        self.pin = self.models.pin  # as it is now: a user may choose in the middle of a turn
        self.models_after: ModelsAfter | None = None  # kept with the settlement
        self.result_facts: dict[str, Any] = {}  # kept with the answer under the input's id
        self.gave_way_to: str | None = None
        self.calls: dict[str, ModelCall] = {}  # of models, by id; kept with the settlement
        self._ends_told: set[str] = set()  # those whose end the ledger knows
        self.cancelled_by: str | None = view.cancel_requested_by if view is not None else None
        self._mono = hf.clock.mono
        self._progress = Progress.at(self._mono())
        self._heard: tuple[int, float] = (0, 0.0)  # pieces since then, and when the last of them came
        self.stopped_for: str | None = None  # why recovery has asked it to end
        self.silence: Silence | None = None  # how long its model may say nothing; None: nobody has said, for ever
        self.timed_out: str | None = None  # why it ends, once that has passed
        waited_ms = None if view is None else max(0, epoch_ms(hf.clock.now()) - view.accepted_at_ms)
        self._publish("turn.started", epoch=owned.epoch.number, lane=lane, attempt=owned.attempt, waited_ms=waited_ms)
        for finding in owned.findings:
            self.note("turn.found", detail=finding)

    @property
    def owned(self) -> Owned:
        """The claim, as the store handed it out; for what is done to the transcript as a whole."""
        return self._owned

    @property
    def epoch(self) -> Epoch:
        return self._owned.epoch

    @property
    def attempt(self) -> int:
        return self._owned.attempt

    @property
    def lost(self) -> Verdict | None:
        """Why the turn is lost; None while it is ours as far as is known. A lost turn stays lost."""
        return self._owned.lost

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, entry: Entry, *, durable: bool | None = None, final: bool | None = None) -> str:
        """Write one entry at the end of the active branch. Returns its id.

        Args:
            durable: None: by the rules (a line with tool calls is synced before this returns; the final line with the
                settlement; others not at all). True: synced before this returns.
            final: whether this answers the turn's inputs for good. None: an assistant message that ended by itself and
                calls no tool does.

        Raises:
            SessionTakeoverError: somebody else owns or has written the session; nothing was written. A final entry has
                been kept (see `salvage`).
            OwnershipLostError: the turn was lost before.
            ResourceError: the disk refused; nothing of the entry is in the file.

        Cancelled: the entry is there whole or not at all; appending the same object again writes nothing twice.
        """
        return await self._append_as(self._id_for(entry), entry, durable=durable, final=final)

    async def append_last(self, entry: MessageEntry) -> None:
        """Answer the turn's inputs for good; the caller writes nothing more and ends the turn. Where a store can, the
        line is written in one transaction with the settlement: whoever has taken the session until then is met by
        `close`, which raises what `append` would have.

        Raises: as `append`.
        """
        if not self._hf.store.lines_may_wait or self.lost is not None:
            await self.append(entry, final=True)
            return
        entry_id = self._id_for(entry)
        self._last = (entry, entry_id, self._builder(entry, entry_id, final=True))

    async def append_input(self, messages: list[dict[str, Any]]) -> None:
        """Write the input's own lines, once however often it is run: their ids follow from the input and from what
        they say, not from where a later attempt happens to begin.
        """
        told: Counter[str] = Counter()
        for index, message in enumerate(messages):
            if self.input_id is None:
                await self.append(MessageEntry(message=message))
                continue
            said = outcomes.fingerprint(message)
            told[said] += 1
            is_last = index == len(messages) - 1
            own = ids.derived_id("input", self.input_id, said, told[said])
            entry_id = ids.input_line_id(self.input_id) if is_last else own
            await self._append_as(entry_id, MessageEntry(message=message), durable=None, final=False, soon=True)
        self._sequence = max(self._sequence, 1)
        if self.attempt > 1 and self.input_id is not None and messages:
            await self._say_again(messages)

    async def _say_again(self, messages: list[dict[str, Any]]) -> None:
        """The conversation was begun anew after an earlier attempt had written the input's lines: they are no part of
        what the model is shown now, so they are said once more, under other ids, in the conversation that is answered.
        """
        branch = await self.branch()
        if not branch or any(line.id == ids.input_line_id(self.input_id or "") for line in branch):
            return
        if branch[0].custom_type != RESET_TYPE:
            return  # it is there, further back than a context reaches
        for index, message in enumerate(messages):
            entry_id = ids.derived_id("again", self.input_id or "", branch[0].id or "", index)
            await self._append_as(entry_id, MessageEntry(message=message), durable=None, final=False)

    async def take_in(self, how: How) -> list[InputView]:
        """Take in inputs that wait and may share this turn: their lines are written here, once however often they are
        taken in, and the final line names them.

        Args:
            how: "merge": before the model is asked for the first time; "steer": between two steps.

        Raises: as `append`.
        """
        taken = await self._hf.store.join_waiting(self._owned, how)
        for view in taken:
            await self.append_dropped(view)
            said = made.user(view.payload["content"])
            await self._append_as(
                ids.input_line_id(view.id), said, durable=None, final=False, belongs_to=(view.id,)
            )  # fmt: skip
            self.joined[view.id] = view
            self._merged += how == "merge"
            self.note("turn.joined", id=view.id, how=how)
        return taken

    async def begin_anew(self, *, by: str) -> None:
        """Begin a new conversation in the same transcript: what follows hangs off a line without a parent, so the model
        is shown nothing of what stands before it. Nothing is removed.

        Run again for the same input it writes nothing twice. Raises: as `append`.
        """
        entry = made.custom(RESET_TYPE, {"by": by, "input": self.input_id})
        entry_id = ids.derived_id("reset", self.input_id or self.id)
        await self._append_as(entry_id, entry, durable=None, final=False, is_root=True)
        self._lines = None  # another branch is the active one now

    async def append_compaction(
        self, summary: str, first_kept: str | None, *, tokens_before: int = 0, details: Any = None
    ) -> str:
        """Write a summary that stands for everything before the line `first_kept`; None: for all there is. Returns its
        id. Done twice behind the same line it is written once. Raises: as `append`.
        """
        branch = await self.branch()
        entry_id = ids.derived_id("compaction", self.input_id or self.id, (branch[-1].id or "") if branch else "")
        # An id that no line before it has keeps nothing.
        entry = made.compaction(summary, first_kept or entry_id, tokens_before=tokens_before, details=details)
        return await self._append_as(entry_id, entry, durable=None, final=False)

    async def append_dropped(self, view: InputView) -> None:
        """The line that tells the model of what was dropped before an input, if anything was."""
        told = await self._hf.store.dropped_before(view.id) if view.carries else None
        if told is not None:
            entry, entry_id = made.custom_message(DROPPED_TYPE, told), ids.derived_id("dropped", view.id)
            await self._append_as(entry_id, entry, durable=None, final=False, belongs_to=(view.id,))

    async def _append_as(
        self, entry_id: str, entry: Entry, *, durable: bool | None, final: bool | None,
        belongs_to: tuple[str, ...] | None = None, is_root: bool = False, soon: bool = False,
    ) -> str:  # fmt: skip
        is_final = outcomes.is_final(entry) if final is None else final
        known = self._owned.has_landed(entry_id)
        build = self._builder(entry, entry_id, final=is_final, belongs_to=belongs_to, is_root=is_root)
        sync = durable if durable is not None else (outcomes.calls_tools(entry) and not is_final)
        if is_final and isinstance(entry, MessageEntry):
            self._finals.append((entry, entry_id))  # it may land although our caller is cancelled meanwhile
        try:
            waits = {"soon": True} if soon and self._hf.store.lines_may_wait else {}
            verdict, _ = await self._hf.store.append(self._owned, [(entry_id, build)], sync=sync, **waits)
        except OwnershipLostError:
            if is_final:
                await self.salvage(entry)
            raise
        self.heard()
        self._take_in(verdict)
        if not known and self.windows:
            self._take_in(Verdict("advanced", "own entries", entries=(entry_id,)))
        if self._lines is not None and not known:
            self._lines.append(read_line(build(self._lines[-1].id if self._lines else None)))
        return entry_id

    def _id_for(self, entry: Entry) -> str:
        """The same object keeps its id, so that appending it again is recognised."""
        known = self._entry_ids.get(id(entry))
        if known is not None:
            return known[1]
        if self.input_id is not None and self._sequence == 0 and outcomes.role_of(entry) == "user":
            entry_id = ids.input_line_id(self.input_id)
        else:
            entry_id = ids.entry_id(self.input_id or self.id, str(self.epoch), self._sequence)
        self._sequence += 1
        self._entry_ids[id(entry)] = (entry, entry_id)
        return entry_id

    def _builder(
        self, entry: Entry, entry_id: str, *, final: bool, writer: str = "turn",
        belongs_to: tuple[str, ...] | None = None, is_root: bool = False,
    ) -> Callable[[str | None], bytes]:  # fmt: skip
        """`belongs_to`: inputs; None: the turn's own, and for a final line all that it has taken in. `is_root`: the
        line begins a branch of its own.
        """
        if belongs_to is None:
            belongs_to = tuple(self.answers if final else self.answers[:1])
        origin = Origin(
            store=self._hf.store.store_id, turn=self.id, epoch=self.epoch.number, lane=self.lane, writer=writer,
            inputs=belongs_to, final=final,
        )  # fmt: skip
        now = self._hf.clock.now()
        if isinstance(entry, MessageEntry) and "timestamp" not in entry.message:
            entry.message["timestamp"] = epoch_ms(now)
        at = iso(now)
        return lambda parent: encode_line(
            stamped(entry, id=entry_id, parent=None if is_root else parent, timestamp=at, origin=origin)
        )

    async def inspect(self) -> Verdict:
        """Look at the fence without writing.

        Raises:
            SessionTakeoverError, OwnershipLostError: the turn is lost.
        """
        verdict = await self._hf.store.inspect(self._owned)
        self._take_in(verdict)
        return verdict

    def _take_in(self, verdict: Verdict) -> None:
        """What was found while we wrote or looked, and may go on after."""
        for window in self.windows:
            window.meet(verdict)
        if verdict.kind in ("adopted", "foreign_turn"):
            self.note("turn.window", verdict=verdict.kind, detail=verdict.detail)
        if verdict.kind == "foreign_turn":
            self._lines = None  # "warn": the branch goes on behind somebody else's lines; read it again

    async def check(self) -> None:
        """Raise unless the session is still ours and nobody asked the turn to stop. Before each tool starts."""
        await self.inspect()
        await self.raise_if_cancelled()

    async def happened_meanwhile(self) -> str:
        """What a look at the session finds besides our own turn, in words; empty: nothing. Raises: as `inspect`."""
        verdict = await self.inspect()
        waiting = await self._hf.inputs(session=self.session, state="queued", limit=WAITING_TOLD_MAX)
        lanes = ", ".join(sorted({view.lane for view in waiting}))
        found = [f"{verdict.kind}: {verdict.detail}"] if verdict.kind != "unchanged" else []
        found += [f"{len(waiting)} inputs wait (lanes: {lanes})"] if waiting else []
        return "; ".join(found)

    def prompt_window(self) -> PromptWindow:
        """The span in which the model is asked; the write lock is not held in it."""
        return PromptWindow(self)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def branch(self) -> list[Line]:
        """The active branch, oldest first, as far back as the newest compaction or the reading limit reaches."""
        if self._lines is None:
            lines = await self._hf.store.read_tail(self._owned)
            self._lines = list(active_branch(lines).lines)
        return self._lines

    async def context(self) -> list[dict[str, Any]]:
        """v3 messages for the model: the branch from the newest compaction, calls paired, the turn's own input last."""
        lines = await self.branch()
        return plan(lines, inputs=self.answers, turn=self.id).messages

    @property
    def answers(self) -> list[str]:
        """The inputs that this turn answers: its own, then those it has taken in."""
        return [*([self.input_id] if self.input_id is not None else []), *self.joined]

    async def branch_before_input(self) -> list[dict[str, Any]]:
        """v3 messages of the branch without what this very input (in any attempt) has added to it."""
        mine = {self.input_id}
        lines = [line for line in await self.branch() if line.origin is None or not mine & set(line.origin.inputs)]
        return plan(lines).messages

    async def pending_calls(self) -> list[PendingCall]:
        """Tool calls that still want a result: of an earlier, dead attempt at this input, and of the newest answer.

        Others may have been answered since that attempt: its calls are looked for as far back as the input's own line.
        """
        answered: set[str] = set()
        pending: list[PendingCall] = []
        own = ids.input_line_id(self.input_id) if self.input_id is not None else None
        is_past_own, is_past_answer = own is None, False
        for line in reversed(await self.branch()):
            if is_past_own and is_past_answer:
                break  # what stands before was dealt with by then
            is_past_own = is_past_own or line.id == own
            if line.kind != "entry" or line.type != "message" or line.origin is None:
                continue
            if line.message_role == "toolResult":
                answered.add(line.value()["message"]["toolCallId"])
            elif line.message_role == "assistant":
                is_own = self.input_id in line.origin.inputs and not line.origin.final
                is_newest = line.origin.final and not is_past_answer
                if is_own or is_newest:
                    calls = [call for call in outcomes.calls_of(line) if call["id"] not in answered]
                    pending[:0] = [PendingCall(call, may_have_started=is_own) for call in calls]
                is_past_answer = is_past_answer or bool(line.origin.final)
        return pending

    async def append_interrupted(self, call: dict[str, Any]) -> None:
        """Pair a call of a dead attempt with a result that says so; it is not repeated silently."""
        await self.append(MessageEntry(message=interrupted_result(call)))

    async def gives_way(self) -> bool:
        """Between two steps: whether an input of a better lane waits for this transcript. The turn then ends here; its
        input goes back into line behind that one, uncharged, and is carried on from what stands in the transcript.
        """
        overtaker = await self._hf.store.overtaken_by(self._owned)
        if overtaker is not None:
            self.gave_way_to = overtaker
            self.note("turn.yielded", to=overtaker)
            self.flush_story()
        return overtaker is not None

    async def append_beside_input(self, custom_type: str, text: str) -> None:
        """Write a line that the model is shown with the turn's input, once however often it is run. Raises: as
        `append`.
        """
        entry_id = ids.derived_id(custom_type, self.input_id or self.id)
        await self._append_as(entry_id, made.custom_message(custom_type, text), durable=None, final=False)

    # ── a person ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ask_leave(
        self, what: str, arguments: dict[str, Any], *, why: str, timeout_s: float = 900.0, route: Route | None = None,
        told: Callable[[Approval], Awaitable[None]] | None = None,
    ) -> Approval:  # fmt: skip
        """Ask a person whether something may be done, and wait for the answer (`Holdfast.answer_approval`, `holdfast
        approvals`, `/approve`). The question is for exactly this, for this turn, once; a later attempt asks anew.

        Args:
            what: name of what would be done; with its arguments, which are shown: no secrets.
            why: why it takes a person, in words.
            route: where the question is put as a message; None: it is only in lists.
            told: called once the question is in the ledger, to show its id elsewhere.

        Returns: its state is "used" if it may be done now; "denied" or "expired" if not.

        Raises:
            SessionTakeoverError, OwnershipLostError: the session was lost meanwhile. TurnCancelledError,
            TurnStalledError: the turn is to stop. InputError: the question could not be put.
        """
        from holdfast.tool import consent  # loads what plain turns do not need
        from holdfast.tool.approval import ApprovalOrder, NotAsked, shown_arguments

        shown = shown_arguments(arguments)
        digest = ids.derived_id("arguments", what, json.dumps(arguments, sort_keys=True, default=str))
        order = ApprovalOrder(
            self.session, self.input_id, self.id, self.epoch.nonce, digest, what, digest, "", shown, why,
            () if route is None else (route,), timeout_s,
        )  # fmt: skip
        self.begins("question", f"{what} ({order.id})", limit_s=timeout_s)
        answer = await consent.ask(self._hf, self, order, told=told)
        if isinstance(answer, NotAsked):
            raise InputError(answer.text)
        self.begins("beginning")
        return answer

    # ── sub-agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def spawn(
        self, task: str, *, label: str | None = None, agent: str | None = None, model: str | None = None,
        timeout_s: float | None = None, key: str | None = None,
    ) -> Child | Refused:  # fmt: skip
        """Give a task to a sub-agent: a session of its own, run by whichever gateway has room for it.

        Durable when it returns, at once. Its end comes to this turn's session as an input of its own, once, however
        the processes end; the answer to that goes where the answer to this turn's input goes.

        Args:
            label: a short name for people; None: the beginning of the task.
            agent, model: None: this session's agent, and its model.
            timeout_s: longest run; never above the limit.
            key: names the child among those of this turn's input: the same again, also in a later attempt, is the same
                child. None: another one.

        Returns: the child, or the limit that forbids it.

        Raises:
            InputError: no task, or one that is too long. ResourceError: it could not be stored.
        """
        return await spawn(
            self._hf, parent_of(self), task, key=key, label=label, agent=agent, model=model, timeout_s=timeout_s
        )

    # ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begins(self, doing: Doing, name: str = "", *, limit_s: float | None = None) -> None:
        """Say what the turn does from now on, for whoever asks whether it works or stands still. Costs no I/O.

        Args:
            name: of the model or tool, or what is waited for.
            limit_s: how long that may be silent or last by itself; None: not known.
        """
        self._progress = self.progress.begins(doing, name, self._mono(), limit_s)
        self._heard = (0, 0.0)

    def heard(self) -> None:
        """A sign that what the turn does goes on: a chunk, a line of output. Costs no I/O, and next to nothing."""
        self._heard = (self._heard[0] + 1, self._mono())

    @property
    def progress(self) -> Progress:
        """What it was last heard of; others see it with the next beat. The thread that beats reads it as well."""
        now, (count, mono) = self._progress, self._heard
        return now.heard(max(mono, now.heard_mono), count) if count else now

    # ── cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, by: str) -> None:
        """Ask the turn to stop. It does at its next step, or at once if what runs can be interrupted."""
        if self.cancelled_by is None:
            self.cancelled_by = by
            self.note("turn.cancel_requested", by=by)
            if self.on_cancel is not None:
                self.on_cancel()

    def end_as_stalled(self, why: str) -> None:
        """Recovery asks this turn to end, since it stands still. It does as after `cancel`; its input fails, explained.

        Args:
            why: what had not been heard of for how long.
        """
        if self.stopped_for is None and self.cancelled_by is None:
            self.stopped_for = why
            self.note("turn.stopped_by_recovery", why=why)
            if self.on_cancel is not None:
                self.on_cancel()

    def end_if_silent(self) -> None:
        """End this turn if its model has said nothing for longer than it may. It does as after `cancel`; its input
        fails, explained. Costs no I/O.
        """
        why = None if self.silence is None else why_over(self.silence, self.progress, self._hf.clock.mono())
        if why is not None and not self.is_to_stop:
            self.timed_out = why
            self.note("turn.timed_out", why=why)
            if self.on_cancel is not None:
                self.on_cancel()

    @property
    def is_to_stop(self) -> bool:
        """Whether somebody, recovery, or its own limit has asked this turn to end."""
        return self.cancelled_by is not None or self.stopped_for is not None or self.timed_out is not None

    def why_to_stop(self) -> HoldfastError | None:
        """What the turn ends with if it has been asked to."""
        if self.cancelled_by is not None:
            return TurnCancelledError(self.cancelled_by)
        if self.timed_out is not None:
            return TurnLimitError("silence", self.timed_out)
        return None if self.stopped_for is None else TurnStalledError(self.stopped_for)

    async def raise_if_cancelled(self) -> None:
        """Raises TurnCancelledError, TurnStalledError or TurnLimitError if this turn (or its input) is to stop."""
        why = self.why_to_stop()
        if why is not None:
            raise why

    # ── losing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def salvage(self, entry: Entry) -> None:
        """Keep a finished answer of a lost turn: one line for people after `superseded`, else a file beside the
        transcript.

        If the input is still open and nobody has claimed it again, this also settles it as `superseded`, and the
        answer is delivered with a note. Called again for the same turn it does nothing.
        """
        why = self.lost.kind if self.lost is not None else "lost"
        await self._salvage(entry, f"the conversation had moved on ({why})", MOVED_ON_NOTE)

    async def _salvage(self, entry: Entry, why: str, note: str) -> None:
        if self._salvaged is not None:
            return
        text, message = outcomes.text(entry), outcomes.message_of(entry)
        about = {"turn": self.id, "input": self.input_id, "text": text, "message": message}
        kept = made.custom(made.SALVAGE_TYPE, about, visibility="user")
        entry_id = ids.entry_id(self.input_id or self.id, str(self.epoch), -1)
        build = self._builder(kept, entry_id, final=False, writer="salvage")
        where = await self._hf.store.salvage_line(self._owned, entry_id, build)
        self.note("turn.salvaged", where=where)
        detail = f"{why}; the answer is kept in {where}"
        result = {"message": message, "finish": "stop", "usage": None, "entry_id": entry_id}
        self._salvaged = Outcome("superseded", answer=text, result=result, detail=detail, notice=note)
        if self.input_id is not None:
            self._salvaged_state = await self._hf.store.settle_salvaged(self.input_id, self.epoch, self._salvaged)

    async def _keep_from_the_disk(self, refused: ResourceError) -> None:
        """The transcript did not take a finished answer: beside it there may be room. If not, its end is explained."""
        if self.lost is not None or not self._finals or self._final() is not None:
            return
        entry, _ = self._finals[-1]
        try:
            await self._salvage(entry, f"it could not be written: {refused}", NOT_WRITTEN_NOTE)
        except ResourceError as too:
            log.error("turn %s: its answer could not be kept beside the transcript either: %s", self.id, too)

    async def keep_finished(self, answer: Any) -> None:
        """Salvage what a prompt window was told is finished: text, a v3 message or an entry."""
        await self.salvage(outcomes.as_entry(answer))

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def close(self, exc: BaseException | None) -> str | None:
        """Settle, exactly once, whatever happened. Returns the state the input is in now, None without one.

        Raises:
            ResourceError: the settlement could not be recorded. The kernel keeps trying; a final line in the transcript
                settles the input in any case.
        """
        self.begins("settling")
        await self._hf.store.stop_writing(self._owned)
        if isinstance(exc, ResourceError):
            await self._keep_from_the_disk(exc)
        lost: OwnershipLostError | None = None
        try:
            state = await self._settle(exc)
        except OwnershipLostError as refused:
            if self._last is None:
                raise
            lost = refused
            await self.salvage(self._last[0])
            self._last = None
            state = await self._settle(refused)
        if lost is not None:
            raise lost
        return state

    async def _settle(self, exc: BaseException | None) -> str | None:
        outcome, how, detail = self._how_it_ended(exc)
        if outcome is None and self.input_id is not None:
            charge = how == "taken_over"
            state = self._salvaged_state
            if state is None:
                yielded = how == "yielded"
                await self._hf.store.requeue(
                    self._owned, detail or how, charge=charge, yielded=yielded, calls=tuple(self.calls.values())
                )
                state = "queued"
            else:
                calls = tuple(self.calls.values())
                await self._hf.store.settle(self._owned, None, how, detail, self._take_story(), calls=calls)
        else:
            models, last = self._models_found_out(), {}  # has something to say to the story
            if self._last is not None:
                last = {"last": [self._last[1:]]}
            story = self._take_story()
            try:
                state = await self._hf.store.settle(
                    self._owned, outcome, how, detail, story, models=models, joined=tuple(self.joined),
                    calls=tuple(self.calls.values()), **last,
                )  # fmt: skip
            except OwnershipLostError:
                self._story[:0] = [line for line in story if line[4] != "turn.model_state"]  # that was not kept
                raise
        settled = outcome or self._salvaged
        self._publish(
            "turn.settled", state=state or how, detail=detail, answer=settled.answer if settled else None,
            result=settled.result if settled else None,
        )  # fmt: skip
        return state

    def _models_found_out(self) -> ModelsAfter | None:
        """What the settlement keeps of models; nothing, as a rule."""
        found = self.models_after
        if found is None or found.is_nothing:
            return None
        if found.fallback != found.fallback_before:
            self.note("turn.model_state", **_told(found))
        return found

    def _final(self) -> tuple[MessageEntry, str] | None:
        """The last final entry that is in the file, or is written with the turn's end."""
        if self._last is not None:
            return self._last[:2]
        return next((final for final in reversed(self._finals) if self._owned.has_landed(final[1])), None)

    def _how_it_ended(self, exc: BaseException | None) -> tuple[Outcome | None, str, str | None]:
        """(outcome of the input or None to put it back, outcome of the turn, detail)."""
        if self.lost is not None:
            return None, "taken_over", f"{self.lost.kind}: {self.lost.detail}"
        final = self._final()
        if final is not None:  # a final line in the file wins over whatever came after it
            entry, entry_id = final
            answered = answered_by(entry.message, entry_id, self.result_facts)
            if self._merged:
                answered = replace(answered, notice=f"(This answers your last {self._merged + 1} messages.)")
            return self.outcome or answered, "answered", None
        if exc is None:
            if self.outcome is not None:
                return self.outcome, self.outcome.state, self.outcome.detail
            if self.gave_way_to is not None:
                return None, "yielded", f"gave way to {self.gave_way_to}"
            if self.input_id is None:
                return None, "done", None
            return Outcome("failed", detail="the turn ended without an answer", error="NoAnswer"), "failed", "no answer"
        return outcomes.cleaned(outcomes.of_failure(exc, has_input=self.input_id is not None), self._hf.redact)

    # ── what it used ─────────────────────────────────────────────────────────────────────────────────────────────────

    def next_call(self) -> int:
        """The number of the next model call."""
        return len(self.calls) + 1

    async def begin_call(self, call: ModelCall, guards: tuple[Guard, ...] = ()) -> Allowance:
        """Before a model is asked: the ledger knows of the call when this returns, and how those before it have ended,
        so that nothing that was asked is lost with this process; unless a limit forbids it. Not synced.

        Raises: ResourceError.
        """
        news = [one for one in self.calls.values() if one.id not in self._ends_told]
        allowance = await self._hf.store.begin_call([*news, call], guards)
        self._ends_told |= {one.id for one in news if one.state != "begun"}
        if allowance.held is None:
            self.calls[call.id] = call
            self._publish("turn.call_began", id=call.id, model=call.model, purpose=call.purpose)
        return allowance

    def end_call(self, call: ModelCall, finish: str | None = None) -> None:
        """A call has ended, its answer for the reason `finish`; the ledger learns of it before the next one, or with
        the settlement.
        """
        self.calls[call.id] = call
        self._publish(
            "turn.call_ended", id=call.id, model=call.model, purpose=call.purpose, state=call.state,
            reason=call.reason, ms=(call.ended_at_ms or call.began_at_ms) - call.began_at_ms, tokens=call.tokens,
            cost=call.cost, finish=finish,
        )  # fmt: skip

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, kind: str, **data: Any) -> None:
        """One line of the story for `why`, and an event for whoever watches."""
        self._story.append((epoch_ms(self._hf.clock.now()), self.session, self.input_id, self.id, kind, data))
        self._publish(kind, **data)

    def publish(self, kind: str, **data: Any) -> None:
        """An event for whoever watches now; not part of the story (streamed text)."""
        self._publish(kind, **data)

    def _publish(self, kind: str, **data: Any) -> None:
        if self._hf.events.wants(kind):
            at_ms = epoch_ms(self._hf.clock.now())
            self._hf.events.publish(TurnEvent(kind, self.session, at_ms, self.input_id, self.id, data))

    def _take_story(self) -> list[tuple[int, str, str | None, str | None, str, dict[str, Any]]]:
        story, self._story = self._story, []
        return story

    def flush_story(self) -> None:
        """Hand the story so far to the ledger, so that `why` can tell of a turn that is still running."""
        if self._story:
            self._hf.store.note_events(self._take_story())


def _told(found: ModelsAfter) -> dict[str, Any]:
    """A change of who answers a session, and who was told, for the story."""
    now, before = found.fallback, found.fallback_before
    told = f"{found.notice[0]}:{found.notice[1]}" if found.notice is not None else None
    if now is not None:
        return {"selected": now.selected, "active": now.active, "reason": now.reason, "told": told}
    assert before is not None
    return {"selected": before.selected, "active": None, "reason": None, "told": told}
