"""The two seams below everything: the machine a process stands on, and where its identities come from."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from holdfast import ids
from holdfast.store.embedded import durable
from holdfast.store.embedded.kernel_lock import KernelLock
from holdfast.store.embedded.machine import Machine, here


class Full(Machine):
    """A disk that takes three bytes at a time and counts its syncs."""

    def __init__(self) -> None:
        self.synced = 0

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return super().write(fd, data[:3])

    def sync_data(self, fd: int) -> None:
        self.synced += 1


class Seeded(ids.Chance):
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def now_ms(self) -> int:
        return 1


def test_a_machine_counts_where_it_was_entered_and_in_the_tasks_made_there() -> None:
    machine = Full()

    async def ask() -> Machine:
        return here()

    async def main() -> Machine:
        with machine.entered():
            task = asyncio.create_task(ask())
        assert here() is not machine
        return await task

    assert asyncio.run(main()) is machine
    assert type(here()) is Machine


def test_whole_writes_go_on_after_the_machines_short_ones(tmp_path: Path) -> None:
    machine = Full()
    with machine.entered(), (tmp_path / "file").open("wb") as file:
        durable.write_all(file.fileno(), b"more than three")
        durable.sync_data(file.fileno())
    assert (tmp_path / "file").read_bytes() == b"more than three"
    assert machine.synced == 1


def test_an_object_keeps_the_machine_it_was_made_on(tmp_path: Path) -> None:
    class Refusing(Machine):
        def try_lock(self, fd: int) -> bool:
            return False

    with (tmp_path / "file").open("wb") as file:
        with Refusing().entered():
            lock = KernelLock(file.fileno())
        assert not lock.try_acquire()


@pytest.mark.parametrize("seed", [1, 2])
def test_identities_follow_from_the_chance_they_are_drawn_from(seed: int) -> None:
    with ids.drawn_from(Seeded(seed)):
        first = [ids.new_id("in"), ids.nonce()]
    with ids.drawn_from(Seeded(seed)):
        assert [ids.new_id("in"), ids.nonce()] == first
    assert ids.nonce() != first[1]
