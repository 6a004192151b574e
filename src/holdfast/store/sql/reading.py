"""What readers ask of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from holdfast.doctor.facts import PinFact
from holdfast.inbound.child import Child
from holdfast.inbound.pairing import ListenerView, Pairing, TurnedAwayCount
from holdfast.inbound.timer import Timer, TimerRun, Wake
from holdfast.lane.policy import Waiting, may_yield, overtaker
from holdfast.model.policy import ModelsNow, Pin
from holdfast.model.usage import ModelCall
from holdfast.outbox.outbox import OpenDelivery
from holdfast.recovery.watching import Mark
from holdfast.store.sql import (
    approval_rows,
    archive_rows,
    background_rows,
    boots,
    channel_rows,
    child_rows,
    inbox,
    marks,
    model_rows,
    outbox_rows,
    session_rows,
    story_rows,
    timer_rows,
    trouble_rows,
    usage_rows,
)
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Holder, Ledger
from holdfast.store.sql.rows import view_of_input
from holdfast.store.views import (
    ArchiveView,
    Backlog,
    Cursor,
    DeliveryView,
    Happened,
    Hold,
    InputView,
    Stories,
    Trouble,
    TurnView,
    UsedIn,
)
from holdfast.tool.approval import Approval, Grant
from holdfast.tool.running import Program


class LedgerReading(Ledger, Protocol):
    """Views. None of it writes or takes a lock that a writer needs."""

    def view_of(self, owned: Holder) -> InputView | None:
        """The input that a claimed turn answers, as it was claimed."""
        return None if owned.input_row is None else view_of_input(owned.input_row)

    async def input(self, input_id: str) -> InputView:
        return await self.reads.input(input_id)

    async def turn(self, turn_id: str) -> TurnView | None:
        return await self.reads.turn(turn_id)

    async def turns_of(self, input_id: str) -> list[TurnView]:
        return await self.reads.turns_of(input_id)

    async def inputs(self, *, session: str | None, state: str | None, limit: int) -> list[InputView]:
        return await self.reads.inputs(session=session, state=state, limit=limit)

    async def turns(self, *, session: str | None, limit: int) -> list[TurnView]:
        return await self.reads.turns(session=session, limit=limit)

    async def deliveries(self, *, state: str | None, limit: int, input_id: str | None = None) -> list[DeliveryView]:
        return await self.reads.deliveries(state=state, limit=limit, input_id=input_id)

    async def delivery(self, delivery_id: str) -> OpenDelivery | None:
        """One row, in whatever state; None: there is none."""
        now_ms = self.now_ms()
        return await self.reads.ask(
            lambda conn: outbox_rows.delivery(conn, delivery_id, now_ms, lambda row: self.life_in(conn, row["process"]))
        )

    async def held(self) -> Hold | None:
        return await self.reads.ask(boots.held)

    async def marks(self) -> list[Mark]:
        return await self.reads.ask(marks.marks)

    async def asked_to_end(self) -> dict[str, str]:
        return await self.reads.ask(marks.asked_to_end)

    async def state_of_input(self, input_id: str) -> str:
        return (await self.reads.input(input_id)).state

    async def stories(self, *, since_ms: int, also: Sequence[str], limit: int, after: int | None = None) -> Stories:
        return await self.reads.ask(lambda conn: story_rows.stories(conn, since_ms, also, limit, after))

    async def trouble(self, *, since_ms: int, limit: int) -> Trouble:
        return await self.reads.ask(lambda conn: trouble_rows.trouble(conn, since_ms, limit))

    async def backlog(self) -> Backlog:
        return await self.reads.backlog(self.now_ms())

    async def happened(self, since: Cursor | None) -> Happened:
        return await self.reads.happened(since, self.process)

    async def events(self, *, input_id: str | None = None, turn: str | None = None) -> list[dict[str, Any]]:
        return await self.reads.events(input_id=input_id, turn=turn)

    async def cancel_requests(self) -> dict[str, str]:
        return await self.reads.cancel_requests()

    async def find_transcript(self, key: str) -> str | None:
        return await self.reads.find_transcript(key)

    async def find_join(self, session: str, join: str, since_ms: int) -> str | None:
        return await self.reads.find_join(session, join, since_ms)

    async def overtaken_by(self, owned: Holder) -> str | None:
        row = owned.input_row
        if row is None or not may_yield(row["lane"]):
            return None
        now_ms = self.now_ms()

        def ask(conn: Connection) -> str | None:
            in_line = inbox.waiting(conn, now_ms, owned.transcript)
            return overtaker(row["lane"], inbox.times_yielded(conn, row["id"]), in_line) if in_line else None

        return await self.reads.ask(ask)

    async def keys_with(self, session: str) -> list[str]:
        return await self.reads.ask(lambda conn: session_rows.keys_with(conn, session))

    async def last_spoken_ms(self, session: str, *, before_input: str | None = None) -> int | None:
        return await self.reads.ask(lambda conn: session_rows.last_spoken_ms(conn, session, before_input))

    async def read_mark(self, transcript: str, by: str) -> str | None:
        return await self.reads.ask(lambda conn: session_rows.read_mark(conn, transcript, by))

    async def archives(self, session: str | None, limit: int) -> list[ArchiveView]:
        return await self.reads.ask(lambda conn: archive_rows.listed(conn, session, limit))

    async def unfinished_archives(self) -> list[ArchiveView]:
        return await self.reads.ask(archive_rows.unfinished)

    async def timers(self, *, kind: str | None = None) -> list[Timer]:
        return await self.reads.ask(lambda conn: timer_rows.timers(conn, kind))

    async def timer_runs(self, *, timer: str | None = None, running: bool = False, limit: int = 100) -> list[TimerRun]:
        return await self.reads.ask(lambda conn: timer_rows.runs(conn, timer, running, limit))

    async def wakes(self) -> list[Wake]:
        return await self.reads.ask(timer_rows.wakes)

    async def children(
        self, *, session: str | None = None, parent_input: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Child]:
        return await self.reads.ask(lambda conn: child_rows.children(conn, session, parent_input, only_open, limit))

    async def child(self, child: str) -> Child | None:
        return await self.reads.ask(lambda conn: child_rows.by_id(conn, child))

    async def last_word(self, input_id: str) -> str | None:
        return await self.reads.ask(lambda conn: child_rows.last_word(conn, input_id))

    async def queue(self) -> tuple[list[Waiting], dict[str, int], bool]:
        return await self.reads.queue(self.now_ms(), with_agents=bool(self.options.limits.agents))

    async def pins(self, sessions: Iterable[str]) -> dict[str, Pin]:
        wanted = tuple(sessions)
        return await self.reads.ask(lambda conn: model_rows.pins_of(conn, wanted))

    async def pin_facts(self, session: str | None = None) -> list[PinFact]:
        return await self.reads.ask(lambda conn: model_rows.pin_facts(conn, session))

    async def models(self) -> ModelsNow:
        return await self.reads.ask(model_rows.everything)

    async def approval(self, approval: str) -> Approval | None:
        return await self.reads.ask(lambda conn: approval_rows.by_id(conn, approval))

    async def approvals(self, *, session: str | None, pending: bool, limit: int) -> list[Approval]:
        return await self.reads.ask(
            lambda conn: approval_rows.listed(conn, session=session, pending=pending, limit=limit)
        )

    async def granted(self, session: str, tool: str, subject: str) -> Grant | None:
        now_ms = self.now_ms()
        return await self.reads.ask(lambda conn: approval_rows.granted(conn, session, tool, subject, now_ms))

    async def grants(self, session: str | None) -> list[Grant]:
        now_ms = self.now_ms()
        return await self.reads.ask(lambda conn: approval_rows.grants(conn, session, now_ms))

    async def background(
        self, *, session: str | None = None, only_open: bool = False, limit: int = 100
    ) -> list[Program]:
        return await self.reads.ask(
            lambda conn: background_rows.programs(
                conn, lambda process: self.life_in(conn, process), session=session, only_open=only_open, limit=limit
            )
        )

    async def pairing(self, channel: str, sender: str) -> Pairing | None:
        return await self.reads.ask(lambda conn: channel_rows.pairing(conn, channel, sender))

    async def pairings(self, *, channel: str | None = None, limit: int = 100) -> list[Pairing]:
        return await self.reads.ask(lambda conn: channel_rows.pairings(conn, channel, limit))

    async def turned_away(self, *, channel: str | None = None, limit: int = 100) -> list[TurnedAwayCount]:
        return await self.reads.ask(lambda conn: channel_rows.turned_away(conn, channel, limit))

    async def listeners(self) -> list[ListenerView]:
        return await self.reads.ask(
            lambda conn: channel_rows.listeners(conn, lambda process: self.life_in(conn, process))
        )

    async def position(self, channel: str) -> str | None:
        return await self.reads.ask(lambda conn: channel_rows.position(conn, channel))

    async def calls_of(self, turn: str) -> list[ModelCall]:
        return await self.reads.ask(lambda conn: usage_rows.of_turn(conn, turn))

    async def usage(
        self, *, since_ms: int, until_ms: int, session: str | None = None, agent: str | None = None
    ) -> list[UsedIn]:
        return await self.reads.ask(
            lambda conn: usage_rows.sums(conn, since_ms=since_ms, until_ms=until_ms, session=session, agent=agent)
        )
