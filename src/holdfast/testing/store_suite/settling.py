"""How inputs end, and what is told of it."""

from __future__ import annotations

from holdfast.outbox.message import Outcome
from holdfast.store.protocol import Store, StoryLine
from holdfast.testing.store_suite.words import OTHER, ROUTE, SESSION, accept, claim_input


class SettlingSuite:
    """Settled once, with its deliveries and its story."""

    # ── settling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_settlement_brings_its_deliveries_along(self, store: Store) -> None:
        input_id = await accept(store, "hello", route=ROUTE)
        assert await (await claim_input(store, input_id)).answer("hi there") == "answered"
        view = await store.input(input_id)
        assert (view.state, view.answer, view.settled) == ("answered", "hi there", True)
        [delivery] = await store.deliveries(state="pending", limit=10, input_id=input_id)
        assert (delivery.route, delivery.part, delivery.body) == ("test:user", 0, "hi there")

    async def test_an_input_is_settled_once(self, store: Store) -> None:
        input_id = await accept(store, "hello", route=ROUTE)
        owned = await claim_input(store, input_id)
        await owned.answer("first")
        late = Outcome("failed", detail="too late", notice="too late")
        assert await store.settle(owned.owned, late, "failed", None, []) == "answered"
        assert await store.settle_salvaged(input_id, owned.epoch, Outcome("superseded", answer="x")) == "answered"
        assert (await store.input(input_id)).answer == "first"
        assert len(await store.deliveries(state=None, limit=10)) == 1

    async def test_an_input_that_was_put_back_is_next_again_and_is_not_charged(self, store: Store) -> None:
        first, _ = await accept(store, "one"), await accept(store, "two")
        for attempt in range(1, 6):
            owned = await claim_input(store, first)
            assert owned.owned.attempt == attempt
            await store.requeue(owned.owned, "the process goes away", charge=False)
        assert (await store.input(first)).state == "queued"

    async def test_an_input_whose_turns_keep_dying_fails_with_an_explanation(self, store: Store) -> None:
        input_id = await accept(store, "hello", route=ROUTE)
        for _ in range(3):
            await store.requeue((await claim_input(store, input_id)).owned, "it died", charge=True)
        view = await store.input(input_id)
        assert (view.state, view.detail) == ("failed", "it died")
        [told] = await store.deliveries(state=None, limit=10)
        assert "could not be answered" in told.body

    # ── the queue and the story ───────────────────────────────────────────────────────────────────────────────────────

    async def test_the_queue_shows_who_waits_and_who_runs(self, store: Store) -> None:
        first, second = await accept(store, "one"), await accept(store, "two")
        third = await accept(store, "three", session=OTHER, lane="cron")
        waiting, running, solo = await store.queue()
        assert ([one.id for one in waiting], running, solo) == ([first, second, third], {}, False)
        owned = await claim_input(store, first)
        waiting, running, _ = await store.queue()
        assert [(one.id, one.blocked) for one in waiting] == [(second, True), (third, False)]
        assert running == {"main": 1}
        await owned.answer()

    async def test_turns_and_sessions_tell_what_was_and_is(self, store: Store) -> None:
        input_id = await accept(store, "hello")
        owned = await claim_input(store, input_id)
        [session] = await store.sessions(prefix="agent:main:", limit=10)
        assert (session.key, session.owner_turn, session.owner_lane) == (SESSION, owned.turn, "main")
        [running] = await store.turns(session=SESSION, limit=10)
        assert (running.state, running.input_id, running.process) == ("running", input_id, store.process)
        await owned.answer()
        ended = await store.turn(owned.turn)
        assert ended is not None
        assert (ended.state, ended.outcome) == ("settled", "answered")
        [session] = await store.sessions(prefix="agent:main:", limit=10)
        assert session.owner_turn is None

    async def test_a_settlement_writes_the_story_of_its_turn(self, store: Store) -> None:
        input_id = await accept(store, "hello")
        owned = await claim_input(store, input_id)
        story: list[StoryLine] = [(1, SESSION, input_id, owned.turn, "turn.model", {"model": "demo/demo", "step": 1})]
        await store.settle(owned.owned, Outcome("skipped", detail="quiet hours"), "skipped", None, story)
        [line] = [one for one in await store.events(turn=owned.turn) if one["kind"] == "turn.model"]
        assert line["data"] == {"model": "demo/demo", "step": 1}
        assert (await store.input(input_id)).state == "skipped"
