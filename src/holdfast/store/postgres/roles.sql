-- Two roles for Holdfast: one that owns the tables and changes them when a release needs it, one that gateways run as.
-- Run as an owner of the database: psql -d DATABASE -f roles.sql; then give both a password (\password holdfast_node).
-- Nodes then use postgresql://holdfast_node@host/DATABASE; for a new release start once as holdfast_owner.
do $$ begin
  if not exists(select 1 from pg_roles where rolname='holdfast_owner') then
    create role holdfast_owner login noinherit nosuperuser nocreatedb nocreaterole;
  end if;
  if not exists(select 1 from pg_roles where rolname='holdfast_node') then
    create role holdfast_node login noinherit nosuperuser nocreatedb nocreaterole connection limit 400;
  end if;
end $$;
create schema if not exists holdfast authorization holdfast_owner;
alter schema holdfast owner to holdfast_owner;
revoke all on schema holdfast from public;
-- It takes over what another made first.
do $$ declare one record; begin
  for one in
    select format('alter table holdfast.%I owner to holdfast_owner', tablename) as said from pg_tables where schemaname='holdfast'
    union all select format('alter view holdfast.%I owner to holdfast_owner', viewname) from pg_views where schemaname='holdfast'
  loop
    execute one.said;
  end loop;
end $$;
grant usage on schema holdfast to holdfast_node;
grant select, insert, update, delete on all tables in schema holdfast to holdfast_node;
grant usage, select on all sequences in schema holdfast to holdfast_node;
alter default privileges for role holdfast_owner in schema holdfast
  grant select, insert, update, delete on tables to holdfast_node;
alter default privileges for role holdfast_owner in schema holdfast grant usage, select on sequences to holdfast_node;
-- A node neither empties the table of lines nor switches its triggers off: only its owner may.
