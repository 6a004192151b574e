"""Slack's socket mode: events over a connection that we open, so that nothing has to be reachable from outside.

The socket is slack-sdk's; it follows Slack when it asks us to change over to a new one. A socket that is lost ends
`listen`, whose caller begins it again after a pause: so an app that was removed, or a token that was revoked, is seen
as such. An envelope is acknowledged when what it says is stored; one that is not comes again, with the next socket at
the latest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

from holdfast.channel.listening import Hear
from holdfast.channel.slack_web import SlackWeb, quiet_logger
from holdfast.errors import ChannelError, ResourceError, SendUnknownError
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

CONNECT_S = 15.0
"""How long a new socket may take until Slack has said hello on it; also when it asks us to change over."""
PING_S = 10.0
"""A socket on which nothing comes back to our pings for some of these is lost."""
LOOK_S = 0.2
log = logging.getLogger("holdfast.channels.slack")

Tell = Callable[[Mapping[str, Any], Hear], Awaitable[None]]


class SlackSocket:
    """Listens. `tell`: what each event is handed to."""

    def __init__(self, web: SlackWeb, app_token: str, tell: Tell) -> None:
        self._web = web
        self._app_token = app_token
        self._tell = tell
        self._greeted = False

    @property
    def connected(self) -> bool:
        return self._greeted

    async def listen(self, hear: Hear) -> None:
        """Until the socket is lost (SendUnknownError) or cannot be had (as `SlackWeb.open_socket`)."""
        address = await self._web.open_socket(self._app_token)
        client = SocketModeClient(
            self._app_token, quiet_logger(), self._web.client(), auto_reconnect_enabled=False, ping_interval=PING_S
        )
        client.proxy = self._web.proxy
        client.wss_uri = address
        running: set[asyncio.Task[Any]] = set()

        async def on_request(_: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            try:
                await self._take(client, request, hear)
            finally:
                running.discard(task)

        async def on_message(_: AsyncBaseSocketModeClient, message: dict[str, Any], _raw: str | None = None) -> None:
            self._greeted = self._greeted or message.get("type") == "hello"

        client.socket_mode_request_listeners.append(on_request)
        client.message_listeners.append(on_message)
        try:
            await self._watch(client)
        finally:
            self._greeted = False
            await _close(client, running)

    async def _watch(self, client: SocketModeClient) -> None:
        """Connect, then look whether the connection is there, until it is not."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await client.connect()
                while not self._greeted:
                    if not await client.is_connected():
                        raise SendUnknownError("the socket was closed before Slack said hello")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as exc:
            raise SendUnknownError(f"Slack did not say hello within {CONNECT_S:g} s") from exc
        lost_for_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            if await client.is_connected():
                lost_for_s = 0.0
                continue
            self._greeted = False
            lost_for_s += LOOK_S
            if not client.connect_operation_lock.locked() or lost_for_s > CONNECT_S:  # not changing over
                raise SendUnknownError("the socket was lost")

    async def _take(self, client: SocketModeClient, request: SocketModeRequest, hear: Hear) -> None:
        """Store what it says, then acknowledge it."""
        try:
            if request.type == "events_api" and isinstance(request.payload, dict):
                await self._tell(request.payload, hear)
            await client.send_socket_mode_response(SocketModeResponse(request.envelope_id))
        except ResourceError:
            return  # told by the gateway; not acknowledged, so it comes again
        except ChannelError as exc:
            log.warning("a message was not taken, Slack tells it again: %s", on_one_line(str(exc)))
        except (ConnectionError, AttributeError) as exc:  # the socket is gone, as `_watch` will see
            log.debug("an event could not be acknowledged: %s", type(exc).__name__)


async def _close(client: SocketModeClient, running: set[asyncio.Task[Any]]) -> None:
    """Close the socket, and end whatever the client has begun, which it does not wait for itself."""
    tasks = [*running]
    tasks += [one for one in (client.message_processor, client.message_receiver, client.current_session_monitor) if one]
    try:
        async with asyncio.timeout(2.0):
            await client.close()
    except TimeoutError:
        log.debug("a socket took too long to close")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
