/* One transcript, its ledger and its fence record: who may extend it, and what becomes of its inputs.
 *
 * Ledger and record are two stores that can disagree: a claim commits to the ledger first and writes the record second,
 * and may be killed in between; the record may be removed at any time; a power loss takes from each of them what was
 * not synced, and from the transcript any of its unsynced bytes. Workers are processes that claim, write and settle.
 * One that is stopped is one that takes no step for a while; its turn may then be taken though it lives (a lapse).
 * The note that maps every step to the code: docs/design/0007-the-formal-model.md.
 *
 * Bounds are macros (-DKILLS=2); the variable PLANTED of the environment plants one bug that the checker must find.
 */
#ifndef INPUTS
#define INPUTS 1                /* accepted inputs, 1 or 2 */
#endif
#ifndef KILLS
#define KILLS 1                 /* SIGKILLs of one process */
#endif
#ifndef LAPSES
#define LAPSES 1                /* turns taken from a process that lives */
#endif
#ifndef CLEANS
#define CLEANS 0                /* removals of the fence record by somebody who tidies up */
#endif
#ifndef POWER
#define POWER 0                 /* power losses */
#endif
#ifndef CHARGES
#define CHARGES 3               /* charged attempts after which an input fails (inbox.CHARGED_ATTEMPTS_MAX) */
#endif
#ifndef LINES
#define LINES 0                 /* 1: attempts write the input's own line, 2: and possibly a step before the answer */
#endif
#ifndef MIRROR
#define MIRROR 0                /* lines of a metadata writer */
#endif
#ifndef CANCEL
#define CANCEL 0                /* 1: somebody asks once for the end of input 0 */
#endif
#ifndef ASK
#define ASK 0                   /* 1: somebody waits for the end of each input and is told of it */
#endif
#ifndef FAILS
#define FAILS 0                 /* models that do not answer */
#endif
#ifndef GUEST
#define GUEST 0                 /* turns of a program, without an accepted input */
#endif

/* what can be planted */
#define NOTHING 0
#define NO_FENCE 1              /* append without looking at the epoch */
#define FENCE_BEFORE_LOCK 2     /* look at the epoch, then take the write lock */
#define NO_WRITE_LOCK 3         /* append without the write lock */
#define NO_TAIL_REPAIR 4        /* a torn tail is left where it is */
#define NO_INTENT 5             /* nothing is noted before a write */
#define BASELINE_WITHOUT_LOCK 6 /* claim, read the baseline and look for final lines before the lock is taken */
#define IGNORE_FINAL 7          /* a claim does not look for the final line of an input that ran before */
#define PREDECESSOR_NOT_CLOSED 8 /* its input is queued again without a look into the transcript */
#define RECORD_FIRST 9          /* the record is written before the ledger commits */
#define TRUST_ABSENT_RECORD 10  /* no record: mine */
#define TRUST_OLD_BOOT 11       /* the record of another boot counts */
#define SALVAGE_UNASKED 12      /* salvage settles whatever the ledger says */
#define SALVAGE_IN_TWO_STEPS 13 /* it asks in one transaction and settles in another */
#define SALVAGE_IS_FINAL 14     /* a salvage line counts as a final line */
#define IDS_REUSED 15           /* ids of lines do not depend on the epoch */
#define REBUILD_UNDER_OWNERS 16 /* a ledger is rebuilt although processes live */
#define CANCEL_SETTLES 17       /* a canceller ends a running input itself */
#define CANCEL_UNSEEN 18        /* a canceller ends a queued input that may have run in a claim that was lost */
#define SETTLE_UNSYNCED 19      /* the owner settles without a sync of the final line */
#define TAKEOVER_UNSYNCED 20    /* the next owner settles by a final line that nobody synced */
#define CLOSE_UNSYNCED 21       /* a takeover that ends inputs commits without a sync */
#define RAN_FORGOTTEN 22        /* after a power loss an input whose claim was lost counts as one that never ran */
#define ANY_NUMBER 23           /* new epochs exceed that of the ledger only */
#define RECORD_IN_FORCE 24    /* a takeover leaves the old record in force until its own is written */
#define OFFSET_KEPT 25          /* the offset from which a final line is looked for stays, though the file is shorter */
/* Which bug is planted is told when the verifier starts, by its number; one verifier looks for all of them. */
c_decl {
\#include <stdlib.h>
static int planted;
__attribute__((constructor)) static void plant(void) { const char *number = getenv("PLANTED"); planted = number ? atoi(number) : 0; }
}
#define PLANTED (c_expr { planted })

