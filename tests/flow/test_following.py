"""Whoever follows an input hears all that was told of it, also when the machine stood still meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from holdfast.gateway.following import GrowingText, follow
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.store.views import InputView
from holdfast.testing.clock import VirtualClock
from holdfast.turn.events import TurnEvent

KEY = "agent:main:main"


@pytest.mark.parametrize("joined", [True, False])
async def test_what_was_said_before_the_answer_is_not_lost_to_a_follower_who_comes_late(
    state: Path, joined: bool
) -> None:
    """Text between two calls of tools stands in events alone; the last text stands in the answer, too."""
    clock = VirtualClock()
    async with holdfast.open(state, clock=clock) as hf:
        accepted = await hf.accept(InboundEvent(KEY, {"content": "how many?"}))
        assert isinstance(accepted, Accepted)
        with hf.events.subscribe(session=KEY) as events:
            seen = follow(hf, events, accepted.input_id, look_first=joined)
            async with hf.turn(KEY, input_id=accepted.input_id) as turn:
                turn.publish("turn.model", model="demo/demo", step=1)
                heard = [] if joined else [await anext(seen)]
                for text in ("Let me see.", "It is five."):
                    if text != "Let me see.":
                        turn.publish("turn.model", model="demo/demo", step=2)
                    turn.publish("turn.delta", text=text)
                await turn.append(holdfast.assistant("It is five.", model="demo/demo"))
            await clock.advance(5)
            heard += [one async for one in seen]
        said = GrowingText()
        text = "".join([said.take(one) for one in heard if isinstance(one, TurnEvent)])
        last = heard[-1]
        assert isinstance(last, InputView)
        assert (last.state, last.answer) == ("answered", "It is five.")
        assert (text, said.rest("It is five.")) == ("Let me see.\n\nIt is five.", "")
