"""A process that does with Holdfast what it is told, one JSON line per command and per answer. Driven by `remote.py`.

Commands run as tasks of one loop, so that one that waits does not hold up the next. It ends when its standard input
does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import holdfast
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker
from holdfast.model.client import ToolSpec
from holdfast.session import entries as made
from holdfast.session.entries import Entry
from holdfast.session.fence import Verdict
from holdfast.session.ownership import Busy
from holdfast.session.prompt_window import PromptWindow
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.store.views import InputView
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.tools import Tool, Toolbox, ToolCall
from holdfast.turn.turn import Turn, current_turn

LOADED = EmbeddedStore  # `holdfast.open` imports it when called: here that is once, instead of in each fork
Answer = dict[str, Any] | list[Any] | str | float | None


def say(message: dict[str, Any]) -> None:
    """One line, in one write, from whatever thread."""
    os.write(1, json.dumps(message).encode() + b"\n")


class Faults:
    """Does something at the n-th passing of a named point of the store."""

    def __init__(self) -> None:
        self._armed: dict[str, tuple[int, str]] = {}
        self._passed: dict[str, int] = {}

    def arm(self, point: str, nth: int, act: str) -> None:
        self._passed[point] = 0
        self._armed[point] = (nth, act)

    def __call__(self, point: str) -> None:
        nth, act = self._armed.get(point, (0, ""))
        if not nth:
            return
        self._passed[point] += 1
        if self._passed[point] != nth:
            return
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "stop":
            say({"event": f"at {point}"})
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this thread first, so that it goes no further
        elif act == "hang":
            say({"event": f"at {point}"})
            threading.Event().wait()
        else:
            raise OSError(getattr(__import__("errno"), act), os.strerror(getattr(__import__("errno"), act)))


def entry_of(kind: str, text: str) -> Entry:
    """The entries that tests ask for, by one word."""
    return {
        "user": lambda: made.user(text),
        "assistant": lambda: made.assistant(text, model="demo/demo"),
        "calls": lambda: made.assistant(
            [{"type": "toolCall", "id": text, "name": "work", "arguments": {}}],
            model="demo/demo",
            stop_reason="toolUse",
        ),
        "result": lambda: made.tool_result(text, "work", "done"),
        "mirror": lambda: made.mirror(text),
        "label": lambda: made.label(text, "a name"),
        "session_info": lambda: made.session_info(text),
        "model_change": lambda: made.model_change("demo/other"),
        "thinking": lambda: made.thinking_level_change("high"),
        "custom": lambda: made.custom("test", {"text": text}),
    }[kind]()


def verdict_of(verdict: Verdict | None) -> dict[str, Any] | None:
    return None if verdict is None else {"kind": verdict.kind, "detail": verdict.detail, "by": verdict.by}


class Stage:
    """The handle, turns and windows of this process, by the names that the test gave them."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._stack = AsyncExitStack()
        self._hf: Holdfast | None = None
        self._turns: dict[str, Turn] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._settled: dict[str, asyncio.Event] = {}
        self._windows: dict[str, PromptWindow] = {}
        self._workers: list[tuple[Worker, asyncio.Task[None]]] = []

    @property
    def hf(self) -> Holdfast:
        assert self._hf is not None, "open first"
        return self._hf

    async def open(self, state: str, widths: dict[str, int] | None = None, **options: Any) -> str:
        limits = None if widths is None else LaneLimits(widths=widths)
        self._hf = await self._stack.enter_async_context(
            holdfast.open(state, faults=self.faults, limits=limits, **options)
        )
        return self.hf.process_id

    async def close(self) -> None:
        await self._stack.aclose()
        self._hf = None

    async def arm(self, point: str, nth: int = 1, act: str = "kill") -> None:
        self.faults.arm(point, nth, act)

    async def accept(
        self, session: str, text: str, key: str | None = None, lane: str = "main", route: str = ""
    ) -> Answer:
        event = InboundEvent(
            session, {"content": text}, source="test", key=key, lane=lane, route=Route("test", route) if route else None
        )
        admission = await self.hf.accept(event)
        if isinstance(admission, Accepted | Duplicate):
            return {"kind": type(admission).__name__, "id": admission.input_id}
        return {"kind": type(admission).__name__}

    async def claim(self, turn: str, session: str, parent: str | None = None, **how: Any) -> Answer:
        """The task that claims lives as long as the turn: only such turns show life."""
        granted: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        owner = asyncio.create_task(self._own(turn, session, parent, how, granted))
        self._owners[turn] = owner
        await asyncio.wait({granted, owner}, return_when=asyncio.FIRST_COMPLETED)
        if not granted.done():
            self._owners.pop(turn)
            owner.result()
        return granted.result()

    async def _own(
        self, name: str, session: str, parent: str | None, how: dict[str, Any], granted: asyncio.Future[Answer]
    ) -> None:
        if parent is not None:
            current_turn.set(self._turns[parent].id)
        turn = await self.hf.claim(session, **how)
        if isinstance(turn, Busy):
            granted.set_result({"busy": turn.why})
            return
        self._turns[name] = turn
        self._settled[name] = asyncio.Event()
        granted.set_result({
            "id": turn.id, "epoch": turn.epoch.number, "attempt": turn.attempt, "path": turn.transcript.path,
            "findings": turn._owned.findings,
        })  # fmt: skip
        await self._settled[name].wait()

    async def append(self, turn: str, kind: str, text: str, durable: bool | None = None) -> str:
        return await self._turns[turn].append(entry_of(kind, text), durable=durable)

    async def append_input(self, turn: str) -> None:
        view = self._turns[turn].view
        assert view is not None
        await self._turns[turn].append_input([{"role": "user", "content": view.payload["content"]}])

    async def enter(self, turn: str) -> None:
        self._windows[turn] = await self._turns[turn].prompt_window().__aenter__()

    async def leave(self, turn: str, finished: str | None = None) -> Answer:
        window = self._windows.pop(turn)
        if finished is not None:
            window.finished(finished)
        await window.__aexit__(None, None, None)
        return verdict_of(window.verdict)

    async def check(self, turn: str) -> None:
        await self._turns[turn].check()

    async def settle(self, turn: str) -> str | None:
        try:
            return await self.hf.close_turn(self._turns.pop(turn), None)
        finally:
            self._settled.pop(turn).set()

    async def metadata(self, session: str, kind: str, text: str) -> str:
        return await self.hf.session(session).append_metadata(entry_of(kind, text))

    async def input(self, id: str) -> Answer:
        view = await self.hf.input(id)
        return {
            "state": view.state, "attempts": view.attempts, "answer": view.answer, "detail": view.detail,
            "error": view.error, "position": view.position,
        }  # fmt: skip

    async def work(self, script: list[Any], restart_safe: bool = False, tool_hangs: bool = True) -> None:
        """Run accepted inputs with a scripted model (text: an answer; a list: calls of `work` with these ids) and one
        tool, `work`, which reports its start and, if so asked, never returns. Reports the start of each turn too.
        """

        async def run_tool(call: ToolCall) -> str:
            say({"event": f"tool {call.arguments['as']}"})
            if tool_hangs:
                await asyncio.Event().wait()
            return "done"

        async def run_turn(turn: Turn, view: InputView) -> None:
            say({"event": f"turn {view.id}"})
            await runner.run(turn, view)

        tool = Tool(ToolSpec("work", "Works.", {"type": "object", "properties": {}}), run_tool, restart_safe)
        replies = [
            one if isinstance(one, str) else Reply(calls=[("work", {"as": name}) for name in one]) for one in script
        ]
        model = ScriptedModel(*replies, otherwise=lambda _: "out of script")
        runner = Runner(
            self.hf, client_for=lambda _: model, agent_for=lambda _: AgentSettings(), toolbox=Toolbox([tool])
        )
        worker = Worker(self.hf, run_turn, limits=LaneLimits())
        self._workers.append((worker, asyncio.create_task(worker.run())))

    async def wait_input(self, id: str, timeout_s: float = 20) -> Answer:
        await self.hf.wait_input(id, timeout_s)
        return await self.input(id)

    async def count(self, session: str, path: str, times: int) -> None:
        """Add one to the number in a file, `times` times, each under a turn and with a wait in between."""
        for _ in range(times):
            async with self.hf.turn(session, wait_s=25) as turn:
                number = int(Path(path).read_text())
                await turn.append(made.custom("count", number))
                Path(path).write_text(str(number + 1))

    async def block_loop(self, seconds: float) -> None:
        """The loop's thread sleeps; other threads run."""
        time.sleep(seconds)  # noqa: ASYNC251  # the point of it

    async def hold_gil(self, seconds: float) -> float:
        """One call into C that no other thread of this process can interrupt."""
        length, took = 18, 0.0
        while took < seconds:
            began = time.monotonic()
            re.match(r"(a+)+$", "a" * length + "b")
            took = time.monotonic() - began
            length += 1
        return took

    async def fork_and_append(self, turn: str) -> Answer:
        """A child process tries to use its parent's turn; what it met, and its pid: it lives on until it is killed."""
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._in_child(turn, writable)
        os.close(writable)
        with os.fdopen(readable) as pipe:
            met = pipe.readline().strip()
        return {"met": met, "pid": pid}

    def _in_child(self, turn: str, writable: int) -> None:
        coroutine = self._turns[turn].append(entry_of("user", "from a child"))
        try:
            coroutine.send(None)  # no loop of ours runs here; a refusal comes before the first wait
            met = "wrote or waited"
        except BaseException as exc:
            met = type(exc).__name__
        os.write(writable, met.encode() + b"\n")
        os.close(writable)
        os.close(0)
        os.close(1)
        signal.alarm(60)  # in case the test forgets it
        while True:
            signal.pause()

    async def limit(self, what: str, soft: int) -> None:
        """Set a limit of this process: RLIMIT_NOFILE, RLIMIT_FSIZE. -1: as much as is allowed."""
        number = getattr(resource, what)
        hard = resource.getrlimit(number)[1]
        resource.setrlimit(number, (hard if soft < 0 else soft, hard))

    async def open_files(self) -> int:
        """The highest descriptor in use."""
        return max(int(fd) for fd in os.listdir("/proc/self/fd"))


