"""What providers are asked to keep is what the next request begins with, through their SDKs over sockets."""

from __future__ import annotations

import json
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast.context.settings import CompactionSettings
from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.model import catalog
from holdfast.model.caching import CacheSettings, Caching, Ttl
from holdfast.model.catalog import ProviderSettings
from holdfast.model.client import ToolSpec
from holdfast.model.clients import ModelClients
from holdfast.testing import mishaps, wire
from holdfast.testing.provider import ProviderStub, Scene, SeenRequest, json_scene
from holdfast.testing.world import World
from holdfast.turn.asking import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"
MODELS = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-stub",
    "bedrock": "bedrock/anthropic.claude-sonnet-4-20250514-v1:0",
}
APIS = {"openai": catalog.OPENAI, "anthropic": catalog.ANTHROPIC, "bedrock": catalog.BEDROCK}
MARKS_MAX = 4
READ, WRITTEN = 70, 30


def scene(name: str, text: str = "", calls: int = 0, number: int = 0) -> Scene:
    made = [(f"call_{number}_{one}", "look", '{"at": "the sky"}') for one in range(calls)]
    match name:
        case "openai":
            chunks = wire.openai(text, calls=made, finish="tool_calls" if calls else "stop", cached=READ)
        case "anthropic":
            chunks = wire.anthropic(text, calls=made, finish="tool_use" if calls else "end_turn")
        case _:
            finish = "tool_use" if calls else "end_turn"
            chunks = wire.bedrock(text, calls=made, finish=finish, cached=READ, written=WRITTEN)
    return Scene(chunks, content_type=mishaps.CONTENT_TYPES[APIS[name]])


