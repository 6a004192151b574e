"""What `holdfast doctor --fix` may change; nearly all of it is the ledger's (`store/sql/repairing.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast import ids
from holdfast.clock import iso
from holdfast.errors import InputError, ResourceError, SessionTakeoverError
from holdfast.session.entries import CustomEntry, Origin, custom, encode_line, stamped
from holdfast.session.lines import read_line
from holdfast.session.mending import REPAIR_TYPE, Mender, Stamp
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.postgres.schema import SCHEMA
from holdfast.store.postgres.transcripts import OwnedTurn
from holdfast.store.sql import archive_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.repairing import LedgerRepairing
from holdfast.store.views import ArchiveView

LINES_AT_ONCE = 500


class Repairing(LedgerRepairing, PostgresCore):
    async def list_session(self, key: str, path: str) -> bool:
        """List a transcript that no session names under the key that it was made for.

        Raises: InputError: it was made for another.
        """
        if path != key:
            raise InputError(f"{path} is not where session {key!r} has its transcript")
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            there = conn.execute("select 1 from transcripts where path=?", (path,)).fetchone()
            listed = conn.execute("select 1 from sessions where key=?", (key,)).fetchone()
            if there is None or listed is not None:
                return False
            self.register_session(conn, key, now_ms)
            return True

        return await self.writer.submit(Job(run, durable=True))

    async def narrow_rights(self, name: str) -> bool:
        """Take the rights of `public` to the tables away; of a named role they were somebody's decision.

        Raises: ResourceError: only the tables' owner may.
        """
        if name != "public":
            return False

        def run(conn: Connection) -> bool:
            conn.execute(f"revoke all on all tables in schema {SCHEMA} from public")
            conn.execute(f"revoke all on schema {SCHEMA} from public")
            left = conn.execute(
                "select count(*) from pg_class c join pg_namespace n on n.oid=c.relnamespace, aclexplode(c.relacl) a"
                " where n.nspname=? and a.grantee=0 and c.relkind in ('r', 'v', 'p')", (SCHEMA,),
            ).fetchone()[0]  # fmt: skip
            if left:  # PostgreSQL warns only: what somebody else has granted stays
                raise ResourceError("only the owner of the tables may take rights to them away: run doctor as it")
            return True

        return await self.writer.submit(Job(run, durable=True))

    async def mend_transcript(self, owned: OwnedTurn) -> list[str]:
        """Write a transcript anew where other readers would stumble, as one transaction under the fence. Its lines get
        another body; those that were there stay as an archive, which is the original. Writers of all nodes wait as long
        as it takes: about a second for 20,000 lines.

        Raises: SessionTakeoverError, OwnershipLostError: nothing was written.
        """
        self.refuse_if_forked()
        owned.raise_if_lost()
        done = await self.writer.submit(Job(lambda conn: self._mend_in(conn, owned), durable=True))
        if isinstance(done, transcripts.Met):
            owned.lost = done.verdict
            raise SessionTakeoverError(done.verdict, owned.path)
        told, owned.end, owned.leaf = done
        if told:
            owned.landed.clear()
        return [*owned.findings, *told]

    def _mend_in(self, conn: Connection, owned: OwnedTurn) -> transcripts.Met | tuple[list[str], int, str | None]:
        met = transcripts.judge(conn, owned)
        if met.verdict.is_takeover(owned.fence_mode):
            return met
        before = conn.execute("select body from transcripts where id=?", (owned.transcript,)).fetchone()[0]
        stamp = self._stamp_of(owned)
        look, count, last = Mender(stamp), 0, 0
        for seq, raw in _lines_of(conn, before):
            look.take(raw.removesuffix(b"\n"))
            count, last = count + 1, seq
        told = look.told()
        if last != count:
            told.append(f"{last - count} line(s) were not there")
        if not told:
            return _count_anew(conn, owned.transcript, before, last, look.leaf)
        archive, body = ids.new_id("a"), ids.new_id("t")
        self._keep_original(conn, owned, archive, before, last)
        mender = Mender(stamp)
        count, size = _copy_mended(conn, before, body, mender)
        conn.execute(
            "update transcripts set body=?, lines_end=?, bytes=?, leaf=? where id=?",
            (body, count, size, mender.leaf, owned.transcript),
        )
        # Lines have moved: whoever looks for an input's final line looks from the beginning.
        conn.execute(
            "update inputs set first_offset=0 where transcript=? and first_offset is not null", (owned.transcript,)
        )
        repair, repair_id = custom(REPAIR_TYPE, {"found": told, "original": archive}), ids.derived_id("repair", archive)
        head = transcripts.head_of(conn, owned.transcript)
        lines = [(repair_id, lambda parent: stamp(repair, repair_id, parent))]
        end, leaf, _ = transcripts.write(conn, owned.transcript, head, lines)
        return [f"the transcript was mended ({one}); the original is archive {archive}" for one in told], end, leaf

    def _stamp_of(self, owned: OwnedTurn) -> Stamp:
        origin = Origin(store=self.store_id, turn=owned.turn, epoch=owned.epoch.number, lane="upkeep", writer="repair")
        now = iso(self.clock.now())

        def stamp(entry: CustomEntry, entry_id: str, parent: str | None) -> bytes:
            return encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=now, origin=origin))

        return stamp

    def _keep_original(self, conn: Connection, owned: OwnedTurn, archive: str, body: str, last: int) -> None:
        row = conn.execute(
            "select coalesce(home, key), title from sessions where transcript=? order by key limit 1",
            (owned.transcript,),
        ).fetchone()
        key, title = (row[0], row[1]) if row is not None else (owned.transcript, None)
        size = conn.execute("select coalesce(sum(length(raw)), 0) from lines where transcript=?", (body,)).fetchone()[0]
        view = ArchiveView(
            archive, key, title, "begun", "mended", "holdfast doctor", self.now_ms(), size, owned.transcript, body
        )
        archive_rows.begin(conn, view, owned.turn)
        archive_rows.move(conn, archive, "put_away", size=size)
        conn.execute("update archives set leaf=?, lines_end=? where id=?", (owned.leaf, last, archive))


def _lines_of(conn: Connection, body: str) -> Iterator[tuple[int, bytes]]:
    """All of a body, a batch after the other."""
    last = 0
    while True:
        rows = conn.execute(
            "select seq, raw from lines where transcript=? and seq>? order by seq limit ?", (body, last, LINES_AT_ONCE)
        ).fetchall()
        if not rows:
            return
        for seq, raw in rows:
            last = seq
            yield seq, raw


def _copy_mended(conn: Connection, before: str, body: str, mender: Mender) -> tuple[int, int]:
    """Mended lines under another name, numbered from 1. Returns how many, and their bytes."""
    count, size, waiting = 0, 0, list[tuple[str, int, str | None, bytes]]()
    insert = "insert into lines(transcript, seq, id, raw, is_ours) values(?,?,?,?,true)"
    for _, raw in _lines_of(conn, before):
        made = mender.take(raw.removesuffix(b"\n"))
        if not made:
            continue
        count, size = count + 1, size + len(made)
        line = read_line(made.removesuffix(b"\n"))
        waiting.append((body, count, None if line.kind == "header" else line.id, made))
        if len(waiting) >= LINES_AT_ONCE:
            conn.executemany(insert, waiting)
            waiting.clear()
    conn.executemany(insert, waiting)
    return count, size


def _count_anew(
    conn: Connection, transcript: str, body: str, last: int, leaf: str | None
) -> tuple[list[str], int, str | None]:
    """The lines are as they should be: their ids, and what the transcript's row says of them, are made to agree."""
    rows = conn.execute(
        "select seq, raw from lines where transcript=? and id is not null"
        " and position(convert_to(id, 'UTF8') in raw)=0", (body,),
    ).fetchall()  # fmt: skip
    for seq, raw in rows:
        conn.execute(
            "update lines set id=? where transcript=? and seq=?", (read_line(raw.removesuffix(b"\n")).id, body, seq)
        )
    changed = conn.execute(
        "update transcripts t set lines_end=?, leaf=?, bytes=(select coalesce(sum(length(raw)), 0)::bigint from lines"
        " where transcript=t.body) where id=? and (lines_end, bytes) is distinct from"
        " (?, (select coalesce(sum(length(raw)), 0)::bigint from lines where transcript=t.body))",
        (last, leaf, transcript, last),
    )
    told = ["its lines were counted anew"] if rows or changed.rowcount else []
    row = conn.execute("select lines_end, leaf from transcripts where id=?", (transcript,)).fetchone()
    return told, row[0], row[1]
