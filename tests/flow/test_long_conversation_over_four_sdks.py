"""A conversation of 2,000 entries with images and tool calls, shortened twice, a crash in the second time, through the
real SDKs of four providers to servers that refuse what the real ones refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.context import summary
from holdfast.context.settings import CompactionSettings
from holdfast.inbound.upkeep import ask_for_compaction
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ToolSpec
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.testing import mishaps, wire
from holdfast.testing.provider import ProviderStub, Scene, SeenRequest, json_scene
from holdfast.testing.world import World
from holdfast.turn.asking import AgentSettings
from holdfast.turn.tools import Tool, ToolCall

SESSION = "agent:main:main"
ENTRIES = 2_000
WINDOW = 24_000
MODELS = {
    "openai": ("openai/gpt-4o", catalog.OPENAI),
    "anthropic": ("anthropic/claude-stub", catalog.ANTHROPIC),
    "bedrock": ("bedrock/anthropic.claude-sonnet-4-20250514-v1:0", catalog.BEDROCK),
    "google": ("google/gemini-2.5-flash", catalog.GOOGLE),
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


# ── what each provider insists on ────────────────────────────────────────────────────────────────────────────────────


def fault_openai(body: dict[str, Any]) -> str | None:
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return f"a tool message without its call: {message['tool_call_id']}"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return f"tool calls without an answer: {waiting}"
        if not message.get("content") and not message.get("tool_calls"):
            return f"an empty message of role {message['role']}"
        waiting = [call["id"] for call in message.get("tool_calls") or ()]
    return f"tool calls without an answer: {waiting}" if waiting else None


def fault_of_turns(messages: list[dict[str, Any]], called: Callable[[Any], str | None],
                   answered: Callable[[Any], str | None], model: str) -> str | None:  # fmt: skip
    """User and model take turns, the user first and last; what the model calls is answered at once."""
    waiting: list[str] = []
    for at, message in enumerate(messages):
        if message["role"] != ("user" if at % 2 == 0 else model):
            return f"message {at + 1} is of role {message['role']}"
        parts = message.get("content") or message.get("parts") or []
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        if not parts or any("text" in part and not str(part["text"]).strip() for part in parts):
            return f"message {at + 1} is empty"
        answers = [id for part in parts if (id := answered(part)) is not None]
        if sorted(answers) != sorted(waiting):
            return f"message {at + 1} answers {answers}, not {waiting}"
        waiting = [id for part in parts if (id := called(part)) is not None]
    return None if messages[-1]["role"] == "user" else "the model's own message stands last"


def fault_anthropic(body: dict[str, Any]) -> str | None:
    return fault_of_turns(
        body["messages"],
        lambda part: part["id"] if part.get("type") == "tool_use" else None,
        lambda part: part["tool_use_id"] if part.get("type") == "tool_result" else None,
        "assistant",
    )


def fault_bedrock(body: dict[str, Any]) -> str | None:
    return fault_of_turns(
        body["messages"],
        lambda part: part["toolUse"]["toolUseId"] if "toolUse" in part else None,
        lambda part: part["toolResult"]["toolUseId"] if "toolResult" in part else None,
        "assistant",
    )


def fault_google(body: dict[str, Any]) -> str | None:
    return fault_of_turns(
        body["contents"],
        lambda part: part["functionCall"]["name"] if "functionCall" in part else None,
        lambda part: part["functionResponse"]["name"] if "functionResponse" in part else None,
        "model",
    )


FAULTS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "openai": fault_openai, "anthropic": fault_anthropic, "bedrock": fault_bedrock, "google": fault_google,
}  # fmt: skip


def calling(name: str, number: int) -> list[bytes]:
    calls = [(f"call_{number}", "look", '{"at": "the sky"}')]
    match name:
        case "openai":
            return wire.openai(calls=calls, finish="tool_calls")
        case "anthropic":
            return wire.anthropic(calls=calls, finish="tool_use")
        case "bedrock":
            return wire.bedrock(calls=calls, finish="tool_use")
        case _:
            return wire.google(call=("look", {"at": "the sky"}, PIXEL))


class Provider:
    """Answers with a summary, a tool call or a word; refuses what is malformed, and remembers it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.api = MODELS[name][1]
        self.refused: list[str] = []
        self.summaries = self.answers = self.calls = 0

    def __call__(self, request: SeenRequest) -> Scene:
        fault = FAULTS[self.name](request.body)
        if fault is not None:
            self.refused.append(fault)
            return json_scene({"error": {"message": fault, "type": "invalid_request_error"}}, 400)
        said = json.dumps(request.body)
        if json.dumps(summary.SYSTEM)[1:-1] in said:
            self.summaries += 1
            return mishaps.answer(self.api, "They looked at the sky many times.")
        *_, last = request.body.get("messages") or request.body["contents"]
        if "please look" in json.dumps(last):
            self.calls += 1
            return Scene(calling(self.name, self.calls), content_type=mishaps.CONTENT_TYPES[self.api])
        self.answers += 1
        return mishaps.answer(self.api, "It is blue.")