#define L 9                     /* lines a transcript can have here */
#define IN(i) (1 + (i))         /* the input's own line */
#define ANSWER(i) (3 + (i))     /* a final line */
#define STEP(i) (5 + (i))       /* conversation that is not final */
#define KEPT(i) (7 + (i))       /* a salvage line */
#define META 9
#define JUNK 10                 /* a line that does not parse */
#define IS_TALK(k) ((k) >= IN(0) && (k) <= STEP(1))

/* the transcript as a reader sees it, and how much of it is on the medium */
byte line[L], by[L], num_of[L], seq_of[L];
byte size, disk;
byte torn;                      /* part of a line behind it: 1 a writer died, 2 a power loss left it */
byte lock, inside;              /* holder of the write lock; how many are in the section */

/* the fence record: is it there, boot, epoch (number and nonce), end, intent; file counts its removals */
bool rec; byte rec_boot, rec_num, rec_non, rec_end, rec_file; bool rec_intent;

/* the ledger as a reader sees it ... */
byte owner, owner_inc, num, non;
#define QUEUED 1
#define RUNNING 2
#define ANSWERED 3
#define SUPERSEDED 4
#define CANCELLED 5
#define FAILED 6
byte st[2], st_non[2], content[2], kept[2], charged[2], first[2];
bool cancel[2]; byte ran[2];     /* ran: 0 never, 1 claimed before, 2 may have been, in a claim that was lost */
byte out[2];                    /* delivery: 0 none, 1 pending, 2 started, 3 sent */
/* ... and as it would be after a power loss */
byte d_owner, d_owner_inc, d_num, d_non;
byte d_st[2], d_st_non[2], d_content[2], d_kept[2], d_charged[2], d_first[2];
bool d_cancel[2]; byte d_ran[2];
byte d_out[2];

byte boot, inc[5];              /* this boot; how often each process has been started */
byte nonce;
bool kill[5];
byte kills = KILLS, lapses = LAPSES, cleans = CLEANS, powers = POWER, fails = FAILS, rebuilds = 1, guests = GUEST;
byte told[2], told_content[2];  /* what a waiting caller was told */
byte world[2], world_content[2]; /* what a channel was given */
bool restarted;                 /* since the last power loss nobody has looked at what stands behind the synced end */
bool outsiders;                 /* somebody removed the record: own bytes may look foreign from here on */
hidden byte x, y, z;

#define OWNER_DEAD (owner != 0 && owner_inc != inc[owner])
#define CURRENT (rec && (rec_boot == boot || PLANTED == TRUST_OLD_BOOT))

/* ── looking into the transcript (scan.py) ───────────────────────────────────────────────────────────────────────── */

inline find(kind, from, at) { x = from; at = 255;
  do :: x < size && line[x] != (kind) -> x++ :: else -> break od;
  if :: x < size -> at = x :: else fi; x = 0 }

inline find_final(i, from, at) { find(ANSWER(i), from, at);
  if :: PLANTED == SALVAGE_IS_FINAL && at == 255 -> find(KEPT(i), from, at) :: else fi }

inline newest_number(r) { x = 0; do :: x < size -> if :: num_of[x] > r -> r = num_of[x] :: else fi; x++ :: else -> break od; x = 0 }

/* ── the ledger ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* a commit with a sync (writer.Job.durable): it and every one before it survive a power loss */
inline sync_ledger() { d_owner = owner; d_owner_inc = owner_inc; d_num = num; d_non = non; x = 0;
  do :: x < INPUTS -> d_st[x] = st[x]; d_st_non[x] = st_non[x]; d_content[x] = content[x]; d_kept[x] = kept[x];
          d_charged[x] = charged[x]; d_first[x] = first[x]; d_ran[x] = ran[x]; d_cancel[x] = cancel[x]; d_out[x] = out[x]; x++
     :: else -> break od; x = 0 }

