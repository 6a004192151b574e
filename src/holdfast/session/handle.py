"""One session key, for reading, for lines that are not conversation, and for what becomes of the whole of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast import ids
from holdfast.clock import epoch_ms, iso
from holdfast.errors import DrainingError, InputError, UnknownSessionError
from holdfast.inbound.child import Child, Parent, Refused
from holdfast.inbound.event import Route
from holdfast.session import entries as made
from holdfast.session.entries import Entry, Origin, encode_line, stamped
from holdfast.session.key import validate_key
from holdfast.session.lines import Line, decode_entry, is_conversation, read_line
from holdfast.store.views import ArchiveView, InUse
from holdfast.turn.spawning import spawn

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

TITLE_CHARS_MAX = 200
UPKEEP_LANE = "upkeep"
"""Of turns that see to a conversation as a whole: one at a time in a state."""
NOTHING = "there is nothing in it to archive"
READER_CHARS_MAX = 200
READ_TYPE = "holdfast:read"
"""customType of a read receipt: who has seen the conversation, up to which entry."""


class Session:
    """A handle that costs nothing until it is used."""

    def __init__(self, hf: Holdfast, key: str) -> None:
        self._hf = hf
        self.key = key

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def lines(self) -> list[Line]:
        """All lines of the transcript file, in order. An unknown session raises UnknownSessionError."""
        return await self._hf.store.read_lines(await self._known())

    async def entries(self) -> list[Any]:
        """All entries, decoded; lines of others that cannot be decoded come as they are (`ForeignEntry`)."""
        lines = await self.lines()
        return [decode_entry(line.raw) for line in lines if line.kind != "header"]

    async def path(self) -> str | None:
        views = await self._hf.store.sessions(prefix=self.key, limit=1000, archived=True)
        return next((view.path for view in views if view.key == self.key), None)

    # ── sub-agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def spawn(
        self, task: str, *, label: str | None = None, agent: str | None = None, model: str | None = None,
        timeout_s: float | None = None, key: str | None = None, route: Route | None = None,
    ) -> Child | Refused:  # fmt: skip
        """Give a task to a sub-agent in the name of this session, without a turn. See `Turn.spawn`.

        Args:
            key: names the child among those of this session; the same again is the same child.
            route: where what comes of it is sent.

        Raises:
            DrainingError: the process is going away. As `Turn.spawn`.
        """
        if self._hf.draining:
            raise DrainingError()
        return await spawn(
            self._hf, Parent(validate_key(self.key), route=route), task, key=key, label=label, agent=agent, model=model,
            timeout_s=timeout_s,
        )  # fmt: skip

    async def _known(self) -> str:
        transcript = await self._hf.store.find_transcript(self.key)
        if transcript is None:
            raise UnknownSessionError(f"no session {self.key!r}; `holdfast sessions` lists them")
        return transcript

    # ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append_metadata(self, entry: Entry, *, durable: bool = False) -> str:
        """Write one line that is not conversation (label, session info, model change, mirror, custom). Needs no turn.

        Raises:
            InputError: the entry is conversation; that needs a turn.
            TranscriptUnsettledError: the end of the file is unclear and a turn owns it; try again after that turn.
        """
        store, now = self._hf.store, self._hf.clock.now()
        entry_id = ids.derived_id("metadata", ids.nonce())
        origin = Origin(store=store.store_id, turn="", epoch=0, lane="", writer="metadata")

        def build(parent: str | None) -> bytes:
            return encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=iso(now), origin=origin))

        if is_conversation(read_line(build(None))):
            raise InputError("conversation is written by turns only: use `async with hf.turn(...)`")
        transcript = await store.transcript_of(self.key)
        await store.append_metadata(transcript, entry_id, build, sync=durable)
        return entry_id

    async def rename(self, title: str | None) -> None:
        """Give the session a title, or take it away (None). It is metadata: no turn is taken or disturbed, and the
        conversation gets no fresher by it. Durable when it returns; killed before, the title may stand in the
        transcript and not yet in lists.

        Raises:
            UnknownSessionError, InputError: nothing was written. Others: as `append_metadata`.
        """
        await self._known()
        title = title.strip() if title is not None else None
        if title == "" or (title is not None and (len(title) > TITLE_CHARS_MAX or not title.isprintable())):
            raise InputError(f"a title is one line of 1 to {TITLE_CHARS_MAX} characters; None takes it away")
        await self.append_metadata(made.session_info(title), durable=True)
        await self._hf.store.set_title(self.key, title)

    async def mark_read(self, *, by: str, upto: str | None = None) -> bool:
        """Note that somebody has seen the conversation. Metadata, as a title is; asked again it writes nothing twice.

        Args:
            by: who, in the caller's words.
            upto: the id of the last entry seen; None: what is there now.

        Returns: whether it was news.

        Raises:
            UnknownSessionError, InputError: nothing was written. Others: as `append_metadata`.
        """
        transcript = await self._known()
        if not by.strip() or len(by) > READER_CHARS_MAX or not by.isprintable():
            raise InputError(f"`by` names a reader in one line of 1 to {READER_CHARS_MAX} characters")
        lines = [line for line in await self._hf.store.read_end(transcript) if is_conversation(line)]
        upto = upto or (lines[-1].id if lines else None)
        if upto is None or len(upto) > READER_CHARS_MAX:
            raise InputError(f"nothing has been said in {self.key!r} that could have been read" if upto is None
                             else "`upto` is the id of an entry")  # fmt: skip
        if await self._hf.store.read_mark(transcript, by) == upto:
            return False
        await self.append_metadata(made.custom(READ_TYPE, {"by": by, "upto": upto}))
        await self._hf.store.note_read(transcript, by, upto, epoch_ms(self._hf.clock.now()))
        return True

    # ── the whole of it ──────────────────────────────────────────────────────────────────────────────────────────────

    async def reset(self, *, by: str, wait_s: float = 0.0) -> None:
        """Begin a new conversation in the same transcript, as `/new` does; what was said stays in it.

        Raises: SessionBusyError: a turn runs. UnknownSessionError. Others: as `Turn.append`.
        """
        from holdfast.turn.resets import begin_anew

        await self._known()
        async with self._hf.turn(self.key, lane=UPKEEP_LANE, wait_s=wait_s) as turn:
            await begin_anew(self._hf, turn, by=by)

    async def archive(self, *, by: str, why: str = "asked", wait_s: float = 0.0) -> ArchiveView | InUse:
        """Put the transcript among the archives; the next message begins a new one. The session is owned meanwhile, as
        by a turn.

        Args:
            by: who wants it. why: "asked", "deleted" or a rule of retention.

        Returns: the archive, or what keeps the conversation where it is: open inputs, answers that have not gone out,
            nothing to archive.

        Raises: SessionBusyError: a turn runs. UnknownSessionError. SessionTakeoverError, ResourceError: nothing was
            archived. Killed: it is done, or it is not; the transcript is whole in any case.
        """
        await self._known()
        async with self._hf.turn(self.key, lane=UPKEEP_LANE, wait_s=wait_s) as turn:
            return await self._archive(turn, by=by, why=why)

    async def _archive(self, turn: Turn, *, by: str, why: str) -> ArchiveView | InUse:
        lines = await self._hf.store.read_end(await self._known())
        is_whole = not lines or lines[0].kind == "header"
        if is_whole and not any(is_conversation(line) for line in lines):
            return InUse(NOTHING)
        done = await self._hf.store.archive(turn.owned, self.key, why=why, by=by)
        if isinstance(done, ArchiveView):
            turn.note("session.archived", archive=done.id, why=why, by=by)
            if turn.pin is not None and turn.pin.source == "auto":
                await self._hf.unpin_model(self.key)
        return done

    async def restore(self, archive: str, *, by: str, wait_s: float = 0.0) -> InUse | None:
        """Bring an archive of this session back. What was said since is archived in its turn.

        Raises: as `archive`. UnknownInputError: there is no such archive. TranscriptFormatError: it is damaged.
        """
        transcript = await self._known()
        async with self._hf.turn(self.key, lane=UPKEEP_LANE, wait_s=wait_s) as turn:
            await self._hf.store.finish_archives(turn.owned)
            await self._hf.store.check_archive(archive, transcript)  # before what is there now makes way
            put_away = await self._archive(turn, by=by, why="restored over")
            if isinstance(put_away, InUse) and put_away.why != NOTHING:
                return put_away
            refused = await self._hf.store.restore(turn.owned, archive)
            if refused is None:
                turn.note("session.restored", archive=archive, by=by)
            return refused
