"""Telling other processes that a slot has been freed: they would see it within a second, this wakes them at once.

Whoever waits for a slot of a full lane hangs a bell: a pipe with a name, in the folder `bells`, for as long as it
waits. Whoever frees a slot rings all bells there, as a rule none: one look into an empty folder, 5 us. A ring is a hint
and may be missed. A bell that nobody hears any more (its process was killed) is taken down by whoever comes to ring it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("holdfast.store")
Wake = Callable[[], object]


class Bell:
    """One process's bell, and its hand for those of others. Used from one event loop."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._folder_text = str(folder)  # looked into whenever a slot is freed
        self._process = process
        self._waiting: list[Wake] = []
        self._fd = -1

    @contextmanager
    def heard_by(self, wake: Wake) -> Iterator[None]:
        """Within it each ring calls `wake`. What happened before has not been heard: look once more, then wait."""
        self._waiting.append(wake)
        if len(self._waiting) == 1:
            self._hang()
        try:
            yield
        finally:
            self._waiting.remove(wake)
            if not self._waiting:
                self._take_down()

    def ring(self) -> None:
        """Wake everybody who waits in another process. Never waits and raises nothing."""
        try:
            names = os.listdir(self._folder_text)
        except OSError:
            return  # nobody has ever waited here
        for name in names:
            if name != self._process and not name.startswith("."):
                try:
                    _ring(self._folder / name)
                except OSError as exc:
                    log.debug("bell %s was not rung: %s", name, exc)

    def close(self) -> None:
        self._waiting.clear()
        self._take_down()

    def _hang(self) -> None:
        """Under its name it is never seen without somebody to hear it. Without a bell there is the look each second."""
        draft = self._folder / f".{self._process}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            os.mkfifo(draft, 0o600)
            self._fd = os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            asyncio.get_running_loop().add_reader(self._fd, self._rung)
            os.rename(draft, self._folder / self._process)
        except (OSError, RuntimeError) as exc:  # a loop that watches no descriptors
            log.debug("no bell at %s: %s", self._folder, exc)
            draft.unlink(missing_ok=True)

    def _take_down(self) -> None:
        if self._fd < 0:
            return
        (self._folder / self._process).unlink(missing_ok=True)
        try:
            asyncio.get_running_loop().remove_reader(self._fd)
        except RuntimeError:
            log.debug("the loop that heard the bell has gone")
        os.close(self._fd)
        self._fd = -1

    def _rung(self) -> None:
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return
        for wake in list(self._waiting):
            wake()


def _ring(bell: Path) -> None:
    try:
        fd = os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # nobody has it open for reading
            bell.unlink(missing_ok=True)
        return
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, b"\n")
    except BlockingIOError:
        return  # full of rings that it has not come to hear yet
    finally:
        os.close(fd)
