"""Programs in the background: starting them, ending them, and the loop that brings their ends to their sessions.

The loop is that of sub-agents (`inbound/children.py`): first the end is accepted as an input under the program's key,
then the row is closed by compare-and-set. Any process may do both, so a program whose gateway has died is told of too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from holdfast.clock import Clock
from holdfast.errors import DrainingError, HoldfastError, InputError
from holdfast.ids import derived_id
from holdfast.inbound.orders import accept_once
from holdfast.kernel import Holdfast
from holdfast.tool import running as rules
from holdfast.tool.process import How, Order, Ran, Running
from holdfast.tool.running import SOURCE, BackgroundOrder, Ended, NotBegun, Outcome, Program
from holdfast.turn.tools import ToolCall

LOOK_S = 1.0
OPEN_MAX = 1000
log = logging.getLogger("holdfast.tools")


class Started(Protocol):
    """A program that has been started: `Running`, or what stands in for it."""

    def stop(self, how: How = "lost") -> None: ...

    async def run(self) -> Ran: ...


class Background:
    """This process's programs, and everybody's ends: `run` until `close`.

    Args:
        shown: makes text fit to be kept and shown: without secrets.
        start: starts a program.
    """

    def __init__(
        self,
        hf: Holdfast,
        shown: Callable[[str], str] = str,
        start: Callable[[Order, Clock], Awaitable[Started]] = Running.start,
    ) -> None:
        self._hf = hf
        self._shown = shown
        self._start = start
        self._programs: dict[str, tuple[Started, asyncio.Task[None]]] = {}
        self._stopped_by: dict[str, Outcome] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, call: ToolCall, order: Order) -> str:
        """Start a program for a call. Durably noted first: if this process dies in between, its loss is told.

        Raises:
            InputError: too many, or it could not be started; nothing runs.
        """
        if self._stopping.is_set():
            raise InputError("this gateway is going away; start it again later")
        title = self._shown(" ".join(order.argv))[: rules.TITLE_CHARS_MAX]
        route = None if call.route is None else f"{call.route.channel}:{call.route.target}"
        program = f"bg_{derived_id('background', call.input_id or call.turn, call.id, call.digest)[:16]}"
        begun = await self._hf.store.begin_background(
            BackgroundOrder(
                program, call.session, call.input_id, call.turn, call.epoch.nonce, call.rights, title, route, call.fresh
            )
        )
        if isinstance(begun, NotBegun):
            raise InputError(begun.text)
        try:
            running = await self._start(order, self._hf.clock)
        except BaseException:
            await self._hf.store.end_background(program, self._hf.process_id, Ended("lost"))
            raise
        task = asyncio.create_task(self._see_to_its_end(program, running), name=program)
        self._programs[program] = (running, task)
        return f"{program} runs in the background; its end comes here as a message by itself"

    async def _see_to_its_end(self, program: str, running: Started) -> None:
        try:
            ran = await running.run()
            outcome: Outcome = "timeout" if ran.how == "timeout" else self._stopped_by.get(program, "ended")
            await self._note_end(program, Ended(outcome, ran.code, self._shown(ran.output)))
        finally:
            self._programs.pop(program, None)
            self._stopped_by.pop(program, None)
            self._changed.set()

    async def _note_end(self, program: str, ended: Ended) -> None:
        try:
            await self._hf.store.end_background(program, self._hf.process_id, ended)
        except HoldfastError as exc:  # its loss is told once this process is gone
            log.error("the end of %s could not be noted: %s", program, exc)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Look once a second, and at once when something here has ended, until `stop`.

        Raises:
            StoreStoppedError: the ledger failed; this process must end.
        """
        while not self._stopping.is_set():
            self._changed.clear()
            try:
                await self.look()
            except DrainingError:
                return
            except HoldfastError as exc:
                log.error("cannot look at programs in the background: %s", exc)
                if self._hf.store.stopped:
                    raise
            await self._pause()

    async def _pause(self) -> None:
        waits = [
            asyncio.ensure_future(one)
            for one in (self._hf.clock.sleep(LOOK_S), self._changed.wait(), self._stopping.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def look(self) -> None:
        """One look at every program of whose end its session has still to hear."""
        for one in reversed(await self._hf.store.background(only_open=True, limit=OPEN_MAX)):
            try:
                await self._see_to(one)
            except DrainingError:
                raise
            except HoldfastError as exc:  # what goes wrong with one keeps nobody else's end back
                if self._hf.store.stopped:
                    raise
                log.error("program %s: %s", one.id, exc)

    async def _see_to(self, program: Program) -> None:
        if program.state == "running":
            if program.stop_by is not None:
                self._end(program.id)
            if program.owner == "dead":
                log.warning("program %s: lost with process %s", program.id, program.process)
                await self._hf.store.end_background(program.id, program.process, Ended("lost"))
                self._changed.set()
            return
        if program.stop_by is not None:
            told = await self._hf.store.input_by_key(SOURCE, "", program.id)
            await self._hf.store.close_background(program, "hush" if told is None else "announce", told)
            return
        input_id = await accept_once(self._hf, rules.end_event(program))
        if input_id is not None and await self._hf.store.close_background(program, "announce", input_id):
            log.info("program %s: %s, announced as %s", program.id, program.outcome, input_id)

    def _end(self, program: str) -> None:
        if program in self._programs:
            self._stopped_by[program] = "stopped"
            self._programs[program][0].stop()

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Start and announce nothing more; whichever process looks next goes on."""
        self._stopping.set()

    async def close(self) -> None:
        """End every program of this process, and note it; a second time does nothing."""
        self.stop()
        tasks = [task for _, task in self._programs.values()]
        for program in list(self._programs):
            self._stopped_by[program] = "lost"
            self._programs[program][0].stop()
        await asyncio.gather(*tasks, return_exceptions=True)
