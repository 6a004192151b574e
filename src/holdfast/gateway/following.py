"""Waiting for an input's end: what this process hears of it at once, what another process did within a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

from holdfast.kernel import Holdfast
from holdfast.store.views import InputView
from holdfast.turn.events import Subscription, TurnEvent

LOOK_S = 1.0  # the store is looked at this often: wake-ups do not cross processes (specification, "Wake-ups")


async def follow(
    hf: Holdfast, events: Subscription, input_id: str, *, look_first: bool = False
) -> AsyncIterator[TurnEvent | InputView]:
    """What happens to an input: events as they come, its view about once a second; last of all its settled view.

    What was told before the input was settled comes before that view, however late this is called: what was said
    between two calls of tools stands in no answer, and a machine may stand still for longer than a second.

    Args:
        events: a subscription that was made before the input was accepted, so that nothing is missed.
        look_first: it may be settled already.
    """
    looked_mono = -LOOK_S if look_first else hf.clock.mono()
    while True:
        hint = False
        if hf.clock.mono() - looked_mono < LOOK_S:
            event = await events.next(LOOK_S)
            if event is not None and _is_of(event, input_id):
                hint = event.kind == "turn.settled"
                yield event
        if hint or hf.clock.mono() - looked_mono >= LOOK_S:
            looked_mono = hf.clock.mono()
            view = await hf.input(input_id)
            while view.settled and (event := events.next_at_once()) is not None:
                if _is_of(event, input_id):
                    yield event
            yield view
            if view.settled:
                return


def _is_of(event: TurnEvent, input_id: str) -> bool:
    return event.input_id == input_id or event.kind == "dropped"


class GrowingText:
    """What a streaming caller has been sent of an answer that is still being written.

    Text is passed on from the beginning of a model request that this caller saw begin; a caller that came later gets
    the answer whole at its end. Several model requests of one turn (tool rounds) are parted by an empty line.
    """

    GAP = "\n\n"

    def __init__(self) -> None:
        self._turn: str | None = None
        self._step = ""  # sent of the current model request
        self._sent = False  # anything at all
        self._is_following = False
        self.is_void = False  # what was sent is not the answer; nothing more can be sent

    def take(self, event: TurnEvent) -> str:
        """The text to send because of this event; often none."""
        if event.kind == "turn.model":
            self._begin(event.turn_id)
        elif event.kind in ("turn.discarded", "dropped"):
            self._is_following = False
            self.is_void = self.is_void or (event.kind == "turn.discarded" and self._sent)
        elif event.kind == "turn.delta" and self._is_following and not self.is_void:
            return self._add(event.data["text"])
        return ""

    def _begin(self, turn_id: str | None) -> None:
        if self._sent and turn_id != self._turn:
            self.is_void = True  # another turn writes the answer anew
        self._turn, self._step, self._is_following = turn_id, "", True

    def _add(self, text: str) -> str:
        gap = self.GAP if self._sent and not self._step and text else ""
        self._step += text
        self._sent = self._sent or bool(text)
        return gap + text

    def rest(self, answer: str) -> str | None:
        """What is still to be sent when the answer is final; None: what was sent is not its beginning."""
        if self.is_void or not answer.startswith(self._step):
            return None
        return self._add(answer[len(self._step) :])
