"""FastAPI: a route that owns its conversation for one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import FastAPI

import holdfast
from holdfast.integrations.fastapi import HANDLE, owned_turn
from tests.integrations import hundred
from tests.integrations.scene_plain import said_in

SESSION = "agent:main:web:direct:hundred"


def application(hf: holdfast.Holdfast) -> FastAPI:
    app = FastAPI()
    setattr(app.state, HANDLE, hf)

    @app.post("/chat/{user}")
    async def chat(
        question: str, turn: Annotated[holdfast.Turn, owned_turn("agent:main:web:direct:{user}", wait_s=300)]
    ) -> str:
        await turn.append(holdfast.user(question))
        async with turn.prompt_window() as window:
            answer = await hundred.think(question)
            window.finished(answer)
        await turn.append(holdfast.assistant(answer, model="example/any"))
        return answer

    return app


@asynccontextmanager
async def asking(hf: holdfast.Holdfast) -> AsyncIterator[hundred.Ask]:
    transport = httpx.ASGITransport(application(hf))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=300) as client:

        async def ask(question: str) -> str:
            reply = await client.post("/chat/hundred", params={"question": question})
            assert reply.status_code == 200, reply.text
            return reply.json()

        yield ask


async def told(hf: holdfast.Holdfast) -> list[tuple[str, str]]:
    return await said_in(hf, SESSION)
