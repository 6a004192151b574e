"""A turn as a dependency of FastAPI's.

app = FastAPI(lifespan=opened("./state"))

@app.post("/chat/{user}")
async def chat(user: str, text: str, turn: Annotated[Turn, owned_turn("agent:main:web:direct:{user}")]) -> str: ...
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import HTTPConnection, Request  # noqa: TC002  # FastAPI reads the annotations

import holdfast
from holdfast.errors import CoordinationError, InputError
from holdfast.integrations.asgi import RETRY_AFTER_S, status_of
from holdfast.kernel import Holdfast
from holdfast.turn.owned import SessionOf, key_of
from holdfast.turn.turn import Turn

HANDLE = "holdfast"
"""Where the handle lies: `app.state.holdfast`."""


def opened(state: str | os.PathLike[str], **options: Any) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan that opens the state for the application, as `holdfast.open(state, **options)`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with holdfast.open(state, **options) as hf:
            setattr(app.state, HANDLE, hf)
            yield

    return lifespan


def handle(connection: HTTPConnection) -> Holdfast:
    """The application's handle, also as a dependency: `Annotated[Holdfast, Depends(handle)]`.

    Raises: InputError: nobody has opened it.
    """
    hf = getattr(connection.app.state, HANDLE, None)
    if not isinstance(hf, Holdfast):
        raise InputError('this application has no open state: FastAPI(lifespan=opened("./state"))')
    return hf


def owned_turn(session: SessionOf, *, lane: str = "main", wait_s: float = 30.0, streams: bool = False) -> Any:
    """A dependency that owns a conversation for one request and gives its turn.

    Args:
        session: a key with `{names}` of path and query parameters in it, whose colons are encoded; or a function of the
            request that gives the key.
        lane, wait_s: as in `Holdfast.turn`.
        streams: the reply is streamed: the turn lasts until all of it has gone out. Otherwise it is settled before the
            first byte goes out, so a client that was answered knows that the answer is kept.

    A conversation that is busy for longer than `wait_s` is answered with 503 and `Retry-After`, one that was lost
    meanwhile with 409.
    """

    async def turn_of(request: Request) -> AsyncIterator[Turn]:
        if isinstance(session, str):
            try:
                key = key_of(session, {**request.query_params, **request.path_params})
            except InputError as missing:
                raise HTTPException(422, str(missing)) from missing
        else:
            key = session(request)
        try:
            async with handle(request).turn(key, lane=lane, wait_s=wait_s) as turn:
                yield turn
        except CoordinationError as error:
            status = status_of(error)
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
            raise HTTPException(status, str(error), headers) from error

    return Depends(turn_of, scope="request" if streams else "function")
