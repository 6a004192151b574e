"""A piece of running code that can be left in the middle of any call and gone back to: a greenlet, with types.

Coroutines can be left at an `await` only. What the simulation is about happens between two system calls of a plain
function, so each simulated thread is a fiber; all of them share one real thread, and only the scheduler switches.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from holdfast.errors import ConfigError


def _load() -> Any:
    try:
        import greenlet  # an extra, and without types
    except ImportError:
        raise ConfigError(["the simulation needs the package greenlet: pip install 'holdfast[simulation]'"]) from None
    return greenlet.greenlet


class Hub:
    """The code that switches: whoever makes it is what fibers come back to."""

    def __init__(self) -> None:
        self._kind = _load()
        self.itself = self._kind.getcurrent()

    def make(self, run: Callable[[], object], context: Context) -> Fiber:
        fiber = self._kind(run, self.itself)
        fiber.gr_context = context
        return Fiber(self.itself, fiber)


class Fiber:
    """Some code with a stack and a context of its own."""

    __slots__ = ("_hub", "_self")

    def __init__(self, hub: Any, fiber: Any) -> None:
        self._hub = hub
        self._self = fiber

    @property
    def ended(self) -> bool:
        return bool(self._self.dead)

    @property
    def begun(self) -> bool:
        return bool(self._self)

    def resume(self) -> None:
        """Called by the hub: go on with it until it leaves or ends. Raises what it raised, if it ended so."""
        self._self.switch()

    def leave(self, to: Fiber | None = None) -> None:
        """Called inside the fiber: to another one, or back to the hub; returns when resumed."""
        (self._hub if to is None else to._self).switch()

    def throw(self, error: BaseException) -> None:
        """Called by the hub: go on with it as if its last `leave` had raised."""
        self._self.throw(error)
