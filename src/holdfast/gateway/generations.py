"""How turns are run, as configured: made anew when that changes, while turns go on with what they began with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.lane.worker import RunInput
    from holdfast.model.clients import ModelClients
    from holdfast.store.views import InputView
    from holdfast.turn.commands import Commands
    from holdfast.turn.turn import Turn


class Generation:
    """One making. Its connections to models are closed when it is retired and its last turn has ended."""

    def __init__(self, models: ModelClients, commands: Commands, run_input: RunInput) -> None:
        self.models = models
        self.commands = commands
        self._run_input = run_input
        self._running = 0
        self._is_retired = False

    @property
    def is_busy(self) -> bool:
        return self._running > 0

    async def run(self, turn: Turn, view: InputView) -> None:
        """As the worker takes it."""
        self._running += 1
        try:
            await self._run_input(turn, view)
        finally:
            self._running -= 1
            if self._is_retired and not self._running:
                await self.models.aclose()

    async def retire(self) -> None:
        """Nothing more is begun with it."""
        self._is_retired = True
        if not self._running:
            await self.models.aclose()


class Generations:
    """The one that counts, and those whose turns are not at their end yet."""

    def __init__(self, first: Generation) -> None:
        self._all = [first]

    @property
    def now(self) -> Generation:
        return self._all[-1]

    async def exchange(self, fresh: Generation, take: Callable[[], None]) -> None:
        """Let `fresh` count from now on. `take` hands it to whoever runs turns; it must not fail."""
        before = self.now
        self._all.append(fresh)
        take()
        await before.retire()
        self._all = [one for one in self._all if one is fresh or one.is_busy]

    async def aclose(self) -> None:
        """Close every connection of all of them."""
        for one in self._all:
            await one.models.aclose()
