"""What of a chat client's messages is new. Pure: lists of messages in, a list of messages out.

Chat clients send the whole conversation with every request; the session has its own. Only what follows the last stored
answer is appended, so that a transcript never holds a conversation twice, whatever a client remembers of it.

A chat payload (`InboundEvent.payload`) is `{"messages", "system"?, "tools"?, "settings"?}`. Its messages are v3
messages without a time (`inbound/openai_messages.py` makes them), system prompts taken out; the last one is from the
user or a tool. Read `align` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.context.repair import FAILED_STOPS, INTERRUPTED
from holdfast.model.client import ToolSpec
from holdfast.session.entries import ANNOUNCEMENT_MODEL, MIRROR_MODELS, MIRROR_PROVIDER

Message = dict[str, Any]

ANCHORS_MAX = 8
"""How many places with the text of the last stored answer are tried: short answers ("ok") repeat."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What to append, and how the client's view relates to the session.

    Args:
        append: v3 messages, oldest first, never empty. The writer gives them ids and times.
        divergence: where the client's history departs from what is stored; None if it does not.
        continues: the client's history holds the last stored answer.
    """

    append: list[Message]
    divergence: str | None = None
    continues: bool = False

    @property
    def history(self) -> str:
        """As in the header `X-Holdfast-History`: "aligned", "appended" (no history was sent) or "diverged: where"."""
        if self.divergence is not None:
            return f"diverged: {self.divergence}"
        return "aligned" if self.continues else "appended"


# ── what the runner asks ─────────────────────────────────────────────────────────────────────────────────────────────


def new_messages(payload: dict[str, Any], branch_messages: Sequence[Message]) -> Alignment:
    """What an input adds to its session; to be asked once the turn owns the session.

    Args:
        payload: of the input, in either form that `InboundEvent` names.
        branch_messages: v3 messages of the active branch up to this input, oldest first. On a re-run the lines that an
            earlier attempt wrote for this very input must be left out, else its question looks stored already.
    """
    if "messages" not in payload:
        return Alignment([{"role": "user", "content": payload["content"]}])
    return align(payload["messages"], branch_messages)


def offered_tools(payload: dict[str, Any]) -> list[ToolSpec]:
    """The tools that the client itself runs. An answer that calls one of them ends the turn: finish "tool_calls"."""
    return [ToolSpec(tool["name"], tool["description"], tool["parameters"]) for tool in payload.get("tools", ())]


# ── alignment ────────────────────────────────────────────────────────────────────────────────────────────────────────


def align(client_messages: Sequence[Message], stored_messages: Sequence[Message]) -> Alignment:
    """Find the last stored answer in the client's messages; what follows it is new.

    Messages are the same if role and text are (white space aside), or for calls and results their call ids; thinking
    and times do not count. Rules:

    - Nothing is answered yet in the session: all is new but what is stored already and waits for an answer.
    - The last stored answer is found: what follows it is new. If older messages differ, `divergence` names the newest.
    - It is not found: a divergence, and only the client's trailing user and tool messages are new. A single message, or
      results alone, are no history and so no divergence.
    - The newest message is always new: two equal questions are two questions.
    """
    client = list(client_messages)
    stored = [message for message in stored_messages if _is_spoken(message)]
    anchors = _answers_to_find(stored)
    if not anchors:
        return Alignment(_with_tool_names(_not_stored_yet(client, stored), client, stored))
    for answer_at in anchors:
        found = _find_answer(client, stored, answer_at)
        if found is not None:
            at, difference = found
            new = _not_stored_yet(client[at + 1 :], stored[answer_at + 1 :])
            return Alignment(_with_tool_names(new, client, stored), difference, continues=True)
    if _is_bare(client):
        return Alignment(_with_tool_names(client, client, stored))
    if any(message["role"] == "assistant" for message in client):
        new = _trailing(client, stored)
    else:
        new = client[_overlap(stored, client) :]
    return Alignment(_with_tool_names(new, client, stored), "the last stored answer is not in messages")


def _is_spoken(message: Message) -> bool:
    """Whether a client can have seen it: not mirrors, announcements, failed answers, made-up results, summaries."""
    if message["role"] == "assistant":
        is_mirror = message.get("provider") == MIRROR_PROVIDER and message.get("model") in MIRROR_MODELS
        came_aside = f"{message.get('provider')}/{message.get('model')}" == ANNOUNCEMENT_MODEL
        return not is_mirror and not came_aside and message.get("stopReason") not in FAILED_STOPS
    if message["role"] == "toolResult":
        return _squeezed(message) != "".join(INTERRUPTED.split())
    return message["role"] == "user"


def _answers_to_find(stored: Sequence[Message]) -> list[int]:
    """Where the last answer stands, best first; empty if nothing was answered.

    Answers that call tools come before the final one: a client has seen them only if the tools were its own.
    """
    found: list[int] = []
    for at in reversed(range(len(stored))):
        if stored[at]["role"] == "assistant":
            found.append(at)
            if not _is_round(stored[at]):
                return found
    return [] if all(_is_answered(stored, at) for at in found) else found


def _is_answered(stored: Sequence[Message], at: int) -> bool:
    """Whether the tools that this answer calls have all returned: then a turn was under way and never finished."""
    results = {message["toolCallId"] for message in stored[at + 1 :] if message["role"] == "toolResult"}
    return _call_ids(stored[at]) <= results


def _find_answer(client: Sequence[Message], stored: Sequence[Message], answer_at: int) -> tuple[int, str | None] | None:
    """Where the client has this answer, and the first difference before it, in words.

    Of several places the latest without a difference wins, else the latest.
    """
    fallback: tuple[int, str | None] | None = None
    tried = 0
    for at in reversed(range(len(client))):
        if client[at]["role"] != "assistant" or _step_back(client[at], stored, answer_at) is None:
            continue
        different_at = _newest_difference(client, at, stored, answer_at)
        if different_at is None:
            return at, None
        if fallback is None:
            role = client[different_at]["role"]
            fallback = at, f"message {different_at + 1} of {len(client)} ({role}) is not what is stored"
        tried += 1
        if tried == ANCHORS_MAX:
            break
    return fallback


def _newest_difference(client: Sequence[Message], at: int, stored: Sequence[Message], stored_at: int) -> int | None:
    """Index of the newest client message, from `at` backwards, that is not what is stored; None if there is none.

    Either side may begin later than the other: clients cut old messages off, compaction does too. Tool rounds between
    a question and its answer are skipped where the client shows none: the tools were ours.
    """
    while at >= 0 and stored_at >= 0:
        before = _step_back(client[at], stored, stored_at)
        if before is not None:
            at, stored_at = at - 1, before
        elif client[at]["role"] == "user" and _is_round(stored[stored_at]):
            stored_at -= 1
        else:
            return at
    return None


def _step_back(said: Message, stored: Sequence[Message], at: int) -> int | None:
    """The index to go on from if `said` is what is stored at `at`, with the tool rounds before it or not; else None.

    A streaming client has the text of all rounds as one message.
    """
    if _is_same(said, stored[at]):
        return at - 1
    if said["role"] != "assistant" or stored[at]["role"] != "assistant" or _call_ids(said):
        return None
    wanted = _squeezed(said)
    text = _squeezed(stored[at])
    while at > 0 and _is_round(stored[at - 1]) and len(text) <= len(wanted):
        at -= 1
        if stored[at]["role"] == "assistant":
            text = _squeezed(stored[at]) + text
            if text == wanted:
                return at - 1
    return None


def _not_stored_yet(said: Sequence[Message], unanswered: Sequence[Message]) -> list[Message]:
    """`said` without what is stored already and was never answered (turns that failed), in order; the newest stays."""
    new: list[Message] = []
    at = 0
    for message in said[:-1]:
        known = next((i for i in range(at, len(unanswered)) if _is_same(message, unanswered[i])), None)
        if known is None:
            new.append(message)
        else:
            at = known + 1
    return [*new, said[-1]]


def _is_bare(client: Sequence[Message]) -> bool:
    """Whether this is no history but one message, or the results of one round of tools."""
    return len(client) == 1 or all(message["role"] == "toolResult" for message in client)


def _trailing(client: Sequence[Message], stored: Sequence[Message]) -> list[Message]:
    """What follows the client's last answer; with it, if the results of its calls come and the calls are not stored."""
    at = max(i for i, message in enumerate(client) if message["role"] == "assistant")
    known = {id for message in stored for id in _call_ids(message)}
    returned = {message["toolCallId"] for message in client[at + 1 :] if message["role"] == "toolResult"}
    return list(client[at:] if returned - known else client[at + 1 :])


