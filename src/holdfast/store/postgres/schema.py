"""The tables in PostgreSQL: the ledger's, made from `store/sql/tables.py`, and the transcripts' own.

Migrations go forward only, one transaction each, under an advisory lock, so that of several nodes that start at once
one does it. A schema that is newer than this release is refused and left alone.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg

from holdfast import ids
from holdfast.errors import ResourceError, StateVersionError
from holdfast.store.sql.tables import ADDED, TABLES

SCHEMA = "holdfast"
SCHEMA_VERSION = 1
SERVER_VERSION_MIN = 140000
MIGRATING = 0x686F6C64_00000001
"""Advisory lock of whoever makes or changes the tables."""

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

_COUNTING = """
create function count_input() returns trigger language plpgsql set search_path=holdfast as $$ begin
  insert into depths as d(transcript, lane, open, queued)
   values(new.transcript, new.lane, 1, (new.state='queued')::int), ('', new.lane, 1, (new.state='queued')::int)
   on conflict(transcript, lane) do update set open=d.open+1, queued=d.queued+excluded.queued;
  return null;
end $$;
create trigger inputs_counted after insert on inputs for each row when (new.state in ('queued', 'running'))
 execute function count_input();
create function recount_input() returns trigger language plpgsql set search_path=holdfast as $$ begin
  insert into depths as d(transcript, lane, open, queued)
   select place, new.lane, (new.state in ('queued', 'running'))::int, (new.state='queued')::int
    from unnest(array[new.transcript, '']) place
   on conflict(transcript, lane) do update set
    open=d.open+(new.state in ('queued', 'running'))::int-(old.state in ('queued', 'running'))::int,
    queued=d.queued+(new.state='queued')::int-(old.state='queued')::int;
  delete from depths where transcript=new.transcript and lane=new.lane and open=0;
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
alter table archives add column leaf text;
alter table archives add column lines_end bigint not null default 0;
alter table archives add column tampered text;
alter table processes add column node bigint not null default 0;
alter table sessions add column rowid bigint generated always as identity;
create function body_of(text) returns text language sql stable as 'select body from transcripts where id=$1';
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


def open_schema(conn: psycopg.Connection[Any]) -> str:
    """Make the tables, or check that they are this release's. Returns the id of the state.

    Raises:
        ResourceError: the server is too old, or this role may not make the tables. StateVersionError: a newer schema.
    """
    if conn.info.server_version < SERVER_VERSION_MIN:
        raise ResourceError(f"PostgreSQL {conn.info.server_version // 10000} is too old; use 14 or newer")
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (MIGRATING,))
        if _one(conn, "select to_regclass(%s)::text", f"{SCHEMA}.meta") is None:
            _make(conn)
        store = check_schema(conn)
        _add_what_is_missing(conn)
    if store is None:
        raise ResourceError("the table holdfast.meta names no state; restore the database from a backup")
    return store


def check_schema(conn: psycopg.Connection[Any]) -> str | None:
    """The id of the state whose tables are there; None: there are none. Changes nothing.

    Raises: StateVersionError: they are of a newer release.
    """
    if _one(conn, "select to_regclass(%s)::text", f"{SCHEMA}.meta") is None:
        return None
    version = _meta(conn, "schema")
    if version is None or not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise StateVersionError(
            f"the state has schema {version}, this release knows up to {SCHEMA_VERSION}; upgrade Holdfast"
        )
    return _meta(conn, "store")


def _meta(conn: psycopg.Connection[Any], key: str) -> str | None:
    return _one(conn, "select value from meta where key=%s", key)


def _one(conn: psycopg.Connection[Any], sql: str, value: str) -> str | None:
    row = conn.execute(sql.encode(), (value,)).fetchone()
    return None if row is None else row[0]


def _make(conn: psycopg.Connection[Any]) -> None:
    try:
        conn.execute(f"create schema if not exists {SCHEMA}")
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ResourceError(
            f"this role may not make the schema {SCHEMA}: let an owner of the database make it, or start once as one"
        ) from exc
    for statement in [*statements(TABLES), *statements(ADDED)]:
        conn.execute(statement.encode())
    for text in (_FUNCTIONS, _COUNTING, _TRANSCRIPTS):
        conn.execute(text.encode())
    conn.execute("insert into meta(key, value) values('store', %s), ('schema', %s)",
                 (ids.new_id("s"), str(SCHEMA_VERSION)))  # fmt: skip


def _add_what_is_missing(conn: psycopg.Connection[Any]) -> None:
    """Tables that came later, as in the embedded store: an older release runs on beside them."""
    wanted = set(re.findall(r"create table if not exists (\w+)", ADDED))
    there = {row[0] for row in conn.execute("select tablename from pg_tables where schemaname=%s", (SCHEMA,))}
    if not wanted <= there:
        for statement in statements(ADDED):
            conn.execute(statement.encode())
