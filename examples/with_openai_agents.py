"""An agent of openai-agents each run of which is a turn: two questions at once, and each is answered beside the other.

    pip install "holdfast[openai-agents]"
    python examples/with_openai_agents.py [STATE]

The model answers by itself, so nothing goes over the network; leave `model=` away to ask OpenAI's.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from agents import (  # pyright: ignore[reportMissingImports]  # pip install "holdfast[openai-agents]"
    Agent,
    Model,
    ModelResponse,
    Usage,
    set_tracing_disabled,
)
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

import holdfast
from holdfast.integrations.openai_agents import own


class Counting(Model):  # pyright: ignore[reportUntypedBaseClass]
    """Tells how many questions it has been asked so far."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002, ARG002
        asked = [item["content"] for item in input if item.get("role") == "user"]
        await asyncio.sleep(0.05)
        text = ResponseOutputText(
            text=f"{asked[-1]} That is question {len(asked)}.", type="output_text", annotations=[]
        )
        said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def main(state: Path) -> None:
    set_tracing_disabled(True)
    agent = Agent(name="assistant", model=Counting())
    async with holdfast.open(state) as hf:
        assistant = own(agent, hf)
        async with asyncio.TaskGroup() as group:
            for question in ("Who owns this?", "And now?"):
                group.create_task(assistant.run(question, session_id="ada"))
        for item in await assistant.session("ada").get_items():
            content = item["content"]
            print(item["role"], content if isinstance(content, str) else content[0]["text"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
