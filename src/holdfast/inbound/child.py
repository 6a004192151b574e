"""What sub-agents are: children of a conversation, each with a task and a session of its own. Values and rules; no I/O.

    child   a task that a session, its parent, has given away; it runs as a turn of a session of its own
    end     of a child: an input of the parent, accepted once, under a key that follows from the child

A child is spawned in one transaction: the limits are asked, its input is accepted, its row is written. Its inputs tell
its state until its end has become an input of the parent. Numbers: semantics.md 2.13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.errors import InputError
from holdfast.ids import derived_id
from holdfast.inbound.event import InboundEvent, Route
from holdfast.lane.policy import RANK, validate_lane
from holdfast.lane.queue import USER_LANE
from holdfast.lane.states import TERMINAL
from holdfast.session.key import parse_key
from holdfast.store.views import InputView

LANE = "subagent"
SPAWN = "spawn"
"""The source of a child's own input; its key is the child's id."""
END = "subagent"
"""The source of the input that brings a child's end to its parent; the same key."""
BACKGROUND_END = "background"
"""The source of the input that tells of the end of a program in the background (`tool/running.py`)."""

TASK_CHARS_MAX = 100_000
LABEL_CHARS_MAX = 60
RESULT_CHARS_MAX = 50_000
"""So much of a result enters the parent's conversation; the whole of it stands in the child's own session."""
TIMED_OUT = "the limit of its task"
BY_PARENT = "the end of its parent's work"
RESET_NOTE = (
    "(The conversation was begun anew after this sub-agent had got its task: the task is of the conversation before.)"
)

ChildState = Literal["queued", "running", "ended", "announced", "stopped"]
Why = Literal["off", "depth", "per_session", "per_turn", "agent", "model", "rights", "stopped", "lost", "lane_full"]


@dataclass(frozen=True, slots=True)
class SpawnLimits:
    """What may be spawned, and what a child gets where nothing else is asked for.

    Args:
        depth_max: children of children of …; 1: a child has none of its own; 0: nobody has any.
        per_session_max: children of one session that have not ended. How many of all sessions run at once is the width
            of lane `subagent`.
        per_turn_max: children that one input may spawn in all, however often it is run.
        timeout_s: longest run.
        agents: other agents that may be given a task; an agent always may give one to itself.
        models: models that a task may ask for; None: any.
        model: what children are answered by; None: the model that their parent's input names, else the agent's.
    """

    depth_max: int = 1
    per_session_max: int = 5
    per_turn_max: int = 10
    timeout_s: float = 3600.0
    agents: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """Who gives a task away.

    Args:
        rights: the lane whose rights it has: that of its turn; "main" for a program without one.
        turn, nonce: the turn and its epoch's random half; it must own the session in the moment of the spawn. None: a
            program speaks for the session without a turn.
        route: where what comes of it is sent.
        fresh: its turn is shown nothing of the session but what belongs to its own input.
    """

    session: str
    rights: str = USER_LANE
    input_id: str | None = None
    turn: str | None = None
    nonce: str | None = None
    route: Route | None = None
    fresh: bool = False
    model: str | None = None


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """A task to give away. `id` names the child: the same again is the same child."""

    id: str
    parent: Parent
    task: str
    label: str
    agent: str
    model: str | None
    timeout_s: float

    @property
    def session(self) -> str:
        """The child's own session."""
        return f"agent:{self.agent}:subagent:{self.id.removeprefix('child_')}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows of a parent when it spawns.

    Args:
        depth: of the parent: 0 for a conversation, 1 for a child, …
        rights: the lane whose rights its children have: its own, or for a child that of the conversation above it.
        open_children: of its session. of_input: those that its input has spawned so far.
        owns: whether its turn owns its session now. cancelled_by: who has asked its input to stop.
    """

    depth: int
    rights: str
    open_children: int
    of_input: int
    owns: bool = True
    cancelled_by: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """No child was made. `why` names the limit; `text` says it and the way out."""

    why: Why
    text: str


@dataclass(frozen=True, slots=True)
class Child:
    """One child as the ledger has it.

    Args:
        state: `lane/states.py`; told by its inputs until its end is known to its parent.
        rights: the lane whose rights it has.
        input_id: its task. last_input: the input whose end is the child's: of children of its own, the newest of those
            that brought their ends.
        stop_by: who stopped its parent's work, and so it.
        announce_id: the input of the parent that brings its end.
        outcome: the terminal state that its last input ended in, once it is closed.
    """

    id: str
    session: str
    label: str
    parent_session: str
    input_id: str
    last_input: str
    state: ChildState
    depth: int
    rights: str
    timeout_s: float
    spawned_at_ms: int
    parent_input: str | None = None
    parent_turn: str | None = None
    route: str | None = None
    fresh: bool = False
    stop_by: str | None = None
    announce_id: str | None = None
    outcome: str | None = None
    detail: str | None = None
    ended_at_ms: int | None = None
    archived_at_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether its parent has still to hear of it."""
        return self.state not in ("announced", "stopped")


