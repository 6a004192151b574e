"""Channels over HTTP: `POST /channels/{name}`, by which platforms call, and `GET /api/channels` for people.

The first has no token of ours: the adapter checks its platform's signature. What could not be stored is answered 503,
so that the platform comes again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from holdfast.channel.listening import Hear, Posted, Receiver
from holdfast.channel.web import WebChat
from holdfast.errors import InputError
from holdfast.gateway.body import read_object, read_raw
from holdfast.gateway.listening import hear_once_stored
from holdfast.gateway.recent import Recent
from holdfast.gateway.replies import Refusal, json_response
from holdfast.inbound.admitting import ChannelKind, approve, revoke, shown_channels
from holdfast.kernel import Holdfast
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.gateway.channels import Platform

BODY_BYTES_MAX = 1 << 20
FAILURES_MAX, FAILURES_S = 20, 60.0
"""So many wrong signatures from one address in a minute are told of; the rest is answered 429. What is signed as it
should be is heard all the same: behind a proxy everybody has one address, nobody guesses a signature, and not every
platform comes again.
"""
log = logging.getLogger("holdfast.channels")


@dataclass(frozen=True, slots=True)
class ChannelDoor:
    """A channel as the application sees it. `receiver`: None where nobody calls. `chat`: it is the web chat."""

    name: str
    kind: str
    listens: bool
    receiver: Receiver | None
    hear: Hear
    chat: WebChat | None = None

    @property
    def is_called(self) -> bool:
        return self.receiver is not None or self.chat is not None


def doors_of(platforms: Mapping[str, Platform]) -> dict[str, ChannelDoor]:
    """The doors of a gateway's channels."""
    return {
        name: ChannelDoor(
            name, one.config.kind or name, one.adapter.listener is not None, one.adapter.receiver,
            hear_once_stored(one.hearing.hear, name),
            one.adapter.channel if isinstance(one.adapter.channel, WebChat) else None,
        )
        for name, one in platforms.items()
    }  # fmt: skip


class ChannelsApi:
    """The routes. One per application."""

    def __init__(self, hf: Holdfast, doors: Mapping[str, ChannelDoor]) -> None:
        self._hf = hf
        self._doors = doors
        self._failures = Recent(FAILURES_MAX, FAILURES_S)

    def router(self) -> APIRouter:
        router = APIRouter()
        for method, path, handler in (
            ("POST", "/channels/{name}", self.receive),
            ("GET", "/api/channels", self.list_channels),
            ("GET", "/api/pairings", self.list_pairings),
            ("POST", "/api/pairings/{channel}", self.decide),
        ):
            router.add_api_route(path, handler, methods=[method], response_model=None, operation_id=f"{method} {path}")
        return router

    async def receive(self, request: Request, name: str) -> Response:
        """What a platform tells of, signed in its way."""
        door = self._doors.get(name)
        if door is None or door.receiver is None:
            raise Refusal(401, "no such channel, or not signed as it asks", "authentication_error", "unknown_channel")
        now = self._hf.clock.mono()
        address = request.client.host if request.client is not None else ""
        raw = await read_raw(request, bytes_max=BODY_BYTES_MAX)
        posted = Posted(dict(request.headers.items()), raw, self._hf.clock.now().timestamp())
        reply = await door.receiver.receive(posted, door.hear)
        if reply.status == 401:
            if self._failures.is_full(address, now):
                raise Refusal(429, "too many wrong signatures from this address", "rate_limit_error", "too_many")
            self._failures.add(address, now)
            log.warning("channel %s: a request was refused, wrong signature (%s)", on_one_line(name), address)
        return Response(reply.body, reply.status, media_type=reply.media_type)

    async def list_channels(self) -> Response:
        """Every channel that is configured here: who listens to it, how that goes, and what its gate turned away."""
        listeners = await self._hf.store.listeners()
        away = await self._hf.store.turned_away(limit=1000)
        return json_response({"channels": shown_channels(self._kinds(), listeners, away)})

    def _kinds(self) -> dict[str, ChannelKind]:
        return {
            name: ChannelKind(door.kind, listens=door.listens, is_called=door.is_called)
            for name, door in self._doors.items()
        }

    async def list_pairings(self, channel: str | None = None) -> Response:
        """Senders who have asked to be let in, newest first."""
        return json_response({"pairings": await self._hf.store.pairings(channel=channel, limit=1000)})

    async def decide(self, request: Request, channel: str) -> Response:
        """`{"approve": CODE}` or `{"revoke": SENDER}`. 400 if there is no such code or sender."""
        body = await read_object(request)
        by = f"http ({request.client.host if request.client else 'unknown'})"
        code, sender = body.get("approve"), body.get("revoke")
        if isinstance(code, str) and sender is None:
            return json_response(await approve(self._hf, channel, code, by=by))
        if isinstance(sender, str) and code is None:
            return json_response(await revoke(self._hf, channel, sender, by=by))
        raise InputError('needs {"approve": CODE} or {"revoke": SENDER}')
