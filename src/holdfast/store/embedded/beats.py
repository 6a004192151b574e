"""Signs of life of running turns: written for ours, watched for others'.

A beat is no time but a number that moves. A live process's turn may be taken only by one that has watched it stand
still for the whole term on its own monotonic clock. A watcher that was itself away (stopped, suspended) starts its
watch anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.clock import Clock
from holdfast.errors import ResourceError
from holdfast.recovery.progress import Report
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.record_file import RecordFile

log = logging.getLogger("holdfast.beats")


@dataclass(slots=True)
class _Beating:
    record: RecordFile
    nonce: str
    until_mono: float
    still_runs: Callable[[], bool]
    report: Callable[[], Report] | None = None
    count: int = 0

    def is_superseded(self) -> bool:
        """A beat of ours would then hide that the new owner shows none."""
        record = self.record.peek()
        return record is not None and record.epoch.nonce not in ("", self.nonce)


class Beater:
    """One thread that renews this process's turns every `beat_s`. Only turns whose task still runs, none past its
    maximum.

    A thread and not a task, so that a blocked event loop loses nothing.
    """

    def __init__(self, clock: Clock, beat_s: float) -> None:
        self._clock = clock
        self._beat_s = beat_s
        self._turns: dict[str, _Beating] = {}
        self._machine = machine = here()
        self._mutex = machine.mutex()
        self._stop = machine.event()
        self._ended = machine.event()
        self._started = False

    def start(
        self, turn: str, record: RecordFile, nonce: str, max_s: float, still_runs: Callable[[], bool],
        report: Callable[[], Report] | None = None,
    ) -> None:  # fmt: skip
        """Beat once now, then until `stop` (or until the turn's task is done, or `max_s` is over).

        Args:
            report: what the turn was last heard of; handed over with each beat but the first.
        """
        record.beat(nonce, 0)
        with self._mutex:
            self._turns[turn] = _Beating(record, nonce, self._clock.mono() + max_s, still_runs, report)
            if not self._started:
                self._started = True
                self._machine.start(self._run, "holdfast-beat")

    def stop(self, turn: str) -> None:
        with self._mutex:
            self._turns.pop(turn, None)

    def close(self) -> None:
        self._stop.set()
        if self._started:
            self._ended.wait(5)

    def _run(self) -> None:
        try:
            self._renew_until_stopped()
        finally:
            self._ended.set()

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(self._beat_s):
            now = self._clock.mono()
            with self._mutex:
                for turn, one in list(self._turns.items()):
                    if now > one.until_mono or not one.still_runs():
                        log.warning("turn %s is no longer renewed: its task ended or its time is up", turn)
                        del self._turns[turn]
                        continue
                    one.count += 1
                    try:
                        one.record.follow_path()
                        if one.is_superseded():
                            log.warning("turn %s is no longer renewed: somebody else owns its session", turn)
                            del self._turns[turn]
                            continue
                        one.record.beat(one.nonce, one.count)
                        if one.report is not None:
                            one.record.note_progress(one.nonce, one.report())
                    except ResourceError as exc:
                        log.error("turn %s shows no life: %s", turn, exc)  # it lapses if this lasts for the term
