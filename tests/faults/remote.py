"""A second process to test with: told what to do over a pipe, stopped, continued and killed with real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANSWER_S = 30.0
"""Nothing here takes a second; past this it hangs."""


class RemoteError(Exception):
    """What the command raised over there. `bases` are the names of its class and that class's ancestors."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['bases'][0]}: {error['message']}")
        self.bases: list[str] = error["bases"]
        self.message: str = error["message"]
        self.verdict: dict[str, Any] | None = error["verdict"]


class GoneError(Exception):
    """The process ended before it answered."""


class Remote:
    """One process. Talking to it raises `GoneError` if it has died and `RemoteError` if the command failed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._next = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def call(self, do: str, **how: Any) -> Any:
        """Run one command and give its result."""
        return await self.ask(do, **how)

    def ask(self, do: str, **how: Any) -> asyncio.Future[Any]:
        """The same without waiting: the answer is in the future."""
        self._next += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._next] = future
        assert self._process.stdin is not None
        line = json.dumps({"id": self._next, "do": do, "with": how}).encode() + b"\n"
        try:
            self._process.stdin.write(line)
        except (BrokenPipeError, ConnectionResetError):
            future.set_exception(GoneError())
        return asyncio.ensure_future(asyncio.wait_for(future, ANSWER_S))

    async def event(self) -> str:
        """What it says of its own accord, in order: "at <point>", "tool <call id>"."""
        return await asyncio.wait_for(self._events.get(), ANSWER_S)

    async def dies(self) -> int:
        """Wait for its end. Returns the exit code (minus the signal)."""
        return await asyncio.wait_for(self._process.wait(), ANSWER_S)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self.dies()

    async def stop(self) -> None:
        """SIGSTOP, and wait until the kernel says that it stands."""
        os.kill(self.pid, signal.SIGSTOP)
        while Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
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
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.remote_main",
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
        )  # fmt: skip
        remote = Remote(process)
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
