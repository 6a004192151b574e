-- A claim as one statement: one round trip, one commit. It is granted here where nothing has to be judged: the transcript
-- is free and as its last owner left it, and the input is the first of its line. Whatever else there is, is told in `how`,
-- and the caller goes the long way (`claiming.py`), alone among writers.
--
-- Claims run beside each other: each takes the row of its transcript, or leaves it to whoever has it (`skip locked`). The
-- lane's slots are numbers; a claim takes the lock of a free one and looks again, so two never take the same, and of
-- as many numbers as there are slots left each is tried: a lane is never too full, and never falsely.
--
-- Asked again by the same turn (the answer to a commit was lost), it says again what it has granted.
create function claim_turn(
 p jsonb, out how text, out detail text, out epoch_number bigint, out epoch_nonce text, out owner_process text,
 out lines_end bigint, out leaf text, out has_facts boolean, out taken inputs
) language plpgsql set search_path=holdfast as $$
#variable_conflict use_column
declare
 t transcripts; i inputs; waiting bigint; foremost bigint; others bigint; busy bigint; slot bigint; free bigint;
 width bigint := (p->>'width')::bigint;
begin
 perform pg_advisory_xact_lock_shared({writing}), set_config('synchronous_commit', 'on', true),
  set_config('holdfast.writer', (select value from meta where key='store'), true);
 select * into t from transcripts where id=p->>'transcript' for update skip locked;
 if not found then how := 'locked'; return; end if;
 epoch_number := t.epoch_number; epoch_nonce := t.epoch_nonce; owner_process := t.owner_process;
 lines_end := t.lines_end; leaf := t.leaf;
 if t.owner_turn is not distinct from p->>'turn' and t.epoch_nonce=p->>'nonce' then
  select * into taken from inputs where id=p->>'input';
  taken.attempts := taken.attempts-1; taken.first_offset := null;
 elsif t.owner_turn is not null then
  how := 'owned'; detail := 'turn ' || t.owner_turn || ' (' || t.owner_lane || ') of process ' || t.owner_process; return;
 elsif t.tampered is not null or exists(select 1 from lines where transcript=t.body and not is_ours)
  or not exists(select 1 from sessions where key=p->>'session' and transcript=t.id) then
  how := 'to judge'; return;
 else
  if p->>'input' is not null then
   select * into i from inputs where id=p->>'input';
   if not found or i.state<>'queued' then
    how := 'gone'; detail := 'input ' || (p->>'input') || ' is ' || coalesce(i.state, 'unknown'); return;
   elsif i.first_offset is not null or i.solo<>0 or i.debounce_ms<>0 then
    how := 'to judge'; return;
   end if;
   select count(*), min(seq), count(*) filter (where lane<>'main') into waiting, foremost, others
    from inputs where transcript=t.id and state in ('queued', 'running') and state='queued';
   if waiting>1 and others>0 then how := 'to judge'; return; end if;
   if foremost<>i.seq then
    how := 'not next';
    select 'input ' || id || ' is before it' into detail from inputs where seq=foremost;
    return;
   end if;
  end if;
  select count(*) into busy from transcripts where owner_turn is not null and owner_lane=p->>'lane' and owner_lent=0;
  for free in
   select n from generate_series(1, least(width, busy+64)) n where not exists(select 1 from transcripts
    where owner_turn is not null and owner_lane=p->>'lane' and owner_lent=0 and owner_slot=n)
    order by n limit greatest(width-busy, 0)
  loop
   if pg_try_advisory_xact_lock(hashtext('lane ' || (p->>'lane')), free::int) then
    -- a statement of its own: it sees what whoever had the lock until now has committed
    if not exists(select 1 from transcripts
     where owner_turn is not null and owner_lane=p->>'lane' and owner_lent=0 and owner_slot=free) then
     slot := free; exit;
    end if;
   end if;
  end loop;
  if slot is null then
   how := 'lane'; detail := 'lane ''' || (p->>'lane') || ''': ' || busy || ' of ' || width || ' slots taken'; return;
  end if;
  if t.lines_end=0 then
   insert into lines(transcript, seq, id, raw, is_ours)
    values(t.body, 1, null, convert_to(p->>'header', 'UTF8'), true);
   t.lines_end := 1; t.bytes := t.bytes+octet_length(convert_to(p->>'header', 'UTF8'));
  end if;
  update transcripts set epoch_number=t.epoch_number+1, epoch_nonce=p->>'nonce', owner_turn=p->>'turn',
   owner_process=p->>'process', owner_lane=p->>'lane', owner_lent=0, owner_slot=slot,
   claimed_at_ms=(p->>'now_ms')::bigint, lines_end=t.lines_end, bytes=t.bytes where id=t.id;
  insert into turns(id, session, transcript, lane, input, epoch_number, process, parent, state, started_at_ms)
   values(p->>'turn', p->>'session', t.id, p->>'lane', p->>'input', t.epoch_number+1, p->>'process', p->>'parent',
   'running', (p->>'now_ms')::bigint);
  if i.id is not null then
   update inputs set state='running', attempts=attempts+1, epoch_number=t.epoch_number+1, epoch_nonce=p->>'nonce',
    turn=p->>'turn', first_offset=t.lines_end where id=i.id;
  end if;
  epoch_number := t.epoch_number+1; epoch_nonce := p->>'nonce'; lines_end := t.lines_end; taken := i;
 end if;
 how := 'granted';
 has_facts := exists(select 1 from model_cooldowns)
  or exists(select 1 from model_pins where session=coalesce((select home from sessions where key=p->>'session'), p->>'session'))
  or exists(select 1 from model_fallbacks where session=p->>'session');
end $$;