# ── spawning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def child_id(parent: Parent, key: str) -> str:
    """The name of a child: from the parent's input (or turn, or session) and a key of the spawn's own."""
    return "child_" + derived_id("child", parent.input_id or parent.turn or parent.session, key)


def make_order(
    parent: Parent, limits: SpawnLimits, task: str, *, key: str, label: str | None, agent: str | None,
    model: str | None, timeout_s: float | None,
) -> SpawnOrder | Refused:  # fmt: skip
    """The order for a task, with everything filled in that was left open.

    Raises:
        InputError: no task, or one that is too long; a time, a route or a lane that is none.
    """
    validate_lane(parent.rights)  # its end may have to wait there
    if parent.route is not None:
        Route.parse(f"{parent.route.channel}:{parent.route.target}")
    if not task.strip():
        raise InputError("a sub-agent needs a task: say what it is to do")
    if len(task) > TASK_CHARS_MAX:
        raise InputError(f"a task of {len(task)} characters is over the limit of {TASK_CHARS_MAX}; put it into a file")
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InputError(f"timeout_s is a number of seconds above 0, not {timeout_s!r}")
    own_agent = parse_key(parent.session).agent
    wanted = agent or own_agent
    if wanted != own_agent and wanted not in limits.agents:
        return Refused("agent", f"agent {wanted!r} takes no tasks from {own_agent!r}; name it in `subagents.agents`")
    if model is not None and limits.models is not None and model not in limits.models:
        known = ", ".join(limits.models) or "none"
        return Refused("model", f"a task may not ask for model {model!r}; it may for: {known} (`subagents.models`)")
    longest = limits.timeout_s if timeout_s is None else min(timeout_s, limits.timeout_s)
    short = " ".join((label or task).split())
    shown = short if len(short) <= LABEL_CHARS_MAX else short[: LABEL_CHARS_MAX - 1] + "…"
    return SpawnOrder(child_id(parent, key), parent, task, shown, wanted, model, longest)


def refusal(order: SpawnOrder, standing: Standing, limits: SpawnLimits) -> Refused | None:
    """The first limit that a spawn passes, None if it may be. Asked in the transaction that would make the child."""
    if not standing.owns:
        return Refused("lost", "the turn that asked no longer owns its session; nothing was begun in its name")
    if standing.cancelled_by is not None:
        return Refused("stopped", f"{standing.cancelled_by} has asked for an end; nothing more is begun")
    if limits.depth_max <= 0:
        return Refused("off", "there are no sub-agents here (`subagents.depth_max` is 0)")
    if standing.depth >= limits.depth_max:
        return Refused(
            "depth",
            f"a sub-agent at depth {standing.depth} may have none of its own (`subagents.depth_max` is "
            f"{limits.depth_max}); do the task yourself",
        )
    if standing.rights != USER_LANE and _asks_for_more(order):
        return Refused(
            "rights",
            f"a task that comes from lane {standing.rights!r} may name no other agent and no model; leave them out",
        )
    if standing.open_children >= limits.per_session_max:
        return Refused(
            "per_session",
            f"{standing.open_children} sub-agents of this session are at work, the most there may be "
            "(`subagents.per_session_max`); wait for one to end",
        )
    if order.parent.input_id is not None and standing.of_input >= limits.per_turn_max:
        return Refused(
            "per_turn",
            f"this turn has had {standing.of_input} sub-agents, the most one may have (`subagents.per_turn_max`); "
            "answer with what there is",
        )
    return None


def _asks_for_more(order: SpawnOrder) -> bool:
    return order.model is not None or order.agent != parse_key(order.parent.session).agent


