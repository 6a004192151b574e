"""A pydantic-ai agent each run of which is a turn: two questions at once, and each is answered beside the other.

    python examples/with_pydantic_ai_owned.py [STATE]

The model is a function, so nothing goes over the network; put any other model of pydantic-ai in its place.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import holdfast
from holdfast.integrations.pydantic_ai import own


async def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Tells how many questions it has been asked so far."""
    asked = [part.content for message in messages if isinstance(message, ModelRequest) for part in message.parts
             if isinstance(part, UserPromptPart)]  # fmt: skip
    await asyncio.sleep(0.05)
    return ModelResponse([TextPart(f"{asked[-1]} That is question {len(asked)}.")])


agent = Agent(FunctionModel(model))


async def main(state: Path) -> None:
    async with holdfast.open(state) as hf:
        assistant = own(agent, hf)
        questions = ("Who owns this?", "And now?")
        async with asyncio.TaskGroup() as group:
            for question in questions:
                group.create_task(assistant.run(question, conversation_id="ada"))
        conversation = await assistant.conversations.load("ada")
        assert conversation is not None
        texts = [str(getattr(part, "content", "")) for message in conversation.messages for part in message.parts]
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            print(f"> {question}\n{answer}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
