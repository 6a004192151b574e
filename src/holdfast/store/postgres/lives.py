"""How conversations end, as the PostgreSQL store does it: archives.

What is put away keeps its lines where they are (`schema.py`): the transcript gets another body with a header and one
line that names the archive. So that costs the same whatever has been said, and is one transaction: nobody finds it
half-way. Only a deletion is in steps, a batch of lines after the other.
"""

from __future__ import annotations

from typing import Any

from holdfast import ids
from holdfast.clock import iso
from holdfast.errors import SessionTakeoverError, TranscriptFormatError, UnknownInputError
from holdfast.session.entries import ARCHIVED_TYPE, Origin, custom, encode_line, stamped
from holdfast.session.lines import read_line
from holdfast.store.postgres import transcripts
from holdfast.store.postgres.core import PostgresCore
from holdfast.store.postgres.reading import PostgresReading
from holdfast.store.postgres.transcripts import OwnedTurn
from holdfast.store.sql import archive_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.keeping import NO_SUCH_ARCHIVE, Keeping
from holdfast.store.sql.ledger import Job
from holdfast.store.views import ArchiveView, InUse

BATCH_LINES = 2000
"""Deleted in one transaction: some tens of milliseconds, and nobody else's commit waits longer for it."""


class Lives(Keeping, PostgresCore, PostgresReading):
    """See `LifeStore` in `store/protocol.py`."""

    async def archive(self, owned: OwnedTurn, session: str, *, why: str, by: str) -> ArchiveView | InUse:
        """Put the transcript of a turn away and begin a new one in its place. See `LifeStore.archive`."""
        now_ms, archive = self.now_ms(), ids.new_id("a")

        def run(conn: Connection) -> ArchiveView | InUse | transcripts.Met:
            refused = self._refuse(conn, owned)
            if refused is not None:
                return refused
            row = conn.execute("select coalesce(home, key), title from sessions where key=?", (session,)).fetchone()
            at = conn.execute("select body, bytes, leaf, lines_end from transcripts where id=?", (owned.transcript,))
            body, size, leaf, end = at.fetchone()
            view = ArchiveView(archive, row[0], row[1], "begun", why, by, now_ms, size, owned.transcript, body)
            archive_rows.begin(conn, view, owned.turn)
            archive_rows.move(conn, archive, "put_away", size=size)
            conn.execute("update archives set leaf=?, lines_end=? where id=?", (leaf, end, archive))
            self._begin_anew(conn, owned, {"archive": archive, "session": view.session, "why": why, "by": by})
            fresh = conn.execute("select bytes from transcripts where id=?", (owned.transcript,)).fetchone()[0]
            archive_rows.note_put_away(conn, owned.transcript, fresh, now_ms)
            return archive_rows.by_id(conn, archive) or view

        return await self._swap(owned, run)

    def _begin_anew(self, conn: Connection, owned: OwnedTurn, about: dict[str, str]) -> None:
        conn.execute(
            "update transcripts set body=?, lines_end=0, bytes=0, leaf=null where id=?",
            (ids.new_id("t"), owned.transcript),
        )
        head, _ = transcripts.take_baseline(conn, owned.transcript, self.clock)
        entry_id = ids.derived_id("archived", about["archive"])
        origin = Origin(store=self.store_id, turn=owned.turn, epoch=owned.epoch.number, lane="upkeep", writer="archive")
        now = iso(self.clock.now())

        def build(parent: str | None) -> bytes:
            said = stamped(custom(ARCHIVED_TYPE, about), id=entry_id, parent=parent, timestamp=now, origin=origin)
            return encode_line(said)

        transcripts.write(conn, owned.transcript, head, [(entry_id, build)])

    async def check_archive(self, archive: str, transcript: str) -> None:
        view = await self.reads.ask(lambda conn: archive_rows.by_id(conn, archive))
        if view is None or view.transcript != transcript:
            raise UnknownInputError(NO_SUCH_ARCHIVE.format(archive))
        await self.reads.ask(lambda conn: _check(conn, view))

    async def restore(self, owned: OwnedTurn, archive: str) -> InUse | None:
        """Put an archive back in the place of its transcript, which the caller has seen to be empty or put away."""

        def run(conn: Connection) -> InUse | transcripts.Met | None:
            view = archive_rows.by_id(conn, archive)
            if view is None or view.transcript != owned.transcript:
                raise UnknownInputError(NO_SUCH_ARCHIVE.format(archive))
            refused = self._refuse(conn, owned)
            if refused is not None:
                return refused
            _check(conn, view)
            at = conn.execute("select leaf, lines_end from archives where id=?", (archive,)).fetchone()
            conn.execute(
                "delete from lines where transcript=body_of(?)",
                (owned.transcript,),
            )
            conn.execute(
                "update transcripts set body=?, bytes=?, leaf=?, lines_end=? where id=?",
                (view.name, view.bytes, at[0], at[1], owned.transcript),
            )
            archive_rows.move(conn, archive, "restore", owned.turn)
            archive_rows.move(conn, archive, "put_back")
            archive_rows.note_fresh(conn, owned.transcript, 0, None)
            conn.execute("update sessions set title=? where transcript=?", (view.title, owned.transcript))
            return None

        return await self._swap(owned, run)

    def _refuse(self, conn: Connection, owned: OwnedTurn) -> InUse | transcripts.Met | None:
        """Whose turn is over, what is in use, or what the fence finds."""
        met = transcripts.append_owned(conn, owned, owned.with_soon(()))
        if met.verdict.is_takeover(owned.fence_mode):
            return met
        why_not = archive_rows.in_use(conn, owned.transcript, but_for=owned.turn)
        return InUse(why_not) if why_not else None

    async def _swap(self, owned: OwnedTurn, run: Any) -> Any:
        """One transaction. Raises SessionTakeoverError, OwnershipLostError: nothing was moved."""
        self.refuse_if_forked()
        owned.raise_if_lost()
        done = await self.writer.submit(Job(run, durable=True))
        if isinstance(done, transcripts.Met):
            owned.lost = done.verdict
            raise SessionTakeoverError(done.verdict, owned.path)
        if not isinstance(done, InUse):
            head = await self.reads.ask(lambda conn: _head(conn, owned.transcript))
            owned.end, owned.leaf = head
            owned.landed.clear()
            owned.soon.clear()
        return done

    async def finish_archives(self, owned: OwnedTurn) -> int:
        """Nothing but a deletion can be half done; whoever copied a state here ended the rest before (`copying`)."""
        left = await self.reads.ask(lambda conn: archive_rows.unfinished(conn, owned.transcript))
        for view in left:
            if view.state == "deleting":
                await self._remove(view)
        return len(left)

    async def delete_archive(self, archive: str) -> int:
        """Throw an archive away for good; returns its bytes. Killed half-way, whoever looks next carries on."""
        view = await self.begin_delete(archive)
        await self._remove(view)
        return view.bytes

    async def _remove(self, view: ArchiveView) -> None:
        def run(conn: Connection) -> bool:
            gone = conn.execute(
                "delete from lines where transcript=? and seq<=(select seq from lines where transcript=? order by seq"
                " limit 1 offset ?)",
                (view.name, view.name, BATCH_LINES - 1),
            ).rowcount
            if gone == BATCH_LINES:
                return False
            conn.execute("delete from lines where transcript=?", (view.name,))
            archive_rows.move(conn, view.id, "remove")
            return True

        while not await self.writer.submit(Job(run, durable=True)):
            pass

    async def finish_deletions(self) -> int:
        left = await self.reads.ask(archive_rows.unfinished)
        deleting = [view for view in left if view.state == "deleting"]
        for view in deleting:
            await self._remove(view)
        return len(deleting)


def _check(conn: Connection, view: ArchiveView) -> None:
    """Raises TranscriptFormatError: somebody has changed what was put away."""
    row = conn.execute("select tampered, lines_end from archives where id=?", (view.id,)).fetchone()
    first = conn.execute("select raw from lines where transcript=? order by seq limit 1", (view.name,)).fetchone()
    last = conn.execute("select max(seq) from lines where transcript=?", (view.name,)).fetchone()[0]
    why = row[0]
    if first is None or read_line(first[0].removesuffix(b"\n")).kind != "header":
        why = why or "it has no first line"
    elif last != row[1]:
        why = why or f"it ends at line {last}, not {row[1]}"
    if why:
        raise TranscriptFormatError(
            f"archive {view.id} is not a whole transcript any more ({why}); nothing was restored"
        )


def _head(conn: Connection, transcript: str) -> tuple[int, str | None]:
    row = conn.execute("select lines_end, leaf from transcripts where id=?", (transcript,)).fetchone()
    return row[0], row[1]