/* inbox.settle: an open input moves to a terminal state and its delivery is queued; a terminal one stays */
inline settle(i, to, what) {
  if :: st[i] == QUEUED || st[i] == RUNNING ->
        if :: (to) == FAILED && kept[i] != 0 -> st[i] = SUPERSEDED; content[i] = kept[i]
           :: else -> st[i] = to; content[i] = what fi;
        st_non[i] = 0; out[i] = 1;
        assert(told[i] == 0 || (told[i] == st[i] && told_content[i] == content[i]));     /* nobody was told otherwise */
        assert(world[i] == 0 || (world[i] == st[i] && world_content[i] == content[i]))
     :: else fi }

/* inbox.requeue */
inline requeue(i, charge) {
  charged[i] = charged[i] + charge;
  if :: charged[i] >= CHARGES -> settle(i, FAILED, 0)
     :: else -> st[i] = QUEUED; st_non[i] = 0 fi }

inline release(n_) { if :: non == n_ -> owner = 0; owner_inc = 0 :: else fi }

/* recovering.close_predecessor: `ended` says whether an input got a terminal state by it */
inline close_predecessor() { y = 0;
  do :: y < INPUTS ->
        if :: st[y] == RUNNING && st_non[y] == non ->
              find_final(y, first[y], z);
              if :: PLANTED == PREDECESSOR_NOT_CLOSED -> st[y] = QUEUED; st_non[y] = 0
                 :: else ->
                    if :: z != 255 -> if :: PLANTED == TAKEOVER_UNSYNCED -> skip :: else -> disk = size fi;
                             settle(y, ANSWERED, by[z])
                       :: z == 255 && cancel[y] -> settle(y, CANCELLED, 0)
                       :: else -> requeue(y, 1) fi fi
           :: else fi; y++
     :: else -> break od; y = 0; z = 0; release(non) }

/* ── the write lock (locked_file.py) ─────────────────────────────────────────────────────────────────────────────── */

inline hold() { d_step { lock == 0 -> lock = me; g = rec_file; inside++; assert(inside == 1) } }
inline unhold() { d_step { if :: lock == me -> lock = 0; inside-- :: else fi; g = 0 } }
inline hold_to_append() {
  if :: PLANTED == NO_WRITE_LOCK -> g = rec_file :: else -> hold() fi }
inline unhold_after_append() {
  if :: PLANTED == NO_WRITE_LOCK -> g = 0 :: else -> unhold() fi }

/* ── the record (record_file.py) ─────────────────────────────────────────────────────────────────────────────────── */

/* a file that was removed since it was last looked for takes what is written to it with it */
inline write_record(n_, o_, end_) {
  if :: g == rec_file -> rec = true; rec_boot = boot; rec_num = n_; rec_non = o_; rec_end = end_; rec_intent = false
     :: else fi }

inline write_end(n_, o_) {
  if :: g == rec_file -> if :: !rec -> rec_num = n_; rec_non = o_ :: else fi;
        rec = true; rec_boot = boot; rec_end = size; rec_intent = false
     :: else fi }

/* holding.look: settle what a dead writer had in hand; all of it: ours, a part: cut */
inline look() {
  g = rec_file;
  if :: CURRENT && rec_intent && PLANTED != NO_TAIL_REPAIR ->
        if :: size > rec_end && !torn -> rec_end = size; rec_intent = false
           :: size == rec_end && torn == 1 -> torn = 0; rec_intent = false
           :: else fi
     :: else fi }

/* baseline.take_baseline; b: highest number in record and transcript, e: there is a record of this boot */
inline baseline() {
  look(); b = (rec -> rec_num : 0); e = CURRENT;
  if :: !e -> newest_number(b) :: else fi;
  if :: torn != 0 && PLANTED != NO_TAIL_REPAIR ->
        if :: torn == 1 -> assert(size < L); line[size] = JUNK; by[size] = 0; num_of[size] = 0; seq_of[size] = 0; size++; torn = 0
           :: else -> torn = 0 fi
     :: else fi;
  if :: !e && restarted && size > 0 && line[size - 1] == JUNK ->
        size--; line[size] = 0; by[size] = 0; num_of[size] = 0; seq_of[size] = 0; if :: disk > size -> disk = size :: else fi
     :: else fi;
  restarted = false;
  if :: !e || rec_end != size -> disk = size :: else fi }

