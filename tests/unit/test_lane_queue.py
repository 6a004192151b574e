"""How inputs wait: reading `/queue`, quiet windows, who may share a turn, what gives way."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.lane import queue
from holdfast.lane.queue import JOINED_MAX, Arrival, Mode, Place, QueueSettings

OWN = Place("in_0", "agent:main:main", "main", "test", "user", None, False, "collect")

modes = st.sampled_from(get_args(Mode))
places = st.builds(
    Place,
    id=st.integers(0, 10**6).map(lambda n: f"in_{n}"),
    session=st.sampled_from(["agent:main:main", "agent:main:other"]),
    lane=st.sampled_from(["main", "cron"]),
    channel=st.sampled_from(["test", None]),
    target=st.sampled_from(["user", "group"]),
    model=st.sampled_from([None, "demo/demo"]),
    waits=st.booleans(),
    mode=modes,
)


def test_a_queue_command_names_mode_debounce_cap_and_drop_in_any_order() -> None:
    change = queue.read_change(["cap:25", "collect", "drop:old", "debounce:0.5s"])
    assert change == {"cap": 25, "mode": "collect", "drop": "old", "debounce_ms": 500}
    assert queue.read_change(["debounce:250ms"]) == {"debounce_ms": 250}


@pytest.mark.parametrize(
    "word",
    [
        "",
        "nonsense",
        "cap:0",
        "cap:1001",
        "cap:x",
        "debounce:61s",
        "drop:all",
        "mode:steer",
        f"cap:{'9' * 5000}",
        f"debounce:{'9' * 5000}s",
        "cap:²",
    ],
)
def test_a_word_that_is_not_understood_is_named_with_what_there_is(word: str) -> None:
    with pytest.raises(InputError, match="steer, followup, collect, interrupt") as refused:
        queue.read_change([word])
    assert len(str(refused.value)) < 400


def test_the_same_setting_twice_is_refused() -> None:
    with pytest.raises(InputError, match="mode is given twice"):
        queue.read_change(["steer", "collect"])


@given(st.builds(QueueSettings, modes, st.integers(0, 60_000), st.integers(1, 1000), st.sampled_from(["old", "new"])))
def test_settings_in_words_read_back_as_the_same_settings(settings: QueueSettings) -> None:
    change = queue.read_change(queue.in_words(settings).split())
    assert queue.with_change(QueueSettings(), change) == settings


@pytest.mark.parametrize(("waits", "lane"), [(True, "main"), (False, "cron")])
def test_whoever_waits_and_every_machine_gets_a_turn_of_its_own_at_once(waits: bool, lane: str) -> None:
    settings = QueueSettings(mode="interrupt")
    assert queue.arrive(settings, waits=waits, lane=lane, ahead=3) == Arrival("followup", 0)


def test_a_message_to_a_free_session_waits_for_no_quiet() -> None:
    assert queue.arrive(QueueSettings(), waits=False, lane="main", ahead=0) == Arrival("steer", 0)
    assert queue.arrive(QueueSettings(), waits=False, lane="main", ahead=1) == Arrival("steer", 500)


def test_each_arrival_restarts_the_quiet_window_and_a_clock_set_back_ends_it() -> None:
    assert queue.quiet_in_s([(1_000, 500), (1_400, 500)], now_ms=1_450) == 0.45
    assert queue.quiet_in_s([(1_000, 500), (1_400, 500)], now_ms=1_900) == 0.0
    assert queue.quiet_in_s([(1_000, 500)], now_ms=900) == 0.0
    assert queue.quiet_in_s([], now_ms=900) == 0.0


@given(places, st.lists(places, max_size=40), st.sampled_from(["steer", "merge"]))
def test_what_a_turn_takes_in_may_share_its_answer_and_keeps_its_order(
    own: Place, waiting: list[Place], how: queue.How
) -> None:
    taken = queue.choose_joining(own, waiting, how)
    assert len(taken) <= JOINED_MAX
    assert taken == [one for one in waiting if one in taken][: len(taken)]
    for one in taken:
        assert (one.session, one.lane, one.channel, one.target) == (own.session, own.lane, own.channel, own.target)
        assert not one.waits
        assert one.lane == "main"
        assert one.mode != "followup"


def test_nothing_is_steered_into_a_turn_for_another_place_or_model() -> None:
    waiting = [
        replace(OWN, id="in_1", mode="steer", target="group"),
        replace(OWN, id="in_2", mode="steer", model="openai/gpt-5"),
        replace(OWN, id="in_3", mode="steer", waits=True),
        replace(OWN, id="in_4", mode="followup"),
        replace(OWN, id="in_5", mode="steer"),
    ]
    assert [one.id for one in queue.choose_joining(OWN, waiting, "steer")] == ["in_5"]


def test_only_a_collecting_turn_merges() -> None:
    waiting = [replace(OWN, id="in_1")]
    assert queue.choose_joining(OWN, waiting, "merge") == waiting
    assert queue.choose_joining(replace(OWN, mode="steer"), waiting, "merge") == []


def test_the_oldest_that_may_be_told_gives_way() -> None:
    waiting = [replace(OWN, id="in_1", waits=True), replace(OWN, id="in_2"), replace(OWN, id="in_3")]
    dropped = queue.choose_dropped(replace(OWN, id="in_9"), waiting)
    assert dropped is not None
    assert dropped.id == "in_2"
    assert queue.choose_dropped(replace(OWN, target="group"), waiting) is None


def test_a_summary_is_short_whatever_was_said() -> None:
    told = queue.summary_text([f"number {n}\n" + "long " * 500 for n in range(50)])
    lines = told.split("\n")
    assert lines[0] == "[50 messages were dropped because too many were waiting; in short:]"
    assert lines[1] == "- (and 30 before these)"
    assert len(lines) == 22
    assert all(len(line) <= 142 for line in lines)
