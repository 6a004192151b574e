"""The HTTP application: its routes outside `/v1`, and what is true for all of them.

Every request but the health checks carries the bearer token or a browser's cookie; nothing is changed by GET; bodies
are bounded; what cannot be done is said as JSON with a status of its own (`replies.py`). Read `create_app` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, get_args

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

from holdfast.errors import DrainingError, HoldfastError, InputError
from holdfast.gateway.approvals_api import ApprovalsApi
from holdfast.gateway.body import read_object
from holdfast.gateway.channels_api import ChannelDoor, ChannelsApi
from holdfast.gateway.config_api import ConfigApi
from holdfast.gateway.contract import openapi_of
from holdfast.gateway.dashboard_api import DashboardApi
from holdfast.gateway.docs_page import POLICY, docs_page
from holdfast.gateway.door import Asked, CallerGoneError, Door, unless_gone
from holdfast.gateway.events_api import EventStreams
from holdfast.gateway.exchange import Desk, still_running
from holdfast.gateway.following import follow
from holdfast.gateway.guard import LOOPBACK_NAMES, Guard
from holdfast.gateway.hooks_api import Hooks
from holdfast.gateway.login import Logins
from holdfast.gateway.login_api import LoginApi
from holdfast.gateway.metrics_api import MetricsApi
from holdfast.gateway.openai_api import ChatApi, Models, check_model
from holdfast.gateway.replies import RETRY_AFTER_S, Refusal, json_response, refusal_of
from holdfast.gateway.responses_api import ResponsesApi
from holdfast.gateway.security_txt import SecurityTxt
from holdfast.gateway.sessions_api import SessionsApi
from holdfast.gateway.tokens import Tokens, check_scope
from holdfast.gateway.usage_api import UsageApi
from holdfast.gateway.web_api import WebChatApi
from holdfast.inbound.event import InboundEvent, Route
from holdfast.inbound.openai_messages import read_user
from holdfast.inbound.route import Conversation, Kind, Rules
from holdfast.inbound.route import route as choose_session
from holdfast.kernel import Holdfast
from holdfast.lane.queue import Mode
from holdfast.lane.states import states_of
from holdfast.recovery.shown import plan_shown, report_shown
from holdfast.session.key import validate_key
from holdfast.session.retention import Limits
from holdfast.store.views import InputView
from holdfast.turn.events import Subscription
from holdfast.version import __version__

if TYPE_CHECKING:
    from holdfast.gateway.reloading import Reloading
    from holdfast.observe.metrics import Metrics

WAIT_S = 30.0  # semantics of the re-imagined system: waiting on a run takes 30 s unless said otherwise
WAIT_S_MAX = 600.0
LIST_MAX, SESSIONS_MAX = 1000, 10_000
GONE_STATUS = 499  # nobody reads it; the number proxies log for a caller who left

Limit = Annotated[int, Query(ge=1, le=LIST_MAX)]


def create_app(
    hf: Holdfast,
    *,
    tokens: Tokens,
    models: Models,
    hosts: Iterable[str] | None = LOOPBACK_NAMES,
    closing: asyncio.Event | None = None,
    channels: Collection[str] = (),
    hooks: Hooks | None = None,
    routing: Callable[[], Rules] = Rules,
    limits: Callable[[], Limits] = Limits,
    doors: Mapping[str, ChannelDoor] = MappingProxyType({}),
    logins: Logins | None = None,
    metrics: Metrics | None = None,
    security_contact: str | None = None,
    reloading: Reloading | None = None,
) -> Guard:
    """The gateway as an ASGI application.

    Args:
        hf: an open handle, of the event loop that serves.
        tokens: the bearer tokens.
        models: what callers may name as model.
        hosts: names by which callers may address it (loopback); None: any.
        channels: by name, where answers may be sent to.
        hooks: what `/hooks/…` takes; None: those doors are not there.
        routing: which agent and session take what was said on a channel.
        limits: what retention asks for, when a caller asks to prune.
        doors: the configured channels, by name.
        logins: browsers that are let in by a cookie; None: with usual lifetimes.
        metrics: what `/metrics` tells; None: it is not there.
        reloading: takes a changed configuration; None: it cannot be.
        security_contact: whom `/.well-known/security.txt` names; None: nobody.
        closing: set when waiting callers and watchers are to be sent away; None: never.
    """
    closing = closing or asyncio.Event()
    app = FastAPI(
        title="Holdfast gateway",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(check_scope)],
    )
    door = Door(hf)
    desk = Desk(hf, door, closing)
    app.include_router(ChatApi(desk, models).router())
    app.include_router(ResponsesApi(hf, desk, models).router())
    chats = [one for one in doors.values() if one.chat is not None]
    app.include_router(DashboardApi(hf, has_chat=bool(chats)).router())
    app.include_router(SessionsApi(hf, limits).router())
    app.include_router(ApprovalsApi(hf).router())
    app.include_router(UsageApi(hf).router())
    app.include_router(ChannelsApi(hf, doors).router())
    logins = logins or Logins(hf, tokens=tokens)
    app.include_router(LoginApi(logins).router())
    app.include_router(SecurityTxt(security_contact, hf.clock).router())
    for one in chats[:1]:
        assert one.chat is not None
        WebChatApi(hf, one.chat, one.hear, logins, closing).add_to(app)
    if metrics is not None:
        app.include_router(MetricsApi(metrics).router())
    if hooks is not None:
        app.include_router(hooks.router())
    if reloading is not None:
        app.include_router(ConfigApi(reloading).router())
    _Api(hf, door, EventStreams(hf, closing), closing, channels, routing, models).add_to(app)  # last: it describes all
    _add_errors(app)
    return Guard(app, tokens=tokens, hosts=hosts, logins=logins, mono=hf.clock.mono)


class _Api:
    """Routes outside `/v1`."""

    def __init__(
        self, hf: Holdfast, door: Door, streams: EventStreams, closing: asyncio.Event, channels: Collection[str],
        routing: Callable[[], Rules], models: Models,
    ) -> None:  # fmt: skip
        self._models = models
        self._channels = channels
        self._routing = routing
        self._hf = hf
        self._door = door
        self._streams = streams
        self._closing = closing

    def add_to(self, app: FastAPI) -> None:
        routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
            ("POST", "/api/sessions/{key:path}/messages", self.post_message),
            ("POST", "/api/messages", self.post_said),
            ("GET", "/api/sessions/{key:path}/recovery", self.plan_recovery),
            ("POST", "/api/sessions/{key:path}/recover", self.recover),
            ("GET", "/api/sessions", self.list_sessions),
            ("GET", "/api/inputs", self.list_inputs),
            ("GET", "/api/inputs/{id}", self.get_input),
            ("POST", "/api/inputs/{id}/cancel", self.cancel),
            ("GET", "/api/turns", self.list_turns),
            ("POST", "/api/turns/{id}/cancel", self.cancel),
            ("GET", "/api/why/{id:path}", self.get_why),
            ("GET", "/api/events", self.watch),
            ("GET", "/healthz", self.health),
            ("GET", "/readyz", self.readiness),
        ]
        for method, path, handler in routes:
            app.add_api_route(path, handler, methods=[method], response_model=None, operation_id=f"{method} {path}")
        description = openapi_of(app)
        app.openapi = lambda: description
        page = HTMLResponse(docs_page(description), headers={"content-security-policy": POLICY})

        async def docs() -> Response:
            return page

        app.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)

    async def post_message(
        self,
        request: Request,
        key: str,
        wait: bool = False,
        timeout: Annotated[float, Query(gt=0, le=WAIT_S_MAX)] = WAIT_S,  # noqa: ASYNC109 - a query parameter
    ) -> Response:
        """Say something in a session: `{"text" or "content", "lane"?, "model"?, "route"?, "queue"?}`.

        `route` ("channel:target") says where the answer is sent besides being kept under the input's id; `queue` what
        to do if the session is busy: "steer", "followup", "collect" or "interrupt".

        202 with `{"id", "state", "ahead"}` once it is stored. With `?wait=1`: 200 with the settled input, or 409 after
        `timeout` seconds (30, at most 600); the input goes on.
        """
        event = _read_message(validate_key(key), await read_object(request), waits=wait, channels=self._channels)
        return await self._take(request, event, timeout)

    async def post_said(
        self,
        request: Request,
        wait: bool = False,
        timeout: Annotated[float, Query(gt=0, le=WAIT_S_MAX)] = WAIT_S,  # noqa: ASYNC109 - a query parameter
    ) -> Response:
        """Hand over what was said on a channel, `{"channel", "peer", "kind"?, "account"?, "thread"?, "guild"?,
        "team"?}` (kind: "direct", "group" or "channel"); the rest is as in `/api/sessions/{key}/messages`.

        Bindings, `session.dm_scope` and identities choose the agent and the session. Answered as there, with `session`,
        `agent` and the `binding` that decided. The answer goes to `route`, or to `channel:peer` if that is here.
        """
        body = await read_object(request)
        said = _read_conversation(body)
        routed = choose_session(said, self._routing())
        if "route" not in body and said.channel in self._channels:
            body["route"] = f"{said.channel}:{said.peer}"
        event = _read_message(routed.key, body, waits=wait, channels=self._channels)
        event = replace(event, home=routed.home or routed.key)
        found = {"session": routed.key, "agent": routed.agent, "binding": routed.binding}
        return await self._take(request, event, timeout, found)

    async def _take(
        self, request: Request, event: InboundEvent, timeout_s: float, found: Mapping[str, Any] = MappingProxyType({})
    ) -> Response:
        check_model(self._models, event.model)
        asked = Asked.of(request)
        with self._hf.events.subscribe(session=event.session) as events, await self._door.admit(event, asked) as stay:
            headers = {"x-holdfast-input": stay.view.id}
            headers |= {"x-holdfast-joined": stay.view.id} if stay.joined else {}
            if not event.waits:
                stay.given()
                stored = {"id": stay.view.id, "state": stay.view.state, "ahead": stay.ahead, **found}
                return json_response(stored, 202, headers)
            view = await unless_gone(request, self._settled(events, stay.view, timeout_s))
            if not view.settled:
                raise still_running(view.id, timeout_s)
            stay.given()
            return json_response({**_shown(view), **found}, headers=headers)

    async def _settled(self, events: Subscription, view: InputView, timeout_s: float) -> InputView:
        """The input's view when it is settled, after `timeout_s`, or when the gateway closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for happening in follow(self._hf, events, view.id, look_first=True):
                    view = happening if isinstance(happening, InputView) else view
                    if self._closing.is_set():
                        break
        return view

    async def list_sessions(
        self, prefix: str = "", limit: Annotated[int, Query(ge=1, le=SESSIONS_MAX)] = 100
    ) -> Response:
        """Sessions, the latest used first."""
        return json_response({"sessions": await self._hf.sessions(limit=limit, prefix=prefix)})

    async def list_inputs(self, session: str | None = None, state: str | None = None, limit: Limit = 100) -> Response:
        """Inputs, newest first, without what was said: that is shown for each alone."""
        if state is not None and state not in states_of("input"):
            raise InputError(f"state: no state {state!r}; there are {', '.join(states_of('input'))}")
        views = await self._hf.inputs(session=session, state=state, limit=limit)
        return json_response({"inputs": [_shown(view, without=("payload", "result")) for view in views]})

    async def get_input(self, id: str) -> Response:
        """What became of an input: state, answer, reason."""
        return json_response(_shown(await self._hf.input(id)))

    async def list_turns(self, session: str | None = None, limit: Limit = 100) -> Response:
        """Turns, newest first."""
        return json_response({"turns": await self._hf.turns(session=session, limit=limit)})

    async def get_why(self, id: str) -> Response:
        """The chain from an input, a turn or a session to its outcome."""
        return json_response(await self._hf.why(id))

    async def cancel(self, request: Request, id: str) -> Response:
        """Ask an input, or a running turn, to stop: 202 `requested`, 200 `cancelled` or `already <state>`."""
        client = request.client.host if request.client else "unknown"
        result = await self._hf.cancel(id, by=f"http ({client})")
        return json_response({"id": id, "result": result}, 202 if result == "requested" else 200)

    async def plan_recovery(self, request: Request, key: str, ask: bool = False) -> Response:
        """Who owns a session now, doing what, and what `recover` would do about it. Changes nothing."""
        plan = await self._hf.plan_recovery(validate_key(key), ask=_orderer(request) if ask else None)
        return json_response(plan_shown(plan, await self._hf.held()))

    async def recover(self, request: Request, key: str) -> Response:
        """Close a session's turn if its process is dead: `{"ask"?: true, "wait_s"?: seconds}`, or no body.

        `ask`: a living owner is asked to end its turn, and gets 15 s for it; `wait_s` (at most 600): watch it for so
        long, and close it if it shows no life for 90 s. 200 with what was done and what came of it; 409 if that was
        without effect.
        """
        headers = request.headers
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        body = await read_object(request) if has_body else {}
        ask, wait_s = body.get("ask", False), body.get("wait_s", 0)
        if not isinstance(ask, bool):
            raise InputError("ask: must be true or false")
        if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or not 0 <= wait_s <= WAIT_S_MAX:
            raise InputError(f"wait_s: must be a number of seconds, at most {WAIT_S_MAX:g}")
        report = await self._hf.recover(validate_key(key), wait_s=wait_s, ask=_orderer(request) if ask else None)
        return json_response(report_shown(report), 409 if report.outcome == "ineffective" else 200)

    async def watch(self, session: str | None = None, input: str | None = None) -> Response:  # noqa: A002
        """Server-sent events of one session or input, or of all."""
        return self._streams.open(session=session, input_id=input)

    async def health(self) -> Response:
        """The process answers, and for which store: whoever finds its address in a file can tell that it is the one."""
        return json_response({"status": "ok", "store_id": self._hf.store.store_id})

    async def readiness(self) -> Response:
        """New input is accepted and the ledger can be read. If work is held back all the same, `held` says why."""
        if self._hf.draining:
            raise DrainingError(RETRY_AFTER_S)
        hold = await self._hf.held()
        return json_response({"status": "ready"} if hold is None else {"status": "ready", "held": hold.way_out})


