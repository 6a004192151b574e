"""Who asked what lately, and whether they are still there: what tells a repeated request from a second one.

Memory of one process, bounded; the store knows the rest. Nothing here decides what is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

CALLERS_MAX = 4096  # a few hundred bytes each; far more than requests that can be under way at once
GIVEN_S = 60.0
"""How long a retry may still ask for an answer that was handed over whole: it was lost on its way, or the same words
are said again. Official clients retry within 10 s."""


@dataclass(slots=True)
class Caller:
    """The callers of one input, all with one digest.

    present: how many of them are connected and waiting.
    given_mono: when an answer was last handed to one of them whole; None: never.
    """

    input_id: str
    digest: str
    present: int = 0
    given_mono: float | None = None

    def may_be_joined(self, *, is_retry: bool) -> bool:
        """Whether an equal request may share this unfinished input: it is a retry, or the caller was cut off."""
        return is_retry or (self.present == 0 and self.given_mono is None)

    def may_be_repeated(self, now_mono: float) -> bool:
        """Whether a retry may still ask for this finished answer."""
        return self.given_mono is None or now_mono - self.given_mono <= GIVEN_S


class Callers:
    """The latest `CALLERS_MAX` inputs that came through this gateway."""

    def __init__(self) -> None:
        self._by_input: OrderedDict[str, Caller] = OrderedDict()
        self._by_digest: dict[str, list[Caller]] = {}

    def of_input(self, input_id: str, digest: str) -> Caller:
        """The callers of an input, remembered from now on as the newest."""
        caller = self._by_input.get(input_id)
        if caller is None:
            caller = self._by_input[input_id] = Caller(input_id, digest)
            self._by_digest.setdefault(digest, []).append(caller)
            while len(self._by_input) > CALLERS_MAX:
                self._forget_oldest()
        self._by_input.move_to_end(input_id)
        return caller

    def of_digest(self, digest: str) -> Iterator[Caller]:
        """Callers of an equal request, newest first."""
        return iter(self._by_digest.get(digest, ())[::-1])

    def _forget_oldest(self) -> None:
        _, oldest = self._by_input.popitem(last=False)
        alike = self._by_digest[oldest.digest]
        alike.remove(oldest)
        if not alike:
            del self._by_digest[oldest.digest]
