"""The tool `message`: something is said on a channel now, by a tool and not by the answer.

To the conversation itself it goes out as it is: what was said stands in the call. Into another conversation it goes as
an announcement (`inbound/announcement.py`): that one knows of it before its people can answer, and knows of it once. To
somebody with whom there is no conversation it goes out as it is. Which of these it is, is decided in the transaction
that makes it happen. Its id follows from the input and the call, so the same call again is the same message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from holdfast.errors import InputError
from holdfast.ids import derived_id
from holdfast.inbound.event import InboundEvent, Route
from holdfast.model.client import ToolSpec
from holdfast.tool.arguments import text_of
from holdfast.tool.policy import Effect
from holdfast.turn.tools import Tool, ToolCall

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

NAME = "message"
TEXT_CHARS_MAX = 20_000
PER_INPUT_MAX = 20
"""Messages that one input may lead to: more are a flood, whoever wants it."""
How = Literal["sent", "announced", "again"]


@dataclass(frozen=True, slots=True)
class MessageOrder:
    """A message to be sent.

    Args:
        id: names it. nonce: random half of the sending turn's epoch, which must own its session.
        known_as: the announcement by which another conversation gets it.
    """

    id: str
    session: str
    input_id: str
    turn: str
    nonce: str
    route: Route
    text: str
    known_as: Callable[[str], InboundEvent]


@dataclass(frozen=True, slots=True)
class Queued:
    """It is in the outbox ("sent"), on its way into a conversation ("announced"), or was before ("again")."""

    how: How
    session: str | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was sent. `text` says why."""

    text: str


_SPEC = ToolSpec(
    NAME,
    "Say something on a channel now, before your answer or to somebody else. Your answer itself is sent by itself: do "
    "not repeat it with this.",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "to": {
                "type": "string",
                "description": '"channel:target", such as "slack:C042"; left out: where the answer goes.',
            },
        },
        "required": ["text"],
    },
)


def message_tool(hf: Holdfast, *, channels: Collection[str] | None, known: Collection[str] = ()) -> Tool:
    """The tool. It is restart-safe: the same call again, after a crash, is the same message.

    Args:
        channels: by name, where something can be sent to; None: not known here.
        known: targets, as "channel:target" or patterns with `*`, that are no strangers: no more is asked than for
            the conversation itself.
    """
    from holdfast.inbound.announcement import event_of

    def effect(call: ToolCall) -> Effect:
        try:
            route = _route_of(call)
        except InputError:
            return "none"  # nothing will be sent
        if route is None or route == call.route:
            return "none"
        return "none" if any(fnmatchcase(_name(route), one) for one in known) else "send"

    def covers(call: ToolCall) -> str:
        route = _route_of(call)
        return "" if route is None else _name(route)

    async def run(call: ToolCall) -> str:
        text, route = text_of(call, "text").strip(), _route_of(call)
        if not text or len(text) > TEXT_CHARS_MAX:
            raise InputError(f"text: 1 to {TEXT_CHARS_MAX} characters, please")
        if route is None or call.input_id is None:
            raise InputError("there is nowhere to send it to: this turn answers nobody on a channel; name `to`")
        if channels is not None and route.channel not in channels:
            raise InputError(f"no channel {route.channel!r} here; there are: {', '.join(sorted(channels)) or 'none'}")
        message_id, of = message_id_of(call), call.input_id
        order = MessageOrder(
            message_id, call.session, of, call.turn, call.epoch.nonce, route, text,
            lambda session: event_of(message_id, of, text, session, route, line=True),
        )  # fmt: skip
        queued = await hf.store.send_message(order)
        if isinstance(queued, NotSent):
            raise InputError(queued.text)
        hf.answers_arrived.set()
        hf.work_arrived.set()
        if queued.how == "again":
            return f"this message to {_name(route)} was sent before; it is not sent twice"
        return f"on its way to {_name(route)}" + (", whose conversation knows of it" if queued.session else "")

    return Tool(_SPEC, run, restart_safe=True, effect=effect, covers=covers)


def message_id_of(call: ToolCall) -> str:
    """From the input and the call: an id of a call is the provider's and may come again with another text."""
    return f"m_{derived_id('message', call.input_id or call.turn, call.id, call.digest)}"


def _route_of(call: ToolCall) -> Route | None:
    to = call.arguments.get("to")
    return call.route if to in (None, "") else Route.parse(text_of(call, "to"))


def _name(route: Route) -> str:
    return f"{route.channel}:{route.target}"
