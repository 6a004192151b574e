"""pydantic-ai: an owned agent over a model that is a function."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic_ai import Agent
from pydantic_ai import messages as pm
from pydantic_ai.models.function import AgentInfo, FunctionModel

import holdfast
from holdfast.integrations.pydantic_ai import SessionConversations, own
from tests.integrations import hundred
from tests.integrations.scene_plain import said_in


async def model(messages: list[pm.ModelMessage], _: AgentInfo) -> pm.ModelResponse:
    [asked] = messages[-1].parts
    assert isinstance(asked, pm.UserPromptPart)
    return pm.ModelResponse([pm.TextPart(await hundred.think(str(asked.content)))])


@asynccontextmanager
async def asking(hf: holdfast.Holdfast) -> AsyncIterator[hundred.Ask]:
    agent = own(Agent(FunctionModel(model)), hf, wait_s=300)

    async def ask(question: str) -> str:
        return (await agent.run(question, conversation_id="hundred")).output

    yield ask


async def told(hf: holdfast.Holdfast) -> list[tuple[str, str]]:
    conversation = await SessionConversations(hf).load("hundred")
    assert conversation is not None
    found: list[tuple[str, str]] = []
    for message in conversation.messages:
        [part] = message.parts
        assert isinstance(part, pm.UserPromptPart | pm.TextPart)
        found.append(("user" if isinstance(part, pm.UserPromptPart) else "assistant", str(part.content)))
    assert await said_in(hf, "agent:main:pydantic-ai:direct:hundred") == found
    return found
