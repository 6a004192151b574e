"""An HTTP service in which each user has a conversation, and each request is one turn of it.

    python examples/with_fastapi.py [STATE]

Asks itself three times, without a network. To serve it: `uvicorn examples.with_fastapi:app`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import httpx
from fastapi import FastAPI

import holdfast
from holdfast.integrations.fastapi import opened, owned_turn

USERS_TURN = owned_turn("agent:main:web:direct:{user}", wait_s=30)


def application(state: Path) -> FastAPI:
    app = FastAPI(lifespan=opened(state))

    @app.post("/chat/{user}")
    async def chat(user: str, text: str, turn: Annotated[holdfast.Turn, USERS_TURN]) -> str:
        await turn.append(holdfast.user(text))
        async with turn.prompt_window() as window:  # your model; nobody is locked out while it thinks
            said = [message for message in await turn.context() if message["role"] == "user"]
            answer = f"{user}, you have said {len(said)} thing(s); the latest was {text!r}."
            window.finished(answer)
        await turn.append(holdfast.assistant(answer, model="example/any"))
        return answer  # it goes out once the turn is settled

    return app


app = application(Path(os.environ.get("STATE", "state")))


async def main(state: Path) -> None:
    app = application(state)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
    ):
        for user, text in (("ada", "Who owns this?"), ("ada", "And now?"), ("bob", "Hello!")):
            reply = await client.post(f"/chat/{user}", params={"text": text})
            print(reply.status_code, reply.json())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
