"""The gateway's outer wall, in ASGI: who may ask at all. Runs before any route is looked up.

Order: the name the caller used for us (DNS rebinding), where a browser says the request comes from (CSRF), the token
or a browser's cookie (`login.py`). Sockets pass the same wall as requests.
Source: threat table of the project's reliability notes; bearer tokens, RFC 6750.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse

from holdfast.gateway.assets import ASSETS
from holdfast.gateway.login import CSRF_HEADER, LoggedIn, Logins, is_csrf
from holdfast.gateway.recent import Recent
from holdfast.gateway.replies import Refusal
from holdfast.gateway.tokens import Token, Tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
SECURITY_TXT = "/.well-known/security.txt"
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/logout", SECURITY_TXT, *ASSETS})
"""`/logout` looks at the cookie itself."""
PAGES = frozenset({"/", "/chat", "/docs", "/openapi.json"})
"""What people open in a browser: whoever is not logged in is led to `/login`."""
OWN_KEY_PREFIXES = ("/hooks/", "/channels/")
WRONG_MAX, WRONG_S = 20, 60.0
"""So many wrong tokens from one address within a minute, and further wrong ones are answered 429 for the rest of it.
The right one is let in all the same: 256 bits are not guessed, and a program with an old token must not shut out its
neighbours on the machine."""
TOKENS_COUNTED_MAX = 256
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
log = logging.getLogger("holdfast.gateway.guard")
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cache-control": "no-store",
}


class Guard:
    """Refuses what must not reach the application, and puts the security headers on every answer.

    Args:
        tokens: the bearer tokens.
        hosts: names, without port, by which callers may address us; None: any (bound to more than loopback).
        logins: browsers that are let in by a cookie; None: none are.
        mono: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Tokens,
        hosts: Iterable[str] | None = LOOPBACK_NAMES,
        logins: Logins | None = None,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._mono = mono
        self._wrong = Recent(WRONG_MAX, WRONG_S)
        self._changes: OrderedDict[str, Recent] = OrderedDict()
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._logins = logins

    @property
    def inside(self) -> ASGIApp:
        """The application behind the wall."""
        return self._app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._check(scope)
        except Refusal as refusal:
            leads = refusal.status == 401 and self._logins is not None and _is_page(scope)
            response = RedirectResponse(f"/login?next={scope['path']}", 303) if leads else refusal.response()
            await response(scope, receive, send_hardened)
            return
        await self._app(scope, receive, send_hardened)

    async def _check(self, scope: Scope) -> None:
        # Hooks and platforms have keys of their own, and call by the name of a tunnel or proxy in front of us.
        has_own_key = scope["type"] == "http" and scope["path"].startswith(OWN_KEY_PREFIXES)
        host = "" if has_own_key else self._checked_host(_values(scope, b"host"))
        is_change = scope["type"] == "websocket" or scope["method"] not in _READING
        if is_change:
            _check_origin(scope, host)
        if scope["type"] == "http" and (scope["path"] in OPEN_PATHS or has_own_key):
            return
        state = scope.setdefault("state", {})
        login = await self._login(scope, host)
        if login is None:
            token = self._checked_token(_values(scope, b"authorization"), _address(scope))
        else:
            if is_change:
                _check_page(scope, login)
            token, state["login"] = login.token, login
        if is_change:
            self._count_change(token)
        state["account"], state["scopes"], state["token"] = token.account, token.scopes, token.name

    async def _login(self, scope: Scope, host: str) -> LoggedIn | None:
        """A browser that is logged in. Where there is a token, it alone counts."""
        if self._logins is None or _values(scope, b"authorization"):
            return None
        cookies = _values(scope, b"cookie")
        return await self._logins.of(cookies, host) if cookies else None

    def _checked_host(self, values: list[bytes]) -> str:
        host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
        if self._hosts is not None and _without_port(host) not in self._hosts:
            raise Refusal(421, f"this gateway does not go by the name {host!r}; use localhost", code="unknown_host")
        return host

    def _checked_token(self, values: list[bytes], address: str) -> Token:
        scheme, _, credentials = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        secret = credentials.strip()
        token = self._tokens.of_secret(secret) if scheme.lower() == b"bearer" else None
        if token is not None:
            return token
        now = self._mono()
        if secret:
            wait_s = self._wrong.full_for_s(address, now)
            if wait_s > 0:
                raise _too_many("too many wrong tokens from your address", wait_s)
            self._wrong.add(address, now)
            if self._wrong.is_full(address, now):
                log.warning("%d wrong tokens from %s within %g s", WRONG_MAX, address, WRONG_S)
        raise Refusal(
            401,
            "a bearer token is needed: send 'Authorization: Bearer TOKEN'; it is in the file 'token' of the state",
            "authentication_error",
            "invalid_token",
            {"www-authenticate": "Bearer"},
        )

    def _count_change(self, token: Token) -> None:
        """Raises Refusal: the token asks for more changes a minute than it may."""
        if token.per_minute is None:
            return
        now, name = self._mono(), f"{token.account}:{token.per_minute}"
        taken = self._changes.setdefault(name, Recent(token.per_minute, 60.0))
        self._changes.move_to_end(name)
        if len(self._changes) > TOKENS_COUNTED_MAX:
            self._changes.popitem(last=False)
        wait_s = taken.full_for_s("", now)
        if wait_s > 0:
            raise _too_many(f"the token {token.name!r} may ask for {token.per_minute} changes a minute", wait_s)
        taken.add("", now)


def _is_page(scope: Scope) -> bool:
    """Whether somebody opens one of our pages in a browser."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and scope["path"] in PAGES
        and any(b"text/html" in value for value in _values(scope, b"accept"))
        and not _values(scope, b"authorization")
    )


def _check_page(scope: Scope, login: LoggedIn) -> None:
    """Browsers send a cookie by themselves: a change has to say that it is a page of ours that asks for it. A socket
    cannot carry a header of a page's choice; no other page's can open one.
    """
    if not _values(scope, b"origin"):
        raise Refusal(403, "a change with a cookie must say its origin; programs use the token", code="no_origin")
    given = _values(scope, CSRF_HEADER.encode())
    if scope["type"] == "http" and not (len(given) == 1 and is_csrf(login, given[0].decode("latin-1"))):
        raise Refusal(
            403, f"a change with a cookie must carry {CSRF_HEADER}, as GET /api/login tells it", code="csrf_token"
        )


def _check_origin(scope: Scope, host: str) -> None:
    """Browsers say where a changing request comes from; it must be our own page. Other programs do not say."""
    origins = _values(scope, b"origin")
    allowed = (f"http://{host}".encode("latin-1"), f"https://{host}".encode("latin-1"))
    is_foreign = any(origin.lower() not in allowed for origin in origins) or len(origins) > 1
    sites = _values(scope, b"sec-fetch-site")
    if is_foreign or any(site in (b"cross-site", b"same-site") for site in sites):
        raise Refusal(403, "changes are not accepted from pages of another origin", code="foreign_origin")


def _too_many(why: str, wait_s: float) -> Refusal:
    return Refusal(429, why, "rate_limit_error", "too_many", {"retry-after": str(int(wait_s) + 1)})


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
