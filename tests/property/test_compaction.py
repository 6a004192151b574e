"""Where random conversations are cut: nothing is parted that belongs together, and what stays is what stood there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.context import summary
from holdfast.context.budget import UNBELIEVABLE, Budget, count_tokens, estimate_tokens, text_tokens
from holdfast.context.compaction import Cut, choose_cut
from holdfast.context.plan import SUMMARY_HEAD, plan
from holdfast.context.repair import INTERRUPTED, Message
from holdfast.ids import input_line_id
from holdfast.session import entries
from holdfast.session.entries import Entry, Origin, encode_line, stamped
from holdfast.session.lines import Line, read_line

AT = "2026-05-22T10:00:00.000Z"
INPUT, TURN = "in_running", "turn_running"
SMALL = Budget(window=4_000, keep=600)


@dataclass
class Branch:
    """Lines in a row, as a transcript would hold them; the last exchange may belong to a turn that still runs."""

    lines: list[Line] = field(default_factory=list)

    def add(self, entry: Entry, *, own: bool = False, id: str | None = None) -> None:
        id = id or f"e{len(self.lines)}"
        parent = self.lines[-1].id if self.lines else None
        origin = Origin("store", TURN if own else "other", 1, "main", "turn", (INPUT,) if own else ())
        self.lines.append(read_line(encode_line(stamped(entry, id=id, parent=parent, timestamp=AT, origin=origin))))

    def compact(self, cut: Cut) -> None:
        id = f"e{len(self.lines)}"
        self.add(entries.compaction("what was before", cut.first_kept or id), id=id)


@dataclass(frozen=True)
class Exchange:
    """What a user said, how many bytes each call's result has, and whether the last calls were answered at once."""

    asked: int
    results: list[int]
    answered: bool = True
    out_of_order: bool = False


exchanges = st.builds(
    Exchange, st.integers(1, 1500), st.lists(st.integers(0, 2500), max_size=4), st.booleans(), st.booleans()
)


def write(branch: Branch, exchange: Exchange, number: int, *, own: bool = False, ends: bool = True) -> None:
    branch.add(entries.user("q" * exchange.asked), own=own, id=input_line_id(INPUT) if own else None)
    for step, size in enumerate(exchange.results):
        ids = [f"c{number}.{step}.{one}" for one in range(2)]
        calls: list[dict[str, Any]] = [{"type": "toolCall", "id": id, "name": "look", "arguments": {}} for id in ids]
        branch.add(entries.assistant(calls, model="p/m", stop_reason="toolUse"), own=own)
        if exchange.out_of_order:
            branch.add(entries.mirror("a copy"))
            ids.reverse()
        for id in ids[: 2 if exchange.answered else 1]:
            branch.add(entries.tool_result(id, "look", "r" * (size or 1)), own=own)
    if ends:
        branch.add(entries.assistant(f"answer {number}", model="p/m"), own=own)


@st.composite
def branches(draw: st.DrawFn) -> tuple[Branch, bool]:
    """A conversation, sometimes with a compaction in it, and whether its last exchange is still to be answered."""
    branch = Branch()
    for number, exchange in enumerate(draw(st.lists(exchanges, max_size=6))):
        write(branch, exchange, number)
        if draw(st.integers(0, 4)) == 0:
            cut = choose_cut(branch.lines, SMALL, by_hand=True)
            if cut is not None:
                branch.compact(cut)
    running = draw(st.booleans())
    if running:
        write(branch, draw(exchanges), 99, own=True, ends=False)
    return branch, running


def shown(branch: Branch, running: bool) -> list[Message]:
    names: Any = {"inputs": [INPUT], "turn": TURN} if running else {}
    return plan(branch.lines, **names).messages


def cut_of(branch: Branch, running: bool, **options: Any) -> Cut | None:
    names: Any = {"inputs": [INPUT], "turn": TURN} if running else {}
    return choose_cut(branch.lines, SMALL, **names, **options)


def is_interrupted(message: Message) -> bool:
    return message["role"] == "toolResult" and message["content"][0]["text"] == INTERRUPTED


