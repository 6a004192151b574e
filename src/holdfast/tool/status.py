"""The tool `session_status`: what a model may know of the conversation that it is in. It only reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.clock import iso
from holdfast.lane import queue
from holdfast.model.client import ToolSpec
from holdfast.turn.tools import Tool, ToolCall

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

NAME = "session_status"
SHOWN_MAX = 20
_SPEC = ToolSpec(
    NAME,
    "Tell of this conversation: its model, what waits, which sub-agents and background programs are at work.",
    {"type": "object", "properties": {}},
)


def status_tool(hf: Holdfast, *, model_of: Callable[[str], str]) -> Tool:
    """The tool.

    Args:
        model_of: the model that answers in a session as configured.
    """

    async def run(call: ToolCall) -> str:
        session = call.session
        keys = await hf.store.keys_with(session)
        waiting = [one for key in keys for one in await hf.inputs(session=key, state="queued", limit=SHOWN_MAX)]
        children = [one for key in keys for one in await hf.children(session=key, only_open=True, limit=SHOWN_MAX)]
        programs = [one for key in keys for one in await hf.store.background(session=key, only_open=True)]
        pin = (await hf.store.pins([session])).get(session)
        facts: dict[str, Any] = {
            "session": session,
            "lane": call.rights,
            "now": iso(hf.clock.now()),
            "model": model_of(session) if pin is None else f"{pin.model} ({pin.source}: {pin.reason})",
            "queue": queue.in_words(await hf.queue_settings(session)),
            "waiting": len(waiting),
            "sub_agents": [{"id": one.id, "label": one.label, "state": one.state} for one in children],
            "background": [{"id": one.id, "title": one.title, "state": one.state} for one in programs[:SHOWN_MAX]],
        }
        return json.dumps(facts, ensure_ascii=False)

    return Tool(_SPEC, run, restart_safe=True, effect="read")
