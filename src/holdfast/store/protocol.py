"""What a backend has to do, one small protocol per concern. Two backends are held equal by one conformance suite.

Who calls what, and in which order, is in `kernel.py` and `turn/turn.py`; the rules are DESIGN §3. `Owned` values are
handed out by `claim` and handed back as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.doctor.facts import PinFact
from holdfast.inbound.child import Child, Refused, SpawnLimits, SpawnOrder
from holdfast.inbound.event import Admission, InboundEvent, Route
from holdfast.inbound.pairing import ListenerView, Pairing, TurnedAwayCount
from holdfast.inbound.timer import Timer, TimerRun, Wake
from holdfast.lane.policy import LaneLimits, Waiting
from holdfast.lane.queue import PLAIN, How, QueueSettings
from holdfast.model.cooldown import Cooldown, ModelFailure
from holdfast.model.policy import ModelFacts, ModelsAfter, ModelsNow, Pin
from holdfast.model.spending import Allowance, Guard
from holdfast.model.usage import ModelCall
from holdfast.outbox.mail import Login, Mailbox
from holdfast.outbox.message import Outcome
from holdfast.outbox.outbox import NO_CHANGE, Change, OpenDelivery
from holdfast.outbox.preview import Preview
from holdfast.recovery.classify import Owner
from holdfast.recovery.progress import Report
from holdfast.recovery.watching import Mark
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.session.retention import Conversation, Kept
from holdfast.store.views import (
    ArchiveView,
    Backlog,
    Cursor,
    DeliveryView,
    Happened,
    Hold,
    InputView,
    InUse,
    SessionView,
    Stories,
    Trouble,
    TurnView,
    UsedIn,
)
from holdfast.tool.approval import Approval, ApprovalOrder, Grant, NotAsked, Scope
from holdfast.tool.running import BackgroundOrder, Ended, NotBegun, Program

if TYPE_CHECKING:  # the tools know turns, which know the store
    from holdfast.tool.message import MessageOrder, NotSent, Queued

Build = Callable[[str | None], bytes]
"""Makes a line for the parent it gets; called under the write lock, must be quick and must not fail."""


StoryLine = tuple[int, str, str | None, str | None, str, dict[str, Any]]
"""at_ms, session, input, turn, kind, data."""


class SessionStore(Protocol):
    """Transcripts, who may extend them, and the fence."""

    async def transcript_of(self, key: str) -> str:
        """The transcript behind a session key; registers the key. Raises InputError, TranscriptFormatError."""
        ...

    async def find_transcript(self, key: str) -> str | None: ...

    async def claim(self, request: ClaimRequest, *, wait_s: float, fence_mode: str) -> Any | Busy:
        """Own a transcript within `wait_s` seconds. Raises SessionBusyError, WaitRingError; cancelled: no trace."""
        ...

    def view_of(self, owned: Any) -> InputView | None: ...

    def start_beating(
        self, owned: Any, *, still_runs: Callable[[], bool], report: Callable[[], Report] | None = None
    ) -> None: ...

    @property
    def lines_may_wait(self) -> bool:
        """Whether lines can go into one transaction with what follows them: `soon` of `append`, `last` of `settle`."""
        ...

    async def append(
        self, owned: Any, lines: Sequence[tuple[str, Build]], *, sync: bool, soon: bool = False
    ) -> tuple[Verdict, Any]:
        """Append the owner's lines in one holding. Raises SessionTakeoverError, OwnershipLostError, ResourceError.

        Args:
            soon: nothing rests on them before the turn's next line, call of a model, or end, which writes them first;
                asked only where `lines_may_wait`. The turn itself sees them at once.
        """
        ...

    async def inspect(self, owned: Any) -> Verdict: ...

    async def append_metadata(self, transcript: str, entry_id: str, build: Build, *, sync: bool) -> Any: ...

    async def salvage_line(self, owned: Any, entry_id: str, build: Build) -> str: ...

    async def read_lines(self, transcript: str) -> list[Line]: ...

    async def read_tail(self, owned: Any) -> list[Line]: ...

    async def sweep_lock_files(self) -> int:
        """Remove the lock files that dead writers of another program have left beside transcripts; how many that were.
        What cannot be removed is told in the log. 0: none, or this store shares its transcripts with no other program.
        """
        ...


class InboxStore(Protocol):
    """Accepted inputs and their ends."""

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        """Store an input durably, or say why not.

        Args:
            usual: how queues behave that have no settings of their own.
            is_command: it is said to the runtime: taken although the queue is full, never steered or merged. One that
                interrupts (`event.queue`) asks whatever turn runs in its session for people to stop.
        """
        ...

    async def stop_writing(self, owned: Any) -> None:
        """The turn appends nothing more; what it has appended is known when this returns."""
        ...

    async def settle(
        self,
        owned: Any,
        outcome: Outcome | None,
        turn_outcome: str,
        detail: str | None,
        events: list[StoryLine],
        models: ModelsAfter | None = None,
        joined: Collection[str] = (),
        calls: Sequence[ModelCall] = (),
        last: Sequence[tuple[str, Build]] = (),
    ) -> str | None:
        """End the turn. `last`: lines that are written with its end or not at all, where `lines_may_wait`.

        Raises: SessionTakeoverError, OwnershipLostError: the fence has refused the last lines; nothing has ended.
        """
        ...

    async def settle_salvaged(self, input_id: str, epoch: Epoch, outcome: Outcome) -> str: ...

    async def settle_unclaimed(self, input_id: str, outcome: Outcome) -> str: ...

    async def requeue(
        self, owned: Any, why: str, *, charge: bool, yielded: bool = False, calls: Sequence[ModelCall] = ()
    ) -> None:
        """Put the input back in its place. `yielded`: its turn gave way to others, and it waits anew from now on."""
        ...

    async def overtaken_by(self, owned: Any) -> str | None:
        """The input that the turn should give way to at its next step (`lane.policy.overtaker`), or None."""
        ...

    async def request_cancel(self, input_id: str, by: str) -> str:
        """Ask for the end of an input, and stop the children that it has spawned; one transaction, durable."""
        ...

    async def cancel_requests(self) -> dict[str, str]:
        """Open inputs whose end somebody has asked for, and who."""
        ...

    async def input(self, input_id: str) -> InputView: ...

    async def inputs(self, *, session: str | None, state: str | None, limit: int) -> list[InputView]: ...

    async def find_join(self, session: str, join: str, since_ms: int) -> str | None: ...


class LaneStore(Protocol):
    """The queue as the policy sees it, and the recovery of dead turns."""

    async def queue(self) -> tuple[list[Waiting], dict[str, int], bool]: ...

    async def recover_dead(self) -> int: ...

    async def owners(self) -> list[Owner]:
        """Every claim, with what is known of its process. Reads only."""
        ...

    async def watch_lives(self) -> None:
        """Return once it is known of each owner's process whether it lives, or will not be known soon. Reads only."""
        ...

    async def marks(self) -> list[Mark]:
        """What has been told of owners that stand still, and asked of them."""
        ...

    async def asked_to_end(self) -> dict[str, str]:
        """Turns that recovery has asked to end, and why."""
        ...

    async def change_mark(self, seen: Mark | None, to: Mark | None, story: Sequence[StoryLine] = ()) -> bool:
        """Make (`seen` None), change or remove (`to` None) a mark, with what there is to tell of that.

        Returns: False: it is not as it was seen, or (without an `outcome`) its turn owns nothing any more under its
            epoch; nothing was changed.
        """
        ...

    async def begin_boot(self, unclean_max: int) -> Hold | None:
        """Note that this process is a gateway that starts. Returns the hold on work, if there is one or one was put on:
        `unclean_max` gateways have died within minutes (0: never).
        """
        ...

    async def end_boot(self) -> None:
        """It ends in order."""
        ...

    async def held(self) -> Hold | None: ...

    async def release_hold(self) -> Hold | None:
        """Let work go on. Returns the hold that was there."""
        ...

    async def watch_owner(self, owner: Owner) -> tuple[bytes, float]:
        """The owner's beat, and for how long this process has watched it standing still."""
        ...

    async def close_turn_of(self, owner: Owner, *, lapsed: bool) -> bool:
        """Close an owner's turn as the next owner would, if its process is dead (or, `lapsed`, its beat has stood still
        for the whole term) and its epoch still owns. Returns whether it did.
        """
        ...

    async def state_of_input(self, input_id: str) -> str: ...

    def hear_of_free_slots(self, wake: Callable[[], object]) -> AbstractContextManager[None]:
        """Within it `wake` is called when another process has freed a slot of a lane. A hint: it may be missed, and
        what happened before has not been heard.
        """
        ...

    async def join_waiting(self, owned: Any, how: How) -> list[InputView]:
        """Take in the inputs that wait and may share this turn, oldest first; they end with its final line."""
        ...

    async def dropped_before(self, input_id: str) -> str | None:
        """What the model is told of inputs that gave way in a full queue, before this input; None: nothing."""
        ...

    async def queue_settings(self, session: str, usual: QueueSettings) -> QueueSettings: ...

    async def change_queue(self, session: str, change: dict[str, Any] | None) -> None: ...

    async def tell_of_waiting(self, waiting: Sequence[str]) -> int:
        """Tell the senders of these inputs that they wait, once for each turn they wait behind; how many were told."""
        ...

    async def tell_of_holder(self, input_id: str, text: str, holder: str) -> int:
        """Tell the sender of an input that waits who holds its conversation up, once; 1 if that is new, else 0. The
        story of the input has it (`holder`) in any case.
        """
        ...

    async def tell_of_draining(self) -> int:
        """Tell the senders whose messages wait that this gateway restarts, unless another one goes on; how many."""
        ...


