"""A pydantic-ai agent whose memory is a Holdfast session: its history, and each call on disk before a tool starts.

    python examples/with_pydantic_ai.py [STATE]

The model is a function, so nothing goes over the network; put any other model of pydantic-ai in its place.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

import holdfast

SESSION = "agent:main:main"
MODEL = "example/function"


def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Calls the weather tool for each question, then answers with what it was told."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse([TextPart(f"{last.content} I have read {len(messages)} messages to tell you.")])
    return ModelResponse([ToolCallPart("weather", {"city": str(getattr(last, "content", "")).split()[-1].strip("?")})])


agent = Agent(FunctionModel(model), deps_type=holdfast.Turn)


@agent.tool
async def weather(ctx: RunContext[holdfast.Turn], city: str) -> str:
    """The weather in a city."""
    turn, call_id = ctx.deps, ctx.tool_call_id or ""
    call = {"type": "toolCall", "id": call_id, "name": "weather", "arguments": {"city": city}}
    # Appending looks at the fence, so a turn that lost its session starts no tool; a call is synced before we go on.
    await turn.append(holdfast.assistant([call], model=MODEL, stop_reason="toolUse"))
    told = f"It is sunny in {city}."
    await turn.append(holdfast.tool_result(call_id, "weather", told))
    return told


def history(messages: list[dict[str, Any]]) -> list[ModelMessage]:
    """The transcript's messages in the form of pydantic-ai."""
    found: list[ModelMessage] = []
    for message in messages:
        texts = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        if message["role"] == "user":
            found.append(ModelRequest([UserPromptPart(texts)]))
        elif message["role"] == "toolResult":
            result = ToolReturnPart(message["toolName"], texts, tool_call_id=message["toolCallId"])
            found.append(ModelRequest([result]))
        else:
            calls = [part for part in message["content"] if part["type"] == "toolCall"]
            parts = [ToolCallPart(call["name"], call["arguments"], tool_call_id=call["id"]) for call in calls]
            found.append(ModelResponse([TextPart(texts)] if texts else parts))
    return found


async def ask(hf: holdfast.Holdfast, question: str) -> str:
    async with hf.turn(SESSION, wait_s=30) as turn:
        before = history(await turn.context())
        await turn.append(holdfast.user(question))
        async with turn.prompt_window() as window:
            result = await agent.run(question, message_history=before, deps=turn)
            window.finished(result.output)
        await turn.append(holdfast.assistant(result.output, model=MODEL))
    return result.output


async def main(state: Path) -> None:
    async with holdfast.open(state) as hf:
        for question in ("How is the weather in Oslo?", "And in Lima?"):
            print(f"> {question}\n{await ask(hf, question)}")
        lines = await hf.session(SESSION).lines()
        print("transcript:", ", ".join(line.message_role or line.type or "?" for line in lines))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
