"""Programs that run on by themselves: values and rules. No I/O.

Such a program belongs to the gateway that started it and ends with it; its row in the ledger tells everybody else. Its
end comes to the session that started it as an input of its own, once, under a key that follows from the program, as the
end of a sub-agent does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.inbound.child import BACKGROUND_END as SOURCE
from holdfast.inbound.child import end_lane
from holdfast.inbound.event import InboundEvent, Route

PER_SESSION_MAX = 4
TITLE_CHARS_MAX = 200
Outcome = Literal["ended", "timeout", "stopped", "lost"]
ProgramState = Literal["running", "ended", "announced", "stopped"]


@dataclass(frozen=True, slots=True)
class BackgroundOrder:
    """A program to be started. `id` names it: the same call of the same input again is the same one."""

    id: str
    session: str
    input_id: str | None
    turn: str
    nonce: str
    rights: str
    title: str
    route: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """One as the ledger has it.

    Args:
        title: its command line, for people, without secrets.
        process: the gateway that runs it. owner: "alive", "dead" or "unknown".
        outcome: how it ended: by itself, by its time limit, by somebody, or with the gateway.
        code: exit code, or negative: the signal that ended it; None: not known.
        stop_by: who has asked for its end, with the work of its session.
    """

    id: str
    session: str
    title: str
    state: ProgramState
    process: str
    owner: str
    rights: str
    started_at_ms: int
    input_id: str | None = None
    route: str | None = None
    fresh: bool = False
    ended_at_ms: int | None = None
    outcome: Outcome | None = None
    code: int | None = None
    output: str = ""
    stop_by: str | None = None
    announce_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of an end."""

    outcome: Outcome
    code: int | None = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class NotBegun:
    """No program was started. `text` says why."""

    text: str


def end_event(program: Program) -> InboundEvent:
    """The event that brings an end into its session, by whatever process it is made."""
    payload: dict[str, Any] = {"content": end_text(program), "rights": program.rights, "background": program.id}
    if program.fresh:
        payload |= {"context": "fresh", "follows": [program.input_id] if program.input_id is not None else []}
    return InboundEvent(
        program.session, payload, source=SOURCE, key=program.id, lane=end_lane(program.rights), waits=True,
        route=None if program.route is None else Route.parse(program.route),
        origin={"background": program.id, "of": program.input_id},
    )  # fmt: skip


def end_text(program: Program) -> str:
    """What the session is told: how it ended, and what it has said."""
    name = f"Background program {program.id} ({program.title})"
    how = {
        "ended": f"has ended with exit code {program.code}",
        "timeout": "was killed: it had taken longer than it may",
        "stopped": "was stopped",
        "lost": "is gone: the gateway that ran it has ended, and the program with it; what it had done by then stays",
    }[program.outcome or "lost"]
    if program.outcome == "ended" and (program.code or 0) < 0:
        how = f"was ended by signal {-(program.code or 0)}"
    said = f"\n\n{program.output}" if program.output else ""
    return f"[{name} {how}. What follows is its output, not a message of a user.]{said}" if said else f"[{name} {how}.]"