class OutboxStore(Protocol):
    """Deliveries on their way."""

    async def open_deliveries(self, channels: Sequence[str]) -> list[OpenDelivery]:
        """The first unfinished row of each target of these channels, whatever its state."""
        ...

    async def delivery(self, delivery_id: str) -> OpenDelivery | None:
        """One row, in whatever state; None: there is none of this id."""
        ...

    async def move_delivery(self, seen: OpenDelivery, event: str, change: Change = NO_CHANGE) -> OpenDelivery | None:
        """Move a row (`lane/states.py`) if it still is as it was seen; durable when it returns.

        Returns: the row as it is now, or None: somebody else has moved it, and nothing was changed.
        """
        ...

    async def deliveries(self, *, state: str | None, limit: int, input_id: str | None = None) -> list[DeliveryView]: ...

    async def begin_preview(self, delivery_id: str, input_id: str, channel: str, target: str) -> Preview | None:
        """Note, in this process's name, that the beginning of an answer is about to be shown. Durable.

        Returns: what is shown already by an earlier attempt; then nothing was changed. None: it is new.

        Raises:
            OwnershipLostError: no turn of this process answers the input now; nothing may be shown.
        """
        ...

    async def name_preview(self, delivery_id: str, reference: str) -> None:
        """Note what the platform calls it."""
        ...

    async def end_preview(self, delivery_id: str) -> None:
        """Forget it: it is gone, or was never there. One that has become an answer is forgotten with that move."""
        ...

    async def preview(self, delivery_id: str) -> Preview | None: ...

    async def previews_without_answer(self, channels: Sequence[str]) -> list[Preview]:
        """Those whose input has ended with nothing to say."""
        ...


