/* Signs of life: when may the turn of a process that lives be taken?
 *
 * Time goes in ticks; a tick ends when everybody who runs has done what is due in it. The owner's thread beats every
 * BEAT ticks; a watcher looks every tick and counts on its own clock for how long it has seen the beat stand still.
 * Owner and watcher may be stopped and go on. The turn is taken only from an owner that has shown nothing for the whole
 * term, and a stopped one is taken in the end, whatever a former owner still does.
 */
#ifndef BEAT
#define BEAT 2
#endif
#ifndef TERM
#define TERM 6
#endif
#ifndef STOPS
#define STOPS 2                 /* times a process is stopped and goes on later */
#endif
#ifndef TICKS
#define TICKS 24
#endif
#define GAP 1                   /* beats.WATCH_GAP_MAX_S: two looks further apart prove nothing */

#define NOTHING 0
#define GAP_TRUSTED 1           /* a watcher that was away counts the time it did not look */
#define SUPERSEDED_BEATS 2      /* a former owner goes on beating */
#define WALL_CLOCK 3            /* the beat carries a time, and is compared with the watcher's clock */
#define SHORT_TERM 4            /* the term is shorter than the pause between two beats */
/* Which bug is planted is told when the verifier starts, by its number; one verifier looks for all of them. */
c_decl {
\#include <stdlib.h>
static int planted;
__attribute__((constructor)) static void plant(void) { const char *number = getenv("PLANTED"); planted = number ? atoi(number) : 0; }
}
#define PLANTED (c_expr { planted })
#define THE_TERM (PLANTED == SHORT_TERM -> BEAT - 1 : TERM)

byte now;
byte epoch = 1;                 /* 1: the first owner, 2: whoever took it */
byte beat_by = 1, beat_count, beat_time;
byte silent, watched;           /* ticks without a beat of the owner while the watcher ran; ticks it has run without a gap */
bool runs[4] = true, did[4];          /* 1 first owner, 2 the one that took it, 3 watcher; did: done with this tick */
byte stops = STOPS;
byte seen_by, seen_count, seen_since, looked; bool has_seen;
byte since[3];                  /* ticks since each owner's last beat */
bool set_back;                  /* the wall clock of the watcher is ahead */

inline beats(me) {
  d_step { runs[me] && !did[me] && epoch >= me && now < TICKS -> did[me] = true;
    if :: since[me] < BEAT -> since[me]++ :: else fi;
    if :: since[me] >= BEAT && (epoch == me || PLANTED == SUPERSEDED_BEATS) ->
          since[me] = 0; beat_by = me; beat_count = (beat_count + 1) % 4; beat_time = now;
          if :: epoch == me -> silent = 0 :: else fi
       :: else fi } }

active proctype owners() {
end_owners: do
  :: beats(1)
  :: beats(2)
  od }

active proctype watcher() {
end_watcher: do
  :: d_step { runs[3] && !did[3] && now < TICKS -> did[3] = true;
     if :: !has_seen || seen_by != beat_by || seen_count != beat_count || (now - looked > GAP && PLANTED != GAP_TRUSTED) ->
           has_seen = true; seen_by = beat_by; seen_count = beat_count; seen_since = now
        :: else fi;
     looked = now;
     if :: epoch == 1 && (now - seen_since >= THE_TERM || (PLANTED == WALL_CLOCK && set_back && now + TERM - beat_time >= TERM)) ->
           assert(silent >= TERM - 1);                          /* it had shown nothing for the term */
           epoch = 2; since[2] = 0; beat_by = 2; beat_count = 0; silent = 0; has_seen = false; did[2] = true
        :: epoch == 2 && now - seen_since >= THE_TERM -> assert(silent >= TERM - 1); epoch = 3; has_seen = false
        :: else fi }
  od }

active proctype clock() {
  byte i;
end_clock: do
  :: d_step { now < TICKS && (!runs[1] || did[1]) && (!runs[2] || did[2] || epoch < 2) && (!runs[3] || did[3]) ->
     now++;
     if :: runs[3] -> silent++; if :: watched <= 2 * TERM -> watched++ :: else fi :: else -> watched = 0 fi;
     assert(epoch == 3 || silent <= 2 * TERM || watched <= 2 * TERM);   /* whoever is silent is taken from in the end */
     did[1] = false; did[2] = false; did[3] = false }
  od }

active proctype nemesis() {
  do
  :: stops > 0 && now < TICKS / 2 -> d_step { stops--; runs[1] = false }; if :: d_step { runs[1] = true } :: skip fi
  :: stops > 0 && now < TICKS / 2 && epoch == 2 && runs[2] -> d_step { stops--; runs[2] = false }
  :: stops > 0 && now < TICKS / 2 -> d_step { stops--; runs[3] = false }; d_step { runs[3] = true; watched = 0 }
  :: d_step { !set_back -> set_back = true }
  :: break
  od }
