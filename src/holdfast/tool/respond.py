"""The tool `heartbeat_respond`: a heartbeat's answer in so many words, in place of a token in its text.

What it says stands in the transcript like every call; whoever settles the heartbeat reads it there, so a crash in
between changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from holdfast.errors import InputError
from holdfast.inbound.heartbeat import RESPONDED, RESPONSE_CHARS_MAX
from holdfast.model.client import ToolSpec
from holdfast.session.lines import Line
from holdfast.store.views import InputView
from holdfast.tool.arguments import flag, text_of
from holdfast.turn.tools import Tool, ToolCall
from holdfast.turn.turn import Turn

NAME = "heartbeat_respond"
LANE = "heartbeat"
RunInput = Callable[[Turn, InputView], Awaitable[None]]

_SPEC = ToolSpec(
    NAME,
    "End this heartbeat: say whether people are to be told of something. Without anything to tell, notify is false.",
    {
        "type": "object",
        "properties": {
            "notify": {"type": "boolean"},
            "text": {"type": "string", "description": "What they are told; left out: your answer."},
        },
        "required": ["notify"],
    },
)


def respond_tool() -> Tool:
    """The tool. Models are shown it in heartbeats only."""

    async def run(call: ToolCall) -> str:
        said = read_response(call)
        return "people will be told" if said["notify"] else "noted: there is nothing to tell"

    return Tool(_SPEC, run, restart_safe=True, effect="none", offered=lambda _session, lane: lane == LANE)


def read_response(call: ToolCall) -> dict[str, Any]:
    """Raises InputError: `notify` is missing, or the text is too long."""
    if "notify" not in call.arguments:
        raise InputError("notify: true or false, please")
    text = text_of(call, "text", "").strip()
    if len(text) > RESPONSE_CHARS_MAX:
        raise InputError(f"text: at most {RESPONSE_CHARS_MAX} characters, please")
    return {"notify": flag(call, "notify"), "text": text}


def with_heartbeat_responses(run_input: RunInput) -> RunInput:
    """`run_input`, after which the outcome of a heartbeat carries what it has responded."""

    async def run(turn: Turn, view: InputView) -> None:
        await run_input(turn, view)
        if view.lane == LANE and turn.lost is None:
            said = response_in(await turn.branch(), turn.answers)
            if said is not None:
                turn.result_facts[RESPONDED] = said

    return run


def response_in(lines: Sequence[Line], inputs: Collection[str]) -> dict[str, Any] | None:
    """The newest response that a turn of these inputs has given, and that its tool has taken."""
    taken: set[str] = set()
    for line in reversed(lines):
        if line.kind != "entry" or line.type != "message" or line.origin is None:
            continue
        if not set(inputs) & set(line.origin.inputs):
            continue
        message = line.value()["message"]
        if message.get("role") == "toolResult" and message.get("toolName") == NAME and not message.get("isError"):
            taken.add(message["toolCallId"])
        if message.get("role") != "assistant" or not isinstance(message.get("content"), list):
            continue
        for part in reversed(message["content"]):
            if part.get("type") == "toolCall" and part.get("name") == NAME and part.get("id") in taken:
                arguments = part.get("arguments") or {}
                return {"notify": arguments.get("notify") is True, "text": str(arguments.get("text") or "").strip()}
    return None
