"""One program as a child process: argument list, clean environment, bounded output, ended whole.

The program runs under a guard (`guard.py`), which ends it and everything that it has started when the time is up, when
whoever waits is cancelled, or when this process dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.clock import Clock
from holdfast.errors import InputError

GUARD = Path(__file__).with_name("guard.py")
ENV_ALLOWED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of the gateway's own environment; none of them is a secret. `HOME` is the workspace."""
OUTPUT_BYTES_MAX = 64 * 1024
PROCESSES_MAX = 256
ARGUMENTS_MAX, ARGUMENTS_BYTES_MAX = 1000, 100_000
CHUNK_BYTES = 64 * 1024
LOOK_S = 1.0
END_S = 10.0
"""How long the guard may take to kill everything before it is killed itself."""

How = Literal["ended", "timeout", "lost"]
StillWanted = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Order:
    """What to run.

    Args:
        argv: the program and its arguments; no shell reads them.
        cwd: an absolute path.
        env: the whole environment.
        timeout_s: after which it is ended.
        output_bytes_max: of what it says, so much is kept: one half from the beginning, one from the end.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    timeout_s: float
    output_bytes_max: int = OUTPUT_BYTES_MAX
    processes_max: int = PROCESSES_MAX


@dataclass(frozen=True, slots=True)
class Ran:
    """How it ended.

    Args:
        how: by itself; by the time limit; since the turn that it ran for was no longer ours.
        code: its exit code; negative: by that signal.
        output: both its streams, in the order in which they came.
    """

    how: How
    code: int
    seconds: float
    output: str


@dataclass(slots=True)
class Kept:
    """The beginning and the end of a stream of any length."""

    bytes_max: int
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)
    total: int = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self.bytes_max // 2 - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > self.bytes_max:  # twice what is kept: cutting each time would copy it each time
            del self._tail[: len(self._tail) - self.bytes_max // 2]

    @property
    def text(self) -> str:
        tail = bytes(self._tail[-(self.bytes_max // 2) :]) if self._tail else b""
        left_out = self.total - len(self._head) - len(tail)
        note = f"\n… ({left_out} bytes left out) …\n" if left_out > 0 else ""
        return self._head.decode("utf-8", "replace") + note + tail.decode("utf-8", "replace")


def check_argv(argv: list[str]) -> tuple[str, ...]:
    """Raises InputError for what no program can be given."""
    if len(argv) > ARGUMENTS_MAX or sum(len(one.encode("utf-8", "replace")) for one in argv) > ARGUMENTS_BYTES_MAX:
        raise InputError(f"at most {ARGUMENTS_MAX} arguments of {ARGUMENTS_BYTES_MAX} bytes in all; use a file")
    if not argv or not argv[0].strip():
        raise InputError("argv: the first element names the program")
    for one in argv:
        if "\0" in one:
            raise InputError("argv: an argument cannot hold a zero")
        try:
            one.encode()
        except UnicodeEncodeError:
            raise InputError("argv: an argument holds half a character (a lone surrogate); leave it out") from None
    return tuple(argv)


def clean_env(env: Mapping[str, str], *, home: str, more: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of a program: what is allowed of ours, and nothing that is a secret by its name.

    Args:
        more: further names that the configuration hands on, whatever they are called.
    """
    allowed = (*ENV_ALLOWED, *more)
    return {"HOME": home, "PATH": os.defpath, **{name: env[name] for name in allowed if name in env}}


class Running:
    """A program that has been started. `run` waits for its end; cancelled, it is ended first."""

    def __init__(self, process: asyncio.subprocess.Process, order: Order, clock: Clock) -> None:
        self._process = process
        self._order = order
        self._clock = clock
        self._began = clock.mono()
        self._kept = Kept(order.output_bytes_max)
        self._stop = asyncio.Event()
        self._how: How = "ended"

    @classmethod
    async def start(cls, order: Order, clock: Clock) -> Running:
        """Raises InputError: there is no such folder, or the system will not start anything."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(GUARD), json.dumps(order.argv), str(order.processes_max),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                cwd=order.cwd, env=dict(order.env), start_new_session=True, limit=CHUNK_BYTES,
            )  # fmt: skip
        except OSError as exc:
            raise InputError(f"{order.argv[0]} could not be started in {order.cwd}: {exc.strerror or exc}") from exc
        return cls(process, order, clock)

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._kept.text

    def stop(self, how: How = "lost") -> None:
        """Ask for its end. `run` returns when nothing of it is left."""
        if not self._stop.is_set():
            self._how = how
            self._stop.set()
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def run(self, say: Callable[[str], None] | None = None, *, still_wanted: StillWanted | None = None) -> Ran:
        """Wait for the end.

        Args:
            say: hears what it says, up to what is kept of it; after that an empty text as a sign of life.
            still_wanted: asked every second; False ends it.
        """
        reading = asyncio.ensure_future(self._read(say or _deaf))
        timing = asyncio.ensure_future(self._watch(still_wanted))
        try:
            code = await self._process.wait()
            await asyncio.wait([reading], timeout=END_S)  # what it has left is dead, so nobody holds the pipe
            return Ran(self._how, code, self._clock.mono() - self._began, self.output)
        finally:
            timing.cancel()
            await self._end()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(reading, timing, return_exceptions=True)

    async def _read(self, say: Callable[[str], None]) -> None:
        stream = self._process.stdout
        assert stream is not None
        while data := await stream.read(CHUNK_BYTES):
            is_new = self._kept.total < self._order.output_bytes_max
            self._kept.add(data)
            say(data.decode("utf-8", "replace") if is_new else "")

    async def _watch(self, still_wanted: StillWanted | None) -> None:
        until = self._began + self._order.timeout_s
        while True:
            left = until - self._clock.mono()
            if left <= 0:
                self.stop("timeout")
                return
            await self._clock.sleep(min(left, LOOK_S))
            if still_wanted is not None and not await still_wanted():
                self.stop("lost")
                return

    async def _end(self) -> None:
        """Nothing of it is left when this returns, unless the guard itself stands still. Not to be cut short."""
        if self._process.returncode is not None:
            return
        self.stop()
        await asyncio.shield(self._reap())

    async def _reap(self) -> None:
        waiting = asyncio.ensure_future(self._process.wait())
        done, _ = await asyncio.wait([waiting], timeout=END_S)
        if not done:
            with suppress(ProcessLookupError):
                self._process.kill()
            await waiting


def _deaf(_: str) -> None:
    return
