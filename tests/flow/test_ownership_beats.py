"""When a beat counts as standing still: only after one process has watched it for the whole term, without a gap."""

from __future__ import annotations

from holdfast.clock import SystemClock
from holdfast.session.fence import Epoch
from holdfast.store.sql.watch import WATCH_GAP_MAX_S, BeatWatch

TERM_S = 90.0
EPOCH = Epoch(1, "a")


class HandClock(SystemClock):
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def mono(self) -> float:
        return self.at


class Watch:
    """One process that looks at one beat."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self._watch = BeatWatch(self.clock, TERM_S)

    def has_lapsed(self, beat: bytes, *, after_s: float = 1.0, epoch: Epoch = EPOCH) -> bool:
        self.clock.at += after_s
        return self._watch.has_lapsed("t", epoch, beat)

    def lapses_after(self, beat: bytes, *, epoch: Epoch = EPOCH) -> int:
        """Seconds until it counts, looking once a second."""
        return next(second for second in range(1, 1000) if self.has_lapsed(beat, epoch=epoch))


def test_a_beat_that_stands_still_for_the_whole_term_has_lapsed() -> None:
    assert Watch().lapses_after(b"1") == TERM_S + 1  # the first look is the beginning


def test_the_first_look_proves_nothing_however_late_it_is() -> None:
    watch = Watch()
    watch.clock.at += 10_000
    assert not watch.has_lapsed(b"1")


def test_any_beat_begins_the_watch_anew() -> None:
    watch = Watch()
    for number in range(5):
        for _ in range(80):
            assert not watch.has_lapsed(b"%d" % number)
    assert watch.lapses_after(b"4") == TERM_S - 79


def test_another_owner_is_watched_from_the_beginning() -> None:
    watch = Watch()
    for _ in range(80):
        assert not watch.has_lapsed(b"1")
    assert watch.lapses_after(b"1", epoch=Epoch(2, "b")) == TERM_S + 1


def test_a_watcher_that_was_away_begins_anew() -> None:
    """Stopped or suspended, it cannot know what happened meanwhile."""
    watch = Watch()
    for _ in range(80):
        assert not watch.has_lapsed(b"1")
    assert not watch.has_lapsed(b"1", after_s=WATCH_GAP_MAX_S + 1)
    assert watch.lapses_after(b"1") == TERM_S


def test_a_short_delay_of_the_watcher_costs_nothing() -> None:
    watch = Watch()
    for _ in range(81):
        assert not watch.has_lapsed(b"1")
    assert watch.has_lapsed(b"1", after_s=WATCH_GAP_MAX_S)
