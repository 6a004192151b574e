"""What to do with an undelivered row, as plain functions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.inbound.event import Route
from holdfast.lane import states
from holdfast.outbox.message import (
    MOVED_ON_NOTE,
    PART_CHARS_MAX,
    SILENT,
    Outcome,
    answered_by,
    delivery_id,
    is_silent,
    plan_deliveries,
)
from holdfast.outbox.outbox import (
    POSSIBLE_DUPLICATE,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_S,
    OpenDelivery,
    Step,
    next_step,
    piece_chars_of,
    retry_in_s,
)
from holdfast.session.entries import assistant

ROUTE = Route("test", "user")
ROW = OpenDelivery(
    "d_1", "in_1", "agent:main:main", "test", "user", 0, "hello", 0, 5, None, "pending", 0, None, "nobody", 0.0
)


def step(row: OpenDelivery, **given_: Any) -> Step:
    usual: dict[str, Any] = {
        "is_ours": False, "reconciles": False, "on_unknown": "report", "longest_request_s": 30.0, "watched_s": 0.0,
    }  # fmt: skip
    return next_step(row, **{**usual, **given_})


def test_a_pending_row_is_sent_once_it_is_due() -> None:
    assert step(ROW) == "send"
    assert step(replace(ROW, due_in_s=0.1)) == "wait"


def test_a_row_that_a_living_process_is_sending_is_left_alone() -> None:
    started = replace(ROW, state="started", attempts=1, process="p_1")
    assert step(replace(started, sender="alive"), watched_s=119.9, reconciles=True) == "wait"
    assert step(replace(started, sender="unknown"), watched_s=119.9, reconciles=True) == "wait"
    assert step(replace(started, sender="dead")) == "note_death"


@pytest.mark.parametrize("sender", ["alive", "unknown"])
@pytest.mark.parametrize("reconciles", [True, False])
def test_past_a_sender_that_stands_still_goes_a_labelled_copy_or_a_report_and_nothing_else(
    sender: Any, reconciles: bool
) -> None:
    stalled = replace(ROW, state="started", attempts=1, process="p_1", sender=sender)
    late: dict[str, Any] = {"watched_s": 120.0, "reconciles": reconciles}
    assert step(stalled, **late, on_unknown="resend_labelled") == "resend_past_stalled"
    assert step(stalled, **late, on_unknown="report") == "report_stalled"
    often = replace(stalled, attempts=len(RETRY_AFTER_S) + 1)
    assert step(often, **late, on_unknown="resend_labelled") == "report_stalled"


def test_a_send_of_our_own_that_is_no_longer_under_way_is_lost_track_of() -> None:
    assert step(replace(ROW, state="started", sender="alive"), is_ours=True) == "note_loss"


def test_nothing_is_asked_or_resent_before_the_longest_request_time_has_passed() -> None:
    unknown = replace(ROW, state="unknown", attempts=1, process="p_1")
    for reconciles, on_unknown in product((True, False), ("report", "resend_labelled")):
        assert step(unknown, reconciles=reconciles, on_unknown=on_unknown, watched_s=29.9) == "wait"
        assert step(unknown, reconciles=reconciles, on_unknown=on_unknown, watched_s=30.0) != "wait"


def test_the_platform_is_asked_where_it_can_be_else_the_policy_of_the_channel_decides() -> None:
    unknown = replace(ROW, state="unknown", attempts=1)
    assert step(unknown, watched_s=30.0, reconciles=True, on_unknown="resend_labelled") == "reconcile"
    assert step(unknown, watched_s=30.0, on_unknown="resend_labelled") == "resend_labelled"
    assert step(unknown, watched_s=30.0, on_unknown="report") == "report"


def test_where_keys_are_kept_a_first_send_is_repeated_while_they_are_and_only_then() -> None:
    kept: dict[str, Any] = {"longest_request_s": 10.0, "keeps_keys_s": 60.0}
    unknown = replace(ROW, state="unknown", attempts=1, idle_s=5.0)
    for on_unknown in ("resend_labelled", "report"):
        assert step(unknown, **kept, watched_s=9.9, on_unknown=on_unknown) == "wait"
        assert step(unknown, **kept, watched_s=10.0, on_unknown=on_unknown) == "repeat"
        assert step(unknown, **kept, watched_s=30.0, on_unknown=on_unknown) == on_unknown
        for too_late in ({"attempts": 2}, {"label": POSSIBLE_DUPLICATE}, {"idle_s": 30.0}):
            assert step(replace(unknown, **too_late), **kept, watched_s=10.0, on_unknown=on_unknown) == on_unknown
    assert step(unknown, **kept, watched_s=10.0, reconciles=True) == "reconcile"


def test_a_row_that_stays_unknown_is_reported_after_the_last_labelled_copy() -> None:
    unknown = replace(ROW, state="unknown", attempts=len(RETRY_AFTER_S) + 1)
    assert step(unknown, watched_s=30.0, on_unknown="resend_labelled") == "report"


def test_pauses_grow_and_end_after_five_retries() -> None:
    assert [retry_in_s(attempt) for attempt in range(1, 8)] == [5, 25, 120, 600, 600, None, None]


def test_a_platform_may_ask_for_a_longer_pause_but_not_for_ever() -> None:
    assert retry_in_s(1, 1.0) == 5
    assert retry_in_s(1, 60.0) == 60
    assert retry_in_s(1, 1e9) == RETRY_AFTER_MAX_S


EVENT_OF_STEP = {
    "send": ("start", "started"),
    "note_death": ("sender_died", "unknown"),
    "note_loss": ("lose_track", "unknown"),
    "repeat": ("repeat", "started"),
    "resend_labelled": ("resend_labelled", "started"),
    "report": ("report", "failed"),
    "resend_past_stalled": ("resend_past_stalled", "started"),
    "report_stalled": ("report_stalled", "failed"),
}


@given(
    state=st.sampled_from(["pending", "started", "unknown"]),
    attempts=st.integers(0, 8),
    sender=st.sampled_from(["nobody", "alive", "dead", "unknown"]),
    due_in_s=st.sampled_from([0.0, 1.0]),
    is_ours=st.booleans(),
    reconciles=st.booleans(),
    on_unknown=st.sampled_from(["report", "resend_labelled"]),
    watched_s=st.floats(0, 200),
    keeps_keys_s=st.sampled_from([0.0, 150.0]),
)
def test_every_step_is_a_legal_move_and_only_a_pending_row_goes_out_without_a_label(
    state: str, attempts: int, sender: Any, due_in_s: float, **situation: Any
) -> None:
    taken = step(replace(ROW, state=state, attempts=attempts, sender=sender, due_in_s=due_in_s), **situation)
    if taken in EVENT_OF_STEP:
        event, after = EVENT_OF_STEP[taken]
        assert states.move("delivery", state, event) == after
    assert (taken == "send") <= (state == "pending")
    assert (taken in ("reconcile", "repeat", "resend_labelled", "report")) <= (state == "unknown")
    assert (taken in ("resend_past_stalled", "report_stalled")) <= (state == "started" and sender != "dead")


@given(st.text(max_size=400), st.integers(1, 80))
def test_the_pieces_of_a_text_join_to_the_text_and_fit_with_the_label(text: str, message_chars_max: int) -> None:
    pieces: list[str] = []
    sent = 0
    while sent < len(text):
        chars = piece_chars_of(text, sent, message_chars_max)
        assert chars >= 1
        pieces.append(text[sent : sent + chars].rstrip())
        sent += chars
    assert "".join("".join(pieces).split()) == "".join(text.split())
    room = max(message_chars_max, len(POSSIBLE_DUPLICATE) + 2)
    assert all(len(f"{POSSIBLE_DUPLICATE} {piece}") <= room for piece in pieces)


def test_a_cut_prefers_the_end_of_a_paragraph_then_of_a_line_then_of_a_word() -> None:
    room = 40 + len(POSSIBLE_DUPLICATE) + 1
    assert piece_chars_of("a" * 30 + "\n\n" + "b" * 5 + "\n" + "c" * 90, 0, room) == 32
    assert piece_chars_of("a" * 30 + "\n" + "b" * 5 + " " + "c" * 90, 0, room) == 31
    assert piece_chars_of("a" * 30 + " " + "c" * 90, 0, room) == 31
    assert piece_chars_of("a" * 5 + " " + "c" * 90, 0, room) == 40


def test_the_key_of_a_piece_depends_on_where_it_begins_and_on_nothing_else() -> None:
    later = replace(ROW, attempts=3, process="p_2", label=POSSIBLE_DUPLICATE, state="unknown")
    assert later.key == ROW.key == "d_1"
    second = replace(ROW, sent_chars=3, piece_chars=2)
    assert (second.key, second.piece, second.is_last_piece) == ("d_1.3", "lo", True)
    assert (replace(ROW, piece_chars=3).piece, replace(ROW, piece_chars=3).is_last_piece) == ("hel", False)


def test_a_settlement_plans_its_answer_and_its_note_as_parts_in_order() -> None:
    salvaged = Outcome("superseded", answer="x" * PART_CHARS_MAX, notice=MOVED_ON_NOTE)
    first, second = plan_deliveries("in_1", ROUTE, salvaged)
    assert (first.part, second.part) == (0, 1)
    assert first.body + second.body == "x" * PART_CHARS_MAX + "\n\n" + MOVED_ON_NOTE
    assert first.id == delivery_id("in_1", ROUTE, 0) != second.id


def test_an_answer_without_a_route_or_without_words_goes_nowhere() -> None:
    assert plan_deliveries("in_1", None, Outcome("answered", answer="hello")) == []
    assert plan_deliveries("in_1", ROUTE, Outcome("answered", answer="")) == []


@pytest.mark.parametrize("said", ["NO_REPLY", " **NO_REPLY**\n", "`NO_REPLY`."])
def test_a_silent_answer_goes_nowhere_and_says_so(said: str) -> None:
    message = assistant(said, model="demo/demo").message
    silent = answered_by(message, "e_1")
    assert (silent.state, silent.answer, silent.detail) == ("answered", said, SILENT)
    assert plan_deliveries("in_1", ROUTE, replace(silent, notice="(This answers your last 2 messages.)")) == []
    assert answered_by(message, "e_1", detail="settled from its final line").detail == (
        f"{SILENT}; settled from its final line"
    )


@pytest.mark.parametrize("said", ["", "NO_REPLY needed", "no_reply", "I answer NO_REPLY", "NO_REPLY_AT_ALL"])
def test_the_token_in_other_words_is_text_like_any_other(said: str) -> None:
    assert not is_silent(said)
    assert answered_by(assistant(said, model="demo/demo").message, None).detail is None


def test_lone_surrogates_are_replaced_because_no_channel_and_no_ledger_takes_them() -> None:
    [only] = plan_deliveries("in_1", ROUTE, Outcome("answered", answer="a\ud800b"))
    assert only.body == "a?b"


@pytest.mark.parametrize(("state", "by_people"), [("sent", set()), ("dropped", set()), ("failed", {"retry", "drop"})])
def test_a_finished_delivery_is_reopened_by_people_only(state: str, by_people: set[str]) -> None:
    assert {event for from_, event in states.DELIVERY if from_ == state} == by_people
