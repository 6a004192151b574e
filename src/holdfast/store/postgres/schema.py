"""The tables in PostgreSQL: the ledger's, made from `store/sql/tables.py`, and the transcripts' own.

Migrations (`STEPS`) go forward only, in one transaction, under an advisory lock, so that of several nodes that start at
once one takes them. Each step that was taken stands in `migrations` with the digest of what it did. A schema that is
newer than this release, or not as its steps have made it, is refused and left alone.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from holdfast import ids
from holdfast.errors import InputError, ResourceError, StateVersionError
from holdfast.store.sql.tables import ADDED, TABLES

SCHEMA = "holdfast"
SERVER_VERSION_MIN = 140000
MIGRATING = 0x686F6C64_00000001
"""Advisory lock of whoever makes, changes or copies the tables."""
WRITING = 0x686F6C64_00000002
"""Advisory lock of writers: those that need to be alone take it, those that may run beside each other share it."""
WAIT_S = 20
"""For how long one who opens waits for it; a step that takes longer is no step for a start."""
log = logging.getLogger("holdfast.store")

# What SQLite has as functions, for the statements that both engines share. `max` and `min` of two are null if one is.
_FUNCTIONS = """
create function max(bigint, bigint) returns bigint language sql immutable as
 'select case when $1 is null or $2 is null then null else greatest($1, $2) end';
create function min(bigint, bigint) returns bigint language sql immutable as
 'select case when $1 is null or $2 is null then null else least($1, $2) end';
create function plus(bigint, boolean) returns bigint language sql immutable as
 'select case when $2 is null then $1 else coalesce($1, 0) + $2::int end';
create aggregate sum(boolean)(sfunc=plus, stype=bigint);
create function joined(text, text, text) returns text language sql immutable as
 'select coalesce($1 || $3, '''') || $2';
create aggregate group_concat(text, text)(sfunc=joined, stype=text);
create function joined(text, text) returns text language sql immutable as
 'select coalesce($1 || '','', '''') || $2';
create aggregate group_concat(text)(sfunc=joined, stype=text);
create view sqlite_master as select 'table'::text as type, tablename::text as name from pg_tables
 where schemaname=current_schema();
"""

# The row of a whole lane would be everybody's: each claim would wait for the commit of the one before. So it is no row
# here but a sum over what is open, of which there is never much.
_COUNTING = """
alter table depths rename to depths_of_transcripts;
alter table depths_of_transcripts set (autovacuum_vacuum_threshold=500, autovacuum_vacuum_scale_factor=0);
create view depths as select transcript, lane, open, queued from depths_of_transcripts
 union all select ''::text, lane, sum(open)::bigint, sum(queued)::bigint from depths_of_transcripts group by lane;
create function keep_depths() returns trigger language plpgsql set search_path=holdfast as $$ begin
  if tg_op='INSERT' and new.transcript<>'' then
    insert into depths_of_transcripts values(new.*);
  elsif tg_op='UPDATE' and old.transcript<>'' then
    update depths_of_transcripts set open=new.open, queued=new.queued
     where transcript=old.transcript and lane=old.lane;
  elsif tg_op='DELETE' then
    delete from depths_of_transcripts where transcript=old.transcript and lane=old.lane;
    return old;
  end if;
  return new;
end $$;
create trigger depths_kept instead of insert or update or delete on depths for each row execute function keep_depths();
create function count_input() returns trigger language plpgsql set search_path=holdfast as $$ begin
  insert into depths_of_transcripts as d values(new.transcript, new.lane, 1, (new.state='queued')::int)
   on conflict(transcript, lane) do update set open=d.open+1, queued=d.queued+excluded.queued;
  return null;
end $$;
create trigger inputs_counted after insert on inputs for each row when (new.state in ('queued', 'running'))
 execute function count_input();
create function recount_input() returns trigger language plpgsql set search_path=holdfast as $$ begin
  insert into depths_of_transcripts as d
   values(new.transcript, new.lane, (new.state in ('queued', 'running'))::int, (new.state='queued')::int)
   on conflict(transcript, lane) do update set
    open=d.open+(new.state in ('queued', 'running'))::int-(old.state in ('queued', 'running'))::int,
    queued=d.queued+(new.state='queued')::int-(old.state='queued')::int;
  delete from depths_of_transcripts where transcript=new.transcript and lane=new.lane and open=0;
  return null;
end $$;
create trigger inputs_recounted after update of state on inputs for each row when (old.state<>new.state)
 execute function recount_input();
