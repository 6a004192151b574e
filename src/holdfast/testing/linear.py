"""A small checker for linearizability: is there one order of all operations, in step with real time, that explains
every result? Bounded: a history that would take too long to decide is "undecided", never "fine".

    history = [Operation("a", 0, 1, "take", result=1), Operation("b", 2, 3, "append", (1, "x"), result=True)]
    check(history, Log(("x",)).step, Log.start)          # "linearizable"

`Log` is what every transcript is checked against: an epoch that only grows, and a log that only its owner extends.

Source: Wing and Gong's search (1993) with Lowe's memory of states that were tried (2017).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Finding = Literal["linearizable", "not linearizable", "undecided"]
STEPS_MAX = 3_000_000
"""Steps of the model before a history counts as undecided; some seconds."""
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client.

    Args:
        called, returned: any clock that all clients share. `returned` is infinite for a call whose client was killed:
            it may have happened at any later time, or never; its result is not looked at.
        name, args: handed to the model.
        result: what the client was told.
    """

    client: str
    called: float
    returned: float
    name: str
    args: Hashable = ()
    result: Hashable = None

    @property
    def is_pending(self) -> bool:
        return self.returned == NEVER


Step = Callable[[Any, Operation], Any | None]
"""The state after an operation, or None if it cannot happen in this state with this result."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check. `stuck`: of a history that is not linearizable, the operations that could not be placed
    where the search had come furthest."""

    finding: Finding
    operations: int
    steps: int
    stuck: tuple[Operation, ...] = ()


Fitting = Callable[[Any], Iterable[int]]
"""Which of the pending operations, by their place in a list, could happen in a state. Leaving others out saves time."""


def check(history: Sequence[Operation], step: Step, start: Hashable, *, steps_max: int = STEPS_MAX) -> Checked:
    """Search for an order that explains every result.

    Operations that returned are tried before pending ones, which may also never happen. Where the model says of each
    operation whether it fits, the search seldom has to turn back and takes time in proportion to the history.
    """
    pending = [one for one in history if one.is_pending]
    return _search(history, pending, step, start, lambda _: range(len(pending)), steps_max)


def _search(
    history: Sequence[Operation],
    pending: list[Operation],
    step: Step,
    start: Hashable,
    fitting: Fitting,
    steps_max: int,
) -> Checked:
    returned = sorted((one for one in history if not one.is_pending), key=lambda one: one.called)
    return _Search(returned, pending, step, fitting, steps_max).run(start)


class _At(NamedTuple):
    """A place in the search: which operations have happened, what the state is, and what is to be tried next there."""

    done: int  # bits of returned operations from `low` on
    low: int  # all returned operations before this one have happened
    used: int  # bits of pending operations
    state: Hashable
    choices: list[tuple[int, Hashable]]  # (operation, state after it); pending ones are counted from `len(returned)`


class _Search:
    def __init__(
        self, returned: list[Operation], pending: list[Operation], step: Step, fitting: Fitting, steps_max: int
    ) -> None:
        self._returned = returned
        self._pending = pending
        self._step = step
        self._fitting = fitting
        self._steps_max = steps_max
        self._steps = 0

    def run(self, start: Hashable) -> Checked:
        total = len(self._returned) + len(self._pending)
        furthest, stuck = -1, ()
        stack = [self._enter(0, 0, 0, start)]
        seen = {(0, 0, 0, start)}
        while stack:
            at = stack[-1]
            if at.low == len(self._returned):
                return Checked("linearizable", total, self._steps)
            if self._steps > self._steps_max:
                return Checked("undecided", total, self._steps)
            if not at.choices:
                if at.low > furthest:
                    furthest, stuck = at.low, self._candidates(at)
                stack.pop()
                continue
            index, state = at.choices.pop()
            key = (*self._mark(at, index), state)
            if key not in seen:
                seen.add(key)
                stack.append(self._enter(*key))
        return Checked("not linearizable", total, self._steps, stuck)

    def _mark(self, at: _At, index: int) -> tuple[int, int, int]:
        """(done, low, used) once an operation has happened."""
        if index >= len(self._returned):
            return at.done, at.low, at.used | 1 << (index - len(self._returned))
        done, low = at.done | 1 << (index - at.low), at.low
        while done & 1:
            done >>= 1
            low += 1
        return done, low, at.used

    def _candidates(self, at: _At) -> tuple[Operation, ...]:
        """Returned operations that may come next: called before the earliest of those left has returned."""
        horizon, found = NEVER, []
        for index in range(at.low, len(self._returned)):
            one = self._returned[index]
            if one.called > horizon:
                break
            if not at.done >> (index - at.low) & 1:
                horizon = min(horizon, one.returned)
                found.append(one)
        return tuple(one for one in found if one.called <= horizon)

    def _enter(self, done: int, low: int, used: int, state: Hashable) -> _At:
        """What may happen next, the most promising last: returned operations before pending ones, in order of call."""
        choices: list[tuple[int, Hashable]] = []
        horizon = NEVER
        for index in range(low, len(self._returned)):
            one = self._returned[index]
            if one.called > horizon:
                break
            if done >> (index - low) & 1:
                continue
            horizon = min(horizon, one.returned)
            self._steps += 1
            after = self._step(state, one)
            if after is not None:
                choices.append((index, after))
        choices = [(index, after) for index, after in choices if self._returned[index].called <= horizon]
        choices.reverse()
        last: list[tuple[int, Hashable]] = []
        for number in self._fitting(state):
            one = self._pending[number]
            if one.called > horizon or used >> number & 1:
                continue
            self._steps += 1
            after = self._step(state, one)
            if after is not None:
                last.append((len(self._returned) + number, after))
        last.reverse()
        return _At(done, low, used, state, [*last, *choices])