class Provider:
    """Answers `look` with so many calls first, then everything with a word; refuses the keys it is told to."""

    def __init__(self, name: str, calls: int = 1) -> None:
        self.name = name
        self.calls = calls
        self.refuses: set[str] = set()

    def __call__(self, request: SeenRequest) -> Scene:
        if key_of(request) in self.refuses:
            return json_scene({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429)
        last = json.dumps(request.body["messages"][-1])
        if "please look" in last:
            return scene(self.name, calls=self.calls, number=len(request.body["messages"]))
        return scene(self.name, "It is blue.")


def key_of(request: SeenRequest) -> str:
    return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


# ── what stands in a request ─────────────────────────────────────────────────────────────────────────────────────────


def marks(body: Any, at: str = "") -> list[str]:
    """Where the marks of a request are, as paths; a Bedrock mark counts for what it stands behind."""
    if isinstance(body, list):
        return [found for number, one in enumerate(body) for found in marks(one, f"{at}[{number - len(body)}]")]
    if not isinstance(body, dict):
        return []
    own = [at] if "cache_control" in body or set(body) == {"cachePoint"} else []
    return own + [found for name, one in body.items() for found in marks(one, f"{at}.{name}".lstrip("."))]


def without_marks(body: Any) -> Any:
    """A request as providers compare it."""
    if isinstance(body, list):
        return [without_marks(one) for one in body if not (isinstance(one, dict) and set(one) == {"cachePoint"})]
    if isinstance(body, dict):
        return {name: without_marks(one) for name, one in body.items() if name != "cache_control"}
    return body


def parts_of(body: dict[str, Any]) -> tuple[str, list[str]]:
    """The bytes of what stands before the conversation, and of each message, in the order in which they are sent."""
    plain = without_marks(body)
    before = json.dumps([plain.get("tools"), plain.get("toolConfig"), plain.get("system")])
    return before, [json.dumps(message) for message in plain["messages"]]


def assert_begins_with(later: SeenRequest, earlier: SeenRequest) -> None:
    (before, messages), (before_it, its_messages) = parts_of(later.body), parts_of(earlier.body)
    assert before == before_it
    assert messages[: len(its_messages)] == its_messages


# ── worlds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)


def models_on(stub: ProviderStub, name: str, keys: int = 1) -> ModelClients:
    env = {f"THE_KEY{'' if one == 0 else f'_{one + 1}'}": f"key-{one}" for one in range(keys)}
    own = ProviderSettings(base_url=stub.url, api_key_env="THE_KEY", region="us-east-1")
    if name == "bedrock":
        own, env = ProviderSettings(base_url=stub.url, region="us-east-1"), {}
    return ModelClients({name: own}, env=env)


def world_on(path: Path, models: ModelClients, name: str, settings: CacheSettings | None = None) -> World:
    async def look(_: ToolCall) -> str:
        return "The sky is blue. " * 400

    at = {"type": "object", "properties": {"at": {"type": "string"}}}
    tools = [Tool(ToolSpec("look", "Looks at something.", at), look), Tool(ToolSpec("listen", "Listens.", at), look)]
    agent = AgentSettings(model=MODELS[name], system="You are Ada.")
    caching = Caching(settings or CacheSettings(), models.api_of)
    compaction = CompactionSettings(keep_recent_tokens=100)
    return World(path, client_for=models, agent=agent, tools=tools, caching=caching, compaction=compaction)


async def say(world: World, text: str, session: str = SESSION) -> None:
    view = await world.settled(await world.inbound(session, text))
    assert (view.state, view.answer) == ("answered", "It is blue."), await world.story(view.id)


# ── the tests ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("aws")
async def test_each_request_begins_with_the_bytes_of_the_one_before_it_and_is_marked_at_its_ends(
    name: str, tmp_path: Path
) -> None:
    """Two turns with tools, a compaction, one turn more."""
    async with (
        ProviderStub(Provider(name)) as stub,
        aclosing(models_on(stub, name)) as models,
        world_on(tmp_path, models, name) as world,
    ):
        await say(world, "please look at it")
        await world.clock.advance(30)
        await say(world, "please look again")
        before = list(stub.requests)
        assert len(before) == 4
        for earlier, later in pairwise(before):
            assert_begins_with(later, earlier)

        await ask_for_compaction(world.hf, SESSION, by="a test", key="k")
        await world.idle(passing_s=5)
        summary = stub.requests[4:]
        await say(world, "please look once more")
        after = stub.requests[4 + len(summary) :]
        assert len(after) == 2
        assert_begins_with(after[1], after[0])
        assert parts_of(after[0].body)[0] == parts_of(before[0].body)[0]  # tools and system are still what is kept
        assert "Summary of the conversation" in json.dumps(after[0].body)

        for request in [*before, *after]:
            if name == "openai":
                assert marks(request.body) == []
                assert request.body["prompt_cache_key"] == before[0].body["prompt_cache_key"]
                assert SESSION not in request.body["prompt_cache_key"]
                assert "prompt_cache_retention" not in request.body
            elif name == "anthropic":
                assert sorted(marks(request.body)) == ["messages[-1].content[-1]", "system[-1]", "tools[-1]"]
            else:
                assert sorted(marks(request.body)) == [
                    "messages[-1].content[-1]", "system[-1]", "toolConfig.tools[-1]",
                ]  # fmt: skip
        assert summary
        assert all(marks(one.body) == [] and "prompt_cache_key" not in one.body for one in summary)


@pytest.mark.usefixtures("aws")
async def test_where_a_step_brings_more_than_bedrock_looks_back_over_the_last_end_is_marked_too(tmp_path: Path) -> None:
    """Twelve calls and their results; four marks are all there may be."""
    async with (
        ProviderStub(Provider("bedrock", calls=12)) as stub,
        aclosing(models_on(stub, "bedrock")) as models,
        world_on(tmp_path, models, "bedrock", CacheSettings(ttl="1h")) as world,
    ):
        await say(world, "please look at it")
        first, second = stub.requests
        assert_begins_with(second, first)
        assert len(marks(first.body)) == 3
        at = [mark for mark in marks(second.body) if mark.startswith("messages")]
        assert at == ["messages[-3].content[-1]", "messages[-1].content[-1]"]
        assert len(marks(second.body)) == MARKS_MAX
        assert json.dumps(second.body).count('"ttl": "1h"') == MARKS_MAX


async def test_anthropic_is_asked_to_keep_it_for_an_hour_where_that_is_configured(tmp_path: Path) -> None:
    async with (
        ProviderStub(Provider("anthropic")) as stub,
        aclosing(models_on(stub, "anthropic")) as models,
        world_on(tmp_path, models, "anthropic", CacheSettings(ttl="1h")) as world,
    ):
        await say(world, "hello")
        body = stub.requests[0].body
        assert len(marks(body)) == 3
        assert json.dumps(body).count('"cache_control": {"type": "ephemeral", "ttl": "1h"}') == 3


@pytest.mark.parametrize(("ttl", "is_whole"), [("5m", False), ("1h", True)])
async def test_old_results_stay_whole_while_they_may_be_in_a_cache(ttl: Ttl, is_whole: bool, tmp_path: Path) -> None:
    async with (
        ProviderStub(Provider("anthropic")) as stub,
        aclosing(models_on(stub, "anthropic")) as models,
        world_on(tmp_path, models, "anthropic", CacheSettings(ttl=ttl)) as world,
    ):
        await say(world, "please look at it")
        await world.clock.advance(400)
        await say(world, "hello")
        assert ("characters left out" not in json.dumps(stub.requests[-1].body)) is is_whole
        if is_whole:
            assert_begins_with(stub.requests[-1], stub.requests[-2])


async def test_what_openai_keeps_is_named_by_the_session_and_kept_as_long_as_configured(tmp_path: Path) -> None:
    async with (
        ProviderStub(Provider("openai")) as stub,
        aclosing(models_on(stub, "openai")) as models,
        world_on(tmp_path, models, "openai", CacheSettings(retention="24h")) as world,
    ):
        await say(world, "hello")
        await world.restart()
        await say(world, "hello again")
        await say(world, "hello", "agent:main:other:direct:bob")
        here, again, elsewhere = (request.body["prompt_cache_key"] for request in stub.requests)
        assert here == again != elsewhere
        assert {request.body["prompt_cache_retention"] for request in stub.requests} == {"24h"}


@pytest.mark.parametrize(
    "settings", [CacheSettings(enabled=False), CacheSettings(without=frozenset({"openai", "anthropic"}))]
)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_provider_that_is_not_to_be_asked_is_told_nothing(
    name: str, settings: CacheSettings, tmp_path: Path
) -> None:
    async with (
        ProviderStub(Provider(name)) as stub,
        aclosing(models_on(stub, name)) as models,
        world_on(tmp_path, models, name, settings) as world,
    ):
        await say(world, "hello")
        assert "cache" not in json.dumps(stub.requests[0].body)


@pytest.mark.parametrize(
    ("name", "read", "written"), [("openai", READ, 0), ("anthropic", 5, 2), ("bedrock", READ, WRITTEN)]
)
@pytest.mark.usefixtures("aws")
async def test_what_came_from_a_cache_and_went_into_it_is_told_with_each_turn(
    name: str, read: int, written: int, tmp_path: Path
) -> None:
    async with (
        ProviderStub(Provider(name)) as stub,
        aclosing(models_on(stub, name)) as models,
        world_on(tmp_path, models, name) as world,
    ):
        input_id = await world.inbound(SESSION, "hello")
        await world.settled(input_id)
        (turn,) = await world.hf.turns(limit=10)
        (call,) = await world.hf.store.calls_of(turn.id)
        assert (call.tokens.cache_read, call.tokens.cache_write) == (read, written)
        (told,) = [line.text for line in (await world.hf.why(input_id)).lines if line.text.startswith("used: ")]
        assert f"{read} from the cache" in told


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_stays_with_the_key_that_it_was_moved_to_while_that_keeps_its_beginning(tmp_path: Path) -> None:
    """A rate limit moves it; the end of the cool-down, a restart and another process do not; a long silence does."""
    provider = Provider("anthropic")
    async with (
        ProviderStub(provider) as stub,
        aclosing(models_on(stub, "anthropic", keys=3)) as models,
        world_on(tmp_path, models, "anthropic") as world,
    ):
        await say(world, "please look at it")
        usual = key_of(stub.requests[0])
        assert {key_of(one) for one in stub.requests} == {usual}

        provider.refuses = {usual}
        before = len(stub.requests)
        await say(world, "please look again")
        refused, moved, step = stub.requests[before:]
        assert key_of(refused) == usual != key_of(moved)
        assert json.dumps(moved.body) == json.dumps(refused.body)  # another key, and not a byte more or less
        assert key_of(step) == key_of(moved)

        provider.refuses = set()
        await world.clock.advance(120)  # the cool-down of 30 s is over
        await say(world, "hello")
        await world.restart()
        await say(world, "hello again")
        assert [key_of(one) for one in stub.requests[-2:]] == [key_of(moved)] * 2
        assert_begins_with(stub.requests[-1], stub.requests[-2])

        await world.clock.advance(301)
        await say(world, "are you there?")
        assert key_of(stub.requests[-1]) == usual


async def test_sessions_are_spread_over_the_keys(tmp_path: Path) -> None:
    async with (
        ProviderStub(Provider("anthropic")) as stub,
        aclosing(models_on(stub, "anthropic", keys=3)) as models,
        world_on(tmp_path, models, "anthropic") as world,
    ):
        for number in range(12):
            await say(world, "hello", f"agent:main:test:direct:u{number}")
        assert len({key_of(one) for one in stub.requests}) == 3
