"""What `holdfast doctor` wants to know of a state in PostgreSQL. Nothing in it changes, whoever uses it meanwhile.

Everything is asked in one transaction that only reads, as of one moment (REPEATABLE READ). Only who lives is not of
that moment: a node's lock has to be free for `GONE_S` before its node counts as gone, so that is watched for first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from holdfast.clock import Clock, SystemClock, epoch_ms
from holdfast.doctor.facts import ArchiveFact, DatabaseFacts, LedgerFacts, SessionFact, StateFacts, TranscriptFact
from holdfast.doctor.lines import LinesFound
from holdfast.errors import InputError
from holdfast.node_dir import without_password
from holdfast.recovery.classify import Life
from holdfast.session.lines import read_line
from holdfast.store.postgres.connecting import LedgerConnection, check_url, connect, unreachable
from holdfast.store.postgres.node import ENDED, GONE_S, LifeWatch
from holdfast.store.postgres.schema import SCHEMA, STEPS, check_schema
from holdfast.store.sql import archive_rows
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.examining import ledger_facts

Progress = Callable[[str, int, int], None]
LINES_AT_ONCE = 500
LOOK_S = 0.25
TRIGGERS = (
    ("lines_watched", "lines"), ("lines_emptied", "lines"), ("inputs_counted", "inputs"),
    ("inputs_recounted", "inputs"),
)  # fmt: skip
NEEDED = ("select", "insert", "update", "delete")


def examine(url: str, clock: Clock, progress: Progress = lambda _what, _done, _all: None) -> StateFacts:
    """Everything the checks need. Takes about a second per 100 MB of transcripts, and two more where a node has gone.

    Raises:
        InputError: no state there. StateAwayError: the database cannot be reached. StateVersionError: made by a newer
            release.
    """
    check_url(url)
    try:
        with connect(url, "doctor") as raw:
            raw.execute("set default_transaction_read_only=on")
            if check_schema(raw) is None:
                raise InputError(f"no state in {without_password(url)}: nobody has opened one there yet")
            return _examine(raw, url, clock, progress)
    except psycopg.errors.InsufficientPrivilege as exc:
        name = conninfo_to_dict(url).get("user") or "this role"
        at = DatabaseFacts(role=str(name), may_not=(f"read the tables ({exc.diag.message_primary})",))
        return StateFacts(without_password(url), epoch_ms(clock.now()), database=at)
    except psycopg.OperationalError as exc:
        raise unreachable(url, exc) from exc


def _examine(raw: psycopg.Connection[Any], url: str, clock: Clock, progress: Progress) -> StateFacts:
    conn = LedgerConnection(raw)
    life_of = _watch_lives(conn)
    progress("ledger", 0, 1)
    raw.execute("begin isolation level repeatable read read only")
    try:
        now_ms = epoch_ms(clock.now())
        database = _database(raw, url, now_ms)
        facts = ledger_facts(conn, now_ms, life_of)
        ledger = replace(facts, sessions=tuple(_sessions(conn)), archives=tuple(_archives(conn)))
        lines = dict(_lines(raw, progress))
        transcripts = tuple(_transcripts(conn, ledger, lines))
        ledger = replace(ledger, damage=tuple(_nobodys(conn, lines)))
        living = [row[0] for row in conn.execute("select name from processes where node<>?", (ENDED,))]
        alive = sum(life_of(name) == "alive" for name in living)
        return StateFacts(without_password(url), now_ms, ledger, transcripts, living=alive, database=database)
    finally:
        raw.execute("rollback")


def _watch_lives(conn: Connection) -> Callable[[str], Life]:
    """Who lives, once that is known of everybody; nobody is waited for longer than it takes to be sure."""
    watch, until = LifeWatch("", SystemClock()), time.monotonic() + GONE_S + 2 * LOOK_S
    while True:
        names = [row[0] for row in conn.execute("select name from processes where node<>?", (ENDED,))]
        lives: dict[str, Life] = {name: watch.life_in(conn, name) for name in names}
        if "unknown" not in lives.values() or time.monotonic() >= until:
            return lambda name: lives.get(name) or watch.life_in(conn, name)
        time.sleep(LOOK_S)


def _sessions(conn: Connection) -> Iterator[SessionFact]:
    rows = conn.execute(
        "select s.key, s.transcript, t.path, t.lines_end from sessions s left join transcripts t on t.id=s.transcript"
        " order by s.key"
    )
    for row in rows:
        is_there = row["path"] is not None
        yield SessionFact(
            row["key"], row["transcript"], row["path"] or row["key"], not is_there or row["lines_end"] > 0
        )


def _archives(conn: Connection) -> Iterator[ArchiveFact]:
    left = {one.id for one in archive_rows.unfinished(conn)}
    rows = conn.execute(
        "select id, session, name, state, bytes, (select sum(length(raw)) from lines where transcript=a.name) as found"
        " from archives a order by at_ms"
    )
    for row in rows:
        found, is_left = row["found"], row["id"] in left
        yield ArchiveFact(row["id"], row["session"], row["name"], row["state"], row["bytes"], found, is_left)


# ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Lines:
    """The lines behind one name, in order, judged as they come."""

    def __init__(self) -> None:
        self.found = LinesFound()
        self.count, self.last, self.bytes, self.strangers, self.misnamed = 0, 0, 0, 0, 0

    def take(self, seq: int, entry_id: str | None, raw: bytes, is_ours: bool) -> None:
        self.count += 1
        self.last = seq
        self.bytes += len(raw)
        self.strangers += not is_ours
        # Cheap first: an id that stands nowhere in its line is looked at whole.
        if entry_id is not None and entry_id.encode() not in raw:
            self.misnamed += read_line(raw.removesuffix(b"\n")).id != entry_id
        self.found.take(raw.removesuffix(b"\n"))


def _lines(raw: psycopg.Connection[Any], progress: Progress) -> Iterator[tuple[str, _Lines]]:
    """Of each name that has any. They come in batches, so memory grows with the number of ids, not with the bytes."""
    row = raw.execute("select coalesce(sum(bytes), 0) from transcripts").fetchone()
    total, done = int(row[0]) if row is not None else 0, 0
    with raw.cursor("lines") as cursor:
        cursor.itersize = LINES_AT_ONCE
        cursor.execute("select transcript, seq, id, raw, is_ours from lines order by transcript, seq")
        for body, rows in groupby(cursor, key=itemgetter(0)):
            found = _Lines()
            for one in rows:
                found.take(one[1], one[2], bytes(one[3]), one[4])
            done += found.bytes
            progress("transcripts", min(done, total), total)
            yield body, found
    progress("transcripts", total, total)


def _transcripts(conn: Connection, ledger: LedgerFacts, lines: dict[str, _Lines]) -> Iterator[TranscriptFact]:
    listed: dict[str, list[str]] = {}
    for one in ledger.sessions:
        listed.setdefault(one.transcript, []).append(one.key)
    for row in conn.execute("select * from transcripts order by path"):
        keys, found = tuple(listed.get(row["id"], ())), lines.get(row["body"]) or _Lines()
        yield TranscriptFact(
            row["path"], found.bytes, None if keys else row["path"], keys,
            (*found.found.faults, *_of_head(row, found)), found.found.unanswered, found.found.unasked,
            in_use=row["owner_turn"] is not None, by_hand=_by_hand(row["tampered"], found.strangers),
        )  # fmt: skip


def _of_head(row: Any, found: _Lines) -> Iterator[str]:
    """What the row of a transcript says of its lines, and what there is."""
    if found.last != found.count:
        yield f"{found.last - found.count} line(s) are not there"
    if row["lines_end"] != found.last:
        yield f"its row counts {row['lines_end']} lines, the last one is {found.last}"
    if row["bytes"] != found.bytes:
        yield f"its row counts {row['bytes']} bytes, there are {found.bytes}"
    if found.misnamed:
        yield f"{found.misnamed} line(s) are indexed by an id that they do not have"


def _by_hand(tampered: str | None, strangers: int) -> str:
    written = f"{strangers} line(s) were written by somebody else" if strangers else ""
    return "; ".join(one for one in (tampered, written) if one)


def _nobodys(conn: Connection, lines: dict[str, _Lines]) -> Iterator[str]:
    """Lines that neither a transcript nor an archive has."""
    known = {row[0] for row in conn.execute("select body from transcripts union all select name from archives")}
    for body in sorted(lines.keys() - known):
        yield f"{lines[body].count} line(s) under {body!r} belong to no transcript and no archive"


# ── the database ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _database(raw: psycopg.Connection[Any], url: str, now_ms: int) -> DatabaseFacts:
    def ask(sql: str, *values: object) -> list[Any]:
        return list(raw.execute(sql.encode(), values or None))

    (facts,) = ask(
        "select current_database(), current_user, current_setting('server_version_num')::int, version(),"
        " pg_is_in_recovery(), (extract(epoch from clock_timestamp())*1000)::bigint,"
        " r.rolsuper, r.rolconnlimit from pg_roles r where r.rolname=current_user"
    )
    asked = conninfo_to_dict(url)
    host = raw.info.host
    return DatabaseFacts(
        facts[0], facts[2], facts[3], facts[1], _steps_missing(ask), _triggers_off(ask),
        tuple((name, "off") for (name,) in ask(
            "select name from pg_settings where name in ('fsync', 'full_page_writes') and setting='off' order by name"
        )), facts[4], _may_not(ask), facts[6], _open_to(ask),
        **_connections(ask), connections_of_role=-1 if facts[6] else facts[7],
        is_local=not host or host.startswith(("/", "@")) or raw.info.hostaddr in ("127.0.0.1", "::1"),
        is_encrypted=bool(raw.pgconn.ssl_in_use), ssl_mode=str(asked.get("sslmode") or "prefer"),
        ahead_ms=now_ms - facts[5],
    )  # fmt: skip


Ask = Callable[..., list[Any]]


def _steps_missing(ask: Ask) -> tuple[str, ...]:
    taken = {row[0] for row in ask("select version from migrations")}
    return tuple(f"{step.version} ({step.name})" for step in STEPS if step.version not in taken)


def _triggers_off(ask: Ask) -> tuple[str, ...]:
    on = {
        (row[0], row[1])
        for row in ask(
            "select t.tgname, c.relname from pg_trigger t join pg_class c on c.oid=t.tgrelid"
            " join pg_namespace n on n.oid=c.relnamespace where n.nspname=%s and t.tgenabled in ('O', 'A')", SCHEMA,
        )
    }  # fmt: skip
    return tuple(f"{name} on {table}" for name, table in TRIGGERS if (name, table) not in on)


def _may_not(ask: Ask) -> tuple[str, ...]:
    tables = [row[0] for row in ask("select tablename from pg_tables where schemaname=%s order by 1", SCHEMA)]
    of_keepers = ("migrations", "meta")  # read by a node, and written by whoever changes the tables
    lacking = []
    for right in NEEDED:
        without = [
            one for one in tables
            if (right == "select" or one not in of_keepers)
            and not ask("select has_table_privilege(%s, %s)", f"{SCHEMA}.{one}", right)[0][0]
        ]  # fmt: skip
        if without:
            some = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
            lacking.append(f"{right} in {some}")
    return tuple(lacking)


def _open_to(ask: Ask) -> tuple[str, ...]:
    """Whether `public` may use what is in the schema: named roles were let in by a person."""
    rows = ask(
        "select 1 from pg_class c join pg_namespace n on n.oid=c.relnamespace, aclexplode(c.relacl) a"
        " where n.nspname=%s and a.grantee=0 and c.relkind in ('r', 'v', 'p') limit 1", SCHEMA,
    )  # fmt: skip
    return ("public",) if rows else ()


def _connections(ask: Ask) -> dict[str, int]:
    """Without the one that asks."""
    (row,) = ask(
        "select current_setting('max_connections')::int - (select coalesce(sum(setting::int), 0) from pg_settings"
        "  where name in ('superuser_reserved_connections', 'reserved_connections')),"
        " (select count(*) from pg_stat_activity where backend_type='client backend') - 1,"
        " (select count(*) from pg_stat_activity where datname=current_database()"
        "  and application_name like 'holdfast %') - 1"
    )
    return {"connections_max": int(row[0]), "connections_used": int(row[1]), "connections_ours": int(row[2])}
