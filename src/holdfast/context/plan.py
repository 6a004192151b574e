"""What the model is shown of a branch, as v3 messages, and how much of it fits.

The rules, in order:

1. The newest compaction on the branch: its summary first, then the entries from the first it keeps, then those after.
   Older compactions are covered by it.
2. Lines that are for the model (`session/visibility.py`): messages as they are, but for answers with nothing usable in
   them; a failed or aborted answer keeps its text and the calls that were answered, not its thinking. `custom_message`,
   `branch_summary` and messages of role `custom` (`hookMessage` in version 2) are shown as the user's, and so is
   `bashExecution`.
3. What belongs to the turn, its own input first, comes after everything that others wrote meanwhile. The input is shown
   even when a compaction covers it.
4. Calls and results are paired (`repair.py`). Thinking that a provider has refused (`holdfast:history_refused`) is
   left out of everything before that note.
5. A line nested as deeply as the interpreter bears may be left out; none that Holdfast writes is.
6. Half an emoji, which no provider can be sent, is shown as U+FFFD. The transcript keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.context.budget import estimate_tokens
from holdfast.context.conversions import Conversions
from holdfast.context.repair import FAILED_STOPS, Message, pair_calls
from holdfast.ids import input_line_id
from holdfast.session.lines import Line
from holdfast.session.visibility import is_for_model

DROP_STEPS = 4
"""What has to be left out is left out in so many steps of a window (`fit`)."""
SUMMARY_HEAD = "Summary of the conversation before this point:\n\n"
BRANCH_HEAD = "Summary of another branch of this conversation, left before this point:\n\n"

HISTORY_TYPE = "holdfast:history_refused"
"""customType of a line that says: a provider has refused what stands before it, thinking blocks and all."""
HISTORY_NOTE = HISTORY_TYPE.encode()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to show. The first `pinned` messages (a summary) and the last `own` (the turn's) are never dropped."""

    messages: list[Message]
    pinned: int = 0
    own: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """What of a plan fits.

    outcome: "whole"; "trimmed" (`dropped` messages, the oldest exchanges, are left out); "overflow" (even the last
        exchange is too large: `messages` is the smallest there is, and the provider will refuse it).
    tokens: the estimate for `messages`.
    """

    messages: list[Message]
    outcome: Literal["whole", "trimmed", "overflow"]
    tokens: int
    dropped: int = 0


def plan(
    lines: Sequence[Line], *, inputs: Collection[str] = (), turn: str | None = None, kept: Conversions | None = None
) -> Plan:
    """What the model is shown of a branch, `Branch.lines`.

    Args:
        inputs: ids of the inputs that the turn answers, steered and merged ones included.
        turn: the turn's id. A line belongs to the turn if its origin names it or one of the inputs.
        kept: what was made of the session's lines before. The messages are then shared, and must not be changed.
    """
    summary, visible = after_compaction(lines)
    own_input_lines = {input_line_id(input_id) for input_id in inputs}
    own = [line for line in visible if _belongs(line, inputs, turn, own_input_lines)]
    shown = {id(line) for line in visible}
    covered = [line for line in lines if line.id in own_input_lines and id(line) not in shown]
    moved = {id(line) for line in own}
    others = [line for line in visible if id(line) not in moved]
    head = [] if summary is None else [_user_text(SUMMARY_HEAD + summary)]
    refused = _refused(lines)
    counted_otherwise = _kept_before_compaction(lines, visible)
    own = [*covered, *own]
    taken_away = [(line, id(line) in refused, id(line) in counted_otherwise) for line in (*others, *own)]
    messages = (kept or Conversions()).messages(taken_away, _shown_without)
    ours = messages[len(others) :]
    paired = pair_calls([message for message in messages if message is not None])
    # Results may have moved to a call before the turn (tools that a client runs), so the turn begins with what cannot.
    speech = {id(message) for message in ours if message is not None and message["role"] == "user"}
    start = next((i for i, message in enumerate(paired) if id(message) in speech), len(paired))
    return Plan(head + paired, pinned=len(head), own=len(paired) - start)


def own_lines(lines: Sequence[Line], *, inputs: Collection[str], turn: str | None = None) -> list[Line]:
    """Of a branch what belongs to the turn alone (see `plan`)."""
    wanted = {input_line_id(input_id) for input_id in inputs}
    return [line for line in lines if _belongs(line, inputs, turn, wanted)]


def after_compaction(lines: Sequence[Line]) -> tuple[str | None, list[Line]]:
    """The newest summary, if there is one, and the lines it leaves to be shown."""
    at = _newest_compaction(lines)
    if at is None:
        return None, list(lines)
    kept_from = next((i for i in range(at) if lines[i].id == lines[at].first_kept), at)
    kept = [line for line in lines[kept_from:at] if not is_compaction(line)]
    return _value(lines[at])["summary"], [*kept, *lines[at + 1 :]]