class LogState(NamedTuple):
    """How far a session has come: the owner's epoch, and how many lines of its log are written."""

    epoch: int
    length: int


class Log:
    """The model of a session: `take` raises the epoch, `append` writes a line if its epoch is still the owner's, `read`
    sees what has been written so far.

    The log as it stood in the end is known (it is a file), so an append fits only where that file has its line. This
    makes the search almost free of wrong turns.

    Operations:
        take, result: the new epoch.
        append, args (epoch, line): result True, or False if it was refused because the epoch had changed.
        append, args (0, line): metadata; written under anybody's epoch.
        read, result: how many of the final log's lines were there.
    """

    start = LogState(0, 0)

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = tuple(lines)

    def step(self, state: LogState, one: Operation) -> LogState | None:
        """See `Step`. A pending take is given the epoch it would get as its `result`."""
        if one.name == "take":
            epoch = one.result
            return LogState(epoch, state.length) if isinstance(epoch, int) and epoch > state.epoch else None
        if one.name == "append":
            epoch, line = one.args  # pyright: ignore[reportGeneralTypeIssues]  # by the contract of the operation
            if one.result is False and not one.is_pending:
                return state if epoch != state.epoch else None
            fits = state.length < len(self._lines) and self._lines[state.length] == line
            may = epoch in (0, state.epoch)
            return LogState(state.epoch, state.length + 1) if fits and may else None
        if one.name == "read":
            return state if one.is_pending or one.result == state.length else None
        raise ValueError(f"no such operation: {one.name!r}")


def check_log(lines: Sequence[tuple[str, int]], history: Sequence[Operation], *, steps_max: int = STEPS_MAX) -> Checked:
    """Check what clients saw of one session against its transcript as it stands in the end.

    Args:
        lines: (id, epoch) of each line of the file, in order; epoch 0: metadata.
        history: what clients recorded. Lines and epochs that nobody recorded are added as operations that may have
            happened at any time: somebody must have made them.
    """
    recorded = {one.args[1] for one in history if one.name == "append" and one.result is not False}  # pyright: ignore[reportIndexIssue]
    taken = {one.result for one in history if one.name == "take" and not one.is_pending}
    known = [one for one in history if not (one.is_pending and one.name == "take")]  # their epochs are not known
    of_others = [
        Operation("?", -NEVER, NEVER, "append", (epoch, line)) for line, epoch in lines if line not in recorded
    ]
    last = max((epoch for epoch in [*(epoch for _, epoch in lines), *taken] if isinstance(epoch, int)), default=0)
    free = [epoch for epoch in range(1, last + 2) if epoch not in taken]
    takes = [Operation("?", -NEVER, NEVER, "take", result=epoch) for epoch in free]
    pending = [*of_others, *(one for one in known if one.is_pending), *takes]
    there = [line for line, _ in lines]
    log, written = Log(there), set(there)
    told = [one for one in known if one.name == "append" and one.result is True and not one.is_pending]
    missing = [one for one in told if one.args[1] not in written]  # pyright: ignore[reportIndexIssue]
    if missing or len(written) < len(there):  # no search is needed to see this
        return Checked("not linearizable", len(history), 0, tuple(missing))
    place_of_line = {one.args[1]: place for place, one in enumerate(pending) if one.name == "append"}  # pyright: ignore[reportIndexIssue]
    first_take = len(pending) - len(takes)

    def fitting(state: LogState) -> list[int]:
        """The line that comes next; the smallest epoch that nobody recorded, or the one that line needs."""
        found: list[int] = []
        at = bisect.bisect_right(free, state.epoch)
        if at < len(free):
            found.append(first_take + at)
        if state.length < len(lines):
            line, epoch = lines[state.length]
            if line in place_of_line:
                found.append(place_of_line[line])
            if epoch > state.epoch and epoch not in taken:
                found.append(first_take + bisect.bisect_left(free, epoch))
        return list(dict.fromkeys(found))

    return _search([*known, *takes], pending, log.step, Log.start, fitting, steps_max)
