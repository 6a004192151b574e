"""What of old tool results a model is shown after a pause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.context.prune import RESULT_CHARS_MAX, prune
from holdfast.context.repair import Message

MINUTE = 60_000


def result(text: str, at_ms: float | None) -> Message:
    message: Message = {
        "role": "toolResult", "toolCallId": "c", "toolName": "look", "content": [{"type": "text", "text": text}],
    }  # fmt: skip
    return message if at_ms is None else {**message, "timestamp": at_ms}


def user(at_ms: float) -> Message:
    return {"role": "user", "content": [{"type": "text", "text": "x" * 9_000}], "timestamp": at_ms}


LONG = "a" * 5_000 + "z" * 5_000


def test_a_long_result_from_before_a_pause_keeps_its_beginning_and_its_end() -> None:
    messages = [user(0), result(LONG, 1), user(6 * MINUTE)]
    first, shortened, last = prune(messages, own=1)
    text = shortened["content"][0]["text"]
    assert (first, last) == (messages[0], messages[2])
    assert text == "a" * 1_500 + "\n[… 7000 characters left out …]\n" + "z" * 1_500
    assert messages[1]["content"][0]["text"] == LONG


def test_without_a_pause_and_in_the_turn_itself_nothing_is_shortened() -> None:
    busy = [user(0), result(LONG, 1), user(4 * MINUTE)]
    assert prune(busy, own=1) == busy
    own = [user(0), result(LONG, 1), user(6 * MINUTE)]
    assert prune(own, own=2) == own
    assert prune(own, own=1, ttl_s=0) == own


def test_what_comes_after_the_pause_changes_nothing_of_what_is_shown_of_before() -> None:
    messages = [user(0), result(LONG, 1), user(6 * MINUTE), result(LONG, 6 * MINUTE + 1)]
    now = prune(messages, own=1)
    later = prune([*messages, user(7 * MINUTE)], own=1)
    assert later[: len(now)] == now


times = st.one_of(st.none(), st.integers(-(10**7), 10**7))
results = st.lists(st.builds(result, st.text(max_size=20).map(lambda text: text * 500), times), max_size=8)


@given(results, st.integers(0, 8))
def test_nothing_but_long_results_is_touched(messages: list[Message], own: int) -> None:
    for before, after in zip(messages, prune(messages, own=own), strict=True):
        short = len(before["content"][0]["text"]) <= RESULT_CHARS_MAX
        assert after == before if short else len(after["content"][0]["text"]) <= len(before["content"][0]["text"])
        assert {**after, "content": 0} == {**before, "content": 0}


def test_a_tool_that_takes_long_is_no_pause() -> None:
    slow = [user(0), result(LONG, 1), result(LONG, 10 * MINUTE), user(11 * MINUTE)]
    assert prune(slow, own=1) == slow
