"""What a provider has in its cache is the beginning of the last request: the next one begins with the same messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.context.budget import estimate_tokens
from holdfast.context.plan import Plan, fit, plan
from holdfast.context.prune import prune
from holdfast.context.repair import INTERRUPTED, Message
from holdfast.model.client import ModelRequest, ToolSpec
from holdfast.session import entries
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.runner import AgentSettings
from holdfast.turn.tools import Tool, ToolCall
from tests.property.histories import STEP, WORDS, History

QUIET = st.sampled_from(["mirror", "label", "audit"])
"""What others may write without a word to the model."""
TURN = st.fixed_dictionaries(
    {
        "before": st.lists(QUIET, max_size=2),
        "said": WORDS,
        "steps": st.lists(STEP, max_size=3),
        "steered": st.booleans(),
        "pause_s": st.sampled_from([1, 1, 1, 400]),
    }
)


@settings(max_examples=80)
@given(st.lists(TURN, min_size=2, max_size=6), st.booleans())
def test_each_request_begins_with_the_one_before_it_unless_a_pause_has_emptied_the_cache(
    turns: list[dict[str, Any]], is_pruned: bool
) -> None:
    history = History()
    before: list[Message] = []

    def request(inputs: list[str], number: int, *, after_pause: bool) -> None:
        nonlocal before
        planned = plan(history.lines, inputs=inputs, turn=f"t{number}")
        now = prune(planned.messages, own=planned.own, ttl_s=300.0 if is_pruned else 0.0)
        if not after_pause:
            assert now[: len(before)] == before
        before = now

    for number, turn in enumerate(turns):
        history.begin(turn, number)
        inputs = [f"in_{number}"]
        request(inputs, number, after_pause=is_pruned and turn["pause_s"] > 300)
        for how in turn["steps"]:
            history.step(number, "call" if how == "no result" else how, "anthropic/model")
            request(inputs, number, after_pause=False)
        if turn["steered"]:
            inputs.append(history.steer(number))
            request(inputs, number, after_pause=False)
        history.own(number, entries.assistant("yes", model="anthropic/model"))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 400), min_size=30, max_size=60))
def test_what_is_left_out_for_want_of_room_moves_in_steps(lengths: list[int]) -> None:
    """The window holds ten to twenty exchanges; it fills a quarter between two moves."""
    window, messages, begins = 2_000, list[Message](), list[int]()
    for length in lengths:
        messages.append({"role": "user", "content": [{"type": "text", "text": "q" * length}]})
        fitted = fit(Plan(messages, own=1), window)
        assert fitted.tokens <= window
        assert fitted.tokens == sum(map(estimate_tokens, fitted.messages))
        begins.append(fitted.dropped)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": "a" * length}]})
    assert begins == sorted(begins)
    said = sum(map(estimate_tokens, messages))
    assert len(set(begins)) <= 1 + -(-said // (window // 4))


async def test_requests_of_a_gateway_begin_with_the_ones_before_them(tmp_path: Path) -> None:
    """Two tools' results, a failed tool, times of day that pass, and a system prompt from files."""
    """Two tools' results, a failed tool, times of day that pass, and a system prompt from files."""
    space = tmp_path / "workspace"
    space.mkdir()
    (space / "AGENTS.md").write_text("be brief")

    async def look(_: ToolCall) -> str:
        return "found " * 2_000

    async def fail(_: ToolCall) -> str:
        raise ValueError("no")

    nothing = {"type": "object", "properties": {}}
    tools = [Tool(ToolSpec("look", "Looks.", nothing), look), Tool(ToolSpec("fail", "Fails.", nothing), fail)]
    steps: list[Reply | str] = [Reply(calls=[("look", {})]), Reply(calls=[("look", {}), ("fail", {})]), "there it is"]

    def answers(_: ModelRequest) -> Reply | str:
        return steps[(len(model.requests) - 1) % len(steps)]

    model = ScriptedModel(otherwise=answers)
    agent = AgentSettings(model="scripted/model", system="You are Ada.", workspace=str(space))
    async with World(tmp_path, model=model, agent=agent, tools=tools) as world:
        for number in range(5):
            view = await world.settled(await world.inbound("agent:main:main", f"number {number}"))
            assert view.state == "answered"
            await world.clock.advance(60)
    assert len(model.requests) == 15
    for one, another in zip(model.requests, model.requests[1:], strict=False):
        assert another.messages[: len(one.messages)] == one.messages
        assert (another.system, another.tools) == (one.system, one.tools)
        assert INTERRUPTED not in str(another.messages)