# ── the world, here and in a process of its own ──────────────────────────────────────────────────────────────────────


def make(path: Path) -> World:
    """The world on the server whose address stands beside the state."""
    told = json.loads((path / "provider.json").read_text())
    ref, api = MODELS[told["name"]]
    provider, _, model = ref.partition("/")
    key, region = (None, "us-east-1") if api == catalog.BEDROCK else ("a-key-of-ours", None)
    client = PydanticAIModel(ModelTarget(provider, model, api, told["url"], key, region, idle_timeout_s=20.0))

    async def look(_: ToolCall) -> str:
        return "The sky is blue. " * 40

    at = {"type": "object", "properties": {"at": {"type": "string"}}}
    settings = CompactionSettings(headroom_tokens=0, reserve_tokens=4_000, keep_recent_tokens=4_000)
    return World(
        path, client_for=lambda _: client, agent=AgentSettings(model=ref), compaction=settings, context_window=WINDOW,
        tools=[Tool(ToolSpec("look", "Looks at something.", at), look)], patience_s=60.0,
    )  # fmt: skip


async def shorten_by_hand(world: World) -> None:
    await ask_for_compaction(world.hf, SESSION, by="a test", key="the second")
    await world.idle(passing_s=5)


async def compactions(world: World) -> list[dict[str, Any]]:
    return [line for line in await world.transcript(SESSION) if line["type"] == "compaction"]


async def write_history(state: Path) -> None:
    """Exchanges with calls and images, some calls without results, by another program on the same library."""
    async with holdfast.open(state) as hf, hf.turn(SESSION) as turn:
        for number in range(ENTRIES // 5 + 20):
            picture = [{"type": "image", "data": PIXEL, "mimeType": "image/png"}] if number % 10 == 0 else []
            await turn.append(holdfast.user([{"type": "text", "text": f"look {number} at the sky"}, *picture]))
            calls = [{"type": "toolCall", "id": f"old:{number}/{one}", "name": "look", "arguments": {}}
                     for one in range(2)]  # fmt: skip
            await turn.append(holdfast.assistant(calls, model="other/model", stop_reason="toolUse"))
            for one in range(1 if number % 7 == 0 else 2):
                await turn.append(holdfast.tool_result(f"old:{number}/{one}", "look", [
                    {"type": "text", "text": "blue"}, *picture]))  # fmt: skip
            await turn.append(holdfast.assistant(f"It is blue, {number}.", model="other/model"), final=False)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("aws")
async def test_no_request_of_a_long_conversation_is_refused(name: str, tmp_path: Path) -> None:
    provider = Provider(name)
    async with ProviderStub(provider) as stub:
        (tmp_path / "provider.json").write_text(json.dumps({"name": name, "url": stub.url}))
        await write_history(tmp_path / "state")
        async with make(tmp_path) as world:
            for number in range(6):
                view = await world.settled(await world.inbound(SESSION, f"{number}: please look"))
                assert (view.state, view.answer) == ("answered", "It is blue."), await world.story(view.id)
            first = await compactions(world)
            assert len(first) == 1
            crash = await world.crash_at("append.after_intent", shorten_by_hand, make=make)
            assert crash.died
            await world.idle(passing_s=60)
            assert len(await compactions(world)) == 2
            for number in range(6, 9):
                view = await world.settled(await world.inbound(SESSION, f"{number}: please look"))
                assert view.answer == "It is blue.", await world.story(view.id)
            assert len(await world.transcript(SESSION)) > ENTRIES
            await world.check_promises()
        assert provider.refused == []
        assert provider.calls == 9
        assert provider.summaries >= 3
