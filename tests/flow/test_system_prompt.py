"""Files of the workspace before a conversation, in a turn as a user meets it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from pathlib import Path

from holdfast.cli.main import run
from holdfast.model.client import ToolSpec
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.runner import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"


async def test_the_files_are_read_once_in_a_turn_and_their_changes_seen_in_the_next(tmp_path: Path) -> None:
    space = tmp_path / "workspace"
    space.mkdir()
    (space / "AGENTS.md").write_text("be brief")

    async def change(_: ToolCall) -> str:
        (space / "AGENTS.md").write_text("be long")
        return "changed"

    tool = Tool(ToolSpec("change", "Changes.", {"type": "object", "properties": {}}), change)
    model = ScriptedModel(Reply(calls=[("change", {})]), "done", "and now")
    agent = AgentSettings(model="scripted/model", system="You are Ada.", workspace=str(space))
    async with World(tmp_path, model=model, agent=agent, tools=[tool]) as world:
        for text in ("one", "two"):
            await world.settled(await world.inbound(SESSION, text))
            await world.clock.advance(3600)  # the time of day is nowhere in it
        first, second, third = (request.system or "" for request in model.requests)
        assert first.startswith("You are Ada.")
        assert "be brief" in first
        assert second == first
        assert third == first.replace("be brief", "be long")


async def test_the_command_lists_the_files_with_their_sizes_and_what_was_cut(tmp_path: Path) -> None:
    space = tmp_path / "workspace"
    space.mkdir()
    (space / "AGENTS.md").write_text("be brief")
    (space / "MEMORY.md").write_text("much " * 10_000)
    config = tmp_path / "holdfast.toml"
    config.write_text(f'[agents.main]\nworkspace = "{space}"\n')

    async with World(tmp_path) as world:
        await world.settled(await world.inbound(SESSION, "hello"))
    arguments = ["--state", str(tmp_path / "state"), "--config", str(config), "context", SESSION]
    found = json.loads(await _output([*arguments, "--json"]))
    files = {one["name"]: one for one in found["files"]}
    assert (files["AGENTS.md"]["state"], files["AGENTS.md"]["bytes"]) == ("whole", 8)
    assert (files["MEMORY.md"]["state"], files["MEMORY.md"]["bytes"]) == ("cut", 50_000)
    assert files["SOUL.md"]["state"] == "missing"
    assert found["messages"] == 2
    text = await _output(arguments)
    assert "AGENTS.md (8 bytes)" in text
    assert "MEMORY.md (cut: " in text


async def _output(arguments: list[str]) -> str:
    """What a command prints; it runs a loop of its own, so in a thread."""
    out = io.StringIO()

    def go() -> int:
        with contextlib.redirect_stdout(out):
            return run(arguments)

    assert await asyncio.to_thread(go) == 0
    return out.getvalue()
