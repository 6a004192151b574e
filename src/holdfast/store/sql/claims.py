"""Who owns which transcript: the SQL of claims, takeovers and their end. Every function runs inside a transaction.

The embedded store makes a claim with the transcript's write lock held, so that ledger and fence record change together
as far as anybody who respects the lock can see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from holdfast import ids
from holdfast.lane.policy import LaneLimits, slot_of
from holdfast.model.policy import NOTHING_KNOWN, ModelFacts
from holdfast.recovery.classify import Life, Owner
from holdfast.session.fence import Epoch, next_epoch_number
from holdfast.session.key import parse_key
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.sql import inbox, model_rows, usage_rows
from holdfast.store.sql.connection import Connection, Row


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A turn that did not end in order and is closed by whoever comes next."""

    turn: str
    process: str
    epoch: Epoch
    input_id: str | None
    first_offset: int | None


@dataclass(slots=True)
class Granted:
    """The claim as the ledger has it."""

    epoch: Epoch
    attempt: int = 1
    input_row: Row | None = None
    models: ModelFacts = NOTHING_KNOWN
    closed: list[Predecessor] = field(default_factory=list)


def owner_of(conn: Connection, transcript: str) -> Epoch | None:
    """The epoch the ledger calls the owner's, None if nobody's."""
    row = conn.execute(
        "select epoch_number, epoch_nonce from transcripts where id=? and owner_turn is not null", (transcript,)
    ).fetchone()
    return Epoch(row[0], row[1]) if row else None


def processes_owning(conn: Connection) -> set[str]:
    """Processes that own a turn, or did when they ended: they must stay provably dead or alive."""
    return {row[0] for row in conn.execute("select owner_process from transcripts where owner_turn is not null")}


def raise_epoch(conn: Connection, transcript: str, before: Epoch, known_numbers: tuple[int, ...]) -> Epoch:
    """An epoch of nobody's, above all that are known: whoever had the one before is superseded."""
    raised = Epoch(next_epoch_number(before.number, *known_numbers), ids.nonce())
    conn.execute("update transcripts set epoch_number=?, epoch_nonce=? where id=?", (*raised, transcript))
    return raised


def owners(conn: Connection, me: str, life_of: Callable[[str], Life]) -> list[Owner]:
    """Every claim, as recovery looks at it."""
    rows = conn.execute(
        "select t.*, p.pid, u.input, (select group_concat(key, char(10)) from sessions where transcript=t.id) as keys,"
        " coalesce((select sum(queued) from depths where transcript=t.id), 0) as queued"
        " from transcripts t left join processes p on p.name=t.owner_process left join turns u on u.id=t.owner_turn"
        " where t.owner_turn is not null order by t.claimed_at_ms"
    )
    return [
        Owner(
            row["id"], tuple((row["keys"] or "").split("\n")), Epoch(row["epoch_number"], row["epoch_nonce"]),
            row["owner_turn"], row["owner_lane"], row["owner_process"], row["pid"], life_of(row["owner_process"]),
            row["input"], is_ours=row["owner_process"] == me, since_ms=row["claimed_at_ms"] or 0, queued=row["queued"],
        )
        for row in rows
    ]  # fmt: skip


def live_owner(row: Row, lapsed: Epoch | None, life_of: Callable[[str], Life]) -> Busy | None:
    """Who is in the way of a claim: asked before anything of the transcript is looked at.

    Args:
        lapsed: the epoch whose beat has stood still for the whole term.
    """
    epoch = Epoch(row["epoch_number"], row["epoch_nonce"])
    if row["owner_turn"] is None or lapsed == epoch or life_of(row["owner_process"]) == "dead":
        return None
    return Busy("owned", f"turn {row['owner_turn']} ({row['owner_lane']}) of process {row['owner_process']}", epoch)


def owner_left_to_others(conn: Connection, row: Row, is_left: Callable[[Sequence[str]], bool]) -> Busy | None:
    """An owner that is dead or lapsed, of a session that somebody outside recovers: in the way until they have."""
    if row["owner_turn"] is None:
        return None
    keys = [one[0] for one in conn.execute("select key from sessions where transcript=?", (row["id"],))]
    if not is_left(keys):
        return None
    holder = (
        f"turn {row['owner_turn']}, which is dead or stands still; whoever supervises the session recovers it "
        "(`holdfast recover`)"
    )
    return Busy("owned", holder, Epoch(row["epoch_number"], row["epoch_nonce"]))


