"""A changed holdfast.toml, taken by a gateway that runs: on SIGHUP, when the file changes, or when somebody asks.

What can be taken is taken at once and as a whole; a turn that runs keeps what it began with. What cannot is told as
waiting for a restart. A faulty file changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.clock import epoch_ms, iso
from holdfast.config.reload import Reloaded, effective, of_loaded
from holdfast.errors import ConfigError, HoldfastError
from holdfast.text import on_one_line
from holdfast.turn.events import TurnEvent

if TYPE_CHECKING:
    from holdfast.config import Config, Loaded
    from holdfast.kernel import Holdfast

LOOK_S = 2.0
"""How often the file is looked at. It is read once it has looked the same twice: editors write in several steps."""
RELOADED = "config.reloaded"
Look = tuple[int, int, int] | None
log = logging.getLogger("holdfast.config")


@dataclass(frozen=True, slots=True)
class Reread:
    """Where a configuration comes from. `file`: what is watched; None: nothing is."""

    read: Callable[[], Loaded]
    file: Path | None


async def _nothing(_: Config) -> None:
    """Until the gateway is joined."""


class Reloading:
    """One per gateway.

    Attributes:
        config: what holds now: of the file as it was read last what could be taken, the rest as at the start.
        last: what came of the last reading; None: there was none since the start.
        apply: takes a configuration as a whole, or raises and has changed nothing.
    """

    def __init__(self, hf: Holdfast, config: Config, reread: Reread | None) -> None:
        self._hf = hf
        self._booted = config
        self._reread = reread
        self._line = asyncio.Lock()
        self.config = config
        self.last: Reloaded | None = None
        self.apply: Callable[[Config], Awaitable[None]] = _nothing

    async def reload(self, by: str) -> Reloaded:
        """Read it again and take what can be taken. Never raises for what is wrong with it.

        Args:
            by: what asks, for people.
        """
        async with self._line:
            self.last = await self._reload(by)
        told = self.last
        level = logging.ERROR if told.faults else logging.INFO
        log.log(level, "configuration read again (%s): %s", on_one_line(by), on_one_line(told.in_words))
        at_ms = epoch_ms(self._hf.clock.now())
        self._hf.events.publish(TurnEvent(RELOADED, "", at_ms, data=asdict(told)))
        return told

    async def _reload(self, by: str) -> Reloaded:
        at = iso(self._hf.clock.now())
        if self._reread is None:
            return Reloaded(at, by, faults=("this gateway was given its configuration by a program: restart it there",))
        try:
            loaded = await asyncio.to_thread(self._reread.read)
            told = of_loaded(loaded, self._booted, self.config, at=at, by=by)
            if told.applied:
                found = effective(self._booted, loaded.config)
                await self.apply(found)
                self.config = found
            return told
        except ConfigError as wrong:
            return Reloaded(at, by, self._file, faults=tuple(wrong.faults), waiting=self._waiting)
        except HoldfastError as wrong:
            return Reloaded(at, by, self._file, faults=(str(wrong),), waiting=self._waiting)

    @property
    def _file(self) -> str | None:
        return str(self._reread.file) if self._reread is not None and self._reread.file is not None else None

    @property
    def _waiting(self) -> tuple[str, ...]:
        return self.last.waiting if self.last is not None else ()

    async def watch(self) -> None:
        """Until cancelled: read the file again when it has changed and stands still."""
        if self._reread is None or self._reread.file is None:
            return
        path = self._reread.file
        read = before = _look(path)
        while True:
            await self._hf.clock.sleep(LOOK_S)
            now = _look(path)
            if now == before and now not in (read, None):
                read = now
                await self.reload(f"{path.name} has changed")
            before = now


def _look(path: Path) -> Look:
    """What tells that a file is another one; None: it is not there just now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
