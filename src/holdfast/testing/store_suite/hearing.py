"""What processes of one state hear of each other's work."""

from __future__ import annotations

from holdfast.outbox.message import Outcome
from holdfast.outbox.outbox import Change
from holdfast.store.protocol import Store
from holdfast.store.views import Backlog, Trouble
from holdfast.testing.clock import VirtualClock
from holdfast.testing.store_suite.words import OTHER, ROUTE, SESSION, Opens, accept, answered, claim_input


class HearingSuite:
    """`happened`: what others did since one last looked."""

    async def test_nothing_from_before_the_first_look_is_told(self, opens: Opens) -> None:
        here, there = opens(), opens()
        await answered(there, "hello", ROUTE)
        first = await here.happened(None)
        assert (first.accepted, first.started, first.told, first.ended) == ([], [], [], [])
        again = await here.happened(first.cursor)
        assert (again.accepted, again.started, again.told, again.ended) == ([], [], [], [])

    async def test_what_another_process_did_is_told_once_and_in_order(self, opens: Opens) -> None:
        here, there = opens(), opens()
        start = (await here.happened(None)).cursor
        await answered(there, "hello", ROUTE)
        seen = await here.happened(start)
        [accepted], [started], [(ended, view)] = seen.accepted, seen.started, seen.ended
        assert started.process == there.process
        assert (started.id, started.input_id) == (ended.id, accepted.id)
        assert ended.outcome == "answered"
        assert view is not None
        assert (view.state, view.answer) == ("answered", "re: hello")
        after = await here.happened(seen.cursor)
        assert (after.accepted, after.started, after.told, after.ended) == ([], [], [], [])

    async def test_what_a_process_did_itself_is_not_told_to_it(self, store: Store) -> None:
        start = (await store.happened(None)).cursor
        await answered(store, "hello", ROUTE)
        [seen] = await store.open_deliveries(["test"])
        await store.move_delivery(seen, "start", Change(piece_chars=9))
        heard = await store.happened(start)
        assert (heard.started, heard.told, heard.ended) == ([], [], [])

    async def test_deliveries_of_others_are_told(self, opens: Opens) -> None:
        here, there = opens(), opens()
        await answered(here, "hello", ROUTE)
        start = (await here.happened(None)).cursor
        [seen] = await there.open_deliveries(["test"])
        started = await there.move_delivery(seen, "start", Change(piece_chars=9))
        assert started is not None
        await there.move_delivery(started, "confirm")
        told = (await here.happened(start)).told
        assert [(one["kind"], one["data"]["event"]) for one in told] == [("delivery", "start"), ("delivery", "confirm")]

    async def test_the_end_of_a_turn_that_ran_when_one_began_to_look_is_told(self, opens: Opens) -> None:
        here, there = opens(), opens()
        held = await claim_input(there, await accept(there, "hello"))
        start = (await here.happened(None)).cursor
        assert (await here.happened(start)).ended == []
        await held.answer("hi")
        [(ended, view)] = (await here.happened(start)).ended
        assert ended.id == held.turn
        assert view is not None
        assert view.answer == "hi"

    async def test_what_waits_and_runs_is_counted_in_all_processes(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        assert await here.backlog() == Backlog({}, None, {}, {}, 0)
        await answered(here, "hello", ROUTE)
        made_ms = here.now_ms()
        await clock.advance(5.0)
        waits_ms = here.now_ms()
        first = await accept(here, "one", lane="cron")
        await clock.advance(5.0)
        await accept(here, "two", lane="cron")
        await accept(here, "three", session=OTHER)
        now = await there.backlog()
        assert (now.waiting, now.oldest_accepted_ms, now.running) == ({"cron": 2, "main": 1}, waits_ms, {})
        assert now.undelivered == {("test", "pending"): (1, made_ms)}
        held = await claim_input(here, first)
        now = await there.backlog()
        assert (now.waiting, now.running) == ({"cron": 1, "main": 1}, {"cron": 1})
        await held.answer()
        assert (await there.backlog()).running == {}

    async def test_waits_for_a_write_lock_are_told_while_somebody_listens(self, store: Store) -> None:
        told: list[float] = []
        with store.hear_of_lock_waits(told.append):
            await answered(store, "hello", ROUTE)
        assert all(seconds >= 0 for seconds in told)
        before = list(told)
        await answered(store, "again", ROUTE)
        assert told == before

    async def test_where_a_listener_has_come_to_is_kept_for_whoever_listens_next(self, opens: Opens) -> None:
        here, there = opens(), opens()
        assert await here.position("test") is None
        here.note_position("test", "nobody listens")
        assert await here.take_listening("test", None)
        here.note_position("test", "1")
        there.note_position("test", "not theirs")
        await here.leave_listening("test")
        assert await there.take_listening("test", None)
        assert await there.position("test") == "1"
        there.note_position("test", "2")
        await there.leave_listening("test")
        assert await here.position("test") == "2"
        assert await here.position("other") is None

    async def test_what_went_wrong_is_told_since_a_time(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        await answered(here, "goes well", ROUTE)
        assert await there.trouble(since_ms=0, limit=10) == Trouble([], [], [])
        first = await accept(here, "hello")
        held = await claim_input(here, first)
        at_ms = here.now_ms()
        told = (at_ms, SESSION, first, held.turn, "turn.window", {"verdict": "foreign_turn", "detail": "x"})
        here.note_events([told, (at_ms, SESSION, first, held.turn, "turn.model", {"model": "m", "step": 1})])
        waiting = await accept(here, "waits behind it")
        assert await here.tell_of_holder(waiting, "(it waits)", "process p_x") == 0, "it has nowhere to be told"
        await here.tell_of_holder(waiting, "(it waits)", "process p_x")
        await here.settle(held.owned, Outcome("failed", detail="no more"), "failed", "no more", [])
        found = await there.trouble(since_ms=0, limit=10)
        assert [(line["kind"], line["input"]) for line in found.told] == [
            ("input.held_up", waiting),
            ("turn.window", first),
        ]
        assert [(turn.id, turn.outcome) for turn in found.turns] == [(held.turn, "failed")]
        await clock.advance(10.0)
        assert await there.trouble(since_ms=here.now_ms(), limit=10) == Trouble([], [], [])

    async def test_stories_of_many_turns_are_told_with_their_events(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        await answered(here, "hello", ROUTE)
        [seen] = await here.open_deliveries(["test"])
        await here.move_delivery(seen, "start", Change(piece_chars=9))
        await clock.advance(10.0)
        since_ms = here.now_ms()
        held = await claim_input(here, await accept(here, "next", session=OTHER))
        first, second = (await there.stories(since_ms=0, also=(), limit=10)).turns
        assert (first.turn.outcome, second.turn.state) == ("answered", "running")
        assert [line["kind"] for line in first.events] == ["delivery"]
        assert second.accepted_at_ms == since_ms
        assert [one.turn.id for one in (await there.stories(since_ms=since_ms, also=(), limit=10)).turns] == [
            second.turn.id
        ]
        both = (await there.stories(since_ms=since_ms, also=(first.turn.id, "turn_nobody"), limit=1)).turns
        assert [one.turn.id for one in both] == [first.turn.id, second.turn.id]
        await held.answer()
        await clock.advance(10.0)
        later = await there.stories(since_ms=here.now_ms(), also=(), limit=10)
        assert later.turns == []
        [sending] = await here.open_deliveries(["test"])
        await here.move_delivery(sending, "confirm")
        late = await there.stories(since_ms=here.now_ms(), also=(), limit=10, after=later.told)
        assert [one.turn.id for one in late.turns] == [first.turn.id], "its answer has arrived long after its end"
        assert (await there.stories(since_ms=here.now_ms(), also=(), limit=10, after=late.told)).turns == []
