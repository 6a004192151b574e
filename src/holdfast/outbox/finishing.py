"""How an answer goes out whose beginning is shown already: by an edit of that message; anew where there is none.

Editing twice does no harm, so an edit whose fate is unknown is simply done again. Only where nobody can tell whether a
beginning stands there at all does the answer go out with a label.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.channel.listening import Editor
from holdfast.errors import ChannelError, ChannelRefusedError
from holdfast.kernel import Holdfast
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE, RETRY_AFTER_S, OpenDelivery
from holdfast.outbox.preview import Preview
from holdfast.outbox.showing import Showing

QUESTIONS_MAX = 3
"""How often a platform is asked for a beginning that nobody knows the name of; five seconds apart."""
ASK_EVERY_S = 5.0

Put = Callable[[SendRequest], Awaitable[Sent]]


@dataclass(frozen=True, slots=True)
class How:
    """put: what takes the place of `Channel.send`, or None. label: what is recorded with the start.

    is_repeated: it goes out without that label all the same, under a key that the platform keeps; what follows has it.
    """

    put: Put | None = None
    label: str | None = None
    is_repeated: bool = False


USUAL = How()


class Finishing:
    """Looks for the beginnings of answers. `editors`: by channel."""

    def __init__(self, hf: Holdfast, showing: Showing, editors: Mapping[str, Editor]) -> None:
        self._hf = hf
        self._showing = showing
        self._editors = editors
        self._asked: dict[str, tuple[int, float]] = {}

    async def how(self, channel: Channel, row: OpenDelivery) -> How | None:
        """How the first piece of an answer goes out now; None: not yet. Raises ResourceError."""
        if channel.name not in self._showing:
            return USUAL
        await self._showing.ended(row.input_id)
        preview = await self._hf.store.preview(row.id)
        if preview is None:
            return USUAL
        if not self._showing.may_finish(preview, channel.traits.longest_request_s):
            return None
        if preview.reference is None:
            return await self._look_for(channel, row, preview)
        return How(self._edit(channel, preview, preview.reference))

    async def edit_again(self, channel: Channel, row: OpenDelivery) -> Put | None:
        """The edit that makes the answer of what is shown, once more: its fate is unknown. None: nothing is shown, or
        nobody knows its name. Raises ResourceError.
        """
        if channel.name not in self._showing or row.attempts > len(RETRY_AFTER_S):
            return None
        preview = await self._hf.store.preview(row.id)
        if preview is None or preview.reference is None:
            return None
        return self._edit(channel, preview, preview.reference)

    async def _look_for(self, channel: Channel, row: OpenDelivery, preview: Preview) -> How | None:
        """It was sent, and nobody has heard what it is called. Where that cannot be found out it is known of until the
        labelled answer has arrived: another process must not take it for one of which nothing was shown.
        """
        if row.label is not None:
            return How(label=row.label)
        times, next_mono = self._asked.get(preview.id, (0, 0.0))
        if self._hf.clock.mono() < next_mono:
            return None
        if not channel.traits.reconciles or times >= QUESTIONS_MAX:
            self._asked.pop(preview.id, None)
            may_repeat = self._showing.may_repeat(preview, channel.traits)
            self._showing.forget(preview.id)
            return How(label=POSSIBLE_DUPLICATE, is_repeated=may_repeat)
        try:
            found = await channel.find(preview.id, preview.target)
        except ChannelError:
            self._asked[preview.id] = (times + 1, self._hf.clock.mono() + ASK_EVERY_S)
            return None
        self._asked.pop(preview.id, None)
        if found is None or found.reference is None:
            await self._hf.store.end_preview(preview.id)
            return USUAL
        await self._hf.store.name_preview(preview.id, found.reference)
        return How(self._edit(channel, preview, found.reference))

    def _edit(self, channel: Channel, preview: Preview, reference: str) -> Put:
        editor = self._editors[preview.channel]

        async def put(request: SendRequest) -> Sent:
            try:
                return await editor.edit(reference, request)
            except ChannelRefusedError as refused:
                if not refused.permanent:
                    raise
                # Somebody has taken it away, or it can be edited no more: the answer is sent as any other.
                await self._hf.store.end_preview(preview.id)
                self._showing.forget(preview.id)
                return await channel.send(request)

        return put