"""

# `lines.transcript` is the `body` of a transcript, or the `name` of an archive: what is put away keeps its lines where
# they are, and the transcript gets another body. `seq` counts the lines from 1.
# `is_ours`: written, or met and recorded, by an owner.
_TRANSCRIPTS = """
create table lines(
  transcript text not null, seq bigint not null, id text, raw bytea not null, is_ours boolean not null,
  primary key(transcript, seq)
);
create index lines_of_others on lines(transcript) where not is_ours;
create index lines_id on lines(transcript, id) where id is not null;
alter table transcripts add column body text not null unique;
alter table transcripts add column lines_end bigint not null default 0;
alter table transcripts add column bytes bigint not null default 0;
alter table transcripts add column leaf text;
alter table transcripts add column tampered text;
alter table transcripts add column owner_slot bigint;
alter table archives add column leaf text;
alter table archives add column lines_end bigint not null default 0;
alter table archives add column tampered text;
alter table processes add column node bigint not null default 0;
alter table processes add column pooled boolean not null default false;
alter table sessions add column rowid bigint generated always as identity;
create function body_of(text) returns text language sql stable as 'select body from transcripts where id=$1';
-- Finished answers of turns that lost their session to somebody who wrote past us: files beside a transcript elsewhere.
create table kept_answers(id text primary key, transcript text not null, turn text not null, raw bytea not null);
create table beats(turn text primary key, beat bigint not null, report bytea);

create function notice_strangers() returns trigger language plpgsql set search_path=holdfast as $$ begin
  if current_setting('holdfast.writer', true) is not distinct from (select value from meta where key='store') then
    return null;
  end if;
  if tg_op='INSERT' then
    update lines set is_ours=false where transcript=new.transcript and seq=new.seq and is_ours;
    update transcripts set lines_end=greatest(lines_end, new.seq), bytes=bytes+length(new.raw)
     where body=new.transcript;
  elsif tg_op='TRUNCATE' then
    update transcripts set tampered='all lines were removed by somebody else' where tampered is null;
    update archives set tampered='all lines were removed by somebody else' where tampered is null;
  elsif tg_op='DELETE' then
    update transcripts set tampered='line ' || old.seq || ' was removed by somebody else'
     where body=old.transcript and tampered is null;
    update archives set tampered='line ' || old.seq || ' was removed by somebody else'
     where name=old.transcript and tampered is null;
  elsif old is distinct from new then
    update transcripts set tampered='line ' || old.seq || ' was changed by somebody else'
     where body in (old.transcript, new.transcript) and tampered is null;
    update archives set tampered='line ' || old.seq || ' was changed by somebody else'
     where name in (old.transcript, new.transcript) and tampered is null;
  end if;
  return null;
end $$;
create trigger lines_watched after insert or update or delete on lines for each row
 when (pg_trigger_depth()=0) execute function notice_strangers();
