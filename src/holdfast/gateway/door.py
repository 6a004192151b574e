"""How a request becomes an input, or joins one: the HTTP side of the one door.

Official clients retry twice and send no idempotency key; a retry must not become a second turn. Rules (specification,
"Inputs and deliveries"): an `Idempotency-Key` decides alone; without one a request joins an earlier one only if token,
session and body are equal, and it says itself that it is a retry, or the earlier caller was cut off before its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from holdfast.clock import epoch_ms
from holdfast.errors import InputError
from holdfast.gateway.callers import GIVEN_S, Caller, Callers
from holdfast.gateway.replies import RETRY_AFTER_S, Refusal
from holdfast.gateway.tokens import check
from holdfast.ids import derived_id, nonce
from holdfast.inbound.commands import read_command
from holdfast.inbound.event import Accepted, InboundEvent, LaneFull
from holdfast.inbound.scope import EVERYTHING, Scope, of_command
from holdfast.kernel import Holdfast
from holdfast.session.key import validate_key
from holdfast.store.views import InputView
from holdfast.turn.events import TurnEvent

if TYPE_CHECKING:
    from starlette.requests import Request

SOURCE = "http"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about itself, apart from its body.

    account: short name of the token. key: its `Idempotency-Key`. retries: how often the client says it has tried
    before. session: the one its header names, None for none. client: how it calls itself. scopes: of its token.
    """

    account: str
    key: str | None
    retries: int
    session: str | None
    client: str
    scopes: frozenset[Scope] = EVERYTHING

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Raises InputError: a session that cannot be one, or an empty key."""
        headers = request.headers
        key = headers.get("idempotency-key")
        if key is not None and not key.strip():
            raise InputError("Idempotency-Key: must not be empty")
        retries = headers.get("x-stainless-retry-count", "")
        session = headers.get("x-holdfast-session")
        return cls(
            account=request.state.account,
            key=key,
            retries=int(retries) if retries.isdecimal() and len(retries) < 9 else 0,
            session=None if session is None else validate_key(_utf8(session)),
            client=headers.get("user-agent", "")[:200],
            scopes=request.state.scopes,
        )


class Stay:
    """One caller's wait for one input. Leave it when the connection ends, however it ends."""

    def __init__(self, hf: Holdfast, caller: Caller, view: InputView, *, joined: bool, ahead: int) -> None:
        self._hf = hf
        self._caller = caller
        self.view = view
        self.joined = joined
        self.ahead = ahead
        self._is_here = True
        self._has_answer = False
        caller.present += 1

    def given(self) -> None:
        """The whole answer, or the acknowledgement that was asked for, is on its way to the caller."""
        self._has_answer = True
        self._caller.given_mono = self._hf.clock.mono()

    def leave(self) -> None:
        """The connection has ended. Leaving twice is leaving once."""
        if not self._is_here:
            return
        self._is_here = False
        self._caller.present -= 1
        if not self._has_answer:
            _tell(self._hf, "input.left", self.view, present=self._caller.present)

    def __enter__(self) -> Stay:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.leave()


