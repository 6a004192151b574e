"""Kill a process at each of its disk calls in turn, open the state again, and look whether every promise held.

For each n: one process prepares a state, a second one does the work and dies at its n-th disk call (before it, or with
half of its bytes written), a third one opens what is left, finishes what was accepted and checks. All are forks of this
one, which has imported everything and opened nothing. A disk call is a call of `os` that changes a file or waits for
the disk, or a commit of the ledger (whose own writes happen inside SQLite).

Prints one JSON object per failure and one at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.turn.turn import Turn
from tests.faults import checks, outsider

KEY = "agent:main:main"
LOADED = EmbeddedStore  # `holdfast.open` imports it when called: here that is once, instead of in each child
WRITES = ("write", "pwrite")
OTHERS = ("fsync", "fdatasync", "ftruncate", "truncate", "rename", "link", "unlink", "mkdir", "utime")


class DiskCalls:
    """Counts disk calls once `begin` was called, and kills this process at the chosen one.

    Args:
        at: number of the call, the first is 1; 0: never.
        half: write half of the bytes first; only calls that write are counted then.
    """

    def __init__(self, at: int, half: bool) -> None:
        self.count = 0
        self._at = at
        self._half = half
        self._counting = False
        self._mutex = threading.Lock()

    def begin(self) -> None:
        for name in WRITES:
            setattr(os, name, self._wrapped_write(getattr(os, name)))
        for name in OTHERS:
            setattr(os, name, self._wrapped(getattr(os, name)))
        os.open = self._wrapped_open(os.open)
        self._counting = True

    def at_point(self, point: str) -> None:
        """As a fault of the store: the ledger's commits."""
        if self._counting and point in ("ledger.before_commit", "ledger.after_commit"):
            self._reach(None)

    def _reach(self, half_written: Callable[[], object] | None) -> None:
        if self._half and half_written is None:
            return
        with self._mutex:
            self.count += 1
            if self.count != self._at:
                return
            if self._half and half_written is not None:
                half_written()
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **how: Any) -> Any:
            self._reach(None)
            return real(*args, **how)

        return call

    def _wrapped_write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(fd: int, data: Any, *where: int) -> int:
            self._reach(lambda: real(fd, bytes(data)[: len(data) // 2], *where))
            return real(fd, data, *where)

        return call

    def _wrapped_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *mode: Any, **how: Any) -> int:
            if flags & os.O_CREAT:
                self._reach(None)
            return real(path, flags, *mode, **how)

        return call


@dataclass
class Work:
    """What a worker does, and what it was told: (kind, input id, text) as each promise was made to it."""

    hf: Holdfast
    tell: Callable[[str, str, str], None]

    async def accept(self, text: str) -> str:
        event = InboundEvent(KEY, {"content": text}, source="test", key=text, route=Route("test", "alice"))
        admission = await self.hf.accept(event)
        assert isinstance(admission, Accepted)
        self.tell("accepted", admission.input_id, text)
        return admission.input_id

    async def claim(self, input_id: str) -> Turn:
        turn = await self.hf.claim(KEY, wait_s=5, input_id=input_id)
        assert isinstance(turn, Turn)
        view = turn.view
        assert view is not None
        await turn.append_input([{"role": "user", "content": view.payload["content"]}])
        return turn

    async def answer(self, turn: Turn, text: str) -> None:
        async with turn.prompt_window() as window:
            window.finished(text)
        await turn.append(holdfast.assistant(text, model="demo/demo"))
        assert await self.hf.close_turn(turn, None) == "answered"
        assert turn.input_id is not None
        self.tell("answered", turn.input_id, text)

    async def whole(self, text: str) -> None:
        await self.answer(await self.claim(await self.accept(text)), f"answer to {text}")


# ── workloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def nothing(work: Work) -> None:
    """The state is made by opening it."""


async def one_turn(work: Work) -> None:
    await work.whole("first")


async def turn_with_a_tool(work: Work) -> None:
    turn = await work.claim(await work.accept("second"))
    call = {"type": "toolCall", "id": "c", "name": "work", "arguments": {}}
    await turn.append(holdfast.assistant([call], model="demo/demo", stop_reason="toolUse"))
    await turn.check()
    await turn.append(holdfast.tool_result("c", "work", "done"))
    await work.answer(turn, "answer to second")


async def metadata(work: Work) -> None:
    session = work.hf.session(KEY)
    await session.append_metadata(holdfast.session_info("title"))
    await session.append_metadata(holdfast.mirror("delivered"), durable=True)


async def unfinished(work: Work) -> None:
    """An answered turn, and one whose process dies with a line written and not recorded."""
    await work.whole("first")
    turn = await work.claim(await work.accept("second"))
    await turn.append(holdfast.custom("note", 1))


async def finished_not_settled(work: Work) -> None:
    await work.whole("first")
    turn = await work.claim(await work.accept("second"))
    await turn.append(holdfast.assistant("answer to second", model="demo/demo"))


async def left_by_an_outsider(work: Work) -> None:
    """Lines nobody recorded, and a torn one at the end."""
    await work.whole("first")
    path = await work.hf.session(KEY).path()
    assert path is not None
    outsider.append(path, "user")
    outsider.append_bytes(path, checks.TORN_BY_OTHERS.decode())


async def take_over(work: Work) -> None:
    """Whatever was left open is closed, and another turn is run."""
    async with work.hf.turn(KEY, wait_s=5) as turn:
        await turn.append(holdfast.user("from the library"))


async def recover(work: Work) -> None:
    """What a worker does before it looks at the queue."""
    assert await work.hf.store.recover_dead() == 1


async def lost_turn(work: Work) -> None:
    """The file is changed under the turn; the answer is kept beside it."""
    turn = await work.claim(await work.accept("second"))
    with suppress(holdfast.SessionTakeoverError):
        async with turn.prompt_window() as window:
            outsider.append(turn.transcript.path, "user")
            window.finished("answer to second")
    await work.hf.close_turn(turn, holdfast.SessionTakeoverError(holdfast.Verdict("foreign_turn"), ""))


Act = Callable[[Work], Awaitable[None]]
WORKLOADS: dict[str, tuple[Act | None, Act]] = {
    "opening": (None, nothing),
    "first turn": (None, one_turn),
    "turn with a tool": (one_turn, turn_with_a_tool),
    "metadata": (one_turn, metadata),
    "takeover": (unfinished, take_over),
    "takeover of a final line": (finished_not_settled, take_over),
    "recovery": (unfinished, recover),
    "recovery of a final line": (finished_not_settled, recover),
    "after an outsider": (left_by_an_outsider, take_over),
    "lost turn": (one_turn, lost_turn),
}


# ── the three processes ──────────────────────────────────────────────────────────────────────────────────────────────


def forked(act: Callable[[], object]) -> tuple[int, list[list[str]]]:
    """Run `act` in a child with a pipe to tell what it was promised. Returns its exit code and what it told."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.close(readable)
            os.dup2(writable, 3)
            act()
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        told = [json.loads(line) for line in pipe if line.endswith("\n")]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


real_write = os.write


def tell(kind: str, input_id: str, text: str) -> None:
    real_write(3, json.dumps([kind, input_id, text]).encode() + b"\n")


def prepare(state: Path, act: Act) -> None:
    """A state as a process left it that died at the end of its work."""

    async def run() -> None:
        async with holdfast.open(state) as hf:
            await act(Work(hf, tell))
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())


def work(state: Path, act: Act, calls: DiskCalls) -> None:
    async def run() -> None:
        calls.begin()
        async with holdfast.open(state, faults=calls.at_point) as hf:
            await act(Work(hf, tell))

    asyncio.run(run())
    tell("calls", "", str(calls.count))


def finish_and_check(state: Path, told: list[list[str]]) -> None:
    """Open, answer what is open, and check; then twice more, after which not a byte may have changed."""
    asyncio.run(_finish(state))
    accepted = {input_id: text for kind, input_id, text in told if kind == "accepted"}
    answered = {input_id: text for kind, input_id, text in told if kind == "answered"}
    checks.check(state, accepted=accepted)
    stored = {row["id"]: row for row in checks.rows(state, "select * from inputs")}
    assert all(row["state"] in ("answered", "superseded") for row in stored.values()), stored
    for input_id, text in answered.items():
        assert checks.text_of(json.loads(stored[input_id]["result"])) == text, "an acknowledged answer has changed"
    sent = checks.rows(state, "select input from outbox")
    assert sorted(row["input"] for row in sent) == sorted(stored), "an answer without its delivery"
    before = {path: path.read_bytes() for path in checks.transcripts(state)}
    for _ in range(2):
        asyncio.run(_recover(state))
    assert {path: path.read_bytes() for path in checks.transcripts(state)} == before, "recovery is not idempotent"


async def _finish(state: Path) -> None:
    async with holdfast.open(state) as hf:
        await hf.store.recover_dead()
        jobs = Work(hf, lambda *_: None)
        for view in reversed(await hf.inputs(state="queued")):
            turn = await jobs.claim(view.id)
            for call in await turn.pending_calls():
                await turn.append_interrupted(call.call)
            await jobs.answer(turn, f"answer to {view.payload['content']}")
        async with hf.turn(KEY, wait_s=5) as turn:
            await turn.append(holdfast.user("afterwards"))


async def _recover(state: Path) -> None:
    async with holdfast.open(state) as hf:
        await hf.store.recover_dead()


def try_one(root: Path, name: str, at: int, half: bool) -> tuple[str | None, int]:
    """One death. Returns what went wrong, and how many calls there were if it was not reached."""
    state = root / f"{name.replace(' ', '-')}-{at}-{int(half)}"
    before, act = WORKLOADS[name]
    told: list[list[str]] = []
    try:
        if before is not None:
            code, told = forked(lambda: prepare(state, before))
            if code != -signal.SIGKILL:
                return f"preparing ended with {code}", 0
        code, more = forked(lambda: work(state, act, DiskCalls(at, half)))
        if code not in (0, -signal.SIGKILL):
            return f"working ended with {code}", 0
        code_of_check, _ = forked(lambda: finish_and_check(state, [*told, *more]))
        if code_of_check:
            return f"the state is not as it should be (working ended with {code})", 0
        return None, int(more[-1][2]) if code == 0 else 0
    finally:
        shutil.rmtree(state, ignore_errors=True)


def main(name: str, root: Path) -> None:
    deaths = failures = 0
    for half in (False, True):
        at = calls = 0
        while not calls and failures < 5:
            at += 1
            wrong, calls = try_one(root, name, at, half)
            deaths += wrong is not None or not calls
            if wrong is not None:
                failures += 1
                print(json.dumps({"workload": name, "call": at, "half": half, "wrong": wrong}), flush=True)
    print(json.dumps({"workload": name, "deaths": deaths}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
