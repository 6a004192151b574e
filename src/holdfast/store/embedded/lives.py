"""How conversations end, as the embedded store does it: archives.

An operation on a whole transcript belongs to the owner of a turn. It says in the ledger what it is about to do, does it
on the disk within one holding of the write lock, and says that it is done. Whoever finds it half-way reads off the disk
how far it got (`finish_archives`); the transcript is whole at every instant.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from holdfast import ids
from holdfast.errors import HoldfastError, OwnershipLostError, ResourceError, SessionTakeoverError, UnknownInputError
from holdfast.session.entries import Origin
from holdfast.session.fence import Record
from holdfast.store.embedded import durable, swapping
from holdfast.store.embedded.holding import Proof, Reached
from holdfast.store.embedded.mending import Pen
from holdfast.store.embedded.owned import OwnedTurn
from holdfast.store.embedded.reading import Reading
from holdfast.store.sql import archive_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.keeping import Keeping
from holdfast.store.sql.ledger import Job
from holdfast.store.views import ArchiveView, InUse

_OVER = "the turn that wanted it has lost the session, or has ended"
log = logging.getLogger("holdfast.store")


class Lives(Keeping, Reading):
    """See `LifeStore` in `store/protocol.py`."""

    # ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def archive(self, owned: OwnedTurn, session: str, *, why: str, by: str) -> ArchiveView | InUse:
        """Put the transcript of a turn away and begin a new one in its place. See `LifeStore.archive`."""
        await self.finish_archives(owned)
        archive_id, now_ms, turn = ids.new_id("a"), self.now_ms(), owned.claim.turn
        path = owned.file.path
        name = f"{path.parent.name}/{path.stem}.{archive_id}.jsonl"

        def begin(conn: Connection) -> ArchiveView | InUse:
            if not archive_rows.is_owner(conn, owned.transcript, turn, owned.epoch):
                raise OwnershipLostError(_OVER)
            why_not = archive_rows.in_use(conn, owned.transcript, but_for=turn)
            if why_not:
                return InUse(why_not)
            row = conn.execute("select coalesce(home, key), title from sessions where key=?", (session,)).fetchone()
            view = ArchiveView(
                archive_id, row[0], row[1], "begun", why, by, now_ms, owned.file.fingerprint().size, owned.transcript,
                name,
            )  # fmt: skip
            archive_rows.begin(conn, view, turn)
            archive_rows.forget_what_is_durable(conn, owned.transcript)
            return view

        view = await self.writer.submit(Job(begin, durable=True))
        if isinstance(view, InUse):
            return view
        about = {"archive": archive_id, "session": view.session, "why": why, "by": by}
        kept_as, pen = self._kept(view), self._life_pen(owned)
        try:
            await self._swap(owned, lambda record: swapping.put_away(owned.file, record, kept_as, about, pen))
        except Exception:
            await self._finish_if_possible(owned, view)
            raise

        def end(conn: Connection) -> ArchiveView:
            archive_rows.move(conn, archive_id, "put_away", size=os.stat(self._kept(view)).st_size)
            archive_rows.note_put_away(conn, owned.transcript, owned.claim.record.end, now_ms)
            kept = archive_rows.by_id(conn, archive_id)
            assert kept is not None
            return kept

        return await self.writer.submit(Job(end, durable=True))

    async def check_archive(self, archive: str, transcript: str) -> None:
        view = await self.reads.ask(lambda conn: archive_rows.by_id(conn, archive))
        if view is None or view.transcript != transcript:
            raise UnknownInputError(f"no archive {archive!r} of this session; `holdfast sessions archives` has them")
        await self.in_thread(swapping.check, self._kept(view))

    async def restore(self, owned: OwnedTurn, archive: str) -> InUse | None:
        """Put an archive back in the place of its transcript, which the caller has seen to be empty or put away.

        Raises: as `archive`. UnknownInputError: it is not there any more. TranscriptFormatError: it is damaged.
        """
        await self.finish_archives(owned)
        turn = owned.claim.turn

        def begin(conn: Connection) -> ArchiveView | InUse:
            view = archive_rows.by_id(conn, archive)
            if view is None or view.transcript != owned.transcript:
                raise UnknownInputError(
                    f"no archive {archive!r} of this session; `holdfast sessions archives` has them"
                )
            why_not = archive_rows.in_use(conn, owned.transcript, but_for=turn)
            if not archive_rows.is_owner(conn, owned.transcript, turn, owned.epoch):
                raise OwnershipLostError(_OVER)
            if why_not:
                return InUse(why_not)
            archive_rows.move(conn, archive, "restore", turn)
            archive_rows.forget_what_is_durable(conn, owned.transcript)
            return replace(view, state="restoring")

        view = await self.writer.submit(Job(begin, durable=True))
        if isinstance(view, InUse):
            return view
        try:
            await self._swap(owned, lambda record: swapping.put_back(owned.file, record, self._kept(view)))
        except Exception:
            await self._finish_if_possible(owned, view)
            raise

        def end(conn: Connection) -> None:
            archive_rows.move(conn, archive, "put_back")
            archive_rows.note_fresh(conn, owned.transcript, 0, None)
            conn.execute("update sessions set title=? where transcript=?", (view.title, owned.transcript))

        await self.writer.submit(Job(end, durable=True))
        return None

    async def _swap(self, owned: OwnedTurn, work: Callable[[Record], Record]) -> None:
        """One holding of the write lock: the fence first, then the files, then the record."""
        file, claim = owned.file, owned.claim
        claim.raise_if_lost(file.path)

        def act(proof: Proof | None) -> None:
            with claim.writing:
                verdict = file.inspect(claim, proof)
                if claim.lost is not None:
                    raise SessionTakeoverError(verdict, str(file.path))
                file.sync()
                try:
                    record = work(claim.record)
                except OSError as exc:
                    raise ResourceError(f"{file.path}: {exc.strerror or exc}; nothing was put away") from exc
                file.record.write(record)
                claim.record, claim.synced = record, Reached(record.end, record.link)
                claim.landings_synced = claim.landings
                claim.landed.clear()

        await self.in_thread_with(file, self.with_lock_blocking, file, act, owned)

    async def finish_archives(self, owned: OwnedTurn) -> int:
        """End what an earlier owner of this transcript began and did not end; returns how many that were."""
        left = await self.reads.ask(lambda conn: archive_rows.unfinished(conn, owned.transcript))
        for view in left:
            await self._finish_one(owned, view)
        return len(left)

    async def _finish_if_possible(self, owned: OwnedTurn, view: ArchiveView) -> None:
        """After something that is raised in any case; whoever owns the transcript next does it otherwise."""
        try:
            await self._finish_one(owned, view)
        except HoldfastError as later:
            log.warning("archive %s stays unfinished for now: %s", view.id, later)

    async def _finish_one(self, owned: OwnedTurn, view: ArchiveView) -> None:
        file, kept_as = owned.file, self._kept(view)

        def look(_: Proof | None) -> tuple[str, int]:
            owned.claim.raise_if_lost(file.path)
            if view.state == "restoring":
                return "put_back" if swapping.is_put_back(file.path, kept_as) else "drop", 0
            if swapping.is_put_away(file.path, kept_as):
                return "put_away", swapping.fresh_bytes(file.path, view.id)
            return "drop", 0

        if view.state == "deleting":
            await self._remove(view)
            return
        try:
            event, fresh_bytes = await self.in_thread_with(file, self.with_lock_blocking, file, look, None)
        except OSError as exc:
            raise ResourceError(f"{self._kept(view)}: {exc.strerror or exc}; it is looked at again later") from exc

        def end(conn: Connection) -> None:
            archive_rows.move(conn, view.id, event)
            if event == "put_back":
                archive_rows.note_fresh(conn, owned.transcript, 0, None)
            if event == "put_away" and fresh_bytes:
                archive_rows.note_put_away(conn, owned.transcript, fresh_bytes, view.at_ms)

        await self.writer.submit(Job(end, durable=True))

    async def delete_archive(self, archive: str) -> int:
        """Throw an archive away for good; returns its bytes. Killed half-way, whoever looks next carries on.

        Raises: UnknownInputError: there is none. InputError: it is being restored at this moment.
        """

        view = await self.begin_delete(archive)
        await self._remove(view)
        return view.bytes

    async def _remove(self, view: ArchiveView) -> None:
        def remove() -> None:
            kept_as = self._kept(view)
            try:
                kept_as.unlink(missing_ok=True)
                if kept_as.parent.exists():
                    durable.sync_folder(kept_as.parent)
            except OSError as exc:
                raise ResourceError(f"{kept_as}: {exc.strerror or exc}; it is deleted later") from exc

        await self.in_thread(remove)
        await self.writer.submit(Job(lambda conn: archive_rows.move(conn, view.id, "remove")))

    async def finish_deletions(self) -> int:
        left = await self.reads.ask(archive_rows.unfinished)
        deleting = [view for view in left if view.state == "deleting"]
        for view in deleting:
            await self._remove(view)
        return len(deleting)

    def _life_pen(self, owned: OwnedTurn) -> Pen:
        origin = Origin(
            store=self.store_id, turn=owned.claim.turn, epoch=owned.epoch.number, lane="upkeep", writer="archive"
        )
        return Pen(origin, self.clock)

    def _kept(self, view: ArchiveView) -> Path:
        return self.state.path / "archives" / view.name