class ModelStore(Protocol):
    """What is known of models, by every process and after a restart. What to make of it is decided in `model/`."""

    def models_of(self, owned: Any) -> ModelFacts:
        """What was known when the turn was claimed: it is read with the claim."""
        ...

    def note_model_failure(self, failure: ModelFailure) -> None:
        """Count a failure (`cooldown.after_failure` on the row as it is then). Nobody waits for it."""
        ...

    def note_model_well(self, row: Cooldown) -> None:
        """A probe has succeeded: the cool-down is over for everybody. Nobody waits for it."""
        ...

    async def begin_probe(self, row: Cooldown, turn: str, *, every_s: float) -> bool:
        """Whether this turn may ask in spite of a cool-down: one at a time, at most once in `every_s`, over all
        processes.
        """
        ...

    async def replace_pin(self, session: str, *, seen: str | None, pin: Pin | None) -> bool:
        """Change a session's pin if it still is the one seen (its id; None: there was none)."""
        ...

    def undo_pin(self, session: str, *, written: str, before: Pin | None) -> None:
        """Put `before` back if the pin still is the one that was written. Nobody waits for it."""
        ...

    async def choose_pin(self, session: str, pin: Pin | None) -> Pin | None:
        """Set or take away a session's pin by a user's choice, whatever it was; durable. Returns what it was."""
        ...

    async def pins(self, sessions: Iterable[str]) -> dict[str, Pin]: ...

    async def pin_facts(self, session: str | None = None) -> list[PinFact]:
        """Pins as their rows are, of a session or of all: also one that somebody put there by hand and that is none."""
        ...

    async def models(self) -> ModelsNow: ...

    def now_ms(self) -> int:
        """Wall time as this store has it, epoch milliseconds."""
        ...


