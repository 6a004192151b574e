"""The dashboard at `/`: its page, what it asks for besides the other routes, and the few orders it gives."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse

from holdfast.clock import epoch_ms
from holdfast.doctor.pins import pin_fault
from holdfast.errors import InputError, UnknownInputError
from holdfast.gateway.assets import FOLDER, PAGE_HEADERS
from holdfast.gateway.replies import json_response
from holdfast.inbound.timer import shown_timer
from holdfast.kernel import Holdfast
from holdfast.lane.states import states_of
from holdfast.model.cooldown import left_s
from holdfast.observe.lines import describe, ids_beside
from holdfast.observe.timeline import lane_of
from holdfast.observe.trouble import incidents_of
from holdfast.observe.work import work_of
from holdfast.outbox import orders
from holdfast.session.key import validate_key
from holdfast.session.lines import Line
from holdfast.session.visibility import visibility_of
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from starlette.responses import Response

TURNS_MAX = 10_000
LINES_MAX = 500
ALSO_MAX = 500
INCIDENTS_MS = 7 * 86_400_000
"""How far back incidents are told of, unless it is said: as `holdfast doctor` does with takeovers."""

Since = Annotated[int, Query(ge=0, le=1 << 53)]
"""Milliseconds since 1970 as JavaScript counts them; SQLite counts no further than 2^63."""


class DashboardApi:
    """One per application. `has_chat`: there is a chat to lead to."""

    def __init__(self, hf: Holdfast, *, has_chat: bool) -> None:
        self._hf = hf
        self._has_chat = has_chat

    def router(self) -> APIRouter:
        router = APIRouter()
        for method, path, handler in (
            ("GET", "/api/timeline", self.timeline),
            ("GET", "/api/overview", self.overview),
            ("GET", "/api/models", self.models),
            ("GET", "/api/timers", self.timers),
            ("GET", "/api/outbox", self.outbox),
            ("GET", "/api/incidents", self.incidents),
            ("POST", "/api/outbox/{id}/{order}", self.order),
            ("GET", "/api/sessions/{key:path}/transcript", self.transcript),
        ):
            router.add_api_route(path, handler, methods=[method], response_model=None, operation_id=f"{method} {path}")
        router.add_api_route("/", self.page, methods=["GET"], include_in_schema=False)
        return router

    async def page(self) -> Response:
        return FileResponse(FOLDER / "dashboard.html", media_type="text/html", headers=PAGE_HEADERS)

    async def timeline(
        self,
        since_ms: Since = 0,
        also: str = "",
        limit: Annotated[int, Query(ge=1, le=TURNS_MAX)] = 2000,
        after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    ) -> Response:
        """The newest turns as bars and marks, the oldest first: those that ran after `since_ms`, those that run, those
        named in `also`, separated by commas, and those of which something was told after `after`. `now_ms` (the
        gateway's time) and `told` are what the next question names as `since_ms` and `after`.
        """
        now_ms = epoch_ms(self._hf.clock.now())
        named = [name for name in also.split(",") if name][:ALSO_MAX]
        found = await self._hf.store.stories(since_ms=since_ms, also=named, limit=limit, after=after)
        # Thousands of turns take a while: not on the loop, where everybody's turns would wait for them.
        return await asyncio.to_thread(
            lambda: json_response({"now_ms": now_ms, "told": found.told, "turns": list(map(lane_of, found.turns))})
        )

    async def overview(self) -> Response:
        """What waits and runs, by lane; what holds work back; what stands still; what has not gone out."""
        hf = self._hf
        now, held, now_ms = await hf.store.backlog(), await hf.held(), epoch_ms(hf.clock.now())
        undelivered = [
            {"channel": channel, "state": state, "count": count, "since_ms": since_ms}
            for (channel, state), (count, since_ms) in sorted(now.undelivered.items())
        ]
        turns = [
            {"turn": one.owner.turn, "session": one.owner.sessions[0], "lane": one.owner.lane, "work": work_of(one)}
            for one in await hf.findings()
        ]
        return json_response(
            {"now_ms": now_ms, "waiting": now.waiting, "oldest_accepted_ms": now.oldest_accepted_ms,
             "running": now.running, "undelivered": undelivered, "approvals": now.asked, "process": hf.process_id,
             "chat": self._has_chat,
             "held": None if held is None else {"since_ms": held.since_ms, "text": held.way_out}, "turns": turns}
        )  # fmt: skip

    async def models(self) -> Response:
        """Cool-downs with the seconds left; pins with who set them, why, and what is wrong with them; fallbacks."""
        known, now_ms = await self._hf.models(), epoch_ms(self._hf.clock.now())
        cooling = [{**asdict(row), "left_s": left_s(row, now_ms)} for row in known.cooldowns]
        pins = [{**asdict(pin), "fault": pin_fault(pin)} for pin in await self._hf.store.pin_facts()]
        return json_response({"cooldowns": cooling, "pins": pins, "fallbacks": known.fallbacks})

    async def timers(self, runs: Annotated[int, Query(ge=0, le=100)] = 5) -> Response:
        """Cron jobs and heartbeats with their next times and last runs, skips with their reasons among them."""
        found: list[dict[str, Any]] = []
        for timer in await self._hf.store.timers():
            last = await self._hf.store.timer_runs(timer=timer.id, limit=runs) if runs else []
            found.append({**shown_timer(timer), "runs": last})
        return json_response({"timers": found})

    async def outbox(self, state: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Response:
        """Deliveries, newest first; `state`: pending, started, sent, unknown, failed or dropped."""
        if state is not None and state not in states_of("delivery"):
            raise InputError(f"state: no state {state!r}; there are {', '.join(states_of('delivery'))}")
        return json_response({"deliveries": await self._hf.deliveries(state=state, limit=limit)})

    async def incidents(
        self, since_ms: Since | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 300
    ) -> Response:
        """What went wrong since `since_ms` (a week ago), newest first: takeovers, holders that show no life, walks down
        a chain of models, pins, turns that stood still, recoveries, deaths, failures, deliveries that were given up.
        Each with what `/api/why` is to be asked for.
        """
        now_ms = epoch_ms(self._hf.clock.now())
        since_ms = now_ms - INCIDENTS_MS if since_ms is None else since_ms
        found = await self._hf.store.trouble(since_ms=since_ms, limit=limit)
        told = incidents_of(found, await self._hf.store.pin_facts(), since_ms=since_ms, limit=limit)
        return json_response({"now_ms": now_ms, "since_ms": since_ms, "incidents": told})

    async def order(self, request: Request, id: str, order: Literal["retry", "drop"]) -> Response:
        """Send what was given up after all, or never; as `holdfast outbox retry` and `drop`."""
        by = f"http ({request.client.host if request.client else 'unknown'})"
        act = orders.retry if order == "retry" else orders.drop
        moved = await act(self._hf, id, by=by)
        return json_response({"id": moved.id, "state": moved.state, "detail": moved.detail})

    async def transcript(
        self, key: str, raw: bool = False, limit: Annotated[int, Query(ge=1, le=LINES_MAX)] = 200
    ) -> Response:
        """The last lines of a conversation: who, when, text, visibility, and whether they stand on the active branch.
        `raw`: the lines as they are.
        """
        transcript = await self._hf.store.find_transcript(validate_key(key))
        if transcript is None:
            raise UnknownInputError(f"no session {on_one_line(key)!r}")
        lines = await self._hf.store.read_end(transcript)
        shown, beside = lines[-limit:], ids_beside(lines)
        told = [_raw(one) if raw else _shown(one, beside=one.id in beside) for one in shown]
        return json_response({"session": key, "lines": told, "more": len(lines) > len(shown)})


def _raw(line: Line) -> dict[str, Any]:
    return {"kind": line.kind, "text": line.raw.decode("utf-8", "backslashreplace")}


def _shown(line: Line, *, beside: bool) -> dict[str, Any]:
    heading, text = describe(line)
    return {"id": line.id, "kind": line.kind, "role": line.message_role, "heading": heading, "text": text,
            "visibility": visibility_of(line), "beside": beside}  # fmt: skip
