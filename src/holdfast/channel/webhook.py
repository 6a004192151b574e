"""Results of cron jobs, posted to an address as JSON. Standard library only.

    POST <the job's url>
    Content-Type: application/json
    Idempotency-Key: <delivery id>

    {"id": "<delivery id>", "job": "nightly", "text": "…", "possible_duplicate": false}

The target of a delivery is the timer's id, never the address: addresses often hold secrets, and would show in lists.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.model.retry_after import retry_after_s

REQUEST_S = 10.0
"""Longest request (semantics.md 2.6)."""
LATER = frozenset({408, 409, 425, 429})
UNANSWERED = frozenset({502, 504})
"""What stands between us and the receiver says that it had no proper answer: the request may have been acted upon."""

AddressOf = Callable[[str], Awaitable[str | None]]
"""The address of a timer's job; None: it has none any more."""


class WebhookChannel:
    """Posts. The receiver tells copies apart by the key, so a send of unknown fate is simply sent again, labelled."""

    name = "webhook"
    traits = ChannelTraits(reconciles=False, longest_request_s=REQUEST_S + 5, text_max=1_000_000)

    def __init__(self, address_of: AddressOf) -> None:
        self._address_of = address_of

    async def send(self, request: SendRequest) -> Sent:
        """Post once; a status of 2xx is a confirmation. Redirects are not followed: the address is wrong then."""
        url = await self._address_of(request.target)
        if url is None:
            raise ChannelRefusedError(f"{request.target} has no address to post to any more", permanent=True)
        body = {
            "id": request.delivery_id, "job": request.target.partition(":")[2], "text": request.text,
            "possible_duplicate": request.label is not None,
        }  # fmt: skip
        connection = _connection(url)
        posting = asyncio.ensure_future(
            asyncio.to_thread(_post, connection, url, json.dumps(body).encode(), request.delivery_id)
        )
        try:
            status, retry_after = await asyncio.shield(posting)
        except asyncio.CancelledError:
            _shut(connection)
            await asyncio.gather(posting, return_exceptions=True)
            raise
        if 200 <= status < 300:
            return Sent(f"status {status}")
        if status in UNANSWERED:
            raise SendUnknownError(f"status {status}: what stands before the receiver got no answer from it")
        passes = status >= 500 or status in LATER
        raise ChannelRefusedError(
            f"the receiver answered with status {status}", permanent=not passes, retry_after_s=retry_after
        )

    async def find(self, delivery_id: str, target: str) -> Sent | None:  # noqa: ARG002  # the contract's shape
        raise SendUnknownError("an address cannot be asked what it has received")


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=REQUEST_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=REQUEST_S)


def _post(connection: http.client.HTTPConnection, url: str, body: bytes, key: str) -> tuple[int, float | None]:
    """One request on a thread: status, and the pause that was asked for."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "holdfast"}
    try:
        try:
            connection.connect()
        except OSError as refused:  # nothing has gone out
            raise ChannelRefusedError(f"no connection: {refused}") from refused
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        response.read(65_536)
        return response.status, retry_after_s(dict(response.getheaders()))
    except (OSError, http.client.HTTPException) as broken:
        raise SendUnknownError(f"the connection broke: {type(broken).__name__}") from broken
    finally:
        connection.close()


def _shut(connection: http.client.HTTPConnection) -> None:
    """End the request of a thread from outside: its reads and writes fail at once."""
    if connection.sock is not None:
        with suppress(OSError):  # it has ended by itself
            connection.sock.shutdown(2)