def lane_full(lane: str, waiting: int, limit: int) -> Refused:
    """The refusal when the child's input has no room in its lane."""
    return Refused("lane_full", f"lane {lane!r} is full ({waiting} waiting, {limit} may); try again later")


def task_event(order: SpawnOrder, standing: Standing, limits: SpawnLimits) -> InboundEvent:
    """The event of a child's task. It has no route: what it says goes to its parent and to nobody else."""
    payload: dict[str, Any] = {"content": order.task, "system": _instructions(standing.rights), "child": order.id}
    payload["rights"] = standing.rights
    return InboundEvent(
        order.session, payload, source=SPAWN, key=order.id, lane=LANE, waits=True,
        model=order.model or limits.model or order.parent.model,
        origin={"child": order.id, "parent": order.parent.session},
    )  # fmt: skip


def _instructions(rights: str) -> str:
    told = (
        "You are a sub-agent: another agent has given you one task, the message below. Nobody reads along and nobody "
        "can answer a question. Do the task, then say what came of it in one final answer; that is all that whoever "
        "gave it to you will get."
    )
    if rights == USER_LANE:
        return told
    return f"{told} The task comes from work that no person has asked for (lane {rights}): do nothing beyond it."


# ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def state_of(closed: str | None, task_state: str, *, is_over: bool) -> ChildState:
    """The state of a child.

    Args:
        closed: "announced" or "stopped", once its parent knows; None before.
        task_state: of its own input.
        is_over: that one, those of its children, and theirs, have all ended.
    """
    if closed is not None:
        return "announced" if closed == "announced" else "stopped"
    if task_state == "queued":
        return "queued"
    return "ended" if task_state in TERMINAL and is_over else "running"


def end_lane(rights: str) -> str:
    """The lane in which a child's end waits for its parent's session: never a better one than the parent came by."""
    return LANE if RANK.get(rights, 2) <= RANK[LANE] else rights


def end_event(child: Child, last: InputView, follows: tuple[str, ...] = ()) -> InboundEvent:
    """The event that brings a child's end into its parent's conversation, by whatever process it is made.

    Args:
        last: the input whose end is the child's.
        follows: inputs of the parent's that its turn is shown, where that is shown nothing else.
    """
    about = {"id": child.id, "label": child.label, "session": child.session, "spawned_at_ms": child.spawned_at_ms}
    payload: dict[str, Any] = {"content": end_text(child, last), "child_end": about, "rights": child.rights}
    if child.fresh:
        payload |= {"context": "fresh", "follows": list(follows)}
    return InboundEvent(
        child.parent_session, payload, source=END, key=child.id, lane=end_lane(child.rights), waits=True,
        route=None if child.route is None else Route.parse(child.route),
        origin={"child": child.id, "of": child.input_id},
    )  # fmt: skip


def end_text(child: Child, last: InputView) -> str:
    """What the parent is told: how the child ended, and what it found."""
    name = f"Sub-agent {child.label!r} ({child.id})"
    if last.state in ("answered", "superseded"):
        return f"[{name} has ended. What follows is its result, not a message of a user.]\n\n{_result(child, last)}"
    if last.state == "cancelled" and TIMED_OUT in (last.detail or ""):
        how = f"was stopped: it had taken longer than {child.timeout_s:g} s"
    elif last.state == "cancelled":
        how = f"was stopped before it had a result: {last.detail or 'no reason is known'}"
    else:
        error = f"{last.error}: " if last.error else ""
        how = f"has failed: {error}{last.detail or 'no reason is known'}"
    return f"[{name} {how}]"


def _result(child: Child, last: InputView) -> str:
    text = last.answer or "(it said nothing)"
    if len(text) <= RESULT_CHARS_MAX:
        return text
    left_out = len(text) - RESULT_CHARS_MAX
    return f"{text[:RESULT_CHARS_MAX]}\n[{left_out} characters more; the whole result is in session {child.session}]"


def rights_of(view: InputView) -> str:
    """The lane whose rights the turn of an input has. Nobody outside can make inputs of these sources."""
    ours = view.source in (SPAWN, END, BACKGROUND_END)
    return str(view.payload.get("rights") or view.lane) if ours else view.lane


def end_in(view: InputView) -> dict[str, Any] | None:
    """What an input says of a child that has ended, if it is such an input."""
    about = view.payload.get("child_end")
    return about if view.source == END and isinstance(about, dict) else None
