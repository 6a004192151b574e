"""Where a conversation is cut when it is shortened: what is summarised, what stays word for word. Pure.

A cut never parts a tool call from its result, nor a question from its answer. The question of the running turn is shown
whatever is cut (`plan.py`), so that such a turn, when it alone is too long, may be cut between two of its steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.context.budget import Budget, estimate_tokens, text_tokens
from holdfast.context.plan import after_compaction, own_lines, shown_message
from holdfast.context.repair import Message
from holdfast.session.lines import Line


@dataclass(frozen=True, slots=True)
class Cut:
    """What becomes of what the model is shown now.

    Args:
        before: messages that a summary will stand for, oldest first.
        previous: the summary that has stood before them, which the new one takes in.
        first_kept: id of the first line that stays; None: all is summarised.
        tokens: estimate for `before`.
        tokens_kept: estimate for what stays.
    """

    before: list[Message]
    previous: str | None
    first_kept: str | None
    tokens: int
    tokens_kept: int


def choose_cut(
    lines: Sequence[Line], budget: Budget, *, inputs: Collection[str] = (), turn: str | None = None,
    by_hand: bool = False, keep: int | None = None,
) -> Cut | None:  # fmt: skip
    """Where to cut a branch, `Branch.lines`; None: there is nothing to summarise.

    Args:
        inputs, turn: of the turn that runs and still has to be answered (`plan`); without them all is answered.
        by_hand: somebody asks for it: at least half of it is summarised.
        keep: tokens to keep at most instead of the budget's; for a context that was refused as too long.
    """
    previous, visible = after_compaction(lines)
    shown = [(line, message) for line in visible if (message := shown_message(line)) is not None]
    own = {id(line) for line in own_lines(visible, inputs=inputs, turn=turn)} if inputs or turn else set[int]()
    messages = [message for _, message in shown]
    costs = [estimate_tokens(message) for message in messages]
    keep = budget.keep_recent if keep is None else keep
    if by_hand:
        keep = min(keep, sum(costs) // 2)
    whole = _whole_exchanges(messages)
    running = bool(own)
    steps = _steps(messages, [id(line) in own for line, _ in shown]) if running else [len(shown)] if shown else []
    at = _first_that_fits(whole, costs, keep)
    if at is None and whole and sum(costs[whole[-1] :]) <= budget.room // 2:
        at = whole[-1]
    if at is None:
        at = _first_that_fits(steps, costs, keep) or (steps[-1] if steps else None)
    if at is None and whole:
        at = whole[-1]
    if at is None:
        return None
    return Cut(
        messages[:at], previous, _first_kept(shown, at), sum(costs[:at]) + text_tokens(previous or ""), sum(costs[at:])
    )


def _first_kept(shown: Sequence[tuple[Line, Message]], at: int) -> str | None:
    return shown[at][0].id if at < len(shown) else None


def _first_that_fits(places: Sequence[int], costs: Sequence[int], keep: int) -> int | None:
    """The earliest place behind which no more than `keep` tokens stand."""
    return next((at for at in places if sum(costs[at:]) <= keep), None)


def _whole_exchanges(messages: Sequence[Message]) -> list[int]:
    """Where an exchange begins behind another: the user speaks after somebody else, no call waiting for a result."""
    apart = _parted_at(messages)
    return [
        at
        for at in range(1, len(messages))
        if messages[at]["role"] == "user" and messages[at - 1]["role"] != "user" and at not in apart
    ]


def _steps(messages: Sequence[Message], own: Sequence[bool]) -> list[int]:
    """Where a step of the running turn begins behind another of its steps."""
    apart = _parted_at(messages)
    return [
        at
        for at in range(1, len(messages))
        if own[at] and messages[at]["role"] == "assistant" and messages[at - 1]["role"] == "toolResult"
        and at not in apart
    ]  # fmt: skip


def _parted_at(messages: Sequence[Message]) -> set[int]:
    """The places that would part a call from its result. A result belongs to the newest call before it with its id."""
    called: dict[str, int] = {}
    apart: set[int] = set()
    for at, message in enumerate(messages):
        if message["role"] == "toolResult":
            since = called.pop(message["toolCallId"], None)
            if since is not None:
                apart.update(range(since + 1, at + 1))
        elif message["role"] == "assistant":
            called.update((part["id"], at) for part in message["content"] if part["type"] == "toolCall")
    return apart
