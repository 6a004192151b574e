"""Readers write nothing: no byte, size, inode, mode or time of any file changes, whoever else uses the state."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import InputError, ResourceError, StateVersionError, UnknownInputError
from tests.faults import outsider

KEY = "agent:main:main"
COMMANDS = (
    ["sessions"], ["inputs"], ["turns"], ["outbox"], ["why", KEY], ["transcript", KEY],
    ["transcript", KEY, "--raw"], ["transcript", KEY, "--json", "--all"],
)  # fmt: skip
Seen = dict[str, tuple[object, ...]]


def see(state: Path) -> Seen:
    """Everything of every file and folder that a reader could change. Access times are the mount's own business."""
    seen: Seen = {}
    for path in [state, *sorted(state.rglob("*"))]:
        at = os.lstat(path)
        data = path.read_bytes() if path.is_file() else b""
        seen[str(path)] = (at.st_ino, at.st_mode, at.st_nlink, at.st_size, at.st_mtime_ns, change_time(path, at), data)
    return seen


def change_time(path: Path, at: os.stat_result) -> int:
    """SQLite run as root sets the owner of the files beside the ledger, to what it is already."""
    return 0 if os.geteuid() == 0 and path.name.endswith(("-wal", "-shm")) else at.st_ctime_ns


@contextmanager
def untouched(state: Path) -> Iterator[None]:
    before = see(state)
    yield
    after = see(state)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"changed: {changed}"


async def talk(state: Path | str) -> str:
    async with holdfast.open(state) as hf:
        admission = await hf.accept(holdfast.InboundEvent(KEY, {"content": "hello"}, route=holdfast.Route("x", "y")))
        assert isinstance(admission, holdfast.Accepted)
        async with hf.turn(KEY, input_id=admission.input_id) as turn:
            await turn.append_input([{"role": "user", "content": "hello"}])
            await turn.append(holdfast.assistant("hi there", model="demo/demo"))
        return admission.input_id


def run(state: Path, arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "--state", str(state), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_commands(state: Path) -> None:
    with untouched(state):
        told = [run(state, arguments) for arguments in COMMANDS]
    assert all(told)
    assert "hi there" in told[5]


@pytest.mark.promise("P5")
async def test_commands_change_nothing_in_a_state_that_nobody_uses(state: Path) -> None:
    await talk(state)
    assert not (state / "ledger.sqlite3-wal").exists()
    all_commands(state)


@pytest.mark.promise("P5")
async def test_commands_change_nothing_beside_a_process_that_lives(state: Path) -> None:
    async with holdfast.open(state):
        await talk(state)
        assert (state / "ledger.sqlite3-wal").exists()
        await asyncio.sleep(0.3)  # whatever it had to write by itself is written
        await asyncio.to_thread(all_commands, state)


@pytest.mark.parametrize("lost", ["", "-shm"])
@pytest.mark.promise("P5")
def test_commands_change_nothing_after_a_process_was_killed(state: Path, lost: str) -> None:
    """What it had committed is in its log; the shared memory may have been removed since."""
    code = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom tests.faults.test_readers import killed\n"
        f"asyncio.run(killed(Path({str(state)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == -signal.SIGKILL
    if lost:
        (state / f"ledger.sqlite3{lost}").unlink()
    all_commands(state)


async def killed(state: Path) -> None:
    """The story of a process that dies in the middle."""
    async with holdfast.open(state):
        await talk(state)
        os.kill(os.getpid(), signal.SIGKILL)


async def test_a_torn_transcript_is_read_and_left_as_it_is(state: Path) -> None:
    await talk(state)
    path = next((state / "sessions").glob("*/*.jsonl"))
    outsider.append_bytes(str(path), '{"torn')
    all_commands(state)


async def test_a_state_that_cannot_be_written_can_be_read(state: Path, tmp_path: Path) -> None:
    input_id = await talk(state)
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    async with holdfast.open_reader(copy) as hf:
        assert (await hf.input(input_id)).answer == "hi there"
        assert len(await hf.session(KEY).entries()) == 2
        with pytest.raises(UnknownInputError):
            await hf.why("in_nobody")
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o700)


async def test_a_reader_cannot_write(state: Path) -> None:
    await talk(state)
    with untouched(state):
        async with holdfast.open_reader(state) as hf:
            with pytest.raises(AttributeError, match="opened for reading"):
                await hf.accept(holdfast.InboundEvent(KEY, {"content": "x"}))
            with pytest.raises(AttributeError, match="opened for reading"):
                await hf.session(KEY).append_metadata(holdfast.session_info("x"))
            with pytest.raises(AttributeError, match="opened for reading"):
                await hf.claim(KEY)


async def test_what_is_no_state_is_not_made_into_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no state at"):
        async with holdfast.open_reader(tmp_path / "nowhere"):
            pass
    with untouched(tmp_path), pytest.raises(ResourceError, match="no state directory"):
        async with holdfast.open_reader(tmp_path):
            pass
    (tmp_path / "holdfast.json").write_text('{"format": 99, "store": "s"}')
    with untouched(tmp_path), pytest.raises(StateVersionError):
        async with holdfast.open_reader(tmp_path):
            pass
