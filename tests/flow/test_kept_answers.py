"""A finished answer is never thrown away: what becomes of one whose input has been claimed by somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ProviderError, SessionTakeoverError
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.outbox.message import MOVED_ON_NOTE
from holdfast.turn.turn import Turn

KEY = "agent:main:main"


async def lost_and_taken(first: Holdfast, second: Holdfast) -> tuple[Turn, Turn]:
    """A turn that showed no life any more, and the one that has taken over its input."""
    admission = await first.accept(InboundEvent(KEY, {"content": "hello"}, route=Route("test", "alice")))
    assert isinstance(admission, Accepted)
    lost = await first.claim(KEY, input_id=admission.input_id)
    assert isinstance(lost, Turn)
    first.store.beater.stop(lost.id)  # pyright: ignore[reportAttributeAccessIssue]
    taken = await second.claim(KEY, input_id=admission.input_id, wait_s=10)
    assert isinstance(taken, Turn)
    with pytest.raises(SessionTakeoverError):
        await lost.append(holdfast.assistant("the kept answer", model="test/test"))
    await first.close_turn(lost, None)
    return lost, taken


@pytest.mark.promise("P2")
async def test_a_kept_answer_is_delivered_with_its_note_if_all_later_attempts_fail(state: Path) -> None:
    async with holdfast.open(state) as first, holdfast.open(state, beat_term_s=0.2) as second:
        _, taken = await lost_and_taken(first, second)
        view = await second.input(taken.input_id or "")
        assert (view.state, view.answer) == ("running", None)
        assert await second.close_turn(taken, ProviderError("the model is down")) == "superseded"
        view = await second.input(view.id)
        assert (view.state, view.answer) == ("superseded", "the kept answer")
        assert "the model is down" in (view.detail or "")
        [delivery] = await second.deliveries()
        assert delivery.body == f"the kept answer\n\n{MOVED_ON_NOTE}"


@pytest.mark.promise("P4", "I6")
async def test_a_kept_answer_gives_way_to_the_answer_of_a_later_attempt(state: Path) -> None:
    async with holdfast.open(state) as first, holdfast.open(state, beat_term_s=0.2) as second:
        _, taken = await lost_and_taken(first, second)
        await taken.append(holdfast.assistant("the new answer", model="test/test"))
        assert await second.close_turn(taken, None) == "answered"
        [delivery] = await second.deliveries()
        assert delivery.body == "the new answer"