class UsageStore(Protocol):
    """Calls of models and what they used (`model/usage.py`)."""

    async def begin_call(self, calls: Sequence[ModelCall], guards: tuple[Guard, ...] = ()) -> Allowance:
        """Write calls down, of which the last is about to be made, unless a limit forbids that one: in one transaction
        with what counts against the limits. The same call again moves on only. Survives this process, unsynced.
        """
        ...

    async def calls_of(self, turn: str) -> list[ModelCall]:
        """The calls of a turn, in order."""
        ...

    async def usage(
        self, *, since_ms: int, until_ms: int, session: str | None = None, agent: str | None = None
    ) -> list[UsedIn]:
        """Sums of the calls that began in that span, oldest first, over quarters of an hour."""
        ...


class TimerStore(Protocol):
    """Cron jobs and heartbeats (`inbound/timer.py`), shared by all processes. Deciding is `inbound/`'s."""

    async def timers(self, *, kind: str | None = None) -> list[Timer]: ...

    async def change_timer(
        self,
        seen: Timer | None,
        to: Timer | None,
        *,
        began: TimerRun | None = None,
        ended: TimerRun | None = None,
        used: Sequence[str] = (),
        durable: bool = False,
    ) -> Timer | None:
        """Make (`seen` None), change, or remove (`to` None) a timer, in one transaction with what goes with it.

        Args:
            began: a run that begins, or a skip; the same id again is the same run.
            ended: a run that ends; it must be running.
            used: wakes that the run has been told of.

        Returns: the timer as it is now (the removed one), or None: it is not as it was seen (or is there already, or
            the run had ended), and nothing was changed.
        """
        ...

    async def timer_runs(self, *, timer: str | None = None, running: bool = False, limit: int = 100) -> list[TimerRun]:
        """Newest first. `running`: those that have not ended, of all timers."""
        ...

    async def add_wake(self, wake: Wake) -> bool:
        """Durable. False: one of this id waits already."""
        ...

    async def wakes(self) -> list[Wake]: ...

    async def input_by_key(self, source: str, account: str, key: str) -> str | None: ...

    async def last_route(self, session: str) -> Route | None:
        """Where the people of a session were answered last; timers' own inputs do not count."""
        ...

    async def conversation_at(self, route: Route) -> str | None:
        """The session that a route was last used by."""
        ...


class ChildStore(Protocol):
    """Sub-agents (`inbound/child.py`). Deciding is `inbound/`'s."""

    async def spawn(self, order: SpawnOrder, limits: SpawnLimits) -> Child | Refused:
        """Make a child: limits asked, its input accepted, its row written, in one transaction; durable. One of this id
        that is there already is that child.
        """
        ...

    async def children(
        self, *, session: str | None = None, parent_input: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Child]:
        """Newest first. `session`, `parent_input`: only those that it has spawned. `only_open`: whose parents have yet
        to hear of them.
        """
        ...

    async def child(self, child: str) -> Child | None: ...

    async def last_word(self, input_id: str) -> str | None:
        """The input whose end is that of a whole piece of work: an input, its children, their ends and so on. None: it
        is not over.
        """
        ...

    async def stop_children(self, session: str, by: str) -> list[str]:
        """Stop the open children of a session, and theirs: their inputs are asked to end, nobody is told anew. Durable.
        Returns their ids.
        """
        ...

    async def cancel_child(self, child: str, by: str) -> str:
        """Ask one child to end, and stop its own; its parent hears of it. Returns "requested" or "already <state>"."""
        ...

    async def close_child(self, seen: Child, event: str, announce_id: str | None = None) -> bool:
        """Close a child whose work is over: "announce" (by that input of its parent) or "hush". False: it is closed."""
        ...

    async def begin_waiting(self, session: str, turn: str) -> str:
        """A turn is about to wait for what goes on in another session: it lends its lane slot. Returns the name of the
        wait, for `end_waiting`.

        Raises:
            WaitRingError: what goes on there waits, by others, for this very turn. Nothing was noted.
        """
        ...

    def end_waiting(self, wait: str, turn: str) -> None:
        """It waits no longer. Nobody waits for this."""
        ...

    async def archive_children(self, before_ms: int) -> int:
        """Leave the sessions of children that were closed before a time out of lists. Returns how many; nothing of them
        is thrown away.
        """
        ...


