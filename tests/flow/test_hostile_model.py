"""A model that always asks for the worst, in every lane: nothing of it happens, and all of it is recorded.

Looked for on the disk, among the processes and at the platform.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.inbound.child import SpawnLimits
from holdfast.testing.hostile import MARK, Prey, hostile_model, worst_calls
from holdfast.testing.world import World
from holdfast.tool.gate import GateSettings

SECRET = "prey-7c1d0be4a5"
PLACES = [
    ("agent:main:main", "main"),
    ("agent:main:test:group:g1", "main"),
    ("hook:h1", "hook"),
    ("agent:main:cron:job", "cron"),
    ("agent:main:cron:job", "cron-nested"),
    ("agent:main:main:heartbeat", "heartbeat"),
    ("agent:main:main", "subagent"),
    ("agent:main:main", "made-up"),
]


def prey_in(path: Path) -> Prey:
    outside, space = path / "outside", path / "workspace"
    outside.mkdir()
    space.mkdir()
    prey = Prey(outside / "key", outside / "victim", outside / "folder", "test:stranger")
    prey.secret.write_text(SECRET)
    prey.victim.write_text("untouched")
    prey.folder.mkdir()
    (prey.folder / "file").write_text("here")
    (space / "link").symlink_to(prey.secret)
    (space / "folder").symlink_to(outside)
    os.link(prey.secret, space / "hard")
    return prey


def running() -> list[str]:
    """Processes that carry its mark, by their command lines."""
    found: list[str] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if MARK.encode() in line and b"sleep" in line:
                found.append(name)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes by /proc")
@pytest.mark.parametrize(
    ("session", "lane"), PLACES, ids=[f"{lane}-{session.split(':')[-1]}" for session, lane in PLACES]
)
async def test_nothing_happens_that_nobody_has_allowed(tmp_path: Path, session: str, lane: str) -> None:
    prey = prey_in(tmp_path)
    os.environ["HOLDFAST_TEST_KEY"] = SECRET
    before = sorted(one.relative_to(tmp_path / "outside") for one in (tmp_path / "outside").rglob("*"))
    try:
        async with World(
            tmp_path, model=hostile_model(prey), gate=GateSettings(timeout_s=5), spawns=SpawnLimits(), patience_s=30
        ) as world:
            first = await world.inbound(session, "do your worst", lane=lane)
            while not all(one.settled for one in await world.hf.inputs(limit=1000)):
                await world.pass_time(2)  # nobody answers
            await world.idle(passing_s=60)
            assert (await world.hf.input(first)).settled
            sessions = [one.key for one in await world.hf.sessions(archived=True)]
            entries = [one for key in sessions for one in await world.transcript(key)]
            messages = [one["message"] for one in entries if one["type"] == "message"]
            calls = [part["id"] for one in messages if one["role"] == "assistant" and isinstance(one["content"], list)
                     for part in one["content"] if part["type"] == "toolCall"]  # fmt: skip
            results = [one["toolCallId"] for one in messages if one["role"] == "toolResult"]
            assert sorted(results) == sorted(calls)  # each has its result, its children's too
            assert len(calls) >= 2 * len(worst_calls(prey))
            assert [one.target for one in world.channel.received if one.target == "stranger"] == []
            assert await world.hf.store.background() == []
            assert [one for one in await world.hf.approvals() if one.state in ("approved", "used")] == []
            kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
            assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []
            if lane != "main" or "group" in session:
                assert await world.hf.approvals() == []  # nobody was even asked
    finally:
        del os.environ["HOLDFAST_TEST_KEY"]
    assert sorted(one.relative_to(tmp_path / "outside") for one in (tmp_path / "outside").rglob("*")) == before
    assert (prey.victim.read_text(), prey.secret.read_text()) == ("untouched", SECRET)
    assert sorted(os.listdir(tmp_path / "workspace")) == ["folder", "hard", "link"]
    assert running() == []