@given(branches(), st.booleans())
def test_a_cut_parts_no_call_from_its_result_and_no_question_from_its_answer(
    made: tuple[Branch, bool], by_hand: bool
) -> None:
    branch, running = made
    before = shown(branch, running)
    cut = cut_of(branch, running, by_hand=by_hand)
    if cut is None:
        return
    branch.compact(cut)
    after = shown(branch, running)
    assert after[0]["content"][0]["text"].startswith(SUMMARY_HEAD)
    kept = after[1:]
    questions = [one for one in before if one["role"] == "user"][-1:] if running else []
    tail = kept[1:] if running and kept[:1] == questions and before[-len(kept) :] != kept else kept
    assert [brief(one) for one in tail] == [brief(one) for one in before[len(before) - len(tail) :]]
    assert sum(map(is_interrupted, kept)) <= sum(map(is_interrupted, before))
    assert not kept or kept[0]["role"] == "user"
    if running:
        assert questions[0] in after
    elif kept:
        assert kept[0]["role"] == "user"


def brief(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != "usage"}


@given(branches())
def test_cutting_again_and_again_comes_to_an_end_with_less_each_time(made: tuple[Branch, bool]) -> None:
    branch, running = made
    for _ in range(50):
        cut = cut_of(branch, running, by_hand=True)
        if cut is None or not cut.before:
            return
        size = len(shown(branch, running))
        branch.compact(cut)
        assert len(shown(branch, running)) <= size
    raise AssertionError("there is always something to cut")


@given(branches())
def test_what_stays_is_within_what_was_to_be_kept_unless_one_exchange_alone_is_more(made: tuple[Branch, bool]) -> None:
    branch, running = made
    cut = cut_of(branch, running)
    if cut is None or cut.tokens_kept <= SMALL.keep_recent:
        return
    branch.compact(cut)
    exchanges = [one for one in shown(branch, running)[1:] if one["role"] == "user"]
    assert len(exchanges) <= 1 or running


@given(st.integers(1, 2_000_000))
def test_every_window_has_room_for_what_is_kept_and_a_summary(window: int) -> None:
    budget = Budget(window)
    assert 0 < budget.room <= max(1, window)
    assert budget.threshold <= budget.room or window < 3
    if window >= 1_000:
        assert budget.keep_recent + budget.summary_max < budget.room


texts = st.text(st.characters(codec="utf-8"), max_size=3000)
messages = st.lists(
    st.one_of(
        st.builds(lambda text: {"role": "user", "content": [{"type": "text", "text": text}]}, texts),
        st.builds(lambda text: {"role": "assistant", "content": [{"type": "text", "text": text}]}, texts),
        st.builds(
            lambda text: {"role": "toolResult", "toolCallId": "c", "toolName": "look",
                          "content": [{"type": "text", "text": text}]}, texts,
        ),
    ),
    max_size=12,
)  # fmt: skip


@given(messages, texts, st.integers(64, 6000))
def test_a_summary_without_a_model_is_bounded_and_never_empty(
    said: list[Message], previous: str, tokens_max: int
) -> None:
    names = summary.names_in(said, previous)
    text = summary.mechanical(said, previous, names=names, tokens_max=tokens_max)
    assert text.strip()
    assert text_tokens(text) <= tokens_max + 8


@given(messages, st.integers(256, 5000))
def test_parts_of_a_conversation_are_bounded(said: list[Message], tokens_max: int) -> None:
    parts = summary.chunks(said, tokens_max)
    assert len(parts) <= summary.CHUNKS_MAX
    assert all(text_tokens(part) <= tokens_max + 8 for part in parts)


@given(messages, st.integers(1, 10**6))
def test_the_providers_count_stands_for_everything_up_to_its_answer(said: list[Message], counted: int) -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "x"}], "usage": {"input": counted, "output": 3}}
    later = {"role": "user", "content": [{"type": "text", "text": "more"}]}
    estimated = sum(map(estimate_tokens, [*said, answer]))
    believed = counted + 3 if counted + 3 >= estimated // UNBELIEVABLE else estimated
    assert count_tokens([*said, answer, later]) == believed + estimate_tokens(later)