class ApprovalStore(Protocol):
    """Questions whether a tool call may run, and their answers (`tool/approval.py`)."""

    async def ask_approval(self, order: ApprovalOrder) -> Approval | NotAsked:
        """Put a question, if its turn owns its session, with its notices in the outbox; durable. The turn lends its
        lane slot until the answer is used or the question closed. The same order again is the same question.
        """
        ...

    async def decide_approval(
        self, approval: str, *, yes: bool, by: str, scope: Scope, grant_s: float
    ) -> Approval | NotAsked:
        """Answer a question that still waits; durable. `scope` "session", with a yes: alike calls of this conversation
        need not be asked for within `grant_s`.
        """
        ...

    async def use_approval(self, approval: str, turn: str, epoch: Epoch, digest: str) -> bool:
        """Use a consent, for this very call of this very turn while it owns its session; durable. False: not so."""
        ...

    async def take_over_question(self, input_id: str, call_id: str, digest: str) -> bool:
        """Make void what earlier attempts at an input have asked about a call. True: they did, and it has not run."""
        ...

    async def close_approval(self, approval: str, event: str) -> None:
        """Nobody waits any more: "expire" or "void", unless it is answered."""
        ...

    def void_approval(self, approval: str) -> None:
        """The same, in the name of a turn that is about to end. Nobody waits for it."""
        ...

    async def approval(self, approval: str) -> Approval | None: ...

    async def approvals(self, *, session: str | None, pending: bool, limit: int) -> list[Approval]:
        """Newest first; `pending`: those that wait for an answer."""
        ...

    async def granted(self, session: str, tool: str, subject: str) -> Grant | None: ...

    async def grants(self, session: str | None) -> list[Grant]: ...

    async def revoke_grants(self, session: str) -> int:
        """Take back what was allowed for a whole conversation; returns how many. Durable."""
        ...


class ToolworkStore(Protocol):
    """What tools leave behind: messages (`tool/message.py`) and programs in the background (`tool/running.py`)."""

    async def send_message(self, order: MessageOrder) -> Queued | NotSent:
        """Send a message once, if its turn owns its session: into the outbox, or as an announcement into the
        conversation that its route belongs to; one transaction, durable.
        """
        ...

    async def begin_background(self, order: BackgroundOrder) -> str | NotBegun:
        """Note a program that this process is about to start, if the turn owns its session; durable. Its id."""
        ...

    async def end_background(self, program: str, process: str, ended: Ended) -> bool: ...

    async def close_background(self, seen: Program, event: str, announce_id: str | None = None) -> bool:
        """Close one that has ended: "announce" (by that input) or "hush". False: it is closed."""
        ...

    async def stop_background(self, session: str, by: str) -> int:
        """Ask the programs of a session to end; nobody is told anew. Returns how many; durable."""
        ...

    async def background(
        self, *, session: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Program]:
        """Newest first. `only_open`: of whose ends their sessions have still to hear."""
        ...


