"""What a backend tells of a state at one moment, for the checks to judge. Plain values; gathering them writes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Life = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class ClaimFact:
    """A transcript that a turn owns.

    Args:
        life: of the process that owns it. turn_state: of the turn's row; None: it has none.
    """

    transcript: str
    sessions: tuple[str, ...]
    turn: str
    lane: str
    process: str
    pid: int | None
    life: Life
    turn_state: str | None


@dataclass(frozen=True, slots=True)
class OpenInputFact:
    """An accepted input that has not ended.

    Args:
        is_owned: (a running one) the turn that it names owns its transcript in the same epoch.
        is_placed: its transcript is known.
    """

    id: str
    session: str
    state: str
    turn: str | None
    is_owned: bool
    is_placed: bool
    accepted_at_ms: int


@dataclass(frozen=True, slots=True)
class UnsentFact:
    """An answered input with a route and no delivery at all."""

    id: str
    session: str
    route: str
    answer: str | None
    detail: str | None
    settled_at_ms: int


@dataclass(frozen=True, slots=True)
class DeliveryFact:
    """A delivery that has not arrived. life: of the process that sends it, where one does."""

    id: str
    input: str
    channel: str
    target: str
    state: str
    attempts: int
    detail: str | None
    updated_at_ms: int
    life: Life | None


@dataclass(frozen=True, slots=True)
class StrayTurnFact:
    """A turn that the ledger calls running and that owns nothing."""

    id: str
    session: str
    process: str


@dataclass(frozen=True, slots=True)
class CountFact:
    """A queue's length as it was kept, and as it is. transcript: "" for all together."""

    transcript: str
    lane: str
    kept: tuple[int, int]
    true: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PinFact:
    """A session's model as the row has it, whether or not it can be one. is_by_turn: `by` is a turn of this state."""

    id: str
    session: str
    model: str
    source: str
    reason: str
    set_at_ms: int
    expires_at_ms: int | None
    origin: str | None
    by: str
    is_by_turn: bool


@dataclass(frozen=True, slots=True)
class ArchiveFact:
    """A transcript that was put away. found_bytes: of its file, None: it is not there."""

    id: str
    session: str
    name: str
    state: str
    bytes: int
    found_bytes: int | None
    is_left: bool


@dataclass(frozen=True, slots=True)
class SessionFact:
    """A session key as the ledger lists it. has_spoken: something was written in it once."""

    key: str
    transcript: str
    path: str
    has_spoken: bool


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """All of it is of one moment (one read transaction).

    Args:
        newest_ms: the newest time stamp in it; 0: none.
        held_since_ms, held: since when and why work is held back.
        gateways: that live.
        taken_over: turns of the last week that lost their session to another writer, newest first, as (turn, session).
        damage: what SQLite says is wrong with the file.
    """

    claims: tuple[ClaimFact, ...] = ()
    inputs: tuple[OpenInputFact, ...] = ()
    unsent: tuple[UnsentFact, ...] = ()
    deliveries: tuple[DeliveryFact, ...] = ()
    strays: tuple[StrayTurnFact, ...] = ()
    counts: tuple[CountFact, ...] = ()
    pins: tuple[PinFact, ...] = ()
    sessions: tuple[SessionFact, ...] = ()
    archives: tuple[ArchiveFact, ...] = ()
    newest_ms: int = 0
    held_since_ms: int | None = None
    held: str = ""
    gateways: int = 0
    taken_over: tuple[tuple[str, str], ...] = ()
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TranscriptFact:
    """A transcript: a file on disk, or rows.

    Args:
        path: in the state directory; of rows, the key that they were made for.
        key: (of one that is not listed) the session key that its name was made of, where it can be told.
        listed: the session keys that lead to it.
        faults: what is wrong with its lines, in words; unanswered, unasked: tool calls without a result that the
            conversation went on after, results without a call.
        in_use: a turn owns it.
        unread: why it could not be read.
        by_hand: what somebody has done to it past us that no owner has judged yet, in words.
    """

    path: str
    bytes: int
    key: str | None = None
    listed: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    unanswered: int = 0
    unasked: int = 0
    in_use: bool = False
    unread: str = ""
    by_hand: str = ""


@dataclass(frozen=True, slots=True)
class FileFact:
    """Something in a state directory, as its folder shows it. leads_to: of a link, where outside the state it leads."""

    path: str
    kind: Literal["file", "folder", "link", "other"]
    mode: int
    is_ours: bool
    leads_to: str = ""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What the state stands on. free_files: None where the file system does not count them."""

    file_system: str = ""
    is_shared: bool = False
    free_bytes: int = 1 << 40
    free_files: int | None = None


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A database that holds a state, as whoever looked was let in.

    Args:
        version: of the server, as a number (160004) and in words.
        steps_missing: of the tables, that this release would take when it opens the state.
        triggers_off: on tables of the state, that are switched off.
        settings: of the server, that let it lose what it has acknowledged, as (name, value).
        standby: the server takes no writes.
        may_not: rights that the role needs and has not, in words. is_superuser: it has far more than it needs.
        open_to: roles and words for roles (`public`) that may read tables and are neither their owner nor a role of
            nodes.
        connections_max, connections_used: of the server, without those kept for superusers. connections_of_role: the
            limit of this role; -1: none. connections_ours: of Holdfast, to this database.
        is_local: by a socket of this machine. is_encrypted, ssl_mode: how this connection was made.
        ahead_ms: this machine's clock against the database's.
    """

    name: str = ""
    version: int = 0
    version_words: str = ""
    role: str = ""
    steps_missing: tuple[str, ...] = ()
    triggers_off: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    standby: bool = False
    may_not: tuple[str, ...] = ()
    is_superuser: bool = False
    open_to: tuple[str, ...] = ()
    connections_max: int = 1000
    connections_used: int = 0
    connections_of_role: int = -1
    connections_ours: int = 0
    is_local: bool = True
    is_encrypted: bool = False
    ssl_mode: str = "prefer"
    ahead_ms: int = 0


@dataclass(frozen=True, slots=True)
class PortFact:
    """Why the gateway's address cannot be had: who holds it, or what the system says."""

    host: str
    port: int
    holder: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class PlaceFacts:
    """What is around a state.

    Args:
        open_secrets: a configuration file with secrets in it that others may read, and its mode.
        port: None: nothing is wrong with it.
        keyless: configured models without a key, as (key of the configuration, what is missing).
        silent: models that were asked and did not answer, as (reference, what came instead).
    """

    config_faults: tuple[str, ...] = ()
    config_warnings: tuple[str, ...] = ()
    open_secrets: tuple[str, int] | None = None
    port: PortFact | None = None
    keyless: tuple[tuple[str, str], ...] = ()
    silent: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StateFacts:
    """Everything.

    Args:
        at_ms: now, by the clock of whoever looked.
        problem: why the ledger could not be read; then `ledger` is empty.
        living: processes that use the state.
        database: None: the state is a folder.
    """

    path: str
    at_ms: int
    ledger: LedgerFacts = LedgerFacts()
    transcripts: tuple[TranscriptFact, ...] = ()
    files: tuple[FileFact, ...] = ()
    disk: DiskFacts = DiskFacts()
    problem: str = ""
    living: int = 0
    place: PlaceFacts = PlaceFacts()
    database: DatabaseFacts | None = None
