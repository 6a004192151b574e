"""Sub-agents: made once and within their limits, whoever asks; their ends told once; stopped with their parents."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from holdfast.inbound import child as rules
from holdfast.inbound.child import Child, Parent, Refused, SpawnLimits, SpawnOrder
from holdfast.inbound.event import Route
from holdfast.outbox.message import Outcome
from holdfast.store.protocol import Store
from holdfast.testing.store_suite.words import SESSION, Opens, accept, claim, claim_input

LIMITS = SpawnLimits(per_session_max=3)


def order_of(key: str = "k", parent: Parent | None = None, **facts: Any) -> SpawnOrder:
    asked: dict[str, Any] = {"label": None, "agent": None, "model": None, "timeout_s": None, **facts}
    made = rules.make_order(parent or Parent(SESSION), LIMITS, f"task {key}", key=key, **asked)
    assert isinstance(made, SpawnOrder)
    return made


async def spawned(store: Store, key: str = "k", parent: Parent | None = None) -> Child:
    made = await store.spawn(order_of(key, parent), LIMITS)
    assert isinstance(made, Child), made
    return made


async def as_it_is(store: Store, child: Child) -> Child:
    now = await store.child(child.id)
    assert now is not None
    return now


class ChildrenSuite:
    """A child is there, with its input, in one commit or not at all."""

    async def test_a_child_is_there_with_its_input_for_every_process_and_after_a_restart(self, opens: Opens) -> None:
        here, there = opens(), opens()
        child = await spawned(here, parent=Parent(SESSION, route=Route("test", "user")))
        assert (child.state, child.parent_session, child.route) == ("queued", SESSION, "test:user")
        assert await there.children(session=SESSION) == await there.children(only_open=True) == [child]
        view = await there.input(child.input_id)
        assert (view.session, view.lane, view.source, view.route) == (child.session, "subagent", "spawn", None)
        await here.close()
        assert await opens().child(child.id) == child
        assert await there.child("child_0") is None

    async def test_of_many_processes_that_spawn_the_same_one_does(self, opens: Opens) -> None:
        stores = [opens() for _ in range(3)]
        made = await asyncio.gather(*(stores[n % 3].spawn(order_of(), LIMITS) for n in range(9)))
        assert len({one.id for one in made if isinstance(one, Child)}) == 1
        assert len(await stores[0].inputs(session=None, state=None, limit=100)) == 1

    async def test_of_many_processes_that_spawn_at_once_no_more_do_than_may(self, opens: Opens) -> None:
        stores = [opens() for _ in range(3)]
        made = await asyncio.gather(*(stores[n % 3].spawn(order_of(str(n)), LIMITS) for n in range(9)))
        assert sum(isinstance(one, Child) for one in made) == LIMITS.per_session_max
        assert {one.why for one in made if isinstance(one, Refused)} == {"per_session"}
        assert len(await stores[0].sessions(prefix="", limit=100)) == LIMITS.per_session_max, "no trace of the others"

    async def test_only_the_turn_that_owns_its_session_spawns_in_its_name(self, store: Store) -> None:
        held = await claim_input(store, await accept(store, "hello"))
        mine = Parent(SESSION, turn=held.turn, nonce=held.epoch.nonce)
        refused = await store.spawn(order_of(parent=replace(mine, nonce="another")), LIMITS)
        assert isinstance(refused, Refused)
        assert refused.why == "lost"
        assert isinstance(await store.spawn(order_of(parent=mine), LIMITS), Child)
        await held.answer()
        late = await store.spawn(order_of("late", mine), LIMITS)
        assert isinstance(late, Refused)
        assert late.why == "lost"

    async def test_its_inputs_tell_its_state_and_its_end_is_told_once(self, store: Store) -> None:
        child = await spawned(store)
        held = await claim_input(store, child.input_id)
        assert (await as_it_is(store, child)).state == "running"
        assert await store.last_word(child.input_id) is None
        await held.answer("found it")
        over = await as_it_is(store, child)
        assert (over.state, over.last_input) == ("ended", child.input_id)
        told = await store.accept(rules.end_event(over, await store.input(over.last_input)))
        again = await store.accept(rules.end_event(over, await store.input(over.last_input)))
        assert told.input_id == again.input_id  # type: ignore[union-attr]
        assert await store.close_child(over, "announce", told.input_id)  # type: ignore[union-attr]
        assert not await store.close_child(over, "hush")
        closed = await as_it_is(store, child)
        assert (closed.state, closed.outcome, closed.is_open) == ("announced", "answered", False)
        assert await store.children(only_open=True) == []

    async def test_work_is_over_when_that_of_its_children_is_and_the_newest_has_the_last_word(
        self, store: Store
    ) -> None:
        first = await accept(store, "hello")
        child = await spawned(store, parent=Parent(SESSION, input_id=first))
        await (await claim_input(store, first)).answer()
        assert await store.last_word(first) is None
        await (await claim_input(store, child.input_id)).answer()
        assert await store.last_word(first) is None, "its end is not told yet"
        over = await as_it_is(store, child)
        told = await accept(store, "the end of it", source=rules.END, key=child.id)
        assert await store.close_child(over, "announce", told)
        assert await store.last_word(first) is None
        await (await claim_input(store, told)).answer()
        assert await store.last_word(first) == told
        other = await accept(store, "something else")
        await (await claim_input(store, other)).answer()
        assert await store.last_word(other) == other

    async def test_stopping_a_parent_stops_its_children_and_theirs(self, opens: Opens) -> None:
        here, there = opens(), opens()
        first = await accept(here, "hello")
        held = await claim_input(here, first)
        child = await spawned(here, parent=Parent(SESSION, input_id=first))
        deep = SpawnLimits(depth_max=2)
        inner = await here.spawn(order_of("inner", Parent(child.session, input_id=child.input_id)), deep)
        assert isinstance(inner, Child)
        elsewhere = await spawned(here, "elsewhere", Parent("agent:main:another"))
        working = await claim_input(here, inner.input_id)
        assert await there.request_cancel(first, "alice") == "requested"
        assert set(await here.cancel_requests()) == {first, inner.input_id}
        assert [(await here.input(one.input_id)).state for one in (child, inner, elsewhere)] == [
            "cancelled", "running", "queued",
        ]  # fmt: skip
        late = await here.spawn(order_of("late", Parent(SESSION, input_id=first)), LIMITS)
        assert isinstance(late, Refused)
        assert late.why == "stopped"
        await here.settle(working.owned, Outcome("cancelled", detail="asked"), "cancelled", None, [])
        await held.answer()
        for one in (inner, child):
            over = await as_it_is(here, one)
            assert (over.state, over.stop_by is not None) == ("ended", True)
            assert await here.close_child(over, "hush")
            assert (await as_it_is(here, one)).state == "stopped"

    async def test_stopping_a_session_again_says_the_same(self, store: Store) -> None:
        child = await spawned(store)
        assert await store.stop_children(SESSION, "/stop") == [child.id]
        assert await store.close_child(await as_it_is(store, child), "hush")
        assert await store.stop_children(SESSION, "/stop") == [child.id]
        assert await store.stop_children(SESSION, "another /stop") == []

    async def test_a_child_that_is_stopped_by_itself_is_still_to_be_told_of(self, store: Store) -> None:
        child = await spawned(store)
        assert await store.cancel_child(child.id, "alice") == "requested"
        over = await as_it_is(store, child)
        assert (over.state, over.stop_by) == ("ended", None)
        assert await store.cancel_child(child.id, "alice") == "already ended"

    async def test_a_child_that_was_put_away_is_left_out_of_lists_and_kept(self, store: Store) -> None:
        child = await spawned(store)
        await (await claim(store)).done()
        await store.cancel_child(child.id, "alice")
        assert await store.archive_children(store.now_ms() + 1) == 0, "its parent has still to hear of it"
        assert await store.close_child(await as_it_is(store, child), "announce", None)
        assert await store.archive_children(0) == 0
        assert await store.archive_children(store.now_ms() + 1) == 1
        assert [view.key for view in await store.sessions(prefix="", limit=10)] == [SESSION]
        assert len(await store.sessions(prefix="", limit=10, archived=True)) == 2
        assert (await as_it_is(store, child)).archived_at_ms is not None
