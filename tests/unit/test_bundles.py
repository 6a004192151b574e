"""Pieces of an answer: at once while they come slowly, bundled while they come fast, all of them in order."""

from __future__ import annotations

import asyncio
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TurnLimitError
from holdfast.model.bundles import Bundles, joined
from holdfast.model.client import SIGN, Heard, Piece, TextDelta, ThinkingDelta

PIECES = st.lists(
    st.one_of(st.builds(TextDelta, st.text(max_size=3)), st.builds(ThinkingDelta, st.text(max_size=3)), st.just(SIGN))
)


@given(PIECES)
def test_a_bundle_says_what_its_pieces_say_in_their_order(pieces: list[Piece]) -> None:
    visible = [piece for piece in pieces if isinstance(piece, TextDelta | ThinkingDelta)]
    runs = [(kind, "".join(one.text for one in run)) for kind, run in groupby(visible, type)]
    bundle = joined(pieces)
    assert bundle == ([kind(text) for kind, text in runs] or [SIGN])


class Reader:
    """Reads events that are pieces already."""

    def __init__(self) -> None:
        self.handed_on: list[Piece] = []
        self.stopped = 0
        self.came = asyncio.Event()
        self.chars_max = 1_000_000
        self.heard = Heard(self._hand_on)
        self.bundles = Bundles(self.heard, lambda piece: piece, self._stop)

    def read(self, *texts: str) -> None:
        for text in texts:
            self.bundles.events.append(TextDelta(text))
            if not self.bundles.is_waiting:
                self.bundles.look()

    def _hand_on(self, piece: Piece) -> None:
        self.handed_on.append(piece)
        self.came.set()
        if self.heard.chars > self.chars_max:
            raise TurnLimitError("output_bytes", "too much")

    def _stop(self) -> None:
        self.stopped += 1


async def test_what_comes_first_is_handed_on_at_once_and_what_follows_fast_in_one() -> None:
    reader = Reader()
    reader.read("one ")
    assert reader.handed_on == [TextDelta("one ")]
    reader.read("two ", "three ", "four")
    assert reader.bundles.is_waiting
    reader.bundles.flush()
    assert "".join(piece.text for piece in reader.handed_on if isinstance(piece, TextDelta)) == "one two three four"
    assert len(reader.handed_on) == 2
    assert not reader.bundles.is_waiting


async def test_what_waits_is_handed_on_though_nothing_more_comes() -> None:
    reader = Reader()
    reader.read("one ", "two")
    reader.came.clear()
    async with asyncio.timeout(60):
        await reader.came.wait()
    assert reader.heard.text == "one two"
    reader.bundles.flush()
    assert reader.heard.text == "one two"


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_reader_is_stopped_once_when_no_more_is_wanted(*, by_itself: bool) -> None:
    reader = Reader()
    reader.chars_max = 5
    reader.read("one ")
    reader.bundles.events.extend([TextDelta("two "), ThinkingDelta("three "), TextDelta("four ")])
    reader.bundles.look()
    if by_itself:
        async with asyncio.timeout(60):
            while not reader.stopped:  # noqa: ASYNC110  # the timer of the bundles has no event of its own
                await asyncio.sleep(0.001)
    else:
        reader.bundles.flush()
    reader.bundles.flush()
    assert reader.stopped == 1
    assert isinstance(reader.heard.stopped_by, TurnLimitError)
    assert reader.handed_on == [TextDelta("one "), TextDelta("two ")]
