"""What every store backend has to do alike, as tests: subclass `StoreSuite` and give it a `backend` fixture.

    class TestEmbedded(StoreSuite):
        @pytest.fixture
        def backend(self, tmp_path): ...

Several stores opened on one backend stand for several processes; a process that dies is a real one (`holder.py`).
Nothing here knows of files: what only one backend can promise is tested beside it. Needs pytest with pytest-asyncio in
auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pytest

from holdfast import ids
from holdfast.clock import Clock, SystemClock, iso
from holdfast.errors import (
    HoldfastError,
    InputConflictError,
    InputError,
    OwnershipLostError,
    SessionBusyError,
    SessionTakeoverError,
    UnknownInputError,
    WaitRingError,
)
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent, LaneFull, Route
from holdfast.lane.policy import LaneLimits
from holdfast.outbox.message import Outcome
from holdfast.outbox.outbox import Change
from holdfast.session import entries as made
from holdfast.session.entries import Entry, Origin, encode_line, stamped
from holdfast.session.fence import Epoch, Verdict
from holdfast.session.lines import Line
from holdfast.session.ownership import Busy, ClaimRequest
from holdfast.store.protocol import Build, Store, StoryLine
from holdfast.testing.clock import VirtualClock
from holdfast.testing.holder import holding, kill

SESSION = "agent:main:main"
OTHER = "agent:main:other"
ROUTE = Route("test", "user")
WAIT_S = 10.0
T = TypeVar("T")


class Backend(Protocol):
    """One state, empty at first, on which several stores may be opened as several processes would."""

    @property
    def location(self) -> str:
        """What `holdfast.open` takes, for processes of their own."""
        ...

    def open(self, *, clock: Clock, limits: LaneLimits, beat_term_s: float) -> Store: ...


Opens = Callable[..., Store]


class StoreSuite:
    """The conformance suite."""

    @pytest.fixture
    def backend(self) -> Backend:
        """To be given by the subclass."""
        raise NotImplementedError

    @pytest.fixture
    async def opens(self, backend: Backend) -> AsyncIterator[Opens]:
        """Opens another store on the state; all are closed at the end."""
        opened: list[Store] = []

        def open_one(
            *, clock: Clock | None = None, limits: LaneLimits | None = None, beat_term_s: float = 90.0
        ) -> Store:
            store = backend.open(clock=clock or SystemClock(), limits=limits or LaneLimits(), beat_term_s=beat_term_s)
            opened.append(store)
            return store

        yield open_one
        for store in opened:
            await store.close()

    @pytest.fixture
    def store(self, opens: Opens) -> Store:
        return opens()

    # ── accepting ────────────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── claiming ─────────────────────────────────────────────────────────────────────────────────────────────────────

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
        waiting = asyncio.create_task(claim(here, session=OTHER, parent=mine.turn))
        await asyncio.sleep(0.1)
        with pytest.raises(WaitRingError):
            await claim(there, parent=theirs.turn)
        await theirs.done()
        await (await waiting).done()
        await mine.done()

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

    # ── dead and lapsed owners ───────────────────────────────────────────────────────────────────────────────────────

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
        assert await store.recover_dead() == 1
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
        await store.recover_dead()
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

    # ── appending ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_lines_stand_in_order_each_on_the_one_before(self, store: Store) -> None:
        async with owning(store) as owned:
            for text in ("one", "two", "three"):
                await owned.append(made.user(text))
        lines = [line for line in await lines_of(store) if line.kind == "entry"]
        assert await said(store) == ["one", "two", "three"]
        assert [line.parent for line in lines] == [None, *(line.id for line in lines[:-1])]

    async def test_appending_the_same_id_again_writes_nothing(self, store: Store) -> None:
        async with owning(store) as owned:
            line = owned.line(made.user("once"))
            for _ in range(2):
                await store.append(owned.owned, [line], sync=False)
            assert owned.owned.has_landed(line[0])
        assert await said(store) == ["once"]

    async def test_a_second_attempt_does_not_write_the_lines_of_the_first_again(self, store: Store) -> None:
        input_id = await accept(store, "hello")
        first = await claim_input(store, input_id)
        line = first.line(made.user("hello"), inputs=(input_id,))
        await store.append(first.owned, [line], sync=True)
        await store.requeue(first.owned, "the process goes away", charge=False)
        second = await claim_input(store, input_id)
        assert second.owned.has_landed(line[0])
        await store.append(second.owned, [line], sync=True)
        assert await said(store) == ["hello"]
        await second.answer()

    async def test_nothing_happened_is_unchanged(self, store: Store) -> None:
        async with owning(store) as owned:
            await owned.append(made.user("hello"))
            assert (await owned.inspect()).kind == "unchanged"

    async def test_a_line_that_is_not_conversation_advances_the_transcript_and_loses_nobody(self, opens: Opens) -> None:
        here, there = opens(), opens()
        async with owning(here) as owned:
            await owned.append(made.user("hello"))
            label_id = await append_metadata(there, made.session_info("A name"))
            assert (await owned.inspect()).kind == "advanced"
            verdict = await owned.append(made.assistant("hi", model="demo/demo"))
            assert verdict.kind == "unchanged"
        last = (await lines_of(here))[-1]
        assert last.parent == label_id

    async def test_reading_changes_nothing(self, opens: Opens) -> None:
        here, there = opens(), opens()
        async with owning(here) as owned:
            await owned.append(made.user("hello"))
            for store in (here, there):
                assert await said(store) == ["hello"]
            assert (await owned.inspect()).kind == "unchanged"
            assert [line.type for line in await here.read_tail(owned.owned)][-1] == "message"

    # ── salvage ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_the_answer_of_a_superseded_turn_is_kept_as_a_line_that_is_not_conversation(
        self, opens: Opens
    ) -> None:
        old, new = await superseded(opens)
        kept = made.custom("holdfast:salvage", {"text": "late answer"})
        await old.store.salvage_line(old.owned, *old.line(kept))
        assert (await new.inspect()).kind == "advanced"
        assert [line.type for line in await lines_of(new.store) if line.kind == "entry"] == ["custom"]
        await new.done()

    async def test_a_kept_answer_settles_its_input_while_nobody_else_has_claimed_it(self, opens: Opens) -> None:
        input_id = await accept(opens(), "hello", route=ROUTE)
        old, new = await superseded(opens, input_id=input_id)
        assert (await new.store.input(input_id)).state == "queued"
        assert await old.store.settle_salvaged(input_id, old.epoch, KEPT) == "superseded"
        await new.done()
        [delivery] = await new.store.deliveries(state=None, limit=10)
        assert delivery.body == "kept"

    async def test_a_kept_answer_leaves_an_input_alone_that_somebody_else_has_claimed(self, opens: Opens) -> None:
        input_id = await accept(opens(), "hello")
        old, new = await superseded(opens, input_id=input_id)
        await new.done()
        again = await claim_input(opens(), input_id)
        assert await old.store.settle_salvaged(input_id, old.epoch, KEPT) == "running"
        assert await again.answer("the new one") == "answered"
        assert (await new.store.input(input_id)).answer == "the new one"

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────

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
        await store.recover_dead()
        assert (await store.input(input_id)).state == "cancelled"

    # ── the outbox ───────────────────────────────────────────────────────────────────────────────────────────────────

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
        assert await store.open_deliveries(["test"]) == [seen]

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
        assert (first.piece, first.is_last_piece) == ("re: ", False)
        after = await store.move_delivery(first, "confirm_piece")
        assert after is not None
        assert (after.state, after.attempts, after.sent_chars) == ("pending", 0, 4)
        second = await store.move_delivery(after, "start", Change(piece_chars=5))
        assert second is not None
        assert (second.piece, second.is_last_piece, second.key != first.key) == ("hello", True, True)

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

    # ── the queue and the story ──────────────────────────────────────────────────────────────────────────────────────

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


# ── words the tests are written in ───────────────────────────────────────────────────────────────────────────────────

KEPT = Outcome("superseded", answer="kept", detail="the conversation had moved on")


@dataclass(slots=True)
class Held:
    """An owned turn, and what its owner may do. `owned` is what the store handed out."""

    store: Store
    turn: str
    owned: Any

    @property
    def epoch(self) -> Epoch:
        return self.owned.epoch

    async def append(self, entry: Entry) -> Verdict:
        verdict, _ = await self.store.append(self.owned, [self.line(entry)], sync=False)
        return verdict

    async def inspect(self) -> Verdict:
        return await self.store.inspect(self.owned)

    async def answer(self, text: str = "hi") -> str | None:
        """Write the final line of the turn's input and settle; the state the input is in then."""
        view = self.store.view_of(self.owned)
        assert view is not None
        entry = made.assistant(text, model="demo/demo")
        line = self.line(entry, inputs=(view.id,), final=True)
        await self.store.append(self.owned, [line], sync=False)
        result = {"message": entry.message, "finish": "stop", "usage": None, "entry_id": line[0]}
        outcome = Outcome("answered", answer=text, result=result)
        return await self.store.settle(self.owned, outcome, "answered", None, [])

    async def done(self) -> None:
        """End a turn that answers nothing."""
        await self.store.settle(self.owned, None, "done", None, [])

    def line(self, entry: Entry, *, inputs: tuple[str, ...] = (), final: bool = False) -> tuple[str, Build]:
        """A line of the owner's and its id."""
        return build_line(
            entry, Origin(self.store.store_id, self.turn, self.epoch.number, "main", "turn", inputs, final)
        )


