"""Another user of the machine: what is planted in a state, and whom its files belong to whatever the umask."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

import holdfast
from holdfast import opening
from holdfast.errors import HoldfastError
from holdfast.testing.served import served

KEY = "agent:main:main"
PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a link out": lambda path, canary: path.symlink_to(canary),
    "a link to nothing outside": lambda path, canary: path.symlink_to(canary.with_name("nothing")),
    "a folder": lambda path, _: path.mkdir(),
    "a pipe": lambda path, _: os.mkfifo(path),
}
ANSWER_S = 30.0
"""A hang has no end: whoever stands in an open of a pipe waits for ever."""


async def _write(state: Path) -> None:
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=1) as turn:
        await turn.append(holdfast.user("hello"))
        await turn.append(holdfast.assistant("hi", model="demo/demo"))


@pytest.mark.parametrize("name", ["ledger.lock", "fence", "processes", "sessions", "reserve"])
@pytest.mark.parametrize("what", PLANTED)
async def test_what_is_planted_where_locks_lie_is_refused_at_once_and_nothing_is_written_outside(
    tmp_path: Path, what: str, name: str
) -> None:
    state, canary = tmp_path / "state", tmp_path / "canary"
    canary.write_text("mine")
    await _write(state)
    there = sorted(path for path in state.iterdir() if path.name == name or path.name.startswith(name))
    for path in there:
        path.rename(tmp_path / f"was-{path.name}")
    PLANTED[what](state / name, canary)
    async with asyncio.timeout(ANSWER_S):
        with suppress(HoldfastError):  # anything else is no refusal in our words
            await _write(state)
    assert canary.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("was-")) == ["canary", "state"]


@pytest_asyncio.fixture
async def careless() -> AsyncIterator[None]:
    """A process whose files anybody may read and write, unless it says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
async def test_every_file_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    out.mkdir(mode=0o700)
    async with served(state) as there, httpx.AsyncClient(base_url=there.url, headers=there.headers, timeout=60) as http:
        for text in ("hello", "/new", "again"):
            said = await http.post(f"/api/sessions/{KEY}/messages?wait=1", json={"text": text})
            assert said.status_code == 200
        assert (await http.post(f"/api/sessions/{KEY}/archive")).status_code == 200
        await asyncio.to_thread(opening.backup, state, out / "kept.tar.gz", with_token=True)
    await asyncio.to_thread(opening.restore, out / "kept.tar.gz", out / "restored")
    made = [state, *state.rglob("*"), *out.rglob("*")]
    assert len(made) > 10
    for path in made:
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0, (str(path), oct(mode))