/* ── one append (holding.append_owned, append_unowned, _write) ───────────────────────────────────────────────────── */

inline append(k, n_, o_, q_) {
  d_step { if :: PLANTED != NO_INTENT && g == rec_file && rec -> rec_intent = true :: else fi };
  d_step { z = torn; torn = 1; glued = (z != 0); at = size };          /* some bytes of it are there */
  d_step { assert(at < L);
    assert(outsiders || at == 0 || line[at - 1] != JUNK);              /* every line parses */
    x = 0; do :: x < size -> assert(!((k) == ANSWER(0) && line[x] == ANSWER(0)) && !((k) == ANSWER(1) && line[x] == ANSWER(1)));
                  assert(!((k) == IN(0) && line[x] == IN(0)) && !((k) == IN(1) && line[x] == IN(1)));
                  assert(!(IS_TALK(k) && IS_TALK(line[x]) && num_of[x] > n_)); x++                 /* epochs never go down */
       :: else -> break od; x = 0; z = 0;
    line[at] = (glued -> JUNK : (k)); by[at] = o_; num_of[at] = n_; seq_of[at] = q_; if :: at == size -> size++ :: else fi; torn = 0;
    assert(outsiders || !glued); glued = false; at = 0 };
  d_step { write_end(n_, o_) } }

/* delivered as the answer: durable, in the transcript, and the same */
inline check_world() { y = 0;
  do :: y < INPUTS ->
        if :: world[y] == ANSWERED -> find(ANSWER(y), 0, z); assert(z != 255 && z < disk && by[z] == world_content[y]) :: else fi;
        if :: told[y] == ANSWERED -> find(ANSWER(y), 0, z); assert(z != 255 && z < disk && by[z] == told_content[y]) :: else fi;
        y++
     :: else -> break od; y = 0; z = 0 }

/* ── a process that runs turns ───────────────────────────────────────────────────────────────────────────────────── */

#define MAY_TAKE (owner == 0 || OWNER_DEAD || (owner != me && lapses > 0))
#define OWNER_TAKEN (OWNER_DEAD || (owner != 0 && owner != me && lapses > 0))
#define IS_OPEN(i) (st[i] == QUEUED || st[i] == RUNNING)
#define FORGET m = 0; n = 0; o = 0; b = 0; e = 0; g = 0; v = 0; seq = 0; at = 0; glued = false

/* recovering.take_out_of_force: before a predecessor is closed its record names nobody, so that the ledger decides */
inline take_out_of_force() {
  if :: OWNER_TAKEN && g == rec_file && CURRENT && PLANTED != RECORD_IN_FORCE -> rec_non = 0 :: else fi }

/* claiming._claim_in_ledger: one ledger transaction. v: 0 in the way, 1 granted, 2 not granted but the epoch was raised */
inline claim_transaction() {
  v = 0;
  if :: owner != 0 && !OWNER_DEAD && (owner == me || lapses == 0) -> skip
     :: else ->
        /* the ledger is older than what we see: any queued input may have run before (claiming._recall_lost_claims) */
        if :: b > num && PLANTED != RAN_FORGOTTEN ->
              y = 0; do :: y < INPUTS -> if :: st[y] == QUEUED && !ran[y] -> ran[y] = 2; first[y] = 0 :: else fi; y++
                        :: else -> break od; y = 0
           :: else fi;
        if :: m < INPUTS && st[m] == QUEUED && (ran[m] || b > num) && PLANTED != IGNORE_FINAL ->
              find_final(m, (b > num -> 0 : first[m]), z);
              if :: z != 255 -> if :: PLANTED == TAKEOVER_UNSYNCED -> skip :: else -> disk = size fi; settle(m, ANSWERED, by[z])
                 :: else fi; z = 0
           :: else fi;
        if :: PLANTED == RECORD_FIRST -> skip
           :: else -> nonce++; o = nonce;
              n = (b > num && PLANTED != ANY_NUMBER -> b : num) + 1 fi;
        if :: owner != 0 ->
              if :: !OWNER_DEAD -> lapses-- :: else fi;
              close_predecessor(); num = n; non = o; v = 2;
              if :: PLANTED != CLOSE_UNSYNCED -> sync_ledger() :: else fi       /* a takeover commits with a sync */
           :: else fi;
        if :: m >= INPUTS -> owner = me; owner_inc = inc[me]; num = n; non = o; v = 1
           :: m < INPUTS && st[m] == QUEUED ->
              owner = me; owner_inc = inc[me]; num = n; non = o; v = 1;
              st[m] = RUNNING; st_non[m] = o; b = ran[m];
              if :: !ran[m] -> first[m] = size
                 :: ran[m] && size < first[m] && PLANTED != OFFSET_KEPT -> first[m] = size
                 :: else fi;
              ran[m] = 1
           :: else fi
  fi }

