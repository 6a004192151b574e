"""Routing, freshness and retention: whatever the rules, the clocks and the sizes, what their pages promise holds."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.inbound.freshness import ResetPolicy, why_anew
from holdfast.inbound.route import CONDITIONS, Binding, Conversation, DmScope, Routed, Rules, check, route
from holdfast.inbound.schedule import zone_of
from holdfast.session.key import KEY_BYTES_MAX, parse_key, type_of
from holdfast.session.retention import SPARED_MS, Kept, Limits, plan
from holdfast.session.retention import Conversation as Live

# ── routing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

names = st.sampled_from(["a", "b", "a:b", "thread:x", "a:thread:b", "x:heartbeat", "a/b", "%", "U1", "é", ":thread:"])
conversations = st.builds(
    Conversation,
    channel=st.sampled_from(["slack", "discord"]),
    kind=st.sampled_from(["direct", "group", "channel"]),
    peer=names,
    account=st.sampled_from(["", "one", "two/x"]),
    thread=st.none() | names,
    guild=st.sampled_from([None, "g1", "g2"]),
    team=st.sampled_from([None, "t1"]),
)
scopes = st.sampled_from(["main", "per-peer", "per-channel-peer", "per-account-channel-peer"])


@st.composite
def bindings(draw: st.DrawFn) -> tuple[Binding, ...]:
    """Up to eight that differ in what they ask for, each of which some conversation meets."""
    found: dict[tuple[tuple[str, str], ...], Binding] = {}
    for number in range(draw(st.integers(0, 8))):
        where = draw(conversations)
        asked = draw(st.sets(st.sampled_from(CONDITIONS), min_size=1))
        conditions = {name: getattr(where, name) for name in asked}
        one = Binding(f"b{number}", f"agent{number}", **conditions)
        if one.conditions:
            found.setdefault(tuple(one.conditions.items()), one)
    return tuple(found.values())


@given(where=conversations, found=bindings(), scope=scopes, seed=st.integers(0, 99))
def test_the_most_specific_binding_wins_in_whatever_order_they_stand(
    where: Conversation, found: tuple[Binding, ...], scope: DmScope, seed: int
) -> None:
    rules = Rules(found, dm_scope=scope)
    routed = route(where, rules)
    shuffled = list(found)
    Random(seed).shuffle(shuffled)
    assert route(where, Rules(tuple(shuffled), dm_scope=scope)) == routed
    meeting = [one for one in found if one.holds_for(where)]
    if not meeting:
        assert (routed.binding, routed.agent) == (None, "main")
        return
    [chosen] = [one for one in meeting if one.name == routed.binding]
    assert routed.agent == chosen.agent
    for other in meeting:  # whoever asks for all that the winner does and more would have won
        assert not (set(other.conditions) > set(chosen.conditions))


@given(one=conversations, other=conversations, scope=scopes)
def test_two_conversations_never_share_a_key(one: Conversation, other: Conversation, scope: DmScope) -> None:
    """But for what the key does not name: the server a channel is in, and the account where the scope leaves it out."""

    def what_counts(where: Conversation) -> tuple[str | None, ...]:
        is_apart = scope == "per-account-channel-peer" and where.kind == "direct"
        return (where.channel, where.kind, where.peer, where.thread, where.account if is_apart else None)

    rules = Rules(dm_scope=scope)
    same = route(one, rules).key == route(other, rules).key
    assert same == (what_counts(one) == what_counts(other))


@given(where=conversations, scope=scopes)
def test_a_key_says_again_what_it_was_made_of(where: Conversation, scope: DmScope) -> None:
    routed = route(where, Rules(dm_scope=scope))
    parsed = parse_key(routed.key)
    assert (parsed.kind, parsed.agent, parsed.channel, parsed.chat) == ("chat", "main", where.channel, where.kind)
    assert not parsed.heartbeat
    assert (parsed.thread is None) == (where.thread is None)
    assert type_of(routed.key) == (
        "thread" if where.thread is not None else "direct" if where.kind == "direct" else "group"
    )


def test_linked_identities_are_at_home_in_one_session_and_keep_their_keys() -> None:
    rules = Rules(identities={"alice": ("slack:U1", "discord:42")})
    at_slack = route(Conversation("slack", "direct", "U1"), rules)
    at_discord = route(Conversation("discord", "direct", "42"), rules)
    assert at_slack == Routed("main", "agent:main:slack:direct:U1", None, None, "alice")
    assert at_discord == Routed(
        "main", "agent:main:discord:direct:42", "agent:main:slack:direct:U1", None, "alice"
    )  # fmt: skip
    somebody = route(Conversation("discord", "direct", "U1"), rules)  # the same name elsewhere is somebody else
    assert (somebody.home, somebody.person) == (None, None)


def test_with_the_scope_main_all_direct_messages_share_the_main_session_and_nothing_else_does() -> None:
    rules = Rules(dm_scopes={"coder": "main"}, bindings=(Binding("b", "coder", channel="slack"),))
    assert route(Conversation("slack", "direct", "U1"), rules).home == "agent:coder:main"
    assert route(Conversation("slack", "channel", "C1"), rules).home is None
    assert route(Conversation("slack", "direct", "U1", thread="7"), rules).home is None
    assert route(Conversation("discord", "direct", "42"), rules).home is None


@pytest.mark.parametrize("channel", ["", "a:b", "cron", "hook", "main"])
def test_a_channel_that_no_key_can_name_is_refused(channel: str) -> None:
    with pytest.raises(InputError, match="session key"):
        route(Conversation(channel, "direct", "U1"), Rules())


def test_a_peer_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="over the limit"):
        route(Conversation("slack", "direct", "U" * KEY_BYTES_MAX), Rules())


def test_what_cannot_decide_is_a_fault_with_its_path() -> None:
    rules = Rules(
        bindings=(
            Binding("one", "coder", channel="slack"),
            Binding("two", "main", channel="slack"),
            Binding("three", "nobody", peer="U1"),
            Binding("four", "main"),
            Binding("five", "main", channel="slack", thread="7"),
        ),
        identities={"alice": ("slack:U1",), "bob": ("slack:U1", "U2"), "eve": ()},
    )
    found = check(rules, ["coder"])
    assert [fault.split(":")[0] for fault in found] == [
        "bindings.two", "bindings.three.agent", "bindings.three.channel", "bindings.four", "bindings.five.peer",
        "identities.bob", "identities.bob", "identities.eve",
    ]  # fmt: skip


# ── freshness ────────────────────────────────────────────────────────────────────────────────────────────────────────

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"]
moments = st.datetimes(datetime(2015, 1, 1), datetime(2034, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
pauses = st.timedeltas(timedelta(0), timedelta(days=9))
policies = st.builds(
    ResetPolicy,
    daily_at=st.none() | st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda at: f"{at[0]:02}:{at[1]:02}"),
    timezone=st.sampled_from(ZONES),
    idle_s=st.sampled_from([0, 60, 3600, 100_000]),
)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@given(policy=policies, last=moments, pause=pauses)
def test_a_day_later_a_daily_conversation_has_begun_anew_and_an_hour_after_it_has_it_goes_on(
    policy: ResetPolicy, last: datetime, pause: timedelta
) -> None:
    now = last + pause
    why = why_anew(ms(last), ms(now), policy)
    if policy.daily_at is not None and pause > timedelta(hours=26):  # the longest day, clocks and all
        assert why == "daily"
    if policy.idle_s and pause.total_seconds() >= policy.idle_s:
        assert why is not None
    if why is not None and pause:
        assert not policy.is_never
    if policy.is_never:
        assert why is None


@given(policy=policies, last=moments, pause=pauses, more=pauses)
def test_waiting_longer_never_makes_a_stale_conversation_fresh(
    policy: ResetPolicy, last: datetime, pause: timedelta, more: timedelta
) -> None:
    if why_anew(ms(last), ms(last + pause), policy) is not None:
        assert why_anew(ms(last), ms(last + pause + more), policy) is not None


@given(policy=policies, start=moments, gaps=st.lists(st.timedeltas(timedelta(0), timedelta(hours=20)), max_size=30))
def test_a_conversation_begins_anew_at_most_once_a_day_if_it_is_daily_alone(
    policy: ResetPolicy, start: datetime, gaps: list[timedelta]
) -> None:
    """The hour of the day comes once on each local day, also where clocks change."""
    if policy.daily_at is None:
        return
    daily = ResetPolicy(policy.daily_at, policy.timezone)
    at, days = start, Counter[object]()
    for gap in gaps:
        before, at = at, at + gap
        if why_anew(ms(before), ms(at), daily) == "daily":
            local = at.astimezone(zone_of(policy.timezone))
            hour, minute = map(int, policy.daily_at.split(":"))
            is_before_hour = (local.hour, local.minute) < (hour, minute)
            days[(local - timedelta(days=1)).date() if is_before_hour else local.date()] += 1
    assert all(count == 1 for count in days.values()), days


@given(policy=policies, last=moments, back=pauses)
def test_a_clock_that_was_set_back_forgets_nothing(policy: ResetPolicy, last: datetime, back: timedelta) -> None:
    assert why_anew(ms(last), ms(last - back), policy) is None
    assert why_anew(None, ms(last), policy) is None


def test_an_hour_that_the_clocks_jump_over_begins_the_day_at_the_end_of_the_jump() -> None:
    policy = ResetPolicy("02:30", "Europe/Berlin")
    before, after = datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert why_anew(ms(before) - 60_000, ms(before), policy) is None
    assert why_anew(ms(before), ms(after), policy) == "daily"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("agent:main:main", "direct"),
        ("agent:main:slack:direct:U1", "direct"),
        ("agent:main:slack:channel:C1", "group"),
        ("agent:main:slack:channel:C1:thread:7", "thread"),
        ("agent:main:cron:report", "machine"),
        ("agent:main:main:heartbeat", "machine"),
        ("hook:ci", "machine"),
        ("agent:main:subagent:c1", "machine"),
        ("my own key", "direct"),
    ],
)
def test_the_type_of_a_session_is_read_off_its_key(key: str, expected: str) -> None:
    assert type_of(key) == expected


# ── retention ────────────────────────────────────────────────────────────────────────────────────────────────────────

NOW = 1_800_000_000_000
DAY = 86_400_000
ages = st.integers(-2 * DAY, 200 * DAY)
sizes = st.integers(0, 1000)
lives = st.lists(
    st.builds(
        lambda age, size, busy, machine: (age, size, busy, machine),
        ages, sizes, st.sampled_from(["", "", "an input waits"]), st.booleans(),
    ),
    max_size=12,
).map(
    lambda found: [
        Live(f"t{n}", NOW - age, size, busy, machine, is_empty=size == 0)
        for n, (age, size, busy, machine) in enumerate(found)
    ]
)  # fmt: skip
kepts = st.lists(st.tuples(ages, sizes), max_size=12).map(
    lambda found: [Kept(f"a{n}", f"t{n}", NOW - age, size) for n, (age, size) in enumerate(found)]
)
limits = st.builds(
    Limits,
    archive_after_ms=st.sampled_from([0, 1, 30 * DAY]),
    sessions_max=st.sampled_from([0, 1, 5]),
    delete_after_ms=st.sampled_from([0, 90 * DAY]),
    machine_bytes_max=st.sampled_from([0, 500]),
    bytes_max=st.sampled_from([0, 100, 1500, 100_000]),
    bytes_low=st.sampled_from([0, 80, 1200]),
)


def carried_out(live: list[Live], kept: list[Kept], found: Limits) -> tuple[list[Live], list[Kept]]:
    by_id, archives = {one.id: one for one in live}, {one.id: one for one in kept}
    for step in plan(live, kept, found, NOW).steps:
        if step.what == "delete":
            del archives[step.id]
            continue
        one = by_id[step.id]
        by_id[step.id] = Live(one.id, one.used_at_ms, 0, one.busy, one.is_machine, is_empty=True)
        if step.what == "archive":
            archives[f"new {step.id}"] = Kept(f"new {step.id}", step.id, NOW, one.bytes)
    return list(by_id.values()), list(archives.values())


@given(live=lives, kept=kepts, found=limits)
def test_nothing_that_is_in_use_goes_and_each_thing_goes_once(
    live: list[Live], kept: list[Kept], found: Limits
) -> None:
    steps = plan(live, kept, found, NOW).steps
    assert max(Counter(step.id for step in steps).values(), default=1) == 1
    by_id = {one.id: one for one in live}
    for step in steps:
        if step.what != "delete":
            one = by_id[step.id]
            assert not one.busy
            assert not one.is_empty
            if step.why == "count":
                assert NOW - one.used_at_ms >= SPARED_MS


@given(live=lives, kept=kepts, found=limits)
def test_what_was_carried_out_leaves_nothing_to_do(live: list[Live], kept: list[Kept], found: Limits) -> None:
    left, archives = carried_out(live, kept, found)
    assert plan(left, archives, found, NOW).steps == ()


@given(live=lives, kept=kepts, found=limits)
def test_afterwards_the_limits_hold_but_for_what_is_told(live: list[Live], kept: list[Kept], found: Limits) -> None:
    told = plan(live, kept, found, NOW)
    left, archives = carried_out(live, kept, found)
    total = sum(one.bytes for one in left) + sum(one.bytes for one in archives)
    if found.bytes_max:
        assert total <= found.bytes_max + told.short_bytes
        assert told.short_bytes == max(0, total - found.bytes_max)
    if found.sessions_max:
        assert sum(not one.is_empty for one in left) <= found.sessions_max + told.surplus
    if found.delete_after_ms:
        assert all(NOW - one.at_ms < found.delete_after_ms for one in archives)
    if found.archive_after_ms:
        idle = [one for one in left if not one.is_empty and NOW - one.used_at_ms >= found.archive_after_ms]
        assert all(one.busy for one in idle)


@given(live=lives, kept=kepts, found=limits)
def test_the_oldest_goes_first(live: list[Live], kept: list[Kept], found: Limits) -> None:
    """For the disk: archives before conversations, and within each the oldest; for the number: the longest unused."""
    steps = plan(live, kept, found, NOW).steps
    disk = [step for step in steps if step.why == "disk"]
    kinds = [step.what for step in disk]
    assert kinds == sorted(kinds)  # "delete" before "discard"
    gone = {step.id for step in steps}
    deleted = [one for one in kept if one.id in gone]
    stayed = [one for one in kept if one.id not in gone]
    if deleted and stayed:
        assert max(min(one.at_ms, NOW) for one in deleted) <= min(min(one.at_ms, NOW) for one in stayed)
    counted = {step.id for step in steps if step.why == "count"}
    spare = [one for one in live if one.id not in gone and not one.busy and not one.is_empty]
    for one in live:
        if one.id in counted:
            assert all(min(one.used_at_ms, NOW) <= min(other.used_at_ms, NOW) for other in spare)


@given(live=lives, kept=kepts)
def test_without_limits_nothing_goes(live: list[Live], kept: list[Kept]) -> None:
    assert plan(live, kept, Limits(), NOW).steps == ()
