/* One delivery, two couriers, and a receiver that may take a request, lose it, answer, or not answer.
 *
 * The row's content is decided elsewhere and never changes (ownership.pml); here only how often it arrives. A courier
 * marks the row as started in its own name, in a synced commit, before its first byte leaves; it may stand still between
 * any two steps, be killed with its request still on the way, or be cut off. The platform can be asked (FINDS=1) or not.
 * The world may get one copy without a label at most.
 */
#ifndef FINDS
#define FINDS 1                 /* 1: the platform can be asked whether it has a key (traits.reconciles) */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef POWER
#define POWER 1
#endif
#ifndef LOSSES
#define LOSSES 1                /* requests that the network loses */
#endif
#ifndef SILENCES
#define SILENCES 1              /* requests that arrive and are not answered */
#endif
#ifndef PASTS
#define PASTS 0                 /* times a sender that stands still is not waited for any longer */
#endif
#ifndef REFUSALS
#define REFUSALS 1              /* requests that the platform certainly did not take */
#endif

#define NOTHING 0
#define RECONCILE_WHILE_SENDER_LIVES 1 /* another's send counts as unknown although its process lives */
#define RECONCILE_WITHIN_REQUEST_TIME 2 /* the platform is asked while a dead sender's request may still arrive */
#define STARTED_AFTER_SEND 3    /* the row is marked after the first byte has left */
#define STARTED_UNSYNCED 4      /* it is marked in a commit that a power loss takes away */
#define RESEND_UNLABELLED 5     /* unknown and nobody to ask: sent again as if it were the first */
#define NO_COMPARE_AND_SET 6    /* a row is moved whatever it has become meanwhile */
#define SILENCE_IS_REFUSAL 7    /* no answer counts as "it has not arrived" */
#define UNLABELLED_PAST_STALLED 8 /* past a sender that stands still the row goes out as if it were the first copy */
/* Which bug is planted is told when the verifier starts, by its number; one verifier looks for all of them. */
c_decl {
\#include <stdlib.h>
static int planted;
__attribute__((constructor)) static void plant(void) { const char *number = getenv("PLANTED"); planted = number ? atoi(number) : 0; }
}
#define PLANTED (c_expr { planted })

#define PENDING 1
#define STARTED 2
#define UNKNOWN 3
#define SENT 4
#define GIVEN_UP 5
byte row = PENDING, sender, sender_inc, tries; bool label;
byte d_row = PENDING, d_sender, d_sender_inc, d_tries; bool d_label;
byte inc[3];
bool kill[3];
byte way[3];                    /* each courier's request: 0 none, 1 on its way, 2 arrived and confirmed, 3 refused, 4 silence */
bool way_label[3];
byte stray, stray_labelled;     /* requests of dead processes that are still on their way */
byte plain, labelled;           /* copies the world has */
byte past = PASTS, kills = KILLS, powers = POWER, losses = LOSSES, silences = SILENCES, refusals = REFUSALS;

#define SENDER_DEAD (sender != 0 && sender_inc != inc[sender])
#define TIME_IS_UP (stray + stray_labelled == 0 || PLANTED == RECONCILE_WITHIN_REQUEST_TIME)  /* longest_request_s has passed */
#define AS_SEEN (row == was && tries == was_tries && sender == was_sender || PLANTED == NO_COMPARE_AND_SET)

inline see() { was = row; was_tries = tries; was_sender = sender }
/* outbox_rows.move: a compare-and-set in one synced commit */
inline move(to) { if :: AS_SEEN -> row = to; synced(); moved = true :: else -> moved = false fi }
inline synced() { d_row = row; d_sender = sender; d_sender_inc = sender_inc; d_tries = tries; d_label = label }
inline start(labelled_) {
  if :: AS_SEEN -> row = STARTED; sender = me; sender_inc = inc[me]; tries++; label = labelled_; moved = true;
        if :: PLANTED != STARTED_UNSYNCED -> synced() :: else fi
     :: else -> moved = false fi }