/* holding.inspect: 1 ours, 2 superseded, 3 tampered */
inline inspect() {
  look();
  if :: !CURRENT && ((owner == me && non == o) || PLANTED == TRUST_ABSENT_RECORD) -> write_record(n, o, e)
     :: CURRENT && rec_non == 0 && owner == me && non == o -> write_record(n, o, rec_end)
     :: else
  fi;
  if :: PLANTED == NO_FENCE -> v = 1
     :: else ->
        if :: !CURRENT || rec_num != n || rec_non != o -> v = 2; assert(!(owner == me && non == o))   /* no false takeover */
           :: else ->
              if :: torn != 0 || rec_end > size -> v = (PLANTED == NO_TAIL_REPAIR -> 1 : 3); assert(outsiders || PLANTED == NO_TAIL_REPAIR)
                 :: else -> v = 1;
                    x = rec_end; do :: x < size -> if :: IS_TALK(line[x]) -> v = 3 :: else fi; x++ :: else -> break od; x = 0;
                    assert(outsiders || rec_end == size);               /* what we wrote ourselves never looks foreign */
                    if :: v == 1 -> rec_end = size :: else fi
              fi
        fi
  fi;
  if :: v == 1 -> e = size :: else fi }


proctype worker(byte me) {
  byte m, n, o, b, e, g, v, seq, at; bool glued;
end_idle: {
end_wait: do
  :: d_step { MAY_TAKE && IS_OPEN(0) -> m = 0 }; break
  :: d_step { INPUTS > 1 && MAY_TAKE && IS_OPEN(1) -> m = 1 }; break
#if GUEST
  :: d_step { owner == 0 && guests > 0 -> guests--; m = 2 }; break
#endif
  /* recovering._recovery_job: closes a turn that is dead, or one that lapsed whose epoch it raises; claims nothing */
  :: d_step { OWNER_TAKEN && lock == 0 -> lock = me; inside++; assert(inside == 1); baseline() };
     d_step { if :: !OWNER_DEAD -> take_out_of_force() :: else fi };
     d_step { v = 0;
       if :: OWNER_DEAD -> v = 1; n = b; if :: e -> o = rec_non :: else -> o = 0 fi; close_predecessor(); sync_ledger()
          :: !OWNER_DEAD && OWNER_TAKEN -> v = 1; lapses--; nonce++; o = nonce; n = (b > num -> b : num) + 1;
             close_predecessor(); num = n; non = o; sync_ledger()
          :: else fi };
     if :: v == 1 -> d_step { write_record(n, o, size) } :: else fi;
     unhold(); d_step { FORGET }
  od;

  /* ── claim: one holding ── */
  if
  :: PLANTED == BASELINE_WITHOUT_LOCK -> d_step { baseline() }; d_step { claim_transaction() }; hold()
  :: PLANTED == RECORD_FIRST ->
     hold(); d_step { baseline(); nonce++; o = nonce; n = (b > num -> b : num) + 1; write_record(n, o, size) };
     d_step { claim_transaction() }
  :: else -> hold(); d_step { baseline() }; d_step { take_out_of_force() }; d_step { claim_transaction() }
  fi;
  if :: v == 0 -> unhold(); d_step { FORGET }; goto end_idle
     :: v == 2 -> d_step { write_record(n, o, size) }; unhold(); d_step { FORGET }; goto end_idle
     :: else fi;
  d_step { if :: PLANTED == BASELINE_WITHOUT_LOCK -> g = rec_file :: else fi; write_record(n, o, size); e = size };
  unhold();

#if GUEST
  /* a program's turn: one line of conversation, then its end, neither synced */
  if :: m >= INPUTS ->
        hold(); d_step { inspect() };
        if :: v == 1 -> append(STEP(0), n, o, 0); e = size :: else fi;
        unhold();
        d_step { release(o) }; d_step { FORGET }; goto end_idle
     :: else fi;
#endif
#if LINES
  /* ── the input's own line, once however often it runs ── */
  hold(); d_step { inspect() };
  if :: v == 1 -> d_step { find(IN(m), 0, z); v = (z == 255 -> 1 : 9); z = 0; if :: b == 0 && v == 9 -> v = 1 :: else fi };
        if :: v == 1 -> append(IN(m), n, o, 0); e = size :: else fi; v = 1
     :: else fi;
  unhold();
  if :: v != 1 -> goto lost :: else fi;
#if LINES > 1
  if :: seq = 1; hold(); d_step { inspect() };
        if :: v == 1 -> append(STEP(m), n, o, 1); e = size :: else fi;
        unhold();
        if :: v != 1 -> goto lost :: else fi
     :: skip
  fi;
#endif
#endif

  /* ── the prompt window: nothing is held ── */
#if CANCEL
  if :: cancel[m] ->
        d_step { if :: st[m] == RUNNING && st_non[m] == o -> settle(m, CANCELLED, 0) :: else fi; release(o); sync_ledger() };
        d_step { FORGET }; goto end_idle
     :: skip
  fi;
#endif
#if FAILS
  if :: d_step { fails > 0 -> fails--; if :: st[m] == RUNNING && st_non[m] == o -> settle(m, FAILED, 0) :: else fi; release(o); sync_ledger() };
        d_step { FORGET }; goto end_idle
     :: skip
  fi;
#endif
  if
  :: PLANTED == FENCE_BEFORE_LOCK -> d_step { inspect() }; hold(); d_step { if :: v == 1 -> g = rec_file :: else fi }
  :: else -> hold_to_append(); d_step { inspect() }
  fi;
  if
  :: v == 1 ->
     d_step { seq++;
       if :: PLANTED == IDS_REUSED -> x = 0;                       /* a line with this id is there already: not written again */
             do :: x < size && !((line[x] == STEP(m) || line[x] == ANSWER(m)) && seq_of[x] == seq) -> x++ :: else -> break od;
             if :: x < size -> v = 9 :: else fi; x = 0
          :: else fi };
     if :: v == 1 -> append(ANSWER(m), n, o, seq) :: else fi;
     unhold_after_append();
     /* ── settle: transcript first, then ledger (ending.settle) ── */
     if :: PLANTED == SETTLE_UNSYNCED -> skip :: else -> d_step { disk = size } fi;
     d_step { if :: st[m] == RUNNING && st_non[m] == o -> settle(m, ANSWERED, o) :: else fi; release(o); sync_ledger() };
     d_step { if :: lock == 0 && rec && rec_boot == boot -> skip :: else fi; FORGET }; goto end_idle
  :: else -> unhold_after_append()
  fi;

lost: /* ── salvage: the finished answer is kept (turn.salvage, ending.salvage_line, settle_salvaged) ── */
  if :: v == 2 ->
        hold(); d_step { look() };
        if :: CURRENT && torn == 0 && rec_end <= size -> append(KEPT(m), 0, o, 0); d_step { disk = size }
           :: else -> skip fi;                                         /* beside the transcript */
        unhold()
     :: else fi;
  if
  :: PLANTED == SALVAGE_UNASKED -> d_step { settle(m, SUPERSEDED, o); sync_ledger() }
  :: PLANTED == SALVAGE_IN_TWO_STEPS ->
     d_step { v = (st[m] == QUEUED || (st[m] == RUNNING && st_non[m] == o) -> 1 : 0) };
     d_step { if :: v == 1 -> settle(m, SUPERSEDED, o) :: else fi; sync_ledger() }
  :: else ->
     d_step { if :: st[m] == QUEUED || (st[m] == RUNNING && st_non[m] == o) -> settle(m, SUPERSEDED, o)
                 :: else -> if :: IS_OPEN(m) && kept[m] == 0 -> kept[m] = o :: else fi fi; sync_ledger() }
  fi;
  d_step { release(o); sync_ledger() };
  d_step { FORGET }; goto end_idle
  } unless { d_step { kill[me] -> kill[me] = false; if :: lock == me -> lock = 0; inside = 0 :: else fi; FORGET }; goto end_idle } }

