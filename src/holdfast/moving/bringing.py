"""Writing conversations into sessions: each by a turn of its own, line by line, as the fence sees every other line.

Ids, parents and times stay those of the source, so the tree is the same; its header is kept in the last line, a note of
where the conversation came from, which hangs off the line that was its end over there. Killed at any point, the session
holds a beginning of the conversation; the next run recognises it by its ids and writes the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast import ids
from holdfast.clock import epoch_ms, iso
from holdfast.errors import HoldfastError, InputError
from holdfast.model import catalog
from holdfast.model.policy import AUTO_PIN_S, Pin
from holdfast.moving.conversation import REMARKS_MAX, Brought, Conversation, Found, PinWish, Report, State
from holdfast.session.branch import leaf_after
from holdfast.session.entries import ENTRY_TYPES, FORMAT_VERSION, CustomEntry, Origin, custom, encode_line, stamped
from holdfast.session.handle import TITLE_CHARS_MAX, UPKEEP_LANE
from holdfast.session.key import validate_key
from holdfast.session.lines import Line, is_conversation, load_object, read_line
from holdfast.session.mending import Mender
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

IMPORTED_TYPE = "holdfast:imported"
"""customType of the line that ends what was brought in: from where, how many lines, and the header over there."""
FOREIGN_PREFIX = "imported:"
"""Begins the customType of a line of a kind that the transcript format does not know."""
BATCH_BYTES = 1 << 20
BY = "import"
_WHY_NOT = {
    "gone on": "somebody has spoken in this session since: {} new lines over there stay there; bring them in under "
    "another agent (--agent) or key (--session)",
    "another": "another conversation has this key, and stays as it is; bring this one in under another agent (--agent) "
    "or key (--session)",
}

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Reading:
    """A conversation on its way in, once through: what stands in each line, and what was wrong."""

    conversation: Conversation
    origin: Origin
    at: str
    header: dict[str, Any] | None = None
    leaf: str | None = None  # the end of the active branch, as the source has it
    count: int = 0
    bad: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Each line with its id, newline included; the header is taken out."""
        mender, version = Mender(self._stamp), FORMAT_VERSION
        for number, raw in enumerate(self.conversation.lines(), 1):
            made = mender.take(raw)
            line = read_line(made.removesuffix(b"\n")) if made else None
            if line is None:
                continue
            if line.kind == "header":
                version = read_line(raw).version or version
                self.header = load_object(line.raw)
                continue
            assert line.id is not None  # the mender has seen to that
            self._judge(number, read_line(raw, version=version), line)
            known = _in_known_words(line)
            self.leaf = _leaf_after(self.leaf, line)
            self.count += 1
            yield line.id, known
        self.mended = [one for one in mender.told() if not one.startswith("blank")]

    def _stamp(self, entry: CustomEntry, entry_id: str, parent: str | None) -> bytes:
        return encode_line(stamped(entry, id=entry_id, parent=parent, timestamp=self.at, origin=self.origin))

    def _judge(self, number: int, was: Line, line: Line) -> None:
        was_set_aside = was.id is None and was.kind != "entry"
        why = line.reason if line.kind == "malformed" else was.reason if was_set_aside else None
        if why is not None and len(self.bad) < REMARKS_MAX:
            self.bad.append(f"line {number}: {on_one_line(why)}")

    def marker(self) -> tuple[str, bytes]:
        """The last line: what came from where. Its id follows from what it ends."""
        entry_id = ids.derived_id("imported", self.conversation.key, self.leaf or "", self.count)
        about = {"from": self.conversation.source, "lines": self.count, "header": self.header}
        return entry_id, self._stamp(custom(IMPORTED_TYPE, about), entry_id, self.leaf)