class ChannelStore(Protocol):
    """Who may speak on channels, and who listens to them. Deciding is `channel/gate.py`'s and `inbound/`'s."""

    async def ask_pairing(self, channel: str, sender: str, name: str) -> Pairing | None:
        """The sender's code that waits for approval: theirs if there is one, else a new one, durable. None: too many
        wait. One who is approved is returned as that.
        """
        ...

    async def approve_pairing(self, channel: str, code: str, by: str) -> Pairing | None:
        """Let in whom this code was sent to; durable. None: no such code waits."""
        ...

    async def revoke_pairing(self, channel: str, sender: str, by: str) -> Pairing | None:
        """Let a sender in no more, or forget their code; durable. None: they are not known."""
        ...

    async def pairing(self, channel: str, sender: str) -> Pairing | None: ...

    async def pairings(self, *, channel: str | None = None, limit: int = 100) -> list[Pairing]:
        """Newest first."""
        ...

    def note_turned_away(self, channel: str, reason: str, peer: str, sender: str) -> None:
        """Count it. Nobody waits for it; the oldest give way past a thousand."""
        ...

    async def turned_away(self, *, channel: str | None = None, limit: int = 100) -> list[TurnedAwayCount]:
        """The latest first."""
        ...

    async def take_listening(self, channel: str, seen: ListenerView | None) -> bool:
        """Listen to a channel from now on, if who listens is still as it was seen."""
        ...

    def note_listening(self, channel: str, state: str, detail: str | None) -> None:
        """Tell how this process fares with it, and that it is at it. Nobody waits for it."""
        ...

    async def leave_listening(self, channel: str) -> None: ...

    def note_position(self, channel: str, position: str) -> None:
        """Where whoever listens next goes on; left alone unless this process listens. Nobody waits for it, and after a
        power loss it may be an earlier one.
        """
        ...

    async def position(self, channel: str) -> str | None: ...

    async def listeners(self) -> list[ListenerView]: ...


class BrowserStore(Mailbox, Protocol):
    """The web chat: its messages (`outbox/mail.py`), and the browsers that are logged in (`gateway/login.py`)."""

    async def begin_login(self, digest: str, account: str, lifetime_s: float) -> Login:
        """Durable. Past `LOGINS_MAX` the oldest ends."""
        ...

    async def login(self, digest: str) -> Login | None:
        """One that holds now; None: there is none, or it is over."""
        ...

    async def end_login(self, digest: str) -> None:
        """Durable; one that is over has ended."""
        ...


class StoryStore(Protocol):
    """What people ask about."""

    def hear_of_lock_waits(self, told: Callable[[float], object]) -> AbstractContextManager[None]:
        """Within it `told` is called, on any thread, with the seconds of each wait of this process for a write lock
        that somebody else held; it must be quick and must not fail.
        """
        ...

    def note_events(self, events: list[StoryLine]) -> None: ...

    async def happened(self, since: Cursor | None) -> Happened:
        """What other processes have done since; None: only the cursor of now."""
        ...

    async def stories(self, *, since_ms: int, also: Sequence[str], limit: int, after: int | None = None) -> Stories:
        """The newest turns, at most `limit`, as far as they ran after `since_ms`; those named in `also`; and those of
        which something was told after `after`. The oldest first. Running ones are always among them.
        """
        ...

    async def trouble(self, *, since_ms: int, limit: int) -> Trouble:
        """What went wrong since then, at most `limit` of each sort. Costs what went wrong, not what has been."""
        ...

    async def backlog(self) -> Backlog:
        """What waits and runs now. Costs what is open, not what has been."""
        ...

    async def tidy(self) -> int:
        """Throw away old stories and what is left of processes that are gone; returns how many rows. Never what is
        open, never an input or its key.
        """
        ...

    async def events(self, *, input_id: str | None = None, turn: str | None = None) -> list[dict[str, Any]]: ...

    async def turn(self, turn_id: str) -> TurnView | None: ...

    async def turns_of(self, input_id: str) -> list[TurnView]: ...

    async def turns(self, *, session: str | None, limit: int) -> list[TurnView]: ...

    async def sessions(self, *, prefix: str, limit: int, archived: bool = False) -> list[SessionView]:
        """Most recently used first. `archived`: those of children that were put away, too."""
        ...


