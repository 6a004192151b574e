"""Which waiting input goes next: pure rules over small pictures of the queue.

First the transcript's own line (one turn at a time), then a slot of the lane. Users before machines; waiting makes
everybody older, so nobody starves.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.errors import InputError

AGING_S = 60.0
"""A machine's input counts like a user's that came so much later. Longer than a usual turn, shorter than patience."""

RANK = {"main": 0, "subagent": 1, "hook": 2, "cron-nested": 3, "cron": 3, "heartbeat": 4, "compaction": 5}
"""Smaller goes first. Lanes not named here rank like a webhook."""

LANE_CHARS_MAX = 64
"""Of a lane's name. What a line may weigh is checked at the door with the longest one (`kernel.py`)."""


def default_widths() -> dict[str, int]:
    """`main` max(4, 2 x cores); `subagent` 8; every other lane 1 (semantics.md 2.3)."""
    return {"main": max(4, 2 * (os.cpu_count() or 1)), "subagent": 8}


def validate_lane(lane: str) -> str:
    """The name itself, if a lane can have it. A name may be new: such a lane has width 1.

    Raises:
        InputError: not 1 to 64 printable characters without spaces; they stand in log lines and in transcripts as they
            are.
    """
    if not (0 < len(lane) <= LANE_CHARS_MAX) or not lane.isascii() or not lane.isprintable() or " " in lane:
        shown = ascii(lane if len(lane) <= LANE_CHARS_MAX else lane[:LANE_CHARS_MAX] + "…")
        raise InputError(
            f"lane: {shown} is no name of a lane; take 1 to {LANE_CHARS_MAX} ASCII characters without spaces, as in "
            '"main"'
        )
    return lane


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Widths count per state directory, whatever the number of processes.

    Args:
        widths: turns at once per lane; a lane not named has width 1.
        depth_max: inputs that may wait per lane (all sessions together).
        per_session_max: inputs that may wait per session, behind the one that runs or is about to.
        agents: by agent, widths of lanes for its turns alone; what is not named is as wide as the lane.
    """

    widths: Mapping[str, int] = field(default_factory=default_widths)
    depth_max: int = 200
    per_session_max: int = 20
    agents: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def agent_width(self, agent: str, lane: str) -> int | None:
        """How many of the lane's turns may be this agent's at once; None: as many as the lane is wide."""
        return self.agents.get(agent, {}).get(lane)

    def width(self, lane: str) -> int:
        return max(1, self.widths.get(lane, 1))


@dataclass(frozen=True, slots=True)
class Waiting:
    """One queued input.

    blocked: its transcript has an owner now. solo: it is re-run alone. quiet_in_s: how long nothing more must arrive
    before it may begin (`queue.py`).
    """

    seq: int
    id: str
    transcript: str
    lane: str
    waited_s: float
    blocked: bool = False
    solo: bool = False
    quiet_in_s: float = 0.0
    agent: str = ""


def slot_of(lane: str, agent: str) -> str:
    """The name under which an agent's own turns of a lane are counted beside the lane's."""
    return f"{lane}@{agent}"


def rank(lane: str, waited_s: float) -> int:
    """Users before machines, until a machine has waited `AGING_S`."""
    return 0 if waited_s >= AGING_S else RANK.get(lane, 2)


def order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Rank first, then arrival. A machine's input that has waited `AGING_S` stands in the users' line, behind those who
    came in that time: they pass it, whoever comes later does not.
    """
    ranked = sorted(waiting, key=lambda w: (rank(w.lane, w.waited_s), w.seq))
    first = [one for one in ranked if rank(one.lane, one.waited_s) == 0]
    users = deque(one for one in first if RANK.get(one.lane, 2) == 0)
    aged = deque(one for one in first if RANK.get(one.lane, 2) > 0)
    merged: list[Waiting] = []
    while users and aged:  # arrival among equals is by `seq` alone: wall clocks jump
        is_due = aged[0].waited_s - AGING_S >= users[0].waited_s
        merged.append((aged if is_due else users).popleft())
    return [*merged, *users, *aged, *ranked[len(first) :]]


def heads(waiting: Iterable[Waiting]) -> list[Waiting]:
    """The first in line of each transcript, in the order in which they should start."""
    seen: set[str] = set()
    first: list[Waiting] = []
    for one in order(waiting):
        if one.transcript not in seen:
            seen.add(one.transcript)
            first.append(one)
    return first


YIELDS_MAX = 5
"""So often a machine's turn gives way; then it is carried to its end, or a busy chat would keep it from ever ending."""


def may_yield(lane: str) -> bool:
    """Whether turns of this lane give way to anybody at all."""
    return RANK.get(lane, 2) > 0


def overtaker(lane: str, yielded: int, waiting: Iterable[Waiting]) -> str | None:
    """The input that a running turn of `lane` gives way to at its next step: the first of its transcript's line that is
    of a better lane. None: there is none, or the turn has given way often enough (`yielded`).
    """
    if yielded >= YIELDS_MAX:
        return None
    return next((one.id for one in order(waiting) if RANK.get(one.lane, 2) < RANK.get(lane, 2)), None)


def choose(
    waiting: Iterable[Waiting], running: Mapping[str, int], limits: LaneLimits, solo_running: bool
) -> list[Waiting]:
    """All inputs that may start now, best first: head of a free transcript's line, with a free slot in its lane, and of
    those that its agent may have there.

    Args:
        running: turns by lane, and by `slot_of` lane and agent where agents have widths of their own.

    Inputs that are re-run one at a time (`solo`) start only while no other such input runs.
    """
    free = {lane: limits.width(lane) - count for lane, count in running.items() if "@" not in lane}
    chosen: list[Waiting] = []
    for one in heads(waiting):
        if one.blocked or one.quiet_in_s > 0 or (one.solo and solo_running):
            continue
        if free.setdefault(one.lane, limits.width(one.lane)) <= 0:
            continue
        own_width = limits.agent_width(one.agent, one.lane)
        if own_width is not None:
            slot = slot_of(one.lane, one.agent)
            if free.setdefault(slot, own_width - running.get(slot, 0)) <= 0:
                continue
            free[slot] -= 1
        free[one.lane] -= 1
        solo_running = solo_running or one.solo
        chosen.append(one)
    return chosen