def claim(
    conn: Connection,
    request: ClaimRequest,
    row: Row,
    wanted: Row | None,
    *,
    limits: LaneLimits,
    now_ms: int,
    known_numbers: tuple[int, ...],
    end: int,
    close: Callable[[Connection, Predecessor], None],
) -> Granted | Busy:
    """Grant the transcript to a turn, closing its dead or lapsed predecessor first; or say what is in the way.

    Args:
        row: of the transcript, as this transaction found it; `live_owner` has found none.
        wanted: of the input to run, likewise; None for a turn without one, or an unknown one.
        known_numbers: epoch numbers seen in the record and in the transcript.
        end: size of the transcript now; kept as the input's first offset at its first claim.
        close: settles or re-queues the predecessor's input from what the transcript says.
    """
    closed: list[Predecessor] = []
    number = next_epoch_number(row["epoch_number"], *known_numbers)
    raised: Epoch | None = None
    if row["owner_turn"] is not None:
        predecessor = predecessor_of(conn, row)
        close(conn, predecessor)
        closed.append(predecessor)
        raised = Epoch(number, request.nonce)
        conn.execute("update transcripts set epoch_number=?, epoch_nonce=? where id=?", (*raised, request.transcript))
        wanted = inbox.by_id(conn, request.input_id) if request.input_id is not None else None  # may be the very one
    taken = _take_input(conn, request, wanted, now_ms)
    if isinstance(taken, Busy):
        return replace(taken, raised=raised)
    slots = _slots_taken(conn, request)
    if slots >= limits.width(request.lane):
        return Busy(
            "lane", f"lane {request.lane!r}: {slots} of {limits.width(request.lane)} slots taken", raised=raised
        )
    full = _agent_is_full(conn, request, limits)
    if full is not None:
        return Busy("lane", full, raised=raised)
    epoch = Epoch(number, request.nonce)
    conn.execute(
        "update transcripts set epoch_number=?, epoch_nonce=?, owner_turn=?, owner_process=?, owner_lane=?,"
        " owner_lent=0, claimed_at_ms=? where id=?",
        (*epoch, request.turn, request.process, request.lane, now_ms, request.transcript),
    )
    conn.execute(
        "insert into turns(id, session, transcript, lane, input, epoch_number, process, parent, state, started_at_ms)"
        " values(?,?,?,?,?,?,?,?,'running',?)",
        (
            request.turn, request.session, request.transcript, request.lane, request.input_id, epoch.number,
            request.process, request.parent, now_ms,
        ),
    )  # fmt: skip
    granted = Granted(epoch, closed=closed, models=model_rows.facts(conn, request.session))
    if taken is not None:
        granted.attempt = taken["attempts"] + 1
        granted.input_row = taken
        conn.execute(
            "update inputs set state='running', attempts=attempts+1, epoch_number=?, epoch_nonce=?, turn=?,"
            " first_offset=min(coalesce(first_offset, ?), ?) where id=?",  # a power loss may have made the file shorter
            (*epoch, request.turn, end, end, taken["id"]),
        )
    return granted


def forget_offsets(conn: Connection, transcript: str) -> None:
    """The transcript is about to be written anew: its inputs' lines are looked for from its start."""
    conn.execute(
        "update inputs set first_offset=0 where transcript=? and state in ('queued', 'running')"
        " and first_offset is not null",
        (transcript,),
    )


def _take_input(conn: Connection, request: ClaimRequest, row: Row | None, now_ms: int) -> Row | Busy | None:
    """Ask again, inside the transaction, whether the input is still open and next."""
    if request.input_id is None:
        return None
    if row is None or row["state"] != "queued":
        return Busy("gone", f"input {request.input_id} is {row['state'] if row else 'unknown'}")
    head = inbox.head_of_line(conn, request.transcript, now_ms)
    if head != request.input_id:
        return Busy("not next", f"input {head} is before it")
    if row["debounce_ms"] and inbox.quiet_in_s(conn, request.transcript, now_ms) > 0:
        return Busy("not quiet", "more may follow it")  # whoever stood in line finds it free before that
    if row["solo"] and is_solo_running(conn):
        return Busy("solo", "another input that is re-run alone")
    return row


def is_solo_running(conn: Connection) -> bool:
    """Whether an input that is re-run alone is running."""
    row = conn.execute(
        "select 1 from inputs where state in ('queued', 'running') and state='running' and solo=1 limit 1"
    ).fetchone()
    return row is not None


def _slots_taken(conn: Connection, request: ClaimRequest) -> int:
    return conn.execute(
        "select count(*) from transcripts where owner_turn is not null and owner_lane=? and owner_lent=0 and id<>?",
        (request.lane, request.transcript),
    ).fetchone()[0]


def _agent_is_full(conn: Connection, request: ClaimRequest, limits: LaneLimits) -> str | None:
    """Why the turn's agent may have no more turns in its lane, in words; None: it may."""
    agent = parse_key(request.session).agent if limits.agents else ""
    width = limits.agent_width(agent, request.lane)
    if width is None:
        return None
    slots = running_of_agents(conn, but_for=request.transcript).get(slot_of(request.lane, agent), 0)
    return f"lane {request.lane!r}: {slots} of {width} slots of agent {agent} taken" if slots >= width else None


