"""A worker that is stopped begins nothing, whatever it was about to begin."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import holdfast
from holdfast.inbound.event import Accepted
from holdfast.lane.policy import LaneLimits
from holdfast.lane.worker import Worker


class SlowQueue:
    """A store whose look at the queue is answered when the test says so."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def queue(self) -> Any:
        self.asked.set()
        await self.may_answer.wait()
        return await self._store.queue()


async def test_a_worker_that_is_stopped_while_it_looks_at_the_queue_begins_nothing(tmp_path: Path) -> None:
    """It had begun a turn behind the back of `stop`, in a process that was about to close its state."""
    begun: list[str] = []

    async def run(_turn: holdfast.Turn, view: Any) -> None:
        begun.append(view.id)

    async with holdfast.open(tmp_path / "state") as hf:
        admitted = await hf.accept(holdfast.InboundEvent("agent:main:main", {"content": "hello"}))
        assert isinstance(admitted, Accepted)
        hf.store = slow = SlowQueue(hf.store)  # pyright: ignore[reportAttributeAccessIssue]
        worker = Worker(hf, run, limits=LaneLimits())
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            await slow.asked.wait()
            await worker.stop(1)
            slow.may_answer.set()
            await running
        assert worker.running == 0
        assert not begun
        assert (await hf.input(admitted.input_id)).state == "queued"
