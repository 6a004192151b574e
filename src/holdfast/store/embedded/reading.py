"""What readers ask the embedded store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from holdfast.errors import ResourceError
from holdfast.inbound.child import Child
from holdfast.inbound.pairing import ListenerView, Pairing, TurnedAwayCount
from holdfast.inbound.timer import Timer, TimerRun, Wake
from holdfast.lane.policy import Waiting, may_yield, overtaker
from holdfast.model.policy import ModelsNow, Pin
from holdfast.model.usage import ModelCall
from holdfast.outbox.outbox import OpenDelivery
from holdfast.recovery.classify import Owner
from holdfast.recovery.watching import Mark
from holdfast.session.lines import Line
from holdfast.session.retention import Conversation, Kept
from holdfast.store.embedded import (
    approval_rows,
    archive_rows,
    background_rows,
    boots,
    channel_rows,
    child_rows,
    claims,
    inbox,
    marks,
    model_rows,
    outbox_rows,
    session_rows,
    timer_rows,
    usage_rows,
)
from holdfast.store.embedded.claims import OwnedTurn
from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.reads import size_of
from holdfast.store.embedded.record_file import read_report
from holdfast.store.embedded.rows import view_of_input
from holdfast.store.embedded.scan import read_context, read_file
from holdfast.store.views import (
    ArchiveView,
    Backlog,
    Cursor,
    DeliveryView,
    Happened,
    Hold,
    InputView,
    SessionView,
    TurnView,
    UsedIn,
)
from holdfast.tool.approval import Approval, Grant
from holdfast.tool.running import Program

CONTEXT_BYTES_MAX = 8 * 1024 * 1024
"""How far back a turn reads its conversation: more than any model's window holds, little enough to read at once (20
ms).
"""

END_BYTES = 64 * 1024


class Reading(StoreCore):
    """Views. None of it writes or takes a lock that a writer needs."""

    async def read_lines(self, transcript: str) -> list[Line]:
        """All lines of the file as they are. Takes no lock; a line that is being written at this moment is left out."""
        path = self.state.path / await self.reads.transcript_path(transcript)
        return await self.in_thread(read_file, path, None)

    async def read_tail(self, owned: OwnedTurn) -> list[Line]:
        """The newest lines, as far back as a context can need them (`read_context`): with the lines of earlier attempts
        at the input, and at most `CONTEXT_BYTES_MAX` bytes.

        Raises:
            ResourceError: the system refuses to have it read.
        """
        upto = min((position.offset for position in owned.claim.landed.values()), default=None)
        try:
            return await self.in_thread(read_context, owned.file.path, CONTEXT_BYTES_MAX, upto)
        except OSError as exc:
            raise ResourceError(f"cannot read {owned.file.path}: {exc}") from exc

    def view_of(self, owned: OwnedTurn) -> InputView | None:
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

    async def sessions(self, *, prefix: str, limit: int, archived: bool = False) -> list[SessionView]:
        return await self.reads.sessions(prefix=prefix, limit=limit, archived=archived, state_path=self.state.path)

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

    async def owners(self) -> list[Owner]:
        owners = await self.reads.ask(
            lambda conn: claims.owners(conn, self.process, lambda process: self.life_in(conn, process))
        )
        return await self.in_thread(self._with_reports, owners) if owners else []

    def _with_reports(self, owners: list[Owner]) -> list[Owner]:
        fence = self.state.fence
        return [replace(one, report=read_report(fence / one.transcript, one.epoch.nonce)) for one in owners]

    async def state_of_input(self, input_id: str) -> str:
        return (await self.reads.input(input_id)).state

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

    async def overtaken_by(self, owned: OwnedTurn) -> str | None:
        row = owned.input_row
        if row is None or not may_yield(row["lane"]):
            return None
        now_ms = self.now_ms()

        def ask(conn: sqlite3.Connection) -> str | None:
            in_line = inbox.waiting(conn, now_ms, owned.transcript)
            return overtaker(row["lane"], inbox.times_yielded(conn, row["id"]), in_line) if in_line else None

        return await self.reads.ask(ask)

    async def keys_with(self, session: str) -> list[str]:
        return await self.reads.ask(lambda conn: session_rows.keys_with(conn, session))

    async def last_spoken_ms(self, session: str, *, before_input: str | None = None) -> int | None:
        return await self.reads.ask(lambda conn: session_rows.last_spoken_ms(conn, session, before_input))

    async def read_end(self, transcript: str) -> list[Line]:
        path = self.state.path / await self.reads.transcript_path(transcript)
        try:
            return await self.in_thread(read_file, path, END_BYTES)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ResourceError(f"cannot read {path}: {exc.strerror or exc}") from exc

    async def read_mark(self, transcript: str, by: str) -> str | None:
        return await self.reads.ask(lambda conn: session_rows.read_mark(conn, transcript, by))

    async def archives(self, session: str | None, limit: int) -> list[ArchiveView]:
        return await self.reads.ask(lambda conn: archive_rows.listed(conn, session, limit))

    async def unfinished_archives(self) -> list[ArchiveView]:
        return await self.reads.ask(archive_rows.unfinished)

    async def retained(self) -> tuple[list[Conversation], list[Kept], dict[str, str]]:
        def ask(conn: sqlite3.Connection) -> tuple[list[sqlite3.Row], dict[str, str], list[ArchiveView]]:
            rows = archive_rows.conversations(conn)
            busy = {row["id"]: archive_rows.in_use(conn, row["id"]) for row in rows}
            return rows, busy, archive_rows.listed(conn, None, -1)

        rows, busy, archives = await self.reads.ask(ask)
        found: list[Conversation] = []
        for row in rows:
            machine, size = archive_rows.is_machine(row["key"]), size_of(self.state.path / row["path"])
            used = row["used_by_any"] if machine else row["used"]
            is_empty = size <= row["fresh_bytes"]
            found.append(Conversation(row["id"], used, size, busy[row["id"]], machine, is_empty))
        kept = [Kept(one.id, one.transcript, one.at_ms, one.bytes) for one in archives]
        return found, kept, {row["id"]: row["key"] for row in rows}

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

    async def calls_of(self, turn: str) -> list[ModelCall]:
        return await self.reads.ask(lambda conn: usage_rows.of_turn(conn, turn))

    async def usage(
        self, *, since_ms: int, until_ms: int, session: str | None = None, agent: str | None = None
    ) -> list[UsedIn]:
        return await self.reads.ask(
            lambda conn: usage_rows.sums(conn, since_ms=since_ms, until_ms=until_ms, session=session, agent=agent)
        )
