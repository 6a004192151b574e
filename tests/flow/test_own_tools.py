"""Functions of users as tools, and answering questions over HTTP, in a real gateway."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holdfast.config import Config
from holdfast.errors import InputError
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import served
from holdfast.tool.functions import as_tool, load_tools

MODULE = """
from holdfast.tool.functions import tool
from holdfast.turn.tools import ToolCall

@tool(effect="read")
def weather(city: str, days: int = 1) -> dict[str, object]:
    "The weather in a city.

    More about it that no model needs."
    return {"city": city, "days": days}

async def order(what: str, call: ToolCall) -> str:
    "Orders something."
    return f"{what} for {call.session}"

def bare(x) -> str:
    "Has no annotation."
    return ""

def silent(x: int) -> str:
    return ""

nothing = 3
""".replace('"The weather in a city.', '"""The weather in a city.').replace('needs."', 'needs."""')


@pytest.fixture
def module(tmp_path: Path) -> Iterator[str]:
    name = f"own_tools_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    sys.path.insert(0, str(tmp_path))
    yield name
    sys.path.remove(str(tmp_path))
    sys.modules.pop(name, None)


def test_annotations_make_the_schema_and_the_first_sentence_the_description(module: str) -> None:
    [tool] = load_tools([f"{module}:weather"])
    assert (tool.spec.name, tool.spec.description, tool.effect) == ("weather", "The weather in a city.", "read")
    assert tool.spec.parameters["required"] == ["city"]
    assert tool.spec.parameters["properties"]["days"]["type"] == "integer"
    [other] = load_tools([f"{module}:order"])
    assert (other.effect, list(other.spec.parameters["properties"])) == ("change", ["what"])


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("no_such_module_here:x", "module 'no_such_module_here' cannot be loaded"),
        ("{}:missing", "has no 'missing'"),
        ("{}:bare", "parameter 'x' has no annotation"),
        ("{}:silent", "has no docstring"),
        ("{}:nothing", "is a int"),
    ],
)
def test_what_cannot_be_loaded_is_named(module: str, place: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        load_tools([place.format(module)])
    assert place.format(module).partition(":")[2] in str(refused.value)


def test_a_function_that_takes_anything_is_no_tool() -> None:
    def anything(**more: int) -> str:
        "Takes anything."
        return str(more)

    with pytest.raises(InputError, match="cannot be given by name"):
        as_tool(anything)


async def test_a_gateway_runs_them_and_what_changes_something_is_answered_over_http(
    tmp_path: Path, module: str
) -> None:
    model = ScriptedModel(
        Reply(calls=[("weather", {"city": "Bern"}), ("weather", {"town": 1}), ("order", {"what": "tea"})]), "done"
    )
    config = Config.model_validate({"tools": {"functions": [f"{module}:weather", f"{module}:order"]}})
    async with (
        served(tmp_path / "state", model=model, config=config) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=90) as client,
    ):
        said = asyncio.create_task(
            client.post("/api/sessions/agent:main:main/messages", params={"wait": 1}, json={"text": "go"})
        )
        waiting: list[dict[str, str]] = []
        async with asyncio.timeout(60):
            while not waiting:
                waiting = (await client.get("/api/approvals")).json()["approvals"]
                await asyncio.sleep(0.02)
        [question] = waiting
        assert (question["tool"], json.loads(question["shown"])) == ("order", {"what": "tea"})
        where = f"/api/approvals/{question['id']}"
        assert (await client.post(where, json={"answer": "perhaps"})).status_code == 400
        assert (await client.post("/api/approvals/ap_0", json={"answer": "deny"})).status_code == 404
        assert (await client.post(where, json={"answer": "approve"})).json()["state"] == "approved"
        assert (await client.post(where, json={"answer": "approve"})).status_code == 400
        assert (await said).json()["answer"] == "done"
        results = [one["content"][0]["text"] for one in model.requests[-1].messages if one["role"] == "toolResult"]
        assert json.loads(results[0]) == {"city": "Bern", "days": 1}
        assert "town" in results[1]
        assert "city" in results[1]
        assert results[2] == "tea for agent:main:main"
