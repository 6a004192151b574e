"""Giving a task away in the middle of a turn: `Turn.spawn`, and the tool `spawn` that models are offered.

A child is made at once and runs by itself: whoever spawned it goes on, and hears of its end as an input of its session.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from holdfast.errors import InputError
from holdfast.ids import derived_id, nonce
from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, Parent, Refused
from holdfast.inbound.event import Route
from holdfast.model.client import ToolSpec
from holdfast.session.key import parse_key
from holdfast.turn.tools import Tool, ToolCall

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

NAME = "spawn"
ARGUMENTS = ("task", "label", "agent", "model")
log = logging.getLogger("holdfast.children")

_TEXT: dict[str, Any] = {"type": "string"}
SPEC = ToolSpec(
    NAME,
    "Give a task to a sub-agent, which works on it by itself while you go on. It knows nothing of this conversation: "
    "say everything it needs in the task. Returns at once; what came of it will come here as a message by itself, so "
    "do not wait for it and do not ask for it.",
    {
        "type": "object",
        "properties": {
            "task": {**_TEXT, "description": "What it is to do, complete in itself."},
            "label": {**_TEXT, "description": "A short name for people."},
            "agent": {**_TEXT, "description": "Another agent that is to do it; usually left out."},
            "model": {**_TEXT, "description": "provider/model that is to do it; usually left out."},
        },
        "required": ["task"],
    },
)


def parent_of(turn: Turn) -> Parent:
    """The turn as the one who gives a task away."""
    view = turn.view
    return Parent(
        session=turn.session, rights=turn.rights, input_id=turn.input_id, turn=turn.id, nonce=turn.epoch.nonce,
        route=Route.parse(view.route) if view is not None and view.route is not None else None,
        fresh=view is not None and view.payload.get("context") == "fresh",
        model=view.model if view is not None else None,
    )  # fmt: skip


async def spawn(
    hf: Holdfast, parent: Parent, task: str, *, key: str | None, label: str | None, agent: str | None,
    model: str | None, timeout_s: float | None,
) -> Child | Refused:  # fmt: skip
    """Make a child. See `Turn.spawn`."""
    limits = hf.spawn_limits
    order = rules.make_order(
        parent, limits, task, key=key or nonce(), label=label, agent=agent, model=model, timeout_s=timeout_s
    )
    made = order if isinstance(order, Refused) else await hf.store.spawn(order, limits)
    if isinstance(made, Refused):
        log.info("session %s: no sub-agent (%s): %s", parent.session, made.why, made.text)
        return made
    log.info("child %s of %s: spawned, input %s", made.id, parent.session, made.input_id)
    hf.work_arrived.set()
    return made


def spawn_tool(hf: Holdfast) -> Tool:
    """The tool `spawn`. It is restart-safe: the same call again, after a crash, is the same child."""

    async def run(call: ToolCall) -> str:
        given = {name: call.arguments.get(name) for name in ARGUMENTS}
        wrong = [name for name, value in given.items() if value is not None and not isinstance(value, str)]
        if wrong:
            raise InputError(f"{', '.join(wrong)}: a text, please")
        turn = next((one for one in hf.live_turns() if one.id == call.turn), None)
        if turn is None:
            raise InputError(f"turn {call.turn} is not running here")
        said = {name: value.strip() or None for name, value in given.items() if value is not None}
        # The id of a call is the provider's and may come again in a later step, with another task.
        key = derived_id("call", call.id, json.dumps(call.arguments, sort_keys=True, default=str))
        made = await turn.spawn(
            said.get("task") or "", label=said.get("label"), agent=said.get("agent"), model=said.get("model"), key=key
        )
        if isinstance(made, Refused):
            raise InputError(f"{made.why}: {made.text}")  # the result of the call, for the model to read
        return json.dumps({"child": made.id, "label": made.label, "session": made.session, "state": made.state})

    # It does nothing by itself: what the child may do is asked of each of its calls, with its parent's rights.
    return Tool(
        SPEC, run, restart_safe=True, offered=lambda session, _lane: may_have_children(hf, session), effect="none"
    )


def may_have_children(hf: Holdfast, session: str) -> bool:
    """Whether the tool is worth showing: limits that only the ledger can tell are told when it is called."""
    depth_max = hf.spawn_limits.depth_max
    return depth_max > 1 or (depth_max == 1 and parse_key(session).kind != "subagent")
