"""The ledger's tables, in SQLite's words; `store/postgres/schema.py` makes PostgreSQL's of them."""

TABLES = """
create table meta(key text primary key, value text not null) strict;

create table processes(
  name text primary key, pid integer not null, kind text not null, started_at_ms integer not null, boot text not null
) strict;

-- One row per transcript file; several session keys may share one.
create table transcripts(
  id text primary key, path text not null unique, dev integer not null default 0, ino integer not null default 0,
  epoch_number integer not null default 0, epoch_nonce text not null default '',
  owner_turn text, owner_process text, owner_lane text, owner_lent integer not null default 0, claimed_at_ms integer,
  boot text not null default '', synced_end integer not null default 0, synced_link blob not null default x'',
  anchor integer not null default 0, anchor_digest blob, fingerprint blob,
  fresh_bytes integer not null default 0, archived_at_ms integer
) strict;
-- `archived_at_ms`: when what was there before was put away; while the file is `fresh_bytes` long nothing followed.
create index transcripts_owned on transcripts(owner_lane) where owner_turn is not null;

-- `home`: the key whose transcript this one shares. `title` repeats the newest `session_info` that we have written.
create table sessions(
  key text primary key, transcript text not null references transcripts(id),
  created_at_ms integer not null, updated_at_ms integer not null, home text, title text
) strict;
create index sessions_transcript on sessions(transcript);

-- Transcripts that were put away, in the states of `lane/states.py`; `turn`: whose owner is at it.
create table archives(
  id text primary key, transcript text not null, session text not null, name text not null unique,
  state text not null, why text not null, by text not null, at_ms integer not null, bytes integer not null,
  turn text not null, title text
) strict;
create index archives_transcript on archives(transcript, at_ms);

-- What one process does for all, once in a while, and when it was begun last.
create table chores(name text primary key, at_ms integer not null) strict;

-- Up to which entry somebody has read, so that the same receipt is not written into the transcript again.
create table read_marks(
  transcript text not null, reader text not null, upto text not null, at_ms integer not null,
  primary key(transcript, reader)
) strict, without rowid;

-- Inputs and their dedupe keys are never thrown away by running code.
create table inputs(
  seq integer primary key, id text not null unique,
  source text not null, account text not null, dedupe_key text, body_digest blob not null,
  duplicates integer not null default 0, session text not null, transcript text not null, lane text not null, waits
  integer not null, payload blob not null, model text, route_channel text, route_target text, origin blob not null,
  state text not null, accepted_at_ms integer not null, settled_at_ms integer,
  attempts integer not null default 0, charged integer not null default 0, solo integer not null default 0,
  epoch_number integer not null default 0, epoch_nonce text not null default '', turn text, first_offset integer,
  cancel_by text, detail text, error text, result blob,
  mode text, debounce_ms integer not null default 0, joined text, how text, carries integer not null default 0
) strict;
create unique index inputs_dedupe on inputs(source, account, dedupe_key) where dedupe_key is not null;
-- `mode`: how it waits (`lane/queue.py`; null: followup). `joined`, `how`: the turn that took it in ('steer', 'merge'),
-- or the input that tells of it, once it was dropped ('summary', 'drop'); `carries`: it tells of such inputs.
create index inputs_dropped on inputs(joined) where how in ('summary', 'drop');
-- SQLite uses a partial index only where a query repeats its condition to the letter, so the queries do.
create index inputs_open on inputs(transcript, seq) where state in ('queued', 'running');
create index inputs_session on inputs(session, seq);

-- How many inputs are open and how many of them wait, per transcript and lane; '' stands for all transcripts. Kept by
-- the ledger itself, so that accepting into a long queue costs what accepting into a short one does.
create table depths(
  transcript text not null, lane text not null, open integer not null, queued integer not null,
  primary key(transcript, lane)
) strict, without rowid;
create trigger inputs_counted after insert on inputs when new.state in ('queued', 'running') begin
  insert into depths values(new.transcript, new.lane, 1, new.state='queued'), ('', new.lane, 1, new.state='queued')
    on conflict do update set open=open+1, queued=queued+excluded.queued
  ; end;
create trigger inputs_recounted after update of state on inputs when old.state<>new.state begin
  insert into depths select place, new.lane, new.state in ('queued', 'running'), new.state='queued'
    from (select new.transcript as place union all select '') where true
    on conflict do update set
      open=open+(new.state in ('queued', 'running'))-(old.state in ('queued', 'running')),
      queued=queued+(new.state='queued')-(old.state='queued')
  ; delete from depths where transcript=new.transcript and lane=new.lane and open=0
  ; end;

create table turns(
  id text primary key, session text not null, transcript text not null, lane text not null, input text,
  epoch_number integer not null, process text not null, parent text, state text not null,
  started_at_ms integer not null, ended_at_ms integer, outcome text, detail text
) strict, without rowid;
-- Each index costs every claim a page of the ledger's log; turns of an input are found through its session.
create index turns_session on turns(session, started_at_ms);
create index turns_died on turns(process) where outcome='died';
create index turns_parent on turns(parent) where parent is not null;

-- `seq`: the order in which a target gets its parts. `sent_chars`: how much of `body` is confirmed; `piece_chars`: how
-- much of the rest was cut for the piece that is next (0: not cut yet).
create table outbox(
  seq integer primary key, id text not null unique, input text not null,
  channel text not null, target text not null, part integer not null,
  body text not null, sent_chars integer not null default 0, piece_chars integer not null default 0,
  label text, state text not null, attempts integer not null default 0, process text,
  created_at_ms integer not null, updated_at_ms integer not null, not_before_ms integer not null default 0, detail text
) strict;
create index outbox_open on outbox(channel, target, seq) where state in ('pending', 'started', 'unknown');
create index outbox_sending on outbox(process) where state='started';
create index outbox_input on outbox(input);

create table events(
  seq integer primary key, at_ms integer not null, session text not null, input text, turn text,
  kind text not null, data text not null
) strict;
create index events_input on events(input, seq) where input is not null;
create index events_turn on events(turn, seq) where turn is not null;
-- What people look for when something went wrong (`store/sql/trouble_rows.py`): rare, so these cost next to nothing.
create index events_trouble on events(seq) where kind in ('turn.window', 'turn.salvaged', 'turn.fallback',
  'turn.model_state', 'turn.stopped_by_recovery', 'input.held_up', 'session.stalled', 'session.stuck',
  'session.recovery.requested', 'session.recovery.completed');
create index turns_trouble on turns(id)
  where outcome in ('taken_over', 'died', 'coordination', 'failed', 'interrupted');
create index outbox_trouble on outbox(seq) where state in ('failed', 'unknown');

-- What `/queue` has set for a session: those fields of `QueueSettings` that differ from the configuration, as JSON.
create table queue_settings(session text primary key, value text not null) strict;

-- A turn that waits for another's session; a wait that would close a ring is refused.
create table waits(
  id text primary key, process text not null, transcript text not null, parent_turn text, since_ms integer not null
) strict;
"""