class Door:
    """Admits requests. One per application."""

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf
        self._callers = Callers()
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def admit(self, event: InboundEvent, asked: Asked, *, is_fresh: bool = False) -> Stay:
        """Store the event, or join the input that it repeats. Durable when this returns.

        Args:
            event: with session, payload, lane, model and waits; the rest is filled in.
            is_fresh: its session was made for it by `fresh_session`; if it repeats a request, that one's counts.

        Raises:
            Refusal: 429, the lane or the session's queue is full; 403, a command that the token may not say. Nothing
                was stored.
            errors of `Holdfast.accept`.
        """
        check(asked.scopes, of_command(read_command(event.lane, event.payload)))
        digest = _digest(event, asked.account, None if is_fresh else event.session)
        origin = {"join": digest, "retries": asked.retries, "client": asked.client}
        event = replace(event, source=SOURCE, account=asked.account, key=asked.key, origin=origin)
        # Equal requests come in one after the other, so that a retry finds its twin stored.
        async with self._lines.setdefault(digest, asyncio.Lock()):
            twin = None if asked.key is not None else await self._twin(event, digest, is_retry=asked.retries > 0)
            if twin is not None:
                return self._joined(twin, digest, asked)
            admission = await self._hf.accept(event)
            if isinstance(admission, LaneFull):
                raise _full(admission)
            view = await self._hf.input(admission.input_id)
            if not isinstance(admission, Accepted):
                return self._joined(view, digest, asked)
            caller = self._callers.of_input(view.id, digest)
            return Stay(self._hf, caller, view, joined=False, ahead=admission.ahead)

    def _joined(self, view: InputView, digest: str, asked: Asked) -> Stay:
        _tell(self._hf, "input.joined", view, retries=asked.retries)
        return Stay(self._hf, self._callers.of_input(view.id, digest), view, joined=True, ahead=view.position or 0)

    async def _twin(self, event: InboundEvent, digest: str, *, is_retry: bool) -> InputView | None:
        """The input that this request repeats, if it does. A failed one is no answer: a retry tries again."""
        for caller in self._callers.of_digest(digest):
            view = await self._hf.input(caller.input_id)
            if not view.settled and caller.may_be_joined(is_retry=is_retry):
                return view
            is_answer = view.settled and view.state != "failed"
            if is_answer and is_retry and caller.may_be_repeated(self._hf.clock.mono()):
                return view
        return await self._twin_of_another_process(event, digest) if is_retry else None

    async def _twin_of_another_process(self, event: InboundEvent, digest: str) -> InputView | None:
        """The same from the store alone: this gateway was started after the first try, or is not the one it went to."""
        id = await self._find_stored(event, digest)
        if id is None:
            return None
        view = await self._hf.input(id)
        earliest_ms = epoch_ms(self._hf.clock.now()) - GIVEN_S * 1000
        is_late = view.settled_at_ms is not None and view.settled_at_ms < earliest_ms
        return None if is_late or view.state == "failed" else view

    async def _find_stored(self, event: InboundEvent, digest: str) -> str | None:
        prefix, marker, _ = event.session.partition(f"{digest}-")
        if not marker:
            return await self._hf.find_join(event)
        for session in await self._hf.sessions(prefix=prefix + marker, limit=1):
            for view in await self._hf.inputs(session=session.key, limit=1):
                return view.id
        return None


def fresh_session(agent: str, event: InboundEvent, asked: Asked) -> str:
    """The key of a session of its own, by which a retry finds it again: `agent:<agent>:chat:<request>-<random>`.

    A request with an idempotency key has the same one each time it is sent.
    """
    tail = nonce() if asked.key is None else derived_id("session", asked.account, asked.key)
    return f"agent:{agent}:chat:{_digest(event, asked.account, None)}-{tail}"


class CallerGoneError(Exception):
    """The connection was closed before there was an answer. The turn goes on."""


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, unless the connection closes first.

    Raises:
        CallerGoneError: it did; `work` was cancelled.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_closed(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise CallerGoneError
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _closed(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tell(hf: Holdfast, kind: str, view: InputView, **data: Any) -> None:
    hf.events.publish(TurnEvent(kind, view.session, epoch_ms(hf.clock.now()), view.id, data=data))


def _digest(event: InboundEvent, account: str, session: str | None) -> str:
    """What makes two requests equal: token, session as it was named, and body."""
    told = [account, session, event.lane, event.model, event.payload]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]


def _full(full: LaneFull) -> Refusal:
    return Refusal(
        429,
        f"lane {full.lane!r} is full ({full.waiting} waiting, limit {full.limit}); try again later",
        "rate_limit_error",
        "lane_full",
        {"retry-after": str(RETRY_AFTER_S)},
    )


def _utf8(value: str) -> str:
    """A header's text: servers decode headers as latin-1, people write UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
