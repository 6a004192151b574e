"""No framework: a function that owns its session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import holdfast
from tests.integrations import hundred

SESSION = "agent:main:main"


@asynccontextmanager
async def asking(hf: holdfast.Holdfast) -> AsyncIterator[hundred.Ask]:
    @hf.owned(SESSION, wait_s=300)
    async def ask(question: str, turn: holdfast.Turn) -> str:
        await turn.append(holdfast.user(question))
        async with turn.prompt_window() as window:
            answer = await hundred.think(question)
            window.finished(answer)
        await turn.append(holdfast.assistant(answer, model="example/any"))
        return answer

    yield ask


async def told(hf: holdfast.Holdfast) -> list[tuple[str, str]]:
    return await said_in(hf, SESSION)


async def said_in(hf: holdfast.Holdfast, session: str) -> list[tuple[str, str]]:
    """What the transcript itself says, for people and other lanes."""
    messages = [line.value()["message"] for line in await hf.session(session).lines() if line.type == "message"]
    return [(one["role"], "".join(part.get("text", "") for part in one["content"])) for one in messages]
