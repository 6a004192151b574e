"""Watching others' turns: a beat is no time but a number that moves. See `store/embedded/beats.py` for the rule."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from holdfast.clock import Clock
from holdfast.session.fence import Epoch

WATCH_GAP_MAX_S = 10.0
"""Two looks further apart than this prove nothing about what happened between them; looks are a second apart."""


@dataclass(slots=True)
class _Watched:
    epoch: Epoch
    beat: bytes
    since_mono: float
    looked_mono: float


class BeatWatch:
    """What this process has seen of other processes' turns; one per process, shared by all its waiters."""

    def __init__(self, clock: Clock, term_s: float) -> None:
        self._clock = clock
        self._term_s = term_s
        self._seen: dict[str, _Watched] = {}
        self._mutex = threading.Lock()

    def look(self, transcript: str, epoch: Epoch, beat: bytes) -> float:
        """Note what the beat is now; returns for how many seconds it has been watched standing still."""
        now = self._clock.mono()
        with self._mutex:
            seen = self._seen.get(transcript)
            fresh = seen is None or seen.epoch != epoch or seen.beat != beat or now - seen.looked_mono > WATCH_GAP_MAX_S
            if fresh or seen is None:
                self._seen[transcript] = _Watched(epoch, beat, now, now)
                return 0.0
            seen.looked_mono = now
            return now - seen.since_mono

    def has_lapsed(self, transcript: str, epoch: Epoch, beat: bytes) -> bool:
        """Whether the term has passed without a beat, as far as this process has watched."""
        return self.look(transcript, epoch, beat) >= self._term_s

    def forget(self, transcript: str) -> None:
        with self._mutex:
            self._seen.pop(transcript, None)
