"""The prompt window: the span in which the model is asked and the write lock is not held.

Entering costs nothing: the owner's claim already remembers the record as of its last look. Leaving looks again, under
the lock, and either gives a verdict to go on with or raises the takeover, after having put a finished answer into
safety.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from holdfast.errors import OwnershipLostError
from holdfast.session.fence import Verdict, strongest


class WindowOwner(Protocol):
    """What a window needs of its turn. It tells its open windows (`meet`) what other looks at the fence have found."""

    windows: set[PromptWindow]

    async def inspect(self) -> Verdict: ...

    async def keep_finished(self, answer: Any) -> None: ...

    def note(self, kind: str, **data: Any) -> None: ...

    def publish(self, kind: str, **data: Any) -> None: ...


class PromptWindow:
    """`async with turn.prompt_window() as window:`; afterwards `window.verdict` says what was found.

    Raises (on leaving):
        SessionTakeoverError: somebody else owns or has written the session. An answer given to `finished` is kept.

    Cancelled: nothing was written; the turn is as it was on entering.
    """

    def __init__(self, owner: WindowOwner) -> None:
        self._owner = owner
        self._finished: Any = None
        self._met = Verdict("unchanged")
        self.verdict: Verdict | None = None

    def finished(self, answer: Any) -> None:
        """The model has answered: text, a v3 message or an entry. It is salvaged if the window turns out lost."""
        self._finished = answer

    def meet(self, verdict: Verdict) -> None:
        """An append or a check inside the window has looked already: what it found has happened in this window."""
        self._met = strongest(self._met, verdict)

    async def __aenter__(self) -> PromptWindow:
        self._owner.windows.add(self)
        self._owner.publish("turn.window_opened")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner.windows.discard(self)
        if exc is not None:  # nothing is appended after a failed call; the next append looks anyway
            self._tell("failed", type(exc).__name__)
            return
        try:
            self.verdict = verdict = strongest(await self._owner.inspect(), self._met)
        except OwnershipLostError as lost:
            self.verdict = found = getattr(lost, "verdict", None)
            self._tell(found.kind if found is not None else "lost", str(lost))
            if self._finished is not None:
                await self._owner.keep_finished(self._finished)
            raise
        self._tell(verdict.kind, verdict.detail)
        if verdict.kind == "advanced":
            self._owner.note("turn.window", verdict=verdict.kind, detail=verdict.detail)

    def _tell(self, verdict: str, detail: str | None) -> None:
        """For whoever watches. Where not even looking was possible, the end of the turn closes the window."""
        self._owner.publish("turn.window_closed", verdict=verdict, detail=detail)
