"""How a framework's own form lies in a transcript: one `custom` line for each save, beside messages for everybody else.

A save is the commit: what it holds is there whole or not at all. Lines count in the order in which they stand in the
file, whatever branch they are on. Nothing is kept in memory between calls but what has been shown in a turn.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.kernel import Holdfast
from holdfast.session import entries as made
from holdfast.session.entries import MessageEntry
from holdfast.session.lines import Line
from holdfast.turn.turn import Turn, current_turn

WAIT_S = 30.0
"""How long a save waits for somebody else's turn; the usual length of `Holdfast.turn`."""

_shown: WeakKeyDictionary[Turn, set[str]] = WeakKeyDictionary()
_steps: WeakKeyDictionary[Turn, int] = WeakKeyDictionary()


def turn_now(hf: Holdfast, session: str | None = None) -> Turn | None:
    """The turn inside which we run, if it is one of this handle's (and of this session)."""
    id = current_turn.get()
    for turn in hf.live_turns():
        if turn.id == id and session in (None, turn.session):
            return turn
    return None


def next_step(turn: Turn) -> int:
    """The number of a model call in its turn, for the turn's story."""
    _steps[turn] = _steps.get(turn, 0) + 1
    return _steps[turn]


@asynccontextmanager
async def writing(hf: Holdfast, session: str, *, wait_s: float = WAIT_S) -> AsyncIterator[Turn]:
    """The turn inside which we run, or else a short one of our own. Raises: as `Holdfast.turn`."""
    turn = turn_now(hf, session)
    if turn is not None:
        yield turn
        return
    async with hf.turn(session, wait_s=wait_s) as short:
        yield short


async def keep(turn: Turn, custom_type: str, data: dict[str, Any]) -> str:
    """Commit one save; on disk when it returns. Raises: as `Turn.append`; InputTooLargeError past 16 MiB."""
    return await turn.append(made.custom(custom_type, data), durable=True)


async def show(turn: Turn, messages: Iterable[dict[str, Any]]) -> None:
    """Write v3 messages for people and other lanes, each once in a turn; those with calls are synced. Raises: as
    `Turn.append`.
    """
    seen = _shown.setdefault(turn, set())
    for message in messages:
        name = json.dumps(message, sort_keys=True)
        if name not in seen:
            await turn.append(MessageEntry(message=message))
            seen.add(name)


async def kept(hf: Holdfast, session: str, custom_type: str) -> list[Line]:
    """All saves of a kind, oldest first; none of a session that is not known."""
    transcript = await hf.store.find_transcript(session)
    return [] if transcript is None else _of_type(await hf.store.read_lines(transcript), custom_type)


async def newest(hf: Holdfast, session: str, custom_type: str) -> Line | None:
    """The last save of a kind; reads no more of the transcript than it must."""
    transcript = await hf.store.find_transcript(session)
    if transcript is None:
        return None
    found = _of_type(await hf.store.read_end(transcript), custom_type)
    found = found or _of_type(await hf.store.read_lines(transcript), custom_type)
    return found[-1] if found else None


def data_of(line: Line) -> dict[str, Any]:
    """What a save holds."""
    return line.value()["data"]


def _of_type(lines: Iterable[Line], custom_type: str) -> list[Line]:
    return [line for line in lines if line.type == "custom" and line.custom_type == custom_type]
