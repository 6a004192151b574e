"""Real processes that start at once: forks of one process that has imported everything and does nothing else.

A Python that starts anew spends half a second of CPU on imports, and a scenario that is killed at each of forty points
starts eighty. The nursery is one process per test process, without threads, open files or a loop; each order over its
socket makes a fork that is given pipes, folder and environment of its own and then runs to the end of the interpreter
like any other. Its parent is the nursery, which tells how it ended.

Not for what is about starting itself (the command line, imports, permissions at exec): that takes `subprocess`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

LINE_MAX = 2**24
"""Bytes of one line that a child says."""
OPENED_LATER = ("holdfast.store.embedded.store", "shutil")
"""What is imported when a state is opened: three quarters of what opening one for the first time costs."""


class Nursed:
    """A child of the nursery, to be used like an `asyncio.subprocess.Process`."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader(LINE_MAX)
        self.stderr = asyncio.StreamReader(LINE_MAX)
        self._ended = asyncio.Event()

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and we have not heard of it yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """How it ended: its exit code, or minus the signal."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """All it says until it ends."""
        said, errors = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return said, errors

    def is_told(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class _End(asyncio.Protocol):
    """Reads how the child ended; a nursery that died takes its children's ends with it, which is told as a kill."""

    def __init__(self, child: Nursed) -> None:
        self._child = child
        self._heard = b""

    def data_received(self, data: bytes) -> None:
        self._heard += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # as asyncio calls it
        self._child.is_told(int(self._heard or -signal.SIGKILL))


class Nursery:
    """The one of this test process."""

    def __init__(self) -> None:
        self._one_by_one = threading.Lock()
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.testing.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """For its own tests. Its children live on until their input ends; how they end is not told any more."""
        self._process.kill()
        self._process.wait()

    def _order(self, order: bytes, fds: list[int]) -> int:
        with self._one_by_one:
            socket.send_fds(self._ours, [order[:1]], fds)
            self._ours.sendall(order[1:] + b"\n")
            pid = self._ours.recv(100)
        if not pid:
            raise RuntimeError("the nursery has died; standard error says why")
        return int(pid)

    async def start(self, module: str, argument: str, *, takes_input: bool = False) -> Nursed:
        """Run `main(argument)` of a module in a process of its own."""
        order = json.dumps(
            {"module": module, "argument": argument, "cwd": os.getcwd(), "env": dict(os.environ), "path": sys.path}
        ).encode()
        loop, child = asyncio.get_running_loop(), Nursed()
        at_end, tells_end = os.pipe()
        out, says = os.pipe()
        err, warns = os.pipe()
        takes, in_ = os.pipe() if takes_input else (os.open(os.devnull, os.O_RDONLY), -1)
        theirs = [takes, says, warns, tells_end]
        try:
            child.pid = await loop.run_in_executor(None, self._order, order, theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        for fd, stream in ((out, child.stdout), (err, child.stderr)):
            await loop.connect_read_pipe(lambda to=stream: asyncio.StreamReaderProtocol(to), os.fdopen(fd, "rb", 0))
        await loop.connect_read_pipe(lambda: _End(child), os.fdopen(at_end, "rb", 0))
        if takes_input:
            pipe = os.fdopen(in_, "wb", 0)
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
            child.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        return child


_nursery: Nursery | None = None


async def start(module: str, argument: str, *, takes_input: bool = False) -> Nursed:
    """Run `main(argument)` of a module in a real process. See the top of the file."""
    global _nursery  # one per process, which outlives the loops of single tests
    if _nursery is None or not _nursery.is_alive:
        _nursery = Nursery()
    return await _nursery.start(module, argument, takes_input=takes_input)


# ── the nursery's own process ────────────────────────────────────────────────────────────────────────────────────────


def _tend(orders: socket.socket) -> dict[str, Any]:
    """Fork on each order and tell of each end, until nobody orders any more. Returns in the forks only: the order."""
    ends: dict[int, int] = {}
    woken, wakes = socket.socketpair()
    for one in (woken, wakes):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    selector = selectors.DefaultSelector()
    selector.register(orders, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            woken.recv(4096)
            _tell_ends(ends)
        if orders not in ready:
            continue
        raw, fds, _, _ = socket.recv_fds(orders, 1, 4)
        while raw and not raw.endswith(b"\n"):  # there is one order at a time, and JSON has no line ends of its own
            raw += orders.recv(2**16)
        if not raw:
            sys.exit(0)
        order = json.loads(raw)
        sys.path[:] = order["path"]
        for module in (order["module"], *OPENED_LATER):
            with suppress(ImportError):  # the fork tries it again, and its standard error says why
                importlib.import_module(module)
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for one in (selector, woken, wakes, orders):
                one.close()
            _become(order, [*fds, *ends.values()])
            return order
        ends[pid] = fds.pop()
        for fd in fds:
            os.close(fd)
        orders.send(str(pid).encode())


def _tell_ends(ends: dict[int, int]) -> None:
    for pid in list(ends):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            fd = ends.pop(pid)
            try:
                os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
            except BrokenPipeError:
                continue  # whoever asked for it has gone
            finally:
                os.close(fd)


def _become(order: dict[str, Any], fds: list[int]) -> None:
    """The fork: nothing of the nursery stays with it but what it has imported."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for at, fd in enumerate(fds[:3]):
        os.dup2(fd, at)
    for fd in fds:
        os.close(fd)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever is interrupted closes the socket
    order = _tend(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(importlib.import_module(order["module"]).main(order["argument"]))


if __name__ == "__main__":
    main()
