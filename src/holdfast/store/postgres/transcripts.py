"""Transcripts as rows: what is met there, and what may be written. Every function runs inside a transaction.

The row of a transcript holds its head: who owns it, its last line and its leaf. It is locked before anything of it is
judged. Lines that an owner has not written or recorded are marked by a trigger (`schema.py`), whoever inserts them;
lines that somebody changes or removes leave word in `tampered`. So nothing has to be read again to know that nobody
came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast import ids
from holdfast.clock import Clock, iso
from holdfast.errors import OwnershipLostError, TranscriptUnsettledError
from holdfast.model.policy import NOTHING_KNOWN, ModelFacts
from holdfast.session import fence
from holdfast.session.branch import leaf_after, reaches_back
from holdfast.session.entries import FORMAT_VERSION, SessionHeader, encode_line
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line, read_line
from holdfast.store.sql.connection import Connection, Row

Build = Callable[[str | None], bytes]
CONTEXT_LINES = 64
"""How many lines are read at first of a transcript's end; each further step is four times as large."""
CONTEXT_LINES_MAX = 65_536


class Position(NamedTuple):
    """Where a line stands, counted from 1, and its bytes."""

    offset: int
    length: int


@dataclass(slots=True)
class OwnedTurn:
    """A granted claim with everything its turn needs. `end` and `leaf`: of the transcript, as its owner saw it last.
    `soon`: lines that go with whatever the turn writes next.
    """

    turn: str
    epoch: Epoch
    transcript: str
    attempt: int
    input_row: Row | None
    took_over: bool
    findings: list[str]
    fence_mode: str
    end: int
    leaf: str | None
    models: ModelFacts = NOTHING_KNOWN
    landed: dict[str, Position] = field(default_factory=dict)
    soon: dict[str, Build] = field(default_factory=dict)
    lost: Verdict | None = None
    ended: bool = False

    @property
    def path(self) -> str:
        return f"postgres:{self.transcript}"

    def raise_if_lost(self) -> None:
        """A lost turn stays lost; so does one that has ended. Raises OwnershipLostError."""
        if self.ended:
            raise OwnershipLostError(f"turn {self.turn} has ended and writes nothing more; start a new turn")
        if self.lost is not None:
            raise OwnershipLostError(
                f"turn {self.turn} lost {self.path} ({self.lost.kind}: {self.lost.detail}); start a new turn"
            )

    def has_landed(self, entry_id: str) -> bool:
        return entry_id in self.landed or entry_id in self.soon

    def with_soon(self, lines: Sequence[tuple[str, Build]]) -> list[tuple[str, Build]]:
        """What is to be written now, in order: those that have waited go first."""
        return [*self.soon.items(), *(line for line in lines if line[0] not in self.soon)]

    def take_in(self, met: Met) -> None:
        """What this node's writer has found and written."""
        self.end, self.leaf = met.end, met.leaf
        self.landed.update(met.landed)
        for entry_id in met.landed:
            self.soon.pop(entry_id, None)


@dataclass(frozen=True, slots=True)
class Head:
    """The row of a transcript, locked."""

    epoch: Epoch
    turn: str | None
    process: str | None
    end: int
    leaf: str | None
    tampered: str | None


@dataclass(frozen=True, slots=True)
class Met:
    """What an owner met, and how the transcript stands afterwards."""

    verdict: Verdict
    end: int
    leaf: str | None
    landed: dict[str, Position] = field(default_factory=dict)


def head_of(conn: Connection, transcript: str) -> Head:
    row = conn.execute(
        "select epoch_number, epoch_nonce, owner_turn, owner_process, lines_end, leaf, tampered from transcripts"
        " where id=? for update",
        (transcript,),
    ).fetchone()
    return Head(Epoch(row[0], row[1]), *list(row)[2:])


def is_unchanged(conn: Connection, owned: OwnedTurn) -> bool:
    """Whether the fence has nothing to say, asked in one statement that locks nothing."""
    row = conn.execute(
        "select t.epoch_number, t.epoch_nonce, t.owner_turn, t.lines_end, t.tampered is null and not exists("
        "select 1 from lines where transcript=t.body and not is_ours) as is_clean from transcripts t where t.id=?",
        (owned.transcript,),
    ).fetchone()
    found = (row["epoch_number"], row["epoch_nonce"], row["owner_turn"], row["lines_end"])
    return found == (*owned.epoch, owned.turn, owned.end) and bool(row["is_clean"])


def judge(conn: Connection, owned: OwnedTurn) -> Met:
    """The fence: what happened since the owner looked last. What is adopted is recorded."""
    head = head_of(conn, owned.transcript)
    if head.epoch != owned.epoch or head.turn != owned.turn:
        by = f"turn {head.turn} of process {head.process}" if head.turn is not None else "unknown"
        return Met(Verdict("superseded", f"{head.end - owned.end} lines more than when we last looked", by=by),
                   head.end, head.leaf)  # fmt: skip
    if head.tampered is not None:
        return Met(Verdict("tampered", head.tampered), head.end, head.leaf)
    strangers = strangers_in(conn, owned.transcript)
    if strangers:
        return _judge_strangers(conn, owned, head, strangers)
    return Met(Verdict("advanced" if head.end > owned.end else "unchanged"), head.end, head.leaf)


