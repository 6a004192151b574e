"""What is asked of every peer's conversation store, and the model that they all ask."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Protocol

SESSION = "conversation"
Said = tuple[str, str]
"""Role ("user" or "assistant") and text."""


class Model:
    """Answers "a …" to "q …" after a while; counts how often it was asked. `wait_ms`: from, to; None: at once."""

    def __init__(self, seed: int = 0, wait_ms: tuple[int, int] | None = None) -> None:
        self._random = random.Random(seed)
        self._wait_ms = wait_ms
        self.calls = 0

    async def __call__(self, question: str) -> str:
        self.calls += 1
        if self._wait_ms is not None:
            await asyncio.sleep(self._random.uniform(*self._wait_ms) / 1000)
        return "a" + question[1:]


class Store(Protocol):
    """One conversation in a folder."""

    async def turn(self, question: str, model: Model) -> None:
        """A whole turn. What it raises means that the turn is not acknowledged."""
        ...

    async def history(self) -> list[Said]:
        """What a reader that opens the conversation anew would see."""
        ...

    async def fill(self, said: list[Said]) -> None:
        """Put messages into an empty conversation, as fast as the peer can."""
        ...

    async def close(self) -> None: ...


class Opens(Protocol):
    """A module of this package."""

    async def open_store(self, folder: Path) -> Store: ...
