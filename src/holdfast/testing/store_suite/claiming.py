"""Who owns a session: claims, waits, dead and lapsed owners."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import OwnershipLostError, SessionBusyError, SessionTakeoverError, WaitRingError
from holdfast.lane.policy import LaneLimits
from holdfast.session import entries as made
from holdfast.store.protocol import Store
from holdfast.testing.clock import VirtualClock
from holdfast.testing.holder import holding, kill
from holdfast.testing.store_suite.words import (
    OTHER,
    ROUTE,
    SESSION,
    WAIT_S,
    Backend,
    Opens,
    accept,
    claim,
    claim_input,
    owning,
    recovered,
    refused_input,
    said,
    while_time_passes,
)


class ClaimingSuite:
    """One owner at a time, whatever happens to it."""

    # ── claiming ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_session_has_one_owner(self, opens: Opens) -> None:
        here, there = opens(), opens()
        async with owning(here):
            for store in (here, there):
                with pytest.raises(SessionBusyError):
                    await claim(store, wait_s=0.05)
        async with owning(there):
            pass

    async def test_many_claimers_own_a_session_one_after_another_with_growing_epochs(self, opens: Opens) -> None:
        stores = [opens() for _ in range(3)]
        inside = 0
        epochs: list[int] = []

        async def own(store: Store) -> None:
            nonlocal inside
            async with owning(store) as owned:
                inside += 1
                assert inside == 1
                epochs.append(owned.epoch.number)
                await owned.append(made.user("mine"))
                inside -= 1

        await asyncio.gather(*(own(stores[n % 3]) for n in range(12)))
        assert epochs == sorted(set(epochs))
        assert len(await said(stores[0])) == 12

    async def test_a_waiter_gets_the_session_when_the_owner_settles(self, opens: Opens) -> None:
        here, there = opens(), opens()
        owned = await claim(here)
        waiting = asyncio.create_task(claim(there))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await owned.done()
        await (await waiting).done()

    async def test_a_waiter_that_is_cancelled_leaves_no_trace(self, opens: Opens) -> None:
        here, there = opens(), opens()
        owned = await claim(here)
        waiters = [asyncio.create_task(claim(store)) for store in (there, there, here)]
        await asyncio.sleep(0.05)
        for task in waiters[:2]:
            task.cancel()
        await asyncio.gather(*waiters[:2], return_exceptions=True)
        await owned.done()
        await (await waiters[2]).done()
        async with owning(there):
            pass

    async def test_an_input_is_claimed_once_and_in_its_turn(self, opens: Opens) -> None:
        here, there = opens(), opens()
        first, second = await accept(here, "one"), await accept(here, "two")
        assert (await refused_input(there, second)).why == "not next"
        owned = await claim_input(here, first)
        claimed, now = here.view_of(owned.owned), await there.input(first)
        assert claimed is not None
        assert (claimed.id, claimed.payload) == (first, {"content": "one"})
        assert (now.state, now.attempts, now.turn_id) == ("running", 1, owned.turn)
        await refused_input(there, first)
        await owned.answer()
        assert (await refused_input(there, first)).why == "gone"
        await (await claim_input(there, second)).answer()

    async def test_a_lane_has_a_width_over_all_processes(self, opens: Opens) -> None:
        limits = LaneLimits(widths={"cron": 1})
        here, there = opens(limits=limits), opens(limits=limits)
        owned = await claim(here, lane="cron")
        with pytest.raises(SessionBusyError, match="slots"):
            await claim(there, session=OTHER, lane="cron", wait_s=0.05)
        async with owning(there, session=OTHER, lane="main"):
            pass
        await owned.done()
        async with owning(there, session=OTHER, lane="cron"):
            pass

    async def test_a_wait_that_would_wait_for_itself_is_refused_at_once(self, opens: Opens) -> None:
        here, there = opens(), opens()
        mine, theirs = await claim(here), await claim(there, session=OTHER)
        ours = asyncio.create_task(claim(here, session=OTHER, parent=mine.turn))
        others = asyncio.create_task(claim(there, parent=theirs.turn))
        done, left = await asyncio.wait({ours, others}, return_when=asyncio.FIRST_COMPLETED)
        [refused], [waiting] = done, left  # whoever comes second closes the ring
        with pytest.raises(WaitRingError):
            refused.result()
        await (theirs if waiting is ours else mine).done()
        await (await waiting).done()
        await (mine if waiting is ours else theirs).done()

    async def test_a_turn_that_waits_for_another_lends_its_slot(self, opens: Opens) -> None:
        store = opens(limits=LaneLimits(widths={"cron": 1}))
        parent = await claim(store, lane="cron")
        owner = await claim(store, session=OTHER, lane="main")
        waiting = asyncio.create_task(claim(store, session=OTHER, lane="main", parent=parent.turn))
        async with owning(store, session="agent:main:third", lane="cron", wait_s=WAIT_S):
            pass
        await owner.done()
        await (await waiting).done()
        await parent.done()

    # ── dead and lapsed owners ────────────────────────────────────────────────────────────────────────────────────────

    async def test_the_turn_of_a_process_that_died_is_taken_at_once(self, backend: Backend, store: Store) -> None:
        async with holding(backend.location, SESSION) as process:
            with pytest.raises(SessionBusyError):
                await claim(store, wait_s=0.05)
            await kill(process)
            owned = await claim(store)
            assert owned.owned.took_over
            await owned.done()

    async def test_an_input_whose_process_died_goes_back_to_its_place(self, backend: Backend, store: Store) -> None:
        first, second = await accept(store, "one"), await accept(store, "two")
        async with holding(backend.location, SESSION, input_id=first) as process:
            assert (await store.input(first)).state == "running"
            await kill(process)
        await recovered(store)
        assert await store.recover_dead() == 0
        assert [(await store.input(one)).state for one in (first, second)] == ["queued", "queued"]
        owned = await claim_input(store, first)
        assert owned.owned.attempt == 2
        await owned.answer()

    async def test_a_final_line_that_nobody_settled_is_settled_by_whoever_comes_next(
        self, backend: Backend, store: Store
    ) -> None:
        input_id = await accept(store, "hello", route=ROUTE)
        async with holding(backend.location, SESSION, input_id=input_id, answer="done") as process:
            await kill(process)
        await recovered(store)
        view = await store.input(input_id)
        assert (view.state, view.answer) == ("answered", "done")
        [delivery] = await store.deliveries(state=None, limit=10)
        assert (delivery.input_id, delivery.body, delivery.state) == (input_id, "done", "pending")

    async def test_recovery_leaves_a_live_owner_alone(self, backend: Backend, store: Store) -> None:
        async with holding(backend.location, SESSION):
            assert await store.recover_dead() == 0
            with pytest.raises(SessionBusyError):
                await claim(store, wait_s=0.05)

    async def test_an_owner_whose_beat_stood_still_is_replaced_and_can_write_nothing_more(self, opens: Opens) -> None:
        clock = VirtualClock()
        stalled, taker = opens(), opens(clock=clock, beat_term_s=3.0)
        old = await claim(stalled)  # beats are never begun: as if the process were stopped
        await old.append(made.user("before"))
        taking = asyncio.create_task(claim(taker, wait_s=60.0))
        new = await while_time_passes(clock, taking)
        assert new.owned.took_over
        assert new.epoch.number > old.epoch.number
        with pytest.raises(SessionTakeoverError) as lost:
            await old.append(made.user("late"))
        assert lost.value.verdict.kind == "superseded"
        assert old.owned.lost is not None
        with pytest.raises(OwnershipLostError):
            await old.inspect()
        await new.append(made.user("after"))
        assert await said(taker) == ["before", "after"]
        await new.done()

    async def test_a_lapsed_claim_that_nobody_took_is_still_good(self, opens: Opens) -> None:
        store = opens(beat_term_s=0.0)
        owned = await claim(store)
        await owned.append(made.user("still mine"))
        assert (await owned.inspect()).kind == "unchanged"
        await owned.done()
