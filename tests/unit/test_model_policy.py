"""Which models a turn may ask, pins, and what people are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.model.policy import (
    STICKY,
    STRICT,
    TURN_LOCAL,
    Fallback,
    Pin,
    Plan,
    auto_pin,
    fallback_after,
    notice_of,
    notice_route,
    plan_models,
)

NOW_MS = 1_800_000_000_000
CHAT, GROUP = "agent:main:slack:direct:u1", "agent:main:slack:group:g1"


def plan(
    *,
    asked: str | None = None,
    policy: str = STICKY,
    pin: Pin | None = None,
    now_ms: int = NOW_MS,
    primary: str = "a/1",
) -> Plan:
    return plan_models(asked=asked, primary=primary, fallbacks=["b/2", "c/3"], policy=policy, pin=pin, now_ms=now_ms)


def auto(model: str = "b/2", origin: str = "a/1") -> Pin:
    return Pin("p1", CHAT, model, "auto", "rate_limit", NOW_MS - 1000, NOW_MS + 1000, origin, "turn_1", NOW_MS - 1000)


USER = Pin("p2", CHAT, "u/own", "user", "chosen", NOW_MS)


@pytest.mark.promise("P8")
def test_a_users_choice_is_that_model_or_none_under_every_policy() -> None:
    for policy in (TURN_LOCAL, STICKY, STRICT):
        assert plan(policy=policy, pin=USER).chain == ("u/own",)
    assert plan(pin=replace(USER, expires_at_ms=NOW_MS)).chain == ("a/1", "b/2", "c/3")


def test_an_inputs_own_model_wins_for_its_turn_and_leaves_pins_as_they_are() -> None:
    for pin in (USER, auto()):
        mine = plan(asked="x/y", pin=pin)
        assert (mine.requested, mine.chain, mine.void) == ("x/y", ("x/y", "b/2", "c/3", "a/1"), None)


def test_an_automatic_pin_begins_with_its_model_and_keeps_the_chain() -> None:
    assert plan(pin=auto("c/3")).chain == ("c/3", "a/1", "b/2")
    assert plan(pin=auto("c/3")).requested == "a/1"


@pytest.mark.promise("P8")
def test_every_five_minutes_the_origin_is_asked_first() -> None:
    due = plan(pin=replace(auto("c/3"), expires_at_ms=NOW_MS + 10**7), now_ms=NOW_MS + 299_000)
    assert (due.chain, due.checks_origin) == (("a/1", "c/3", "b/2"), True)


@pytest.mark.parametrize(
    "void",
    [
        auto(origin="z/9"),  # the primary is another one today
        auto(model="gone/1"),  # no fallback any more
        replace(auto(), expires_at_ms=NOW_MS),
        replace(auto(), holds=False),  # its attempt came to nothing
        replace(auto(), set_at_ms=NOW_MS + 2 * 24 * 3_600_000),
    ],
)
@pytest.mark.promise("P8")
def test_an_automatic_pin_that_has_lost_its_reason_is_void(void: Pin) -> None:
    assert plan(pin=void) == Plan("a/1", ("a/1", "b/2", "c/3"), void=void)


def test_an_automatic_pin_is_void_once_pins_are_off() -> None:
    for policy in (TURN_LOCAL, STRICT):
        assert plan(policy=policy, pin=auto()).void == auto()


def test_strict_is_one_model() -> None:
    assert plan(policy=STRICT).chain == ("a/1",)
    assert plan(policy=STRICT, asked="x/y").chain == ("x/y",)


def written(
    of: Plan, *, model: str = "b/2", session: str = CHAT, lane: str = "main", policy: str = STICKY
) -> Pin | None:
    return auto_pin(
        of, pin_id="p9", session=session, lane=lane, turn="turn_9", model=model, reason="timeout", policy=policy,
        now_ms=NOW_MS,
    )  # fmt: skip


def test_a_sticky_turn_writes_a_pin_that_does_not_hold_yet() -> None:
    pin = written(plan())
    assert pin is not None
    assert (pin.model, pin.origin, pin.reason, pin.holds) == ("b/2", "a/1", "timeout", False)
    assert pin.expires_at_ms == NOW_MS + 24 * 3_600_000


def test_who_must_not_leave_a_pin_leaves_none() -> None:
    assert written(plan(), policy=TURN_LOCAL) is None
    assert written(plan(pin=USER)) is None
    assert written(plan(pin=auto())) is None
    assert written(plan(), model="a/1") is None
    for lane in ("heartbeat", "cron", "cron-nested", "hook", "subagent"):
        assert written(plan(), lane=lane) is None
    for session in (f"{CHAT}:heartbeat", "agent:main:cron:daily", "hook:gh"):
        assert written(plan(), session=session) is None


@pytest.mark.promise("P8")
def test_a_pin_without_reason_or_end_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="why"):
        Pin("p", CHAT, "b/2", "user", "", NOW_MS)
    with pytest.raises(ValueError, match="ends"):
        Pin("p", CHAT, "b/2", "auto", "timeout", NOW_MS, None, "a/1")
    with pytest.raises(ValueError, match="origin"):
        Pin("p", CHAT, "b/2", "auto", "timeout", NOW_MS, NOW_MS + 1)


def test_each_change_of_state_is_told_once() -> None:
    told: list[str | None] = []
    state: Fallback | None = None
    for active in ("a/1", "b/2", "b/2", "c/3", "a/1", "a/1"):
        after = fallback_after(state, session=CHAT, selected="a/1", active=active, reason="rate_limit", now_ms=NOW_MS)
        told.append(notice_of(state, after, "a/1"))
        state = after
    assert told == [
        None,
        "↪️ Model Fallback: b/2 (selected a/1; rate limit)",
        None,
        "↪️ Model Fallback: c/3 (selected a/1; rate limit)",
        "↪️ Model Fallback cleared: a/1 (was c/3)",
        None,
    ]
    stands_in = Fallback(CHAT, "a/1", "b/2", "timeout", NOW_MS)
    assert notice_of(stands_in, None, "b/2") is None  # somebody has chosen it since


def test_a_notice_never_goes_into_a_group_unless_configured() -> None:
    own = "slack:g1"
    assert notice_route(CHAT, own, notices="owner", configured=None) == own
    assert notice_route(GROUP, own, notices="owner", configured=None) is None
    assert notice_route(GROUP, own, notices="owner", configured="slack:boss") == "slack:boss"
    assert notice_route(GROUP, own, notices="everywhere", configured="slack:boss") == own
    assert notice_route(CHAT, own, notices="off", configured="slack:boss") is None
