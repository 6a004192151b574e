"""The outbox: what is undelivered, moved by compare-and-set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.errors import HoldfastError, OwnershipLostError
from holdfast.inbound.event import Route
from holdfast.outbox.message import delivery_id
from holdfast.outbox.outbox import Change
from holdfast.store.protocol import Store
from holdfast.testing.clock import VirtualClock
from holdfast.testing.store_suite.words import ROUTE, Opens, accept, answered, claim_input


class OutgoingSuite:
    """Deliveries on their way."""

    async def test_of_each_target_the_oldest_unfinished_delivery_is_shown(self, store: Store) -> None:
        for text, target in (("one", "a"), ("two", "a"), ("three", "b")):
            await answered(store, text, Route("test", target))
        await answered(store, "four", Route("elsewhere", "a"))
        seen = await store.open_deliveries(["test"])
        assert [(one.target, one.body, one.state, one.sender) for one in seen] == [
            ("a", "re: one", "pending", "nobody"),
            ("b", "re: three", "pending", "nobody"),
        ]
        assert await store.open_deliveries([]) == []

    async def test_a_delivery_moves_only_from_where_it_was_seen(self, opens: Opens) -> None:
        here, there = opens(), opens()
        await answered(here, "hello", ROUTE)
        [seen] = await here.open_deliveries(["test"])
        [seen_there] = await there.open_deliveries(["test"])
        started = await here.move_delivery(seen, "start", Change(piece_chars=9))
        assert started is not None
        assert (started.state, started.attempts, started.process) == ("started", 1, here.process)
        assert await there.move_delivery(seen_there, "start") is None
        [now] = await there.open_deliveries(["test"])
        assert (now.state, now.sender) == ("started", "alive")
        confirmed = await here.move_delivery(started, "confirm", Change("#1"))
        assert confirmed is not None
        assert await here.move_delivery(started, "confirm") is None
        assert await here.open_deliveries(["test"]) == []

    async def test_an_illegal_move_raises_and_changes_nothing(self, store: Store) -> None:
        await answered(store, "hello", ROUTE)
        [seen] = await store.open_deliveries(["test"])
        with pytest.raises(HoldfastError, match="no move"):
            await store.move_delivery(seen, "confirm")
        [still] = await store.open_deliveries(["test"])
        assert replace(still, idle_s=seen.idle_s) == seen  # it has only lain there a little longer

    async def test_a_refused_delivery_is_due_after_its_pause_and_keeps_its_place(self, opens: Opens) -> None:
        clock = VirtualClock()
        store = opens(clock=clock)
        await answered(store, "one", ROUTE)
        await answered(store, "two", ROUTE)
        [seen] = await store.open_deliveries(["test"])
        started = await store.move_delivery(seen, "start")
        assert started is not None
        await store.move_delivery(started, "refuse", Change("busy", retry_in_s=25))
        [waiting] = await store.open_deliveries(["test"])
        assert (waiting.body, waiting.due_in_s, waiting.detail) == ("re: one", 25.0, "busy")
        await clock.advance(25)
        [due] = await store.open_deliveries(["test"])
        assert (due.body, due.due_in_s, due.attempts) == ("re: one", 0.0, 1)

    async def test_the_pieces_of_a_delivery_are_confirmed_one_by_one(self, store: Store) -> None:
        await answered(store, "hello", ROUTE)
        [seen] = await store.open_deliveries(["test"])
        first = await store.move_delivery(seen, "start", Change(piece_chars=4))
        assert first is not None
        assert (first.piece, first.is_last_piece) == ("re:", False)
        after = await store.move_delivery(first, "confirm_piece")
        assert after is not None
        assert (after.state, after.attempts, after.sent_chars) == ("pending", 0, 4)
        second = await store.move_delivery(after, "start", Change(piece_chars=5))
        assert second is not None
        assert (second.piece, second.is_last_piece, second.key != first.key) == ("hello", True, True)

    async def test_what_is_shown_of_an_answer_is_forgotten_once_it_is_the_answer(self, opens: Opens) -> None:
        here, there = opens(), opens()
        input_id = await accept(here, "hello", route=ROUTE)
        key = delivery_id(input_id, ROUTE, 0)
        held = await claim_input(here, input_id)
        assert await here.begin_preview(key, input_id, "test", "user") is None
        again = await here.begin_preview(key, input_id, "test", "user")
        assert again is not None
        assert (again.process, again.reference, again.life) == (here.process, None, "alive")
        await here.name_preview(key, "#1")
        await held.answer("re: hello")
        [seen] = await here.open_deliveries(["test"])
        assert seen.id == key
        await here.close()
        left = await there.preview(seen.id)
        assert left is not None
        assert (left.reference, left.life) == ("#1", "dead")
        assert await there.previews_without_answer(["test"]) == [], "its answer is queued"
        started = await there.move_delivery(seen, "start", Change(piece_chars=9))
        assert started is not None
        await there.move_delivery(started, "confirm", Change("#1"))
        assert await there.preview(seen.id) is None

    async def test_nothing_is_shown_by_whoever_does_not_answer(self, opens: Opens) -> None:
        """One that stood still while another has answered would show a beginning beside the answer."""
        here, there = opens(), opens()
        input_id = await accept(here, "hello", route=ROUTE)
        held = await claim_input(here, input_id)
        key = delivery_id(input_id, ROUTE, 0)
        with pytest.raises(OwnershipLostError):
            await there.begin_preview(key, input_id, "test", "user")
        await held.answer("re: hello")
        with pytest.raises(OwnershipLostError):
            await here.begin_preview(key, input_id, "test", "user")
        assert await here.preview(key) is None

    async def test_the_sender_of_a_delivery_that_ended_is_dead(self, opens: Opens) -> None:
        sender, other = opens(), opens()
        await answered(sender, "hello", ROUTE)
        [seen] = await sender.open_deliveries(["test"])
        await sender.move_delivery(seen, "start")
        await sender.close()
        [left] = await other.open_deliveries(["test"])
        assert (left.state, left.sender) == ("started", "dead")
        unknown = await other.move_delivery(left, "sender_died", Change("it died"))
        assert unknown is not None
        labelled = await other.move_delivery(unknown, "resend_labelled", Change(label="(again)"))
        assert labelled is not None
        assert (labelled.state, labelled.label, labelled.attempts, labelled.key) == ("started", "(again)", 2, seen.key)

    async def test_every_move_of_a_delivery_is_in_the_story_of_its_input(self, store: Store) -> None:
        input_id = await answered(store, "hello", ROUTE)
        [seen] = await store.open_deliveries(["test"])
        started = await store.move_delivery(seen, "start")
        assert started is not None
        await store.move_delivery(started, "give_up", Change("no such chat"))
        told = [one["data"] for one in await store.events(input_id=input_id) if one["kind"] == "delivery"]
        assert [(one["event"], one["state"], one["detail"]) for one in told] == [
            ("start", "started", None),
            ("give_up", "failed", "no such chat"),
        ]
