"""Who goes next: rank, aging, one turn per transcript, widths, inputs that are re-run alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.lane.policy import AGING_S, LaneLimits, Waiting, choose, default_widths, heads, order, rank


def waiting(seq: int, lane: str = "main", transcript: str | None = None, **more: object) -> Waiting:
    return Waiting(seq, f"in_{seq}", transcript or f"t_{seq}", lane, waited_s=0.0, **more)  # type: ignore[arg-type]


LIMITS = LaneLimits(widths={"main": 2, "cron": 1})


def test_users_go_before_machines_whoever_came_first() -> None:
    assert [
        w.lane for w in order([waiting(1, "heartbeat"), waiting(2, "cron"), waiting(3, "hook"), waiting(4, "main")])
    ] == [
        "main",
        "hook",
        "cron",
        "heartbeat",
    ]


def test_among_equals_the_first_to_arrive_is_first() -> None:
    assert [w.seq for w in order([waiting(3), waiting(1), waiting(2)])] == [1, 2, 3]


def test_a_machine_that_has_waited_long_enough_counts_as_a_user() -> None:
    old = Waiting(1, "in_1", "t", "heartbeat", waited_s=AGING_S)
    assert rank("heartbeat", AGING_S - 0.1) > rank("main", 0.0)
    assert order([waiting(2), old])[0] is old


def test_only_the_head_of_each_transcripts_line_may_start() -> None:
    line = [waiting(1, transcript="t"), waiting(2, transcript="t"), waiting(3, transcript="u")]
    assert [w.seq for w in heads(line)] == [1, 3]


def test_a_transcript_with_an_owner_starts_nothing_and_takes_no_slot() -> None:
    queue = [waiting(1, transcript="t", blocked=True), waiting(2), waiting(3)]
    assert [w.seq for w in choose(queue, {}, LIMITS, solo_running=False)] == [2, 3]


def test_a_lane_never_gets_more_slots_than_its_width() -> None:
    queue = [waiting(n) for n in range(1, 6)] + [waiting(9, "cron"), waiting(10, "cron")]
    assert [w.seq for w in choose(queue, {"main": 1}, LIMITS, solo_running=False)] == [1, 9]


def test_a_full_lane_does_not_hold_up_another() -> None:
    assert [w.seq for w in choose([waiting(1), waiting(2, "cron")], {"main": 2}, LIMITS, solo_running=False)] == [2]


def test_inputs_that_are_rerun_alone_start_one_at_a_time() -> None:
    queue = [waiting(1, solo=True), waiting(2, solo=True)]
    assert [w.seq for w in choose(queue, {}, LIMITS, solo_running=False)] == [1]
    assert choose(queue, {}, LIMITS, solo_running=True) == []


def test_an_unnamed_lane_has_width_one() -> None:
    assert LIMITS.width("something") == 1
    assert default_widths()["main"] >= 4


LANES = st.sampled_from(["main", "subagent", "hook", "cron", "heartbeat", "other"])
QUEUES = st.lists(
    st.builds(
        Waiting,
        seq=st.integers(1, 10_000),
        id=st.just("in"),
        transcript=st.sampled_from("abcdefgh"),
        lane=LANES,
        waited_s=st.floats(0, 200),
        blocked=st.booleans(),
        solo=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda w: w.seq,
)


@given(QUEUES, st.dictionaries(LANES, st.integers(0, 3)), st.booleans())
def test_whatever_the_queue_the_choice_keeps_every_rule(
    queue: list[Waiting], running: dict[str, int], solo: bool
) -> None:
    chosen = choose(queue, running, LIMITS, solo)
    transcripts = [w.transcript for w in chosen]
    assert len(set(transcripts)) == len(transcripts)
    assert not any(w.blocked for w in chosen)
    assert sum(w.solo for w in chosen) <= (0 if solo else 1)
    for lane in {w.lane for w in chosen}:
        assert sum(w.lane == lane for w in chosen) + running.get(lane, 0) <= LIMITS.width(lane)
    first = {w.transcript: w for w in reversed(order(queue))}
    assert all(first[w.transcript] is w for w in chosen)


@given(QUEUES)
def test_something_starts_whenever_something_could(queue: list[Waiting]) -> None:
    startable = [w for w in heads(queue) if not w.blocked]
    assert bool(choose(queue, {}, LIMITS, solo_running=False)) == bool(startable)
