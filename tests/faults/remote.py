"""A second process to test with: told what to do over a pipe, stopped, continued and killed with real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANSWER_S = 90.0
"""Nothing here takes a second on a quiet machine; past this it hangs on any."""


class RemoteError(Exception):
    """What the command raised over there. `bases` are the names of its class and that class's ancestors."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['bases'][0]}: {error['message']}")
        self.bases: list[str] = error["bases"]
        self.message: str = error["message"]
        self.verdict: dict[str, Any] | None = error["verdict"]


class GoneError(Exception):
    """The process ended before it answered."""


class Nursery:
    """A process that has imported everything and forks on demand: 5 ms for a new process instead of 300.

    It is single-threaded and opens nothing, so that its children begin as clean as started ones.
    """

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-X", "openclaw", "-m", "tests.faults.remote_main", str(theirs.fileno())],
            cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()

    def fork(self, stdin: int, stdout: int) -> int:
        """A new process with these descriptors as its standard input and output (they are closed here). Its pid."""
        socket.send_fds(self._line, [b"fork"], [stdin, stdout])
        os.close(stdin)
        os.close(stdout)
        return int(self._line.recv(64))

    def wait(self, pid: int) -> int:
        """The exit code of a process that is about to end (minus the signal)."""
        self._line.send(b"wait %d" % pid)
        return os.waitstatus_to_exitcode(int(self._line.recv(64)))


@cache
def nursery() -> Nursery:
    """One for all tests of this process; it ends when we do."""
    return Nursery()


class Remote:
    """One process. Talking to it raises `GoneError` if it has died and `RemoteError` if the command failed."""

    def __init__(self, pid: int, stdin: asyncio.WriteTransport, stdout: asyncio.StreamReader) -> None:
        self.pid = pid
        self._stdin = stdin
        self._stdout = stdout
        self._code: int | None = None
        self._next = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._stops_at: set[str] = set()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls) -> Remote:
        loop = asyncio.get_running_loop()
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        pid = nursery().fork(their_in, their_out)
        reader = asyncio.StreamReader(limit=1 << 24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(our_in, "rb"))
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(our_out, "wb"))
        return cls(pid, transport, reader)

    async def call(self, do: str, **how: Any) -> Any:
        """Run one command and give its result."""
        return await self.ask(do, **how)

    def ask(self, do: str, **how: Any) -> asyncio.Future[Any]:
        """The same without waiting: the answer is in the future."""
        self._next += 1
        if do == "arm" and how.get("act") == "stop":
            self._stops_at.add(f"at {how['point']}")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._next] = future
        if self._listener.done():
            future.set_exception(GoneError())
        else:
            self._stdin.write(json.dumps({"id": self._next, "do": do, "with": how}).encode() + b"\n")
        return asyncio.ensure_future(asyncio.wait_for(future, ANSWER_S))

    async def event(self) -> str:
        """What it says of its own accord, in order: "at <point>", "turn <input id>", "tool <name>"."""
        event = await asyncio.wait_for(self._events.get(), ANSWER_S)
        if event in self._stops_at:
            await self._stands()  # it says so first, and stops then
        return event

    def no_more_events(self) -> bool:
        """Whether it has said nothing since the last event that was fetched."""
        return self._events.empty()

    async def dies(self) -> int:
        """Wait for its end. Returns the exit code (minus the signal)."""
        await asyncio.wait_for(asyncio.shield(self._listener), ANSWER_S)
        if self._code is None:
            self._code = nursery().wait(self.pid)
            self._stdin.close()
        return self._code

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            await self.dies()

    async def stop(self) -> None:
        """SIGSTOP, and wait until the kernel says that it stands."""
        os.kill(self.pid, signal.SIGSTOP)
        await self._stands()

    async def _stands(self) -> None:
        while Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def _listen(self) -> None:
        while line := await self._stdout.readline():
            message = json.loads(line)
            if "event" in message:
                self._events.put_nowait(message["event"])
                continue
            future = self._answers.pop(message["id"])
            if future.done():
                continue
            if "error" in message:
                future.set_exception(RemoteError(message["error"]))
            else:
                future.set_result(message["result"])
        for future in self._answers.values():
            if not future.done():
                future.set_exception(GoneError())
        self._answers.clear()


class Troupe:
    """Starts processes and ends them all, stopped ones too."""

    def __init__(self) -> None:
        self._all: list[Remote] = []

    async def start(self, state: Path | None = None, **options: Any) -> Remote:
        """A new process; with `state` it has opened it."""
        remote = await Remote.start()
        self._all.append(remote)
        assert await remote.event() == "up"
        if state is not None:
            await remote.call("open", state=str(state), **options)
        return remote

    async def end(self) -> None:
        for remote in self._all:
            await remote.kill()


@asynccontextmanager
async def troupe() -> AsyncIterator[Troupe]:
    """Processes that last as long as the test."""
    processes = Troupe()
    try:
        yield processes
    finally:
        await processes.end()
