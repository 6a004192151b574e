"""openai-agents: an owned agent over a model of the test's own. Runs in the environment `agents`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import agents  # pyright: ignore[reportMissingImports]  # an environment of its own
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

import holdfast
from holdfast.integrations.openai_agents import TranscriptSession, own
from tests.integrations import hundred
from tests.integrations.scene_plain import said_in

SESSION = "agent:main:openai-agents:direct:hundred"
agents.set_tracing_disabled(True)


def text_of(item: Any) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(id="m", content=[content], role="assistant", status="completed", type="message")


def call(name: str, arguments: str, id: str = "c1") -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(call_id=id, name=name, arguments=arguments, type="function_call", id=id)


class Answers(agents.Model):  # pyright: ignore[reportUntypedBaseClass]
    """A model that is a function from the items it is shown to what it puts out."""

    def __init__(self, answer: Callable[[list[Any]], Any]) -> None:
        self.answer = answer

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002
        items = input if isinstance(input, list) else [{"role": "user", "content": input}]
        return agents.ModelResponse(output=await self.answer(items), usage=agents.Usage(), response_id="r")

    async def stream_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:  # noqa: A002
        from openai.types.responses import Response, ResponseCompletedEvent

        told = await self.get_response(system_instructions, input)
        response = Response(
            id="r", created_at=0, model="m", object="response", output=told.output, tool_choice="none", tools=[],
            parallel_tool_calls=False,
        )  # fmt: skip
        yield ResponseCompletedEvent(response=response, type="response.completed", sequence_number=0)


async def think(items: list[Any]) -> list[Any]:
    return [message(await hundred.think(text_of(items[-1])))]


@asynccontextmanager
async def asking(hf: holdfast.Holdfast) -> AsyncIterator[hundred.Ask]:
    agent = own(agents.Agent(name="hundred", model=Answers(think)), hf, wait_s=300)

    async def ask(question: str) -> str:
        return (await agent.run(question, session_id="hundred")).final_output

    yield ask


async def told(hf: holdfast.Holdfast) -> list[tuple[str, str]]:
    found = [(one["role"], text_of(one)) for one in await TranscriptSession("hundred", hf).get_items()]
    assert await said_in(hf, SESSION) == found
    return found
