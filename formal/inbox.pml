/* One message, a sender that repeats it until it is acknowledged, two processes that accept, and a ledger in WAL mode.
 *
 * A commit is written to the log, then synced, then shown to other processes through the shared index. The index goes
 * with the last process: whoever opens first afterwards rebuilds it from the log as the system shows it, with commits
 * that nobody has synced. Two nets keep such a row from being acknowledged: the first opener commits with a sync before
 * anything else, and a duplicate is touched, so that its commit is synced. Each of them suffices (NETS).
 */
#ifndef KILLS
#define KILLS 2
#endif
#ifndef POWER
#define POWER 1
#endif
#ifndef NETS
#define NETS 3                  /* 1: the opener syncs, 2: a duplicate is touched, 3: both */
#endif
#define NOTHING 0
#define EARLY_ACKNOWLEDGEMENT 1 /* acknowledged before the commit is synced */
#define DUPLICATE_UNSYNCED 2    /* a duplicate is acknowledged as it is read; the first opener does not sync either */
#define NO_DEDUPE 3             /* the key is not looked for */
#define DEDUPE_OUTSIDE 4        /* it is looked for before the transaction begins */
/* Which bug is planted is told when the verifier starts, by its number; one verifier looks for all of them. */
c_decl {
\#include <stdlib.h>
static int planted;
__attribute__((constructor)) static void plant(void) { const char *number = getenv("PLANTED"); planted = number ? atoi(number) : 0; }
}
#define PLANTED (c_expr { planted })
#define OPENER_SYNCS ((NETS & 1) && PLANTED != DUPLICATE_UNSYNCED)
#define TOUCHED ((NETS & 2) && PLANTED != DUPLICATE_UNSYNCED)

/* the row's id (0: no row): in the log, in the log on the medium, in the index */
byte logged, synced, shown;
bool index;                     /* there is an index: some process has the ledger open */
byte lock;                      /* ledger.lock */
bool open_[3], kill[3];
byte kills = KILLS, powers = POWER, ids_;
bool request[3];                /* which processes have the sender's request: it may give one up and ask the other */
byte told;                      /* the id that the sender was told first */

inline acknowledge(id) { if :: request[me] -> request[me] = false; assert(told == 0 || told == id); assert(synced == id); told = id :: else fi }

proctype gateway(byte me) {
  byte seen; bool known;
end_closed:
  { (1);
  /* store.open: one process at a time (state_dir.opening) */
  atomic { lock == 0 -> lock = me };
  d_step { if :: !index -> index = true; shown = logged :: else fi; open_[me] = true };
  if :: OPENER_SYNCS -> d_step { synced = logged } :: else -> skip fi;
  d_step { lock = 0 };
end_serve:
  do
  :: atomic { request[me] -> seen = 0; known = false };
     if :: PLANTED == DEDUPE_OUTSIDE -> atomic { known = (shown != 0); seen = shown } :: else -> skip fi;
     atomic { lock == 0 -> lock = me };
     atomic { if :: PLANTED == NO_DEDUPE -> seen = 0
              :: PLANTED == DEDUPE_OUTSIDE && known -> skip
              :: PLANTED == DEDUPE_OUTSIDE && !known -> seen = 0
              :: else -> seen = shown fi };
     if
     :: seen == 0 ->
        d_step { ids_++; assert(ids_ < 12); seen = ids_; logged = seen };        /* inbox.accept; the log's frame */
        if :: PLANTED == EARLY_ACKNOWLEDGEMENT -> d_step { acknowledge(seen) } :: else -> skip fi;
        d_step { synced = logged };
        d_step { shown = logged; lock = 0 };
        d_step { acknowledge(seen) }
     :: else ->
        if :: TOUCHED -> d_step { logged = shown }; d_step { synced = logged } :: else -> skip fi;
        d_step { lock = 0 };
        d_step { acknowledge(seen) }
     fi;
     atomic { seen = 0; known = false }
  od
  } unless { d_step { kill[me] -> kill[me] = false; seen = 0; known = false }; goto end_closed } }

/* the index goes with the last process that had the ledger open */
inline dies(p) { kill[p] = true; open_[p] = false; if :: lock == p -> lock = 0 :: else fi;
  request[p] = false;
  if :: !open_[1] && !open_[2] -> index = false; shown = 0 :: else fi }

active proctype sender() {
end_told: do
  :: atomic { told == 0 && !request[1] -> request[1] = true }
  :: atomic { told == 0 && !request[2] -> request[2] = true }
  :: told != 0 -> break
  od;
  /* it may not have heard, and sends once more */
  atomic { if :: request[1] = true :: request[2] = true :: skip fi } }

active proctype nemesis() {
  do
  :: kills > 0 -> d_step { kills--; dies(1) }
  :: kills > 0 -> d_step { kills--; dies(2) }
  :: d_step { powers > 0 -> powers--; dies(1); dies(2); logged = synced; assert(told == 0 || logged == told) }
  :: d_step { powers > 0 -> powers--; dies(1); dies(2); synced = logged; assert(told == 0 || logged == told) }
  :: break
  od }

#define ACCEPTED (told != 0 && logged == told && synced == told)
init { atomic { run gateway(1); run gateway(2) }; (timeout); assert(ACCEPTED) }

#ifdef LIVE
ltl everything_ends { <> (told != 0) }
#endif