async def answer(stage: Stage, command: dict[str, Any]) -> None:
    act: Callable[..., Awaitable[Answer]] = getattr(stage, command["do"])
    try:
        result = await act(**command["with"])
    except Exception as exc:
        verdict = verdict_of(getattr(exc, "verdict", None))
        bases = [base.__name__ for base in type(exc).__mro__]
        say({"id": command["id"], "error": {"bases": bases, "message": str(exc), "verdict": verdict}})
    else:
        say({"id": command["id"], "result": result})


async def main() -> None:
    stage, tasks = Stage(), set[asyncio.Task[None]]()
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"event": "up"})
    while line := await reader.readline():
        task = asyncio.create_task(answer(stage, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)


def fork_on_demand(line: socket.socket) -> None:
    """The nursery of `remote.py`: fork for each request until the other side has gone, then take everybody along."""
    children: set[int] = set()
    while True:
        request, fds, _, _ = socket.recv_fds(line, 64, 2)
        if not request:
            break
        if request == b"fork":
            pid = os.fork()
            if pid == 0:
                line.close()
                for number, fd in enumerate(fds):
                    os.dup2(fd, number)
                    os.close(fd)
                asyncio.run(main())
            for fd in fds:
                os.close(fd)
            children.add(pid)
            line.send(b"%d" % pid)
        else:
            pid = int(request.split()[1])
            children.discard(pid)
            line.send(b"%d" % os.waitpid(pid, 0)[1])
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    fork_on_demand(socket.socket(fileno=int(sys.argv[1])))