def running_of_agents(conn: Connection, *, but_for: str = "") -> dict[str, int]:
    """How many turns each agent has in each lane, by `slot_of`; without the one on the transcript `but_for`."""
    rows = conn.execute(
        "select t.owner_lane, u.session from transcripts t join turns u on u.id=t.owner_turn"
        " where t.owner_turn is not null and t.owner_lent=0 and t.id<>?",
        (but_for,),
    )
    return dict(Counter(slot_of(row[0], parse_key(row[1]).agent) for row in rows))


def predecessor_of(conn: Connection, row: Row) -> Predecessor:
    """The turn the ledger still calls the owner, as seen by whoever comes next."""
    epoch = Epoch(row["epoch_number"], row["epoch_nonce"])
    of = conn.execute(
        "select id, first_offset from inputs where transcript=? and state in ('queued', 'running') and epoch_nonce=?",
        (row["id"], epoch.nonce),
    ).fetchone()
    return Predecessor(
        row["owner_turn"], row["owner_process"], epoch, of["id"] if of else None, of["first_offset"] if of else None
    )


def session_of(conn: Connection, turn: str) -> str | None:
    """The session key that a turn was begun for, None if its row has gone."""
    row = conn.execute("select session from turns where id=?", (turn,)).fetchone()
    return row[0] if row is not None else None


def end_turn(conn: Connection, turn: str, outcome: str, detail: str | None, now_ms: int) -> None:
    """The turn's row is closed once; a second end changes nothing."""
    conn.execute(
        "update turns set state='settled', ended_at_ms=?, outcome=?, detail=? where id=? and state='running'",
        (now_ms, outcome, inbox.as_text(detail), turn),
    )
    usage_rows.cut_off(conn, turn, now_ms)


def release(conn: Connection, transcript: str, epoch: Epoch) -> bool:
    """Give the transcript up, if it is still ours."""
    cursor = conn.execute(
        "update transcripts set owner_turn=null, owner_process=null, owner_lane=null, owner_lent=0"
        " where id=? and epoch_number=? and epoch_nonce=?",
        (transcript, *epoch),
    )
    return cursor.rowcount == 1


def lend_slot(conn: Connection, turn: str, lent: bool) -> None:
    """A turn that waits for another one lends its lane slot."""
    conn.execute("update transcripts set owner_lent=? where owner_turn=?", (int(lent), turn))


def begin_wait(
    conn: Connection, wait_id: str, process: str, transcript: str, parent_turn: str | None, now_ms: int
) -> list[str]:
    """Note a wait. Returns the ring of turns it would close (empty: none; the wait is noted)."""
    ring = find_ring(conn, transcript, parent_turn)
    if not ring:
        conn.execute(
            "insert into waits(id, process, transcript, parent_turn, since_ms) values(?,?,?,?,?)",
            (wait_id, process, transcript, parent_turn, now_ms),
        )
    return ring


def end_wait(conn: Connection, wait_id: str) -> None:
    conn.execute("delete from waits where id=?", (wait_id,))


def forget_waits_of(conn: Connection, turn: str) -> None:
    """A turn that died waits for nobody any more."""
    conn.execute("delete from waits where parent_turn=?", (turn,))


def find_ring(conn: Connection, transcript: str, parent_turn: str | None) -> list[str]:
    """Follow who waits for whom from the owner of `transcript`; a ring is there if that leads back to our own turns."""
    if parent_turn is None:
        return []
    ours = set(_with_parents(conn, parent_turn))
    path: list[str] = []
    frontier, seen = [transcript], {transcript}
    while frontier:
        owner = conn.execute("select owner_turn from transcripts where id=?", (frontier.pop(),)).fetchone()
        if owner is None or owner[0] is None:
            continue
        path.append(owner[0])
        if owner[0] in ours:
            return path
        for row in conn.execute("select transcript from waits where parent_turn=?", (owner[0],)):
            if row[0] not in seen:
                seen.add(row[0])
                frontier.append(row[0])
        for row in conn.execute("select id, transcript from turns where parent=? and state='running'", (owner[0],)):
            for child in conn.execute("select transcript from waits where parent_turn=?", (row[0],)):
                if child[0] not in seen:
                    seen.add(child[0])
                    frontier.append(child[0])
    return []


def _with_parents(conn: Connection, turn: str) -> list[str]:
    chain: list[str] = []
    at: str | None = turn
    while at is not None and at not in chain:
        chain.append(at)
        row = conn.execute("select parent from turns where id=?", (at,)).fetchone()
        at = row[0] if row else None
    return chain