def event(text: str, *, session: str = SESSION, **facts: Any) -> InboundEvent:
    return InboundEvent(session, {"content": text}, **facts)


async def accept(store: Store, text: str, **facts: Any) -> str:
    admission = await store.accept(event(text, **facts))
    assert isinstance(admission, Accepted), admission
    return admission.input_id


async def ask_for(
    store: Store,
    *,
    session: str = SESSION,
    lane: str = "main",
    input_id: str | None = None,
    parent: str | None = None,
    wait_s: float = WAIT_S,
) -> Held | Busy:
    """Claim a session, or an input of it; raises as the store does."""
    transcript = await store.transcript_of(session)
    turn = ids.new_id("turn")
    request = ClaimRequest(turn, session, transcript, store.process, lane, ids.nonce(), input_id, parent)
    owned = await store.claim(request, wait_s=wait_s, fence_mode="strict")
    return owned if isinstance(owned, Busy) else Held(store, turn, owned)


async def claim(store: Store, **how: Any) -> Held:
    held = await ask_for(store, **how)
    assert isinstance(held, Held), held
    return held


async def claim_input(store: Store, input_id: str, *, wait_s: float = WAIT_S) -> Held:
    view = await store.input(input_id)
    return await claim(store, session=view.session, lane=view.lane, input_id=input_id, wait_s=wait_s)


