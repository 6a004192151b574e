"""What the rebuilt disk allows after a power loss, and what it does not."""

from __future__ import annotations

import random

from holdfast.testing.disk.power import Disk, after_loss
from holdfast.testing.disk.shim import Call

WHO = (1, 1)
FOLDER = (1, 2)


def calls(*which: tuple[str, tuple[int, int], int, int, bytes, bytes]) -> Disk:
    disk = Disk(names={"/s": None}, durable={"/s": None})
    for kind, who, a, b, x, y in which:
        disk.do(Call(kind, who, a, b, x, y))
    return disk


def outcomes(disk: Disk) -> set[bytes | None]:
    """What `/s/f` may hold; None: it is not there."""
    chance = random.Random(1)
    return {after_loss(disk, chance).get("/s/f") for _ in range(400)}


NEW = ("o", WHO, 1, 0, b"/s/f", b"")
WRITE = ("w", WHO, 0, 0, b"", b"abc")
SYNC = ("s", WHO, 0, 0, b"", b"")
SYNC_FOLDER = (("o", FOLDER, 0, 0, b"/s", b""), ("s", FOLDER, 0, 0, b"", b""))


def test_what_was_synced_with_its_name_is_there() -> None:
    assert outcomes(calls(NEW, WRITE, SYNC, *SYNC_FOLDER)) == {b"abc"}


def test_a_name_that_was_not_synced_may_be_missing() -> None:
    assert outcomes(calls(NEW, WRITE, SYNC)) == {None, b"abc"}


def test_bytes_that_were_not_synced_may_be_there_or_not_or_as_zeros() -> None:
    assert outcomes(calls(NEW, WRITE, *SYNC_FOLDER)) >= {b"", b"abc", b"\0\0\0"}


def test_what_came_after_the_sync_is_not_certain() -> None:
    more = ("w", WHO, 3, 0, b"", b"def")
    assert outcomes(calls(NEW, WRITE, SYNC, *SYNC_FOLDER, more)) >= {b"abc", b"abcdef"}


def test_a_later_write_may_arrive_without_an_earlier_one() -> None:
    more = ("w", WHO, 3, 0, b"", b"def")
    assert b"\0\0\0def" in outcomes(calls(NEW, WRITE, *SYNC_FOLDER, more))


def test_after_a_failed_sync_bytes_are_there_only_if_they_are_written_again() -> None:
    failed = ("f", WHO, 0, 0, b"", b"")
    assert outcomes(calls(NEW, *SYNC_FOLDER, WRITE, failed, SYNC)) == {b""}
    assert outcomes(calls(NEW, *SYNC_FOLDER, WRITE, failed, WRITE, SYNC)) == {b"abc"}


def test_a_rename_takes_its_place_before_or_after_the_loss_but_never_half() -> None:
    other = ("o", (1, 3), 1, 0, b"/s/g", b"")
    moved = ("r", (0, 0), 0, 0, b"/s/g", b"/s/f")
    written = ("w", (1, 3), 0, 0, b"", b"new")
    synced = ("s", (1, 3), 0, 0, b"", b"")
    disk = calls(NEW, WRITE, SYNC, *SYNC_FOLDER, other, written, synced, moved)
    assert outcomes(disk) <= {b"abc", b"new", None}
    assert outcomes(disk) >= {b"abc", b"new"}
