"""When a model calls in circles: the same call again and again, two calls in turn, or simply too many. Pure.

A call that would go on in a circle is not run: its result says so, and the model may do something else. One that goes
on all the same ends the turn, with the name of the loop as its outcome.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

SAME_MAX = 5
"""The same call with the same arguments within one turn; a sixth is a loop. A model that polls has `background`."""
PING_PONG_MAX = 4
"""So many times two calls may take turns (A, B, A, B, …), with nothing else between them."""
CALLS_MAX = 128
"""Calls of one turn. 32 steps (`turn.steps_max`) with four calls each are a long piece of work."""
WARNINGS_MAX = 3
"""So many calls in a circle are answered with words; the next one ends the turn."""

Loop = Literal["same_call", "ping_pong", "too_many_calls"]


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """What counts as a circle; see the constants of this module."""

    same_max: int = SAME_MAX
    ping_pong_max: int = PING_PONG_MAX
    calls_max: int = CALLS_MAX
    warnings_max: int = WARNINGS_MAX


@dataclass(frozen=True, slots=True)
class InCircles:
    """A call that is not run. `is_last`: the turn ends with it."""

    loop: Loop
    text: str
    is_last: bool


@dataclass(slots=True)
class Calls:
    """The calls of one turn so far, each as its name and a digest of its arguments."""

    limits: LoopLimits = field(default_factory=LoopLimits)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    _latest: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _total: int = 0
    _warnings: int = 0

    def next(self, name: str, digest: str) -> InCircles | None:
        """Count a call; what it is if it goes in a circle, None if it may be run."""
        call = (name, digest)
        self._total += 1
        self._counts[call] += 1
        self._latest = [*self._latest, call][-2 * self.limits.ping_pong_max - 1 :]
        found = self._found(call)
        if found is None:
            return None
        self._warnings += 1
        loop, text = found
        is_last = self._warnings > self.limits.warnings_max
        return InCircles(loop, text, is_last)

    def _found(self, call: tuple[str, str]) -> tuple[Loop, str] | None:
        limits = self.limits
        if self._total > limits.calls_max:
            return "too_many_calls", f"this turn has made {limits.calls_max} calls, the most there may be"
        if self._counts[call] > limits.same_max:
            return "same_call", f"{call[0]} was called {limits.same_max} times with these very arguments"
        if self._takes_turns():
            return "ping_pong", f"the same two calls have taken turns {limits.ping_pong_max} times"
        return None

    def _takes_turns(self) -> bool:
        length = 2 * self.limits.ping_pong_max + 1
        latest = self._latest
        if len(latest) < length or latest[0] == latest[1]:
            return False
        return all(one == latest[at % 2] for at, one in enumerate(latest))
