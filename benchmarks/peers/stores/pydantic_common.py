"""What the two ways of keeping a conversation with pydantic-ai share."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.stores.store import Model, Said

pydantic_ai: Any = importlib.import_module("pydantic_ai")
messages: Any = importlib.import_module("pydantic_ai.messages")
functions: Any = importlib.import_module("pydantic_ai.models.function")


def agent_of(model: Model) -> Any:
    async def answer(history: Any, _info: Any) -> Any:
        return messages.ModelResponse(parts=[messages.TextPart(await model(history[-1].parts[-1].content))])

    return pydantic_ai.Agent(functions.FunctionModel(answer))


def as_said(found: list[Any]) -> list[Said]:
    return [
        ("assistant" if one.kind == "response" else "user", part.content)
        for one in found
        for part in one.parts
        if part.part_kind in ("user-prompt", "text")
    ]


def as_messages(said: list[Said]) -> list[Any]:
    return [
        messages.ModelRequest(parts=[messages.UserPromptPart(content=text)])
        if role == "user"
        else messages.ModelResponse(parts=[messages.TextPart(text)])
        for role, text in said
    ]
