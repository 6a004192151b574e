"""How conversations end and begin anew, what is thrown away in time, and what repairs may put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import pytest

from holdfast.errors import InputError, OwnershipLostError, UnknownInputError
from holdfast.inbound.event import Duplicate
from holdfast.model.policy import Pin
from holdfast.session import entries as made
from holdfast.store.protocol import Store
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.store.sql.tidying import ROWS_KEPT
from holdfast.store.views import ArchiveView, InUse
from holdfast.testing.store_suite.words import (
    OTHER,
    ROUTE,
    SESSION,
    Opens,
    accept,
    answered,
    claim,
    event,
    lines_of,
    owning,
    said,
    superseded,
)

T = TypeVar("T")


async def by_hand(store: Store, run: Callable[[Connection], T]) -> T:
    """What the ledger would hold after years, or after what a repair is for."""
    return await cast("Ledger", store).writer.submit(Job(run, durable=True))


async def put_away(store: Store, *, session: str = SESSION) -> ArchiveView:
    async with owning(store, session=session) as owned:
        done = await store.archive(owned.owned, session, why="asked", by="a test")
    assert isinstance(done, ArchiveView), done
    return done


async def spoken(store: Store, *texts: str) -> None:
    for text in texts:
        async with owning(store) as owned:
            await owned.append(made.user(text))


class KeepingSuite:
    async def test_what_is_put_away_makes_room_and_comes_back_with_its_title(self, store: Store) -> None:
        await spoken(store, "one", "two")
        await store.set_title(SESSION, "The first")
        before = [line.raw for line in await lines_of(store)]
        archive = await put_away(store)
        assert (archive.session, archive.title, archive.state, archive.by) == (SESSION, "The first", "kept", "a test")
        assert archive.bytes == sum(len(raw) + 1 for raw in before)
        assert await said(store) == []
        assert [line.type for line in await lines_of(store)] == ["session", "custom"]
        [view] = await store.sessions(prefix="agent:", limit=10)
        assert (view.title, view.archived_at_ms) == (None, archive.at_ms)
        assert await store.archives(SESSION, 10) == [archive]
        transcript = await store.transcript_of(SESSION)
        await store.check_archive(archive.id, transcript)
        async with owning(store) as owned:
            assert await store.restore(owned.owned, archive.id) is None
            assert await owned.append(made.user("three"))
        assert [line.raw for line in await lines_of(store)][: len(before)] == before
        assert await said(store) == ["one", "two", "three"]
        assert await store.archives(SESSION, 10) == []
        [view] = await store.sessions(prefix="agent:", limit=10)
        assert (view.title, view.archived_at_ms) == ("The first", None)
        with pytest.raises(UnknownInputError):
            await store.check_archive(archive.id, transcript)

    async def test_an_owner_goes_on_writing_after_it_has_put_its_transcript_away(self, store: Store) -> None:
        await spoken(store, "one")
        async with owning(store) as owned:
            assert isinstance(await store.archive(owned.owned, SESSION, why="reset", by="a test"), ArchiveView)
            await owned.append(made.user("two"))
            assert (await owned.inspect()).kind in ("unchanged", "advanced")
        await spoken(store, "three")
        assert await said(store) == ["two", "three"]

    async def test_nothing_is_put_away_while_an_input_waits_or_an_answer_is_on_its_way(self, store: Store) -> None:
        await answered(store, "one", ROUTE)
        async with owning(store) as owned:
            refused = await store.archive(owned.owned, SESSION, why="asked", by="a test")
        assert isinstance(refused, InUse)
        assert "not been delivered" in refused.why
        await accept(store, "two", session=OTHER)
        async with owning(store, session=OTHER) as owned:
            refused = await store.archive(owned.owned, OTHER, why="asked", by="a test")
        assert isinstance(refused, InUse)
        assert refused.why == "an input is open"
        assert await store.archives(None, -1) == []

    async def test_who_has_lost_a_session_neither_puts_it_away_nor_restores_into_it(self, opens: Opens) -> None:
        store = opens()
        await spoken(store, "one")
        archive = await put_away(store)
        old, new = await superseded(opens)
        with pytest.raises(OwnershipLostError):
            await old.store.archive(old.owned, SESSION, why="asked", by="a late one")
        with pytest.raises(OwnershipLostError):
            await old.store.restore(old.owned, archive.id)
        assert await store.archives(None, -1) == [archive]
        await new.done()

    async def test_a_deleted_archive_is_gone_and_one_of_another_session_is_none(self, store: Store) -> None:
        await spoken(store, "one")
        archive = await put_away(store)
        other = await store.transcript_of(OTHER)
        with pytest.raises(UnknownInputError):
            await store.check_archive(archive.id, other)
        assert await store.delete_archive(archive.id) == archive.bytes
        assert await store.archives(None, -1) == []
        assert await store.unfinished_archives() == []
        with pytest.raises(UnknownInputError):
            await store.delete_archive(archive.id)
        async with owning(store) as owned:
            with pytest.raises(UnknownInputError):
                await store.restore(owned.owned, archive.id)

    async def test_a_deletion_that_was_begun_is_ended_by_whoever_looks_next(self, opens: Opens) -> None:
        store = opens()
        await spoken(store, "one")
        archive = await put_away(store)
        begun = "update archives set state='deleting' where id=?"
        await by_hand(store, lambda conn: conn.execute(begun, (archive.id,)))  # as one that died then
        assert await opens().finish_deletions() == 1
        assert await store.finish_deletions() == 0

    async def test_the_plan_of_retention_sees_sizes_uses_and_archives(self, store: Store) -> None:
        await spoken(store, "one")
        archive = await put_away(store)
        await accept(store, "two", session=OTHER)
        conversations, kept, keys = await store.retained()
        by_key = {keys[one.id]: one for one in conversations}
        assert by_key[SESSION].is_empty
        assert by_key[OTHER].busy == "an input is open"
        assert [(one.id, one.bytes) for one in kept] == [(archive.id, archive.bytes)]

    async def test_of_all_processes_one_does_a_chore(self, opens: Opens) -> None:
        one, two = opens(), opens()
        assert await one.begin_chore("retention", 3600)
        assert not await two.begin_chore("retention", 3600)
        assert await two.begin_chore("another", 3600)

    # ── tidying ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_old_stories_go_and_what_is_open_and_every_key_stays(self, store: Store) -> None:
        await answered(store, "one", ROUTE)
        open_input = await accept(store, "two", key="k2")
        rows = [(f"turn_0{number:030d}",) for number in range(700)]

        def age(conn: Connection) -> None:
            conn.executemany(
                "insert into turns values(?,'agent:main:old','t','main',null,1,'p_old',null,'settled',1,1,'x','')",
                rows,
            )
            conn.executemany(
                "insert into events(seq, at_ms, session, turn, kind, data) values(?,1,'agent:main:old','t','k','{}')",
                [(-number,) for number in range(1, 700)],
            )
            # The newest 10,000 stay whatever their age; so let there be so many.
            conn.executemany(
                "insert into turns values(?,'agent:main:x','t','main',null,1,'p_old',null,'settled',9999999999999,"
                "9999999999999,'x','')",
                [(f"turn_z{number:030d}",) for number in range(ROWS_KEPT)],
            )

        await by_hand(store, age)  # years, in a moment
        assert await store.tidy() >= 690
        assert await store.tidy() == 0
        assert isinstance(await store.accept(event("two", key="k2")), Duplicate)
        assert (await store.input(open_input)).state == "queued"

    # ── repairs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_an_input_whose_turn_owns_nothing_is_put_back_and_one_that_runs_is_not(self, store: Store) -> None:
        input_id = await accept(store, "one")
        owned = await claim(store, input_id=input_id)
        assert await store.requeue_stranded(input_id) is None
        assert not await store.close_stray_turn(owned.turn)
        loose = "update transcripts set owner_turn=null, owner_process=null, owner_lane=null where owner_turn=?"
        await by_hand(store, lambda conn: conn.execute(loose, (owned.turn,)))  # what a repair is for
        assert await store.requeue_stranded(input_id) == "queued"
        assert await store.close_stray_turn(owned.turn)
        assert not await store.close_stray_turn(owned.turn)
        view = await store.turn(owned.turn)
        assert view is not None
        assert view.outcome == "died"

    async def test_queues_are_counted_anew(self, store: Store) -> None:
        await accept(store, "one")
        await by_hand(store, lambda conn: conn.execute("update depths set open=7, queued=7"))
        await store.recount_queues()
        counts = "select open, queued from depths order by transcript, lane"
        found = await by_hand(store, lambda conn: conn.execute(counts).fetchall())
        assert [tuple(row) for row in found] == [(1, 1), (1, 1)]

    async def test_a_pin_goes_only_if_it_is_this_very_one(self, store: Store) -> None:
        pin = Pin("pin1", SESSION, "demo/demo", "user", "asked", 1, by="somebody")
        assert await store.replace_pin(SESSION, seen=None, pin=pin)
        assert not await store.remove_pin(SESSION, "another")
        assert await store.remove_pin(SESSION, "pin1")
        assert not await store.remove_pin(SESSION, "pin1")

    async def test_a_transcript_is_listed_only_under_the_key_that_it_was_made_for(self, store: Store) -> None:
        await spoken(store, "one")
        path = await by_hand(store, lambda conn: conn.execute("select path from transcripts").fetchone()[0])
        assert not await store.list_session(SESSION, path)
        with pytest.raises(InputError):
            await store.list_session(OTHER, path)
        await by_hand(store, lambda conn: conn.execute("delete from sessions"))
        assert await store.list_session(SESSION, path)
        assert await said(store) == ["one"]