/* ── a metadata writer (writing.append_metadata, _make_ready) ────────────────────────────────────────────────────── */

#if MIRROR
proctype metadata(byte me) {
  byte n, o, b, e, g, v, at, written; bool glued;
end_idle: {
end_wait: do :: written < MIRROR -> written++;
     hold(); d_step { look(); v = (CURRENT && torn == 0 && rec_end <= size) };
     if :: v -> append(META, 0, 0, 0)
        :: !v && owner == 0 -> d_step { if :: owner == 0 -> baseline();
                    if :: PLANTED == RAN_FORGOTTEN && !e -> b = 0 :: else fi; if :: e -> o = rec_non :: else -> o = 0 fi; write_record(b, o, size) :: else fi };
           d_step { look(); v = (CURRENT && torn == 0 && rec_end <= size) };
           if :: v -> append(META, 0, 0, 0) :: else fi
        :: else fi;
     unhold()
  :: else -> break od
  } unless { d_step { kill[me] -> kill[me] = false; if :: lock == me -> lock = 0; inside = 0 :: else fi;
                n = 0; o = 0; b = 0; e = 0; g = 0; v = 0; at = 0; glued = false }; goto end_idle } }
#endif

/* ── the courier, as far as the transcript is concerned (delivery.py; the rest is in outbox.pml) ─────────────────── */

