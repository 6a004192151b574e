"""Pieces of an answer handed on at once while they come slowly, and bundled while they come fast.

What a turn does with a piece (its sign of life, its limits, an event for whoever watches) costs more than reading it.
A provider that sends more than fifty pieces a second gains nothing by having it done for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.model.client import SIGN, Heard, Piece, TextDelta, ThinkingDelta

BUNDLE_S = 0.02
"""The shortest time between two bundles: nobody sees text come more smoothly than fifty times a second."""


class Bundles:
    """What was read and is not handed on yet. Must be used from one event loop.

    Args:
        heard: gets the pieces.
        piece_of: what an event of the stream brings.
        stop: called once `heard` wants no more, from the loop or from `look`.

    Attributes:
        events: those that wait. Whoever reads appends one, and calls `look` where `is_waiting` is False.
        is_waiting: a time is set at which they are handed on.
    """

    __slots__ = ("_at", "_heard", "_loop", "_piece_of", "_stop", "_timer", "events", "is_waiting")

    def __init__(self, heard: Heard, piece_of: Callable[[Any], Piece], stop: Callable[[], object]) -> None:
        self._heard = heard
        self._piece_of = piece_of
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._at = 0.0  # before that nothing more is handed on
        self._timer: asyncio.TimerHandle | None = None
        self.events: list[Any] = []
        self.is_waiting = False

    def look(self) -> None:
        """Hand on what waits, or see to it that it will be."""
        if self._loop.time() >= self._at:
            self.flush()
        else:
            self.is_waiting = True
            self._timer = self._loop.call_at(self._at, self.flush)

    def flush(self) -> None:
        """Hand on what waits, now."""
        self.is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.events:
            return
        pieces = joined(map(self._piece_of, self.events))
        self.events.clear()
        self._at = self._loop.time() + BUNDLE_S
        for piece in pieces:
            if self._heard.stopped_by is None and self._heard.take(piece):
                self._stop()


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same, neighbours of one kind in one; signs are left out where there is anything else."""
    found = list(_runs(pieces))
    return found or [SIGN]


def _runs(pieces: Iterable[Piece]) -> Iterator[Piece]:
    kind: type[TextDelta | ThinkingDelta] | None = None
    texts: list[str] = []
    for piece in pieces:
        if not isinstance(piece, TextDelta | ThinkingDelta):
            continue
        if kind is not type(piece):
            if kind is not None:
                yield kind("".join(texts))
            kind, texts = type(piece), []
        texts.append(piece.text)
    if kind is not None:
        yield kind("".join(texts))
