"""`hf.owned`, and requests as turns."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import holdfast
import holdfast.sync
from holdfast.integrations.asgi import OwnedRequests, Receive, Scope, Send
from holdfast.integrations.fastapi import opened, owned_turn
from tests.integrations.scene_plain import said_in

pytestmark = pytest.mark.xdist_group("integrations")
MAIN = "agent:main:main"


@pytest.fixture
async def hf(state: Path) -> AsyncIterator[holdfast.Holdfast]:
    async with holdfast.open(state) as opened_one:
        yield opened_one


async def test_each_call_of_an_owned_function_is_a_turn_that_is_settled_when_it_returns(hf: holdfast.Holdfast) -> None:
    @hf.owned(MAIN)
    async def ask(question: str, *, turn: holdfast.Turn) -> str:
        await turn.append(holdfast.user(question))
        return turn.id

    id = await ask("hello")
    assert [(turn.id, turn.state, turn.outcome) for turn in await hf.turns()] == [(id, "settled", "done")]
    assert await said_in(hf, MAIN) == [("user", "hello")]
    assert list(inspect.signature(ask).parameters) == ["question"]


async def test_an_exception_of_an_owned_function_comes_out_and_is_the_end_of_its_turn(hf: holdfast.Holdfast) -> None:
    @hf.owned(MAIN)
    async def ask() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        await ask()
    [turn] = await hf.turns()
    assert (turn.outcome, turn.detail) == ("failed", "KeyError: 'no such thing'")


async def test_a_value_in_a_session_key_cannot_name_the_conversation_of_another(hf: holdfast.Holdfast) -> None:
    @hf.owned("agent:main:web:direct:{user}")
    async def ask(user: str, *, turn: holdfast.Turn) -> str:
        return turn.session

    assert await ask("ada") == "agent:main:web:direct:ada"
    assert await ask("ada:thread:1") == "agent:main:web:direct:ada%3Athread%3A1"
    assert await ask("ada%3A") == "agent:main:web:direct:ada%253A"


async def test_a_session_may_be_worked_out_from_the_arguments(hf: holdfast.Holdfast) -> None:
    @hf.owned(lambda chat, text: f"agent:main:web:direct:{chat['id']}")
    async def ask(chat: dict[str, str], text: str, turn: holdfast.Turn) -> str:
        return turn.session

    assert await ask({"id": "7"}, "hello") == "agent:main:web:direct:7"


async def test_who_waits_too_long_for_an_owned_function_is_told_that_the_session_is_busy(hf: holdfast.Holdfast) -> None:
    @hf.owned(MAIN, wait_s=0)
    async def ask() -> None: ...

    async with hf.turn(MAIN):
        with pytest.raises(holdfast.SessionBusyError):
            await asyncio.create_task(ask(), context=_outside_any_turn())


def _outside_any_turn() -> Any:
    from contextvars import Context

    return Context()


def test_generators_and_unknown_names_are_refused_when_the_function_is_defined(hf: holdfast.Holdfast) -> None:
    async def stream() -> AsyncIterator[str]:
        yield "a"

    async def ask(text: str) -> None: ...

    with pytest.raises(holdfast.InputError, match="generator"):
        hf.owned(MAIN)(stream)  # pyright: ignore[reportArgumentType]  # that is the point
    with pytest.raises(holdfast.InputError, match="no argument user"):
        hf.owned("agent:main:{user}")(ask)


def test_plain_functions_are_owned_without_async(state: Path) -> None:
    with holdfast.sync.open(state) as hf:

        @hf.owned("agent:main:web:direct:{user}")
        def ask(user: str, *, turn: holdfast.sync.Turn) -> str:
            turn.append(holdfast.user("hello"))
            return turn.session

        assert ask("ada") == "agent:main:web:direct:ada"


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fast_application(hf: holdfast.Holdfast) -> FastAPI:
    app = FastAPI()
    app.state.holdfast = hf

    @app.post("/chat/{user}")
    async def chat(
        user: str, text: str, turn: Annotated[holdfast.Turn, owned_turn("agent:main:web:direct:{user}", wait_s=0)]
    ) -> str:
        await turn.append(holdfast.user(text))
        await turn.append(holdfast.assistant(f"you said {text}", model="example/any"))
        return turn.id

    @app.get("/stream/{user}")
    async def stream(
        user: str, turn: Annotated[holdfast.Turn, owned_turn("agent:main:web:direct:{user}", streams=True)]
    ) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield turn.id
            await turn.append(holdfast.assistant("streamed", model="example/any"))

        return StreamingResponse(pieces())

    return app


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_request_owns_its_conversation_and_its_turn_is_settled_before_the_reply(hf: holdfast.Holdfast) -> None:
    async with client_of(fast_application(hf)) as client:
        reply = await client.post("/chat/ada", params={"text": "hello"})
        [turn] = await hf.turns()
        assert (reply.status_code, reply.json(), turn.outcome) == (200, turn.id, "answered")
    assert await said_in(hf, "agent:main:web:direct:ada") == [("user", "hello"), ("assistant", "you said hello")]


async def test_a_request_for_a_busy_conversation_is_asked_to_come_again(hf: holdfast.Holdfast) -> None:
    async with client_of(fast_application(hf)) as client:
        async with hf.turn("agent:main:web:direct:ada"):
            asked = client.post("/chat/ada", params={"text": "hello"})
            reply = await asyncio.create_task(asked, context=_outside_any_turn())
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "is busy" in reply.json()["detail"]


async def test_a_streamed_reply_owns_its_conversation_until_all_of_it_has_gone_out(hf: holdfast.Holdfast) -> None:
    async with client_of(fast_application(hf)) as client:
        reply = await client.get("/stream/ada")
        [turn] = await hf.turns()
        assert (reply.text, turn.outcome) == (turn.id, "answered")


async def test_an_application_opens_its_state_itself(state: Path) -> None:
    app = FastAPI(lifespan=opened(state))

    @app.get("/")
    async def session(turn: Annotated[holdfast.Turn, owned_turn(MAIN)]) -> str:
        return turn.session

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/")).json() == MAIN


async def plain_application(scope: Scope, receive: Receive, send: Send) -> None:
    turn = scope["state"]["holdfast_turn"]
    await turn.append(holdfast.assistant("hi", model="example/any"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": turn.id.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"."})


async def test_any_application_gets_its_turn_and_its_last_bytes_wait_for_the_settlement(hf: holdfast.Holdfast) -> None:
    settled_by_then: list[str | None] = []
    app = OwnedRequests(plain_application, hf=lambda: hf, session=lambda _: MAIN, wait_s=0)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        settled_by_then.append((await hf.turns())[0].outcome)

    await app({"type": "http", "path": "/"}, receive, send)
    assert settled_by_then == [None, None, "answered"]


async def test_any_application_for_a_busy_conversation_is_not_even_called(hf: holdfast.Holdfast) -> None:
    app = OwnedRequests(plain_application, hf=lambda: hf, session=lambda _: MAIN, wait_s=0)
    async with hf.turn(MAIN), client_of(app) as client:
        reply = await asyncio.create_task(client.get("/"), context=_outside_any_turn())
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "is busy" in reply.json()["error"]
