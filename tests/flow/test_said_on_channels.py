"""What adapters hand over as said on a channel finds its agent, its session and its way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.config import Config
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo

CONFIG = Config.model_validate({
    "identities": {"alice": ["test:U1", "other:42"]},
    "bindings": {
        "team": {"agent": "coder", "channel": "test", "team": "T1"},
        "room": {"agent": "main", "channel": "test", "peer": "C9"},
    },
    "agents": {"main": {}, "coder": {}},
})  # fmt: skip


@asynccontextmanager
async def calling(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[tuple[Served, httpx.AsyncClient, FakeChannel]]:
    channel = FakeChannel()
    async with (
        served(tmp_path / "state", model=model, config=CONFIG, channels=[channel]) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=30) as http,
    ):
        yield gateway, http, channel


async def said(http: httpx.AsyncClient, text: str, **where: str) -> dict[str, Any]:
    answer = await http.post("/api/messages", json={"text": text, **where})
    assert answer.status_code == 202, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("where", "agent", "session", "binding"),
    [
        ({"peer": "U7"}, "main", "agent:main:test:direct:U7", None),
        ({"peer": "U7", "team": "T1"}, "coder", "agent:coder:test:direct:U7", "team"),
        ({"peer": "C9", "kind": "channel", "team": "T1"}, "main", "agent:main:test:channel:C9", "room"),
        ({"peer": "C9", "kind": "channel", "thread": "5"}, "main", "agent:main:test:channel:C9:thread:5", "room"),
    ],
)
async def test_the_most_specific_binding_chooses_and_the_answer_goes_back(
    tmp_path: Path, where: dict[str, str], agent: str, session: str, binding: str | None
) -> None:
    async with calling(tmp_path, ScriptedModel(otherwise=echo)) as (_, http, channel):
        found = await said(http, "hello", channel="test", **where)
        assert (found["agent"], found["session"], found["binding"]) == (agent, session, binding)
        await channel.arrived(1)
        assert (channel.received[0].target, channel.received[0].text) == (where["peer"], "re: hello")


async def test_one_person_on_two_channels_has_one_conversation_with_one_owner(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=echo)
    model.hold()
    async with calling(tmp_path, model) as (gateway, http, channel):
        first = await said(http, "from here", channel="test", peer="U1")
        await model.asked(1)
        second = await said(http, "from there", channel="other", peer="42")
        assert (second["state"], second["ahead"]) == ("queued", 1), "the other key waits in the same line"
        model.release()
        views = [await gateway.hf.wait_input(one["id"], 30) for one in (first, second)]
        assert [view.answer for view in views] == ["re: from here", "re: from there"]
        assert "from here" in str(model.requests[-1].messages), "it is one conversation"
        paths = {await gateway.hf.session(one["session"]).path() for one in (first, second)}
        assert len(paths) == 1
        await asyncio.wait_for(channel.arrived(1), 30)
        assert [got.target for got in channel.received] == ["U1"], "the other channel is not here: its answer is kept"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"peer": "U1"}, "channel"), ({"channel": "test"}, "peer"), ({"channel": "test", "peer": 5}, "peer"),
        ({"channel": "test", "peer": "U1", "kind": "crowd"}, "kind"), ({"channel": "a:b", "peer": "U1"}, "channel"),
        ({"channel": "test", "peer": "U1", "thread": ["x"]}, "thread"),
    ],
)  # fmt: skip
async def test_where_it_was_said_must_be_said_rightly(tmp_path: Path, body: dict[str, Any], named: str) -> None:
    async with calling(tmp_path, ScriptedModel()) as (gateway, http, _):
        refused = await http.post("/api/messages", json={"text": "x", **body})
        assert (refused.status_code, named in refused.json()["error"]["message"]) == (400, True), refused.text
        assert await gateway.hf.inputs(limit=10) == []