proctype courier(byte me) {
  byte was, was_tries, was_sender; bool moved, lab;
end_idle: {
end_wait: do
  /* outbox.next_step */
  :: d_step { row == PENDING -> see(); lab = label };                             /* send */
sending:
     if :: PLANTED == STARTED_AFTER_SEND -> d_step { way[me] = 1; way_label[me] = lab }
        :: else -> skip fi;
     d_step { start(lab) };
     if :: !moved -> d_step { was = 0; was_tries = 0; was_sender = 0; lab = false }; goto end_idle :: else fi;
     /* ── may be stopped here for as long as it likes; its process lives ── */
     d_step { if :: PLANTED == STARTED_AFTER_SEND -> skip :: else -> way[me] = 1; way_label[me] = lab fi; see() };
     (way[me] != 1);
     d_step { moved = false;
       if :: way[me] == 2 -> move(SENT)
          :: way[me] == 3 -> move(PENDING)
          :: way[me] == 4 && PLANTED == SILENCE_IS_REFUSAL -> move(PENDING)
          :: way[me] == 4 && PLANTED != SILENCE_IS_REFUSAL -> move(UNKNOWN)       /* delivery._send: lose_track */
          :: else -> skip fi;
       way[me] = 0; way_label[me] = false; was = 0; was_tries = 0; was_sender = 0; moved = false; lab = false }
  :: d_step { row == STARTED && (SENDER_DEAD || (PLANTED == RECONCILE_WHILE_SENDER_LIVES && sender != me)) -> see(); move(UNKNOWN) }
  :: d_step { row == UNKNOWN && TIME_IS_UP && FINDS -> see() };                   /* delivery._reconcile */
     if :: d_step { plain + labelled > 0 -> move(SENT) }
        :: d_step { plain + labelled == 0 -> lab = label; move(PENDING) }
     fi
  :: d_step { row == UNKNOWN && TIME_IS_UP && !FINDS && PLANTED != RESEND_UNLABELLED && tries <= 3 -> see(); lab = true }; goto sending
  :: d_step { row == UNKNOWN && TIME_IS_UP && !FINDS && PLANTED == RESEND_UNLABELLED && tries <= 3 -> see(); lab = false }; goto sending
  /* its sender lives and has stood still for long; it may go on at any time (outbox.next_step: resend_past_stalled) */
  :: d_step { row == STARTED && sender != me && !SENDER_DEAD && past > 0 && tries <= 3 -> past--; see();
       lab = (PLANTED != UNLABELLED_PAST_STALLED) }; goto sending
  :: d_step { row == UNKNOWN && TIME_IS_UP && !FINDS && tries > 3 -> see(); move(GIVEN_UP) }  /* reported */
  od
  } unless { d_step { kill[me] -> kill[me] = false; was = 0; was_tries = 0; was_sender = 0; moved = false; lab = false }; goto end_idle } }

inline arrives(lab_) { if :: lab_ -> labelled++ :: else -> plain++ fi; assert(plain <= 1) }

active proctype network() {
end_idle: do
  :: atomic { way[1] == 1 -> if :: arrives(way_label[1]); way[1] = 2
                               :: silences > 0 -> silences--; arrives(way_label[1]); way[1] = 4
                               :: losses > 0 -> losses--; way[1] = 4
                               :: refusals > 0 -> refusals--; way[1] = 3 fi }
  :: atomic { way[2] == 1 -> if :: arrives(way_label[2]); way[2] = 2
                               :: silences > 0 -> silences--; arrives(way_label[2]); way[2] = 4
                               :: losses > 0 -> losses--; way[2] = 4
                               :: refusals > 0 -> refusals--; way[2] = 3 fi }
  :: atomic { stray > 0 -> stray--; if :: arrives(false) :: losses > 0 -> losses-- fi }
  :: atomic { stray_labelled > 0 -> stray_labelled--; if :: arrives(true) :: losses > 0 -> losses-- fi }
  od }

/* the process ends here and now; what it has sent goes its way */
inline dies(p) { inc[p]++; kill[p] = true;
  if :: way[p] == 1 && way_label[p] -> stray_labelled++ :: way[p] == 1 && !way_label[p] -> stray++ :: else fi; way[p] = 0; way_label[p] = false }

active proctype nemesis() {
  do
  :: kills > 0 -> d_step { kills--; dies(1) }
  :: kills > 0 -> d_step { kills--; dies(2) }
  :: d_step { powers > 0 -> powers--; row = d_row; sender = d_sender; sender_inc = d_sender_inc; tries = d_tries; label = d_label;
       dies(1); dies(2) }
  :: break
  od }

#define ENDED (row == SENT || row == GIVEN_UP)
init { atomic { run courier(1); run courier(2) };
  (timeout);
  assert(ENDED); assert(row != SENT || plain + labelled > 0); assert(row != GIVEN_UP || !FINDS) }

#ifdef LIVE
ltl everything_ends { <> ENDED }
#endif
