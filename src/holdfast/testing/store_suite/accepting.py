"""Accepting inputs, and asking for their end."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import InputConflictError, InputError, UnknownInputError
from holdfast.inbound.event import Accepted, Duplicate, LaneFull
from holdfast.lane.policy import LaneLimits
from holdfast.lane.queue import QueueSettings
from holdfast.store.protocol import Store
from holdfast.testing.holder import holding, kill
from holdfast.testing.store_suite.words import (
    OTHER,
    ROUTE,
    SESSION,
    Backend,
    Opens,
    accept,
    claim_input,
    event,
    recovered,
    refused_input,
)


class AcceptingSuite:
    """The inbox: dedupe, limits, cancel requests."""

    # ── a busy session ────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_what_a_turn_takes_in_is_nobody_elses_while_it_lives_and_ends_with_its_answer(
        self, opens: Opens
    ) -> None:
        store, other = opens(), opens()
        owned = await claim_input(store, await accept(store, "first", route=ROUTE))
        second = await accept(store, "second", route=ROUTE, queue="steer")
        elsewhere = await accept(store, "elsewhere", queue="steer")
        assert [view.id for view in await store.join_waiting(owned.owned, "steer")] == [second]
        assert await store.join_waiting(owned.owned, "steer") == []
        assert [one.id for one in (await other.queue())[0]] == [elsewhere]
        await owned.answer("both", joined=(second,))
        assert [(await other.input(one)).state for one in (second, elsewhere)] == ["steered", "queued"]
        assert (await other.input(second)).answer == "both"

    async def test_what_the_answer_does_not_name_is_next_in_its_place(self, store: Store) -> None:
        owned = await claim_input(store, await accept(store, "first", route=ROUTE))
        second = await accept(store, "second", route=ROUTE, queue="steer")
        await store.join_waiting(owned.owned, "steer")
        await owned.answer("only the first")
        assert [one.id for one in (await store.queue())[0]] == [second]

    async def test_settings_of_a_queue_are_seen_by_every_process_and_can_be_forgotten(self, opens: Opens) -> None:
        store, other = opens(), opens()
        usual = QueueSettings(cap=7)
        await store.change_queue(SESSION, {"mode": "collect"})
        await store.change_queue(SESSION, {"debounce_ms": 0})
        assert await other.queue_settings(SESSION, usual) == QueueSettings("collect", 0, 7)
        await other.change_queue(SESSION, None)
        assert await store.queue_settings(SESSION, usual) == usual

    # ── accepting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_an_accepted_input_is_queued_and_keeps_what_was_said(self, store: Store) -> None:
        input_id = await accept(store, "hello", model="demo/demo", route=ROUTE)
        view = await store.input(input_id)
        assert (view.session, view.state, view.payload) == (SESSION, "queued", {"content": "hello"})
        assert (view.model, view.route, view.position, view.attempts) == ("demo/demo", "test:user", 0, 0)

    async def test_an_accepted_input_is_there_when_the_state_is_opened_again(self, opens: Opens) -> None:
        first = opens()
        input_id = await accept(first, "hello", key="k1")
        await first.close()
        assert (await opens().input(input_id)).state == "queued"

    async def test_the_same_key_and_body_is_the_same_input(self, store: Store) -> None:
        input_id = await accept(store, "hello", key="k1")
        again = await store.accept(event("hello", key="k1"))
        assert again == Duplicate(input_id, "queued")
        assert len(await store.inputs(session=SESSION, state=None, limit=10)) == 1

    async def test_the_same_key_with_another_body_is_refused_and_nothing_is_stored(self, store: Store) -> None:
        await accept(store, "hello", key="k1")
        with pytest.raises(InputConflictError):
            await store.accept(event("something else", key="k1"))
        assert len(await store.inputs(session=None, state=None, limit=10)) == 1

    async def test_a_key_belongs_to_its_source_and_account(self, store: Store) -> None:
        accepted = [
            await store.accept(event("hello", key="k1", source=source, account=account))
            for source, account in (("http", "a"), ("http", "b"), ("hook", "a"))
        ]
        assert all(isinstance(one, Accepted) for one in accepted)

    async def test_an_input_without_a_key_is_never_a_duplicate(self, store: Store) -> None:
        assert await accept(store, "hello") != await accept(store, "hello")

    async def test_of_the_same_key_sent_to_many_processes_at_once_one_is_accepted(self, opens: Opens) -> None:
        stores = [opens() for _ in range(3)]
        answers = await asyncio.gather(*(stores[n % 3].accept(event("hello", key="k1")) for n in range(30)))
        accepted = [one for one in answers if isinstance(one, Accepted)]
        assert len(accepted) == 1
        assert {one.input_id for one in answers if not isinstance(one, LaneFull)} == {accepted[0].input_id}

    async def test_a_session_and_a_lane_have_a_depth_and_past_it_nothing_is_stored(self, opens: Opens) -> None:
        store = opens(limits=LaneLimits(depth_max=3, per_session_max=1))
        for text in ("running soon", "waiting"):
            await accept(store, text)
        assert isinstance(await store.accept(event("too much")), LaneFull)
        await accept(store, "elsewhere", session=OTHER)
        assert isinstance(await store.accept(event("too much for the lane", session="agent:main:third")), LaneFull)
        assert len(await store.inputs(session=None, state=None, limit=10)) == 3

    async def test_a_session_key_that_no_store_can_hold_is_refused(self, store: Store) -> None:
        for key in ("", "x" * 513, "nul\x00"):
            with pytest.raises(InputError):
                await store.accept(event("hello", session=key))

    async def test_an_input_can_be_found_by_the_word_its_caller_gave_for_joining(self, store: Store) -> None:
        await accept(store, "hello")
        joined = await accept(store, "hello", origin={"join": "digest"})
        assert await store.find_join(SESSION, "digest", 0) == joined
        assert await store.find_join(SESSION, "other", 0) is None
        assert await store.find_join(OTHER, "digest", 0) is None

    async def test_an_unknown_input_is_an_error(self, store: Store) -> None:
        with pytest.raises(UnknownInputError):
            await store.input("in_nothing")

    # ── cancelling ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_queued_input_is_cancelled_at_once(self, store: Store) -> None:
        input_id = await accept(store, "hello")
        assert await store.request_cancel(input_id, "me") == "cancelled"
        assert await store.request_cancel(input_id, "me") == "already cancelled"
        assert (await refused_input(store, input_id)).why == "gone"

    async def test_a_running_input_is_asked_to_end_and_its_answer_wins(self, opens: Opens) -> None:
        here, there = opens(), opens()
        input_id = await accept(here, "hello")
        owned = await claim_input(here, input_id)
        assert await there.request_cancel(input_id, "me") == "requested"
        assert await here.cancel_requests() == {input_id: "me"}
        assert await owned.answer() == "answered"
        assert await there.request_cancel(input_id, "me") == "already answered"

    async def test_a_request_to_end_outlives_the_process_that_ran_the_input(
        self, backend: Backend, store: Store
    ) -> None:
        input_id = await accept(store, "hello")
        async with holding(backend.location, SESSION, input_id=input_id) as process:
            assert await store.request_cancel(input_id, "me") == "requested"
            await kill(process)
        await recovered(store)
        assert (await store.input(input_id)).state == "cancelled"
