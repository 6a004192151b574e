"""The rules of sub-agents: what may be spawned, with which rights, and what the parent is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.errors import InputError
from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, Parent, Refused, SpawnLimits, SpawnOrder, Standing
from holdfast.inbound.event import Route
from holdfast.session.key import parse_key
from holdfast.store.views import InputView

MAIN = "agent:main:main"
LIMITS = SpawnLimits(agents=("writer",), models=("demo/demo",))
PARENT = Parent(MAIN, input_id="in_1", turn="turn_1", nonce="n")
FREE = Standing(depth=0, rights="main", open_children=0, of_input=0)


def order(task: str = "work", parent: Parent = PARENT, limits: SpawnLimits = LIMITS, **how: Any) -> SpawnOrder:
    made = made_of(task, parent, limits, **how)
    assert isinstance(made, SpawnOrder)
    return made


def made_of(
    task: str = "work", parent: Parent = PARENT, limits: SpawnLimits = LIMITS, **how: Any
) -> SpawnOrder | Refused:
    usual: dict[str, Any] = {"key": "k", "label": None, "agent": None, "model": None, "timeout_s": None}
    return rules.make_order(parent, limits, task, **{**usual, **how})


def ended(state: str = "answered", answer: str | None = "found it", **facts: Any) -> InputView:
    return InputView("in_2", "s", "subagent", "spawn", state, 0, {"content": "work"}, answer=answer, **facts)


CHILD = Child("child_1", "agent:main:subagent:1", "work", MAIN, "in_2", "in_2", "ended", 1, "main", 60.0, 5,
              parent_input="in_1", route="test:alice")  # fmt: skip


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_is_named_by_what_asked_for_it_and_by_its_key_alone() -> None:
    first = order()
    assert order("another task", PARENT, label="x").id == first.id
    assert order(parent=replace(PARENT, turn="turn_2", nonce="m")).id == first.id, "a later attempt at the same input"
    others = [order(key="l"), order(parent=replace(PARENT, input_id="in_9"))]
    assert len({first.id, *(one.id for one in others)}) == 3
    key = parse_key(first.session)
    assert (key.kind, key.agent, key.name) == ("subagent", "main", first.id.removeprefix("child_"))


def test_what_is_left_open_is_filled_in() -> None:
    assert order("  a task\nof two lines ").label == "a task of two lines"
    assert len(order("long " * 50).label) == rules.LABEL_CHARS_MAX
    assert order(timeout_s=5).timeout_s == 5
    assert order(timeout_s=50_000).timeout_s == LIMITS.timeout_s, "never above the limit"
    assert order(agent="writer").session.startswith("agent:writer:subagent:")


@pytest.mark.parametrize("task", ["", " \n", "x" * (rules.TASK_CHARS_MAX + 1)])
def test_a_task_that_is_none_is_the_callers_fault(task: str) -> None:
    with pytest.raises(InputError):
        made_of(task)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_the_callers_fault(seconds: float) -> None:
    with pytest.raises(InputError, match="timeout_s"):
        made_of(timeout_s=seconds)


@pytest.mark.parametrize("parent", [replace(PARENT, rights="no lane"), replace(PARENT, route=Route("", "alice"))])
def test_whose_end_could_never_come_back_is_not_begun(parent: Parent) -> None:
    with pytest.raises(InputError):
        made_of(parent=parent)


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("standing", "limits", "why"),
    [
        (FREE, LIMITS, None),
        (replace(FREE, owns=False), LIMITS, "lost"),
        (replace(FREE, cancelled_by="alice"), LIMITS, "stopped"),
        (FREE, replace(LIMITS, depth_max=0), "off"),
        (replace(FREE, depth=1), LIMITS, "depth"),
        (replace(FREE, depth=1), replace(LIMITS, depth_max=2), None),
        (replace(FREE, open_children=4), LIMITS, None),
        (replace(FREE, open_children=5), LIMITS, "per_session"),
        (replace(FREE, of_input=9), LIMITS, None),
        (replace(FREE, of_input=10), LIMITS, "per_turn"),
    ],
)
def test_a_limit_is_refused_by_its_name(standing: Standing, limits: SpawnLimits, why: str | None) -> None:
    refused = rules.refusal(order(), standing, limits)
    assert (refused.why if refused is not None else None) == why


def test_who_and_what_may_be_asked_for_is_told() -> None:
    for refused, why in [(made_of(agent="stranger"), "agent"), (made_of(model="openai/gpt-5"), "model")]:
        assert isinstance(refused, Refused)
        assert refused.why == why
    assert isinstance(made_of(model="openai/gpt-5", limits=SpawnLimits()), SpawnOrder)


@pytest.mark.parametrize("how", [{"agent": "writer"}, {"model": "demo/demo"}])
def test_a_machine_asks_for_no_more_than_it_has(how: dict[str, Any]) -> None:
    asked = order(**how)
    assert rules.refusal(asked, FREE, LIMITS) is None
    refused = rules.refusal(asked, replace(FREE, rights="hook"), LIMITS)
    assert refused is not None
    assert refused.why == "rights"


@pytest.mark.parametrize(
    ("rights", "lane"),
    [("main", "subagent"), ("subagent", "subagent"), ("hook", "hook"), ("cron", "cron"), ("heartbeat", "heartbeat"),
     ("a lane of ours", "a lane of ours")],
)  # fmt: skip
def test_an_end_waits_in_no_better_lane_than_its_parent_came_by(rights: str, lane: str) -> None:
    assert rules.end_lane(rights) == lane


def test_a_task_goes_nowhere_and_says_whose_rights_it_has() -> None:
    event = rules.task_event(order(parent=replace(PARENT, route=Route("test", "alice"), model="demo/x")), FREE, LIMITS)
    assert (event.route, event.waits, event.lane, event.model) == (None, True, "subagent", "demo/x")
    assert "no person" not in event.payload["system"]
    machine = rules.task_event(order(), replace(FREE, rights="hook"), LIMITS)
    assert "lane hook" in machine.payload["system"]
    view = InputView("in_3", machine.session, "subagent", "spawn", "queued", 0, machine.payload)
    assert rules.rights_of(view) == "hook"
    assert rules.rights_of(replace(view, source="http:token", lane="hook")) == "hook"
    assert rules.rights_of(replace(view, source="http:token", payload={"content": "x", "rights": "main"},
                                   lane="hook")) == "hook", "nobody gives rights to himself"  # fmt: skip


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("closed", "task", "is_over", "state"),
    [
        (None, "queued", False, "queued"),
        (None, "running", False, "running"),
        (None, "answered", False, "running"),  # children of its own are at work
        (None, "answered", True, "ended"),
        (None, "failed", True, "ended"),
        ("announced", "answered", True, "announced"),
        ("stopped", "cancelled", True, "stopped"),
    ],
)
def test_its_inputs_tell_the_state_of_a_child(closed: str | None, task: str, is_over: bool, state: str) -> None:
    assert rules.state_of(closed, task, is_over=is_over) == state


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (ended(), "has ended. What follows is its result, not a message of a user.]\n\nfound it"),
        (ended("superseded", "found it"), "found it"),
        (ended(answer=""), "(it said nothing)"),
        (ended("failed", None, error="ProviderError", detail="busy"), "has failed: ProviderError: busy]"),
        (ended("cancelled", None, detail="cancelled by alice"), "before it had a result: cancelled by alice]"),
        (ended("cancelled", None, detail=f"cancelled by {rules.TIMED_OUT} (60 s)"), "it had taken longer than 60 s]"),
    ],
)
def test_the_parent_is_told_how_it_ended(last: InputView, told: str) -> None:
    text = rules.end_text(CHILD, last)
    assert text.startswith("[Sub-agent 'work' (child_1) ")
    assert text.endswith(told)


def test_a_long_result_is_cut_and_says_where_it_stands() -> None:
    text = rules.end_text(CHILD, ended(answer="x" * 60_000))
    assert len(text) < 51_000
    assert text.endswith("[10000 characters more; the whole result is in session agent:main:subagent:1]")


def test_an_end_is_the_same_event_whoever_makes_it() -> None:
    event = rules.end_event(CHILD, ended())
    assert (event.source, event.key, event.session, event.route) == (
        "subagent",
        "child_1",
        MAIN,
        Route("test", "alice"),
    )
    assert event == rules.end_event(CHILD, ended())
    assert "context" not in event.payload
    fresh = rules.end_event(replace(CHILD, fresh=True), ended(), ("in_1",))
    assert (fresh.payload["context"], fresh.payload["follows"]) == ("fresh", ["in_1"])
    view = InputView("in_3", MAIN, "subagent", "subagent", "queued", 0, event.payload)
    assert rules.end_in(view) == {"id": "child_1", "label": "work", "session": CHILD.session, "spawned_at_ms": 5}
    assert rules.end_in(replace(view, source="http")) is None