ADDED = """
-- Models that failed (model/cooldown.py). `model` is empty where the key is in question.
create table if not exists model_cooldowns(
  provider text not null, credential text not null, model text not null, label text not null, reason text not null,
  errors integer not null, failed_at_ms integer not null, until_ms integer not null, asked_at_ms integer not null,
  demanded integer not null, probing text not null, primary key(provider, credential, model)
) strict, without rowid;

-- Models of sessions (model/policy.py): by a user's choice, or in place of one that failed.
create table if not exists model_pins(
  session text primary key, id text not null, model text not null, source text not null, reason text not null,
  set_at_ms integer not null, expires_at_ms integer, origin text, set_by text not null, checked_at_ms integer not null,
  credential text not null, holds integer not null
) strict, without rowid;

-- What a session's people were told last: `active` answers in place of `selected`.
create table if not exists model_fallbacks(
  session text primary key, selected text not null, active text not null, reason text not null,
  since_ms integer not null
) strict, without rowid;

-- Cron jobs and heartbeats (inbound/timer.py). `revision` is what a change compares.
create table if not exists timers(
  id text primary key, kind text not null, source text not null, spec text not null, state text not null,
  next_at_ms integer, not_before_ms integer not null, attempt integer not null, failures integer not null,
  alerted_at_ms integer, memo text not null, revision integer not null, detail text, changed_at_ms integer not null
) strict, without rowid;

create table if not exists timer_runs(
  seq integer primary key, id text not null unique, timer text not null, scheduled_at_ms integer not null,
  attempt integer not null, reason text not null, state text not null, began_at_ms integer not null,
  ended_at_ms integer, input text, announce text, detail text
) strict;
create index if not exists timer_runs_timer on timer_runs(timer, seq);
create index if not exists timer_runs_open on timer_runs(timer) where state='running';

create table if not exists timer_wakes(
  id text primary key, timer text not null, reason text not null, text text not null, mode text not null,
  at_ms integer not null
) strict, without rowid;

-- Inputs whose turns gave way to others (lane/policy.py): since when they wait again, and how often they did.
create table if not exists yields(
  input text primary key, at_ms integer not null, times integer not null
) strict, without rowid;

-- Gateways that were started, and whether they ended in order (recovery/restart.py).
create table if not exists boots(process text primary key, at_ms integer not null, ended integer not null) strict;

-- Sub-agents (inbound/child.py). `state`: 'open' until the parent knows of its end, then 'announced' or 'stopped';
-- whether it waits, runs or has ended is told by its inputs. `input`: its task; `announce`: the parent's input.
create table if not exists children(
  id text primary key, session text not null unique, parent_session text not null, parent_input text, parent_turn text,
  label text not null, depth integer not null, rights text not null, fresh integer not null, route text,
  timeout_s real not null, input text not null, state text not null, spawned_at_ms integer not null, stop_by text,
  announce text, outcome text, detail text, ended_at_ms integer, archived_at_ms integer
) strict, without rowid;
create index if not exists children_of_session on children(parent_session, spawned_at_ms);
create index if not exists children_open on children(spawned_at_ms) where state='open';
create index if not exists children_of_input on children(parent_input) where parent_input is not null;
create index if not exists children_kept on children(ended_at_ms) where state<>'open' and archived_at_ms is null;

-- Turns that stand still (recovery/watching.py): what was told of them, what was asked of them, what came of it.
create table if not exists marks(
  turn text primary key, transcript text not null, session text not null, epoch_number integer not null,
  epoch_nonce text not null, event text not null, reason text not null, episode integer not null,
  told integer not null, asked text, outcome text, revision integer not null
) strict, without rowid;

-- Questions whether a tool call may run (tool/approval.py), and consents that hold for a session. `state`: what was
-- answered; a row whose turn owns nothing any more is void whatever it says.
create table if not exists approvals(
  id text primary key, session text not null, input text, turn text not null, epoch_nonce text not null,
  call text not null, tool text not null, digest text not null, subject text not null, shown text not null,
  why text not null, state text not null, asked_at_ms integer not null, expires_at_ms integer not null,
  scope text not null, decided_by text, decided_at_ms integer
) strict, without rowid;
create index if not exists approvals_asked on approvals(asked_at_ms);
create index if not exists approvals_pending on approvals(expires_at_ms) where state='pending';
create index if not exists approvals_of_input on approvals(input) where input is not null;
create table if not exists grants(
  transcript text not null, tool text not null, subject text not null, session text not null, granted_by text not null,
  at_ms integer not null, expires_at_ms integer not null, primary key(transcript, tool, subject)
) strict, without rowid;

-- Programs that run on by themselves (tool/background.py). `state`: 'open' until the session knows of the end, then
-- 'announced' or 'stopped'. `process`: the gateway that runs it; `outcome` is null while it does.
create table if not exists background(
  id text primary key, session text not null, input text, turn text not null, rights text not null,
  fresh integer not null, route text, title text not null, process text not null, state text not null,
  started_at_ms integer not null, ended_at_ms integer, outcome text, code integer, output text, stop_by text,
  announce text
) strict, without rowid;
create index if not exists background_of_session on background(session, started_at_ms);
create index if not exists background_open on background(started_at_ms) where state='open';

-- Senders of channels who have asked to be let in (inbound/pairing.py).
create table if not exists pairings(
  channel text not null, sender text not null, name text not null, code text not null, state text not null,
  asked_at_ms integer not null, expires_at_ms integer not null, decided_by text, decided_at_ms integer,
  primary key(channel, sender)
) strict, without rowid;
create index if not exists pairings_pending on pairings(channel) where state='pending';

-- What gates of channels have turned away, counted (channel/gate.py).
create table if not exists turned_away(
  channel text not null, reason text not null, peer text not null, sender text not null, times integer not null,
  first_at_ms integer not null, last_at_ms integer not null, primary key(channel, reason, peer, sender)
) strict, without rowid;
create index if not exists turned_away_last on turned_away(last_at_ms);

-- Messages of the web chat (outbox/mail.py), and browsers that are logged in, by a digest of what they hold.
create table if not exists mail(
  seq integer primary key, channel text not null, id text not null, target text not null, who text not null,
  text text not null, at_ms integer not null, unique(channel, id)
) strict;
create index if not exists mail_of_target on mail(channel, target, seq);
create table if not exists logins(
  digest text primary key, account text not null, at_ms integer not null, expires_at_ms integer not null
) strict, without rowid;

-- Beginnings of answers that users see already (outbox/preview.py), by the delivery that each will become. `reference`:
-- the platform's name for the message; null: it was sent, and nobody has heard of it yet.
create table if not exists previews(
  id text primary key, input text not null, channel text not null, target text not null, reference text,
  process text not null, at_ms integer not null
) strict, without rowid;

-- Who listens to a channel (gateway/listening.py); `beat` grows while that process is at it.
create table if not exists listeners(
  channel text primary key, process text not null, state text not null, detail text, beat integer not null,
  since_ms integer not null
) strict, without rowid;

-- Calls of models (model/usage.py), one row each, whatever became of them: `id` is the turn and a number. Written when
-- a call begins, and when it has ended with the settlement at the latest. `cost`: micro-dollars; null: no price.
create table if not exists model_calls(
  id text primary key, turn text not null, session text not null, agent text not null, lane text not null, input text,
  model text not null, key text not null, step integer not null, purpose text not null, state text not null,
  began_at_ms integer not null, ended_at_ms integer, reason text not null, input_tokens integer not null,
  output_tokens integer not null, cache_read integer not null, cache_write integer not null, reasoning integer not null,
  cost integer, is_estimate integer not null
) strict, without rowid;
create index if not exists model_calls_began on model_calls(began_at_ms);
-- What was spent in a span that a limit is about (model/spending.py), with what is under way as guessed. Made from the
-- calls when somebody first asks for it; from then on every call counts, whoever makes it.
create table if not exists spent(
  scope text not null, from_ms integer not null, until_ms integer not null, micros integer not null,
  primary key(scope, from_ms, until_ms)
) strict, without rowid;
create index if not exists model_calls_session on model_calls(session, began_at_ms);

-- Work that is held back until somebody releases it: one row, while it is.
create table if not exists holds(id text primary key, since_ms integer not null, reason text not null) strict;
"""
"""Tables that came later. They are made where they are missing and leave the version as it is: an older release does
not know of them and runs on beside them.
"""