def _judge_strangers(conn: Connection, owned: OwnedTurn, head: Head, strangers: list[Line]) -> Met:
    found = fence.classify_lines(
        strangers, leaves=(head.leaf, owned.leaf), on_branch=lambda one: _is_on_branch(conn, owned.transcript, one)
    )
    if found.is_takeover(owned.fence_mode):
        return Met(found, head.end, head.leaf)
    leaf = head.leaf
    if found.kind == "foreign_turn":
        for line in strangers:
            leaf = leaf_after(leaf, line)
    record(conn, owned.transcript, leaf)
    return Met(found, head.end, leaf)


def strangers_in(conn: Connection, transcript: str) -> list[Line]:
    """Lines that nobody has recorded, in order."""
    rows = conn.execute("select raw from lines where transcript=body_of(?) and not is_ours order by seq", (transcript,))
    return [read_line(row[0].removesuffix(b"\n")) for row in rows]


def record(conn: Connection, transcript: str, leaf: str | None) -> None:
    """What is there now is known from here on."""
    conn.execute("update lines set is_ours=true where transcript=body_of(?) and not is_ours", (transcript,))
    conn.execute("update transcripts set leaf=?, tampered=null where id=?", (leaf, transcript))


def _is_on_branch(conn: Connection, transcript: str, entry: str) -> bool:
    return (
        conn.execute("select 1 from lines where transcript=body_of(?) and id=?", (transcript, entry)).fetchone()
        is not None
    )


def take_baseline(conn: Connection, transcript: str, clock: Clock) -> tuple[Head, list[str]]:
    """What a new owner starts from: whatever parses counts, and what nobody has recorded is reported. A transcript
    that has not begun gets its first line.
    """
    head, findings = head_of(conn, transcript), list[str]()
    if head.tampered is not None:
        findings.append(head.tampered)
    strangers = strangers_in(conn, transcript)
    leaf = head.leaf
    if strangers:
        findings.append(f"{len(strangers)} lines were written by somebody else")
        for line in strangers:
            leaf = leaf_after(leaf, line)
    if findings:
        record(conn, transcript, leaf)
    if head.end == 0:
        write(conn, transcript, head, [(None, lambda _: encode_line(header_of(transcript, clock)))])
    return head_of(conn, transcript), findings


def header_of(transcript: str, clock: Clock) -> SessionHeader:
    """The first line of a transcript that begins now."""
    named = ids.derived_id("session", transcript, ids.nonce())
    return SessionHeader(version=FORMAT_VERSION, id=named, timestamp=iso(clock.now()), cwd="/")


def write(
    conn: Connection, transcript: str, head: Head, lines: Sequence[tuple[str | None, Build]]
) -> tuple[int, str | None, dict[str, Position]]:
    """Append lines, each built for the parent it gets. Returns end and leaf afterwards, and where they stand."""
    end, leaf, size = head.end, head.leaf, 0
    landed: dict[str, Position] = {}
    for entry_id, build in lines:
        raw = build(leaf)
        end += 1
        size += len(raw)
        conn.execute(
            "insert into lines(transcript, seq, id, raw, is_ours) values(body_of(?),?,?,?,true)",
            (transcript, end, entry_id, raw),
        )
        if entry_id is not None:
            landed[entry_id] = Position(end, len(raw))
            leaf = entry_id
    if end > head.end:
        conn.execute(
            "update transcripts set lines_end=?, leaf=?, bytes=bytes+? where id=?", (end, leaf, size, transcript)
        )
    return end, leaf, landed


def append_owned(conn: Connection, owned: OwnedTurn, lines: Sequence[tuple[str, Build]]) -> Met:
    """Append the owner's lines if the fence lets it. A line whose id has landed before is not written again."""
    new = [(entry_id, build) for entry_id, build in lines if entry_id not in owned.landed]
    met = _append_to_head(conn, owned, new) if new else None
    if met is not None:
        return met
    met = judge(conn, owned)
    if met.verdict.is_takeover(owned.fence_mode):
        return met
    head = Head(owned.epoch, owned.turn, None, met.end, met.leaf, None)
    end, leaf, landed = write(conn, owned.transcript, head, new)
    return Met(met.verdict, end, leaf, landed)


