"""What the store shows to readers: frozen pictures, never handles. All times are epoch milliseconds (UTC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holdfast.model.policy import Fallback, Pin
from holdfast.model.usage import Used


@dataclass(frozen=True, slots=True)
class InputView:
    """One accepted input. `state` is "queued", "running" or a terminal one (`lane/states.py`)."""

    id: str
    session: str
    lane: str
    source: str
    state: str
    accepted_at_ms: int
    payload: dict[str, Any]
    position: int | None = None  # inputs of its session that are before it while queued
    attempts: int = 0
    settled_at_ms: int | None = None
    turn_id: str | None = None  # the latest turn that ran it
    detail: str | None = None  # reason of a terminal state, in words
    error: str | None = None  # class name, when failed
    answer: str | None = None  # final text, when there is one (also for `superseded`)
    result: dict[str, Any] | None = (
        None  # {"message": v3 assistant message, "finish": str, "usage": {...}, "entry_id": str}
    )
    cancel_requested_by: str | None = None
    model: str | None = None
    route: str | None = None  # "channel:target"
    queue: str = "followup"  # how it waits, `lane/queue.py`
    carries: bool = False  # the model is told of inputs that were dropped before it

    @property
    def settled(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class WorkView:
    """What a running turn does, as of its last beat (its own process knows it to the moment).

    Args:
        doing, name: such as "tool", "exec"; None: it has not handed anything over yet, or nothing of it lives.
        doing_s, still_s: for how long; since anything was heard of it.
        event, reason: what that amounts to, once it is worth telling: "session.long_running", "session.stalled",
            "session.stuck".
        words: the same for people.
    """

    pid: int | None
    life: str
    doing: str | None
    name: str | None
    doing_s: int | None
    still_s: int | None
    event: str | None
    reason: str | None
    words: str


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn. `state`: "running" or "settled"; `outcome` as of its input, or "done"/"failed" for a turn without
    one. `work`: of a running one.
    """

    id: str
    session: str
    lane: str
    epoch: int
    process: str
    state: str
    started_at_ms: int
    ended_at_ms: int | None = None
    input_id: str | None = None
    outcome: str | None = None
    detail: str | None = None
    work: WorkView | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session key and its transcript. `pin`: a model of its own; `fallback`: another answers in place of its model
    (`model/policy.py`). `home`: the key whose transcript it shares. `parent`: the session of which it is a sub-agent's;
    `child_state`: how far that is.
    """

    key: str
    transcript: str
    path: str | None
    size_bytes: int
    owner_turn: str | None
    owner_lane: str | None
    queued: int
    updated_at_ms: int
    pin: Pin | None = None
    fallback: Fallback | None = None
    title: str | None = None
    home: str | None = None
    parent: str | None = None
    child_state: str | None = None
    archived_at_ms: int | None = None  # what was there before was put away then, and nothing followed


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """A transcript that was put away. `state`: as in `lane/states.py`; `why`: "asked", "deleted", "restored over", or a
    rule of retention; `name`: of its file, below `archives/`.
    """

    id: str
    session: str
    title: str | None
    state: str
    why: str
    by: str
    at_ms: int
    bytes: int
    transcript: str
    name: str


@dataclass(frozen=True, slots=True)
class InUse:
    """Nothing was done: `why` says what keeps the conversation where it is."""

    why: str


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One outbox row. `state`: "pending", "started", "sent", "unknown", "failed", "dropped"; `session`: where it was
    looked up, that of its input.
    """

    id: str
    input_id: str
    route: str
    part: int
    state: str
    attempts: int
    body: str
    label: str | None
    created_at_ms: int
    updated_at_ms: int
    detail: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Work is held back: inputs are taken in and nothing is run, until somebody releases it."""

    since_ms: int
    reason: str

    @property
    def way_out(self) -> str:
        """What it is and how it ends, in a sentence for people."""
        return f"{self.reason}; mend the cause, then run `holdfast recover --release`"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How much of the story of a state somebody has heard.

    Args:
        event, input: the newest rows.
        turns: those that have begun lately, and those that run; `open_turns`: those of them that had not ended.
    """

    event: int
    input: int
    turns: frozenset[str] = frozenset()
    open_turns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Happened:
    """What other processes have done since a cursor.

    Args:
        told: lines of stories: seq, at_ms, session, input, turn, kind, data.
        ended: turns with their inputs, as they are now.
        accepted: also by this process: the ledger does not say by whom.
    """

    cursor: Cursor
    accepted: list[InputView] = field(default_factory=list)
    started: list[TurnView] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    ended: list[tuple[TurnView, InputView | None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Story:
    """A turn, when its input was accepted, and what is known to have happened in it and to its answer, in order."""

    turn: TurnView
    accepted_at_ms: int | None
    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Stories:
    """Turns, the oldest first, and how far what was told of turns went then (`after` of the next question)."""

    turns: list[Story]
    told: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong lately, each newest first: lines of stories (seq, at_ms, session, input, turn, kind, data), turns
    that did not end well, deliveries that were given up or whose fate is unknown.
    """

    told: list[dict[str, Any]]
    turns: list[TurnView]
    deliveries: list[DeliveryView]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what runs at this moment, in all processes on a state, counted.

    Args:
        waiting: inputs by lane that nobody has begun. oldest_accepted_ms: the one that has waited longest.
        running: turns by lane.
        undelivered: by channel and state (`pending`, `started`, `unknown`): how many, and since when the oldest.
        asked: approvals that wait for a person.
    """

    waiting: dict[str, int]
    oldest_accepted_ms: int | None
    running: dict[str, int]
    undelivered: dict[tuple[str, str], tuple[int, int]]
    asked: int


@dataclass(frozen=True, slots=True)
class WhyLine:
    """One step of the chain from input to outcome. `evidence`: where it can be checked (table:id or file:offset)."""

    at_ms: int
    text: str
    evidence: str


@dataclass(frozen=True, slots=True)
class WhyReport:
    """The answer to "what became of it?"."""

    id: str
    kind: str  # "input", "turn" or "child"
    session: str
    state: str
    lines: list[WhyLine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UsedIn:
    """What calls of one session, lane and model used in the quarter of an hour that begins at `at_ms`."""

    at_ms: int
    session: str
    agent: str
    lane: str
    model: str
    used: Used


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds.

    Args:
        bytes: of the files in it, before they are compressed. open_inputs, undelivered: work that a restored state
            would go on with. remarks: what was left out and why.
    """

    path: str
    store: str
    at: str
    files: int
    bytes: int
    sessions: int
    open_inputs: int
    undelivered: int
    remarks: tuple[str, ...] = ()