proctype courier(byte me) {
  byte m;
end_idle: {
end_wait: do
  :: d_step { out[0] == 1 || out[0] == 2 -> m = 0 }; break
  :: d_step { INPUTS > 1 && (out[1] == 1 || out[1] == 2) -> m = 1 }; break
  od;
  atomic { if :: out[m] == 1 -> out[m] = 2; sync_ledger() :: else fi };
  d_step { if :: out[m] == 2 ->
      assert(world[m] == 0 || (world[m] == st[m] && world_content[m] == content[m]));
      world[m] = st[m]; world_content[m] = content[m]; check_world() :: else fi };
  d_step { if :: out[m] == 2 -> out[m] = 3; sync_ledger() :: else fi; m = 0 };
  goto end_idle
  } unless { d_step { kill[me] -> kill[me] = false; m = 0 }; goto end_idle } }

/* ── callers ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

#if CANCEL
active proctype canceller() {
  d_step {
    if :: IS_OPEN(0) -> cancel[0] = true;
          if :: st[0] == QUEUED && (ran[0] != 2 || PLANTED == CANCEL_UNSEEN) -> settle(0, CANCELLED, 0)
             :: st[0] == RUNNING && PLANTED == CANCEL_SETTLES -> settle(0, CANCELLED, 0)
             :: else fi;
          sync_ledger()
       :: else fi } }
#endif
#if ASK
active proctype waiting_caller() {
  d_step { st[0] >= ANSWERED -> told[0] = st[0]; told_content[0] = content[0]; check_world() } }
#endif

/* ── what happens to them ────────────────────────────────────────────────────────────────────────────────────────── */

/* what is left after a power loss: any part of the unsynced bytes, perhaps rubbish behind them
   (1) or in place of the last (2); the ledger as of its last
   synced commit, or as it was; the record as it was (of another boot) or gone */
