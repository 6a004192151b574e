"""What is known of models: cool-downs, probes, pins, what people were told."""

from __future__ import annotations

from dataclasses import replace

from holdfast.inbound.event import Route
from holdfast.model.cooldown import ModelFailure, left_s
from holdfast.model.policy import Fallback, ModelFacts, ModelsAfter, Pin
from holdfast.outbox.message import answered_by
from holdfast.session import entries as made
from holdfast.store.protocol import Store
from holdfast.testing.clock import VirtualClock
from holdfast.testing.store_suite.words import ROUTE, SESSION, Held, Opens, accept, claim

KEY = ("lab", "k1", "m")


class ModelsSuite:
    """Everything but a user's choice may be lost to a power failure, nothing to a process that dies."""

    async def test_a_claim_brings_what_other_processes_know_of_models(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        assert await facts(there) == ModelFacts()
        here.note_model_failure(failed(here))
        here.note_model_failure(failed(here))
        pin = automatic(here)
        assert await here.replace_pin(SESSION, seen=None, pin=pin)
        known = await facts(there)
        [row] = known.cooldowns
        assert (row.key, row.errors, row.reason, row.label) == (KEY, 2, "rate_limit", "LAB_KEY")
        assert left_s(row, now_ms(there)) == 60
        assert known.pin == pin
        assert (await there.models()).cooldowns == [row]

    async def test_a_cooldown_outlives_every_process_and_is_forgotten_after_a_day(self, opens: Opens) -> None:
        clock = VirtualClock()
        first = opens(clock=clock)
        first.note_model_failure(failed(first))
        await first.models()
        await first.close()
        second = opens(clock=clock)
        assert [row.key for row in (await facts(second)).cooldowns] == [KEY]
        await clock.advance(25 * 3600)
        second.note_model_failure(replace(failed(second), model="other"))
        assert [row.model for row in (await facts(second)).cooldowns] == ["other"]

    async def test_what_is_well_again_is_removed_with_the_settlement(self, store: Store) -> None:
        store.note_model_failure(failed(store))
        await answered_with(store, ModelsAfter(well=(KEY,)))
        assert (await facts(store)).cooldowns == ()

    async def test_a_probe_that_succeeded_ends_the_cooldown_at_once(self, store: Store) -> None:
        store.note_model_failure(failed(store))
        [row] = (await facts(store)).cooldowns
        store.note_model_well(row)
        assert (await facts(store)).cooldowns == ()

    async def test_one_turn_at_a_time_probes_over_all_processes(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        for _ in range(3):
            here.note_model_failure(failed(here))
        owner = await claim(here)
        row = here.models_of(owner.owned).cooldowns[0]
        assert not await here.begin_probe(row, owner.turn, every_s=30)  # it was asked this very moment
        await clock.advance(40)
        assert await here.begin_probe(row, owner.turn, every_s=30)
        assert not await there.begin_probe(row, "turn_other", every_s=30)
        await clock.advance(40)
        assert not await there.begin_probe(row, "turn_other", every_s=30)  # the first one is still at it
        await owner.done()
        assert await there.begin_probe(row, "turn_other", every_s=30)

    async def test_a_cooldown_that_is_over_needs_no_leave(self, opens: Opens) -> None:
        clock = VirtualClock()
        store = opens(clock=clock)
        store.note_model_failure(failed(store))
        [row] = (await facts(store)).cooldowns
        await clock.advance(31)
        assert await store.begin_probe(row, "turn_1", every_s=300)

    async def test_a_pin_is_replaced_and_undone_only_as_it_was_seen(self, store: Store) -> None:
        pin = automatic(store)
        assert await store.replace_pin(SESSION, seen=None, pin=pin)
        assert not await store.replace_pin(SESSION, seen=None, pin=replace(pin, id="p2"))
        chosen = Pin("p3", SESSION, "own/model", "user", "chosen", now_ms(store), by="me")
        assert await store.choose_pin(SESSION, chosen) == pin
        store.undo_pin(SESSION, written=pin.id, before=None)
        assert await store.pins([SESSION, "agent:main:other"]) == {SESSION: chosen}
        store.undo_pin(SESSION, written=chosen.id, before=pin)
        assert (await facts(store)).pin == pin
        assert await store.choose_pin(SESSION, None) == pin
        assert await store.pins([SESSION]) == {}

    async def test_a_pin_holds_or_ends_with_the_settlement_if_it_is_still_that_one(self, store: Store) -> None:
        pin = replace(automatic(store), holds=False)
        await store.choose_pin(SESSION, pin)
        await answered_with(store, ModelsAfter(pin_holds="another"))
        assert await store.pins([SESSION]) == {SESSION: pin}
        await answered_with(store, ModelsAfter(pin_holds=pin.id))
        assert await store.pins([SESSION]) == {SESSION: replace(pin, holds=True)}
        await answered_with(store, ModelsAfter(checked=pin.id))
        assert (await store.pins([SESSION]))[SESSION].checked_at_ms >= pin.set_at_ms
        await answered_with(store, ModelsAfter(pin_ended=pin.id))
        assert await store.pins([SESSION]) == {}

    async def test_a_change_of_state_is_told_once_beside_the_answer(self, store: Store) -> None:
        now = Fallback(SESSION, "a/1", "b/2", "timeout", now_ms(store))
        tells = ModelsAfter(fallback=now, notice=("test", "owner", "b/2 stands in"))
        first = await answered_with(store, tells, ROUTE)
        assert (await facts(store)).fallback == now
        second = await answered_with(store, tells, ROUTE)  # it had begun before the first was settled
        bodies = {
            one: [row.body for row in await store.deliveries(state=None, limit=9, input_id=one)]
            for one in (first, second)
        }
        assert bodies == {first: ["b/2 stands in", "hi"], second: ["hi"]}
        await answered_with(store, ModelsAfter(fallback_before=now))
        assert (await facts(store)).fallback is None


def now_ms(store: Store) -> int:
    return store.now_ms()


def failed(store: Store) -> ModelFailure:
    return ModelFailure("lab", "k1", "m", "rate_limit", now_ms(store), label="LAB_KEY")


def automatic(store: Store) -> Pin:
    at_ms = now_ms(store)
    return Pin("p1", SESSION, "b/2", "auto", "timeout", at_ms, at_ms + 10**7, "a/1", "turn_1", at_ms)


async def facts(store: Store) -> ModelFacts:
    """What a turn of the session would begin with."""
    held = await claim(store)
    known = store.models_of(held.owned)
    await held.done()
    return known


async def answered_with(store: Store, after: ModelsAfter, route: Route | None = None) -> str:
    """Answer an input and keep what its turn has found out. Returns its id."""
    input_id = await accept(store, "hello", route=route)
    held: Held = await claim(store, input_id=input_id)
    message = made.assistant("hi", model="b/2").message
    await store.settle(held.owned, answered_by(message, None), "answered", None, [], after)
    return input_id