_APPEND_TO_HEAD = """
with head as (
 update transcripts t set lines_end=lines_end+?, leaf=?, bytes=bytes+?
  where id=? and epoch_number=? and epoch_nonce=? and owner_turn=? and lines_end=? and leaf is ? and tampered is null
  and not exists(select 1 from lines where transcript=t.body and not is_ours)
  returning body, lines_end
)
insert into lines(transcript, seq, id, raw, is_ours)
 select body, lines_end-?+n.at, n.id, n.raw, true
  from head, unnest(?::text[], ?::bytea[]) with ordinality n(id, raw, at)
"""


def _append_to_head(conn: Connection, owned: OwnedTurn, lines: Sequence[tuple[str, Build]]) -> Met | None:
    """Compare and set in one statement: the epoch, the end and the leaf that the owner knows, with nothing of anybody
    else's in between, become those behind its lines. None: it is not so, and nothing was written.

    Somebody who inserts a line by hand in this very moment moves the same row by the trigger, so one waits for the
    other, and this one looks again.
    """
    leaf, raws, landed = owned.leaf, list[bytes](), dict[str, Position]()
    for at, (entry_id, build) in enumerate(lines, 1):
        raw = build(leaf)
        raws.append(raw)
        landed[entry_id] = Position(owned.end + at, len(raw))
        leaf = entry_id
    values = (len(raws), leaf, sum(map(len, raws)), owned.transcript, *owned.epoch, owned.turn, owned.end, owned.leaf,
              len(raws), [entry_id for entry_id, _ in lines], raws)  # fmt: skip
    if conn.execute(_APPEND_TO_HEAD, values).rowcount != len(raws):
        return None
    return Met(Verdict("unchanged"), owned.end + len(raws), leaf, landed)


def append_unowned(conn: Connection, transcript: str, entry_id: str, build: Build, clock: Clock) -> Position:
    """Append one line that is not conversation. Nothing is judged: whoever meets anything but a clean end writes
    nothing while somebody owns the transcript.
    """
    known = conn.execute(
        "select seq, length(raw) from lines where transcript=body_of(?) and id=?", (transcript, entry_id)
    ).fetchone()
    if known is not None:
        return Position(known[0], known[1])
    head = head_of(conn, transcript)
    if head.tampered is not None or strangers_in(conn, transcript) or head.end == 0:
        if head.turn is not None:
            raise TranscriptUnsettledError(
                f"transcript {transcript} was changed by somebody else; its owner judges that first, try again"
            )
        head, _ = take_baseline(conn, transcript, clock)
    return write(conn, transcript, head, [(entry_id, build)])[2][entry_id]


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_final(conn: Connection, transcript: str, start: int, store_id: str, input_id: str) -> Line | None:
    """The line that answers an input for good, if the transcript has it after line `start`."""
    for line in _naming(conn, transcript, start, input_id):
        origin = line.origin
        is_final = line.kind == "entry" and origin is not None and origin.final and origin.store == store_id
        if is_final and origin is not None and input_id in origin.inputs:
            return line
    return None


def find_lines_of(conn: Connection, transcript: str, start: int, input_id: str) -> dict[str, Position]:
    """What earlier attempts at an input have written after line `start`."""
    rows = conn.execute(
        "select seq, raw from lines where transcript=body_of(?) and seq>? and is_ours and position(?::bytea in raw)>0"
        " order by seq",
        (transcript, start, input_id.encode()),
    )
    found: dict[str, Position] = {}
    for row in rows:
        line = read_line(row[1].removesuffix(b"\n"))
        if line.id and line.origin is not None and input_id in line.origin.inputs:
            found[line.id] = Position(row[0], len(row[1]))
    return found


def _naming(conn: Connection, transcript: str, start: int, input_id: str) -> list[Line]:
    rows = conn.execute(
        "select raw from lines where transcript=body_of(?) and seq>? and is_ours and position(?::bytea in raw)>0"
        " order by seq",
        (transcript, start, input_id.encode()),
    )
    return [read_line(row[0].removesuffix(b"\n")) for row in rows]


def read_lines(conn: Connection, transcript: str, newest: int | None = None) -> list[Line]:
    """All lines as they are, or so many of the newest."""
    rows = conn.execute(
        "select raw from lines where transcript=body_of(?) order by seq desc limit ?", (transcript, newest or -1)
    ).fetchall()
    return [read_line(row[0].removesuffix(b"\n")) for row in reversed(rows)]


def read_context(conn: Connection, transcript: str, upto: int | None) -> list[Line]:
    """The newest lines, as far back as a context can need them. `upto`: a line that is wanted in any case."""
    count, end = CONTEXT_LINES, _end_of(conn, transcript)
    while True:
        lines = read_lines(conn, transcript, count)
        is_whole = len(lines) < count or count >= CONTEXT_LINES_MAX
        if is_whole or (reaches_back(lines) and (upto is None or end - count < upto)):
            return lines
        count *= 4


def _end_of(conn: Connection, transcript: str) -> int:
    row = conn.execute("select lines_end from transcripts where id=?", (transcript,)).fetchone()
    return 0 if row is None else row[0]