create trigger lines_emptied after truncate on lines execute function notice_strangers();
"""


def statements(tables: str) -> list[str]:
    """The ledger's tables in PostgreSQL's words. SQLite's triggers are made anew (`_COUNTING`)."""
    text = re.sub(r"--[^\n]*", "", tables)
    text = re.sub(r"create trigger .*?; end;", "", text, flags=re.DOTALL)
    made: list[str] = []
    for part in text.split(";\n"):
        said = re.sub(r"\) strict(, without rowid)?\s*$", ")", part.strip())
        said = re.sub(r"\binteger primary key\b", "bigint generated by default as identity primary key", said)
        said = re.sub(r"\binteger\b", "bigint", said)
        said = re.sub(r"\bblob\b", "bytea", said)
        said = re.sub(r"\breal\b", "double precision", said)
        said = said.replace("default x''", "default ''")
        if said:
            made.append(said.rstrip(";"))
    return made


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: forward only, in one transaction. A step that was released is never changed, another is added."""

    version: int
    name: str
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        return hashlib.sha256("\n;\n".join(self.statements).encode()).hexdigest()


_CLAIM_TURN = Path(__file__).with_name("claim_turn.sql").read_text("utf-8").replace("{writing}", str(WRITING))
STEPS = (Step(1, "the first tables", (*statements(TABLES), _FUNCTIONS, _COUNTING, _TRANSCRIPTS, _CLAIM_TURN)),)
"""What this release knows, in order. Changes go in two steps: what is new is added before, what is old is taken away
after a release that no longer needs it, so that nodes of two releases run side by side meanwhile."""
_MIGRATIONS = """
create table migrations(
  version bigint primary key, name text not null, checksum text not null, at timestamptz not null default now()
)"""


def open_schema(conn: psycopg.Connection[Any], steps: Sequence[Step] = STEPS) -> str:
    """Make the tables, bring them up to this release, or check that they are its. Returns the id of the state.

    Raises:
        ResourceError: the server is too old, this role may not make the tables, or somebody is at them for too long.
        StateVersionError: a newer schema, or one that was changed. InputError: a copy into it has not been finished.
    """
    if conn.info.server_version < SERVER_VERSION_MIN:
        raise ResourceError(f"PostgreSQL {conn.info.server_version // 10000} is too old; use 14 or newer")
    try:
        with conn.transaction():
            conn.execute(f"set local search_path={SCHEMA}; set local lock_timeout='{WAIT_S}s'".encode())
            conn.execute("select pg_advisory_xact_lock(%s)", (MIGRATING,))
            if not is_made(conn):
                make(conn, store=ids.new_id("s"), steps=steps)
            store = check_schema(conn, steps)
            migrate(conn, steps)
            _add_what_is_missing(conn)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ResourceError(
            f"this role may not make or change the tables ({exc.diag.message_primary}): start once as their owner, or"
            " run what `holdfast postgres roles` prints"
        ) from exc
    except psycopg.errors.LockNotAvailable as exc:
        raise ResourceError(
            f"somebody has been changing or copying the tables for {WAIT_S} s; look for `holdfast copying` or"
            " `holdfast opening` in pg_stat_activity, and try again"
        ) from exc
    if store is None:
        raise ResourceError("the table holdfast.meta names no state; restore the database from a backup")
    return store


def is_made(conn: psycopg.Connection[Any]) -> bool:
    return _one(conn, "select to_regclass(%s)::text", f"{SCHEMA}.meta") is not None


def copying(conn: psycopg.Connection[Any]) -> str | None:
    """The mark of a copy into this database that has not been finished (`store/copying`)."""
    return _meta(conn, "copying")


def check_schema(conn: psycopg.Connection[Any], steps: Sequence[Step] = STEPS) -> str | None:
    """The id of the state whose tables are there; None: there are none. Changes nothing.

    Raises: StateVersionError: they are of a newer release, or not as a step has made them. InputError: half a copy.
    """
    if not is_made(conn):
        return None
    newest = steps[-1].version
    version = _meta(conn, "schema")
    if version is None or not version.isdigit() or int(version) > newest:
        raise StateVersionError(
            f"the state has schema {version}, this release knows up to {newest}; upgrade Holdfast on this node, or copy"
            " the state out with the release that made it (`holdfast copy`)"
        )
    if copying(conn) is not None:
        raise InputError(
            "a copy into this database has not been finished: run the same `holdfast copy` again, or drop the schema"
            f" {SCHEMA} to give it up"
        )
    known = {step.version: step for step in steps}
    for at, name, checksum in conn.execute("select version, name, checksum from migrations order by version"):
        step = known.get(at)
        if step is not None and step.checksum != checksum:
            raise StateVersionError(
                f"step {at} ({name}) of the schema is not the one that this release knows: the tables were made by a"
                " build between releases; copy the state out with that build (`holdfast copy`), or drop the schema"
                f" {SCHEMA} if it may be lost"
            )
    return _meta(conn, "store")


def migrate(conn: psycopg.Connection[Any], steps: Sequence[Step]) -> None:
    """Take the steps that are missing, in order, within the caller's transaction: all of them or none."""
    there = int(_meta(conn, "schema") or "0")
    for step in steps:
        if step.version > there:
            _take(conn, step)
            log.info("the schema %s was brought to version %d (%s)", SCHEMA, step.version, step.name)


def _take(conn: psycopg.Connection[Any], step: Step) -> None:
    for statement in step.statements:
        conn.execute(statement.encode())
    conn.execute("insert into migrations(version, name, checksum) values(%s,%s,%s)",
                 (step.version, step.name, step.checksum))  # fmt: skip
    conn.execute("insert into meta(key, value) values('schema', %s) on conflict(key) do update"
                 " set value=excluded.value", (str(step.version),))  # fmt: skip


def _meta(conn: psycopg.Connection[Any], key: str) -> str | None:
    return _one(conn, "select value from meta where key=%s", key)


def _one(conn: psycopg.Connection[Any], sql: str, value: str) -> str | None:
    row = conn.execute(sql.encode(), (value,)).fetchone()
    return None if row is None else row[0]


def make(
    conn: psycopg.Connection[Any], *, store: str, copying: str | None = None, steps: Sequence[Step] = STEPS
) -> None:
    """All tables, within the caller's transaction. `copying`: the mark of whoever fills them first."""
    if _one(conn, "select to_regnamespace(%s)::text", SCHEMA) is None:
        conn.execute(f"create schema {SCHEMA}")
    conn.execute(_MIGRATIONS)
    for step in steps:
        _take(conn, step)
    for statement in statements(ADDED):
        conn.execute(statement.encode())
    conn.execute("insert into meta(key, value) values('store', %s)", (store,))
    if copying is not None:
        conn.execute("insert into meta(key, value) values('copying', %s)", (copying,))


def _add_what_is_missing(conn: psycopg.Connection[Any]) -> None:
    """Tables that came later, as in the embedded store: an older release runs on beside them."""
    wanted = set(re.findall(r"create table if not exists (\w+)", ADDED))
    there = {row[0] for row in conn.execute("select tablename from pg_tables where schemaname=%s", (SCHEMA,))}
    if not wanted <= there:
        for statement in statements(ADDED):
            conn.execute(statement.encode())