def _overlap(stored: Sequence[Message], client: Sequence[Message]) -> int:
    """How many of the client's first messages are the newest stored questions: for clients that keep no answers."""
    asked = [message for message in stored if message["role"] == "user"]
    for length in range(min(len(asked), len(client) - 1), 0, -1):
        if all(_is_same(a, b) for a, b in zip(asked[-length:], client, strict=False)):
            return length
    return 0


def _with_tool_names(new: list[Message], client: Sequence[Message], stored: Sequence[Message]) -> list[Message]:
    """Results with the name of their tool, which chat clients do not send: it stands in the call."""
    names = {
        part["id"]: part["name"]
        for message in (*stored, *client)
        if message["role"] == "assistant"
        for part in _calls(message)
    }
    return [
        {**message, "toolName": names.get(message["toolCallId"], "")}
        if message["role"] == "toolResult" and not message["toolName"]
        else message
        for message in new
    ]


# ── one message ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_same(said: Message, stored: Message) -> bool:
    if said["role"] != stored["role"]:
        return False
    if said["role"] == "toolResult":
        return said["toolCallId"] == stored["toolCallId"]
    ids = _call_ids(said)
    if ids:
        return ids <= _call_ids(stored)
    return _squeezed(said) == _squeezed(stored) and _images(said) == _images(stored) and not _call_ids(stored)


def _is_round(stored: Message) -> bool:
    """An intermediate step: a result, or an answer that calls tools."""
    return stored["role"] == "toolResult" or (stored["role"] == "assistant" and bool(_call_ids(stored)))


def _calls(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if part.get("type") == "toolCall"]


def _call_ids(message: Message) -> set[str]:
    return {part["id"] for part in _calls(message)} if message["role"] == "assistant" else set()


def _squeezed(message: Message) -> str:
    """The text without white space: clients trim lines, and join parts with more or less of it."""
    content = message["content"]
    text = content if isinstance(content, str) else "".join(p["text"] for p in content if p.get("type") == "text")
    return "".join(text.split())


def _images(message: Message) -> list[str]:
    content = message["content"]
    return [] if isinstance(content, str) else [part["data"] for part in content if part.get("type") == "image"]