def _read_conversation(body: dict[str, Any]) -> Conversation:
    for name in ("channel", "peer"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise InputError(f"{name}: must be a text that is not empty")
    for name in ("kind", "account", "thread", "guild", "team"):
        if not isinstance(body.get(name), str | None):
            raise InputError(f"{name}: must be a string")
    kind = body.get("kind") or "direct"
    if kind not in get_args(Kind):
        raise InputError(f"kind: must be one of {', '.join(get_args(Kind))}")
    return Conversation(
        body["channel"], kind, body["peer"], body.get("account") or "", body.get("thread"), body.get("guild"),
        body.get("team"),
    )  # fmt: skip


def _orderer(request: Request) -> str:
    return f"http ({request.client.host if request.client else 'unknown'})"


def _read_message(session: str, body: dict[str, Any], *, waits: bool, channels: Collection[str]) -> InboundEvent:
    content = body.get("text", body.get("content"))
    if "text" in body and not isinstance(content, str):
        raise InputError("text: must be a string")
    if not ("text" in body or "content" in body):
        raise InputError('what is said is missing: {"text": "…"}, or "content" with a text or a list of parts')
    for key in ("lane", "model", "route"):
        if not isinstance(body.get(key, ""), str | None):
            raise InputError(f"{key}: must be a string")
    message = read_user(content, "text" if "text" in body else "message")
    payload = {"content": message["content"]}
    route = Route.parse(body["route"]) if body.get("route") else None
    if route is not None and route.channel not in channels:
        raise InputError(f"route: no channel {route.channel!r} here; there are: {', '.join(sorted(channels))}")
    lane, model, queue = body.get("lane"), body.get("model") or None, body.get("queue")
    if queue is not None and queue not in get_args(Mode):
        raise InputError(f"queue: must be one of {', '.join(get_args(Mode))}")
    lane = "main" if lane is None else lane
    return InboundEvent(session, payload, lane=lane, waits=waits, queue=queue, model=model, route=route)


def _shown(view: InputView, *, without: Collection[str] = ()) -> dict[str, Any]:
    """An input as JSON, with what a reader would otherwise have to know the states for."""
    shown = {field.name: getattr(view, field.name) for field in fields(view) if field.name not in without}
    return shown | {"settled": view.settled}


def _add_errors(app: FastAPI) -> None:
    """One place where errors become answers. What is not ours stays a fault of the program: 500, with a traceback."""

    async def refused(_: Request, exc: Exception) -> Response:
        assert isinstance(exc, Refusal)
        return exc.response()

    async def ours(_: Request, exc: Exception) -> Response:
        refusal = refusal_of(exc)
        return (refusal or Refusal(500, str(exc), "server_error", type(exc).__name__)).response()

    async def routing(_: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        return Refusal(exc.status_code, str(exc.detail), headers=exc.headers).response()

    async def invalid(_: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)
        faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in exc.errors()]
        return Refusal(400, "; ".join(faults), code="invalid_input").response()

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=GONE_STATUS)

    async def unforeseen(_: Request, __: Exception) -> Response:
        return Refusal(500, "the gateway failed; its log has the reason", "server_error", "internal_error").response()

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HoldfastError, ours)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(CallerGoneError, gone)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unforeseen)
