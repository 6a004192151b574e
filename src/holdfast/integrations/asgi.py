"""Requests as turns, for any ASGI application: the one that holds a request's conversation answers it.

    app = OwnedRequests(app, hf=lambda: hf, session=lambda scope: f"agent:main:{scope['path']}")

The application finds its turn in `scope["state"]["holdfast_turn"]` (Starlette: `request.state.holdfast_turn`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from holdfast.errors import CoordinationError, DrainingError, HoldfastError, SessionBusyError
from holdfast.kernel import Holdfast

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER_S = 1
TURN = "holdfast_turn"


def status_of(error: CoordinationError) -> int:
    """503: trying again may help, soon. 409: the conversation went to somebody else while the request was answered."""
    return 503 if isinstance(error, SessionBusyError | DrainingError) or error.again else 409


class OwnedRequests:
    """Around an application: a request of a session is one turn of it.

    The turn is settled before the last bytes go out, so whoever has read the whole reply knows that it is kept. A
    conversation that is busy for longer than `wait_s` is answered with 503 and `Retry-After`, one that was lost before
    the reply began with 409; the body says why as `{"error": …}`.

    Args:
        app: the application.
        hf: gives the open handle; called with each request, since applications open it in their lifespan.
        session: the key of a request's conversation; None: it has none, and passes through.
        lane, wait_s: as in `Holdfast.turn`.
    """

    def __init__(
        self, app: App, *, hf: Callable[[], Holdfast], session: Callable[[Scope], str | None], lane: str = "main",
        wait_s: float = 30.0,
    ) -> None:  # fmt: skip
        self._app = app
        self._hf = hf
        self._session = session
        self._lane = lane
        self._wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._session(scope) if scope["type"] == "http" else None
        if session is None:
            await self._app(scope, receive, send)
            return
        begun, last = False, None

        async def hold_last(message: Message) -> None:
            nonlocal begun, last
            begun = True
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                last = message  # it goes out once the turn is settled
                return
            await send(message)

        try:
            async with self._hf().turn(session, lane=self._lane, wait_s=self._wait_s) as turn:
                scope.setdefault("state", {})[TURN] = turn
                await self._app(scope, receive, hold_last)
        except CoordinationError as error:
            if begun:
                raise
            await _refuse(send, error)
            return
        if last is not None:
            await send(last)


async def _refuse(send: Send, error: HoldfastError) -> None:
    assert isinstance(error, CoordinationError)
    status, body = status_of(error), json.dumps({"error": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
