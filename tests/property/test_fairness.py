"""How many later inputs an accepted one can wait behind, over whole histories of a queue.

The bound: who passes an input on its session came within `AGING_S` after it and is of a better lane. A session takes in
a bounded number of inputs, so that is a bounded number of turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from holdfast.lane.policy import AGING_S, RANK, LaneLimits, Waiting, choose

LANES = ("main", "hook", "cron", "heartbeat")
LIMITS = LaneLimits({"main": 2}, depth_max=1000, per_session_max=1000)
STEP_S = 5.0
Arrival = tuple[float, str, str, int]
_arrivals = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 7.0, 30.0]), st.sampled_from(["a", "b", "c"]), st.sampled_from(LANES),
              st.integers(1, 8)),
    min_size=1, max_size=60,
)  # fmt: skip


@dataclass
class Seen:
    accepted_s: float
    lane: str
    transcript: str
    steps: int
    began_s: float | None = None


@dataclass
class Machine:
    """A queue that is looked at each `STEP_S`; turns last a number of looks."""

    seen: list[Seen] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)

    def look(self, now_s: float) -> None:
        self.running = {seq: left - 1 for seq, left in self.running.items() if left > 1}
        owned = {self.seen[seq].transcript for seq in self.running}
        lanes = [self.seen[seq].lane for seq in self.running]
        waiting = [
            Waiting(seq, str(seq), one.transcript, one.lane, now_s - one.accepted_s, one.transcript in owned)
            for seq, one in enumerate(self.seen)
            if one.began_s is None and one.accepted_s <= now_s
        ]
        for one in choose(waiting, {lane: lanes.count(lane) for lane in lanes}, LIMITS, solo_running=False):
            self.seen[one.seq] = replace(self.seen[one.seq], began_s=now_s)
            self.running[one.seq] = self.seen[one.seq].steps


@given(_arrivals)
def test_only_better_lanes_pass_and_only_those_that_came_within_the_aging_time(arrivals: list[Arrival]) -> None:
    machine, at_s = Machine(), 0.0
    for pause_s, transcript, lane, steps in arrivals:
        at_s += pause_s
        machine.seen.append(Seen(at_s, lane, transcript, steps))
    now_s = 0.0
    while any(one.began_s is None for one in machine.seen):
        machine.look(now_s)
        now_s += STEP_S
        assert now_s < 10_000, "somebody starves"
    began = [(one, one.began_s) for one in machine.seen if one.began_s is not None]
    for seq, (mine, mine_s) in enumerate(began):
        passing = [one for one, s in began[seq + 1 :] if one.transcript == mine.transcript and s < mine_s]
        for one in passing:
            assert one.accepted_s - mine.accepted_s < AGING_S, "it came after mine had waited long enough"
            assert RANK[one.lane] < RANK[mine.lane]
