"""Questions to the ledger. None of them writes or takes a lock that a writer needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from holdfast.errors import UnknownInputError
from holdfast.inbound.child import Child
from holdfast.lane.policy import Waiting
from holdfast.recovery.classify import Life
from holdfast.session.fence import Epoch
from holdfast.store.sql import boots, child_rows, claims, elsewhere, inbox, model_rows, outbox_rows
from holdfast.store.sql.connection import Asks, Connection, Row
from holdfast.store.sql.rows import decode, position_of, view_of_delivery, view_of_input, view_of_turn
from holdfast.store.views import Backlog, Cursor, DeliveryView, Happened, InputView, SessionView, TurnView

JOINABLE_MAX = 256
"""How far back a retry is looked for in its session: far more than can be under way in one (the queue is 20)."""


class LedgerReads(Asks, Protocol):
    """Each question is one look: what it tells was true at one instant."""

    # ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def find_transcript(self, key: str) -> str | None:
        row = await self.ask(lambda c: c.execute("select transcript from sessions where key=?", (key,)).fetchone())
        return row[0] if row else None

    async def owner(self, transcript: str) -> Epoch | None:
        return await self.ask(lambda c: claims.owner_of(c, transcript))

    async def holder(self, transcript: str) -> str:
        """The turn that owns a transcript, in words for people."""
        row = await self.ask(
            lambda c: c.execute(
                "select owner_turn, owner_lane, owner_process, pid from transcripts left join processes"
                " on name=owner_process where id=? and owner_turn is not null",
                (transcript,),
            ).fetchone()
        )
        return "nobody's turn" if row is None else f"turn {row[0]} ({row[1]}) of process {row[2]} (pid {row[3]})"

    async def owned_transcripts(self, life_in: Callable[[Connection, str], Life]) -> list[tuple[str, str, Life]]:
        """(transcript, process, whether it lives) of all claims."""

        def question(conn: Connection) -> list[tuple[str, str, Life]]:
            rows = conn.execute("select id, owner_process from transcripts where owner_turn is not null").fetchall()
            return [(row[0], row[1], life_in(conn, row[1])) for row in rows]

        return await self.ask(question)

    # ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def queue(self, now_ms: int, *, with_agents: bool = False) -> tuple[list[Waiting], dict[str, int], bool]:
        """Waiting inputs (none while work is held back), running turns per lane (with agents by `slot_of`, too), and
        whether an input that is re-run alone is running.
        """

        def question(conn: Connection) -> tuple[list[Waiting], dict[str, int], bool]:
            rows = conn.execute(
                "select owner_lane, count(*) from transcripts where owner_turn is not null and owner_lent=0 group by 1"
            )
            running = {row[0]: row[1] for row in rows}
            if with_agents:
                running |= claims.running_of_agents(conn)
            waiting = inbox.waiting(conn, now_ms, with_agents=with_agents) if boots.held(conn) is None else []
            return waiting, running, claims.is_solo_running(conn)

        return await self.ask(question)

    async def backlog(self, now_ms: int) -> Backlog:
        """Counts of what is open; each from an index that holds nothing else."""

        def question(conn: Connection) -> Backlog:
            waiting = conn.execute("select lane, queued from depths where transcript='' and queued>0")
            [oldest] = conn.execute(
                "select min(accepted_at_ms) from inputs where state in ('queued', 'running') and state='queued'"
            ).fetchone()
            running = conn.execute(
                "select owner_lane, count(*) from transcripts where owner_turn is not null group by owner_lane"
            )
            [asked] = conn.execute(
                "select count(*) from approvals where state='pending' and expires_at_ms>?", (now_ms,)
            ).fetchone()
            return Backlog(
                dict(map(tuple, waiting)), oldest, dict(map(tuple, running)), outbox_rows.open_by_channel(conn), asked
            )

        return await self.ask(question)

    async def input(self, input_id: str) -> InputView:
        def question(conn: Connection) -> InputView | None:
            row = inbox.by_id(conn, input_id)
            return None if row is None else view_of_input(row, position_of(conn, row))

        view = await self.ask(question)
        if view is None:
            raise UnknownInputError(f"no input {input_id!r}; `holdfast inputs` lists them")
        return view

    async def cancel_requests(self) -> dict[str, str]:
        """Open inputs whose end somebody has asked for, and who."""
        rows = await self.ask(
            lambda c: c.execute(
                "select id, cancel_by from inputs where state in ('queued', 'running') and cancel_by is not null"
            ).fetchall()
        )
        return {row[0]: row[1] for row in rows}

    async def inputs(self, *, session: str | None, state: str | None, limit: int) -> list[InputView]:
        """Newest first."""

        def question(conn: Connection) -> list[InputView]:
            where, values = _where(session=session, state=state)
            if state in ("queued", "running"):  # in the words of the index, and not in the order of the table
                where += " and state in ('queued', 'running') order by +seq desc"
            else:
                where += " order by seq desc"
            sql = f"select * from inputs {where} limit ?"  # noqa: S608  # only our own words are put in
            rows = conn.execute(sql, (*values, limit)).fetchall()
            return [view_of_input(row, position_of(conn, row)) for row in rows]

        return await self.ask(question)

    async def find_join(self, session: str, join: str, since_ms: int) -> str | None:
        """The newest input of the session, among its last `JOINABLE_MAX`, that its caller lets be joined as `join`."""

        def question(conn: Connection) -> str | None:
            row = conn.execute(
                "select id from (select * from inputs where session=? order by seq desc limit ?) as newest"
                " where json_extract(cast(origin as text), '$.join')=? and accepted_at_ms>=? order by seq desc limit 1",
                (session, JOINABLE_MAX, join, since_ms),
            ).fetchone()
            return row[0] if row else None

        return await self.ask(question)

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def turns(self, *, session: str | None, limit: int) -> list[TurnView]:
        """Newest first."""
        where, values = _where(session=session)
        order = "id desc" if session is None else "started_at_ms desc, id desc"  # as the table or the index stands
        sql = f"select * from turns {where} order by {order} limit ?"  # noqa: S608  # only our own words are put in
        rows = await self.ask(lambda c: c.execute(sql, (*values, limit)).fetchall())
        return [view_of_turn(row) for row in rows]

    async def turns_of(self, input_id: str) -> list[TurnView]:
        """The turns that ran an input, oldest first."""
        rows = await self.ask(
            lambda c: c.execute(
                "select * from turns where session=(select session from inputs where id=?1) and input=?1"
                " order by started_at_ms, epoch_number",
                (input_id,),
            ).fetchall()
        )
        return [view_of_turn(row) for row in rows]

    async def turn(self, turn_id: str) -> TurnView | None:
        row = await self.ask(lambda c: c.execute("select * from turns where id=?", (turn_id,)).fetchone())
        return view_of_turn(row) if row else None

    async def sessions(
        self, *, prefix: str, limit: int, archived: bool, place: Callable[[Row], tuple[str | None, int]]
    ) -> list[SessionView]:
        """Most recently used first.

        Args:
            archived: those of children that were put away, too.
            place: path (None: it is no file) and size in bytes of a transcript, by its row.
        """

        def question(conn: Connection) -> list[SessionView]:
            put_away = "select 1 from children c where c.session=s.key and c.archived_at_ms is not null"
            shown = "" if archived or not child_rows.has_table(conn) else f"and not exists({put_away})"
            rows = conn.execute(
                "select s.key, s.transcript, s.created_at_ms, s.home, s.title, t.path, t.fresh_bytes,"  # noqa: S608
                " t.archived_at_ms, t.owner_turn, t.owner_lane,"
                " (select count(*) from inputs i where i.transcript=t.id and i.state in ('queued', 'running')"
                "   and i.state='queued') as queued,"
                " coalesce((select started_at_ms from turns u where u.session=s.key"
                " and u.lane not in ('heartbeat', 'cron', 'announcement', 'subagent')"
                " order by started_at_ms desc limit 1),"
                " s.updated_at_ms) as used"
                " from sessions s join transcripts t on t.id=s.transcript"
                f" where s.key collate binary>=:p and s.key collate binary<:end {shown}"
                " order by used desc, s.key limit :n",
                {"p": prefix, "end": prefix + chr(sys.maxunicode), "n": limit},
            ).fetchall()
            places = {row["key"]: place(row) for row in rows}
            known = model_rows.everything(conn)
            pins = {pin.session: pin for pin in known.pins}
            fallbacks = {one.session: one for one in known.fallbacks}
            children = child_rows.of_sessions(conn, (row["key"] for row in rows if ":subagent:" in row["key"]))
            return [
                SessionView(
                    row["key"], row["transcript"], *places[row["key"]],
                    row["owner_turn"], row["owner_lane"], row["queued"], row["used"],
                    pins.get(row["home"] or row["key"]), fallbacks.get(row["key"]), row["title"], row["home"],
                    *_child_facts(children.get(row["key"])),
                    row["archived_at_ms"]
                    if places[row["key"]][1] <= row["fresh_bytes"] else None,
                )
                for row in rows
            ]  # fmt: skip

        return await self.ask(question)

    async def deliveries(self, *, state: str | None, limit: int, input_id: str | None = None) -> list[DeliveryView]:
        """Newest first."""
        where, values = _where(input=input_id, state=state)
        if state in ("pending", "started", "unknown"):  # as for inputs
            where += f" and state in {outbox_rows.OPEN} order by +seq desc"
        else:
            where += " order by seq desc"
        sql = f"select * from outbox {where} limit ?"  # noqa: S608  # only our own words are put in
        rows = await self.ask(lambda c: c.execute(sql, (*values, limit)).fetchall())
        return [view_of_delivery(row) for row in rows]

    async def happened(self, since: Cursor | None, process: str) -> Happened:
        """What processes other than `process` have done since a cursor."""
        return await self.ask(lambda conn: elsewhere.happened(conn, since, process))

    async def events(self, *, input_id: str | None = None, turn: str | None = None) -> list[dict[str, Any]]:
        """The story of one input or turn, oldest first."""
        rows = await self.ask(
            lambda c: c.execute(
                "select seq, at_ms, kind, data, input, turn from events where (input=:i or turn=:t)"
                " order by seq limit 2000",
                {"i": input_id, "t": turn},
            ).fetchall()
        )
        return [{**dict(row), "data": decode(row["data"])} for row in rows]


def _where(**columns: str | None) -> tuple[str, list[str]]:
    """A condition on those columns that have a value, and the values. Only what is asked for can use an index."""
    asked = {column: value for column, value in columns.items() if value is not None}
    return "where " + (" and ".join(f"{column}=?" for column in asked) or "true"), list(asked.values())


def _child_facts(child: Child | None) -> tuple[str | None, str | None]:
    return (None, None) if child is None else (child.parent_session, child.state)