def _newest_compaction(lines: Sequence[Line]) -> int | None:
    """Where it stands. Asked of every line of every request: the cheap question first, and no call for most."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at].type == "compaction" and is_compaction(lines[at]):
            return at
    return None


def is_compaction(line: Line) -> bool:
    """Whether a line is a summary that stands for what is before it."""
    return line.kind == "entry" and line.type == "compaction"


def _belongs(line: Line, inputs: Collection[str], turn: str | None, own_input_lines: Collection[str]) -> bool:
    if line.id in own_input_lines:
        return True
    origin = line.origin
    if origin is None:
        return False
    if origin.turn == turn:
        return True
    for input_id in origin.inputs:  # noqa: SIM110  # mostly one: a generator costs more than all else here
        if input_id in inputs:
            return True
    return False


# ── one line ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _refused(lines: Sequence[Line]) -> set[int]:
    """The lines whose thinking a provider has refused: those before the newest note of that."""
    notes = (i for i in reversed(range(len(lines))) if lines[i].type == "custom" and HISTORY_NOTE in lines[i].raw)
    return {id(line) for line in lines[: next(notes, 0)]}


def _kept_before_compaction(lines: Sequence[Line], visible: Sequence[Line]) -> set[int]:
    """The lines that a compaction has kept. What their provider counted was another context, so it is not shown."""
    at = _newest_compaction(lines)
    if at is None:
        return set()
    later = {id(line) for line in lines[at:]}
    return {id(line) for line in visible if id(line) not in later}


def _shown_without(line: Line, no_thinking: bool, no_usage: bool) -> Message | None:
    """What is shown of a line, made anew, without what is not to be shown of it now."""
    message = shown_message(line)
    if message is None:
        return None
    if no_usage:
        message.pop("usage", None)
    return _without_thinking(message) if no_thinking else message


def _without_thinking(message: Message) -> Message:
    if message["role"] != "assistant":
        return message
    return {**message, "content": [part for part in message["content"] if part["type"] != "thinking"]}


def shown_message(line: Line) -> Message | None:
    """What the model is shown of one line, None for nothing; calls and results are not paired yet."""
    try:
        return _message(line)
    except RecursionError:
        # Others may nest up to what this interpreter bears (we stop at DEPTH_MAX); how much that is depends on how deep
        # in calls one stands, so a line that could be read a moment ago may be too deep here.
        return None


def _message(line: Line) -> Message | None:
    """What the model is shown of one line, None for nothing."""
    if not is_for_model(line):
        return None
    if line.type == "branch_summary":
        return _user_text(BRANCH_HEAD + _value(line)["summary"])
    if line.type == "custom_message":
        return _as_user(_value(line)["content"])
    if line.type != "message":
        return None
    message = _value(line)["message"]
    role = message["role"]
    if role == "assistant":
        return _answer(message)
    if role == "toolResult":
        message["content"] = _parts(message["content"], ("text", "image"))
        return message
    if role == "bashExecution":
        return _user_text(_bash_text(message))
    if role in ("custom", "hookMessage"):
        return _as_user(message["content"])
    message["content"] = _parts(message["content"], ("text", "image"))  # decoded for us alone
    return message if message["content"] else None


def _value(line: Line) -> dict[str, Any]:
    value = line.value()
    return _sendable(value) if b"\\ud" in line.raw or b"\\uD" in line.raw else value


def _sendable(value: Any) -> Any:
    """With every lone surrogate replaced; whole pairs stay what they are."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_sendable(key): _sendable(inner) for key, inner in value.items()}
    return [_sendable(inner) for inner in value] if isinstance(value, list) else value


def _answer(message: Message) -> Message | None:
    """An assistant message with what can be used of it."""
    failed = message.get("stopReason") in FAILED_STOPS
    parts = _parts(message["content"], ("text", "toolCall") if failed else ("text", "thinking", "toolCall"))
    for part in parts:
        if part["type"] != "thinking":
            message["content"] = parts
            return message
    return None


def _parts(content: str | list[dict[str, Any]], allowed: tuple[str, ...]) -> list[dict[str, Any]]:
    """Content as parts of these types. Blank text is left out: providers refuse it."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [part for part in parts if part["type"] in allowed and (part["type"] != "text" or part["text"].strip())]


def _as_user(content: str | list[dict[str, Any]]) -> Message | None:
    parts = _parts(content, ("text", "image"))
    return {"role": "user", "content": parts} if parts else None


def _user_text(text: str) -> Message:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _bash_text(message: Message) -> str:
    end = "cancelled" if message.get("cancelled") else f"exit code {message.get('exitCode', 'unknown')}"
    return f"The user ran a command.\n\n$ {message['command']}\n{message['output']}\n\n({end})"


# ── how much of it ───────────────────────────────────────────────────────────────────────────────────────────────────


def fit(planned: Plan, window_tokens_max: int) -> Fit:
    """Leave out the oldest whole exchanges until the rest fits `window_tokens_max` tokens.

    An exchange begins where the user speaks after somebody else did, so a call is never parted from its result. The
    last exchange, the turn's own messages and the pinned ones always stay.

    What is left out comes in steps of a quarter of the window, counted from the oldest message, so that the next
    requests begin with the same words until a step is full again: a beginning that moved each time would be in no
    provider's cache.
    """
    pinned, rest = (planned.messages[: planned.pinned], planned.messages[planned.pinned :])
    costs = [estimate_tokens(message) for message in rest]
    total = sum(map(estimate_tokens, pinned)) + sum(costs)
    start, dropped = 0, 0
    step = max(1, window_tokens_max // DROP_STEPS)
    enough = -(-max(0, total - window_tokens_max) // step) * step
    for begin in _exchange_starts(rest):
        if dropped >= enough or begin > len(rest) - planned.own:
            break
        dropped += sum(costs[start:begin])
        start = begin
    total -= dropped
    outcome = "overflow" if total > window_tokens_max else "trimmed" if start else "whole"
    return Fit(pinned + rest[start:], outcome, total, dropped=start)


def _exchange_starts(messages: Sequence[Message]) -> list[int]:
    """Where the second and later exchanges begin."""
    return [i for i in range(1, len(messages)) if messages[i]["role"] == "user" and messages[i - 1]["role"] != "user"]
