"""`/.well-known/security.txt`: where whoever finds a hole in this installation can tell of it (RFC 9116)."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from holdfast.clock import Clock, iso
from holdfast.gateway.guard import SECURITY_TXT
from holdfast.gateway.replies import Refusal

EXPIRES_DAYS = 180
"""RFC 9116 asks for less than a year; the page is written anew with each answer."""


class SecurityTxt:
    """One route, for everybody. It tells nothing of the installation but its contact.

    Args:
        contact: an address such as `mailto:…`; None: nobody is named, and the page is not there.
    """

    def __init__(self, contact: str | None, clock: Clock) -> None:
        self._contact = contact
        self._clock = clock

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route(SECURITY_TXT, self.show, methods=["GET"], include_in_schema=False, response_model=None)
        return router

    async def show(self) -> Response:
        if self._contact is None:
            raise Refusal(404, "gateway.security_contact names nobody", code="no_contact")
        expires = iso(self._clock.now() + timedelta(days=EXPIRES_DAYS))
        return PlainTextResponse(f"Contact: {self._contact}\nExpires: {expires}\nPreferred-Languages: en\n")
