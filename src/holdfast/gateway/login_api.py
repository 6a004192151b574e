"""`/login`, `/logout` and `/api/login`: how a browser gets its cookie, and loses it. The page needs no script."""

from __future__ import annotations

import math
from html import escape
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from holdfast.gateway.assets import ASSETS, PAGE_HEADERS, media_type
from holdfast.gateway.body import read_raw
from holdfast.gateway.login import CSRF_HEADER, LoggedIn, Logins, WrongToken, is_csrf
from holdfast.gateway.replies import Refusal, json_response

FORM_BYTES_MAX = 4096
LEADS_TO = ("/", "/chat", "/docs", "/openapi.json")
"""Where a login may lead: a fixed list, so that no link to it leads elsewhere."""


class LoginApi:
    """The routes. One per application."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def router(self) -> APIRouter:
        router = APIRouter()
        for method, path, handler in (
            ("GET", "/login", self.show),
            ("POST", "/login", self.log_in),
            ("POST", "/logout", self.log_out),
            ("GET", "/api/login", self.tell),
        ):
            router.add_api_route(
                path, handler, methods=[method], response_model=None, operation_id=f"{method} {path}",
                include_in_schema=path.startswith("/api/"),
            )  # fmt: skip
        for path in ASSETS:
            router.add_api_route(path, _asset, methods=["GET"], include_in_schema=False)
        return router

    async def show(self, request: Request, next: str = "") -> Response:  # noqa: A002  # as the address says it
        """The page on which browsers log in and out."""
        return _page(self._next(next), login=await self._login(request))

    async def log_in(self, request: Request) -> Response:
        """A form with `token` (and `next`): a cookie and a page. 401 for a wrong one, 429 after five of them."""
        given = await _form(request)
        leads_to = self._next(given.get("next", ""))
        address = request.client.host if request.client is not None else ""
        found = await self._logins.begin(address, given.get("token", "").strip())
        if isinstance(found, WrongToken):
            return _refused(found, leads_to)
        cookie = self._logins.cookie(request.headers.get("host", ""), found)
        return RedirectResponse(leads_to, 303, {"set-cookie": cookie})

    async def log_out(self, request: Request) -> Response:
        """End this browser's login; a form with `csrf`, or the header."""
        login = await self._login(request)
        if login is not None:
            given = request.headers.get(CSRF_HEADER) or (await _form(request)).get("csrf", "")
            if not is_csrf(login, given):
                raise Refusal(403, f"logging out must carry {CSRF_HEADER}, or csrf in a form", code="csrf_token")
            await self._logins.end(login)
        cookie = self._logins.cookie(request.headers.get("host", ""), None)
        return RedirectResponse("/login", 303, {"set-cookie": cookie})

    async def tell(self, request: Request) -> Response:
        """How a browser is logged in, and what it may do: `{"csrf", "expires_at_ms", "token", "scopes"}`. Changes by
        a cookie carry `csrf` as `X-Holdfast-CSRF`.
        """
        login: LoggedIn | None = getattr(request.state, "login", None)
        told = {"token": request.state.token, "scopes": sorted(request.state.scopes)}
        if login is None:
            return json_response({"csrf": None, "expires_at_ms": None, **told})
        return json_response({"csrf": login.csrf, "expires_at_ms": login.expires_at_ms, **told})

    async def _login(self, request: Request) -> LoggedIn | None:
        cookies = [value.encode("latin-1") for value in request.headers.getlist("cookie")]
        return await self._logins.of(cookies, request.headers.get("host", "").lower())

    def _next(self, wanted: str) -> str:
        return wanted if wanted in LEADS_TO else LEADS_TO[0]


async def _asset(request: Request) -> Response:
    path = request.url.path
    return Response(
        ASSETS[path].read_bytes(), media_type=media_type(path), headers={"cache-control": "no-cache"}
    )  # fmt: skip


async def _form(request: Request) -> dict[str, str]:
    """Raises Refusal: it is no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "the body must be a form (application/x-www-form-urlencoded)", code="content_type")
    raw = await read_raw(request, bytes_max=FORM_BYTES_MAX)
    try:
        fields = parse_qs(raw.decode("ascii"), max_num_fields=8)
    except ValueError:
        raise Refusal(400, "the body is no form", code="invalid_form") from None
    return {name: values[0] for name, values in fields.items()}


def _refused(why: WrongToken, leads_to: str) -> Response:
    if why.locked_s <= 0:
        return _page(leads_to, 401, say="That is not the token.")
    wait_s = math.ceil(why.locked_s)
    say = f"Too many wrong tokens from your address. Try again in {math.ceil(wait_s / 60)} min."
    return _page(leads_to, 429, say=say, headers={"retry-after": str(wait_s)})


def _page(
    leads_to: str,
    status: int = 200,
    *,
    say: str = "",
    login: LoggedIn | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body = _form_in(leads_to, say) if login is None else _form_out(login, leads_to)
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Holdfast: log in</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/assets/web.css">'
        f'</head><body class="login"><main><h1>Holdfast</h1>{body}'
        "</main></body></html>"
    )
    return HTMLResponse(html, status, {**PAGE_HEADERS, **(headers or {})})


def _form_in(leads_to: str, say: str) -> str:
    alert = f'<p role="alert" class="fault">{escape(say)}</p>' if say else ""
    return (
        f'<form method="post" action="/login">{alert}<label for="token">Token of this gateway</label>'
        '<input id="token" name="token" type="password" required autofocus autocomplete="current-password" '
        f'spellcheck="false"><input type="hidden" name="next" value="{escape(leads_to)}">'
        "<button>Log in</button>"
        '<p class="hint">It is in the file <code>token</code> of the state directory; <code>holdfast up</code> has '
        "shown it at its first start.</p></form>"
    )


def _form_out(login: LoggedIn, leads_to: str) -> str:
    return (
        f'<p>This browser is logged in.</p><p><a href="{escape(leads_to)}">Go on to {escape(leads_to)}</a></p>'
        '<form method="post" action="/logout">'
        f'<input type="hidden" name="csrf" value="{escape(login.csrf)}"><button>Log out</button></form>'
    )