inline power_loss(keep, rubbish, whole_ledger, record_stays) {
  d_step { powers > 0 && (keep) >= disk && (keep) <= size -> powers--;
    if :: rubbish == 2 && size > disk -> line[size - 1] = JUNK; by[size - 1] = 0; num_of[size - 1] = 0; seq_of[size - 1] = 0 :: else fi;
    size = keep; disk = size; torn = (rubbish == 1 -> 2 : 0); restarted = true;
    x = size; do :: x < L -> line[x] = 0; by[x] = 0; num_of[x] = 0; seq_of[x] = 0; x++ :: else -> break od; x = 0;
    if :: record_stays -> skip :: else -> rec = false; rec_num = 0; rec_non = 0; rec_end = 0; rec_intent = false; rec_boot = 0 fi;
    if :: whole_ledger -> sync_ledger()
       :: else ->
          owner = d_owner; owner_inc = d_owner_inc; num = d_num; non = d_non;
          do :: x < INPUTS -> st[x] = d_st[x]; st_non[x] = d_st_non[x]; content[x] = d_content[x]; kept[x] = d_kept[x];
                  charged[x] = d_charged[x]; first[x] = d_first[x]; ran[x] = d_ran[x]; cancel[x] = d_cancel[x]; out[x] = d_out[x]; x++
             :: else -> break od; x = 0 fi;
    boot++; lock = 0; inside = 0; rec_file++;
    inc[1]++; inc[2]++; kill[1] = true; kill[2] = true; kill[3] = MIRROR > 0; kill[4] = true;
    /* core._register, the first to open: queued inputs may have run in a claim that is lost (inbox.note_that_they_may_have_run) */
    if :: PLANTED != RAN_FORGOTTEN ->
          do :: x < INPUTS -> if :: st[x] == QUEUED && !ran[x] -> ran[x] = 2; first[x] = 0 :: else fi; x++ :: else -> break od; x = 0
       :: else fi;
    sync_ledger(); check_world() } }

active proctype nemesis() {
  do
  :: kills > 0 -> d_step { kills--; inc[1]++; kill[1] = true }
  :: kills > 0 -> d_step { kills--; inc[2]++; kill[2] = true }
#if MIRROR
  :: kills > 0 -> d_step { kills--; kill[3] = true }
#endif
  :: d_step { cleans > 0 && rec -> cleans--; outsiders = true; rec = false; rec_boot = 0; rec_num = 0; rec_non = 0; rec_end = 0; rec_intent = false; rec_file++ }
#if POWER
  :: d_step { powers > 0 && disk < size -> disk++ }                     /* the system writes back by itself */
  :: d_step { powers > 0 -> sync_ledger() }
  :: power_loss(disk, 0, false, false)
  :: power_loss(disk, 1, false, true)
  :: power_loss(size, 0, false, true)
  :: power_loss(size, 1, false, false)
  :: power_loss(size, 2, false, true)
#endif
  :: d_step { PLANTED == REBUILD_UNDER_OWNERS && rebuilds > 0 -> rebuilds--; owner = 0; owner_inc = 0; num = 0; non = 0;
       x = 0; do :: x < INPUTS -> if :: st[x] == RUNNING -> st[x] = QUEUED; st_non[x] = 0 :: else fi; ran[x] = false; first[x] = 0; x++ :: else -> break od; x = 0 }
  :: break
  od }

#define ALL_ENDED (st[0] >= ANSWERED && out[0] == 3 && (INPUTS == 1 || (st[1] >= ANSWERED && out[1] == 3)))

init {
  atomic { st[0] = QUEUED; if :: INPUTS > 1 -> st[1] = QUEUED :: else fi; sync_ledger();
    inc[1] = 1; inc[2] = 1; boot = 1;
    run worker(1); run worker(2); run courier(4);
#if MIRROR
    run metadata(3)
#endif
  };
  (timeout);
  /* quiet: everything accepted has ended and was delivered, and a final line in the file has won */
  d_step {
    assert(ALL_ENDED); check_world();
    y = 0; do :: y < INPUTS -> find(ANSWER(y), 0, z);
      assert((st[y] == ANSWERED) == (z != 255)); assert(st[y] != ANSWERED || by[z] == content[y]); y++
      :: else -> break od; y = 0; z = 0 } }

#ifdef LIVE
ltl everything_ends { <> ALL_ENDED }
#endif