def _in_known_words(line: Line) -> bytes:
    """A kind of line that only its own program knows, such as one that moves the leaf, becomes a note of all of it."""
    if line.type in ENTRY_TYPES or line.kind == "malformed":
        return line.raw + b"\n"
    said = load_object(line.raw)
    kept = {name: said.pop(name) for name in ("id", "parentId", "timestamp") if name in said}
    made = {"type": "custom", "customType": f"{FOREIGN_PREFIX}{line.type}", **kept, "data": said}
    return json.dumps(made, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _leaf_after(leaf: str | None, line: Line) -> str | None:
    if line.type != "leaf":
        return leaf_after(leaf, line)
    target = load_object(line.raw).get("targetId")
    return target if isinstance(target, str) else None


@dataclass(frozen=True, slots=True)
class _Here:
    """What a session holds already: ids in order, without notes of our own (titles, receipts), which are nobody's
    conversation. ended_at: how many of them the last run that came to its end had brought.
    """

    ids: tuple[str, ...]
    ended_at: int | None

    @staticmethod
    def of(lines: Sequence[Line]) -> _Here:
        known, ended_at = list[str](), None
        for line in lines:
            if line.custom_type == IMPORTED_TYPE:
                ended_at = len(known)
            elif line.id is not None and line.kind not in ("header", "blank") and not _is_note(line):
                known.append(line.id)
        return _Here(tuple(known), ended_at)


def _is_note(line: Line) -> bool:
    return line.origin is not None and line.origin.writer != BY and not is_conversation(line)


async def bring_in(
    hf: Holdfast | None, found: Found, source: str, *, dry: bool, progress: Progress = lambda *_: None,
    batch_bytes: int = BATCH_BYTES,
) -> Report:  # fmt: skip
    """Bring all that was found into the sessions of a state, one after the other.

    Args:
        hf: None: there is no state yet; for a dry run, which writes nothing. A reader will do for one.
        progress: told of each conversation: its key, bytes done, bytes in all.
        batch_bytes: how much is written in one holding of the write lock.

    Raises: as `Holdfast.turn`: SessionBusyError: a session is in use; what came before it is in. ResourceError.
    """
    done, total = 0, sum(one.size_bytes for one in found.conversations)
    brought: list[Brought] = []
    for one in found.conversations:
        progress(one.key, done, total)
        brought.append(await _bring_one(hf, one, dry=dry, batch_bytes=batch_bytes))
        done += one.size_bytes
    progress("", total, total)
    return Report(source, dry, tuple(brought), found.remarks)


async def _bring_one(hf: Holdfast | None, one: Conversation, *, dry: bool, batch_bytes: int) -> Brought:
    try:
        validate_key(one.key)
    except InputError as wrong:
        return Brought(one.key, one.source, "empty", remarks=(f"no key that a session can have: {wrong}",))
    if dry or hf is None:
        return await _look_at(hf, one)
    reading = _Reading(one, Origin(hf.store.store_id, "", 0, "", BY), iso(hf.clock.now()))
    state, first = _compare(reading, _Here.of(await _lines_here(hf, one.key)))
    if state not in ("new", "continued"):
        return _told(one, reading, state, first)
    async with hf.turn(one.key, lane=UPKEEP_LANE, wait_s=0) as turn:
        reading = _fresh(reading)  # as both are now that nobody else can speak here
        state, first = _compare(reading, _Here.of(await _lines_here(hf, one.key)))
        if state not in ("new", "continued"):
            return _told(one, reading, state, first)
        reading = _fresh(reading)
        written = await _write(hf, turn, reading, first, batch_bytes)
        pin, remarks = await _settings(hf, one)
        entry_id, raw = reading.marker()
        await hf.store.append(turn.owned, [(entry_id, _as_it_is(raw))], sync=True)
    return _told(one, reading, state, first, written, pin, remarks)


async def _look_at(hf: Holdfast | None, one: Conversation) -> Brought:
    """The same without writing."""
    reading = _Reading(one, Origin("", "", 0, "", BY), "1970-01-01T00:00:00.000Z")
    state, first = _compare(reading, _Here.of(await _lines_here(hf, one.key)) if hf is not None else _Here((), None))
    if state not in ("new", "continued"):
        return _told(one, reading, state, first)
    left = [len(raw) for at, (_, raw) in enumerate(_fresh(reading).lines()) if at >= first]
    pin = one.pin.model if one.pin is not None else None
    return _told(one, reading, state, first, (len(left), sum(left)), pin, _without_counterpart(one))


def _fresh(reading: _Reading) -> _Reading:
    return _Reading(reading.conversation, reading.origin, reading.at)


def _told(
    one: Conversation, reading: _Reading, state: State, first: int, written: tuple[int, int] = (0, 0),
    pin: str | None = None, remarks: tuple[str, ...] = (),
) -> Brought:  # fmt: skip
    more = _WHY_NOT[state].format(reading.count - first) if state in _WHY_NOT else None
    remarks = (*remarks, more) if more is not None else remarks
    return Brought(
        one.key, one.source, state, *written, there=reading.count, mended=tuple(reading.mended), bad=tuple(reading.bad),
        pin=pin, remarks=remarks,
    )  # fmt: skip


async def _lines_here(hf: Holdfast, key: str) -> list[Line]:
    transcript = await hf.store.find_transcript(key)
    return [] if transcript is None else await hf.store.read_lines(transcript)


def _compare(reading: _Reading, here: _Here) -> tuple[State, int]:
    """What is to be done, and from which line of the source on. Reads the source through."""
    same = 0
    for at, (entry_id, _) in enumerate(reading.lines()):
        if at == same and at < len(here.ids) and here.ids[at] == entry_id:
            same += 1
    if reading.count == 0:
        return "empty", 0
    if not here.ids:
        return "new", 0
    if same < (len(here.ids) if here.ended_at is None else here.ended_at):
        return "another", 0
    if reading.count == here.ended_at:
        return "unchanged", reading.count
    if same < len(here.ids):
        return "gone on", same
    return "continued", same


async def _write(hf: Holdfast, turn: Turn, reading: _Reading, first: int, batch_bytes: int) -> tuple[int, int]:
    """Append the lines from `first` on, in pieces. Returns their number and bytes; not synced yet."""
    count, size = 0, 0
    batch: list[tuple[str, Callable[[str | None], bytes]]] = []
    waiting = 0
    for at, (entry_id, raw) in enumerate(reading.lines()):
        if at < first:
            continue
        batch.append((entry_id, _as_it_is(raw)))
        waiting += len(raw)
        count, size = count + 1, size + len(raw)
        if waiting >= batch_bytes:
            await hf.store.append(turn.owned, batch, sync=False)
            batch, waiting = [], 0
    if batch:
        await hf.store.append(turn.owned, batch, sync=False)
    return count, size


def _as_it_is(raw: bytes) -> Callable[[str | None], bytes]:
    return lambda _parent: raw


# ── what is known of a session besides what was said ─────────────────────────────────────────────────────────────────


async def _settings(hf: Holdfast, one: Conversation) -> tuple[str | None, tuple[str, ...]]:
    """Title, pin and queue. Returns the model that was pinned, and what was not done."""
    remarks = list(_without_counterpart(one))
    title = _as_title(one.title)
    views = {view.key: view for view in await hf.sessions(prefix=one.key, archived=True)}
    if title and one.key in views and views[one.key].title is None:
        await hf.session(one.key).rename(title)
    if one.queue:
        await hf.change_queue(one.key, one.queue)
    pinned = None
    if one.pin is not None:
        pinned, why_not = await _pin(hf, one.key, one.pin)
        remarks += [why_not] if why_not else []
    return pinned, tuple(remarks)


def _without_counterpart(one: Conversation) -> tuple[str, ...]:
    return ("no counterpart: " + ", ".join(one.left),) if one.left else ()


def _as_title(text: str | None) -> str | None:
    said = " ".join((text or "").split())[:TITLE_CHARS_MAX]
    return said if said and said.isprintable() else None


async def _pin(hf: Holdfast, key: str, wish: PinWish) -> tuple[str | None, str | None]:
    """Pin the session's model as it was over there, once. A pin that is here wins: it is newer."""
    if (await hf.store.pins([key])).get(key) is not None:
        return None, None
    try:
        catalog.split_ref(wish.model)
    except HoldfastError as wrong:
        return None, f"its model {on_one_line(wish.model)} was not pinned: {wrong}"
    now_ms = epoch_ms(hf.clock.now())
    ends_ms = None if wish.source == "user" else now_ms + AUTO_PIN_S * 1000
    reason = "chosen" if wish.source == "user" else "imported"
    pin_id = ids.derived_id("pin", key, wish.model, wish.source, wish.origin or "")
    made = Pin(pin_id, key, wish.model, wish.source, reason, now_ms, ends_ms, origin=wish.origin, by=BY)
    if not await hf.store.replace_pin(key, seen=None, pin=made):
        return None, None
    return wish.model, None
