"""Cached contents at Google: made, used, renewed, made anew, dropped; by one key; never taken for a takeover."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.model.caching import CacheSettings, Caching
from holdfast.model.catalog import ProviderSettings
from holdfast.model.client import ToolSpec
from holdfast.model.clients import ModelClients
from holdfast.model.google_cache import GOOGLE_CACHE_TYPE, GoogleCaching
from holdfast.testing import wire
from holdfast.testing.provider import ProviderStub, Scene, SeenRequest, json_scene
from holdfast.testing.world import World
from holdfast.turn.asking import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"
LONG = "tell me about the sky " * 20
TTL_S = 300


class Google:
    """The two interfaces of it that matter. Refuses a request that says again what its content holds."""

    def __init__(self) -> None:
        self.contents: dict[str, dict[str, Any]] = {}
        self.made_by: dict[str, str] = {}
        self.asked: list[SeenRequest] = []
        self.upkeep: list[str] = []
        self.makes_none = False
        self.refuses: set[str] = set()

    def __call__(self, request: SeenRequest) -> Scene:
        path = request.path.partition("?")[0]
        key = request.headers["x-goog-api-key"]
        if path.endswith("/cachedContents"):
            return self._make(request.body, key)
        if "/cachedContents/" in path:
            return self._keep_up(request.method, "cachedContents/" + path.rpartition("/")[2], key)
        if key in self.refuses:
            return json_scene({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}, 429)
        self.asked.append(request)
        name = request.body.get("cachedContent")
        if name is None:
            return Scene(wire.google("It is blue."))
        if self.made_by.get(name) != key:
            fault = {"code": 403, "message": "CachedContent not found (or permission denied)"}
            return json_scene({"error": {**fault, "status": "PERMISSION_DENIED"}}, 403)
        assert not {"systemInstruction", "tools", "toolConfig"} & set(request.body), "the content holds that"
        return Scene(wire.google("It is blue.", cached=5_000))

    def _make(self, body: dict[str, Any], key: str) -> Scene:
        if self.makes_none:
            return json_scene({"error": {"code": 429, "message": "no storage", "status": "RESOURCE_EXHAUSTED"}}, 429)
        name = f"cachedContents/c{len(self.contents) + 1}"
        self.contents[name], self.made_by[name] = body, key
        self.upkeep.append(f"make {name[15:]}")
        return json_scene({"name": name, "model": body["model"], "usageMetadata": {"totalTokenCount": 5_000}}, 200)

    def _keep_up(self, method: str, name: str, key: str) -> Scene:
        if self.made_by.get(name) != key:
            return json_scene({"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}, 403)
        self.upkeep.append(f"{'renew' if method == 'PATCH' else 'drop'} {name[15:]}")
        if method == "DELETE":
            del self.made_by[name]
        return json_scene({"name": name} if method == "PATCH" else {}, 200)

    def whole(self, number: int) -> list[str]:
        """What the model was shown in a request: what its content holds, and what came with it."""
        body = self.asked[number].body
        held = self.contents[body["cachedContent"]] if "cachedContent" in body else {"contents": []}
        return [json.dumps(one) for one in [*(held.get("contents") or []), *body["contents"]]]


@pytest.fixture
async def google() -> AsyncIterator[tuple[Google, ProviderStub]]:
    one = Google()
    async with ProviderStub(one) as stub:
        yield one, stub


def world_on(path: Path, models: ModelClients, **facts: Any) -> World:
    async def look(_: ToolCall) -> str:
        return "blue"

    tools = [Tool(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}), look)]
    agent = AgentSettings(model="google/gemini-2.5-flash", system="You are Ada. " * 10)
    settings = CacheSettings(google=GoogleCaching(TTL_S, tokens_min=100))
    return World(path, client_for=models, agent=agent, tools=tools, caching=Caching(settings, models.api_of), **facts)


def models_on(stub: ProviderStub, keys: int = 1) -> ModelClients:
    env = {f"THE_KEY{'' if one == 0 else f'_{one + 1}'}": f"key-{one}" for one in range(keys)}
    return ModelClients({"google": ProviderSettings(base_url=stub.url, api_key_env="THE_KEY")}, env=env)


async def say(world: World, text: str) -> None:
    view = await world.settled(await world.inbound(SESSION, text))
    assert (view.state, view.answer) == ("answered", "It is blue."), await world.story(view.id)


async def noted(world: World) -> list[dict[str, Any]]:
    return [line["data"] for line in await world.transcript(SESSION) if line.get("customType") == GOOGLE_CACHE_TYPE]


async def test_it_is_made_once_the_conversation_goes_on_and_lives_as_long_as_that(
    google: tuple[Google, ProviderStub], tmp_path: Path
) -> None:
    one, stub = google
    async with aclosing(models_on(stub)) as models, world_on(tmp_path, models) as world:
        await say(world, LONG)
        assert one.upkeep == []  # nobody knows yet whether it goes on
        await world.clock.advance(30)
        await say(world, "and at night?")
        assert one.upkeep == ["make c1"]
        assert one.asked[1].body["cachedContent"] == "cachedContents/c1"
        assert len(one.asked[1].body["contents"]) == 1
        assert one.contents["cachedContents/c1"]["ttl"] == "300s"
        assert "You are Ada." in json.dumps(one.contents["cachedContents/c1"]["systemInstruction"])
        assert one.contents["cachedContents/c1"]["tools"]

        await world.clock.advance(30)
        await say(world, "why?")
        assert one.upkeep == ["make c1"]
        await world.clock.advance(200)
        await world.restart()  # what is kept stands in the transcript
        await say(world, "and in the morning?")
        assert one.upkeep == ["make c1", "renew c1"]
        await say(world, LONG * 2)
        await say(world, "and now?")
        assert one.upkeep == ["make c1", "renew c1", "make c2", "drop c1"]
        for number in range(1, len(one.asked)):  # whatever holds it: the same bytes in the same order
            assert one.whole(number)[: len(one.whole(number - 1))] == one.whole(number - 1)

        lines = await noted(world)
        assert [line["name"] for line in lines] == [f"cachedContents/{name}" for name in ("c1", "c1", "c2")]
        assert "key-0" not in json.dumps(lines)
        turns = await world.hf.turns(limit=20)
        assert {turn.outcome for turn in turns} == {"answered"}
        calls = [call for turn in reversed(turns) for call in await world.hf.store.calls_of(turn.id)]
        assert [call.tokens.cache_write for call in calls] == [0, 5_000, 0, 0, 0, 5_000]
        assert calls[1].tokens.cache_read == 5_000
        await world.check_promises()

        await world.clock.advance(TTL_S + 1)
        await say(world, "still there?")
        assert "cachedContent" not in one.asked[-1].body  # it has ended, and nobody pays for one before it goes on


async def test_only_the_key_that_made_it_uses_it_and_what_begins_otherwise_drops_it(
    google: tuple[Google, ProviderStub], tmp_path: Path
) -> None:
    one, stub = google
    async with aclosing(models_on(stub, keys=2)) as models, world_on(tmp_path, models) as world:
        await say(world, LONG)
        await say(world, "and at night?")
        first = one.made_by["cachedContents/c1"]
        one.refuses = {first}
        await say(world, "why?")
        (second,) = {"key-0", "key-1"} - {first}
        assert one.made_by == {"cachedContents/c1": first, "cachedContents/c2": second}
        assert one.asked[-1].body["cachedContent"] == "cachedContents/c2"

        await ask_for_compaction(world.hf, SESSION, by="a test", key="k")
        await world.idle(passing_s=5)
        assert "cachedContent" not in one.asked[-1].body  # a summary is nobody's beginning
        await say(world, "hello")
        assert one.asked[-1].body.get("cachedContent") != "cachedContents/c2"


async def test_one_that_has_gone_and_a_refusal_to_make_one_cost_the_turn_nothing(
    google: tuple[Google, ProviderStub], tmp_path: Path
) -> None:
    one, stub = google
    async with aclosing(models_on(stub)) as models, world_on(tmp_path, models) as world:
        await say(world, LONG)
        await say(world, "and at night?")
        one.made_by.clear()  # somebody has deleted it
        one.makes_none = True
        before = len(one.asked)
        await say(world, "why?")
        assert ["cachedContent" in request.body for request in one.asked[before:]] == [True, False]
        await say(world, "so?")
        await say(world, "so?")
        assert len(stub.requests) == len(one.asked) + 2  # it was made once, and refused once: not asked for again
        assert [line["dropped"] for line in await noted(world)] == [False, True]