class LifeStore(Protocol):
    """How conversations are kept apart, begin anew and end."""

    async def keys_with(self, session: str) -> list[str]:
        """All keys of a session's transcript, the oldest first; the key alone if it is not known."""
        ...

    async def last_spoken_ms(self, session: str, *, before_input: str | None = None) -> int | None:
        """When people last spoke in a conversation, under whichever key, or were answered; None: never.

        Args:
            before_input: only what was accepted before this one counts; None: all.
        """
        ...

    async def set_title(self, session: str, title: str | None) -> None:
        """What lists show of a session, under whichever of its keys; the transcript says it first."""
        ...

    async def read_end(self, transcript: str) -> list[Line]:
        """The newest lines, some tens of kilobytes of them."""
        ...

    async def read_mark(self, transcript: str, by: str) -> str | None:
        """Up to which entry somebody has read; None: nobody has said so."""
        ...

    async def note_read(self, transcript: str, by: str, upto: str, now_ms: int) -> None: ...

    async def archive(self, owned: Any, session: str, *, why: str, by: str) -> ArchiveView | InUse:
        """Put the transcript of a turn away and begin a new one in its place, unless inputs are open on it or answers
        have not gone out. Whole or not at all, also after a kill: the next owner finishes it (`finish_archives`).

        Raises: SessionTakeoverError, OwnershipLostError, ResourceError.
        """
        ...

    async def check_archive(self, archive: str, transcript: str) -> None:
        """Raises UnknownInputError: it is none of this transcript. TranscriptFormatError: it is damaged."""
        ...

    async def restore(self, owned: Any, archive: str) -> InUse | None:
        """Put an archive back in the place of its transcript, what stands there being gone then.

        Raises: as `archive`; UnknownInputError, TranscriptFormatError: nothing was changed.
        """
        ...

    async def finish_archives(self, owned: Any) -> int:
        """End what an earlier owner of this transcript began and did not end; returns how many that were."""
        ...

    async def delete_archive(self, archive: str) -> int:
        """Throw an archive away for good. Raises UnknownInputError, InputError, ResourceError (tried again later)."""
        ...

    async def finish_deletions(self) -> int:
        """Throw away what somebody began to throw away; returns how many that were. Needs no owner."""
        ...

    async def archives(self, session: str | None, limit: int) -> list[ArchiveView]:
        """Those that are whole, newest first; of one session or of all. limit: -1: any number."""
        ...

    async def unfinished_archives(self) -> list[ArchiveView]:
        """What somebody began and did not end, who is not at it any more."""
        ...

    async def retained(self) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
        """What the plan of retention looks at, and a key of each transcript."""
        ...

    async def begin_chore(self, name: str, every_s: float) -> bool:
        """Whether it is for this process to do what is done once in a while, among all processes of the state."""
        ...


class RepairStore(Protocol):
    """What `holdfast doctor` may put right without owning anything. Each looks again whether it is still so."""

    async def list_session(self, key: str, path: str) -> bool:
        """List a transcript that is there under the key that its name was made of. False: it is listed, or has gone."""
        ...

    async def requeue_stranded(self, input_id: str) -> str | None:
        """Put a running input back whose turn owns nothing. Returns its state then; None: there was nothing to do."""
        ...

    async def close_stray_turn(self, turn: str) -> bool:
        """Close a turn that is called running and owns nothing. False: there was nothing to do."""
        ...

    async def recount_queues(self) -> None:
        """Count open and waiting inputs anew."""
        ...

    async def remove_pin(self, session: str, pin_id: str) -> bool:
        """Take a pin away if it is still this very one."""
        ...

    async def narrow_rights(self, name: str) -> bool:
        """Take other users' rights to a file of the state away, or another role's to its tables. Raises
        ResourceError.
        """
        ...

    async def mend_transcript(self, owned: Any) -> list[str]:
        """Write the transcript of a turn anew where other readers would stumble, and keep the original; what was done.

        Raises: OwnershipLostError, SessionTakeoverError: nothing was.
        """
        ...


class Store(
    SessionStore, InboxStore, LaneStore, OutboxStore, ModelStore, UsageStore, TimerStore, ChildStore, ApprovalStore,
    ToolworkStore, ChannelStore, BrowserStore, StoryStore, LifeStore, RepairStore, Protocol,
):  # fmt: skip
    """Everything the kernel needs of a backend."""

    @property
    def store_id(self) -> str: ...

    @property
    def process(self) -> str: ...

    @property
    def location(self) -> str: ...

    @property
    def stopped(self) -> bool:
        """Whether the store can do nothing more in this process."""
        ...

    def raise_if_stopped(self) -> None:
        """Raises StoreStoppedError then. A loop asks: reading may go on working where nothing can be recorded."""
        ...

    def use_limits(self, limits: LaneLimits) -> None:
        """Lane widths and depths for what is accepted and claimed from now on, in this process."""
        ...

    async def close(self) -> None: ...