async def refused_input(store: Store, input_id: str) -> Busy:
    """Ask for an input that cannot be had now."""
    view = await store.input(input_id)
    refused = await ask_for(store, session=view.session, lane=view.lane, input_id=input_id, wait_s=0.0)
    assert isinstance(refused, Busy)
    return refused


@asynccontextmanager
async def owning(store: Store, **how: Any) -> AsyncIterator[Held]:
    held = await claim(store, **how)
    yield held
    await held.done()


async def answered(store: Store, text: str, route: Route) -> str:
    """An input that came and was answered with "re: " and its text."""
    input_id = await accept(store, text, route=route)
    await (await claim_input(store, input_id)).answer(f"re: {text}")
    return input_id


def build_line(entry: Entry, origin: Origin) -> tuple[str, Build]:
    entry_id = ids.derived_id("suite", ids.nonce())
    now = iso(SystemClock().now())
    return entry_id, lambda parent: encode_line(
        stamped(entry, id=entry_id, parent=parent, timestamp=now, origin=origin)
    )


async def append_metadata(store: Store, entry: Entry) -> str:
    entry_id, build = build_line(entry, Origin(store.store_id, "", 0, "", "metadata"))
    await store.append_metadata(await store.transcript_of(SESSION), entry_id, build, sync=False)
    return entry_id


async def lines_of(store: Store) -> list[Line]:
    return await store.read_lines(await store.transcript_of(SESSION))


async def said(store: Store) -> list[str]:
    """The texts of all messages, oldest first."""
    return [made.text_of(line.value()["message"]) for line in await lines_of(store) if line.type == "message"]


async def while_time_passes(clock: VirtualClock, task: asyncio.Task[T]) -> T:
    """The task's result; a virtual second passes whenever it has had a moment to look around."""
    async with asyncio.timeout(WAIT_S):
        while not task.done():
            await clock.advance(1)
            await asyncio.wait({task}, timeout=0.02)
    return task.result()


async def superseded(opens: Opens, *, input_id: str | None = None) -> tuple[Held, Held]:
    """A turn (of `input_id`) that stood still, and the one that has taken its session."""
    clock = VirtualClock()
    old = await claim(opens(), input_id=input_id)
    new = await while_time_passes(clock, asyncio.create_task(claim(opens(clock=clock, beat_term_s=3.0), wait_s=60.0)))
    with pytest.raises(SessionTakeoverError):
        await old.inspect()
    return old, new
