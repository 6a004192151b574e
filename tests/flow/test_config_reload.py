"""A changed configuration is taken by a gateway that runs: at once, as a whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.config import Config, read_config
from holdfast.config.reload import compare, effective
from holdfast.gateway.reloading import LOOK_S, RELOADED, Reread
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served

KEY = "agent:main:main"
FIRST = '[models]\ndefault = "demo/demo"\n[agents.ops]\nsystem_prompt = "old"\n'


@dataclass
class Place:
    gateway: Served
    file: Path
    http: httpx.AsyncClient
    clock: VirtualClock

    async def reload(self, text: str) -> dict[str, Any]:
        self.file.write_text(text)
        return (await self.http.post("/api/config/reload")).json()

    async def ask(self, session: str, text: str = "hello") -> dict[str, Any]:
        return (await self.http.post(f"/api/sessions/{session}/messages?wait=1", json={"text": text})).json()


@asynccontextmanager
async def place(tmp_path: Path, model: ScriptedModel | None = None, text: str = FIRST) -> AsyncIterator[Place]:
    file, clock = tmp_path / "holdfast.toml", VirtualClock()
    file.write_text(text)
    reread = Reread(lambda: read_config(file, {}), file)
    config = read_config(file, {}).config
    async with (
        served(tmp_path / "state", config=config, model=model, clock=clock, reread=reread) as there,
        httpx.AsyncClient(base_url=there.url, headers=there.headers, timeout=60) as http,
    ):
        yield Place(there, file, http, clock)


async def test_what_can_be_taken_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    model = ScriptedModel(*("ok" for _ in range(4)))
    async with place(tmp_path, model) as there:
        await there.ask("agent:ops:main")
        told = await there.reload(
            '[gateway]\nport = 7000\n[agents.ops]\nsystem_prompt = "new"\n[lanes]\ndepth_max = 7\n[turn]\nbeat_s = 20\n'
            '[bindings.x]\nagent = "ops"\nchannel = "c"\n'
        )
        assert told["applied"] == ["agents.ops.system_prompt", "bindings.x", "lanes.depth_max"]
        assert told["waiting"] == ["gateway.port", "turn.beat_s"]
        assert told["faults"] == []
        await there.ask("agent:ops:main")
        systems = [request.system or "" for request in model.requests]
        assert ("old" in systems[0], "new" in systems[0]) == (True, False)
        assert ("old" in systems[1], "new" in systems[1]) == (False, True)
        said = await there.http.post("/api/messages?wait=1", json={"channel": "c", "peer": "p", "text": "hi"})
        assert said.json()["agent"] == "ops"
        shown = (await there.http.get("/api/config")).json()
        assert shown["waiting"] == ["gateway.port", "turn.beat_s"]
        assert (await there.reload(FIRST))["waiting"] == []  # as at the start: nothing waits any more


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[agents.ops]\nsistem_prompt = 1\n[lanes]\ndepth_max = -1\n", ["agents.ops.sistem_prompt", "lanes.depth_max"]),
        ("[agents.ops\n", ["holdfast.toml"]),
        ('[gateway.tokens.x]\nscopes = ["read"]\ntoken_env = "MISSING"\n', ["gateway.tokens.x.token_env"]),
    ],
)
async def test_a_faulty_file_changes_nothing_and_every_fault_is_named(
    tmp_path: Path, text: str, named: list[str]
) -> None:
    model = ScriptedModel("ok", "ok")
    async with place(tmp_path, model) as there:
        there.file.write_text(text + '[agents.main]\nsystem_prompt = "new"\n')
        answer = await there.http.post("/api/config/reload")
        assert answer.status_code == 409
        told = answer.json()
        assert told["applied"] == []
        for key in named:
            assert any(key in fault.partition(": ")[0] for fault in told["faults"]), told
        await there.ask("agent:main:main")
        assert "new" not in (model.requests[0].system or "")


async def test_a_running_turn_keeps_what_it_began_with(tmp_path: Path) -> None:
    """Two model calls of one turn, and a change during the first; the next turn has the new settings."""
    model = ScriptedModel(Reply(calls=[("clock", {})]), "first", "second")
    async with place(tmp_path, model) as there, asyncio.timeout(60):
        model.hold()
        asking = asyncio.create_task(there.ask("agent:ops:main"))
        await model.asked()
        assert (await there.reload(FIRST.replace("old", "new")))["applied"] == ["agents.ops.system_prompt"]
        model.release()
        await asking
        await there.ask("agent:ops:main")
        systems = [request.system or "" for request in model.requests]
        assert ["old" in one for one in systems] == [True, True, False]
        assert "new" in systems[2]


async def test_tokens_are_taken_and_taken_away_while_the_gateway_runs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-token-of-at-least-24-characters\n")
    secret.chmod(0o600)
    table = f'[gateway.tokens.x]\nscopes = ["read"]\ntoken_file = "{secret}"\n'
    async with place(tmp_path) as there:
        headers = {"authorization": f"Bearer {secret.read_text().strip()}"}
        for text, status in (("", 401), (table, 200), ("", 401)):
            await there.reload(text)
            assert (await there.http.get("/api/sessions", headers=headers)).status_code == status


async def test_the_file_is_read_when_it_has_changed_and_stands_still_and_watchers_hear_of_it(tmp_path: Path) -> None:
    async with place(tmp_path) as there, asyncio.timeout(60):
        reloading = there.gateway.gateway.reloading
        with there.gateway.hf.events.subscribe() as events:
            watching = asyncio.create_task(reloading.watch())
            await asyncio.sleep(0)  # it has looked once
            there.file.write_text("[lanes]\ndepth_max = 9\n")
            while reloading.last is None:
                await there.clock.advance(LOOK_S)
            event = await anext(events.__aiter__())
            while event.kind != RELOADED:
                event = await anext(events.__aiter__())
            assert event.data["applied"] == ("agents.ops", "lanes.depth_max")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def test_what_waits_stays_as_it_was_and_what_is_new_needs_what_it_hangs_on() -> None:
    booted = Config.model_validate({"channels": {"web": {"mention": True}}, "tools": {"functions": ["a:b"]}})
    found = Config.model_validate({
        "channels": {"web": {"mention": False, "typing": False}, "ops": {"kind": "slack", "dm": "open"}},
        "tools": {"functions": []}, "models": {"providers": {"x": {"base_url": "http://x", "api_key": "secret-key"}}},
    })  # fmt: skip
    applied, waiting = compare(booted, booted, found)
    assert "channels.web.mention" in applied
    assert {"channels.web.typing", "channels.ops", "tools.functions"} <= set(waiting)
    holds = effective(booted, found)
    assert (set(holds.channels), holds.channels["web"].mention, holds.channels["web"].typing) == ({"web"}, False, True)
    assert holds.tools.functions == ("a:b",)
    key = holds.models.providers["x"].api_key
    assert key is not None
    assert key.get_secret_value() == "secret-key"
    assert compare(booted, holds, found) == ((), waiting)
    assert compare(booted, booted, booted) == ((), ())
