"""What is kept from earlier requests changes nothing of what a provider is sent, whatever happens to a session."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings

from holdfast.context.conversions import LINE_BYTES_MAX, PROVIDERS_MAX, AllConversions, Conversions
from holdfast.context.plan import plan
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.pydantic_messages import to_model_messages
from holdfast.session import entries
from tests.property.histories import HISTORY, History

TARGETS = {
    "anthropic": ModelTarget("anthropic", "claude-sonnet-4-5", catalog.ANTHROPIC),
    "openai": ModelTarget("openai", "gpt-4o", catalog.OPENAI),
}


def plainly(value: Any) -> Any:
    """Without the times at which objects were made, which nobody is sent."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value) if one.name not in ("timestamp", "run_id")]
        return (type(value).__name__, {name: plainly(getattr(value, name)) for name in names})
    return [plainly(one) for one in value] if isinstance(value, list) else value


@settings(max_examples=60)
@given(HISTORY)
def test_a_request_made_of_what_was_kept_is_the_request_made_anew(turns: list[dict[str, Any]]) -> None:
    history, kept = History(), Conversions()

    def compare(number: int, provider: str, inputs: list[str]) -> None:
        cached = plan(history.lines, inputs=inputs, turn=f"t{number}", kept=kept)
        assert cached == plan(history.lines, inputs=inputs, turn=f"t{number}")
        target = TARGETS[provider]
        sent = to_model_messages(cached.messages, target, provider, kept)
        assert plainly(sent) == plainly(to_model_messages(cached.messages, target, provider))

    for number, turn in enumerate(turns):
        history.begin(turn, number)
        inputs = [f"in_{number}"]
        for how in turn["steps"]:
            compare(number, turn["provider"], inputs)
            history.step(number, how, f"{turn['provider']}/model")
        if turn["steered"]:
            inputs.append(history.steer(number))
        compare(number, turn["provider"], inputs)
        compare(number, "openai", inputs)
        history.own(number, entries.assistant(turn["answer"] or "yes", model=f"{turn['provider']}/model"))


def test_a_second_request_makes_only_what_is_new() -> None:
    history, kept = History(), Conversions()
    for number in range(20):
        history.add(entries.user(f"question {number}"))
        history.add(entries.assistant(f"answer {number}", model="openai/m"))
    first = to_model_messages(plan(history.lines, kept=kept).messages, TARGETS["openai"], "openai", kept)
    assert kept.made == 40
    history.add(entries.user("one more"))
    second = to_model_messages(plan(history.lines, kept=kept).messages, TARGETS["openai"], "openai", kept)
    assert kept.made == 41
    assert all(one is another for one, another in zip(first, second, strict=False))


def test_what_a_compaction_puts_out_of_sight_is_forgotten() -> None:
    history, kept = History(), Conversions()
    for number in range(20):
        history.add(entries.user(f"question {number}"))
    plan(history.lines, kept=kept)
    before = kept.bytes
    history.add(entries.compaction("in short", history.lines[-1].id or ""))
    plan(history.lines, kept=kept)
    assert kept.bytes < before / 10


def test_long_lines_and_further_providers_are_made_anew() -> None:
    history, kept = History(), Conversions()
    history.add(entries.user("x" * LINE_BYTES_MAX))
    plan(history.lines, kept=kept)
    messages = plan(history.lines, kept=kept).messages
    assert (kept.made, kept.bytes) == (2, 0)
    for number in range(PROVIDERS_MAX + 2):
        kept.converted(messages, number, lambda _, message: message)
    assert kept.providers == list(range(2, PROVIDERS_MAX + 2))


def test_sessions_that_were_used_long_ago_make_room_and_a_lost_one_is_forgotten() -> None:
    history = History()
    history.add(entries.user("hello"))
    size = len(history.lines[0].raw)
    every = AllConversions(bytes_max=3 * size)
    for name in "abcdef":
        plan(history.lines, kept=every.of(name))
    assert 0 < len(every) <= 5
    assert every.of("f").bytes == size
    every.forget("f")
    assert every.of("f").bytes == 0


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_what_is_kept_is_not_changed_when_neighbouring_requests_are_joined(name: str) -> None:
    history, kept = History(), Conversions()
    history.add(entries.user("one"))
    history.add(entries.user("two"))
    sent = [to_model_messages(plan(history.lines, kept=kept).messages, TARGETS[name], name, kept) for _ in range(3)]
    assert [len(request[0].parts) for request in sent] == [2, 2, 2]
