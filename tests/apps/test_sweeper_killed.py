"""The sweeper as a program of its own, killed without warning in the middle of its work."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.platforms.github_repository import REPO, SECRET, TOKEN, Repository, repository_stand_in

PATIENCE_S = 120.0
NUMBERS = (12, 13, 14)
CONFIG = f"""
repositories = ["{REPO}"]
may = ["comment", "react", "labels", "status"]
[limits]
reviews = 1000
reviews_per_item = 1000
commands_per_person = 1000
writes_per_minute = 100000
"""


@asynccontextmanager
async def program(path: Path, github: Repository, *, kill: bool) -> AsyncIterator[str]:
    """`holdfast-sweeper serve` until left; then killed, or asked to end. Yields the webhook's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--config", str(path / "sweeper.toml"), "--state", str(path / "state"), "--api-url", github.url]
    sources = [str(Path(__file__).parents[2] / "apps/sweeper/src"), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "GITHUB_TOKEN": TOKEN, "GITHUB_WEBHOOK_SECRET": SECRET,
        "PYTHONPATH": os.pathsep.join(sources),
    }  # fmt: skip
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast_sweeper", *arguments, "serve", "--port", str(port), "--every", "0", env=env
    )
    try:
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as http:
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{port}/healthz")
                    break
                except httpx.HTTPError:
                    assert running.returncode is None
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/webhook"
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        await running.wait()


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.long)])
async def test_fifty_events_and_kills_at_any_point_leave_one_current_comment_each(tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)
    (tmp_path / "sweeper.toml").write_text(CONFIG)
    async with repository_stand_in() as github:
        for number in NUMBERS:
            github.pull(number)
        while len(github.payloads) < 50:
            number, doing = dice.choice(NUMBERS), dice.randrange(3)
            if doing == 0:
                github.push(number)
            elif doing == 1:
                github.say(number, "/sweep re-review")
            else:
                github.edit(number, title=f"Mend it, {len(github.payloads)}")
        events = [(f"d{at}", *one) for at, one in enumerate(github.payloads)]
        dice.shuffle(events)
        for kill in range(kills):
            async with program(tmp_path, github, kill=True) as url:
                for _ in range(len(events) // (kills - kill) if kill < kills - 1 else len(events)):
                    delivery, event, payload = events.pop()
                    assert await github.tell(url, event, payload, delivery) == 202
                seen = len(github.asked) + dice.randrange(1, 20)
                async with asyncio.timeout(PATIENCE_S):
                    while len(github.asked) < seen:  # noqa: ASYNC110  # it tells of nothing
                        await asyncio.sleep(0.005)
        assert not events
        async with program(tmp_path, github, kill=False) as url:
            for number in NUMBERS:
                github.edit(number, title=f"Mended {number}")
                assert await github.tell(url, *github.payloads[-1], f"last {number}") == 202
            async with asyncio.timeout(PATIENCE_S):
                while not all(is_current(github, number) for number in NUMBERS):  # noqa: ASYNC110  # likewise
                    await asyncio.sleep(0.05)


def is_current(github: Repository, number: int) -> bool:
    """One comment, of the newest commit and text, and nothing that is still being done."""
    ours = github.ours(number)
    head = github.things[number].head[:12]
    return (
        len(ours) == 1
        and f"Reviewed commit `{head}`" in ours[0]
        and f"“Mended {number}”" in ours[0]
        and "⏳" not in ours[0]
    )
