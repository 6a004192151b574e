"""Signs of life of running turns."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.clock import SystemClock
from holdfast.session.fence import Epoch, Fingerprint, Record
from holdfast.store.embedded.beats import Beater
from holdfast.store.embedded.record_file import RecordFile, boot_id
from holdfast.store.sql.watch import BeatWatch

OURS, THEIRS = "aa" * 16, "bb" * 16


def record_of(epoch: Epoch) -> Record:
    return Record(boot_id(), epoch, "turn", "process", Fingerprint(1, 2, 3, 4, 5), 3, b"", None)


def test_a_superseded_turn_beats_no_more_and_does_not_hide_that_the_new_owner_stands_still(tmp_path: Path) -> None:
    lost, kept = RecordFile(tmp_path / "lost"), RecordFile(tmp_path / "kept")
    lost.write(record_of(Epoch(1, OURS)))
    kept.write(record_of(Epoch(1, OURS)))
    rounds = threading.Semaphore(0)

    def still_runs() -> bool:
        rounds.release()
        return True

    beater = Beater(SystemClock(), 0.005)
    try:
        beater.start("lost", lost, OURS, 60, lambda: True)
        beater.start("kept", kept, OURS, 60, still_runs)
        lost.write(record_of(Epoch(2, THEIRS)))
        lost.beat(THEIRS, 0)
        theirs, ours = lost.read_beat(), kept.read_beat()
        for _ in range(3):
            assert rounds.acquire(timeout=10)
        assert lost.read_beat() == theirs
        assert kept.read_beat() != ours
    finally:
        beater.close()
        lost.close()
        kept.close()


class SetClock:
    """A clock whose wall is set while its monotonic time stands still."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.mono_s = 100.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + self.ahead

    def mono(self) -> float:
        return self.mono_s

    async def sleep(self, seconds: float) -> None:
        self.mono_s += seconds


def test_a_wall_clock_that_is_set_takes_nobodys_turn() -> None:
    clock = SetClock()
    watch = BeatWatch(clock, 5.0)
    epoch = Epoch(1, OURS)
    assert not watch.has_lapsed("t", epoch, b"beat")
    clock.ahead = timedelta(seconds=6)
    assert not watch.has_lapsed("t", epoch, b"beat")
    clock.mono_s += 6
    assert watch.has_lapsed("t", epoch, b"beat")
