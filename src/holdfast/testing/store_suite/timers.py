"""Timers: rows that several processes change, runs with two outcomes, wakes; and turns that give way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from holdfast.inbound.event import Route
from holdfast.inbound.timer import CRON, Timer, TimerRun, Wake, run_id
from holdfast.lane.policy import YIELDS_MAX
from holdfast.store.protocol import Store
from holdfast.testing.clock import VirtualClock
from holdfast.testing.store_suite.words import (
    OTHER,
    ROUTE,
    SESSION,
    Opens,
    accept,
    answered,
    claim_input,
    refused_input,
)

JOB = Timer("cron:job", CRON, "cli", {"message": "look"}, next_at_ms=1000)


def run_of(timer: Timer, at_ms: int, **facts: Any) -> TimerRun:
    one = TimerRun(run_id(timer.id, at_ms, 1), timer.id, at_ms, 1, "schedule", "running", at_ms)
    return replace(one, **facts)


async def made(store: Store, timer: Timer = JOB) -> Timer:
    after = await store.change_timer(None, timer, durable=True)
    assert after is not None
    return after


class TimersSuite:
    """Of all who change a timer at the same time, one does."""

    async def test_a_timer_is_there_for_every_process_and_after_a_restart(self, opens: Opens) -> None:
        here, there = opens(), opens()
        assert await made(here) == JOB
        assert await there.timers() == [JOB]
        assert await there.timers(kind="heartbeat") == []
        await here.close()
        assert await opens().timers(kind=CRON) == [JOB]

    async def test_a_timer_that_is_there_is_not_made_again(self, store: Store) -> None:
        await made(store)
        assert await store.change_timer(None, replace(JOB, spec={})) is None
        assert (await store.timers())[0].spec == JOB.spec

    async def test_of_many_processes_that_move_a_timer_on_one_does(self, opens: Opens) -> None:
        stores = [opens() for _ in range(3)]
        seen = await made(stores[0])
        on = replace(seen, next_at_ms=2000)
        moved = await asyncio.gather(
            *(stores[n % 3].change_timer(seen, on, began=run_of(seen, 1000 + n, id=f"run_{n}")) for n in range(12))
        )
        assert [one.revision for one in moved if one is not None] == [1]
        assert len(await stores[0].timer_runs()) == 1

    async def test_what_was_changed_meanwhile_is_not_removed(self, store: Store) -> None:
        seen = await made(store)
        now = await store.change_timer(seen, replace(seen, state="paused"))
        assert await store.change_timer(seen, None) is None
        assert now is not None
        assert await store.change_timer(now, None) is not None
        assert await store.timers() == []

    async def test_a_run_ends_once(self, store: Store) -> None:
        seen = await made(store)
        run = run_of(seen, 1000)
        on = await store.change_timer(seen, seen, began=run)
        assert on is not None
        assert await store.timer_runs(running=True) == [run]
        done = replace(run, state="ok", ended_at_ms=1500)
        after = await store.change_timer(on, on, ended=done)
        assert after is not None
        assert await store.change_timer(after, after, ended=replace(done, state="failed")) is None
        assert await store.timer_runs(timer=JOB.id) == [done]
        assert await store.timer_runs(running=True) == []

    async def test_skips_for_one_reason_are_one_row_until_something_else_happens(self, store: Store) -> None:
        seen = await made(store)
        for at, why in ((1, "busy"), (2, "busy"), (3, "hours"), (4, "busy")):
            skipped = run_of(seen, at, state="skipped", detail=why, began_at_ms=at, ended_at_ms=at)
            on = await store.change_timer(seen, seen, began=skipped)
            assert on is not None
            seen = on
        rows = await store.timer_runs(timer=JOB.id)
        assert [(row.detail, row.began_at_ms, row.ended_at_ms) for row in rows] == [
            ("busy", 4, 4), ("hours", 3, 3), ("busy", 1, 2),
        ]  # fmt: skip

    async def test_a_run_tells_what_became_of_its_delivery(self, store: Store) -> None:
        seen = await made(store)
        announced = await answered(store, "news", ROUTE)
        silent = await accept(store, "kept")
        for at, announce, told in ((1, None, "none"), (2, announced, "pending"), (3, silent, "pending")):
            on = await store.change_timer(seen, seen, began=run_of(seen, at, announce_id=announce))
            assert on is not None
            seen = on
            assert (await store.timer_runs(limit=1))[0].delivery == told
        [row] = await store.open_deliveries(["test"])
        started = await store.move_delivery(row, "start")
        assert started is not None
        await store.move_delivery(started, "confirm")
        await (await claim_input(store, silent)).answer()
        assert [run.delivery for run in await store.timer_runs()] == ["kept", "sent", "none"]

    async def test_a_wake_waits_until_it_is_used(self, opens: Opens) -> None:
        here, there = opens(), opens()
        seen = await made(here)
        wake = Wake("w1", JOB.id, "hook:wake", "look here", "now", 5)
        assert await here.add_wake(wake)
        assert not await there.add_wake(replace(wake, text="again"))
        assert await there.wakes() == [wake]
        assert await there.change_timer(seen, seen, used=["w1"]) is not None
        assert await here.wakes() == []

    async def test_of_more_wakes_than_anybody_can_be_told_of_the_newest_are_kept(self, store: Store) -> None:
        for n in range(205):
            await store.add_wake(Wake(f"w{n:03}", JOB.id, "hook", "", "next", n))
        kept = [wake.at_ms for wake in await store.wakes()]
        assert kept == list(range(5, 205))

    async def test_people_are_where_they_were_answered_last_and_machines_do_not_count(self, store: Store) -> None:
        assert await store.last_route(SESSION) is None
        await accept(store, "one", route=Route("test", "alice"))
        await accept(store, "two", route=Route("test", "bob"))
        await accept(store, "three", source="cron", route=Route("test", "carol"))
        await accept(store, "four", session=OTHER, route=Route("test", "alice"))
        assert await store.last_route(SESSION) == Route("test", "bob")
        assert await store.conversation_at(Route("test", "bob")) == SESSION
        assert await store.conversation_at(Route("test", "alice")) == OTHER
        assert await store.conversation_at(Route("test", "carol")) is None

    async def test_an_input_is_found_by_its_key(self, store: Store) -> None:
        input_id = await accept(store, "hello", key="k1", source="cron", account="job")
        assert await store.input_by_key("cron", "job", "k1") == input_id
        assert await store.input_by_key("cron", "other", "k1") is None

    # ── giving way ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_machine_gives_way_to_a_user_and_comes_next(self, opens: Opens) -> None:
        clock = VirtualClock()
        store = opens(clock=clock)
        machine = await accept(store, "tick", lane="heartbeat")
        await clock.advance(600)
        held = await claim_input(store, machine)
        assert await store.overtaken_by(held.owned) is None
        user = await accept(store, "hello")
        await accept(store, "another machine", lane="heartbeat")
        assert await store.overtaken_by(held.owned) == user
        await store.stop_writing(held.owned)
        await store.requeue(held.owned, "gave way", charge=False, yielded=True)
        assert (await refused_input(store, machine)).why == "not next"
        await (await claim_input(store, user)).answer()
        again = await claim_input(store, machine)
        assert (await store.input(machine)).attempts == 2
        await again.answer()

    async def test_a_machine_gives_way_so_often_and_users_never(self, store: Store) -> None:
        machine = await accept(store, "tick", lane="heartbeat")
        for _ in range(YIELDS_MAX):
            held = await claim_input(store, machine)
            user = await accept(store, "hello")
            assert await store.overtaken_by(held.owned) == user
            await store.stop_writing(held.owned)
            await store.requeue(held.owned, "gave way", charge=False, yielded=True)
            users = await claim_input(store, user)
            await accept(store, "and another", lane="main", session=OTHER)
            assert await store.overtaken_by(users.owned) is None
            await users.answer()
        held = await claim_input(store, machine)
        await accept(store, "hello")
        assert await store.overtaken_by(held.owned) is None
        await held.answer()
