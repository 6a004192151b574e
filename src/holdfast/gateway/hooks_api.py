"""Webhooks over HTTP: `/hooks/wake`, `/hooks/agent`, `/hooks/{name}`, and what became of a delivery.

These doors have keys of their own: a token that is not the gateway's, or a signature over the raw body. A delivery is
stored before it is acknowledged; the same delivery again is answered with the first one's state. Read `Hooks` first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from holdfast import ids
from holdfast.clock import epoch_ms
from holdfast.errors import InputError, UnknownInputError
from holdfast.gateway.body import decode, read_raw
from holdfast.gateway.recent import Recent
from holdfast.gateway.replies import RETRY_AFTER_S, Refusal, json_response
from holdfast.inbound import webhook
from holdfast.inbound.event import Accepted, InboundEvent, LaneFull, Route
from holdfast.inbound.timer import Wake
from holdfast.inbound.webhook import Scheme, Template, quoted
from holdfast.kernel import Holdfast
from holdfast.session.key import parse_key, validate_key
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from starlette.responses import Response

log = logging.getLogger("holdfast.hooks")

LANE, SOURCE = "hook", "hook"
BODY_BYTES_MAX = 262_144
FAILURES_MAX, FAILURES_S = 20, 60.0
"""So many wrong keys from one address within a minute, and it is not listened to for the rest of it."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One named hook, as configured.

    Args:
        events: those that are taken; empty: all. What is not taken is answered with 200 and stored nowhere.
        session: template of the session key; one that a payload has a say in must begin with an allowed prefix.
        message: template of the text; None: the payload itself, as JSON.
        trusted: the text is not quoted as data from outside.
        per_minute: deliveries that are taken within a minute.
    """

    name: str
    scheme: Scheme
    secret: str
    events: tuple[str, ...] = ()
    session: Template = field(default_factory=lambda: Template("hook:{{ hook }}"))
    message: Template | None = None
    route: Route | None = None
    model: str | None = None
    trusted: bool = False
    wakes: str | None = None  # an agent whose heartbeat is woken instead of a turn
    per_minute: int = 30


@dataclass(frozen=True, slots=True)
class HookRules:
    """All hooks of a gateway, and what callers may choose. `token` None: there are only signed hooks."""

    token: str | None
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    session_prefixes: tuple[str, ...] = ("hook:",)
    may_choose_session: bool = False
    agents: Collection[str] = ("main",)
    channels: Collection[str] = ()
    per_minute: int = 30


class Hooks:
    """The routes. One per application."""

    def __init__(self, hf: Holdfast, rules: HookRules) -> None:
        self._hf = hf
        self._rules = rules
        self._failures = Recent(FAILURES_MAX, FAILURES_S)
        self._taken: dict[str, Recent] = {}

    def exchange(self, rules: HookRules) -> None:
        """Other ones from now on."""
        self._rules = rules
        self._taken.clear()

    def router(self) -> APIRouter:
        """The fixed names first: the last route takes any."""
        router = APIRouter()
        routes = [
            ("POST", "/hooks/wake", self.wake),
            ("POST", "/hooks/agent", self.agent),
            ("GET", "/hooks/runs/{id}", self.run),
            ("POST", "/hooks/{name}", self.named),
        ]
        for method, path, handler in routes:
            router.add_api_route(path, handler, methods=[method], response_model=None, operation_id=f"{method} {path}")
        return router

    async def wake(self, request: Request) -> Response:
        """Tell the agent's heartbeat of something: `{"text", "mode"?: "now" | "next-heartbeat", "agent"?}`."""
        body = self._object(await self._let_in(request, self._token_hook("wake")))
        mode = body.get("mode", "now")
        if mode not in ("now", "next-heartbeat"):
            raise InputError('mode: must be "now" or "next-heartbeat"')
        return await self._wake(
            self._agent(body), _text(body, "text"), mode == "now", self._key("token", request, body)
        )

    async def agent(self, request: Request) -> Response:
        """Give an agent something to do: `{"message", "name"?, "agent"?, "session"?, "channel"?, "to"?, "model"?}`.

        202 with the input's id and where to ask what became of it; the answer goes to `channel` and `to`, if given.
        """
        hook = self._token_hook("agent")
        body = self._object(await self._let_in(request, hook))
        text, name = _text(body, "message"), str(body.get("name") or "agent")[:64]
        agent, session = self._agent(body), body.get("session")
        if session is not None and not self._rules.may_choose_session:
            raise InputError("session: callers may not choose it here (hooks.allow_request_session)")
        key = self._key("token", request, body)
        if session is None:  # the same delivery has the same one
            own = ids.derived_id("hook", key)[:16] if key is not None else ids.nonce()[:16]
            session = f"hook:{own}" if agent == "main" else f"agent:{agent}:hook:{own}"
        event = InboundEvent(
            self._session(session, is_chosen=body.get("session") is not None),
            {"content": quoted(name, text)},
            route=self._route(body),
            model=_optional(body, "model"),
            key=key,
            origin={"hook": name},
        )
        return await self._take(event, hook)

    async def named(self, request: Request, name: str) -> Response:
        """A delivery for one of the configured hooks, in whatever form its sender has."""
        hook = self._rules.hooks.get(name)
        if hook is None:
            raise Refusal(404, f"there is no hook {name!r}", code="unknown_hook")
        body = decode(await self._let_in(request, hook))
        headers = _headers(request)
        if hook.scheme == "slack" and isinstance(body, dict) and body.get("type") == "url_verification":
            return json_response({"challenge": str(body.get("challenge", ""))[:512]})
        happened = webhook.event_name(hook.scheme, headers, body)
        if hook.events and happened not in hook.events:
            return json_response({"state": "ignored", "event": happened})
        values = {**(body if isinstance(body, dict) else {}), "payload": body, "hook": name, "event": happened}
        text = (hook.message or Template("{{ payload }}")).fill(values)
        if not text.strip():
            raise InputError(f"hook {name!r}: its template made no text of this payload")
        text = text if hook.trusted else quoted(name, text)
        key = webhook.delivery_key(hook.scheme, headers, body)
        if hook.wakes is not None:
            return await self._wake(hook.wakes, text, True, key)
        session = self._session(hook.session.fill(values), is_chosen=not hook.session.is_fixed)
        origin = {"hook": name, "event": happened}
        event = InboundEvent(session, {"content": text}, route=hook.route, model=hook.model, key=key, origin=origin)
        return await self._take(event, hook)

    async def run(self, request: Request, id: str) -> Response:
        """What became of a delivery: its state and answer, and on which way that answer is."""
        self._check_key(request, self._token_hook("runs"), b"")
        view = await self._hf.input(id)
        if view.source.partition(":")[0] != SOURCE:
            raise UnknownInputError(f"no input {id!r} came by a hook")
        sent = await self._hf.store.deliveries(state=None, limit=100, input_id=id)
        shown = {"id": id, "state": view.state, "settled": view.settled, "answer": view.answer, "detail": view.detail}
        deliveries = [{"route": one.route, "part": one.part, "state": one.state, "detail": one.detail} for one in sent]
        return json_response({**shown, "session": view.session, "deliveries": deliveries})

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _let_in(self, request: Request, hook: Hook) -> bytes:
        """The body, once its sender is known and not too busy.

        Raises:
            Refusal: 400 for a token in the query, 401, 413, 415, 429.
        """
        raw = await read_raw(request, bytes_max=BODY_BYTES_MAX)
        self._check_key(request, hook, raw)
        taken = self._taken.setdefault(hook.name, Recent(hook.per_minute, 60.0))
        if taken.is_full("", self._hf.clock.mono()):
            raise _too_many(f"hook {hook.name!r} takes {hook.per_minute} deliveries a minute")
        taken.add("", self._hf.clock.mono())
        return raw

    def _check_key(self, request: Request, hook: Hook, raw: bytes) -> None:
        if "token" in request.query_params:
            raise Refusal(400, "a token in the address ends up in logs; send it as a header", code="token_in_query")
        now = self._hf.clock.mono()
        address = request.client.host if request.client is not None else ""
        if self._failures.is_full(address, now):
            raise _too_many("too many wrong keys from this address")
        if not webhook.is_signed(hook.scheme, hook.secret, _headers(request), raw, self._hf.clock.now().timestamp()):
            self._failures.add(address, now)
            log.warning("hook %s: refused, wrong key or signature (%s)", on_one_line(hook.name), address)
            raise Refusal(401, "the token or signature is not right", "authentication_error", "invalid_signature")

    async def _take(self, event: InboundEvent, hook: Hook) -> Response:
        """Store it, and say where to ask; a delivery that came before is answered with what became of it."""
        full = InboundEvent(
            event.session, event.payload, source=f"{SOURCE}:{hook.name}", key=event.key, lane=LANE, route=event.route,
            model=event.model, origin=event.origin,
        )  # fmt: skip
        admission = await self._hf.accept(full)
        if isinstance(admission, LaneFull):
            raise _too_many(f"lane {admission.lane!r} is full ({admission.waiting} waiting)")
        view = await self._hf.input(admission.input_id)
        said = {"id": view.id, "state": view.state, "session": view.session, "status": f"/hooks/runs/{view.id}"}
        if isinstance(admission, Accepted):
            return json_response(said, 202)
        return json_response({**said, "duplicate": True, "answer": view.answer, "detail": view.detail})

    async def _wake(self, agent: str, text: str, now: bool, key: str | None) -> Response:
        at_ms = epoch_ms(self._hf.clock.now())
        name = ids.derived_id("wake", agent, key) if key is not None else ids.nonce()
        wake = Wake(f"wake_{name}", f"heartbeat:{agent}", "hook", text, "now" if now else "next", at_ms)
        is_new = await self._hf.store.add_wake(wake)
        self._hf.work_arrived.set()
        return json_response({"id": wake.id, "state": "stored", "duplicate": not is_new}, 202 if is_new else 200)

    # ── what a caller may choose ─────────────────────────────────────────────────────────────────────────────────────

    def _token_hook(self, name: str) -> Hook:
        if self._rules.token is None:
            raise Refusal(404, "this door needs hooks.token_env or hooks.token_file", code="hooks_without_token")
        return Hook(name, "token", self._rules.token, per_minute=self._rules.per_minute)

    @staticmethod
    def _key(scheme: Scheme, request: Request, body: Any) -> str | None:
        return webhook.delivery_key(scheme, _headers(request), body)

    @staticmethod
    def _object(raw: bytes) -> dict[str, Any]:
        body = decode(raw)
        if not isinstance(body, dict):
            raise InputError("the body must be a JSON object")
        return body

    def _agent(self, body: Mapping[str, Any]) -> str:
        agent = _optional(body, "agent") or "main"
        if agent not in self._rules.agents:
            raise InputError(f"agent: {agent!r} may not be asked here; there are: {', '.join(self._rules.agents)}")
        return agent

    def _session(self, key: str, *, is_chosen: bool) -> str:
        """A session key that may be used: what a payload or a caller has chosen stays within the allowed prefixes."""
        if is_chosen and not key.startswith(self._rules.session_prefixes):
            raise InputError(f"session: must begin with one of {', '.join(self._rules.session_prefixes)}")
        if parse_key(validate_key(key)).agent not in self._rules.agents:
            raise InputError("session: is of an agent that may not be asked here")
        return key

    def _route(self, body: Mapping[str, Any]) -> Route | None:
        channel, to = _optional(body, "channel"), _optional(body, "to")
        if channel is None and to is None:
            return None
        if channel is None or to is None or channel not in self._rules.channels:
            raise InputError(f"channel, to: needs both, of a channel that is here: {', '.join(self._rules.channels)}")
        return Route(channel, to)


def _headers(request: Request) -> dict[str, str]:
    return dict(request.headers.items())


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name}: must be a text that is not empty")
    return value


def _optional(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(f"{name}: must be a text that is not empty, or left out")
    return value


def _too_many(why: str) -> Refusal:
    return Refusal(429, f"{why}; try again later", "rate_limit_error", "too_many", {"retry-after": str(RETRY_AFTER_S)})
