"""openai-agents: `Runner.run` with a `SQLiteSession` on a file and a model that answers by itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.store import SESSION, Model, Said, Store

agents: Any = importlib.import_module("agents")
messages: Any = importlib.import_module("openai.types.responses")


def model_class() -> Any:
    """A subclass of theirs; made here, because the base is known at run time only."""

    async def get_response(self: Any, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002, ARG001
        answer = await self.model(input[-1]["content"] if isinstance(input, list) else input)
        text = messages.ResponseOutputText(text=answer, type="output_text", annotations=[])
        said = messages.ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message"
        )
        return agents.ModelResponse(output=[said], usage=agents.Usage(), response_id=None)

    def stream_response(self: Any, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    return type("Instant", (agents.Model,), {"get_response": get_response, "stream_response": stream_response})


class OpenAIAgents:
    def __init__(self, folder: Path) -> None:
        agents.set_tracing_disabled(True)
        self._session = agents.SQLiteSession(SESSION, str(folder / "sessions.db"))
        self._class = model_class()

    async def turn(self, question: str, model: Model) -> None:
        instant = self._class()
        instant.model = model
        await agents.Runner.run(agents.Agent(name="bench", model=instant), question, session=self._session)

    async def history(self) -> list[Said]:
        found = await self._session.get_items()
        return [(one["role"], self._text(one["content"])) for one in found]

    @staticmethod
    def _text(content: Any) -> str:
        return content if isinstance(content, str) else "".join(part["text"] for part in content)

    async def fill(self, said: list[Said]) -> None:
        await self._session.add_items([{"role": role, "content": text} for role, text in said])

    async def close(self) -> None:
        self._session.close()


async def open_store(folder: Path) -> Store:
    return OpenAIAgents(folder)
